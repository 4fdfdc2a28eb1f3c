"""Labels made anew from the maps of the last run."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pytest

from napari_tiled_unet.model_files import save_model
from napari_tiled_unet.options import SegmentOptions
from napari_tiled_unet.recipe import parse_recipe
from napari_tiled_unet.segmentation import decode_maps, iter_segment, segment
from napari_tiled_unet.targets import Classes, Objects
from napari_tiled_unet.viewer.layers import METADATA_KEY
from napari_tiled_unet.viewer.maps import KeptMaps, entropy, renumbered, room_for_maps
from napari_tiled_unet.viewer.running import Running
from tests.models import blob_model, blobs
from tests.test_flips import random_model
from tests.viewer.test_segment_widget import PLANE, hidden_after_a_part, result

if TYPE_CHECKING:
    from napari.viewer import Viewer

    from napari_tiled_unet.viewer.segment_widget import SegmentWidget

pytestmark = pytest.mark.filterwarnings("ignore:Conversion from CIE-LAB:UserWarning")  # napari's label colours

Finish = Callable[["SegmentWidget"], None]


class TestMaps:
    def test_they_are_kept_in_memory_or_on_disk_or_not(self, monkeypatch: pytest.MonkeyPatch) -> None:
        small = room_for_maps((2, 30, 40), memory=1)
        assert type(small) is np.ndarray
        large = room_for_maps((2, 30, 40), memory=1e-6)
        assert isinstance(large, np.memmap)
        large[1, 2, 3] = 7
        assert large.sum() == 7
        monkeypatch.setattr("shutil.disk_usage", lambda _: type("usage", (), {"free": 1000}))
        assert room_for_maps((2, 30, 40), memory=1e-6) is None

    @pytest.mark.parametrize(
        ("shape", "axes", "options"),
        [
            ((56, 72), "yx", {}),
            ((3, 56, 72), "tyx", {"foreground_threshold": 0.3}),
            ((3, 56, 72), "zyx", {"link_slices": True}),
        ],
    )
    def test_decoded_they_give_the_labels_of_the_run(
        self, shape: tuple[int, ...], axes: str, options: dict[str, Any]
    ) -> None:
        image = PLANE if len(shape) == 2 else np.stack([PLANE, PLANE, np.roll(PLANE, 4, 1)])
        model = blob_model()
        *_, finished = iter_segment(image, model, axes=axes, keep_maps=lambda s: np.zeros(s, np.float32))
        again = decode_maps(finished.maps, axes, model, SegmentOptions.of(**options))
        expected = segment(image, model, axes=axes, **options)
        np.testing.assert_array_equal(again, expected)
        assert again.dtype == expected.dtype

    def test_of_classes(self) -> None:
        model = blob_model(classes=True)
        *_, finished = iter_segment(PLANE, model, keep_maps=True)
        np.testing.assert_array_equal(decode_maps(finished.maps, "yx", model, SegmentOptions()), finished.labels)

    def test_a_run_without_room_keeps_none(self) -> None:
        *_, finished = iter_segment(PLANE, blob_model(), keep_maps=lambda _: None)
        assert finished.maps is None

    def test_entropy(self) -> None:
        maps = np.array([[0.5, 1.0, 0.0], [0.9, 0.9, 0.9]], np.float32)
        np.testing.assert_allclose(entropy(maps, Objects()), [1, 0, 0], atol=1e-6)
        classes = np.full((4, 2), 0.25, np.float32)
        np.testing.assert_allclose(entropy(classes, Classes(classes=tuple("abcd"))), 1, atol=1e-6)

    def test_renumbered(self) -> None:
        old = np.array([5, 5, 5, 0, 8, 8, 0])
        new = np.array([1, 0, 2, 0, 3, 3, 4])
        np.testing.assert_array_equal(renumbered(old, new, 20), [5, 0, 20, 0, 8, 8, 21])


@pytest.fixture
def tuned(viewer: Viewer, docked: SegmentWidget, finish: Finish) -> SegmentWidget:
    """Return a widget after a run."""
    viewer.add_image(PLANE, name="cells")
    docked.segment()
    finish(docked)
    return docked


class TestSliders:
    def test_they_come_with_a_result_and_say_what_it_was_made_with(
        self, viewer: Viewer, docked: SegmentWidget, finish: Finish
    ) -> None:
        viewer.add_image(PLANE)
        assert not docked._tune.native.isVisibleTo(docked.native)
        docked.control("foreground_threshold").value = "0.4"
        docked.segment()
        finish(docked)
        assert docked._tune.native.isVisibleTo(docked.native)
        assert docked._tune.slider("foreground_threshold").value == 0.4
        assert docked._tune.slider("seed_threshold").value == Objects().seed_threshold
        other = viewer.add_image(PLANE)
        docked.layer = other
        assert not docked._tune.native.isVisibleTo(docked.native)

    def test_all_is_what_a_run_would_have_given(
        self, viewer: Viewer, tuned: SegmentWidget, qtbot: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        labels = result(viewer)
        before = np.count_nonzero(labels.data)
        colour = labels.colormap.map(labels.data)[15, 20]

        def fail(*args: Any) -> None:
            raise AssertionError("the network was run")

        with monkeypatch.context() as patch:
            patch.setattr("napari_tiled_unet.runtime.Runner.run", fail)
            tuned._tune.slider("foreground_threshold").value = 0.1
            qtbot.waitUntil(lambda: not tuned._tune.busy, timeout=10_000)
        assert np.count_nonzero(labels.data) > before
        expected = segment(PLANE, "blobs", foreground_threshold=0.1)
        np.testing.assert_array_equal(labels.data, expected)
        assert labels.data.dtype == np.uint16, "there are numbers left to paint"
        np.testing.assert_allclose(labels.colormap.map(labels.data)[15, 20], colour)
        mark = labels.metadata[METADATA_KEY]
        assert mark["options"]["foreground_threshold"] == 0.1
        assert mark["exact"]["foreground_threshold"] == 0.1
        assert parse_recipe(mark["recipe"]).foreground_threshold == 0.1
        # The next run is made with what was found.
        assert tuned.control("foreground_threshold").value == "0.1"
        assert tuned.segment_options().foreground_threshold == 0.1

    def test_the_view_is_first(self, viewer: Viewer, docked: SegmentWidget, finish: Finish, qtbot: Any) -> None:
        viewer.add_image(np.stack([PLANE] * 3), axis_labels=("t", "y", "x"))
        docked.control("run_on").value = "range ..."
        docked.control("region").value = "t=1:,y=4:"
        docked.segment()
        finish(docked)
        viewer.dims.set_current_step(0, 2)
        labels = result(viewer)
        before = labels.data.copy()
        tune = docked._tune
        tune.track("foreground_threshold").setSliderDown(True)
        tune.slider("foreground_threshold").value = 0.1
        qtbot.waitUntil(lambda: not tune._view_soon.isActive() and not tune._painter.busy, timeout=10_000)
        np.testing.assert_array_equal(labels.data[0], before[0])
        wider = segment(np.stack([PLANE] * 3), "blobs", axes="tyx", region="t=1:,y=4:", foreground_threshold=0.1)
        np.testing.assert_array_equal(labels.data[1] > 0, wider[1] > 0)
        # An object is still what it was.
        same = before[1] > 0
        np.testing.assert_array_equal(labels.data[1][same], before[1][same])
        tune.track("foreground_threshold").setSliderDown(False)
        qtbot.waitUntil(lambda: not tune.busy, timeout=10_000)
        np.testing.assert_array_equal(labels.data, wider)

    def test_a_plane_of_a_volume(self, viewer: Viewer, docked: SegmentWidget, finish: Finish, qtbot: Any) -> None:
        viewer.add_image(blobs((16, 40, 40), [(8, 12, 12), (8, 28, 28)]))
        docked.control("model").value = "blobs-3d"
        docked.segment()
        finish(docked)
        viewer.dims.set_current_step(0, 8)
        tune, labels = docked._tune, result(viewer)
        before = labels.data.copy()
        tune.track("foreground_threshold").setSliderDown(True)
        tune.slider("foreground_threshold").value = 0.05
        qtbot.waitUntil(lambda: not tune._view_soon.isActive() and not tune._painter.busy, timeout=10_000)
        assert np.count_nonzero(labels.data[8]) > np.count_nonzero(before[8])
        np.testing.assert_array_equal(labels.data[5], before[5])
        tune.track("foreground_threshold").setSliderDown(False)

    def test_beside_a_channel_axis(self, viewer: Viewer, docked: SegmentWidget, finish: Finish, qtbot: Any) -> None:
        viewer.add_image(np.stack([np.stack([PLANE] * 3)] * 2, axis=1), axis_labels=("t", "c", "y", "x"))
        docked.control("channel").value = 0
        docked.segment()
        finish(docked)
        viewer.dims.set_current_step(0, 0)
        docked._tune.slider("min_size").value = 900
        qtbot.waitUntil(lambda: not docked._tune.busy, timeout=10_000)
        assert not result(viewer).data.any()

    def test_only_what_was_moved_is_changed(
        self, viewer: Viewer, docked: SegmentWidget, finish: Finish, qtbot: Any
    ) -> None:
        viewer.add_image(PLANE, name="cells")
        docked.control("foreground_threshold").value = "0.333"
        docked.control("seed_threshold").value = "0.995"
        docked.segment()
        finish(docked)
        docked._tune.slider("min_size").value = 3
        qtbot.waitUntil(lambda: not docked._tune.busy, timeout=10_000)
        rows = {name: docked.control(name).value for name in ("foreground_threshold", "seed_threshold", "min_size")}
        assert rows == {"foreground_threshold": "0.333", "seed_threshold": "0.995", "min_size": "3"}
        exact = result(viewer).metadata[METADATA_KEY]["exact"]
        assert (exact["foreground_threshold"], exact["min_size"]) == (0.333, 3)

    def test_a_result_that_is_removed_takes_them_along(self, viewer: Viewer, tuned: SegmentWidget) -> None:
        viewer.layers.remove(result(viewer))
        assert tuned._tune.kept is None
        assert not tuned._tune.native.isVisibleTo(tuned.native)

    def test_another_run_into_the_labels_takes_them_along(
        self, viewer: Viewer, docked: SegmentWidget, another: SegmentWidget, finish: Finish, qtbot: Any
    ) -> None:
        viewer.add_image(PLANE, name="cells")
        for widget, region in ((docked, "y=0:28"), (another, "y=28:56")):
            widget.control("run_on").value = "range ..."
            widget.control("region").value = region
            widget.segment()
            finish(widget)
        labels = result(viewer)
        np.testing.assert_allclose(labels.translate, (28, 0))
        assert not docked._tune.native.isVisibleTo(docked.native)
        assert another._tune.native.isVisibleTo(another.native)
        docked._tune.slider("foreground_threshold").value = 0.1
        qtbot.waitUntil(lambda: not docked._tune.busy, timeout=10_000)
        np.testing.assert_array_equal(labels.data, segment(PLANE, "blobs", region="y=28:56"))
        another._tune.slider("foreground_threshold").value = 0.1
        qtbot.waitUntil(lambda: not another._tune.busy, timeout=10_000)
        wider = segment(PLANE, "blobs", region="y=28:56", foreground_threshold=0.1)
        np.testing.assert_array_equal(labels.data, wider)
        assert another._tune.native.isVisibleTo(another.native), "what they write themselves leaves them"

    def test_other_data_in_the_image_take_them_along(self, viewer: Viewer, tuned: SegmentWidget, qtbot: Any) -> None:
        before = result(viewer).data
        viewer.layers["cells"].data = PLANE[::-1]
        qtbot.waitUntil(lambda: not tuned._tune.native.isVisibleTo(tuned.native), timeout=2_000)
        tuned._tune.slider("foreground_threshold").value = 0.1
        qtbot.waitUntil(lambda: not tuned._tune.busy, timeout=10_000)
        assert result(viewer).data is before

    def test_of_hidden_labels(self, viewer: Viewer, docked: SegmentWidget, finish: Finish, qtbot: Any) -> None:
        labels = hidden_after_a_part(viewer, docked, finish)
        docked._tune.slider("foreground_threshold").value = 0.1
        qtbot.waitUntil(lambda: not docked._tune.busy, timeout=10_000)
        wider = segment(PLANE, "blobs", foreground_threshold=0.1)
        np.testing.assert_array_equal(labels.data, wider)
        labels.visible = True
        np.testing.assert_array_equal(labels._slice.image.raw, wider)


def tune_view(widget: SegmentWidget, qtbot: Any) -> None:
    """Hold a slider until the labels on the screen are made anew, and no others."""
    tune = widget._tune
    tune.track("foreground_threshold").setSliderDown(True)
    tune.slider("foreground_threshold").value = 0.1
    qtbot.waitUntil(lambda: not tune._view_soon.isActive() and not tune._painter.busy, timeout=10_000)


class TestHalfTuned:
    """Labels of which only the part on the screen was made anew."""

    @pytest.mark.parametrize("other_widget", [False, True])
    def test_a_run_that_is_cancelled_leaves_those_from_before(
        self,
        viewer: Viewer,
        tuned: SegmentWidget,
        another: SegmentWidget,
        finish: Finish,
        qtbot: Any,
        monkeypatch: pytest.MonkeyPatch,
        other_widget: bool,
    ) -> None:
        tuned.control("measure").value = True
        qtbot.waitUntil(lambda: not tuned.measuring and len(result(viewer).features) == 3, timeout=20_000)
        labels = result(viewer)
        before, mark, areas = labels.data, labels.metadata[METADATA_KEY], labels.features["area_px2"].tolist()
        tune_view(tuned, qtbot)
        assert np.count_nonzero(labels.data) > np.count_nonzero(before)
        widget, plan = another if other_widget else tuned, Running._plan

        def planned(self: Running, event: Any) -> None:
            plan(self, event)
            widget.cancel()

        monkeypatch.setattr(Running, "_plan", planned)
        widget.segment()
        finish(widget)
        assert labels.data is before
        assert labels.metadata[METADATA_KEY] is mark
        assert labels.features["area_px2"].tolist() == areas

    def test_other_data_in_the_image_leave_those_from_before(
        self, viewer: Viewer, tuned: SegmentWidget, qtbot: Any
    ) -> None:
        before = result(viewer).data
        tune_view(tuned, qtbot)
        assert result(viewer).data is not before
        viewer.layers["cells"].data = PLANE[::-1]
        assert result(viewer).data is before

    def test_what_the_user_painted_meanwhile_stays(self, viewer: Viewer, tuned: SegmentWidget, qtbot: Any) -> None:
        tune_view(tuned, qtbot)
        labels = result(viewer)
        labels.paint((50, 60), 7)
        tuned._tune.offer(None)
        assert labels.data[50, 60] == 7

    def test_a_view_that_comes_late_leaves_the_whole(
        self, viewer: Viewer, tuned: SegmentWidget, qtbot: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        tune, plane, go_on = tuned._tune, KeptMaps.plane, threading.Event()

        def held(self: KeptMaps, *args: Any) -> npt.NDArray[Any]:
            assert go_on.wait(10)
            return plane(self, *args)[::-1]

        monkeypatch.setattr(KeptMaps, "plane", held)
        tune.slider("foreground_threshold").value = 0.1
        tune.decode_view()
        tune.decode_all()
        qtbot.waitUntil(lambda: not tune._decoder.busy, timeout=10_000)
        go_on.set()
        qtbot.waitUntil(lambda: not tune.busy, timeout=10_000)
        np.testing.assert_array_equal(result(viewer).data, segment(PLANE, "blobs", foreground_threshold=0.1))


class TestLayers:
    def test_maps_lie_over_the_image(self, viewer: Viewer, docked: SegmentWidget, finish: Finish) -> None:
        image = viewer.add_image(PLANE, name="cells", scale=(2.0, 0.5), translate=(3.0, 4.0), rotate=20)
        docked.control("run_on").value = "range ..."
        docked.control("region").value = "y=10:,x=5:"
        docked.segment()
        finish(docked)
        docked._tune.show_maps()
        foreground = viewer.layers["cells foreground"]
        assert viewer.layers["cells centre"].data.shape == (46, 67)
        np.testing.assert_allclose(foreground.data_to_world((0, 0)), image.data_to_world((10, 5)))
        np.testing.assert_array_equal(np.asarray(foreground.data) > 0.5, result(viewer).data > 0)

    def test_uncertainty_is_high_at_borders(self, viewer: Viewer, tuned: SegmentWidget, qtbot: Any) -> None:
        tuned._tune.show_uncertainty()
        qtbot.waitUntil(lambda: "cells uncertainty" in viewer.layers, timeout=10_000)
        values = viewer.layers["cells uncertainty"].data
        assert values[15, 20] < 0.1
        assert values[0, 0] < 0.1
        assert values.max() > 0.9

    @pytest.mark.parametrize("asked_last", [True, False])
    def test_uncertainty_and_labels_do_not_wait_for_each_other(
        self, viewer: Viewer, tuned: SegmentWidget, qtbot: Any, monkeypatch: pytest.MonkeyPatch, asked_last: bool
    ) -> None:
        tune, whole, go_on = tuned._tune, KeptMaps.whole, threading.Event()

        def held(self: KeptMaps, options: SegmentOptions) -> npt.NDArray[Any]:
            assert go_on.wait(10)
            return whole(self, options)

        monkeypatch.setattr(KeptMaps, "whole", held)
        tune.slider("min_size").value = 10
        tune.decode_all()
        if not asked_last:
            tune.show_uncertainty()
        tune.slider("min_size").value = 900
        tune.decode_all()
        if asked_last:
            tune.show_uncertainty()
        go_on.set()
        qtbot.waitUntil(lambda: not tune.busy, timeout=10_000)
        assert not result(viewer).data.any()
        assert tuned.control("min_size").value == "900"
        assert "cells uncertainty" in viewer.layers


class TestFlips:
    @pytest.fixture
    def own_folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """Have the user's models be one that no mirror leaves as it is."""
        save_model(random_model(), tmp_path / "random.safetensors")
        monkeypatch.setenv("TILED_UNET_MODELS", str(tmp_path))
        return tmp_path

    def test_the_spread_is_offered_after_a_run_with_flips(
        self, viewer: Viewer, own_folder: Path, finish: Finish
    ) -> None:
        from napari_tiled_unet.viewer.segment_widget import SegmentWidget

        widget = SegmentWidget(viewer)
        viewer.window.add_dock_widget(widget, name="Segment", area="right")
        image = viewer.add_image(PLANE, name="cells", scale=(2.0, 0.5))
        exact = {"tile": "32", "overlap": "8", "precision": "float32", "backend": "torch", "flips": True}
        values = {"run_on": "range ...", "region": "y=10:,x=5:", "model": "random", **exact}
        for name, value in values.items():
            widget.control(name).value = value
        widget.segment()
        finish(widget)
        tune = widget._tune
        assert tune.spread_entry.isVisible()
        tune.spread_entry.trigger()
        layer = viewer.layers["cells spread over flips"]
        options = {name: value for name, value in values.items() if name not in ("run_on", "model")}
        *_, done = iter_segment(PLANE, random_model(), axes="yx", keep_maps=True, **options)
        assert done.spread.max() > 1e-3
        np.testing.assert_allclose(layer.data, done.spread, atol=1e-6)
        assert layer.contrast_limits == [0, 0.5]
        np.testing.assert_allclose(layer.data_to_world((0, 0)), image.data_to_world((10, 5)))
        mark = result(viewer).metadata[METADATA_KEY]
        assert mark["options"]["flips"] is mark["exact"]["flips"] is parse_recipe(mark["recipe"]).flips is True
        # Tuned, the labels are still those of the mean.
        np.testing.assert_array_equal(tune.kept.whole(tune.kept.outcome.order.options), done.labels)

        widget.control("flips").value = False
        widget.segment()
        finish(widget)
        assert not tune.spread_entry.isVisible()
        tune.show_spread()
        assert len([one for one in viewer.layers if "spread" in one.name]) == 1
