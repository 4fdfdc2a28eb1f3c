"""The segment widget in a real viewer: image in, labels out."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np
import pytest
from qtpy.QtWidgets import QApplication

from napari_tiled_unet.options import SegmentOptions
from napari_tiled_unet.segmentation import segment
from napari_tiled_unet.viewer.layers import METADATA_KEY
from tests.models import blobs

if TYPE_CHECKING:
    from napari.layers import Labels
    from napari.viewer import Viewer

    from napari_tiled_unet.viewer.segment_widget import SegmentWidget

pytestmark = pytest.mark.filterwarnings("ignore:Conversion from CIE-LAB:UserWarning")  # napari's label colours

Finish = Callable[["SegmentWidget"], None]
CENTRES = [(15, 20), (15, 50), (40, 30)]
PLANE = blobs((56, 72), CENTRES)
STACK = np.stack([PLANE, np.zeros_like(PLANE), blobs((56, 72), CENTRES[:1])])


def hidden_after_a_part(viewer: Viewer, docked: SegmentWidget, finish: Finish) -> Any:
    """Segment a part, hide the labels, segment all of the layer into them, and return them."""
    viewer.add_image(PLANE, name="cells")
    docked.control("run_on").value = "range ..."
    docked.control("region").value = "y=0:10,x=0:10"
    docked.segment()
    finish(docked)
    labels = result(viewer)
    labels.visible = False
    docked.control("run_on").value = "whole layer"
    docked.segment()
    finish(docked)
    return labels


def result(viewer: Viewer) -> Labels:
    """Return the only Labels layer of the viewer."""
    from napari.layers import Labels

    (layer,) = [layer for layer in viewer.layers if isinstance(layer, Labels)]
    return layer


def has_result(viewer: Viewer) -> bool:
    return any(METADATA_KEY in layer.metadata for layer in viewer.layers)


@pytest.fixture
def long_run(viewer: Viewer, docked: SegmentWidget, qtbot: Any) -> SegmentWidget:
    """Return a widget whose run has done its first tiles, of very many."""
    viewer.add_image(np.tile(PLANE, (20, 20)), name="large")
    docked.control("tile").value = "16"
    docked.control("overlap").value = "4"
    docked.segment()
    qtbot.waitUntil(lambda: docked.status.startswith("tile ") and "tile 0 " not in docked.status, timeout=20_000)
    return docked


class TestOneRun:
    def test_the_labels_are_those_of_the_python_function(
        self, viewer: Viewer, docked: SegmentWidget, finish: Finish
    ) -> None:
        viewer.add_image(PLANE, name="cells")
        docked.control("segment").native.click()
        assert docked.running
        finish(docked)
        labels = result(viewer)
        np.testing.assert_array_equal(labels.data, segment(PLANE, "blobs"))
        assert labels.name == "cells labels"
        assert docked.status.startswith("3 labels in ")

    def test_the_labels_lie_where_the_image_lies(self, viewer: Viewer, docked: SegmentWidget, finish: Finish) -> None:
        image = viewer.add_image(
            PLANE,
            scale=(2.0, 0.5),
            translate=(10.0, -5.0),
            rotate=30.0,
            shear=(0.3,),
            affine=np.array([[0.9, 0.2, 3.0], [-0.1, 1.1, 4.0], [0.0, 0.0, 1.0]]),
            units=("um", "um"),
            axis_labels=("y", "x"),
        )
        docked.segment()
        finish(docked)
        labels = result(viewer)
        for name in ("scale", "translate", "rotate", "shear", "affine"):
            np.testing.assert_allclose(
                np.asarray(getattr(labels, name)), np.asarray(getattr(image, name)), err_msg=name
            )
        assert labels.units == image.units
        assert labels.axis_labels == image.axis_labels
        for centre in CENTRES:
            assert labels.get_value(image.data_to_world(centre), world=True) > 0

    def test_provenance_is_kept(self, viewer: Viewer, docked: SegmentWidget, finish: Finish) -> None:
        image = viewer.add_image(PLANE, name="cells")
        docked.control("min_size").value = "5"
        docked.segment()
        finish(docked)
        mark = result(viewer).metadata[METADATA_KEY]
        assert mark["source"] == str(image.unique_id)
        assert mark["model"] == "blobs"
        assert mark["options"] == {"model": "blobs", "axes": "yx", "min_size": 5}

    def test_options_reach_the_run(self, viewer: Viewer, docked: SegmentWidget, finish: Finish) -> None:
        viewer.add_image(PLANE)
        docked.control("min_size").value = "5000"
        docked.segment()
        finish(docked)
        assert result(viewer).data.max() == 0
        assert docked.status.startswith("nothing found in ")

    def test_a_caution_is_a_warning(
        self, viewer: Viewer, docked: SegmentWidget, finish: Finish, notified: list[tuple[str, str]]
    ) -> None:
        broken = PLANE.astype(np.float32)
        broken[0, 0] = np.nan
        viewer.add_image(broken, contrast_limits=(0, 1000))
        docked.segment()
        finish(docked)
        assert [severity for severity, _ in notified] == ["warning"]
        assert notified[0][1] in docked.status

    def test_progress_is_shown_in_the_activity_dock_and_taken_away(
        self, viewer: Viewer, long_run: SegmentWidget, finish: Finish
    ) -> None:
        from napari.utils import progress

        (shown,) = progress._all_instances
        assert shown.desc.startswith("segment large")
        assert 0 < shown.n < shown.total
        long_run.cancel()
        finish(long_run)
        assert not progress._all_instances


class TestKindsOfLayers:
    @pytest.mark.parametrize("axes", ["zyx", "tyx"])
    def test_frame_by_frame(self, viewer: Viewer, docked: SegmentWidget, finish: Finish, axes: str) -> None:
        viewer.add_image(STACK, scale=(3.0, 2.0, 0.5), units=("um", "um", "um"), axis_labels=("t", "y", "x"))
        docked.control("axes").value = axes
        docked.segment()
        finish(docked)
        labels = result(viewer)
        assert labels.data.shape == STACK.shape
        assert [len(np.unique(plane)) - 1 for plane in labels.data] == [3, 0, 1]
        np.testing.assert_allclose(labels.scale, (3.0, 2.0, 0.5))

    def test_a_stack_waits_for_the_reading_of_its_axes(self, viewer: Viewer, docked: SegmentWidget) -> None:
        viewer.add_image(STACK, name="stack")
        assert docked.status == "choose what the axes of 'stack' are"
        assert not docked.control("segment").enabled
        docked.control("axes").value = "zyx"
        assert docked.status == ""
        assert docked.control("segment").enabled

    def test_a_stack_with_a_3d_model(self, viewer: Viewer, docked: SegmentWidget, finish: Finish) -> None:
        volume = blobs((16, 40, 40), [(8, 12, 12), (8, 28, 28)])
        viewer.add_image(volume)
        docked.control("model").value = "blobs-3d"
        docked.segment()
        finish(docked)
        assert result(viewer).data.max() == 2

    def test_linked_slices(self, viewer: Viewer, docked: SegmentWidget, finish: Finish) -> None:
        viewer.add_image(np.stack([PLANE, PLANE]), axis_labels=("z", "y", "x"))
        assert docked.control("link_slices").enabled
        docked.control("link_slices").value = True
        docked.segment()
        finish(docked)
        labels = result(viewer).data
        np.testing.assert_array_equal(labels[0], labels[1])

    def test_rgb(self, viewer: Viewer, docked: SegmentWidget, finish: Finish) -> None:
        grey = (PLANE // 4).astype(np.uint8)
        image = viewer.add_image(np.stack([grey] * 3, axis=-1), rgb=True, scale=(2.0, 0.5))
        docked.segment()
        finish(docked)
        labels = result(viewer)
        assert labels.data.shape == PLANE.shape
        assert labels.data.max() == 3
        np.testing.assert_allclose(labels.scale, image.scale)
        assert "grey" in docked.status

    def test_a_channel_in_front(self, viewer: Viewer, docked: SegmentWidget, finish: Finish) -> None:
        image = viewer.add_image(
            np.stack([np.zeros_like(PLANE), PLANE]), scale=(1.0, 2.0, 0.5), translate=(0.0, 3.0, 4.0)
        )
        docked.control("axes").value = "cyx"
        assert "choose the channel" in docked.status
        docked.control("channel").value = 1
        docked.segment()
        finish(docked)
        labels = result(viewer)
        assert labels.data.shape == PLANE.shape
        assert labels.data.max() == 3
        np.testing.assert_allclose(labels.scale, (2.0, 0.5))
        np.testing.assert_allclose(labels.data_to_world((4, 5)), image.data_to_world((0, 4, 5))[1:])

    def test_labels_are_seen_over_every_channel_of_a_time_series(
        self, viewer: Viewer, docked: SegmentWidget, finish: Finish
    ) -> None:
        series = np.stack([STACK, np.zeros_like(STACK)], axis=1)
        image = viewer.add_image(series, axis_labels=("t", "c", "y", "x"), scale=(5.0, 2.0, 1.0, 1.0))
        docked.control("channel").value = 0
        docked.segment()
        finish(docked)
        labels = result(viewer)
        assert labels.data.shape == (3, 1, *PLANE.shape)
        for time, expected in enumerate((True, False, True)):
            for channel in range(2):
                viewer.dims.set_current_step((0, 1), (time, channel))
                there = image.data_to_world((time, channel, *CENTRES[0]))
                assert bool(labels.get_value(there, world=True)) is expected

    def test_multiscale(self, viewer: Viewer, docked: SegmentWidget, finish: Finish) -> None:
        viewer.add_image([PLANE, PLANE[::2, ::2]], multiscale=True, scale=(2.0, 0.5))
        docked.segment()
        finish(docked)
        labels = result(viewer)
        np.testing.assert_array_equal(labels.data, segment(PLANE, "blobs"))
        np.testing.assert_allclose(labels.scale, (2.0, 0.5))

    def test_labels_of_a_level_lie_over_what_it_shows(
        self, viewer: Viewer, docked: SegmentWidget, finish: Finish
    ) -> None:
        fine = PLANE.repeat(2, axis=0).repeat(2, axis=1)
        image = viewer.add_image(
            [fine, PLANE], multiscale=True, scale=(2.0, 0.5), rotate=30.0, translate=(5.0, 6.0), units=("um", "um")
        )
        assert not docked.control("level").native.isHidden()
        assert docked.control("level").choices == (0, 1)
        docked.control("level").value = 1
        docked.control("run_on").value = "range ..."
        docked.control("region").value = "y=4:56,x=8:72"
        docked.segment()
        finish(docked)
        labels = result(viewer)
        np.testing.assert_array_equal(labels.data, segment(PLANE, "blobs", region="y=4:56,x=8:72"))
        for y, x in CENTRES[:3]:
            middle = image.data_to_world((2 * y + 0.5, 2 * x + 0.5))
            np.testing.assert_allclose(labels.world_to_data(middle), (y - 4, x - 8), atol=1e-6)
            assert labels.get_value(middle, world=True)
        assert labels.metadata[METADATA_KEY]["exact"]["level"] == 1
        docked.control("measure").value = True
        while docked.measuring:
            QApplication.processEvents()
        assert len(labels.features) == 3
        docked.layer = viewer.add_image(PLANE)
        assert docked.control("level").native.isHidden()

    def test_dask_is_read_frame_by_frame(self, viewer: Viewer, docked: SegmentWidget, finish: Finish) -> None:
        read: list[tuple[int, ...]] = []

        def plane(block: np.ndarray) -> np.ndarray:
            read.append(block.shape)
            return block

        lazy = da.from_array(STACK, chunks=(1, *PLANE.shape)).map_blocks(
            plane, dtype=STACK.dtype, meta=np.zeros((0, 0, 0), STACK.dtype)
        )
        viewer.add_image(lazy, axis_labels=("t", "y", "x"), contrast_limits=(0, 1000))
        read.clear()
        docked.segment()
        finish(docked)
        assert len(np.unique(result(viewer).data[0])) == 4
        assert set(read) == {(1, *PLANE.shape)}


class TestCancel:
    def test_it_leaves_no_layer_and_a_usable_widget(
        self, viewer: Viewer, long_run: SegmentWidget, finish: Finish
    ) -> None:
        assert not long_run.control("segment").enabled
        long_run.control("cancel").native.click()
        finish(long_run)
        assert [layer.name for layer in viewer.layers] == ["large"]
        assert long_run.status == "cancelled, no layer was changed"
        viewer.layers.clear()
        viewer.add_image(PLANE)
        long_run.control("tile").value = ""
        long_run.control("overlap").value = ""
        long_run.segment()
        finish(long_run)
        assert result(viewer).data.max() == 3

    def test_removing_the_image_ends_the_run(self, viewer: Viewer, long_run: SegmentWidget, finish: Finish) -> None:
        viewer.layers.remove("large")
        finish(long_run)
        assert len(viewer.layers) == 0
        assert "open an image" in str(long_run.state.problem)

    def test_replacing_its_data_ends_the_run(self, viewer: Viewer, long_run: SegmentWidget, finish: Finish) -> None:
        viewer.layers["large"].data = PLANE
        finish(long_run)
        assert not has_result(viewer)
        assert long_run.status == "stopped: the data of the image layer were replaced"

    def test_undocking_ends_the_run(self, viewer: Viewer, long_run: SegmentWidget, finish: Finish) -> None:
        viewer.window.remove_dock_widget(long_run.native)
        finish(long_run)
        assert not has_result(viewer)

    def test_closing_the_viewer_ends_the_run(
        self, make_napari_viewer: Callable[..., Viewer], user_models: Path, qtbot: Any
    ) -> None:
        from qtpy.QtCore import QThreadPool

        from napari_tiled_unet.viewer.segment_widget import SegmentWidget

        viewer = make_napari_viewer()
        widget = SegmentWidget(viewer)
        viewer.window.add_dock_widget(widget)
        widget.control("model").value = "blobs"
        viewer.add_image(np.tile(PLANE, (20, 20)))
        widget.control("tile").value = "16"
        widget.control("overlap").value = "4"
        widget.segment()
        qtbot.waitUntil(lambda: widget.status.startswith("tile 1"), timeout=20_000)
        viewer.close()
        assert QThreadPool.globalInstance().waitForDone(3000)

    def test_a_second_start_is_ignored_while_one_runs(self, long_run: SegmentWidget, finish: Finish) -> None:
        first = long_run._run
        long_run.segment()
        assert long_run._run is first
        long_run.cancel()
        finish(long_run)

    def test_a_run_that_ended_is_forgotten(self, viewer: Viewer, docked: SegmentWidget, finish: Finish) -> None:
        viewer.add_image(PLANE)
        docked.segment()
        run = weakref.ref(docked._run)
        finish(docked)
        gc.collect()
        assert run() is None


class TestSecondRun:
    def test_it_replaces_the_first(self, viewer: Viewer, docked: SegmentWidget, finish: Finish) -> None:
        viewer.add_image(PLANE)
        docked.segment()
        finish(docked)
        first = result(viewer)
        docked.control("min_size").value = "5000"
        docked.segment()
        finish(docked)
        assert result(viewer) is first
        assert first.data.max() == 0

    def test_a_deleted_result_comes_back_as_a_new_layer(
        self, viewer: Viewer, docked: SegmentWidget, finish: Finish
    ) -> None:
        viewer.add_image(PLANE)
        docked.segment()
        finish(docked)
        viewer.layers.remove(result(viewer))
        docked.segment()
        finish(docked)
        assert result(viewer).data.max() == 3


class TestErrors:
    def test_a_refusal_is_told_as_a_sentence(
        self, viewer: Viewer, docked: SegmentWidget, finish: Finish, notified: list[tuple[str, str]]
    ) -> None:
        viewer.add_image(PLANE)
        docked.control("tile").value = "512"
        docked.control("memory").value = "0.000001"
        docked.segment()
        finish(docked)
        assert [severity for severity, _ in notified] == ["error"]
        assert "take a smaller tile" in notified[0][1]
        assert docked.status == notified[0][1]
        assert not has_result(viewer)
        assert docked.control("segment").enabled

    def test_an_unforeseen_error_is_told_too(
        self,
        viewer: Viewer,
        docked: SegmentWidget,
        finish: Finish,
        notified: list[tuple[str, str]],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        def fail(*args: Any, **keywords: Any) -> Any:
            raise RuntimeError("the device is lost")

        monkeypatch.setattr("napari_tiled_unet.runtime.Runner.run", fail)
        viewer.add_image(PLANE)
        docked.segment()
        finish(docked)
        assert notified == [("error", "the device is lost")]
        assert docked.status == "the device is lost"
        assert docked.control("segment").enabled

    def test_a_value_that_breaks_its_rule_is_told_at_once(self, viewer: Viewer, docked: SegmentWidget) -> None:
        viewer.add_image(PLANE)
        docked.control("min_size").value = "many"
        assert "min_size='many'" in docked.status
        assert not docked.control("segment").enabled
        docked.control("min_size").value = ""
        assert docked.status == ""

    def test_without_an_image_the_start_says_what_to_do(
        self, docked: SegmentWidget, notified: list[tuple[str, str]]
    ) -> None:
        docked.segment()
        assert not docked.running
        assert notified == [("error", "open an image, or take one from File > Open Sample")]


class TestLayerChanges:
    """The form and the run when a layer becomes another one under their hands."""

    def test_data_with_other_axes_are_read_anew(
        self, viewer: Viewer, docked: SegmentWidget, finish: Finish, qtbot: Any, notified: list[tuple[str, str]]
    ) -> None:
        layer = viewer.add_image(PLANE, name="cells")
        assert docked.control("segment").enabled
        layer.data = STACK
        docked.segment()
        assert not docked.running
        assert notified == [("error", "choose what the axes of 'cells' are")]
        assert docked.status == "choose what the axes of 'cells' are"
        docked.control("axes").value = "tyx"
        assert docked.control("segment").enabled
        layer.data = PLANE
        qtbot.waitUntil(lambda: docked.state.axes_taken == "yx", timeout=2_000)
        docked.segment()
        finish(docked)
        assert result(viewer).data.max() == 3

    def test_axis_labels_and_units_are_followed(self, viewer: Viewer, docked: SegmentWidget, qtbot: Any) -> None:
        layer = viewer.add_image(STACK, name="cells")
        assert not docked.control("segment").enabled
        layer.axis_labels = ("t", "y", "x")
        qtbot.waitUntil(lambda: docked.control("segment").enabled, timeout=2_000)
        assert docked.status == ""
        layer.units = ("s", "um", "um")
        layer.scale = (1, 0.5, 0.25)
        shown = docked.control("spacing").native
        qtbot.waitUntil(lambda: "0.5, 0.25" in shown.placeholderText(), timeout=2_000)

    def test_an_unforeseen_error_leaves_the_button(
        self, viewer: Viewer, docked: SegmentWidget, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*args: Any, **keywords: Any) -> Any:
            raise RuntimeError("not foreseen")

        monkeypatch.setattr("napari_tiled_unet.viewer.segment_widget.Running", fail)
        viewer.add_image(PLANE)
        with pytest.raises(RuntimeError, match="not foreseen"):
            docked.segment()
        assert docked.control("segment").enabled

    def test_replacing_data_by_a_stack_ends_the_run(
        self, viewer: Viewer, long_run: SegmentWidget, finish: Finish
    ) -> None:
        viewer.layers["large"].data = STACK
        finish(long_run)
        assert not has_result(viewer)
        ended = "stopped: the data of the image layer were replaced"
        assert long_run.status == f"choose what the axes of 'large' are\n{ended}"

    def test_a_view_off_the_image_is_told_after_a_run_too(
        self, viewer: Viewer, docked: SegmentWidget, finish: Finish, qtbot: Any
    ) -> None:
        viewer.add_image(PLANE, name="cells")
        docked.control("run_on").value = "current view"
        docked.segment()
        finish(docked)
        ended = docked.status
        assert ended.startswith("3 labels in ")
        centre = viewer.scene.camera.center
        viewer.scene.camera.center = (0, 5000, 5000)
        qtbot.waitUntil(lambda: not docked.control("segment").enabled, timeout=2_000)
        assert docked.status == f"{docked._choices.problem}\n{ended}"
        assert "the view shows nothing of it: bring it into view" in docked.status
        viewer.scene.camera.center = centre
        qtbot.waitUntil(lambda: docked.control("segment").enabled, timeout=2_000)
        assert docked.status == ended

    def test_how_a_run_ended_goes_with_its_image(self, viewer: Viewer, docked: SegmentWidget, finish: Finish) -> None:
        viewer.add_image(PLANE, name="cells")
        docked.segment()
        finish(docked)
        ended = docked.status
        viewer.add_image(PLANE, name="other")
        assert docked.status == ended
        viewer.layers.clear()
        assert docked.status == "open an image, or take one from File > Open Sample"
        viewer.add_image(STACK, name="stack")
        assert docked.status == "choose what the axes of 'stack' are"

    def test_a_measurement_does_not_hide_what_keeps_the_layer(
        self, viewer: Viewer, docked: SegmentWidget, finish: Finish, qtbot: Any
    ) -> None:
        viewer.add_image(PLANE, name="cells")
        docked.segment()
        finish(docked)
        docked.control("min_size").value = "many"
        docked.control("measure").value = True
        qtbot.waitUntil(lambda: not docked.measuring and docked.status.endswith("measured"), timeout=20_000)
        assert docked.status.startswith("min_size='many'")

    def test_what_ran_is_written_down_not_what_the_layer_says_at_the_end(
        self, viewer: Viewer, docked: SegmentWidget, finish: Finish
    ) -> None:
        layer = viewer.add_image(PLANE, scale=(0.5, 0.5), units=("um", "um"))
        docked.segment()
        layer.scale = (3, 3)
        finish(docked)
        labels = result(viewer)
        assert labels.metadata[METADATA_KEY]["exact"]["spacing"] == [0.5, 0.5]
        # They lie where the image lies now.
        np.testing.assert_allclose(labels.scale, (3, 3))


class TestForm:
    def test_only_images_are_offered(self, viewer: Viewer, docked: SegmentWidget) -> None:
        image = viewer.add_image(PLANE)
        viewer.add_labels(np.zeros((4, 5), np.uint8))
        viewer.add_points(np.zeros((1, 2)))
        assert docked.control("layer").choices == (image,)
        assert docked.layer is image

    def test_layers_are_followed(self, viewer: Viewer, docked: SegmentWidget) -> None:
        assert docked.layer is None
        first = viewer.add_image(PLANE, name="first")
        second = viewer.add_image(PLANE, name="second")
        assert docked.layer is first
        docked.layer = second
        second.name = "renamed"
        assert docked.layer is second
        assert docked.control("layer").current_choice == "renamed"
        viewer.layers.remove(second)
        assert docked.layer is first

    def test_the_reading_of_axes_is_kept_per_layer(self, viewer: Viewer, docked: SegmentWidget) -> None:
        first, second = viewer.add_image(STACK, name="first"), viewer.add_image(STACK, name="second")
        docked.layer = first
        docked.control("axes").value = "tyx"
        docked.layer = second
        assert docked.state.axes_taken is None
        docked.layer = first
        assert docked.state.axes_taken == "tyx"

    def test_models_are_offered_with_their_card(self, docked: SegmentWidget) -> None:
        assert {"blobs", "blobs-3d"} <= set(docked.control("model").choices)
        assert "bright blobs, by construction" in docked.control("model").tooltip

    def test_a_model_that_cannot_fit_the_layer_is_grey_and_says_why(
        self, viewer: Viewer, docked: SegmentWidget
    ) -> None:
        box = docked.control("model").native

        def grey() -> dict[str, str]:
            items = [box.model().item(i) for i in range(box.count())]
            return {item.text(): item.toolTip() for item in items if not item.isEnabled()}

        assert grey() == {}
        flat, stack = viewer.add_image(PLANE, name="flat"), viewer.add_image(STACK, name="stack")
        docked.layer = flat
        reason = "model 'blobs-3d' needs axes zyx, 'flat' has only 2: choose a stack, or a 2D model"
        assert grey()["blobs-3d (3D)"] == reason
        assert "blobs (2D)" not in grey()
        docked.layer = stack
        assert grey() == {}

    def test_a_new_model_is_found(self, docked: SegmentWidget, user_models: Path) -> None:
        new = user_models / "newcomer.safetensors"
        new.write_bytes((user_models / "blobs.safetensors").read_bytes())
        try:
            docked.control("reread").native.click()
            assert "newcomer" in docked.control("model").choices
            assert docked.control("model").value == "blobs"
        finally:
            new.unlink()

    def test_a_model_whose_file_is_gone_holds_up_no_layer(
        self, viewer: Viewer, docked: SegmentWidget, user_models: Path
    ) -> None:
        gone = user_models / "gone.safetensors"
        gone.write_bytes((user_models / "blobs.safetensors").read_bytes())
        docked.control("reread").native.click()
        docked.control("model").value = "gone"
        gone.unlink()
        layer = viewer.add_image(PLANE, name="plane")
        viewer.layers.remove(layer)
        assert "gone.safetensors is not there any more: look for models again" in docked.control("model").tooltip
        docked.control("reread").native.click()
        assert "gone" not in docked.control("model").choices
        assert docked.control("model").value in docked.control("model").choices

    def test_advanced_rows_are_folded_until_asked_for(self, docked: SegmentWidget) -> None:
        tile, button = docked.control("tile").native, docked.control("advanced").native
        assert not tile.isVisibleTo(docked.native)
        button.click()
        assert tile.isVisibleTo(docked.native)
        button.click()
        assert not tile.isVisibleTo(docked.native)

    def test_every_control_has_a_tooltip(self, docked: SegmentWidget) -> None:
        named = [docked.control(name) for name in ("layer", "reread", "advanced", "segment", "cancel")]
        for widget in [*named, *(docked.control(name) for name in SegmentOptions.model_fields)]:
            assert widget.native.toolTip(), widget.name

    def test_it_fits_a_dock_of_320_pixels(self, viewer: Viewer, docked: SegmentWidget) -> None:
        from qtpy.QtWidgets import QScrollArea

        viewer.add_image(STACK, name="a very long name, as files from a microscope tend to have.ome.tif")
        docked.control("advanced").native.click()
        (area,) = docked.native.findChildren(QScrollArea)
        docked.native.resize(320, 700)
        assert docked.native.minimumSizeHint().width() <= 320
        assert area.widget().minimumSizeHint().width() <= 300
