"""What the user edits is never written over, and what a run paints is nobody else's."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from napari.layers import Labels

from napari_tiled_unet.segmentation import segment
from napari_tiled_unet.viewer.layers import METADATA_KEY
from napari_tiled_unet.viewer.results import own_result
from napari_tiled_unet.viewer.running import Running
from tests.viewer.test_segment_widget import PLANE, long_run, result

if TYPE_CHECKING:
    from napari.viewer import Viewer

    from napari_tiled_unet.viewer.segment_widget import SegmentWidget

pytestmark = pytest.mark.filterwarnings("ignore:Conversion from CIE-LAB:UserWarning")  # napari's label colours

__all__ = ["long_run"]
Finish = Callable[["SegmentWidget"], None]


@pytest.fixture
def edited(viewer: Viewer, docked: SegmentWidget, finish: Finish) -> Labels:
    """Return the result of a run, in which something was painted."""
    viewer.add_image(PLANE, name="cells")
    docked.segment()
    finish(docked)
    layer = result(viewer)
    layer.mode = "paint"
    layer.paint((50, 60), 7)
    assert layer.data[50, 60] == 7
    return layer


class TestEdits:
    def test_they_are_noticed(self) -> None:
        from napari_tiled_unet.viewer.hands import follow_edits, is_edited, own_hand

        labels = Labels(np.zeros((8, 8), np.uint16))
        labels.paint((2, 2), 3)
        assert not is_edited(labels), "nobody asked"
        follow_edits(labels)
        with own_hand(labels):
            labels.data_setitem((np.array([1]), np.array([1])), 4)
            labels.data = labels.data.copy()
        assert not is_edited(labels)
        labels.paint((5, 5), 3)
        assert is_edited(labels)

    def test_replaced_data_are_an_edit(self) -> None:
        from napari_tiled_unet.viewer.hands import follow_edits, is_edited

        labels = Labels(np.zeros((8, 8), np.uint16))
        follow_edits(labels)
        labels.data = np.ones((8, 8), np.uint16)
        assert is_edited(labels)

    def test_a_brush_that_is_down_is_an_edit(self) -> None:
        from napari_tiled_unet.viewer.hands import follow_edits, is_edited

        labels = Labels(np.zeros((8, 8), np.uint16))
        follow_edits(labels)
        with labels.block_history():
            labels.paint((5, 5), 3)
            assert is_edited(labels)

    def test_new_labels_can_be_painted(self) -> None:
        from napari_tiled_unet.viewer.results import paintable

        few = paintable(np.array([0, 200], np.uint8))
        assert few.dtype == np.uint16
        many = np.array([0, 65_000], np.uint16)
        assert paintable(many).dtype == np.uint32
        assert paintable(few) is few


class TestRunAgain:
    def test_an_edited_result_is_left_alone(
        self, viewer: Viewer, docked: SegmentWidget, finish: Finish, edited: Labels
    ) -> None:
        assert edited.data.dtype == np.uint16
        before = edited.data.copy()
        docked.segment()
        finish(docked)
        np.testing.assert_array_equal(edited.data, before)
        new = viewer.layers["cells labels [1]"]
        np.testing.assert_array_equal(new.data, segment(PLANE, "blobs"))
        assert (
            "you edited 'cells labels', which stays as it is; these labels are in 'cells labels [1]'" in docked.status
        )
        # The new one is the result now: it is what is measured, and what the next run replaces.
        assert own_result(viewer.layers, viewer.layers["cells"]) is new
        docked.segment()
        finish(docked)
        assert "edited" not in docked.status
        assert [layer.name for layer in viewer.layers] == ["cells", "cells labels", "cells labels [1]"]

    def test_of_another_number_of_axes(
        self, viewer: Viewer, docked: SegmentWidget, finish: Finish, edited: Labels
    ) -> None:
        edited.data = np.stack([edited.data, edited.data])
        docked.segment()
        finish(docked)
        assert edited in viewer.layers
        assert edited.data.ndim == 3
        assert viewer.layers["cells labels [1]"].data.max() == 3

    def test_a_cancel_leaves_it_too(
        self,
        viewer: Viewer,
        docked: SegmentWidget,
        finish: Finish,
        edited: Labels,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        before, plan = edited.data.copy(), Running._plan

        def planned(self: Running, event: Any) -> None:
            plan(self, event)
            docked.cancel()

        monkeypatch.setattr(Running, "_plan", planned)
        docked.segment()
        finish(docked)
        np.testing.assert_array_equal(edited.data, before)
        assert [layer.name for layer in viewer.layers] == ["cells", "cells labels"]
        edited.undo()
        assert edited.data[50, 60] == 0, "it can still be taken back"


class TestSliders:
    def test_all(self, viewer: Viewer, docked: SegmentWidget, edited: Labels, qtbot: Any) -> None:
        before = edited.data.copy()
        docked._tune.slider("foreground_threshold").value = 0.1
        qtbot.waitUntil(lambda: not docked._tune.busy, timeout=10_000)
        np.testing.assert_array_equal(edited.data, before)
        new = viewer.layers["cells labels [1]"]
        np.testing.assert_array_equal(new.data, segment(PLANE, "blobs", foreground_threshold=0.1))
        assert new.data.dtype == np.uint16
        assert new.metadata[METADATA_KEY]["exact"]["foreground_threshold"] == 0.1
        assert edited.metadata[METADATA_KEY]["exact"].get("foreground_threshold") != 0.1
        assert "you edited 'cells labels'" in docked.status
        docked._tune.slider("foreground_threshold").value = 0.3
        qtbot.waitUntil(lambda: not docked._tune.busy, timeout=10_000)
        np.testing.assert_array_equal(new.data, segment(PLANE, "blobs", foreground_threshold=0.3))
        assert len(viewer.layers) == 3

    def test_the_view(self, viewer: Viewer, docked: SegmentWidget, edited: Labels, qtbot: Any) -> None:
        before, tune = edited.data.copy(), docked._tune
        tune.track("foreground_threshold").setSliderDown(True)
        tune.slider("foreground_threshold").value = 0.1
        qtbot.waitUntil(lambda: not tune._view_soon.isActive() and not tune._painter.busy, timeout=10_000)
        np.testing.assert_array_equal(edited.data, before)
        wider = segment(PLANE, "blobs", foreground_threshold=0.1)
        np.testing.assert_array_equal(viewer.layers["cells labels [1]"].data > 0, wider > 0)
        tune.track("foreground_threshold").setSliderDown(False)
        qtbot.waitUntil(lambda: not tune.busy, timeout=10_000)

    def test_data_of_another_shape(self, viewer: Viewer, docked: SegmentWidget, edited: Labels, qtbot: Any) -> None:
        edited.data = np.zeros((3, 4, 5), np.uint16)
        docked._tune.slider("foreground_threshold").value = 0.1
        qtbot.waitUntil(lambda: not docked._tune.busy, timeout=10_000)
        assert edited.data.shape == (3, 4, 5)
        wider = segment(PLANE, "blobs", foreground_threshold=0.1)
        np.testing.assert_array_equal(viewer.layers["cells labels [1]"].data, wider)


@pytest.fixture
def second(viewer: Viewer, long_run: SegmentWidget) -> SegmentWidget:
    """Return another Segment widget, set to the image that is being segmented."""
    from napari_tiled_unet.viewer.segment_widget import SegmentWidget

    widget = SegmentWidget(viewer)
    viewer.window.add_dock_widget(widget, name="another")
    widget.control("model").value = "blobs"
    return widget


class TestInRun:
    def test_a_second_run_is_refused_with_a_reason(
        self,
        viewer: Viewer,
        long_run: SegmentWidget,
        second: SegmentWidget,
        finish: Finish,
        notified: list[tuple[str, str]],
    ) -> None:
        assert not second.control("segment").enabled
        reason = "'large' is being segmented by another Segment widget; wait until that run ends, or cancel it"
        assert second.status == reason
        second.segment()
        assert not second.running
        assert notified == [("error", reason)]
        long_run.cancel()
        finish(long_run)
        assert second.status == ""
        assert second.control("segment").enabled

    @pytest.fixture
    def repainted(self, viewer: Viewer, docked: SegmentWidget, finish: Finish, qtbot: Any) -> SegmentWidget:
        """Return another Segment widget, which repaints the result of the first."""
        from napari_tiled_unet.viewer.segment_widget import SegmentWidget

        viewer.add_image(np.tile(PLANE, (12, 12)), name="large")
        docked.segment()
        finish(docked)
        other = SegmentWidget(viewer)
        viewer.window.add_dock_widget(other, name="another")
        for name, value in {"model": "blobs", "tile": "16", "overlap": "4"}.items():
            other.control(name).value = value
        other.segment()
        qtbot.waitUntil(lambda: other.status.startswith("tile 1"), timeout=20_000)
        return other

    def test_it_is_not_tuned_by_another(
        self, viewer: Viewer, docked: SegmentWidget, repainted: SegmentWidget, finish: Finish, qtbot: Any
    ) -> None:
        assert not docked._tune.native.isVisibleTo(docked.native)
        now = result(viewer).data
        docked._tune.slider("min_size").value = 900
        qtbot.waitUntil(lambda: not docked._tune.busy, timeout=10_000)
        assert result(viewer).data is now
        repainted.cancel()
        finish(repainted)
        assert docked._tune.native.isVisibleTo(docked.native)

    def test_it_is_not_improved(
        self,
        viewer: Viewer,
        repainted: SegmentWidget,
        finish: Finish,
        qtbot: Any,
        notified: list[tuple[str, str]],
    ) -> None:
        from napari_tiled_unet.viewer.improve_widget import ImproveWidget

        widget = ImproveWidget(viewer)
        viewer.window.add_dock_widget(widget, name="Improve")
        reason = "a run is making 'large labels'; wait until it ends, or cancel it"
        assert widget.control("result").value is result(viewer)
        assert not widget.control("improve").enabled
        assert widget.status == reason
        widget.improve()
        assert not widget.running
        assert notified == [("error", reason)]
        repainted.cancel()
        finish(repainted)
        qtbot.waitUntil(lambda: widget.control("improve").enabled, timeout=5_000)
        assert widget.status == ""

    def test_it_is_neither_measured_nor_compared_nor_learned_from(
        self, viewer: Viewer, repainted: SegmentWidget, finish: Finish
    ) -> None:
        from napari_tiled_unet.errors import ImageError
        from napari_tiled_unet.viewer.evaluate_widget import EvaluateWidget
        from napari_tiled_unet.viewer.measuring import measurement
        from napari_tiled_unet.viewer.teaching import labels_from_layer

        image, labels = viewer.layers["large"], result(viewer)
        with pytest.raises(ImageError, match="a run is making 'large labels'; wait until it ends"):
            measurement(labels, image)
        with pytest.raises(ImageError, match="a run is making 'large labels'; wait until it ends"):
            labels_from_layer(labels, image, "yx")
        widget = EvaluateWidget(viewer)
        viewer.window.add_dock_widget(widget, name="Evaluate")
        viewer.add_labels(labels.data.copy(), name="truth")
        widget.evaluate()
        assert widget.status == "a run is making 'large labels'; wait until it ends, or cancel it"
        repainted.cancel()
        finish(repainted)

    def test_labels_under_way_are_no_humans(self, viewer: Viewer, long_run: SegmentWidget, finish: Finish) -> None:
        from napari_tiled_unet.viewer.teaching import proposed

        fitting, taken = proposed(viewer.layers["large"], [result(viewer)])
        assert (fitting, taken) == ([result(viewer)], None)
        long_run.cancel()
        finish(long_run)
