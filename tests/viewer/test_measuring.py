"""Objects in numbers, in the viewer: the table of a result, its file, and labels of other origin."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from napari.layers import Image as ImageLayer
from napari.layers import Labels

from napari_tiled_unet.errors import ImageError
from napari_tiled_unet.features import measure_objects
from napari_tiled_unet.image import Image
from napari_tiled_unet.viewer.layers import METADATA_KEY
from napari_tiled_unet.viewer.measuring import forget_features, measurement, source_of
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
