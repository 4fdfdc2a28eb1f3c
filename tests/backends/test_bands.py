"""What is computed in bands is what would be computed at once, in less memory."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from napari_tiled_unet.backends import bands, interface
from napari_tiled_unet.backends.bands import compute_in_bands, large_bytes
from napari_tiled_unet.candidates import Large
from napari_tiled_unet.frame_plan import first_choice
from napari_tiled_unet.networks.footprint import count_inference, footprint, held_bytes
from napari_tiled_unet.networks.zoo import ARCHITECTURES, Network
from napari_tiled_unet.options import BackendName, SegmentOptions
from tests.backends.test_agreement import network
from tests.models import blob_model


@pytest.fixture(autouse=True)
def thin_bands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bands, "_BAND_VOXELS", 8)
    monkeypatch.setattr(bands, "_LEAST_ROWS", 3)


def in_bands(built: Network) -> Network:
    changed = copy.deepcopy(built)
    compute_in_bands(changed)
    return changed


def assert_same(built: Network, *shape: int) -> None:
    x = torch.randn((1, 1, *shape), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = built(x)
        torch.testing.assert_close(in_bands(built)(x), expected, rtol=0, atol=3e-6 * float(expected.abs().max()))


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_architecture(architecture: str, ndim: int) -> None:
    assert_same(network(architecture, ndim), *(20, 33, 18)[:ndim])


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_bands_lie_across_the_longest_axis(axis: int) -> None:
    shape = [12, 12, 12]
    shape[axis] = 31
    assert_same(network("unet", 3), *shape)


@pytest.mark.parametrize("downsample", ["max-pool", "strided-conv", "blur-pool"])
@pytest.mark.parametrize("upsample", ["transposed", "nearest", "linear", "pixel-shuffle"])
def test_every_way_down_and_up(downsample: str, upsample: str) -> None:
    assert_same(network("unet", downsample=downsample, upsample=upsample, downsampling=((4, 1), (2, 2))), 40, 28)


def test_networks_that_look_at_the_whole_are_left_alone() -> None:
    assert_same(network("unet", norm="instance"), 30, 22)


def test_features_are_cut_where_there_is_enough_of_them() -> None:
    assert bands.row_count((1, 8, 5, 100)) == (1, 3)
    assert bands.row_count((1, 8, 5, 5))[1] == 0
    assert bands.row_count((2, 8, 5, 100))[1] == 0


def test_less_is_held_at_a_time() -> None:
    built = network("unet")
    assert peak(in_bands(built)) < 0.6 * peak(built)


def test_what_is_held_is_known_before() -> None:
    built = network("unet")
    fixed, slope = large_bytes(built, torch.float32)
    for side in (64, 128, 256):
        counted = held_bytes(count_inference(in_bands(built), (side, side)).peak_values, torch.float32) * side**2
        assert counted <= 1.1 * (fixed + slope * side**2)
    assert fixed + slope * 256**2 < 0.7 * footprint(built, torch.float32).voxel_bytes * 256**2
    assert large_bytes(built, torch.bfloat16)[0] == fixed / 2


def test_the_planner_knows_where_nothing_but_torch_can_run(monkeypatch: pytest.MonkeyPatch) -> None:
    model = blob_model()

    def large(backend: BackendName) -> Large | None:
        options = SegmentOptions(backend=backend)
        return first_choice((64, 64), model, options, torch.float32, 2**30, "cpu").costs.large

    assert large("torch") is not None
    assert large("openvino") is None
    monkeypatch.setattr(interface, "_installed", lambda name: name == "torch")
    assert large("auto") == large("torch")


def peak(built: Any) -> float:
    return count_inference(built, (256, 256)).peak_values
