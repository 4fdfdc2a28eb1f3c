"""Labels corrected by hand make a model better, and nothing is replaced unasked."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_tiled_unet.errors import ImageError
from napari_tiled_unet.image import Image, image_from_array
from napari_tiled_unet.model import load_model, save_model
from napari_tiled_unet.segmentation import segment
from napari_tiled_unet.viewer.correction import Compared, compare_models, take, taken_path, touched
from napari_tiled_unet.viewer.improving import labels_of_run
from tests.models import blob_model, blobs

if TYPE_CHECKING:
    from napari.viewer import Viewer

pytestmark = pytest.mark.filterwarnings(
    "ignore:Conversion from CIE-LAB:UserWarning",  # napari's label colours
    "ignore::DeprecationWarning",  # deep inside MONAI and matplotlib, as they are imported
)

CENTRES = [(15, 15), (15, 45), (45, 15), (45, 45), (75, 15), (75, 45)]
PLANE = blobs((90, 60), CENTRES)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of the user's models, with one that can be replaced."""
    monkeypatch.setenv("TILED_UNET_MODELS", str(tmp_path))
    save_model(blob_model(name="mine"), tmp_path / "mine.safetensors")
    return tmp_path


class TestTouched:
    BEFORE = np.zeros((30, 40), np.int32)
    BEFORE[2:8, 2:8], BEFORE[2:8, 20:26], BEFORE[20:26, 20:26] = 1, 2, 3

    def test_only_what_was_touched_is_taught(self) -> None:
        after = self.BEFORE.copy()
        after[5:8, 2:8] = 0  # object 1 made smaller
        after[20:26, 2:8] = 9  # a new one
        found = touched(self.BEFORE, after, "objects", rim=2)
        assert (found.changed, found.objects) == (18 + 36, 2)
        assert set(found.labels[2:5, 2:8].ravel()) == {2}
        assert set(found.labels[20:26, 2:8].ravel()) == {3}
        assert set(found.labels[5:8, 2:8].ravel()) == {1}
        assert (found.labels[self.BEFORE > 1] == 0).all()
        assert (found.labels[:, 30:] == 0).all()

    def test_an_erased_object_is_taught_as_background(self) -> None:
        after = np.where(self.BEFORE == 3, 0, self.BEFORE)
        found = touched(self.BEFORE, after, "objects")
        assert (found.labels[20:26, 20:26] == 1).all()
        assert found.objects == 0

    def test_classes(self) -> None:
        after = self.BEFORE.copy()
        after[20, 30] = 2
        found = touched(self.BEFORE, after, "classes", rim=1)
        assert found.labels[20, 30] == 3
        assert (found.labels > 0).sum() == 9

    def test_nothing_changed_and_other_shapes_are_refused(self) -> None:
        with pytest.raises(ImageError, match="no label was changed"):
            touched(self.BEFORE, self.BEFORE, "objects")
        with pytest.raises(ImageError, match="shape"):
            touched(self.BEFORE[1:], self.BEFORE, "objects")

    @given(st.integers(0, 29), st.integers(0, 39), st.integers(0, 5))
    def test_any_voxel(self, y: int, x: int, value: int) -> None:
        after = self.BEFORE.copy()
        after[y, x] = value
        if after[y, x] == self.BEFORE[y, x]:
            return
        found = touched(self.BEFORE, after, "objects")
        assert found.changed == 1
        assert found.labels[y, x] > 0
        # What is taught is what is seen now.
        assert ((found.labels > 1) <= (after > 0)).all()
        assert ((found.labels == 1) <= (after == 0)).all()


def test_labels_of_a_layer_get_the_axes_of_the_run() -> None:
    labels = Image(np.arange(24).reshape(2, 1, 3, 4), "zcyx")
    np.testing.assert_array_equal(labels_of_run(labels, "zyx"), labels.data[:, 0])
    with pytest.raises(ImageError, match="axes"):
        labels_of_run(labels, "tyx")


def test_models_are_compared_on_held_out_images() -> None:
    good, bad = blob_model(), blob_model(object_size=None)
    for module in (bad.network.head,):
        module.bias.data -= 100
    image = image_from_array(PLANE, name="plate")
    compared = compare_models(bad, good, [(image, segment(PLANE, good))])
    assert (compared.old["AP"], compared.new["AP"]) == (0, 1)
    assert compared.is_better
    assert "AP 0.000 -> 1.000; on" not in compared.text
    assert "better: AP 0.000 -> 1.000" in compared.text
    assert compared.text.endswith("on plate")
    assert "NOT better" in Compared({"ap": 1}, {"ap": 1}, "x", good).text


class TestTaking:
    def test_the_old_one_is_kept_beside(self, folder: Path) -> None:
        before = (folder / "mine.safetensors").read_bytes()
        assert "kept as mine.safetensors.old" in take("mine", blob_model(name="other", object_size=3.0))
        assert (folder / "mine.safetensors.old").read_bytes() == before
        assert load_model("mine").spec.object_size == 3.0
        assert load_model("mine").spec.name == "mine"

    def test_a_bundled_one_stays(self, folder: Path) -> None:
        assert taken_path("nuclei") == folder / "nuclei-improved.safetensors"


def test_correct_improve_compare_take(viewer: Viewer, folder: Path, qtbot: Any) -> None:
    from napari_tiled_unet.viewer.improve_widget import ImproveWidget
    from napari_tiled_unet.viewer.segment_widget import SegmentWidget

    run, widget = SegmentWidget(viewer), ImproveWidget(viewer)
    viewer.window.add_dock_widget(run, name="Segment")
    viewer.window.add_dock_widget(widget, name="Improve")
    assert "correct its labels" in widget.status
    viewer.add_image(PLANE, name="cells")
    run.control("model").value = "mine"
    run.segment()
    qtbot.waitUntil(lambda: not run.running, timeout=30_000)
    qtbot.waitUntil(lambda: widget.control("result").value is not None, timeout=5_000)
    labels = widget.control("result").value
    assert labels.name == "cells labels"
    widget.control("steps").value = 4
    before = (folder / "mine.safetensors").read_bytes()

    widget.improve()
    qtbot.waitUntil(lambda: not widget.running, timeout=60_000)
    assert "no label was changed" in widget.status

    data = labels.data.copy()
    data[data == 2] = 0  # erased
    grid = np.indices(data.shape)
    for number in (1, 4, 5, 6):  # made larger
        middle = np.argwhere(data == number).mean(axis=0)
        data[sum((g - m) ** 2 for g, m in zip(grid, middle, strict=True)) < 49] = number
    labels.data = data
    widget.control("improve").native.click()
    qtbot.waitUntil(lambda: not widget.running, timeout=60_000)
    assert "->" in widget.status, widget.status
    assert "Taken, it would be 'mine'" in widget.status
    assert widget.compared is not None
    assert (folder / "mine.safetensors").read_bytes() == before, "never silently"
    assert not widget.control("improve").enabled
    widget.control("discard").native.click()
    assert (folder / "mine.safetensors").read_bytes() == before
    assert not list((folder / "candidates").glob("*"))

    widget.control("held_out_image").value = viewer.layers["cells"]
    widget.improve()
    assert "choose the right labels" in widget.status
    viewer.add_labels(data, name="truth")
    widget.control("held_out_truth").value = viewer.layers["truth"]
    widget.improve()
    qtbot.waitUntil(lambda: not widget.running, timeout=60_000)
    assert "on cells" in widget.status, widget.status
    widget.control("take").native.click()
    assert "'mine' is the new model now" in widget.status
    assert (folder / "mine.safetensors").read_bytes() != before
    assert (folder / "mine.safetensors.old").read_bytes() == before


def test_a_run_on_a_coarser_level_is_improved_on_that_level(viewer: Viewer, folder: Path, qtbot: Any) -> None:
    from napari_tiled_unet.viewer.improve_widget import ImproveWidget
    from napari_tiled_unet.viewer.segment_widget import SegmentWidget

    run, widget = SegmentWidget(viewer), ImproveWidget(viewer)
    viewer.window.add_dock_widget(run, name="Segment")
    viewer.window.add_dock_widget(widget, name="Improve")
    viewer.add_image([PLANE.repeat(2, axis=0).repeat(2, axis=1), PLANE], multiscale=True, name="cells")
    run.control("model").value, run.control("level").value = "mine", 1
    run.segment()
    qtbot.waitUntil(lambda: not run.running, timeout=30_000)
    qtbot.waitUntil(lambda: widget.control("result").value is not None, timeout=5_000)
    widget.control("steps").value = 2
    widget.improve()
    qtbot.waitUntil(lambda: not widget.running, timeout=60_000)
    # The run was repeated on the same voxels, and agreed.
    assert "no label was changed" in widget.status


def test_cancel_leaves_the_model(viewer: Viewer, folder: Path, qtbot: Any) -> None:
    from napari_tiled_unet.viewer.improve_widget import ImproveWidget
    from napari_tiled_unet.viewer.segment_widget import SegmentWidget

    run, widget = SegmentWidget(viewer), ImproveWidget(viewer)
    viewer.window.add_dock_widget(run, name="Segment")
    viewer.window.add_dock_widget(widget, name="Improve")
    for name in (
        "result",
        "steps",
        "freeze",
        "held_out_image",
        "held_out_truth",
        "improve",
        "cancel",
        "take",
        "discard",
    ):
        assert widget.control(name).tooltip, name
    viewer.add_image(PLANE, name="cells")
    run.control("model").value = "mine"
    run.segment()
    qtbot.waitUntil(lambda: not run.running, timeout=30_000)
    before = (folder / "mine.safetensors").read_bytes()
    qtbot.waitUntil(lambda: widget.control("result").value is not None, timeout=5_000)
    viewer.layers["cells labels"].data[10:20, 10:20] = 1
    viewer.layers["cells labels"].data[70:80, 40:50] = 0
    widget.control("steps").value = 10_000
    widget.improve()
    qtbot.waitUntil(lambda: len(widget.chart.curves.steps) > 0 or not widget.running, timeout=60_000)
    assert widget.running, widget.status
    widget.cancel()
    qtbot.waitUntil(lambda: not widget.running, timeout=60_000)
    assert widget.status == "cancelled; the model stays as it is"
    assert (folder / "mine.safetensors").read_bytes() == before
    assert not list((folder / "candidates").glob("*"))
