"""Tiles cover a frame, and joined tiles are what the whole frame would have given."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from napari_tiled_unet import tiling
from napari_tiled_unet.blending import Blend
from napari_tiled_unet.errors import ImageError, ModelError, OptionsError, TiledUnetError
from napari_tiled_unet.tiling import Tile, TilePlan, plan_tiles, read_tile

Array = npt.NDArray[Any]
MODES = ("crop", "gaussian")
# A busy machine is no failure.
in_any_time = settings(deadline=None)
# Longest sides per number of axes, so that four axes stay small.
LONGEST = {1: 150, 2: 40, 3: 15, 4: 7}


@st.composite
def plans(draw: st.DrawFn, axes: tuple[int, ...] = (1, 2, 3, 4)) -> TilePlan:
    """Any plan: sides of 1, frames smaller than a tile, odd overlaps, strides per axis."""
    ndim = draw(st.sampled_from(axes))
    per_axis = []
    for _ in range(ndim):
        side = draw(st.integers(1, LONGEST[ndim]))
        stride = draw(st.sampled_from((1, 2, 3, 4, 8)))
        overlap = draw(st.integers(0, 9 if ndim < 3 else 3))
        tile = 2 * overlap + stride + draw(st.integers(0, 20))
        per_axis.append((side, tile, overlap, stride))
    return plan_tiles(*zip(*per_axis, strict=True))


def lengths(box: tuple[slice, ...]) -> tuple[int, ...]:
    return tuple(part.stop - part.start for part in box)


def random_frame(shape: tuple[int, ...], channels: int = 1, high: int = 50) -> Array:
    return np.random.default_rng(7).integers(0, high, (channels, *shape)).astype(np.float64)


def padded_whole(frame: Array, plan: TilePlan) -> Array:
    far = [(0, p - n) for p, n in zip(plan.padded, plan.shape, strict=True)]
    return np.pad(frame, [(0, 0), *far], mode="reflect")


# --- the plan ---------------------------------------------------------------------------


@in_any_time
@given(plans())
def test_every_voxel_is_written_exactly_once(plan: TilePlan) -> None:
    written = np.zeros(plan.shape, int)
    for tile in plan:
        assert min(lengths(tile.write)) >= 1
        written[tile.write] += 1
    assert (written == 1).all()


@in_any_time
@given(plans())
def test_reads_have_one_shape_start_on_the_stride_and_stay_inside(plan: TilePlan) -> None:
    assert all(p % s == 0 and 0 <= p - n < s for p, n, s in zip(plan.padded, plan.shape, plan.stride, strict=True))
    for tile in plan:
        assert lengths(tile.read) == plan.tile
        for read, stride, padded in zip(tile.read, plan.stride, plan.padded, strict=True):
            assert read.start % stride == 0
            assert 0 <= read.start < read.stop <= padded


@in_any_time
@given(plans())
def test_writes_lie_an_overlap_inside_reads_except_at_true_borders(plan: TilePlan) -> None:
    for tile in plan:
        for axis, (read, crop, write) in enumerate(zip(tile.read, tile.crop, tile.write, strict=True)):
            assert (crop.start, crop.stop) == (write.start - read.start, write.stop - read.start)
            assert write.start - read.start >= (plan.overlap[axis] if read.start > 0 else 0)
            assert read.stop - write.stop >= (plan.overlap[axis] if read.stop < plan.padded[axis] else 0)
            assert read.start > 0 or write.start == 0
            assert read.stop < plan.padded[axis] or write.stop == plan.shape[axis]


@in_any_time
@given(plans())
def test_a_plan_is_a_grid_numbered_in_order_without_a_tile_too_many(plan: TilePlan) -> None:
    assert [tile.index for tile in plan] == list(range(len(plan)))
    assert len(plan) == math.prod(len(starts) for starts in plan.starts)
    assert [tuple(r.start for r in tile.read) for tile in plan] == sorted(tuple(r.start for r in t.read) for t in plan)
    for starts, padded, tile, overlap, stride in zip(
        plan.starts, plan.padded, plan.tile, plan.overlap, plan.stride, strict=True
    ):
        longest_step = (tile - 2 * overlap) // stride * stride
        assert padded == tile or (len(starts) - 2) * longest_step < padded - tile


def test_a_frame_smaller_than_the_tile_is_one_tile_whatever_the_overlap() -> None:
    plan = plan_tiles((1, 30, 17), (64, 64, 64), (100, 100, 100), (8, 16, 16))
    assert plan.tiles == (
        Tile(0, (slice(0, 8), slice(0, 32), slice(0, 32)), *2 * ((slice(0, 1), slice(0, 30), slice(0, 17)),)),
    )


def test_the_drawing_shows_the_plan() -> None:
    plan = plan_tiles((29,), (16,), (3,), (4,))
    drawn = {line[4:12].strip(): line[13:] for line in (tiling.__doc__ or "").splitlines() if line.startswith("    ")}
    assert drawn["frame"] == "==" * 29
    assert drawn["padded"] == "==" * 29 + "~~" * (plan.padded[0] - 29)
    assert drawn["write"] == "".join(f"{tile.index}{tile.index}" * lengths(tile.write)[0] for tile in plan)
    for tile in plan:
        (read,), (crop,) = tile.read, tile.crop
        row = "  " * read.start + "rr" * crop.start + "WW" * (crop.stop - crop.start)
        assert drawn[f"tile {tile.index}"] == row + "rr" * (plan.tile[0] - crop.stop)


def test_spare_overlap_is_spread_over_all_seams() -> None:
    plan = plan_tiles((42,), (16,), (2,), (2,))
    assert plan.starts == ((0, 8, 16, 26),)
    assert [tile.write[0].start for tile in plan] == [0, 12, 20, 29]


def test_work_is_counted_in_voxels_computed() -> None:
    plan = plan_tiles((10, 100), (16, 40), (0, 10), (4, 4))
    assert (len(plan), plan.tile) == (4, (12, 40))
    assert plan.voxels_computed == 4 * 12 * 40
    assert plan.work_ratio == pytest.approx(1.92)


@pytest.mark.parametrize(("tile", "overlap"), [((64, 32), (8, 16)), ((64, 32), (8, 40)), ((64, 32), (8, 9))])
def test_an_overlap_that_leaves_less_than_a_stride_is_refused(tile: tuple[int, ...], overlap: tuple[int, ...]) -> None:
    with pytest.raises(
        OptionsError, match=rf"overlap {overlap[1]} .* tile 32 on axis 1, .* stride of 16 .* at most 8 "
    ):
        plan_tiles((100, 100), tile, overlap, (16, 16))


@in_any_time
@given(st.integers(0, 60), st.sampled_from((1, 2, 4, 16)), st.integers(1, 100))
def test_the_remedies_of_a_refusal_work(overlap: int, stride: int, tile: int) -> None:
    try:
        plan_tiles((1000,), (tile,), (overlap,), (stride,))
    except OptionsError as error:
        words = str(error).replace(";", "").split()
        smaller, larger = int(words[words.index("most") + 1]), int(words[-1])
        assert plan_tiles((1000,), (tile,), (smaller,), (stride,)).overlap == (smaller,)
        assert plan_tiles((1000,), (larger,), (overlap,), (stride,)).tile == (larger,)
    else:
        assert 2 * overlap + stride <= tile + stride - 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (((100, 100), (32,), (0, 0), (1, 1)), r"tile=\(32,\) has 1 numbers, the frame has 2 axes"),
        (((100,), (0,), (0,), (1,)), r"tile=\(0,\) has a number below 1"),
        (((100,), (32,), (-1,), (1,)), r"overlap=\(-1,\) has a number below 0"),
        (((100,), (32,), (0,), (0,)), r"stride=\(0,\) has a number below 1"),
        (((100,), (32.5,), (0,), (1,)), r"tile=\(32.5,\) must be a sequence of whole numbers"),
    ],
)
def test_arguments_out_of_range_are_named(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(OptionsError, match=message):
        plan_tiles(*arguments)


@pytest.mark.parametrize("shape", [(), (0,), (5, 0)])
def test_a_frame_without_voxels_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ImageError, match="has no voxels"):
        plan_tiles(shape, (4,) * len(shape), (0,) * len(shape), (1,) * len(shape))


# --- reading ----------------------------------------------------------------------------


@in_any_time
@given(plans())
def test_a_tile_reads_the_voxels_of_the_padded_whole(plan: TilePlan) -> None:
    frame = random_frame(plan.shape, channels=2).astype(np.uint8)
    whole = padded_whole(frame, plan)
    for tile in plan:
        voxels = read_tile(frame, tile, plan)
        assert voxels.dtype == frame.dtype
        np.testing.assert_array_equal(voxels, whole[(slice(None), *tile.read)])


def test_reflection_repeats_where_the_padding_is_longer_than_the_side() -> None:
    plan = plan_tiles((3, 1), (16, 4), (0, 0), (16, 4))
    voxels = read_tile(np.array([[[5], [6], [7]]]), plan.tiles[0], plan)
    assert voxels[0, :, 0].tolist() == [5, 6, 7, 6, 5, 6, 7, 6, 5, 6, 7, 6, 5, 6, 7, 6]
    assert (voxels == voxels[..., :1]).all()


def test_reading_touches_the_tile_only() -> None:
    class Frame:
        """An array that tells how much was asked of it."""

        def __init__(self, voxels: Array) -> None:
            self.voxels, self.shape, self.asked = voxels, voxels.shape, 0

        def __getitem__(self, box: Any) -> Array:
            part: Array = self.voxels[box]
            self.asked += part.size
            return part

    plan = plan_tiles((1000, 1003), (64, 64), (8, 8), (16, 16))
    frame = Frame(random_frame(plan.shape))
    for tile in plan.tiles[-2:]:
        frame.asked = 0
        read_tile(frame, tile, plan)  # type: ignore[arg-type]
        assert frame.asked <= 64 * 64
    inside = read_tile(frame.voxels, plan.tiles[0], plan)
    assert np.shares_memory(inside, frame.voxels)


@pytest.mark.parametrize("shape", [(1, 8, 9), (8, 8), (1, 1, 8, 8)])
def test_a_frame_of_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    plan = plan_tiles((8, 8), (8, 8), (0, 0), (4, 4))
    with pytest.raises(ImageError, match=r"does not fit a plan for \(c, 8, 8\)"):
        read_tile(np.zeros(shape), plan.tiles[0], plan)


# --- blending ---------------------------------------------------------------------------


@in_any_time
@given(plans(), st.sampled_from(MODES))
def test_a_constant_blends_to_the_constant(plan: TilePlan, mode: Any) -> None:
    blend = Blend(plan, 2, mode)
    maps = np.stack([np.full(plan.tile, 0.3, np.float32), np.full(plan.tile, -7, np.float32)])
    for tile in reversed(plan.tiles):
        blend.add(tile, maps)
    result = blend.finish()
    assert result.shape == (2, *plan.shape)
    assert result.dtype == np.float32
    rounding = 2e-6 if mode == "gaussian" else 0
    np.testing.assert_allclose(result[0], np.float32(0.3), rtol=rounding)
    np.testing.assert_allclose(result[1], -7, rtol=rounding)


@in_any_time
@given(plans())
def test_gaussian_shares_are_never_zero_and_add_up_to_one(plan: TilePlan) -> None:
    blend = Blend(plan, 1, "gaussian")
    total = np.zeros(plan.padded)
    for tile in plan:
        share = blend.weights(tile)
        assert (share > 0).all()
        total[tuple(slice(r.start, r.start + n) for r, n in zip(tile.read, share.shape, strict=True))] += share
    frame = tuple(slice(0, n) for n in plan.shape)
    np.testing.assert_allclose(total[frame], 1, rtol=2e-6)
    total[frame] = 0
    assert not total.any()


@in_any_time
@given(plans())
def test_gaussian_is_the_weighted_mean_by_definition(plan: TilePlan) -> None:
    rng = np.random.default_rng(3)
    blend = Blend(plan, 1, "gaussian", np.float64)
    sides = [np.exp(-0.5 * ((np.arange(t) - (t - 1) / 2) / (t / 8)) ** 2).clip(1e-3) for t in plan.tile]
    bell = np.ones(())
    for side in sides:
        bell = np.multiply.outer(bell, side)
    total, weight = np.zeros(plan.padded), np.zeros(plan.padded)
    for tile in plan:
        maps = rng.normal(size=(1, *plan.tile))
        blend.add(tile, maps)
        total[tile.read] += bell * maps[0]
        weight[tile.read] += bell
    frame = tuple(slice(0, n) for n in plan.shape)
    np.testing.assert_allclose(blend.finish()[0], (total / weight)[frame], atol=1e-5)


def test_gaussian_trusts_the_middle_of_a_tile_more_than_its_side() -> None:
    plan = plan_tiles((24,), (16,), (4,), (8,))
    blend = Blend(plan, 1, "gaussian")
    for tile in plan:
        blend.add(tile, np.full((1, 16), tile.index, np.float32))
    result = blend.finish()[0]
    assert (np.diff(result[8:16]) > 0).all()
    assert result[8] < 0.01
    assert result[15] > 0.99
    assert (result[:8] == 0).all()
    assert (result[16:] == 1).all()


def test_crop_writes_into_a_given_array(tmp_path: Any) -> None:
    plan = plan_tiles((9, 30), (8, 16), (0, 4), (4, 4))
    out = np.memmap(tmp_path / "maps", dtype=np.float16, mode="w+", shape=(2, 9, 30))
    frame = random_frame(plan.shape, channels=2)
    blend = Blend(plan, 2, "crop", out=out)
    for tile in plan:
        blend.add(tile, read_tile(frame, tile, plan))
    assert blend.finish() is out
    np.testing.assert_array_equal(out, frame)


@pytest.mark.parametrize(("mode", "dtype"), [("crop", np.uint8), ("crop", np.float64), ("gaussian", np.float16)])
def test_the_dtype_asked_for_is_given(mode: Any, dtype: Any) -> None:
    plan = plan_tiles((30,), (16,), (4,), (4,))
    frame = random_frame(plan.shape)
    blend = Blend(plan, 1, mode, dtype)
    for tile in plan:
        blend.add(tile, read_tile(frame, tile, plan))
    result = blend.finish()
    assert result.dtype == dtype
    np.testing.assert_allclose(result, frame, rtol=1e-3)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"mode": "mean"}, r"blend='mean' is unknown; it must be 'crop' or 'gaussian'"),
        ({"channels": 0}, r"channels=0 maps cannot be blended"),
        ({"mode": "gaussian", "out": np.zeros((1, 30))}, r"blend='gaussian' .* cannot write into out"),
        ({"out": np.zeros((2, 30))}, r"out has shape \(2, 30\), the maps have \(1, 30\)"),
        ({"mode": "gaussian", "dtype": np.uint8}, r"dtype=uint8 cannot hold a weighted mean"),
    ],
)
def test_a_blend_that_cannot_be_is_refused(changed: dict[str, Any], message: str) -> None:
    plan = plan_tiles((30,), (16,), (4,), (4,))
    with pytest.raises(OptionsError, match=message):
        Blend(**{"plan": plan, "channels": 1, **changed})


@pytest.mark.parametrize("mode", MODES)
def test_tiles_are_added_once_each_in_the_right_shape(mode: Any) -> None:
    plan = plan_tiles((30,), (16,), (4,), (4,))
    maps = np.ones((1, 16), np.float32)
    blend = Blend(plan, 1, mode)
    with pytest.raises(ModelError, match=r"maps of shape \(1, 8\) for tile 0, \(1, 16\) is needed"):
        blend.add(plan.tiles[0], maps[:, :8])
    blend.add(plan.tiles[0], maps)
    with pytest.raises(TiledUnetError, match="tile 0 was added before"):
        blend.add(plan.tiles[0], maps)
    foreign = plan_tiles((60,), (16,), (2,), (4,)).tiles[1]
    with pytest.raises(TiledUnetError, match=r"tile 1 .* is not of this plan"):
        blend.add(foreign, maps)
    with pytest.raises(TiledUnetError, match=r"2 of 3 tiles were not added \(the first is 1\)"):
        blend.finish()


def test_crop_has_no_weights() -> None:
    plan = plan_tiles((30,), (16,), (4,), (4,))
    with pytest.raises(OptionsError, match="blend='crop' has no weights"):
        Blend(plan, 1, "crop").weights(plan.tiles[0])


# --- the identity that matters ----------------------------------------------------------


def fine_network(stride: tuple[int, ...]) -> tuple[Callable[[Array], Array], tuple[int, ...]]:
    """Two lopsided filters with a kink between; reach 3 on every axis, exact in whole numbers."""

    def run(x: Array) -> Array:
        for axis in range(1, x.ndim):
            x = ndimage.correlate1d(x, np.array([1.0, 3, -2, 1, 4]), axis, mode="constant")
        x = np.maximum(x, 3)
        for axis in range(1, x.ndim):
            x = ndimage.correlate1d(x, np.array([2.0, -1, 5]), axis, mode="constant")
        return x % 1009

    return run, (3,) * len(stride)


def coarse_network(stride: tuple[int, ...]) -> tuple[Callable[[Array], Array], tuple[int, ...]]:
    """Do what a U-Net does, in small: block sums of the stride, a filter there, nearest upsampling, the skip."""
    fine, reach = fine_network(stride)

    def run(x: Array) -> Array:
        x = fine(x)
        coarse = x
        for axis, s in enumerate(stride, start=1):
            blocks = (*coarse.shape[:axis], coarse.shape[axis] // s, s, *coarse.shape[axis + 1 :])
            coarse = coarse.reshape(blocks).sum(axis=axis + 1)
        for axis in range(1, x.ndim):
            coarse = ndimage.correlate1d(coarse, np.array([2.0, 1, 3]), axis, mode="constant")
        for axis, s in enumerate(stride, start=1):
            coarse = coarse.repeat(s, axis=axis)
        return (x + coarse) % 1013

    return run, tuple(r + 2 * s - 1 for r, s in zip(reach, stride, strict=True))


NETWORKS = {"fine": fine_network, "coarse": coarse_network}


def tiled(frame: Array, plan: TilePlan, network: Callable[[Array], Array]) -> Array:
    blend = Blend(plan, frame.shape[0], "crop")
    for tile in plan:
        blend.add(tile, network(read_tile(frame, tile, plan)))
    return blend.finish()


def whole(frame: Array, plan: TilePlan, network: Callable[[Array], Array]) -> Array:
    maps = network(padded_whole(frame, plan))
    return maps[(slice(None), *(slice(0, n) for n in plan.shape))]


@settings(max_examples=60, deadline=None)
@given(st.data(), st.sampled_from((1, 2, 3)), st.sampled_from(sorted(NETWORKS)))
def test_tiles_give_what_the_whole_gives_when_overlap_is_the_reach(data: st.DataObject, ndim: int, name: str) -> None:
    stride = data.draw(st.tuples(*[st.sampled_from((1, 2, 4) if ndim < 3 else (1, 2))] * ndim))
    network, reach = NETWORKS[name](stride)
    shape = data.draw(st.tuples(*[st.integers(1, {1: 200, 2: 60, 3: 28}[ndim])] * ndim))
    spare = data.draw(st.tuples(*[st.integers(0, 12)] * ndim))
    tile = tuple(2 * r + s + more for r, s, more in zip(reach, stride, spare, strict=True))
    plan = plan_tiles(shape, tile, reach, stride)
    frame = random_frame(shape)
    np.testing.assert_array_equal(tiled(frame, plan, network), whole(frame, plan, network))


@pytest.mark.parametrize("name", sorted(NETWORKS))
@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_tiles_without_overlap_show_seams(name: str, ndim: int) -> None:
    stride = (4,) * ndim
    network, reach = NETWORKS[name](stride)
    shape, tile = (37,) * ndim, (2 * max(reach) + 4,) * ndim
    frame = random_frame(shape)
    seams = plan_tiles(shape, tile, (0,) * ndim, stride)
    assert (tiled(frame, seams, network) != whole(frame, seams, network)).any()
    exact = plan_tiles(shape, tile, reach, stride)
    np.testing.assert_array_equal(tiled(frame, exact, network), whole(frame, exact, network))


@pytest.mark.parametrize("short", [0, 1])
def test_one_voxel_short_of_the_reach_is_not_exact(short: int) -> None:
    network, (reach,) = fine_network((1,))
    overlap = reach - short
    # Sides that leave no spare overlap, so that the seams have exactly the overlap asked for.
    step = 12 - 2 * overlap
    plan = plan_tiles((12 + 6 * step,), (12,), (overlap,), (1,))
    frame = random_frame(plan.shape)
    same = np.array_equal(tiled(frame, plan, network), whole(frame, plan, network))
    assert same is (short == 0)
