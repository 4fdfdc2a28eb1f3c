"""Fused convolutions of the parts of joined features."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
from torch import nn

from napari_tiled_unet.backends.fusing import CountedConv, FusedConv, FusedTransposedConv, PairedMaxPool, can_fuse

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


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("joined", [False, True])
def test_weights_are_in_order_for_the_size_that_comes(
    dtype: torch.dtype, joined: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    if not can_fuse(2, dtype):
        pytest.skip("this torch has no fused convolutions in this number format")
    conv = nn.Conv2d(192, 192, 3, padding=1).to(dtype).to(memory_format=LAYOUT)  # type: ignore[call-overload]
    fused = FusedConv(conv, "relu")

    def run(side: int) -> torch.Tensor:
        x = torch.ones((1, 192, side, side), dtype=dtype).contiguous(memory_format=LAYOUT)
        return fused((x[:, :96], x[:, 96:]) if joined else x)

    with torch.inference_mode():
        small = run(16)
        run(64)
        capfd.readouterr()
        with torch.backends.mkldnn.verbose(torch.backends.mkldnn.VERBOSE_ON):
            large = run(64)
        done = [line for line in capfd.readouterr().out.splitlines() if ",exec," in line]
        assert any(",convolution," in line for line in done)
        # Parts that are views of joined channels are copied; that is no weight.
        assert not [line for line in done if ",reorder," in line and "192x" in line]
        torch.testing.assert_close(run(16), small, rtol=0, atol=0)
    middle = small[..., 7:8, 7:8].expand(1, 192, 48, 48)
    torch.testing.assert_close(large[..., 8:-8, 8:-8], middle, rtol=0.02, atol=0.02)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kernel", [2, (1, 2), (2, 1)])
@pytest.mark.parametrize("sides", [(6, 8), (7, 9), (3, 2)])
def test_pairs_give_what_pooling_gives(
    dtype: torch.dtype, kernel: int | tuple[int, int], sides: tuple[int, int]
) -> None:
    x = torch.randn((2, 16, *sides), generator=torch.Generator().manual_seed(1)).to(dtype)
    x[0, 0, 0, 0] = torch.nan
    pool = nn.MaxPool2d(kernel)
    found = PairedMaxPool(pool)(x.contiguous(memory_format=LAYOUT))
    assert PairedMaxPool.fits(pool)
    torch.testing.assert_close(found, pool(x), rtol=0, atol=0, equal_nan=True)
    assert found.is_contiguous(memory_format=LAYOUT)


def test_what_does_more_than_halve_is_left() -> None:
    poolings = (nn.MaxPool2d(3, 2, 1), nn.MaxPool2d(2, 1), nn.MaxPool2d(2, ceil_mode=True), nn.MaxPool3d((2, 3, 2)))
    assert not any(map(PairedMaxPool.fits, poolings))
    assert PairedMaxPool.fits(nn.MaxPool3d((1, 2, 2)))


def test_memory_goes_with_the_last_reference() -> None:
    # Not when cycles are looked for, which may be much later.
    made: list[nn.Module] = [
        FusedConv(nn.Conv2d(16, 16, 3, padding=1)),
        FusedTransposedConv(nn.ConvTranspose2d(16, 8, 2)),
    ]
    gc.disable()
    try:
        with torch.inference_mode():
            for module in made:
                module(torch.ones(1, 16, 8, 8).contiguous(memory_format=LAYOUT))
        gone = [weakref.ref(module) for module in made]
        del module, made
        assert [reference() for reference in gone] == [None, None]
    finally:
        gc.enable()
