"""Looking inside a network from the viewer: the right maps at the right place."""

from __future__ import annotations

import shutil
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from napari.layers import Image

from napari_tiled_unet.errors import OptionsError
from napari_tiled_unet.region import Region
from napari_tiled_unet.viewer.inside_layers import Look, inside_layer, inside_of, look_at
from napari_tiled_unet.viewer.regions import View
from tests.models import blob_model, blobs
from tests.viewer.endings import ENDINGS, close, wait_for_threads

if TYPE_CHECKING:
    from pathlib import Path

    from napari.viewer import Viewer

pytestmark = pytest.mark.filterwarnings("ignore:Conversion from CIE-LAB:UserWarning")  # napari's label colours

PLANE = blobs((60, 80), [(20, 20), (40, 60)])
MODEL = blob_model()


def view(low: tuple[float, float], high: tuple[float, float], point: tuple[float, ...] = (0, 0)) -> View:
    corners = np.tile(np.array(point, float), (4, 1))
    corners[:, -2:] = [low, (low[0], high[1]), (high[0], low[1]), high]
    return View(point, (len(point) - 2, len(point) - 1), corners)


def test_the_skip_of_a_network_that_passes_the_image_on_is_the_image() -> None:
    layer = Image(PLANE, axis_labels=("y", "x"))
    look = look_at(layer, view((10, 20), (39, 69)), MODEL.spec, "skip", 0)
    assert isinstance(look, Look)
    assert look.region.slices("yx", PLANE.shape) == (slice(10, 40), slice(20, 70))
    inside = inside_of(look, MODEL)
    scaled = (PLANE.astype(float) - PLANE.min()) / np.ptp(PLANE)
    np.testing.assert_allclose(inside.maps[0], scaled[10:40, 20:70], atol=1e-4)


@pytest.mark.parametrize("turned", [False, True])
def test_maps_lie_over_the_voxels_that_they_stand_for(turned: bool) -> None:
    more: dict[str, Any] = {"rotate": 30.0, "shear": [0.2]} if turned else {}
    layer = Image(PLANE, axis_labels=("y", "x"), scale=(0.5, 2), translate=(3, 4), **more)
    look = Look(layer, "yx", Region.parse("y=10:50,x=20:80"), None, "encoder", 1)
    made = inside_layer(look, inside_of(look, MODEL))
    assert made.data.shape[1:] == (20, 30)
    assert made.axis_labels == ("feature", "y", "x")
    for voxel in ((0, 0), (19, 29), (7, 3)):
        middle = np.array([10, 20]) + np.array(voxel) * 2 + 0.5
        np.testing.assert_allclose(made.data_to_world((0, *voxel))[1:], layer.data_to_world(middle), atol=1e-6)


def test_a_frame_of_a_series_is_looked_at_where_the_slider_stands() -> None:
    series = np.stack([PLANE, PLANE[::-1], PLANE[:, ::-1]])
    layer = Image(series, axis_labels=("t", "y", "x"))
    look = look_at(layer, view((0, 0), (59, 79), (2, 0, 0)), MODEL.spec, "skip", 0)
    assert isinstance(look, Look)
    made = inside_layer(look, inside_of(look, MODEL))
    assert made.data.shape[1:] == (1, 60, 80)
    assert made.translate[1] == 2
    scaled = (series[2].astype(float) - PLANE.min()) / np.ptp(PLANE)
    np.testing.assert_allclose(made.data[0, 0], scaled, atol=1e-4)


def test_a_wide_view_is_cut_to_its_middle() -> None:
    layer = Image(np.zeros((1600, 40), np.uint8), axis_labels=("y", "x"))
    look = look_at(layer, view((0, 0), (1599, 39)), MODEL.spec, "encoder", 0)
    assert isinstance(look, Look)
    assert look.region.slices("yx", (1600, 40)) == (slice(288, 1312), slice(0, 40))


def test_axes_that_are_not_sure_are_asked_for() -> None:
    layer = Image(np.zeros((3, 40, 40), np.uint8))
    said = look_at(layer, view((0, 0), (39, 39), (0, 0, 0)), MODEL.spec, "encoder", 0)
    assert isinstance(said, str)
    assert "axes" in said


def test_a_view_beside_the_image_is_refused() -> None:
    layer = Image(PLANE, axis_labels=("y", "x"))
    with pytest.raises(OptionsError, match="the view shows nothing of it"):
        look_at(layer, view((100, 100), (120, 120)), MODEL.spec, "encoder", 0)


def test_the_widget_shows_what_the_skip_carries(
    viewer: Viewer, user_models: Path, qtbot: Any, notified: list[tuple[str, str]]
) -> None:
    from napari_tiled_unet.viewer.inside_widget import InsideWidget

    layer = viewer.add_image(PLANE, axis_labels=("y", "x"))
    widget = InsideWidget(viewer)
    viewer.window.add_dock_widget(widget, name="Look inside", area="right")
    widget.control("model").value = "blobs"
    qtbot.waitUntil(lambda: not widget.busy, timeout=20_000)
    assert widget.control("part").value == "skip"
    for _ in range(2):
        widget.show_inside()
        qtbot.waitUntil(lambda: not widget.busy, timeout=20_000)
    (made,) = [one for one in viewer.layers if one is not layer]
    assert made.name == f"{layer.name} what the skip carries, level 0"
    assert "features of 60 x 80" in widget.status
    assert widget.control("layer").value is layer
    widget.control("part").value = "decoder"
    assert widget.control("level").value == 0
    viewer.layers.remove(layer)
    viewer.layers.remove(made)
    assert not widget.control("show").enabled
    assert not notified


def test_a_series_of_stacks_keeps_the_order_of_its_axes() -> None:
    volume = blobs((16, 40, 40), [(4, 12, 12), (10, 28, 28)])
    layer = Image(np.stack([volume[::-1], volume], axis=1), axis_labels=("z", "t", "y", "x"))
    look = look_at(layer, view((0, 0), (39, 39), (0, 1, 0, 0)), blob_model(ndim=3).spec, "skip", 0)
    assert isinstance(look, Look)
    made = inside_layer(look, inside_of(look, blob_model(ndim=3)))
    assert made.data.shape[1:] == (16, 1, 40, 40)
    assert made.translate[2] == 1
    np.testing.assert_allclose(made.data[0, :, 0], volume / volume.max(), atol=1e-4)


def test_a_layer_with_its_axes_in_another_order() -> None:
    layer = Image(np.stack([PLANE.T, PLANE.T * 2], axis=1), axis_labels=("x", "t", "y"))
    corners = np.array([(0, 1, 0), (0, 1, 59), (79, 1, 0), (79, 1, 59)], float)
    look = look_at(layer, View((0, 1, 0), (0, 2), corners), MODEL.spec, "skip", 0)
    assert isinstance(look, Look)
    made = inside_layer(look, inside_of(look, MODEL))
    assert made.data.shape[1:] == (80, 1, 60)
    np.testing.assert_allclose(made.data[0, :, 0].T, (PLANE.astype(float) - PLANE.min()) / np.ptp(PLANE), atol=1e-4)


def test_what_helps_is_said_and_not_what_the_widget_does_not_have() -> None:
    stack = Image(np.zeros((3, 40, 40), np.uint8), name="stack")
    said = look_at(stack, view((0, 0), (39, 39), (0, 0, 0)), MODEL.spec, "encoder", 0)
    assert said == (
        "the axes of 'stack' are not known; name them, for example viewer.layers['stack'].axis_labels = ('z', 'y', 'x')"
    )
    flat = Image(PLANE, name="flat")
    said = look_at(flat, view((0, 0), (39, 39)), blob_model(ndim=3).spec, "encoder", 0)
    assert said == "model 'blobs' needs axes zyx, 'flat' has only 2: choose a stack, or a 2D model"


def test_the_channel_that_is_chosen_is_looked_at(viewer: Viewer, user_models: Path, qtbot: Any) -> None:
    from napari_tiled_unet.viewer.inside_widget import InsideWidget

    grey = viewer.add_image(PLANE, name="grey", axis_labels=("y", "x"))
    layer = viewer.add_image(np.stack([PLANE[::-1], PLANE]), name="two")
    widget = InsideWidget(viewer)
    viewer.window.add_dock_widget(widget, name="Look inside", area="right")
    widget.control("model").value = "blobs"
    qtbot.waitUntil(lambda: not widget.busy, timeout=20_000)
    row = widget.control("channel")
    widget.show_inside()
    assert "name them" in widget.status
    assert not row.visible
    layer.axis_labels = ("c", "y", "x")
    widget.show_inside()
    assert widget.status == "choose the channel that shows channel 0"
    assert row.native.isVisibleTo(widget.native)
    row.value = 1
    widget.show_inside()
    qtbot.waitUntil(lambda: not widget.busy, timeout=20_000)
    made = viewer.layers["two what the skip carries, level 0"]
    assert made.data[0].max() > 0.9
    first, second = made.data[0], np.asarray(PLANE / PLANE.max(), np.float32)
    assert np.abs(first - second[: first.shape[0], : first.shape[1]]).max() < 1e-3
    # It is remembered with the layer, and gone where there is no choice.
    widget.control("layer").value = grey
    assert not row.native.isVisibleTo(widget.native)
    widget.control("layer").value = layer
    assert row.value == 1


def dock_in_a_look(
    viewer: Viewer, qtbot: Any, monkeypatch: pytest.MonkeyPatch, when: str
) -> tuple[Any, threading.Event]:
    """Return the dock of a widget whose thread reads a model, or looks, until it is let go on."""
    from napari_tiled_unet.viewer import inside_widget

    go_on = threading.Event()

    def hold(name: str) -> None:
        work = getattr(inside_widget, name)

        def waits(*arguments: Any) -> Any:
            assert go_on.wait(20)
            return work(*arguments)

        monkeypatch.setattr(inside_widget, name, waits)

    if when == "reading":
        hold("_parts_of")
    viewer.add_image(PLANE, axis_labels=("y", "x"))
    dock, widget = viewer.window.add_plugin_dock_widget("napari-tiled-unet", "Look inside")
    if when == "looking":
        qtbot.waitUntil(lambda: not widget.busy, timeout=20_000)
        hold("_inside")
        widget.show_inside()
        assert widget.status == "looking ..."
    return dock, go_on


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("when", ["reading", "looking"])
def test_a_widget_that_is_closed_during_a_look_shows_nothing(
    make_napari_viewer: Any,
    frugal: None,
    user_models: Path,
    qtbot: Any,
    monkeypatch: pytest.MonkeyPatch,
    ending: str,
    when: str,
) -> None:
    viewer = make_napari_viewer()
    dock, go_on = dock_in_a_look(viewer, qtbot, monkeypatch, when)
    close(ending, viewer, dock)
    del dock
    go_on.set()
    wait_for_threads(qtbot)
    assert len(viewer.layers) <= 1


def test_a_model_that_cannot_be_read_is_told_and_another_can_be_looked_into(
    viewer: Viewer, user_models: Path, qtbot: Any, notified: list[tuple[str, str]]
) -> None:
    from napari_tiled_unet.viewer.inside_widget import InsideWidget

    gone = user_models / "gone.safetensors"
    gone.write_bytes((user_models / "blobs.safetensors").read_bytes())
    viewer.add_image(PLANE, axis_labels=("y", "x"))
    widget = InsideWidget(viewer)
    viewer.window.add_dock_widget(widget, name="Look inside", area="right")
    gone.unlink()
    widget.control("model").value = "gone"
    qtbot.waitUntil(lambda: not widget.busy, timeout=20_000)
    assert [severity for severity, _ in notified] == ["error"]
    assert widget.status == notified[0][1]
    assert not widget.control("show").enabled
    widget.control("model").value = "blobs"
    qtbot.waitUntil(lambda: not widget.busy, timeout=20_000)
    assert widget.control("show").enabled
    assert widget.status == ""


def test_a_layer_that_is_added_during_a_look_does_not_offer_a_second(
    viewer: Viewer, user_models: Path, qtbot: Any
) -> None:
    from napari_tiled_unet.viewer.inside_widget import InsideWidget

    viewer.add_image(PLANE, axis_labels=("y", "x"))
    widget = InsideWidget(viewer)
    viewer.window.add_dock_widget(widget, name="Look inside", area="right")
    qtbot.waitUntil(lambda: not widget.busy, timeout=20_000)
    widget.show_inside()
    viewer.add_labels(np.zeros((4, 4), np.uint8))
    assert not widget.control("show").enabled
    qtbot.waitUntil(lambda: not widget.busy, timeout=20_000)
    assert widget.control("show").enabled


def test_a_new_model_is_offered_during_a_look_which_goes_on(
    viewer: Viewer, user_models: Path, tmp_path: Path, qtbot: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from napari_tiled_unet.viewer.choices import offer_new_models
    from napari_tiled_unet.viewer.inside_widget import InsideWidget

    for name in ("blobs", "blobs-3d"):
        shutil.copy(user_models / f"{name}.safetensors", tmp_path / f"{name}.safetensors")
    monkeypatch.setenv("TILED_UNET_MODELS", str(tmp_path))
    viewer.add_image(PLANE, axis_labels=("y", "x"))
    widget = InsideWidget(viewer)
    viewer.window.add_dock_widget(widget, name="Look inside", area="right")
    row = widget.control("model")
    row.value = "blobs"
    qtbot.waitUntil(lambda: not widget.busy, timeout=20_000)
    widget.show_inside()
    shutil.copy(tmp_path / "blobs.safetensors", tmp_path / "mine.safetensors")
    offer_new_models(viewer)
    assert "mine" in [name for _, name in row._offered]
    assert row.value == "blobs"
    assert widget.status == "looking ..."
    qtbot.waitUntil(lambda: not widget.busy, timeout=20_000)
    assert len(viewer.layers) == 2
    assert widget.control("show").enabled
    # One of another shape under the same name has other parts.
    shutil.copy(tmp_path / "blobs-3d.safetensors", tmp_path / "blobs.safetensors")
    offer_new_models(viewer)
    assert not widget.control("show").enabled
    qtbot.waitUntil(lambda: not widget.busy, timeout=20_000)
    assert widget.control("show").enabled
