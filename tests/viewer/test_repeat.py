"""What was clicked is written down, and does the same again."""

from __future__ import annotations

import gc
import os
import shlex
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tifffile
from qtpy.QtWidgets import QApplication, QMenu

from napari_tiled_unet import cli, read_image, write_labels
from napari_tiled_unet.errors import OptionsError
from napari_tiled_unet.model_files import save_model
from napari_tiled_unet.options import SegmentOptions
from napari_tiled_unet.recipe import parse_recipe, read_recipe, write_recipe
from napari_tiled_unet.segmentation import segment
from napari_tiled_unet.viewer.form import option_rows, options_from_rows, rows_of
from napari_tiled_unet.viewer.layers import METADATA_KEY
from napari_tiled_unet.viewer.regions import RANGE, WHOLE
from tests.models import blob_model
from tests.viewer.test_segment_widget import PLANE, result

if TYPE_CHECKING:
    from napari.viewer import Viewer

    from napari_tiled_unet.viewer.segment_widget import SegmentWidget

pytestmark = pytest.mark.filterwarnings("ignore:Conversion from CIE-LAB:UserWarning")  # napari's label colours

Finish = Callable[["SegmentWidget"], None]
LARGE = np.tile(PLANE, (3, 3))


@pytest.fixture
def field(tmp_path: Path) -> Path:
    """Return an image file, large enough for tiles."""
    path = tmp_path / "a field.ome.tif"
    write_labels(path, LARGE, "yx", (0.5, 0.5))
    return path


def copied(widget: SegmentWidget, button: str, qtbot: Any) -> str:
    """Click a button and return what it copied."""
    QApplication.clipboard().clear()
    getattr(widget._repeat, f"copy_{button}")()
    qtbot.waitUntil(lambda: not widget._repeat.busy, timeout=20_000)
    return str(QApplication.clipboard().text())


RUNS = {
    "plain": {},
    "part": {"run_on": RANGE, "region": "y=30:150,x=20:"},
    "rescaled": {"object_size": "14", "tile": "64", "overlap": "12"},
}


class TestCopied:
    def test_the_file_is_read_by_another_thread(
        self, viewer: Viewer, docked: SegmentWidget, qtbot: Any, field: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from napari_tiled_unet.viewer import repeat

        threads: list[int] = []

        def read(*arguments: Any, **keywords: Any) -> Any:
            threads.append(threading.get_ident())
            return read_image(*arguments, **keywords)

        monkeypatch.setattr(repeat, "read_image", read)
        viewer.open(field, plugin="napari")
        assert str(field) in copied(docked, "command", qtbot)
        assert len(threads) == 1
        assert threads[0] != threading.get_ident()

    @pytest.mark.parametrize("name", RUNS)
    def test_python_and_command_give_the_same_labels_in_a_fresh_process(
        self,
        viewer: Viewer,
        docked: SegmentWidget,
        finish: Finish,
        qtbot: Any,
        field: Path,
        tmp_path: Path,
        model_folder: Path,
        name: str,
    ) -> None:
        viewer.open(field, plugin="napari")
        docked.control("overlap").value = "16"
        docked.control("tile").value = "96"
        for row, value in RUNS[name].items():
            docked.control(row).value = value
        docked.segment()
        finish(docked)
        expected = np.asarray(result(viewer).data)
        assert expected.max() > 5
        # What the form says now is another run.
        docked.control("min_size").value = "5000"

        script = copied(docked, "python", qtbot)
        script += f"\nimport numpy\nnumpy.save({str(tmp_path / 'labels.npy')!r}, labels)\n"
        command = f"{copied(docked, 'command', qtbot)} --out {shlex.quote(str(tmp_path / 'out.ome.tif'))}"
        words = shlex.split(command)
        assert words[0] == "tiled-unet"
        # One process for both: that of a command of its own is tests/test_cli.py's.
        script += f"\nfrom napari_tiled_unet import cli\ncli.main({words[1:]!r})\n"
        environment = {**os.environ, "TILED_UNET_MODELS": str(model_folder)}
        subprocess.run(
            [sys.executable, "-W", "ignore", "-c", script],
            check=True,
            env=environment,
            timeout=120,
            capture_output=True,
        )
        np.testing.assert_array_equal(np.load(tmp_path / "labels.npy"), expected)
        np.testing.assert_array_equal(np.asarray(read_image(tmp_path / "out.ome.tif").data), expected)

    def test_the_recipe_leaves_open_what_was_left_open(
        self, viewer: Viewer, docked: SegmentWidget, finish: Finish
    ) -> None:
        viewer.add_image(PLANE)
        docked.control("min_size").value = "4"
        docked.segment()
        finish(docked)
        mark = result(viewer).metadata[METADATA_KEY]
        assert parse_recipe(mark["recipe"]) == SegmentOptions.of(model="blobs", axes="yx", min_size=4)
        exact = SegmentOptions.of(**mark["exact"])
        assert exact.tile != "auto"
        assert (exact.device, exact.min_size) == ("cpu", 4)

    def test_an_image_of_no_file_is_named_in_the_console(
        self, viewer: Viewer, docked: SegmentWidget, qtbot: Any, notified: list[tuple[str, str]]
    ) -> None:
        viewer.add_image(PLANE, name="cells")
        script = copied(docked, "python", qtbot)
        names: dict[str, Any] = {"viewer": viewer}
        exec(script, names)
        assert names["labels"].max() == 3
        assert "napari's console" in notified[-1][1]
        assert " IMAGE " in copied(docked, "command", qtbot)
        assert "save it" in notified[-1][1]

    def test_a_layer_that_is_not_what_its_file_holds_is_named_in_the_console(
        self, viewer: Viewer, docked: SegmentWidget, qtbot: Any, field: Path, tmp_path: Path
    ) -> None:
        (layer,) = viewer.open(field, plugin="napari")
        assert repr(str(field)) in copied(docked, "python", qtbot)
        layer.data = layer.data.max() - layer.data
        text = copied(docked, "python", qtbot)
        assert str(field) not in text
        assert f"viewer.layers[{layer.name!r}].data" in text
        assert "IMAGE" in copied(docked, "command", qtbot)
        viewer.layers.clear()
        two = tmp_path / "two.tif"
        tifffile.imwrite(two, np.stack([PLANE, PLANE]), metadata={"axes": "CYX"}, imagej=True)
        for layer in viewer.open(two, plugin="napari", channel_axis=0):
            docked.layer = layer
            assert str(two) not in copied(docked, "python", qtbot)

    def test_before_a_run_the_layers_voxels_are_written(
        self, viewer: Viewer, qtbot: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from napari_tiled_unet.viewer.segment_widget import SegmentWidget

        save_model(blob_model(name="scaled", spacing=(0.5, 0.5)), tmp_path / "scaled.safetensors")
        monkeypatch.setenv("TILED_UNET_MODELS", str(tmp_path))
        widget = SegmentWidget(viewer)
        viewer.window.add_dock_widget(widget, name="Segment")
        layer = viewer.add_image(PLANE, name="cells", scale=(0.25, 0.25), units=("um", "um"))
        widget.control("model").value = "scaled"
        assert "spacing=(0.25, 0.25)" in copied(widget, "python", qtbot)
        layer.units = ("pixel", "pixel")
        assert "spacing='none'" in copied(widget, "python", qtbot)

    def test_colours_and_levels(self, viewer: Viewer, docked: SegmentWidget, qtbot: Any) -> None:
        grey = (PLANE // 4).astype(np.uint8)
        viewer.add_image(np.stack([grey] * 3, axis=-1), rgb=True, name="colours")
        names: dict[str, Any] = {"viewer": viewer}
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("warnings.warn", lambda *_, **__: None)
            exec(copied(docked, "python", qtbot), names)
        assert names["labels"].max() == 3
        levels = viewer.add_image([PLANE, PLANE[::2, ::2]], multiscale=True, name="levels")
        docked.layer = levels
        assert "viewer.layers['levels'].data[0]" in copied(docked, "python", qtbot)
        docked.control("level").value = 1
        docked.control("model").value = "blobs"
        exec(copied(docked, "python", qtbot), names)
        np.testing.assert_array_equal(names["labels"], segment(PLANE[::2, ::2], "blobs"))
        # What is of a level the single resolution of another image does not have.
        options = docked.segment_options()
        assert options.level == 1
        docked.layer = viewer.layers["colours"]
        assert docked.segment_options().level == 0
        with pytest.raises(OptionsError, match="level 1 of a multiscale image, colours has 1; choose another image"):
            docked.take_options(options)

    def test_without_an_image_there_is_nothing_to_copy(
        self, docked: SegmentWidget, qtbot: Any, notified: list[tuple[str, str]]
    ) -> None:
        assert copied(docked, "python", qtbot) == ""
        assert notified == [("error", "nothing can be written down without an image; open one first")]


class TestRecipes:
    def test_rows_say_options_and_options_rows(self) -> None:
        options = SegmentOptions.of(
            spacing=(2.0, 0.123456789),
            object_size=12.5,
            tile=(64, 32),
            overlap="exact",
            fill_holes=False,
            link_slices=True,
            min_size=7,
            precision="float32",
        )
        rows = rows_of(options)
        assert set(rows) == {row.name for row in option_rows()} - {"model", "axes", "channel", "level", "region"}
        assert options_from_rows(rows) == options

    def test_saved_and_loaded(
        self, viewer: Viewer, docked: SegmentWidget, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from qtpy.QtWidgets import QFileDialog

        path = tmp_path / "mine"
        monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_, **__: (str(path), ""))
        monkeypatch.setattr(QFileDialog, "getOpenFileName", lambda *_, **__: (str(path.with_suffix(".yaml")), ""))
        viewer.add_image(np.stack([PLANE] * 3))
        docked.control("axes").value = "tyx"
        docked.control("run_on").value = RANGE
        docked.control("region").value = "t=1:"
        docked.control("min_size").value = "9"
        docked.control("blend").value = "gaussian"
        wanted = docked.segment_options()
        docked._repeat.save_recipe()
        assert read_recipe(path.with_suffix(".yaml")) == wanted

        docked.control("axes").value = "zyx"
        docked.control("run_on").value = WHOLE
        docked.control("min_size").value = ""
        docked.control("blend").value = "crop"
        assert docked.segment_options() != wanted
        docked._repeat.load_recipe()
        assert docked.segment_options() == wanted

    def test_what_cannot_be_loaded_is_told(
        self,
        docked: SegmentWidget,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        notified: list[tuple[str, str]],
    ) -> None:
        from qtpy.QtWidgets import QFileDialog

        path = tmp_path / "foreign.yaml"
        monkeypatch.setattr(QFileDialog, "getOpenFileName", lambda *_, **__: (str(path), ""))
        write_recipe(path, SegmentOptions(model="unknown"))
        docked._repeat.load_recipe()
        path.write_text("hello")
        docked._repeat.load_recipe()
        assert "'unknown', which is not installed" in notified[0][1]
        assert "is no recipe" in notified[1][1]

    def test_run_again_on_another_image(self, viewer: Viewer, docked: SegmentWidget, finish: Finish) -> None:
        first = viewer.add_image(PLANE, name="first")
        docked.control("min_size").value = "3"
        docked.segment()
        finish(docked)
        second = viewer.add_image(PLANE[:, ::-1], name="second")
        docked.layer = first
        docked.control("min_size").value = "5000"
        docked._repeat._fill_menu()
        (again,) = [a.menu() for a in docked._repeat.menu.actions() if a.menu()]
        assert again.isEnabled()
        assert [entry.text() for entry in again.actions()] == ["first", "second"]
        again.actions()[1].trigger()
        assert docked.running
        finish(docked)
        assert docked.layer is second
        labels = viewer.layers["second labels"]
        assert labels.data.max() == 3
        assert labels.metadata[METADATA_KEY]["options"]["min_size"] == 3

    def test_the_menu_holds_no_image_that_was_removed(
        self, viewer: Viewer, docked: SegmentWidget, finish: Finish, qtbot: Any
    ) -> None:
        first = viewer.add_image(PLANE, name="first")
        docked.segment()
        finish(docked)
        second = weakref.ref(viewer.add_image(PLANE, name="second"))
        docked.layer = first
        for _ in range(2):
            docked._repeat._fill_menu()
        (again,) = docked._repeat.menu.findChildren(QMenu)
        assert [entry.text() for entry in again.actions()] == ["first", "second"]
        viewer.layers.remove("second")
        # napari lets go of a layer in several steps.
        qtbot.waitUntil(lambda: gc.collect() >= 0 and second() is None, timeout=5000)

    def test_without_a_result_there_is_nothing_to_run_again(self, viewer: Viewer, docked: SegmentWidget) -> None:
        viewer.add_image(PLANE)
        docked._repeat._fill_menu()
        (again,) = [a.menu() for a in docked._repeat.menu.actions() if a.menu()]
        assert not again.isEnabled()

    def test_a_recipe_of_the_viewer_runs_on_the_command_line(
        self, viewer: Viewer, docked: SegmentWidget, finish: Finish, field: Path, tmp_path: Path
    ) -> None:
        viewer.open(field, plugin="napari")
        docked.segment()
        finish(docked)
        labels = result(viewer)
        (tmp_path / "r.yaml").write_text(labels.metadata[METADATA_KEY]["recipe"])
        assert cli.run(["run", str(tmp_path / "r.yaml"), str(field), "--out", str(tmp_path / "o.ome.tif")]) == cli.DONE
        np.testing.assert_array_equal(read_image(tmp_path / "o.ome.tif").data, labels.data)
