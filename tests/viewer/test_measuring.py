"""Objects in numbers, in the viewer: the table of a result, its file, and labels of other origin."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dask
import dask.array as da
import numpy as np
import pytest
from napari.layers import Image as ImageLayer
from napari.layers import Labels

from napari_tiled_unet.errors import ImageError
from napari_tiled_unet.features import measure_objects
from napari_tiled_unet.image import Image
from napari_tiled_unet.viewer.layers import METADATA_KEY
from napari_tiled_unet.viewer.measuring import (
    forget_features,
    is_stale,
    measurement,
    show_features,
    source_of,
    table_of,
)
from napari_tiled_unet.viewer.running import Running
from tests.models import blobs

if TYPE_CHECKING:
    from napari.viewer import Viewer

    from napari_tiled_unet.viewer.segment_widget import SegmentWidget

pytestmark = pytest.mark.filterwarnings("ignore:Conversion from CIE-LAB:UserWarning")  # napari's label colours

PLANE = blobs((56, 72), [(15, 20), (15, 50), (40, 30)])


class TestPure:
    def test_labels_of_other_origin_are_of_the_whole_image(self) -> None:
        labels = Labels((PLANE > 500).astype(int))
        table = measurement(labels, ImageLayer(PLANE, scale=(2, 2), units=("um", "um")))()
        assert table["area_um2"].tolist() == [4 * np.count_nonzero(PLANE > 500)]

    def test_axes_are_never_guessed(self) -> None:
        labels = Labels(np.zeros((2, 4, 4), int))
        with pytest.raises(ImageError, match=r"axis_labels = \('z', 'y', 'x'\)"):
            measurement(labels, ImageLayer(np.zeros((2, 4, 4))))
        named = ImageLayer(np.zeros((2, 4, 4)), axis_labels=("z", "y", "x"))
        assert "volume_px3" in measurement(labels, named)()

    def test_a_part_of_a_run_is_measured_on_that_part(self) -> None:
        image = np.zeros((3, 2, 8, 9))  # t c y x
        image[2, 1, 4:, 5:] = 7
        source = ImageLayer(image)
        data = np.zeros((1, 1, 4, 4), int)
        data[0, 0, 1:3, 1:3] = 5
        labels = Labels(data)
        measured = {"image_axes": "tcyx", "axes": "tyx", "offset": [2, 4, 5], "spatial": "yx"}
        labels.metadata[METADATA_KEY] = {"source": str(source.unique_id), "measured": measured}
        table = measurement(labels, source)()
        assert table["index"].tolist() == [5]
        assert table["t"].tolist() == [2]
        assert (table["centroid_y"][0], table["centroid_x"][0]) == (5.5, 6.5)
        assert table["intensity_mean_c0"].tolist() == [0]
        assert table["intensity_mean_c1"].tolist() == [7]

    def test_the_image_of_a_result_is_found(self) -> None:
        source, other = ImageLayer(PLANE), ImageLayer(PLANE)
        labels = Labels(np.zeros((4, 4), int), metadata={METADATA_KEY: {"source": str(source.unique_id)}})
        assert source_of(labels, [other, source]) is source
        assert source_of(labels, [other]) is None
        assert source_of(None, [other]) is None

    def test_features_that_are_stale_go(self) -> None:
        labels = Labels(np.zeros((4, 4), int), features={"index": [1], "area": [2.0]})
        forget_features(labels)
        assert labels.features.empty

    def test_the_table_of_labels_is_one_of_ours_that_is_not_stale(self) -> None:
        labels = Labels(np.zeros((4, 4), int), features={"index": [1], "area": [2.0]})
        assert table_of(labels) is None, "the user's own"
        show_features(labels, {"index": np.array([1])})
        assert table_of(labels) is labels.features
        labels.paint((1, 1), 3)
        assert table_of(labels) is None
        show_features(labels, {"index": np.array([1])})
        labels.undo()
        assert table_of(labels) is None


def test_a_run_gives_its_labels_a_table(
    viewer: Viewer,
    docked: SegmentWidget,
    finish: Callable[[SegmentWidget], None],
    qtbot: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    notified: list[tuple[str, str]],
) -> None:
    from qtpy.QtWidgets import QFileDialog

    viewer.add_image(PLANE, name="cells", scale=(0.5, 0.5), units=("um", "um"))
    docked.export()
    assert notified.pop()[1] == "there is no table yet; measure the objects first"
    docked.control("spacing").value = "none"
    docked.control("measure").value = True
    docked.segment()
    finish(docked)
    qtbot.waitUntil(lambda: not docked.measuring, timeout=20_000)
    labels = viewer.layers["cells labels"]
    expected = measure_objects(labels.data, "yx", Image(PLANE, "yx", spacing=(0.5, 0.5)))
    assert list(labels.features.columns) == list(expected)
    np.testing.assert_allclose(labels.features["area_um2"], expected["area_um2"])
    assert docked.status.endswith("3 objects measured")
    shown = labels.get_status((7.5, 10.0), view_direction=None, dims_displayed=[0, 1], world=True)
    assert "area_um2" in shown["value"] + shown["coordinates"]

    target = tmp_path / "cells.csv"
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: (str(target.with_suffix("")), ""))
    docked.control("export").native.click()
    assert len(target.read_text().splitlines()) == 4
    assert notified.pop()[1] == "3 rows written to cells.csv"

    docked.control("measure").value = False
    docked.segment()
    finish(docked)
    assert labels.features.empty, "the table of the run before would lie"


def test_a_run_that_is_cancelled_brings_the_table_back(
    viewer: Viewer,
    docked: SegmentWidget,
    finish: Callable[[SegmentWidget], None],
    qtbot: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    viewer.add_image(PLANE, name="cells")
    docked.control("measure").value = True
    docked.segment()
    finish(docked)
    qtbot.waitUntil(lambda: not docked.measuring, timeout=20_000)
    labels, plan = viewer.layers["cells labels"], Running._plan
    before = labels.features

    def planned(self: Running, event: Any) -> None:
        plan(self, event)
        assert labels.features.empty
        docked.cancel()

    monkeypatch.setattr(Running, "_plan", planned)
    docked.segment()
    finish(docked)
    assert docked.status == "cancelled, no layer was changed"
    assert len(before) == 3
    assert labels.features.equals(before)
    assert not is_stale(labels)
    labels.paint((50, 60), 9)
    assert labels.features.empty, "it is still the table of those labels alone"


def test_the_widget_measures_labels_of_any_origin(viewer: Viewer, qtbot: Any, notified: list[tuple[str, str]]) -> None:
    from napari_tiled_unet.viewer.measure_widget import MeasureWidget

    widget = MeasureWidget(viewer)
    viewer.window.add_dock_widget(widget, name="Measure", area="right")
    assert not widget.control("measure").enabled
    viewer.add_image(PLANE, name="cells")
    labels = viewer.add_labels((PLANE > 500).astype(int), name="mask")
    small = viewer.add_labels(np.ones((4, 4), int), name="small")
    widget.control("labels").value = labels
    widget.control("measure").native.click()
    qtbot.waitUntil(lambda: not widget.busy, timeout=20_000)
    assert widget.status == "1 object measured"
    assert labels.features["area_px2"].tolist() == [np.count_nonzero(PLANE > 500)]
    widget.control("labels").value = small
    widget.control("measure").native.click()
    qtbot.waitUntil(lambda: not widget.busy, timeout=20_000)
    assert "choose the image that was segmented" in widget.status
    assert notified[-1] == ("error", widget.status)


def test_an_image_that_the_user_chose_stays(
    viewer: Viewer, docked: SegmentWidget, finish: Callable[[SegmentWidget], None]
) -> None:
    from napari_tiled_unet.viewer.measure_widget import MeasureWidget

    source = viewer.add_image(PLANE, name="cells")
    docked.segment()
    finish(docked)
    marker = viewer.add_image(PLANE * 2, name="marker")
    mask = viewer.add_labels((PLANE > 500).astype(int), name="mask")
    widget = MeasureWidget(viewer)
    viewer.window.add_dock_widget(widget, name="Measure", area="right")
    labels, image = widget.control("labels"), widget.control("image")
    labels.value = viewer.layers["cells labels"]
    assert image.value is source
    image.value = marker
    viewer.add_points(np.zeros((1, 2)))
    marker.name = "another name"
    assert image.value is marker
    labels.value = mask
    labels.value = viewer.layers["cells labels"]
    assert image.value is source
    image.value = marker
    viewer.layers.remove(marker)
    assert image.value is source


def test_an_image_that_nobody_chose_gives_way_to_that_of_the_run(
    viewer: Viewer, docked: SegmentWidget, finish: Callable[[SegmentWidget], None]
) -> None:
    from napari_tiled_unet.viewer.measure_widget import MeasureWidget

    widget = MeasureWidget(viewer)
    viewer.window.add_dock_widget(widget, name="Measure", area="right")
    marker, source = viewer.add_image(PLANE * 2, name="marker"), viewer.add_image(PLANE, name="cells")
    assert widget.control("image").value is marker
    docked.layer = source
    docked.segment()
    finish(docked)
    # Labels are offered from the first tile on, and say only at the end of what image they are.
    viewer.add_points(np.zeros((1, 2)))
    assert widget.control("labels").value is viewer.layers["cells labels"]
    assert widget.control("image").value is source


def test_the_table_is_of_the_layer_that_was_segmented(
    viewer: Viewer, docked: SegmentWidget, finish: Callable[[SegmentWidget], None], qtbot: Any
) -> None:
    first, other = viewer.add_image(PLANE, name="first"), viewer.add_image(np.zeros_like(PLANE), name="other")
    docked.layer = first
    docked.control("measure").value = True
    docked.segment()
    docked.layer = other
    finish(docked)
    labels = viewer.layers["first labels"]
    qtbot.waitUntil(lambda: not docked.measuring, timeout=20_000)
    assert len(labels.features) == 3
    assert docked.status.endswith("3 objects measured")

    docked.layer = first
    before = labels.features["area_px2"].sum()
    docked._tune.slider("foreground_threshold").value = 0.1
    docked._tune.decode_all()
    docked.layer = other
    qtbot.waitUntil(lambda: not docked._tune.busy and not docked.measuring, timeout=20_000)
    assert labels.features["area_px2"].sum() > before


class TestState:
    """What is told and shown while labels are measured, and once they are others."""

    @pytest.fixture
    def widget(self, viewer: Viewer) -> Any:
        """Return a widget set to labels of its own image."""
        from napari_tiled_unet.viewer.measure_widget import MeasureWidget

        viewer.add_image(PLANE, name="cells")
        viewer.add_labels((PLANE > 500).astype(np.uint16), name="mask")
        widget = MeasureWidget(viewer)
        viewer.window.add_dock_widget(widget, name="Measure", area="right")
        return widget

    def measured(self, widget: Any, qtbot: Any) -> None:
        widget.measure()
        qtbot.waitUntil(lambda: not widget.busy, timeout=20_000)

    def test_lazy_labels_are_computed_by_the_thread(self, viewer: Viewer, widget: Any, qtbot: Any) -> None:
        seen: list[int] = []

        def block(part: np.ndarray) -> np.ndarray:
            seen.append(threading.get_ident())
            return part

        mask = viewer.layers["mask"].data
        lazy = da.from_array(mask, chunks=mask.shape).map_blocks(block, dtype=mask.dtype, meta=mask[:0, :0])
        widget.control("labels").value = viewer.add_labels(lazy, name="lazy")
        seen.clear()
        with dask.config.set(scheduler="synchronous"):
            widget.measure()
            qtbot.waitUntil(lambda: not widget.busy, timeout=20_000)
        assert seen
        assert threading.get_ident() not in seen
        assert widget.status == "1 object measured"

    def test_a_refusal_is_told_in_the_line_too(
        self, viewer: Viewer, widget: Any, qtbot: Any, notified: list[tuple[str, str]]
    ) -> None:
        viewer.add_image(np.zeros((3, 8, 8)), name="stack")
        viewer.add_labels(np.zeros((3, 8, 8), int), name="stack mask")
        widget.control("labels").value = viewer.layers["stack mask"]
        widget.control("image").value = viewer.layers["stack"]
        self.measured(widget, qtbot)
        assert "the axes of 'stack' are not known" in widget.status
        assert notified == [("error", widget.status)]

    @pytest.mark.parametrize("how", ["painted", "replaced"])
    def test_labels_that_change_meanwhile_get_no_table(self, viewer: Viewer, widget: Any, qtbot: Any, how: str) -> None:
        mask = viewer.layers["mask"]
        widget.measure()
        if how == "painted":
            mask.paint((50, 60), 9)
        else:
            mask.data = mask.data.copy()
        qtbot.waitUntil(lambda: not widget.busy, timeout=20_000)
        assert mask.features.empty
        assert widget.status == "'mask' changed while it was measured; measure it again"
        self.measured(widget, qtbot)
        assert "measured" in widget.status
        assert not mask.features.empty

    def test_a_table_goes_with_the_labels_that_it_is_of(
        self, viewer: Viewer, widget: Any, qtbot: Any, notified: list[tuple[str, str]]
    ) -> None:
        mask = viewer.layers["mask"]
        mask.paint((50, 60), 9)
        self.measured(widget, qtbot)
        assert mask.features["index"].tolist() == [1, 9]
        mask.undo()
        widget.export()
        assert notified == [("error", "'mask' changed since it was measured; measure it again")]
        assert mask.features.empty
        self.measured(widget, qtbot)
        assert mask.features["index"].tolist() == [1]
        mask.paint((50, 60), 9)
        assert mask.features.empty

    def test_features_of_the_users_own_stay(self, viewer: Viewer, widget: Any, qtbot: Any) -> None:
        mask = viewer.layers["mask"]
        self.measured(widget, qtbot)
        mask.features = {"index": [1], "note": ["mine"]}
        mask.paint((50, 60), 9)
        assert list(mask.features.columns) == ["index", "note"]

    def test_a_widget_that_is_docked_again_still_measures(self, viewer: Viewer, widget: Any, qtbot: Any) -> None:
        viewer.window.remove_dock_widget(widget.native)
        viewer.window.add_dock_widget(widget, name="Measure again", area="right")
        self.measured(widget, qtbot)
        assert widget.status == "1 object measured"
