"""Tiles that fit the memory, with the overlap that was asked for or is affordable."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_tiled_unet.candidates import Costs, Large
from napari_tiled_unet.errors import MemoryBudgetError, OptionsError
from napari_tiled_unet.networks.footprint import footprint
from napari_tiled_unet.networks.zoo import Network, build_network, network_spec
from napari_tiled_unet.planning import Choice, choose_soon, choose_tiles
from napari_tiled_unet.tiling import TilePlan, plan_tiles

NETWORK = build_network(network_spec("unet", width=4, depth=2, out_channels=2)).eval()
NETWORK_3D = build_network(network_spec("unet", ndim=3, width=4, depth=2, out_channels=2)).eval()


def choose(
    shape: tuple[int, ...],
    network: Network = NETWORK,
    tile: tuple[int, ...] | str = "auto",
    overlap: tuple[int, ...] | str = "auto",
    megabytes: float = 1000.0,
    **more: Any,
) -> Choice:
    return choose_tiles(shape, tile, overlap, network, costs=Costs(100.0, int(megabytes * 1e6)), **more)


def plan(
    shape: tuple[int, ...],
    network: Network = NETWORK,
    tile: tuple[int, ...] | str = "auto",
    overlap: tuple[int, ...] | str = "auto",
    megabytes: float = 1000.0,
    **more: Any,
) -> tuple[TilePlan, str | None]:
    choice = choose(shape, network, tile, overlap, megabytes, **more)
    return choice.plan, choice.caution


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
    chosen, caution = plan((3000, 2500), megabytes=100, trained_overlap=(8, 8))
    assert chosen.overlap == (8, 8)
    assert caution is None, "it was measured to be enough"
    _, caution = plan((3000, 2500), megabytes=100, overlap=(7,), trained_overlap=(8, 8))
    assert caution is not None


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
    assert footprint(wide, torch.float32).voxel_bytes > footprint(NETWORK, torch.float32).voxel_bytes
    assert footprint(wide, torch.float32).voxel_bytes > footprint(wide, torch.bfloat16).voxel_bytes


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


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_the_chosen_tiles_cost_no_more_than_the_others(data: st.DataObject) -> None:
    network = data.draw(st.sampled_from([NETWORK, NETWORK_3D]))
    shape = tuple(data.draw(st.integers(1, 3000 if network is NETWORK else 300)) for _ in network.stride)
    megabytes = data.draw(st.sampled_from([0.5, 3.0, 30.0, 300.0, 1000.0]))
    overlap = tuple(data.draw(st.integers(0, 20)) for _ in shape)
    try:
        choice = choose(shape, network, overlap=overlap, megabytes=megabytes)
    except MemoryBudgetError:
        assert math.prod(2 * o + 2 * s for o, s in zip(overlap, network.stride, strict=True)) * 100 > megabytes * 1e6
        return
    chosen = choice.considered[0]
    assert (chosen.tile, chosen.n_tiles, chosen.voxels) == (
        choice.plan.tile,
        len(choice.plan),
        choice.plan.voxels_computed,
    )
    assert chosen.bytes <= megabytes * 1e6
    assert chosen.cost >= chosen.work_ratio
    for other in choice.considered:
        if other.fits and other.bytes <= choice.costs.comfort and math.prod(other.tile) <= 2**22:
            assert other.cost >= chosen.cost * 0.999
        assert other.n_tiles == len(plan_tiles(shape, other.tile, overlap, network.stride))


def test_large_tiles_are_taken_where_smaller_ones_would_be_mostly_overlap() -> None:
    deep = build_network(network_spec("unet", ndim=3, width=4, depth=2))

    def chosen(overlap: int) -> Choice:
        return choose_tiles((64, 384, 384), "auto", (overlap,), deep, costs=Costs(100.0, 10**10))

    assert math.prod(chosen(4).plan.tile) <= 2**22
    assert chosen(51).plan.work_ratio < 1.25
    assert math.prod(chosen(51).plan.tile) > 2**22


def test_backends_that_hold_less_of_large_tiles_get_larger_ones() -> None:
    plain, sparing = Costs(1000.0, 10**9), Costs(1000.0, 10**9, large=Large(10**8, 300.0))
    assert sparing.bytes(1e4) == plain.bytes(1e4) == 1e7
    assert sparing.bytes(1e6) == 4e8
    assert sparing.voxels(1e9) == 3_000_000
    large, small = (choose_tiles((4096, 4096), "auto", (100,), NETWORK, costs=c) for c in (sparing, plain))
    assert large.plan.work_ratio < small.plan.work_ratio
    assert large.considered[0].bytes <= 10**9


def test_flat_stacks_get_flat_wide_tiles() -> None:
    chosen, _ = plan((12, 400, 400), NETWORK_3D, megabytes=60, overlap=(8,))
    assert chosen.tile[0] == chosen.padded[0] == 12
    assert min(chosen.tile[1:]) > 100


def test_memory_is_spent_where_it_saves_work() -> None:
    # Tiles of 0.75 GiB would compute each voxel many times over.
    dear, _ = plan((64, 600, 600), NETWORK_3D, overlap=(60,), megabytes=8000)
    assert math.prod(dear.tile) * 100 > 0.2 * 2**30
    # In two dimensions they do not.
    cheap, _ = plan((9000, 9000), overlap=(60,), megabytes=8000)
    assert math.prod(cheap.tile) * 100 <= 0.75 * 2**30


def test_small_tiles_go_in_batches() -> None:
    assert choose((600, 600), tile=(32,), overlap=(4,)).batch == 16
    assert choose((600, 600), tile=(512,), overlap=(4,)).batch == 1
    assert choose((40, 40), tile=(32,), overlap=(4,)).batch == 4, "no more than there are tiles"
    assert choose((600, 600), tile=(32,), overlap=(4,), megabytes=0.25).batch == 2, "no more than fit"


def test_a_smaller_tile_is_found_when_memory_was_short() -> None:
    before = choose((600, 600), tile=(256,), overlap=(16,)).plan
    after = choose((600, 600), tile=(256,), overlap=(16,), at_most=math.prod(before.tile) // 2).plan
    assert math.prod(after.tile) <= math.prod(before.tile) // 2
    assert after.overlap == before.overlap


def test_the_choice_explains_itself() -> None:
    choice = choose((3000, 2500), overlap="exact", megabytes=100)
    text = "\n".join(choice.explain())
    assert "the receptive field" in text
    assert "chosen" in text
    assert "does not fit" in text, "the whole frame was considered"
    assert f"{choice.plan.voxels_computed}" in text
    numbers = choice.numbers()
    assert numbers["tile"] == list(choice.plan.tile)
    assert numbers["work_ratio"] == pytest.approx(choice.plan.work_ratio, abs=1e-3)


@pytest.mark.parametrize("ndim", [2, 3])
def test_the_footprint_is_what_lives_at_the_peak(ndim: int) -> None:
    network = build_network(network_spec("unet", ndim=ndim, width=4, depth=2, out_channels=2)).eval()
    found = footprint(network, torch.float32)
    assert footprint(network, torch.float32) == found, "measured once"
    assert found.voxel_bytes > 4 * network.inference.peak_values + 8, "more than what is alive"
    assert footprint(network, torch.bfloat16).voxel_bytes == pytest.approx((found.voxel_bytes - 8) / 2 + 8)
    wide = footprint(
        build_network(network_spec("unet", ndim=ndim, width=8, depth=2, out_channels=2)).eval(), torch.float32
    )
    assert wide.voxel_bytes > 1.5 * found.voxel_bytes
    # The finest level alone: two convolutions down, two up (the first of twice the channels).
    finest = 3**ndim * (4 + 4 * 4 + 8 * 4 + 4 * 4)
    assert finest < found.voxel_work < 3 * finest
    assert wide.voxel_work == pytest.approx(4 * found.voxel_work, rel=0.1)
    assert found.operations > 20


@pytest.mark.parametrize(("overlap", "sooner"), [((0,), True), ((200,), False)])
def test_who_waits_gets_smaller_tiles_if_they_cost_little(overlap: tuple[int, ...], sooner: bool) -> None:
    def again(costs: Costs) -> Choice:
        return choose_tiles((4096, 4096), "auto", overlap, NETWORK, costs=costs)

    best = again(Costs(100.0, 10**9))
    soon = choose_soon(best, voxel_work=2e5, itemsize=4, choose=again)
    assert (math.prod(soon.plan.tile) <= 4e10 / 2e5) is sooner
    assert soon.plan.overlap == best.plan.overlap
    assert (soon == best) is not sooner
    assert choose_soon(best, voxel_work=1.0, itemsize=4, choose=again) is best, "soon enough as it is"
    on_a_card = replace(best, costs=replace(best.costs, device="cuda"))
    assert choose_soon(on_a_card, voxel_work=2e5, itemsize=4, choose=again) is on_a_card


@pytest.mark.parametrize("depth", [1, 2])
def test_flat_stacks_overlap_as_their_padded_frames_do(depth: int) -> None:
    flat, padded = (choose((z, 300, 300), NETWORK_3D, megabytes=10) for z in (depth, NETWORK_3D.stride[0]))
    assert len(flat.plan) > 1
    assert (flat.plan.overlap, flat.plan.tile) == (padded.plan.overlap, padded.plan.tile)
    assert flat.overlap_from == "the receptive field"


def test_one_tile_has_no_overlap_to_save_on() -> None:
    assert choose((1, 1)).overlap_from == "the receptive field"
