"""A convolution of two columns at once against that of each."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from napari_tiled_unet.backends.columns import (
    as_columns,
    as_pairs,
    can_pair,
    channels_last,
    paired_weight,
    pairs_pay,
    stack_pays,
    stacked_weight,
    with_margin,
)
from napari_tiled_unet.backends.fusing import FusedConv, FusedTransposedConv, can_fuse


@given(
    ndim=st.sampled_from([2, 3]),
    channels=st.integers(1, 3),
    outputs=st.integers(1, 3),
    width=st.sampled_from([1, 3, 5]),
    pairs=st.integers(1, 6),
    padded=st.booleans(),
)
@settings(max_examples=40, deadline=None)
def test_two_columns_at_once_are_each_what_they_are_alone(
    ndim: int, channels: int, outputs: int, width: int, pairs: int, padded: bool
) -> None:
    generator = torch.Generator().manual_seed(pairs)
    margin = width // 2 if padded else 0
    columns = 2 * pairs + (0 if padded else width - 1)
    x = torch.randn((2, channels, *(4, 5)[: ndim - 1], columns), generator=generator, dtype=torch.float64)
    x = x.contiguous(memory_format=channels_last(ndim))
    weight = torch.randn((outputs, channels, *(3,) * (ndim - 1), width), generator=generator, dtype=torch.float64)
    convolve = functional.conv2d if ndim == 2 else functional.conv3d
    expected = convolve(x, weight, padding=(*(1,) * (ndim - 1), margin))
    seen = as_pairs(with_margin(x, margin))
    found = as_columns(convolve(seen, paired_weight(weight), padding=(*(1,) * (ndim - 1), 0)))
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("ndim", [2, 3])
def test_pairs_are_a_view(ndim: int) -> None:
    x = torch.zeros((1, 3, *(4,) * (ndim - 1), 6)).contiguous(memory_format=channels_last(ndim))
    pairs = as_pairs(x)
    assert pairs.shape == (1, 6, *(4,) * (ndim - 1), 3)
    assert pairs.is_contiguous(memory_format=channels_last(ndim))
    assert pairs.data_ptr() == as_columns(pairs).data_ptr() == x.data_ptr()


@pytest.mark.parametrize("kernel", [3, (3, 1, 3), (1, 3, 5)])
@pytest.mark.parametrize("columns", [8, 9])
def test_one_channel_in_bfloat16(kernel: int | tuple[int, int, int], columns: int) -> None:
    if not can_fuse(3, torch.bfloat16):
        pytest.skip("this torch has no fused convolutions in bfloat16")
    sizes = (kernel,) * 3 if isinstance(kernel, int) else kernel
    conv = nn.Conv3d(1, 16, sizes, padding=tuple(k // 2 for k in sizes)).to(torch.bfloat16)
    x = torch.randn((1, 1, 6, 7, columns), generator=torch.Generator().manual_seed(2)).to(torch.bfloat16)
    assert can_pair(conv)
    assert pairs_pay(x) == (columns == 8)
    fused = FusedConv(conv.to(memory_format=torch.channels_last_3d), "relu")  # type: ignore[call-overload]
    exact = conv.float()
    with torch.inference_mode():
        found = fused(x)
        # Rows beside a strip are there: no padding along an axis, be it that of the columns.
        strip, narrow = FusedConv(conv.to(torch.bfloat16), "relu"), FusedConv(conv, "relu")
        strip.padding = (0, *strip.padding[1:])
        narrow.padding = (*narrow.padding[:2], 0)
        half = sizes[2] // 2
        torch.testing.assert_close(strip(x), found[:, :, sizes[0] // 2 : 6 - sizes[0] // 2], rtol=0.02, atol=0.02)
        torch.testing.assert_close(narrow(x), found[..., half : columns - half], rtol=0.02, atol=0.02)
        torch.testing.assert_close(found.float(), exact.float()(x.float()).relu(), rtol=0.02, atol=0.02)
    assert found.is_contiguous(memory_format=torch.channels_last_3d)


def test_strides_and_groups_are_left() -> None:
    assert not can_pair(nn.Conv2d(1, 4, 3, stride=2))
    assert not can_pair(nn.Conv2d(1, 4, 3, dilation=2))
    assert not can_pair(nn.Conv2d(2, 4, 3, groups=2))
    assert not can_pair(nn.Conv2d(1, 4, (3, 1)))
    assert not pairs_pay(torch.zeros((1, 1, 8, 8)))
    assert not pairs_pay(torch.zeros((1, 2, 8, 8), dtype=torch.bfloat16))


@given(ndim=st.sampled_from([2, 3]), channels=st.integers(1, 3), outputs=st.integers(1, 3), width=st.integers(2, 4))
@settings(max_examples=20, deadline=None)
def test_columns_of_a_voxel_are_channels_of_one(ndim: int, channels: int, outputs: int, width: int) -> None:
    generator = torch.Generator().manual_seed(width)
    x = torch.randn((2, channels, *(4, 5, 3)[:ndim]), generator=generator, dtype=torch.float64)
    weight = torch.randn((channels, outputs, *(2,) * (ndim - 1), width), generator=generator, dtype=torch.float64)
    convolve = functional.conv_transpose2d if ndim == 2 else functional.conv_transpose3d
    strides = (2,) * (ndim - 1)
    found = as_columns(convolve(x, stacked_weight(weight), stride=(*strides, 1)), width)
    torch.testing.assert_close(found, convolve(x, weight, stride=(*strides, width)))


@pytest.mark.parametrize("outputs", [16, 48])
def test_transposed_in_bfloat16(outputs: int) -> None:
    if not can_fuse(3, torch.bfloat16):
        pytest.skip("this torch has no fused convolutions in bfloat16")
    conv = nn.ConvTranspose3d(32, outputs, 2, 2).to(torch.bfloat16)
    conv = conv.to(memory_format=channels_last(3))  # type: ignore[call-overload]
    assert stack_pays(conv) == (outputs == 16)
    x = torch.randn((1, 32, 3, 4, 5), generator=torch.Generator().manual_seed(3)).to(torch.bfloat16)
    x = x.contiguous(memory_format=channels_last(3))
    with torch.inference_mode():
        found = FusedTransposedConv(conv)(x)
        torch.testing.assert_close(found, conv(x), rtol=0.02, atol=0.02)
    assert found.is_contiguous(memory_format=channels_last(3))


def test_transposed_that_overlaps_is_left() -> None:
    assert not stack_pays(nn.ConvTranspose2d(4, 4, 3, 2, dtype=torch.bfloat16))
    assert not stack_pays(nn.ConvTranspose2d(4, 4, 2, 2, padding=1, dtype=torch.bfloat16))
    assert not stack_pays(nn.ConvTranspose2d(4, 4, (2, 1), (2, 1), dtype=torch.bfloat16))
    assert not stack_pays(nn.ConvTranspose2d(4, 4, 2, 2))
