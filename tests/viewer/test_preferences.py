"""What napari's preferences change, with the settings made of the manifest."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from npe2 import PluginManager, PluginManifest

import napari_tiled_unet
from napari_tiled_unet.errors import ModelError
from napari_tiled_unet.viewer.preferences import PLUGIN, Preferences, read_preferences, use_model_folder

if TYPE_CHECKING:
    from napari.viewer import Viewer


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return the settings of the plugin, as napari makes them of the manifest; never written to a file."""
    import napari.settings
    from napari.settings._plugin_config_generator import plugin_configuration_generator

    manager = PluginManager()
    manager.register(PluginManifest.from_file(Path(napari_tiled_unet.__file__).with_name("napari.yaml")))
    made = plugin_configuration_generator(manager)[PLUGIN](config_path=None)
    monkeypatch.setattr(napari.settings, "_PLUGIN_SETTINGS", {PLUGIN: made})
    return made.runs


@pytest.fixture
def no_folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Name no folder of models in the environment, and leave none behind."""
    monkeypatch.delenv("TILED_UNET_MODELS", raising=False)
    yield
    use_model_folder(Preferences())


def test_the_manifest_says_the_defaults(settings: Any) -> None:
    assert read_preferences() == Preferences()
    assert Preferences().rows == {}


def test_a_napari_that_does_not_know_them_has_the_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    import napari.settings

    monkeypatch.setattr(napari.settings, "_PLUGIN_SETTINGS", {"another": None})
    assert read_preferences() == Preferences()


def test_the_model_folder(no_folder: None, tmp_path: Path) -> None:
    use_model_folder(Preferences(models=str(tmp_path)))
    assert os.environ["TILED_UNET_MODELS"] == str(tmp_path)
    use_model_folder(Preferences(models=str(tmp_path / "other")))
    assert os.environ["TILED_UNET_MODELS"] == str(tmp_path / "other")
    use_model_folder(Preferences())
    assert "TILED_UNET_MODELS" not in os.environ


def test_the_environment_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TILED_UNET_MODELS", "/mine")
    use_model_folder(Preferences(models="/other"))
    assert os.environ["TILED_UNET_MODELS"] == "/mine"


def test_forms_start_with_them(viewer: Viewer, settings: Any, model_folder: Path, no_folder: None) -> None:
    from napari_tiled_unet.viewer.batch_widget import BatchWidget
    from napari_tiled_unet.viewer.segment_widget import SegmentWidget

    settings.device, settings.memory, settings.models = "cpu", 2.5, str(model_folder)
    widget, batch = SegmentWidget(viewer), BatchWidget(viewer)
    viewer.window.add_dock_widget(widget)
    viewer.window.add_dock_widget(batch)
    for form in (widget, batch):
        form.control("model").value = "blobs"
    for options in (widget.segment_options(), batch.batch_options()):
        assert (options.model, options.device, options.memory) == ("blobs", "cpu", 2.5)


def test_a_training_heeds_them_with_no_other_form_open(
    viewer: Viewer, settings: Any, model_folder: Path, no_folder: None, tmp_path: Path
) -> None:
    from napari_tiled_unet.viewer.train_widget import TrainWidget

    settings.device, settings.memory, settings.models = "cpu", 2.5, str(model_folder)
    train = TrainWidget(viewer)
    viewer.window.add_dock_widget(train)
    options = train.train_options()
    assert (options.device, options.memory) == ("cpu", 2.5)
    assert "blobs" in [name for _, name in train.control("start")._offered]
    assert train.model_path.parent == model_folder
    train.control("model_name").value = "mine"
    settings.models = str(tmp_path)
    assert train.model_path == tmp_path / "mine.safetensors"


def test_looking_inside_heeds_them_with_no_other_form_open(
    viewer: Viewer, settings: Any, model_folder: Path, no_folder: None, qtbot: Any
) -> None:
    from napari_tiled_unet.viewer.inside_widget import InsideWidget

    settings.models = str(model_folder)
    inside = InsideWidget(viewer)
    viewer.window.add_dock_widget(inside)
    assert "blobs" in inside.control("model").choices
    qtbot.waitUntil(lambda: not inside.busy, timeout=20_000)


def test_an_improvement_heeds_them_with_no_other_form_open(
    viewer: Viewer, settings: Any, no_folder: None, tmp_path: Path, qtbot: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import numpy as np

    from napari_tiled_unet.model_files import save_model
    from napari_tiled_unet.viewer import improve_widget
    from tests.models import blob_model

    heard = []

    def started(lesson: Any, *_: Any, **__: Any) -> Any:
        heard.append(lesson)
        raise ModelError("only looked at")

    save_model(blob_model(name="mine"), tmp_path / "mine.safetensors")
    settings.device, settings.memory, settings.models = "cpu", 2.5, str(tmp_path)
    monkeypatch.setattr(improve_widget, "Schooling", started)
    widget = improve_widget.ImproveWidget(viewer)
    viewer.window.add_dock_widget(widget)
    image = viewer.add_image(np.zeros((32, 32), np.uint8), name="cells")
    mark = {"source": str(image.unique_id), "exact": {"model": "mine", "axes": "yx"}}
    viewer.add_labels(np.zeros((32, 32), np.int32), metadata={"tiled_unet": mark})
    with pytest.raises(ModelError, match="only looked at"):
        widget.improve()
    (lesson,) = heard
    assert (lesson.options.device, lesson.options.memory) == ("cpu", 2.5)
    assert lesson.out.parent.parent == tmp_path
