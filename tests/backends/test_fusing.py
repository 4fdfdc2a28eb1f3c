"""Fused convolutions of the parts of joined features."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from napari_tiled_unet.backends.fusing import CountedConv, FusedConv, can_fuse

LAYOUT = torch.channels_last
pytestmark = pytest.mark.skipif(not can_fuse(2, torch.float32), reason="this torch has no fused convolutions")


def parts_of(*channels: int, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    parts = (torch.randn((1, c, 9, 7), generator=generator).to(dtype) for c in channels)
    return tuple(part.contiguous(memory_format=LAYOUT) for part in parts)


@pytest.mark.parametrize("channels", [(4, 4), (3, 5), (8, 4, 4), (2, 2, 2)])
@pytest.mark.parametrize("activation", ["none", "relu"])
def test_parts_give_what_they_give_joined(channels: tuple[int, ...], activation: str) -> None:
    parts = parts_of(*channels)
    conv = nn.Conv2d(sum(channels), 8, 3, padding=1).to(memory_format=LAYOUT)  # type: ignore[call-overload]
    fused = FusedConv(conv, activation)
    with torch.inference_mode():
        expected = conv(torch.cat(parts, dim=1))
        expected = expected.relu() if activation == "relu" else expected
        kept = [part.clone() for part in parts]
        for _ in range(2):
            torch.testing.assert_close(fused(parts), expected, rtol=0, atol=1e-5)
    assert fused.takes_parts
    for part, before in zip(parts, kept, strict=True):
        torch.testing.assert_close(part, before, rtol=0, atol=0)


def test_in_bfloat16_the_sum_is_rounded_as_features_are() -> None:
    if not can_fuse(2, torch.bfloat16):
        pytest.skip("this torch has no fused convolutions in bfloat16")
    parts = parts_of(16, 16, dtype=torch.bfloat16)
    conv = nn.Conv2d(32, 16, 3, padding=1).to(memory_format=LAYOUT)  # type: ignore[call-overload]
    with torch.inference_mode():
        expected = conv(torch.cat(parts, dim=1).float()).relu()
        conv = conv.to(torch.bfloat16)
        summed, joined = FusedConv(conv, "relu"), FusedConv(conv, "relu")
        assert summed.takes_parts
        wrong = (summed(parts) - expected).abs().max()
        usual = (joined(torch.cat(parts, dim=1)) - expected).abs().max()
    # Half a step of the format near the largest sum so far, at most.
    assert wrong <= usual + 2**-8 * expected.abs().max()


def test_not_where_the_library_cannot() -> None:
    conv = nn.Conv2d(8, 8, 3, padding=1)
    assert not FusedConv(conv, "leaky_relu", [0.01]).takes_parts
    assert not FusedConv(nn.Conv2d(8, 8, 3, padding=1, groups=2)).takes_parts
    assert not FusedConv(conv.to(torch.float16)).takes_parts


def test_what_is_counted_has_the_shape_of_what_is_computed() -> None:
    parts = tuple(part.to("meta") for part in parts_of(3, 5))
    counted = CountedConv(nn.Conv2d(8, 6, 3, padding=1).to("meta"))
    assert counted(parts).shape == (1, 6, 9, 7)
    assert counted(torch.cat(parts, dim=1)).shape == (1, 6, 9, 7)
    counted.padding = (0, 1)
    assert counted(parts).shape == (1, 6, 7, 7)
