"""Labels corrected by hand make a model better, and nothing is replaced unasked."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_tiled_unet.errors import FileError, ImageError, ModelError
from napari_tiled_unet.image import Image, image_from_array
from napari_tiled_unet.lazy import Part
from napari_tiled_unet.model_files import find_model, load_model, save_model
from napari_tiled_unet.options import SegmentOptions
from napari_tiled_unet.segmentation import segment
from napari_tiled_unet.viewer.correction import (
    Compared,
    candidate_path,
    compare_models,
    for_another_image,
    origin_of,
    require_comparable,
    require_origin,
    take,
    taken_path,
    touched,
)
from napari_tiled_unet.viewer.glimpse import Sight
from napari_tiled_unet.viewer.improving import (
    Correction,
    Judged,
    at_network_scale,
    drop,
    improve_events,
    improvement_options,
    labels_of_run,
)
from napari_tiled_unet.viewer.teaching import Lesson
from tests.models import blob_model, blobs
from tests.viewer.endings import ENDINGS, close, wait_for_threads

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


def biased(**changes: Any) -> Any:
    """Return the model of blobs with another foreground."""
    model = blob_model(**changes)
    model.network.head.bias.data += 5
    return model


class TestOrigin:
    IMAGE = Image(np.stack([PLANE, PLANE[::-1]]), "tyx", name="cells")
    MODEL = blob_model()

    def changed(self, data: Any, region: str | None = None, model: Any = MODEL) -> bool:
        """Return whether a run on the image would be told from one on these data."""
        try:
            require_origin(origin_of(self.MODEL, self.IMAGE, region), model, Image(data, "tyx", name="cells"), region)
        except (ImageError, ModelError):
            return True
        return False

    def test_equal_data_are_the_same_wherever_they_lie(self) -> None:
        data = self.IMAGE.data
        assert not self.changed(data.copy())
        assert not self.changed(data.astype(np.float32))
        assert not self.changed(np.asfortranarray(data))
        assert not self.changed(data.transpose(2, 0, 1).copy().transpose(1, 2, 0))
        assert not self.changed(Part(data, (slice(0, 2), slice(0, 90), slice(0, 60)))), (
            "read where it is sliced: not read for this"
        )

    def test_other_data_are_told(self) -> None:
        data = self.IMAGE.data
        assert self.changed(data[:, ::-1])
        assert self.changed(data[:, :-1])
        assert self.changed(Part(data, (slice(0, 2), slice(1, 90), slice(0, 60))))

    def test_only_frames_that_were_segmented_count(self) -> None:
        longer = np.concatenate([self.IMAGE.data, PLANE[None]])
        assert not self.changed(longer, "t=1,y=8:40")
        assert self.changed(longer)
        # Intensities are measured on the whole frame.
        assert self.changed(self.IMAGE.data[:, :50], "t=1,y=8:40")

    def test_a_model_is_its_weights_and_how_they_are_used(self) -> None:
        assert not self.changed(self.IMAGE.data, model=blob_model(name="renamed", summary="another card"))
        assert self.changed(self.IMAGE.data, model=biased())
        assert self.changed(self.IMAGE.data, model=blob_model(object_size=9.0))

    def test_what_to_do_is_said(self) -> None:
        origin = origin_of(self.MODEL, self.IMAGE, None)
        with pytest.raises(ModelError, match=r"model 'blobs' has changed since this run.*segment the image again"):
            require_origin(origin, biased(), self.IMAGE, None)
        with pytest.raises(ImageError, match=r"data of 'cells' have changed since this run.*segment it again"):
            require_origin(origin, self.MODEL, Image(self.IMAGE.data[::-1], "tyx", name="cells"), None)


class TestComparing:
    """On another image under the options of the run."""

    def test_options_of_the_run_count(self) -> None:
        model = blob_model()
        image = Image(np.stack([PLANE * 0, PLANE]), "cyx", name="plate")
        options = SegmentOptions(channel=1)
        held_out = [(image, segment(PLANE, model))]
        assert compare_models(model, model, held_out, options).old["AP"] == 1
        none = options.changed(min_size=10_000)
        assert compare_models(model, model, held_out, none).old["AP"] == 0

    def test_what_is_of_the_image_of_the_run_does_not(self) -> None:
        ran = SegmentOptions(axes="cyx", region="y=0:8", tile=32, overlap=8, level=1, channel=1, object_size=20.0)
        assert for_another_image(ran) == SegmentOptions(channel=1, object_size=20.0)

    def test_series_of_stacks(self) -> None:
        model = blob_model()
        image = Image(np.stack([np.stack([PLANE] * 2)] * 3), "tzyx", name="series")
        truth = segment(image, model)
        assert compare_models(model, model, [(image, truth)]).new["AP"] == 1

    def test_what_cannot_be_compared_is_refused(self) -> None:
        model = blob_model()
        image = image_from_array(PLANE, name="plate")
        truth = segment(PLANE, model)
        require_comparable(model, [(image, truth)], SegmentOptions())
        with pytest.raises(ImageError, match="'plate' cannot be segmented as this run was: channel=1, the image has 1"):
            require_comparable(model, [(image, truth)], SegmentOptions(channel=1))
        with pytest.raises(ImageError, match="right labels of 'plate' have shape"):
            require_comparable(model, [(image, truth[1:])], SegmentOptions())
        with pytest.raises(ImageError, match="object_size needs a model that states its own"):
            require_comparable(blob_model(object_size=None), [(image, truth)], SegmentOptions(object_size=9))


class TestScale:
    """What is taught has the voxels that the run gave the network."""

    LARGE = blobs((180, 120), [(2 * y, 2 * x) for y, x in CENTRES], radius=10.0)

    def test_as_they_are(self) -> None:
        image, labels = Image(PLANE, "yx"), Image(np.ones(PLANE.shape, np.int32), "yx")
        assert at_network_scale(image, labels, blob_model(), SegmentOptions()) is None
        assert at_network_scale(image, labels, blob_model(), SegmentOptions(object_size=10.1)) is None

    def test_rescaled(self) -> None:
        series = np.stack([np.stack([self.LARGE * 0, self.LARGE])] * 3)
        labels = np.zeros((3, 180, 120), np.int32)
        labels[1] = np.arange(180)[:, None] + 1
        found = at_network_scale(
            Image(series, "tcyx", name="cells"),
            Image(labels, "tyx"),
            blob_model(spacing=(0.5, 0.5)),
            SegmentOptions(object_size=20.0, channel=1),
        )
        assert found is not None
        image, truth = found
        assert (image.axes, image.shape, truth.axes, truth.shape) == ("tcyx", (1, 1, 90, 60), "tyx", (1, 90, 60))
        assert image.spacing == (0.5, 0.5), "the voxels of the model"
        # Of two voxels the nearer one, as far as that can be said.
        assert set(np.unique(truth.data)) <= set(np.unique(labels))
        np.testing.assert_array_equal(truth.data[0, :, 0], np.arange(90) * 2 + 2)
        assert np.abs(image.data[0, 0] - PLANE / 1000).mean() < 0.02

    def test_the_size_of_a_voxel_rescales_too(self) -> None:
        image = Image(self.LARGE, "yx", spacing=(0.25, 0.25))
        labels = Image(np.ones(self.LARGE.shape, np.int32), "yx")
        ran = SegmentOptions(spacing=(0.25, 0.25))
        found = at_network_scale(image, labels, blob_model(spacing=(0.5, 0.5)), ran)
        assert found is not None
        assert found[0].shape == (1, 1, 90, 60)
        stack = Image(np.stack([PLANE] * 8), "zyx", spacing=(2.0, 0.5, 0.5))
        labels = Image(np.arange(8)[:, None, None] + np.ones((8, 90, 60), np.int32), "zyx")
        found = at_network_scale(stack, labels, blob_model(ndim=3, spacing=(1.0, 0.5, 0.5)), SegmentOptions())
        assert found is not None
        assert (found[0].axes, found[0].shape) == ("tczyx", (1, 1, 16, 90, 60))
        np.testing.assert_array_equal(found[1].data[0, :, 0, 0], np.arange(8).repeat(2) + 1)

    def test_what_is_not_finite_spoils_no_neighbour(self) -> None:
        image = self.LARGE.astype(np.float32)
        image[0, 0] = np.nan
        labels = Image(np.ones(image.shape, np.int32), "yx")
        found = at_network_scale(Image(image, "yx"), labels, blob_model(), SegmentOptions(object_size=20))
        assert found is not None
        assert np.isfinite(found[0].data).all()

    def test_a_run_that_rescaled_is_taught_and_judged_so(self, folder: Path) -> None:
        ran = SegmentOptions(model="mine", object_size=20.0, channel=1)
        image = Image(np.stack([self.LARGE * 0, self.LARGE]), "cyx", name="cells")
        after = segment(image, blob_model(), options=ran).astype(np.int32)
        grid = np.indices(after.shape)
        for number in (1, 4, 5, 6):
            middle = np.argwhere(after == number).mean(axis=0)
            after[sum((g - m) ** 2 for g, m in zip(grid, middle, strict=True)) < 196] = number
        lesson = Lesson(None, None, improvement_options(ran, "objects", steps=1, freeze=False))
        events = list(improve_events(Correction(image, Image(after, "yx"), ran), lesson, Sight()))
        (judged,) = [event for event in events if isinstance(event, Judged)]
        spec = judged.compared.model.spec
        # Used as the old one is: the next run with the same options gives it the same voxels.
        assert (spec.object_size, spec.spacing) == (10.0, None)
        assert spec.training["images"] == ["cells (1, 1, 90, 60)"]


class TestTaking:
    def test_the_old_one_is_kept_beside(self, folder: Path) -> None:
        before = (folder / "mine.safetensors").read_bytes()
        assert "kept as mine.safetensors.old" in take(find_model("mine"), blob_model(name="other", object_size=3.0))
        assert (folder / "mine.safetensors.old").read_bytes() == before
        assert load_model("mine").spec.object_size == 3.0
        assert load_model("mine").spec.name == "mine"

    def test_a_folder_of_models_need_not_be_there_yet(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("TILED_UNET_MODELS", str(folder / "new" / "models"))
        take(find_model("nuclei"), blob_model())
        assert load_model("nuclei-improved").spec.object_size == 10.0
        monkeypatch.setenv("TILED_UNET_MODELS", str(folder / "mine.safetensors"))
        for refused in (lambda: candidate_path(find_model("nuclei")), lambda: take(find_model("nuclei"), blob_model())):
            with pytest.raises(FileError, match=r"cannot be made .*choose another folder of models"):
                refused()

    def test_where_the_old_one_cannot_be_kept_nothing_is_replaced(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(*_: Any) -> None:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr("shutil.copy2", refuse)
        before = (folder / "mine.safetensors").read_bytes()
        with pytest.raises(FileError, match=r"mine.safetensors.old' \(Permission denied\), so it was not replaced"):
            take(find_model("mine"), blob_model(object_size=3.0))
        assert (folder / "mine.safetensors").read_bytes() == before

    @pytest.mark.parametrize("name", ["mine", "plate[1]", "a*b"])
    def test_what_was_not_taken_goes_with_all_beside_it_and_nothing_else(self, tmp_path: Path, name: str) -> None:
        own = [tmp_path / f"{name}{end}" for end in (".safetensors", ".checkpoint", ".curves.csv", ".curves.png")]
        others = [tmp_path / "mine.v2.safetensors", tmp_path / "plate1.safetensors"]
        for path in (*own, *others):
            path.touch()
        drop(own[0])
        drop(own[0])
        assert sorted(tmp_path.iterdir()) == sorted(others)

    def test_the_old_one_may_be_gone(self, folder: Path) -> None:
        old = find_model("mine")
        old.unlink()
        assert take(old, blob_model()) == "'mine' is the new model now"
        assert load_model("mine").spec.name == "mine"

    def test_a_bundled_one_stays(self, folder: Path) -> None:
        assert taken_path(find_model("nuclei")) == folder / "nuclei-improved.safetensors"


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
    labels.data = data
    correct(labels)
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


def ran_and_improving(viewer: Viewer, qtbot: Any, **chosen: Any) -> Any:
    """Return the widget, with the labels of a run of ``mine`` on the last image."""
    from napari_tiled_unet.viewer.improve_widget import ImproveWidget
    from napari_tiled_unet.viewer.segment_widget import SegmentWidget

    run, widget = SegmentWidget(viewer), ImproveWidget(viewer)
    viewer.window.add_dock_widget(run, name="Segment")
    viewer.window.add_dock_widget(widget, name="Improve")
    for name, value in {"model": "mine", **chosen}.items():
        run.control(name).value = value
    run.segment()
    qtbot.waitUntil(lambda: not run.running, timeout=30_000)
    qtbot.waitUntil(lambda: widget.control("result").value is not None, timeout=5_000)
    widget.control("steps").value = 2
    return widget


def improved(widget: Any, qtbot: Any) -> str:
    """Return what the line says when an improvement is over."""
    widget.improve()
    qtbot.waitUntil(lambda: not widget.running, timeout=60_000)
    return widget.status


def correct(labels: Any) -> None:
    """Make some objects of a layer larger."""
    data = labels.data.copy()
    grid = np.indices(data.shape)
    for number in (1, 4, 5, 6):
        middle = np.argwhere(data == number).mean(axis=0)
        data[sum((g - m) ** 2 for g, m in zip(grid, middle, strict=True)) < 49] = number
    labels.data = data


def dock_in_an_improvement(viewer: Viewer, folder: Path, qtbot: Any, when: str) -> Any:
    """Return the dock of a widget whose training goes on, or whose new model waits to be taken."""
    from napari_tiled_unet.viewer.segment_widget import SegmentWidget

    run = SegmentWidget(viewer)
    viewer.window.add_dock_widget(run, name="Segment")
    dock, widget = viewer.window.add_plugin_dock_widget("napari-tiled-unet", "Improve")
    viewer.add_image(PLANE, name="cells")
    run.control("model").value = "mine"
    run.segment()
    qtbot.waitUntil(lambda: not run.running, timeout=30_000)
    qtbot.waitUntil(lambda: widget.control("result").value is not None, timeout=5_000)
    correct(widget.control("result").value)
    widget.control("steps").value = 10_000 if when == "training" else 2
    widget.improve()
    if when == "training":
        qtbot.waitUntil(lambda: len(widget.chart.curves.steps) > 0 or not widget.running, timeout=60_000)
    else:
        qtbot.waitUntil(lambda: not widget.running, timeout=60_000)
        assert widget.compared is not None, widget.status
        assert list((folder / "candidates").glob("*"))
    return dock


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("when", ["training", "waiting"])
def test_a_widget_that_is_closed_leaves_no_candidate(
    make_napari_viewer: Any, frugal: None, folder: Path, qtbot: Any, ending: str, when: str
) -> None:
    viewer = make_napari_viewer()
    dock = dock_in_an_improvement(viewer, folder, qtbot, when)
    close(ending, viewer, dock)
    del dock
    gc.collect()
    wait_for_threads(qtbot)
    assert not list((folder / "candidates").glob("*"))


def test_a_model_that_changed_since_the_run_is_refused(viewer: Viewer, folder: Path, qtbot: Any) -> None:
    viewer.add_image(PLANE, name="cells")
    widget = ran_and_improving(viewer, qtbot)
    assert "no label was changed" in improved(widget, qtbot)
    take(find_model("mine"), biased(name="mine"))
    assert "model 'mine' has changed since this run" in improved(widget, qtbot)
    assert "segment the image again" in widget.status
    assert widget.compared is None
    assert not list((folder / "candidates").glob("*"))
    # A result of an earlier version does not say which model made it.
    del widget.control("result").value.metadata["tiled_unet"]["origin"]
    assert "has changed" not in improved(widget, qtbot)


def test_an_image_that_changed_since_the_run_is_refused(viewer: Viewer, folder: Path, qtbot: Any) -> None:
    layer = viewer.add_image(PLANE, name="cells")
    widget = ran_and_improving(viewer, qtbot)
    layer.data = PLANE.copy()
    assert "no label was changed" in improved(widget, qtbot)
    layer.data = PLANE[::-1].copy()
    assert "the data of 'cells' have changed since this run" in improved(widget, qtbot)
    assert widget.compared is None


def test_the_held_out_image_is_segmented_as_the_run_was(viewer: Viewer, folder: Path, qtbot: Any) -> None:
    cells = viewer.add_image(np.stack([PLANE * 0, PLANE]), name="cells", axis_labels=("c", "y", "x"))
    widget = ran_and_improving(viewer, qtbot, channel=1)
    labels = widget.control("result").value
    truth = viewer.add_labels(labels.data.copy(), name="truth")
    correct(labels)
    plate = viewer.add_image(PLANE[None], name="plate", axis_labels=("c", "y", "x"))
    widget.control("held_out_image").value, widget.control("held_out_truth").value = plate, truth
    assert "channel=1, the image has 1" in improved(widget, qtbot)
    assert not widget.chart.curves.steps, "refused before the training"
    widget.control("held_out_image").value = cells
    assert "on cells" in improved(widget, qtbot), widget.status
    assert widget.compared.old["AP"] == 1
