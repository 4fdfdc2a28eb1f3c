"""Labels appear tile by tile, what is looked at first, and keep their colours."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from napari.layers import Labels

from napari_tiled_unet.events import Planned
from napari_tiled_unet.segmentation import segment
from napari_tiled_unet.tiling import plan_tiles
from napari_tiled_unet.viewer.layers import METADATA_KEY
from napari_tiled_unet.viewer.live import LiveLabels, TileLabels, keep_colours, middles_of, on_image, seen_as
from tests.viewer.test_segment_widget import PLANE, STACK, hidden_after_a_part, long_run, result

if TYPE_CHECKING:
    from napari.viewer import Viewer

    from napari_tiled_unet.viewer.segment_widget import SegmentWidget

pytestmark = pytest.mark.filterwarnings("ignore:Conversion from CIE-LAB:UserWarning")  # napari's label colours

__all__ = ["long_run"]
Finish = Callable[["SegmentWidget"], None]


class TestTileOnImage:
    @given(
        st.tuples(st.integers(5, 60), st.integers(5, 60)),
        st.tuples(st.integers(5, 60), st.integers(5, 60)),
    )
    def test_tiles_cover_the_image_once(self, image: tuple[int, int], network: tuple[int, int]) -> None:
        plan = plan_tiles(network, (16, 16), (2, 2), (2, 2))
        times = np.zeros(image, int)
        grid = np.arange(np.prod(network)).reshape(network)
        whole = np.zeros(image, int)
        for tile in plan:
            box, labels = on_image(grid[tile.write], tile.write, image, network)
            times[box] += 1
            whole[box] = labels
        assert (times == 1).all()
        if image == network:
            np.testing.assert_array_equal(whole, grid)


class TestMiddles:
    @given(st.lists(st.integers(1, 6), max_size=60))
    def test_every_label_has_one_of_its_voxels(self, drawn: list[int]) -> None:
        values = np.array(drawn, np.uint32)
        middles = middles_of(values)
        assert len(middles) == len(np.unique(values))
        for number, place in zip(np.unique(values), middles, strict=True):
            own = np.flatnonzero(values == number)
            assert place == own[len(own) // 2]


class TestColours:
    def test_no_object_changes_its_colour_when_the_final_labels_come(
        self, viewer: Viewer, docked: SegmentWidget, finish: Finish
    ) -> None:
        viewer.add_image(np.tile(PLANE, (4, 4)))
        docked.control("tile").value, docked.control("overlap").value = "64", "9"
        docked.segment()
        paint = docked._run._hear
        seen: list[np.ndarray] = []

        def hear(event: Any) -> None:
            paint(event)
            if isinstance(event, TileLabels):
                layer = result(viewer)
                seen[:] = [layer.data.copy(), layer.colormap.map(layer.data)]

        docked._run._run._on_event = hear
        finish(docked)
        layer = result(viewer)
        after = layer.colormap.map(layer.data)
        kept = 0
        for number in range(1, int(layer.data.max()) + 1):
            own = layer.data == number
            before = np.unique(seen[0][own])
            if len(before) == 1:  # an object that no tile cut
                np.testing.assert_allclose(after[own], seen[1][own])
                kept += 1
        assert kept > 10

    def test_numbers_past_the_last_colour_are_counted_round(self, viewer: Viewer) -> None:
        image = viewer.add_image(np.zeros((4, 4), np.float32))
        planned = Planned(1, 1, (4, 4), "yx", plan_tiles((4, 4), (4, 4), (0, 0), (1, 1)), "cpu", "float32", ())
        live = LiveLabels(viewer.layers, image, "yx", planned, {"y": 0, "x": 0})
        where = (np.array([0, 2, 2]), np.array([1, 1, 3]))
        values = np.array([2**16 - 1, 2**16, 2**16 + 1], np.uint32)
        live.paint(TileLabels(0, (), where, values, np.arange(3)))
        np.testing.assert_array_equal(live.layer.data[where], [2**16 - 1, 1, 2])

    def test_an_object_is_what_it_was_at_its_first_voxel(self) -> None:
        old = np.array([[0, 7, 7, 0, 9, 9], [0, 7, 7, 0, 9, 0]])
        new = np.array([[0, 2, 2, 0, 1, 1], [3, 2, 2, 0, 1, 0]])
        np.testing.assert_array_equal(seen_as(old, new), [0, 9, 7, 0])

    def test_unchanged_objects_keep_their_colour(self) -> None:
        old = np.zeros((40, 40), np.uint32)
        new = np.zeros((40, 40), np.uint16)
        for k, number in enumerate((3, 120, 71, 9)):
            old[k * 10 : k * 10 + 5, 4:9] = number
            new[k * 10 : k * 10 + 5, 4:9] = k + 1
        new[36:, 30:] = 5
        layer = Labels(old)
        before = layer.colormap.map(old)
        plain = layer.colormap.map(np.uint16(5))
        keep_colours(layer, seen_as(old, new))
        layer.data = new
        after = layer.colormap.map(new)
        same = (old > 0) | (new == 0)
        np.testing.assert_allclose(after[same], before[same])
        np.testing.assert_allclose(after[39, 35], plain)
        # More labels than there were stay colourful.
        assert len(np.unique(layer.colormap.map(np.arange(1, 40, dtype=np.uint16)), axis=0)) > 20

    def test_colours_of_the_users_own_are_left(self) -> None:
        from napari.utils.colormaps import DirectLabelColormap

        own = DirectLabelColormap(color_dict={None: "red", 1: "blue"})
        layer = Labels(np.ones((4, 4), np.uint8), colormap=own)
        keep_colours(layer, np.arange(2))
        assert layer.colormap == own


class TestRun:
    def test_tiles_appear_before_the_end(
        self, viewer: Viewer, long_run: SegmentWidget, finish: Finish, qtbot: Any
    ) -> None:
        labels = result(viewer)
        qtbot.waitUntil(lambda: labels.data.any(), timeout=20_000)
        assert labels.name == "large labels"
        assert METADATA_KEY not in labels.metadata
        assert np.count_nonzero(labels.data) < np.count_nonzero(np.tile(PLANE, (20, 20)) > 500)
        assert not labels.editable
        long_run.cancel()
        finish(long_run)
        assert labels not in viewer.layers

    def test_a_tile_that_is_final_is_what_will_be(self, viewer: Viewer, docked: SegmentWidget, finish: Finish) -> None:
        seen: list[np.ndarray] = []
        viewer.add_image(PLANE)
        docked.segment()
        paint = docked._run._hear

        def hear(event: Any) -> None:
            paint(event)
            if isinstance(event, TileLabels):
                seen.append(result(viewer).data.copy())

        docked._run._run._on_event = hear
        finish(docked)
        (only,) = seen
        np.testing.assert_array_equal(only, segment(PLANE, "blobs"))
        np.testing.assert_array_equal(result(viewer).data, only)

    @pytest.mark.parametrize("axes", ["tyx", "tzyx", "tcyx"])
    def test_frames_appear_where_they_belong(
        self, viewer: Viewer, docked: SegmentWidget, finish: Finish, axes: str
    ) -> None:
        data = STACK if axes == "tyx" else np.stack([STACK] * 2, axis=1)
        viewer.add_image(data, axis_labels=tuple(axes))
        if "c" in axes:
            docked.control("channel").value = 1
        docked.segment()
        last: list[np.ndarray] = []
        paint = docked._run._hear

        def hear(event: Any) -> None:
            paint(event)
            if isinstance(event, TileLabels):
                last[:] = [result(viewer).data.copy()]

        docked._run._run._on_event = hear
        finish(docked)
        np.testing.assert_array_equal(last[0] > 0, result(viewer).data > 0)

    def test_what_is_looked_at_comes_first(self, viewer: Viewer, docked: SegmentWidget, qtbot: Any) -> None:
        image = viewer.add_image(np.tile(PLANE, (20, 20)), name="large")
        docked.control("tile").value, docked.control("overlap").value = "32", "4"
        viewer.scene.camera.zoom, viewer.scene.camera.center = 10.0, (0.0, 1000.0, 1300.0)
        docked.segment()
        # However slow the window is to answer: the run waits to be told where to begin.
        time.sleep(1.5)
        qtbot.waitUntil(lambda: docked.status.startswith("tile ") and "tile 0 " not in docked.status, timeout=20_000)
        qtbot.waitUntil(lambda: np.count_nonzero(result(viewer).data) > 50, timeout=20_000)
        painted = np.argwhere(result(viewer).data)
        assert np.abs(painted - (1000, 1300)).max() < 250
        # The camera moves, and the run follows.
        viewer.scene.camera.center = (0.0, 200.0, 200.0)
        qtbot.waitUntil(lambda: result(viewer).data[150:250, 150:250].any(), timeout=20_000)
        docked.cancel()
        qtbot.waitUntil(lambda: not docked.running, timeout=20_000)
        assert list(viewer.layers) == [image]

    def test_cancelling_a_second_run_brings_the_first_back(
        self, viewer: Viewer, docked: SegmentWidget, finish: Finish, qtbot: Any
    ) -> None:
        image = viewer.add_image(np.tile(PLANE, (12, 12)), translate=(3.0, 4.0))
        docked.segment()
        finish(docked)
        first = result(viewer)
        data = first.data
        image.translate = (8.0, 9.0)
        docked.control("tile").value, docked.control("overlap").value = "16", "4"
        docked.segment()
        qtbot.waitUntil(lambda: docked.status.startswith("tile 1"), timeout=20_000)
        assert first.data is not data
        docked.cancel()
        finish(docked)
        assert first.data is data
        np.testing.assert_allclose(first.translate, (3.0, 4.0))

    def test_hidden_labels_of_another_shape(
        self, viewer: Viewer, docked: SegmentWidget, finish: Finish, qtbot: Any
    ) -> None:
        labels = hidden_after_a_part(viewer, docked, finish)
        whole = segment(PLANE, "blobs")
        np.testing.assert_array_equal(labels.data, whole)
        labels.visible = True
        np.testing.assert_array_equal(labels._slice.image.raw, whole)

    @pytest.mark.parametrize("shown_again", [False, True])
    def test_tiles_in_hidden_labels(self, viewer: Viewer, shown_again: bool) -> None:
        image = viewer.add_image(np.zeros((4, 6), np.float32))
        planned = Planned(1, 1, (4, 6), "yx", plan_tiles((4, 6), (4, 6), (0, 0), (1, 1)), "cpu", "float32", ())
        earlier = Labels(np.zeros((2, 3), np.uint16))
        earlier.metadata[METADATA_KEY] = {"source": str(image.unique_id), "layer": str(earlier.unique_id)}
        viewer.add_layer(earlier)
        earlier.visible = False
        live = LiveLabels(viewer.layers, image, "yx", planned, {"y": 0, "x": 0})
        assert live.layer is earlier
        for value, where in enumerate([(np.array([3]), np.array([5])), (np.array([2]), np.array([4]))], 1):
            live.paint(TileLabels(0, (), where, np.array([value], np.uint32), np.arange(1)))
            earlier.visible = shown_again
        earlier.visible = True
        np.testing.assert_array_equal(earlier.data[2:, 4:], [[2, 0], [0, 1]])
        np.testing.assert_array_equal(earlier._slice.image.raw, earlier.data)

    def test_removing_the_labels_ends_the_run(self, viewer: Viewer, long_run: SegmentWidget, finish: Finish) -> None:
        viewer.layers.remove(result(viewer))
        finish(long_run)
        assert [layer.name for layer in viewer.layers] == ["large"]
        assert long_run.status == "stopped: the labels layer was removed"
