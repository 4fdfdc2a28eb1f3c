"""What is computed in strips is what would be computed at once, nothing twice, in memory that does not grow."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_tiled_unet.backends import bands, streaming
from napari_tiled_unet.backends.bands import compute_in_bands
from napari_tiled_unet.backends.interface import Prepared
from napari_tiled_unet.backends.pytorch import TorchBackend
from napari_tiled_unet.backends.streaming import Stream, can_stream, stream_costs
from napari_tiled_unet.networks.footprint import count_inference
from napari_tiled_unet.networks.zoo import ARCHITECTURES, Network
from tests.backends.test_agreement import network


def streamed(built: Network, x: torch.Tensor, axis: int, rows: int) -> torch.Tensor:
    changed, length = copy.deepcopy(built), x.shape[axis + 2]
    compute_in_bands(changed)
    stride = built.stride[axis]
    ahead = math.ceil(built.receptive_field[axis] / stride) * stride
    stream, answers, given_rows = Stream(changed, axis, length, rows), [], 0
    more = min(rows + ahead, length)
    while given_rows < length:
        strip = x.narrow(axis + 2, given_rows, more)
        given_rows += more
        stop = length if given_rows == length else given_rows - ahead
        answers.append(stream.push(strip, stop))
        assert sum(answer.shape[axis + 2] for answer in answers) == stop
        more = min(rows, length - given_rows)
    return torch.cat(answers, dim=axis + 2)


def assert_same(built: Network, shape: tuple[int, ...], axis: int, rows: int) -> None:
    x = torch.randn((1, 1, *shape), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = built(x)
        found = streamed(built, x, axis, rows)
    torch.testing.assert_close(found, expected, rtol=0, atol=4e-6 * float(expected.abs().max()))


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("architecture", [a for a in ARCHITECTURES if can_stream(network(a))])
def test_every_architecture_of_rows(architecture: str, ndim: int) -> None:
    built = network(architecture, ndim)
    axis = ndim - 2
    shape = tuple(60 if a == axis else 12 for a in range(ndim))
    assert_same(built, shape, axis, built.stride[axis])


def test_what_cannot_be_given_in_strips() -> None:
    refused = {name for name in ARCHITECTURES if not can_stream(network(name))}
    assert refused == {"unet-strided", "attention-unet", "unet-resnet34", "unet-efficientnet-b0"}


@pytest.mark.parametrize("downsample", ["max-pool", "strided-conv", "blur-pool"])
@pytest.mark.parametrize("upsample", ["transposed", "nearest", "linear", "pixel-shuffle"])
def test_every_way_down_and_up(downsample: str, upsample: str) -> None:
    built = network("unet", downsample=downsample, upsample=upsample, downsampling=((4, 1), (2, 2)))
    assert_same(built, (96, 12), 0, 8)
    assert_same(built, (16, 60), 1, 2)


@pytest.mark.parametrize("downsample", ["max-pool", "strided-conv", "blur-pool"])
@pytest.mark.parametrize("upsample", ["transposed", "nearest", "linear", "pixel-shuffle"])
def test_no_more_is_waited_for_than_the_receptive_field(downsample: str, upsample: str) -> None:
    built = network("unet", downsample=downsample, upsample=upsample, kernels=(1, 1))
    for rows in (4, 8, 12):
        assert_same(built, (60, 8), 0, rows)


@settings(max_examples=25, deadline=None)
@given(st.integers(10, 40), st.integers(1, 6), st.integers(1, 3), st.integers(0, 1))
def test_any_length_and_any_strips(length: int, rows: int, width: int, axis: int) -> None:
    shape = (4 * length, 4 * width) if axis == 0 else (4 * width, 4 * length)
    assert_same(network("unet"), shape, axis, 4 * rows)


@pytest.mark.parametrize("copy_work", [0, 10**6])
def test_units_that_keep_rows_and_units_that_do_not(copy_work: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "_COPY_WORK", copy_work)
    assert_same(network("unet"), (100, 12), 0, 16)


def test_bands_within_strips(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bands, "_BAND_VOXELS", 8)
    monkeypatch.setattr(bands, "_LEAST_ROWS", 3)
    assert_same(network("unet"), (100, 12), 0, 16)


def test_memory_does_not_grow_with_the_image() -> None:
    built = network("unet")
    sizes = [stream_costs(built, torch.float32, (length, 64), 0, 16)[0] for length in (256, 1024, 65536)]
    assert sizes[0] == sizes[1] == sizes[2]
    assert sizes[0] < 4 * 64 * 256 * count_inference(built, (256, 64)).peak_values


def test_costs_are_counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    built = network("unet")
    first = stream_costs(built, torch.float32, (256, 64), 0, 16)
    other = stream_costs(built, torch.float32, (256, 64), 0, 32)
    monkeypatch.setattr(streaming, "count_calls", None)
    assert stream_costs(built, torch.float32, (256, 64), 0, 16) == first != other


@pytest.mark.parametrize("length", [48, 400])
def test_work_is_that_of_the_whole_image_and_little_more(length: int) -> None:
    built = network("unet")
    _, work = stream_costs(built, torch.float32, (length, 64), 0, 32)
    assert 1.0 <= work / count_inference(built, (length, 64)).multiply_adds < 1.2


@pytest.mark.parametrize("copy_work", [0, 10**6])
def test_fused_in_torch(copy_work: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "_COPY_WORK", copy_work)
    built = network("unet")
    activate: Any = torch.sigmoid
    backend = TorchBackend(Prepared(built, activate, torch.device("cpu")), "float32")
    x = np.random.default_rng(0).standard_normal((1, 1, 96, 20), np.float32)
    ahead = math.ceil(built.receptive_field[0] / 4) * 4
    stream = backend.stream(0, 96, 16)
    cut = ahead + 16
    found = [stream.push(x[:, :, :cut], 16), stream.push(x[:, :, cut:], 96)]
    np.testing.assert_allclose(np.concatenate(found, axis=2), backend.run(x), atol=2e-6)
