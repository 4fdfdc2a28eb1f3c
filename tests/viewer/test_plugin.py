"""The plugin as napari sees it: by its manifest."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from npe2 import PluginManager, PluginManifest

import napari_tiled_unet

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari.viewer import Viewer

NAME = "napari-tiled-unet"


@pytest.fixture
def plugged(make_napari_viewer: Callable[..., Viewer]) -> Viewer:
    """Return a viewer that knows the plugin, whether or not the package is installed."""
    manager = PluginManager.instance()
    manager.discover()
    if NAME not in manager:
        manifest = Path(napari_tiled_unet.__file__).with_name("napari.yaml")
        manager.register(PluginManifest.from_file(manifest))
    return make_napari_viewer()


def entries(menu: Any, *path: str) -> dict[tuple[str, ...], Any]:
    """Return the entries of a menu and of its submenus, by their path."""
    menu.aboutToShow.emit()
    found: dict[tuple[str, ...], Any] = {}
    for action in menu.actions():
        here = (*path, action.text())
        found |= entries(action.menu(), *here) if action.menu() else {here: action}
    return found


WIDGETS = ("Segment", "Train", "Evaluate", "Improve")


@pytest.mark.parametrize("name", WIDGETS)
def test_the_plugins_menu_opens_the_widget(plugged: Viewer, name: str) -> None:
    _, widget = plugged.window.add_plugin_dock_widget(NAME, name)
    assert type(widget).__name__ == f"{name}Widget"


def test_the_layers_menu_opens_the_widget(plugged: Viewer) -> None:
    ours = {path: entry for path, entry in entries(plugged.window.layers_menu).items() if "Tiled U-Net" in path}
    assert {path[-3:] for path in ours} == {
        *(("Segment", "Tiled U-Net", f"{name} (Tiled U-Net)") for name in (*WIDGETS, "Segment a folder")),
        ("Measure", "Tiled U-Net", "Measure objects (Tiled U-Net)"),
    }
    for entry in ours.values():
        entry.trigger()
    opened = {name.split(" (")[0] for name in plugged.window.dock_widgets}
    assert opened >= {*WIDGETS, "Segment a folder", "Measure objects"}


def test_the_sample_opens_as_an_image(plugged: Viewer) -> None:
    (layer,) = plugged.open_sample(NAME, "nuclei_2d")
    assert layer.name == "nuclei"
    assert np.asarray(layer.data).ndim == 2
