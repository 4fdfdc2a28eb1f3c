"""Tiles that fit the memory, with the overlap that was asked for or is affordable."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from napari_tiled_unet.errors import MemoryBudgetError, OptionsError
from napari_tiled_unet.networks.zoo import Network, build_network, network_spec
from napari_tiled_unet.planning import bytes_per_voxel, choose_tiles
from napari_tiled_unet.tiling import TilePlan
from tests.models import blob_model

NETWORK = build_network(network_spec("unet", width=4, depth=2, out_channels=2)).eval()
NETWORK_3D = build_network(network_spec("unet", ndim=3, width=4, depth=2, out_channels=2)).eval()


def plan(
    shape: tuple[int, ...],
    network: Network = NETWORK,
    tile: tuple[int, ...] | str = "auto",
    overlap: tuple[int, ...] | str = "auto",
    megabytes: float = 1000.0,
    **more: Any,
) -> tuple[TilePlan, str | None]:
    return choose_tiles(shape, tile, overlap, network, voxel_bytes=100.0, budget=int(megabytes * 1e6), **more)


def test_a_frame_that_fits_is_one_tile() -> None:
    whole, caution = plan((300, 500))
    assert (len(whole), whole.tile, caution) == (1, (300, 500), None)


@pytest.mark.parametrize(("shape", "network"), [((3000, 2500), NETWORK), ((60, 300, 300), NETWORK_3D)])
def test_tiles_stay_inside_the_memory(shape: tuple[int, ...], network: Network) -> None:
    for megabytes in (30, 60, 120, 400):
        chosen, _ = plan(shape, network, megabytes=megabytes)
        assert math.prod(chosen.tile) * 100 <= megabytes * 1e6
        assert len(chosen) > 1


def test_less_memory_never_means_fewer_tiles() -> None:
    counts = [len(plan((3000, 2500), megabytes=m)[0]) for m in (400, 120, 60, 30, 10)]
    assert counts == sorted(counts)
    assert counts[0] < counts[-1]


def test_auto_overlap_is_the_receptive_field_where_that_is_affordable() -> None:
    chosen, caution = plan((3000, 2500), megabytes=100)
    assert chosen.overlap == NETWORK.receptive_field
    assert caution is None


def test_auto_overlap_says_when_it_is_smaller() -> None:
    chosen, caution = plan((60, 300, 300), NETWORK_3D, megabytes=16)
    assert chosen.overlap < NETWORK_3D.receptive_field
    assert caution is not None
    assert "less than the network's receptive field" in caution
    assert "overlap='exact'" in caution


def test_exact_overlap_is_kept_whatever_it_costs() -> None:
    chosen, caution = plan((60, 300, 300), NETWORK_3D, overlap="exact", megabytes=40)
    assert chosen.overlap == NETWORK_3D.receptive_field
    assert caution is None


def test_the_specs_overlap_is_taken_by_auto() -> None:
    chosen, _ = plan((3000, 2500), megabytes=100, trained_overlap=(8, 8))
    assert chosen.overlap == (8, 8)


def test_what_is_asked_for_is_done() -> None:
    chosen, _ = plan((300, 500), tile=(64,), overlap=(8,))
    assert (chosen.tile, chosen.overlap) == ((64, 64), (8, 8))
    chosen, _ = plan((300, 500), tile=(64, 128), overlap=(8, 16))
    assert (chosen.tile, chosen.overlap) == ((64, 128), (8, 16))


def test_a_tile_that_does_not_fit_is_refused() -> None:
    with pytest.raises(
        MemoryBudgetError, match=r"a tile of \(2000, 2000\) voxels needs about 0.37 GiB, 0.09 GiB may be used"
    ):
        plan((3000, 2500), tile=(2000,), megabytes=100)
    with pytest.raises(MemoryBudgetError, match=r"the smallest tile that overlap .* allows"):
        plan((3000, 2500), overlap="exact", megabytes=0.01)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"tile": (8, 8, 8)}, r"tile=\(8, 8, 8\) has 3 numbers, the model has 2 axes; give 1 or 2"),
        ({"overlap": (8, 8, 8)}, r"overlap=\(8, 8, 8\) has 3 numbers"),
        ({"tile": (32,), "overlap": (16,)}, r"overlap"),
    ],
)
def test_wrong_tiles_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionsError, match=message):
        plan((300, 500), **given)


def test_wider_networks_and_wider_numbers_need_more_memory() -> None:
    wide = build_network(network_spec("unet", width=8, depth=2, out_channels=2))
    assert bytes_per_voxel(wide, torch.float32) > bytes_per_voxel(NETWORK, torch.float32)
    assert bytes_per_voxel(wide, torch.float32) > bytes_per_voxel(wide, torch.bfloat16)


def test_norms_that_look_at_the_whole_tile_are_said_not_to_be_exact() -> None:
    network = build_network(network_spec("unet", width=4, depth=2, out_channels=2, norm="instance")).eval()
    assert plan((300, 500), network)[1] is None
    _, caution = plan((3000, 2500), network, megabytes=100)
    assert caution is not None
    assert "instance norm looks at the whole of a tile" in caution


def test_an_axis_that_one_tile_covers_needs_no_overlap() -> None:
    _, caution = plan((8, 3000, 300), NETWORK_3D, tile=(8, 128, 300), overlap=(0, 40, 0))
    assert NETWORK_3D.receptive_field[1] <= 40
    assert caution is None


def test_tiles_that_are_watched_are_smaller() -> None:
    network = blob_model().network
    still, _ = choose_tiles((4096, 4096), "auto", "auto", network, voxel_bytes=10, budget=2**40)
    live, _ = choose_tiles((4096, 4096), "auto", "auto", network, voxel_bytes=10, budget=2**40, live=True)
    assert math.prod(live.tile) <= 2**20 < math.prod(still.tile)
    asked, _ = choose_tiles((4096, 4096), (2048,), "auto", network, voxel_bytes=10, budget=2**40, live=True)
    assert asked.tile == (2048, 2048)
