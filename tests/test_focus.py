"""What is looked at comes first, and changes nothing else."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from napari_tiled_unet import OptionsError, iter_segment
from napari_tiled_unet.events import Finished, FrameDone, Planned, TileDone
from napari_tiled_unet.focus import Focus
from napari_tiled_unet.tiling import plan_tiles
from tests.models import blobs

PLANE = blobs((96, 128), [(20, 20), (70, 30), (50, 100), (90, 120)])
PLAN = plan_tiles((96, 128), (32, 32), (4, 4), (2, 2))


def at(*start: float) -> Focus:
    focus = Focus()
    focus.look_at(start)
    return focus


def test_the_tile_under_the_focus_is_the_nearest() -> None:
    for y, x in [(0, 0), (95, 127), (50, 60), (10, 100)]:
        first = at(y, x).nearest_tile(PLAN, (1, 1))
        assert all(side.start <= v < side.stop for side, v in zip(first.write, (y, x), strict=True))


def test_tiles_follow_a_box_from_its_middle() -> None:
    focus = Focus()
    focus.look_at((30, 30), (90, 120))
    waiting = list(PLAN)
    order = []
    while waiting:
        order.append(focus.nearest_tile(waiting, (1, 1)))
        waiting.remove(order[-1])

    def meets(tile: object) -> bool:
        return all(s.start <= b and a < s.stop for s, (a, b) in zip(tile.write, ((30, 90), (30, 120)), strict=True))

    inside = [meets(tile) for tile in order]
    assert inside == sorted(inside, reverse=True)
    assert all(side.start <= v < side.stop for side, v in zip(order[0].write, (60, 75), strict=True))


def test_the_focus_is_in_voxels_of_the_labels() -> None:
    first = at(40, 60).nearest_tile(PLAN, (2, 2))
    assert all(side.start <= v < side.stop for side, v in zip(first.write, (80, 120), strict=True))


def test_without_a_focus_the_order_is_that_of_the_plan() -> None:
    focus = at(90, 90)
    focus.look_away()
    assert focus.extent is None
    assert focus.nearest_tile(PLAN, (1, 1)).index == 0
    assert focus.nearest_frame([(3,), (4,)], 2) == 0


def test_axes_in_front_may_be_left_out() -> None:
    frames = [(t, z) for t in range(3) for z in range(4)]
    assert at(50, 60).nearest_frame(frames, 2) == 0
    assert frames[at(2, 50, 60).nearest_frame(frames, 2)] == (0, 2)
    assert frames[at(1, 2, 50, 60).nearest_frame(frames, 2)] == (1, 2)
    assert at(1, 2, 50, 60).nearest_tile(PLAN, (1, 1)) == at(50, 60).nearest_tile(PLAN, (1, 1))


def test_a_focus_that_is_no_box_is_refused() -> None:
    with pytest.raises(OptionsError, match=r"is no box; give one start and one stop per axis"):
        Focus().look_at((1, 2), (3,))
    with pytest.raises(OptionsError, match=r"is no box"):
        Focus().look_at((1, 2), (0, 5))


def test_it_may_be_moved_by_any_thread() -> None:
    focus = Focus()
    threads = [threading.Thread(target=focus.look_at, args=((i, i),)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert focus.extent in [((i, i), (i, i)) for i in range(8)]


def test_labels_do_not_depend_on_the_order_of_tiles() -> None:
    plain = list(iter_segment(PLANE, "blobs", tile=32, overlap=6))
    focus = Focus()
    focus.look_at((90, 120))
    indices = []
    for event in iter_segment(PLANE, "blobs", tile=32, overlap=6, focus=focus):
        if isinstance(event, TileDone):
            indices.append(event.index)
            if len(indices) == 3:
                focus.look_at((0, 0))
        elif isinstance(event, Finished):
            np.testing.assert_array_equal(event.labels, plain[-1].labels)
    plan = next(e.plan for e in plain if isinstance(e, Planned))
    assert indices[0] == len(plan) - 1
    assert indices.index(0) <= 4, "a move counts at once, but for what is in work"
    assert sorted(indices) == list(range(len(plan)))


def test_labels_do_not_depend_on_the_order_of_frames() -> None:
    stack = np.stack([PLANE, PLANE[::-1], np.zeros_like(PLANE), PLANE[:, ::-1]])
    plain = list(iter_segment(stack, "blobs", axes="zyx"))
    focused = list(iter_segment(stack, "blobs", axes="zyx", focus=at(3, 10, 10)))
    assert [e.frame for e in focused if isinstance(e, FrameDone)] == [3, 2, 1, 0]
    np.testing.assert_array_equal(focused[-1].labels, plain[-1].labels)


@pytest.mark.parametrize("size", [None, 20.0])
def test_live_tiles_carry_their_maps(size: float | None) -> None:
    stack = np.stack([PLANE, PLANE[::-1]])
    events = list(iter_segment(stack, "blobs", axes="tyx", object_size=size, tile=32, overlap=6, live=True))
    plan = next(e.plan for e in events if isinstance(e, Planned))
    tiles = [e for e in events if isinstance(e, TileDone)]
    assert {e.position for e in tiles} == {(0,), (1,)}
    together = np.zeros((2, 2, *plan.shape), np.float32)
    for event in tiles:
        assert event.maps.dtype == np.float32
        together[event.frame][(slice(None), *event.tile.write)] = event.maps
    if size is None:
        kept = list(iter_segment(stack, "blobs", axes="tyx", tile=32, overlap=6, keep_maps=True))
        np.testing.assert_array_equal(np.moveaxis(kept[-1].maps, 0, 1), together)
        assert all(e.maps is None for e in kept if isinstance(e, TileDone))
