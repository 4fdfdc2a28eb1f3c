"""Many files in the viewer: which they are, how far they are, and the widget that shows it."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tifffile
from napari.layers import Image as ImageLayer
from napari.layers import Labels

from napari_tiled_unet.batch import FileEnded, FileStarted
from napari_tiled_unet.errors import ModelError, OptionsError
from napari_tiled_unet.events import TileDone
from napari_tiled_unet.io import read_image
from napari_tiled_unet.options import SegmentOptions
from napari_tiled_unet.recipe import write_recipe
from napari_tiled_unet.segmentation import segment
from napari_tiled_unet.terminal import FileResult
from napari_tiled_unet.tiling import Tile
from napari_tiled_unet.viewer.batching import BatchState, FileRow, batch_events, batch_of, layers_of
from tests.models import blobs

if TYPE_CHECKING:
    from napari.viewer import Viewer

    from napari_tiled_unet.viewer.batch_widget import BatchWidget

pytestmark = pytest.mark.filterwarnings("ignore:Conversion from CIE-LAB:UserWarning")  # napari's label colours

PLANE = blobs((56, 72), [(15, 20), (15, 50), (40, 30)])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with two images, one that is none, and one in a folder within."""
    images = tmp_path / "images"
    (images / "more").mkdir(parents=True)
    for name in ("a.tif", "b.tif", "more/c.tif"):
        tifffile.imwrite(images / name, PLANE)
    (images / "broken.tif").write_bytes(b"no image")
    (images / "notes.txt").write_text("no image either")
    return images


class TestWhichFiles:
    def test_a_pattern_chooses(self, folder: Path) -> None:
        assert [row.image.name for row in batch_of(folder, "", None).rows] == ["a.tif", "b.tif", "broken.tif"]
        assert [row.image.name for row in batch_of(folder, "?.tif", None).rows] == ["a.tif", "b.tif"]
        assert [row.image.name for row in batch_of(folder, "**/c*", None).rows] == ["c.tif"]

    def test_labels_lie_beside_or_in_the_folder(self, folder: Path, tmp_path: Path) -> None:
        assert batch_of(folder, "a*", " ").rows[0].labels == folder / "a_labels.ome.tif"
        assert batch_of(folder, "a*", tmp_path / "out").rows[0].labels == tmp_path / "out" / "a_labels.ome.tif"

    def test_labels_of_an_earlier_batch_are_no_images(self, folder: Path) -> None:
        tifffile.imwrite(folder / "a_labels.ome.tif", PLANE)
        assert len(batch_of(folder, "a*", None).rows) == 1

    @pytest.mark.parametrize(
        ("where", "pattern", "message"),
        [
            ("", "*", "'' is no folder"),
            (".", "*.png", "no image in .* fits"),
            (".", "/tmp/*", "must be relative"),
            (".", "**.tif", r"pattern '\*\*.tif': \*\* .* stands alone .* such as \*\*/\*.tif"),
            (".", "./", r"pattern './' names no file; give one such as \*.tif"),
        ],
    )
    def test_what_cannot_be_is_refused(self, folder: Path, where: str, pattern: str, message: str) -> None:
        with pytest.raises(OptionsError, match=message):
            batch_of(where and folder, pattern, None)


class TestState:
    ROWS = tuple(FileRow(Path(f"{name}.tif"), Path(f"{name}_labels.ome.tif")) for name in "abcd")

    def test_it_follows_the_events(self) -> None:
        state = BatchState(self.ROWS)
        assert (state.fraction, state.words) == (0, "4 waiting")
        state = replace(state.after(FileStarted(0)), tiles=4)
        state = state.after(TileDone(0, 0, Tile(0, (), (), ())))
        assert state.fraction == pytest.approx(1 / 16)
        state = state.after(FileEnded(0, FileResult("a.tif", "", "done", n_objects=3, seconds=1.234)))
        assert state.rows[0].cells == ("a.tif", "done", "3", "1.2", "")
        state = state.after(FileEnded(1, FileResult("b.tif", "", "failed", error="no image")))
        state = state.after(FileEnded(2, FileResult("c.tif", "", "skipped", error="result exists; --overwrite")))
        assert state.rows[2].cells == ("c.tif", "skipped", "", "", "exists already")
        assert state.words == "1 waiting, 1 done, 1 skipped, 1 failed"
        assert [row.can_open for row in state.rows] == [True, False, True, False]
        assert state.fraction == 0.75
        assert state.stopped().words == "1 done, 1 skipped, 1 failed, 1 stopped"

    def test_old_maps_that_went_are_told(self) -> None:
        ended = FileEnded(0, FileResult("a.tif", "", "done", removed=("out/a_maps.ome.tif",)))
        assert BatchState(self.ROWS).after(ended).rows[0].remark == "removed, of an earlier run: a_maps.ome.tif"

    def test_nothing_is_nothing(self) -> None:
        assert (BatchState().fraction, BatchState().words) == (0, "")

    def test_an_error_of_no_file_ends_it(self) -> None:
        with pytest.raises(ModelError, match="missing"):
            next(batch_events(self.ROWS, SegmentOptions(model="missing"), overwrite=False))


def test_layers_of_a_part_lie_on_it(tmp_path: Path) -> None:
    stack = np.stack([PLANE, PLANE, PLANE])
    tifffile.imwrite(
        tmp_path / "s.ome.tif", stack, metadata={"axes": "ZYX", "PhysicalSizeX": 0.5, "PhysicalSizeXUnit": "µm"}
    )
    rows = batch_of(tmp_path, "s*", None).rows
    options = SegmentOptions(model="blobs", region="z=1:3,y=8:56", axes="zyx", spacing="none")
    events = list(batch_events(rows, options, overwrite=False))
    assert events[-1].result.state == "done"
    image, labels = layers_of(rows[0])
    assert image.data.shape == (3, 56, 72)
    assert labels.data.shape == (2, 48, 72)
    np.testing.assert_allclose(labels.translate, np.array(image.scale) * (1, 8, 0))
    found = labels.world_to_data(np.array(image.scale) * (1, 15, 20))
    assert labels.data[tuple(np.rint(found).astype(int))] > 0


def opened(folder: Path, **options: Any) -> tuple[ImageLayer, Labels]:
    """Segment the only image of a folder, and return what a double click on it shows."""
    rows = batch_of(folder, "*", None).rows
    events = list(batch_events(rows, SegmentOptions.of(model="blobs", **options), overwrite=False))
    assert events[-1].result.state == "done", events[-1].result.error
    image, labels = layers_of(rows[0])
    return image, labels


def test_layers_of_a_resolution_lie_on_each_other(tmp_path: Path) -> None:
    fine = PLANE.repeat(2, axis=0).repeat(2, axis=1)
    size = {"PhysicalSizeX": 0.5, "PhysicalSizeXUnit": "µm", "PhysicalSizeY": 0.5, "PhysicalSizeYUnit": "µm"}
    with tifffile.TiffWriter(tmp_path / "p.ome.tif") as tiff:
        tiff.write(fine, subifds=1, metadata={"axes": "YX", **size})
        tiff.write(PLANE, subfiletype=1)
    image, labels = opened(tmp_path, level=1, region="y=8:56")
    np.testing.assert_allclose(image.extent.world[1], (55, 71))
    found = labels.world_to_data(image.data_to_world((40, 30)))
    np.testing.assert_allclose(found, (32, 30))
    assert labels.get_value(image.data_to_world((40, 30)), world=True) == labels.data[32, 30] > 0
    np.testing.assert_array_equal(labels.data, segment(PLANE, "blobs", region="y=8:56"))


def test_colours_in_planes_are_shown_as_colours(tmp_path: Path) -> None:
    grey = (PLANE // 4).astype(np.uint8)
    colours = np.stack([grey, grey, grey // 2])
    tifffile.imwrite(tmp_path / "rgb.tif", colours, photometric="rgb", planarconfig="separate")
    image, labels = opened(tmp_path)
    assert image.rgb
    np.testing.assert_array_equal(image.data, np.moveaxis(colours, 0, -1))
    assert (labels.data.shape, labels.data.max()) == (PLANE.shape, 3)


def test_a_stack_is_shown_with_the_axes_that_it_was_segmented_with(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "s.tif", np.stack([PLANE, PLANE, PLANE]), photometric="minisblack")
    image, labels = opened(tmp_path, axes="tyx", region="t=1:2")
    assert image.axis_labels == labels.axis_labels == ("t", "y", "x")
    assert (image.data.shape, labels.data.shape) == ((3, *PLANE.shape), (1, *PLANE.shape))
    np.testing.assert_allclose(labels.translate, (1, 0, 0))


@pytest.fixture
def widget(viewer: Viewer, user_models: Path, folder: Path) -> BatchWidget:
    """Return a docked batch widget, set to the folder and the hand-made model."""
    from napari_tiled_unet.viewer.batch_widget import BatchWidget

    made = BatchWidget(viewer)
    viewer.window.add_dock_widget(made, name="Batch", area="right")
    made.control("model").value = "blobs"
    made.control("folder").line_edit.value = str(folder)
    return made


def test_a_folder(widget: BatchWidget, viewer: Viewer, folder: Path, tmp_path: Path, qtbot: Any) -> None:
    out = tmp_path / "out"
    write_recipe(tmp_path / "r.yaml", SegmentOptions(model="blobs", min_size=7, axes="yx"))
    widget.control("out").line_edit.value = str(out)
    from qtpy.QtWidgets import QFileDialog

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(QFileDialog, "getOpenFileName", lambda *_: (str(tmp_path / "r.yaml"), ""))
        widget.control("recipe").native.click()
    assert widget.batch_options() == SegmentOptions(model="blobs", min_size=7, axes="yx")
    widget.control("start").native.click()
    assert widget.running
    assert not widget.control("start").enabled
    qtbot.waitUntil(lambda: not widget.running, timeout=30_000)
    assert widget.status == "2 done, 1 failed"
    assert [row.state for row in widget.state.rows] == ["done", "done", "failed"]
    assert widget._table.item(0, 2).text() == "3"
    assert "is damaged" in widget._table.item(2, 4).text()
    np.testing.assert_array_equal(read_image(out / "a_labels.ome.tif").data, segment(PLANE, "blobs", min_size=7))

    widget._table.cellDoubleClicked.emit(2, 0)
    assert not widget.opening
    widget._table.cellDoubleClicked.emit(0, 0)
    qtbot.waitUntil(lambda: len(viewer.layers) == 2, timeout=20_000)
    assert [layer.name for layer in viewer.layers] == ["a.tif", "a.tif labels"]

    widget.start()
    qtbot.waitUntil(lambda: not widget.running, timeout=30_000)
    assert widget.status == "2 skipped, 1 failed"


def test_a_new_model_is_offered_and_the_one_that_is_chosen_stays(
    widget: BatchWidget, model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(model_folder / "blobs.safetensors", tmp_path / "mine.safetensors")
    monkeypatch.setenv("TILED_UNET_MODELS", str(tmp_path))
    row = widget.control("model")
    widget.read_models()
    assert "mine" in [name for _, name in row._offered]
    assert row.value == "blobs"
    # That of a recipe stays too, though it is not installed.
    widget.take_options(SegmentOptions(model="elsewhere"))
    widget.read_models()
    assert row.value == "elsewhere"


def test_cancel_keeps_what_is_done(widget: BatchWidget, folder: Path, qtbot: Any) -> None:
    tifffile.imwrite(folder / "b.tif", np.tile(PLANE, (30, 30)))
    widget.control("pattern").value = "?.tif"
    widget.control("tile").value, widget.control("overlap").value = "16", "4"
    widget.start()
    qtbot.waitUntil(lambda: widget.state.rows[1].state == "running" and widget.state.tiles_done > 2, timeout=30_000)
    widget.control("cancel").native.click()
    qtbot.waitUntil(lambda: not widget.running, timeout=30_000)
    assert widget.status == "1 done, 1 stopped"
    assert sorted(path.name for path in folder.glob("*_labels*")) == ["a_labels.ome.tif"]


def test_what_is_wrong_is_said(widget: BatchWidget, notified: list[tuple[str, str]]) -> None:
    widget.control("pattern").value = "*.png"
    widget.start()
    assert not widget.running
    assert "give another pattern" in widget.status
    assert notified == [("error", widget.status)]
