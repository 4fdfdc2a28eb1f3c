"""The train widget in a real viewer: painted labels in, a model out."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from napari_tiled_unet.model_files import load_model
from napari_tiled_unet.viewer.form import UNSAID
from tests.training.scenes import folders, scene
from tests.viewer.endings import ENDINGS, close, wait_for_threads

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari.viewer import Viewer

    from napari_tiled_unet.viewer.segment_widget import SegmentWidget
    from napari_tiled_unet.viewer.train_widget import TrainWidget

pytestmark = pytest.mark.filterwarnings(
    "ignore:Conversion from CIE-LAB:UserWarning",  # napari's label colours
    # Deep inside MONAI and matplotlib, as they are imported.
    "ignore::DeprecationWarning",
)

SMALL = {"width": "4", "depth": "2", "patch": "32", "batch": "2", "augmentation": "none"}
PLANE, TRUTH = scene()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty folder of the user's models."""
    monkeypatch.setenv("TILED_UNET_MODELS", str(tmp_path / "models"))
    return tmp_path / "models"


@pytest.fixture
def teach(viewer: Viewer, folder: Path) -> TrainWidget:
    """Return a train widget docked in the viewer, set to a small network."""
    from napari_tiled_unet.viewer.train_widget import TrainWidget

    widget = TrainWidget(viewer)
    viewer.window.add_dock_widget(widget, name="Train", area="right")
    for name, value in {**SMALL, "steps": "6", "validate_every": "3"}.items():
        widget.control(name).value = value
    return widget


def wait(qtbot: Any, widget: TrainWidget) -> None:
    qtbot.waitUntil(lambda: not widget.running, timeout=60_000)


def test_layers_become_a_model_that_open_widgets_offer(
    viewer: Viewer, teach: TrainWidget, folder: Path, qtbot: Any
) -> None:
    from napari_tiled_unet.viewer.batch_widget import BatchWidget
    from napari_tiled_unet.viewer.inside_widget import InsideWidget
    from napari_tiled_unet.viewer.schooling import PREVIEW
    from napari_tiled_unet.viewer.segment_widget import SegmentWidget

    others = [SegmentWidget(viewer), InsideWidget(viewer), BatchWidget(viewer)]
    for widget in others:
        viewer.window.add_dock_widget(widget, name=type(widget).__name__)
    viewer.add_image(PLANE, name="my cells", scale=(2.0, 2.0), translate=(5.0, 0.0))
    assert "no image has labels" in teach.status
    assert not teach.control("train").enabled
    viewer.add_labels(TRUTH, name="my cells painted")
    teach.control("train").native.click()
    assert teach.running
    wait(qtbot, teach)
    assert teach.status.startswith("'my-cells' is ready"), teach.status
    assert load_model(folder / "my-cells.safetensors").spec.training["steps"] in (3, 6)
    for row in (*(widget.control("model") for widget in others), teach.control("start")):
        assert "my-cells" in [value for _, value in row._offered]
    assert teach.chart.curves.steps == [1, 2, 3, 4, 5, 6]
    assert teach.chart.curves.scored == [3, 6]
    preview = viewer.layers[PREVIEW]
    np.testing.assert_allclose(preview.scale, (2.0, 2.0))
    np.testing.assert_allclose(preview.extent.world, viewer.layers["my cells"].extent.world)
    assert teach.control("model_name").native.placeholderText() == "my-cells-2"
    assert not teach.chart.grab().isNull()


def test_cancel_keeps_the_best_so_far_and_says_so_and_it_can_go_on(
    viewer: Viewer, teach: TrainWidget, folder: Path, qtbot: Any
) -> None:
    viewer.add_image(PLANE, name="cells")
    viewer.add_labels(TRUTH)
    teach.control("steps").value, teach.control("patience").value = "40", "0"
    teach.control("model_name").value = "mine"
    teach.train()
    qtbot.waitUntil(lambda: len(teach.chart.curves.scored) >= 1, timeout=60_000)
    teach.control("cancel").native.click()
    assert teach.status.startswith("stopping")
    wait(qtbot, teach)
    assert "cancelled after step" in teach.status
    assert "best model so far" in teach.status
    reached = load_model(folder / "mine.safetensors").spec.training["steps"]
    assert 3 <= reached < 40
    teach.train()
    assert "a model 'mine' exists" in teach.status
    assert not teach.control("resume").native.isHidden()
    teach.control("resume").value = True
    teach.train()
    wait(qtbot, teach)
    assert teach.status.startswith("'mine' is ready"), teach.status
    assert teach.chart.curves.steps[0] > 1
    assert teach.chart.curves.steps[-1] == 40


def test_a_cancelled_training_without_a_name_can_go_on(
    viewer: Viewer, teach: TrainWidget, folder: Path, qtbot: Any
) -> None:
    viewer.add_image(PLANE, name="cells")
    viewer.add_labels(TRUTH)
    teach.control("steps").value, teach.control("patience").value = "40", "0"
    teach.train()
    qtbot.waitUntil(lambda: len(teach.chart.curves.scored) >= 1, timeout=60_000)
    teach.cancel()
    wait(qtbot, teach)
    assert (folder / "cells.checkpoint").exists()
    assert teach.control("model_name").value == "cells"
    assert not teach.control("resume").native.isHidden()
    assert "best model so far" in teach.status
    teach.train()
    assert teach.status == (
        "a model 'cells' exists; choose another name under 'save as', or tick 'go on from its checkpoint'"
    )
    teach.control("resume").value = True
    teach.train()
    wait(qtbot, teach)
    assert teach.status.startswith("'cells' is ready"), teach.status


class TestPreview:
    """The layer with what the network makes of the view."""

    def seen(self, viewer: Viewer, layer: Any, axes: str) -> None:
        """Show a glimpse of the first frame of a layer."""
        from napari_tiled_unet.viewer.glimpse import Glimpsed
        from napari_tiled_unet.viewer.layers import image_from_layer
        from napari_tiled_unet.viewer.schooling import watch_layer

        watch = watch_layer(viewer, layer, axes)
        assert watch is not None
        labels = np.ones((1,) * (len(axes) - 2) + (8, 9), np.uint8)
        watch.show(Glimpsed(image_from_layer(layer, axes), labels, axes, dict.fromkeys(axes, 2)))
        watch.close()

    def previews(self, viewer: Viewer) -> list[Any]:
        return [layer for layer in viewer.layers if layer.name.startswith("training preview")]

    def test_there_is_one_however_many_axes_the_image_has(self, viewer: Viewer) -> None:
        flat = viewer.add_image(PLANE, name="flat")
        stack = viewer.add_image(np.stack([PLANE] * 3), name="stack")
        for layer, axes in ((flat, "yx"), (stack, "tyx"), (stack, "tyx"), (flat, "yx"), (stack, "tyx")):
            self.seen(viewer, layer, axes)
            (preview,) = self.previews(viewer)
            assert preview.ndim == len(axes)
            assert preview.name == "training preview"

    def test_it_lies_where_the_image_lies(self, viewer: Viewer) -> None:
        plain = viewer.add_image(PLANE, name="plain")
        turned = viewer.add_image(PLANE, name="turned", rotate=30, shear=(0.2,), scale=(2, 3), units=("um", "um"))
        for layer in (plain, turned, plain):
            self.seen(viewer, layer, "yx")
            (preview,) = self.previews(viewer)
            np.testing.assert_allclose(preview.data_to_world((1, 2)), layer.data_to_world((3, 4)))
            assert preview.units == layer.units

    def test_a_layer_of_the_users_own_is_left_alone(self, viewer: Viewer) -> None:
        own = viewer.add_labels(np.zeros((8, 9), np.uint8), name="training preview")
        self.seen(viewer, viewer.add_image(PLANE), "yx")
        assert not own.data.any()
        assert len(self.previews(viewer)) == 2

    def test_data_that_were_replaced_are_not_drawn_over(self, viewer: Viewer) -> None:
        from napari_tiled_unet.viewer.glimpse import Glimpsed
        from napari_tiled_unet.viewer.layers import image_from_layer
        from napari_tiled_unet.viewer.schooling import watch_layer

        layer = viewer.add_image(PLANE)
        watch = watch_layer(viewer, layer, "yx")
        assert watch is not None
        watch.begin("yx")
        image = image_from_layer(layer, "yx")
        layer.data = np.stack([PLANE] * 3)
        watch.look()
        assert watch.sight.asked is None
        watch.show(Glimpsed(image, np.ones((8, 9), np.uint8), "yx", {"y": 0, "x": 0}))
        assert not self.previews(viewer)
        watch.close()


def dock_in_a_training(viewer: Viewer, qtbot: Any) -> tuple[Any, Any]:
    """Return the dock of a widget whose training goes on, and the training."""
    dock, widget = viewer.window.add_plugin_dock_widget("napari-tiled-unet", "Train")
    for name, value in {**SMALL, "steps": "4000", "validate_every": "3"}.items():
        widget.control(name).value = value
    viewer.add_image(PLANE, name="cells")
    viewer.add_labels(TRUTH)
    widget.train()
    qtbot.waitUntil(lambda: len(widget.chart.curves.scored) >= 1, timeout=60_000)
    return dock, widget._run


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_widget_that_is_closed_ends_its_training(
    make_napari_viewer: Any, frugal: None, folder: Path, qtbot: Any, ending: str
) -> None:
    viewer = make_napari_viewer()
    dock, run = dock_in_a_training(viewer, qtbot)
    close(ending, viewer, dock)
    del dock
    gc.collect()
    wait_for_threads(qtbot)
    assert run.cancelled
    assert load_model(folder / "cells.safetensors").spec.name == "cells"


def test_paired_folders(viewer: Viewer, teach: TrainWidget, folder: Path, tmp_path: Path, qtbot: Any) -> None:
    images, labels = folders(tmp_path)
    teach.control("source").value = "folders"
    teach.train()
    assert "choose a folder" in teach.status
    teach.control("images").value, teach.control("labels").value = images, labels
    teach.train()
    wait(qtbot, teach)
    assert teach.status.startswith("'my-cells' is ready"), teach.status
    assert (folder / "my-cells.safetensors").exists()


def test_bad_input_is_a_sentence_and_leaves_no_model(
    viewer: Viewer, teach: TrainWidget, folder: Path, qtbot: Any, notified: list[tuple[str, str]]
) -> None:
    viewer.add_image(PLANE, name="cells")
    viewer.add_labels(np.zeros_like(TRUTH))
    teach.train()
    wait(qtbot, teach)
    assert "no labels" in teach.status
    assert [severity for severity, _ in notified] == ["error"]
    assert not list(folder.glob("*"))
    teach.control("steps").value = "many"
    assert "steps" in teach.status
    assert not teach.control("train").enabled


def test_axes_must_be_said(viewer: Viewer, teach: TrainWidget) -> None:
    viewer.add_image(np.stack([PLANE] * 3), name="stack")
    viewer.add_labels(np.stack([TRUTH] * 3))
    teach.train()
    assert teach.status == "choose what the axes of 'stack' are"
    teach.control("axes").value = "tyx"
    assert teach.axes == "tyx"


def test_labels_that_were_chosen_and_removed_are_let_go(viewer: Viewer, teach: TrainWidget, qtbot: Any) -> None:
    image = viewer.add_image(PLANE, name="cells")
    right = viewer.add_labels(TRUTH, name="right")
    viewer.add_labels(np.zeros_like(TRUTH), name="empty")
    teach.labels_row(image).value = right
    image.name = "more cells"
    assert teach.pairs == [(image, right)]
    teach.labels_row(image).value = UNSAID
    viewer.layers.remove("empty")
    assert teach.pairs == []
    teach.labels_row(image).value = right
    gone = weakref.ref(right)
    viewer.layers.remove(right)
    assert teach.pairs == []
    del right
    # napari lets go of a layer in several steps.
    qtbot.waitUntil(lambda: gc.collect() >= 0 and gone() is None, timeout=5000)


def test_patches_are_shown_as_layers(viewer: Viewer, teach: TrainWidget, qtbot: Any) -> None:
    viewer.add_image(PLANE, name="cells")
    viewer.add_labels(TRUTH)
    teach.control("patches").native.click()
    qtbot.waitUntil(lambda: "patches labels" in viewer.layers, timeout=60_000)
    assert viewer.layers["patches"].data.shape == (4 * 32 + 12,) * 2
    assert set(np.unique(viewer.layers["patches labels"].data)) > {0}
    # They are for looking at, and are not offered to learn from.
    assert [image.name for image in teach._layers.images] == ["cells"]


def test_maps_of_a_run_and_of_a_look_inside_are_not_learned_from(
    viewer: Viewer, docked: SegmentWidget, finish: Callable[[SegmentWidget], None]
) -> None:
    from napari_tiled_unet.region import Region
    from napari_tiled_unet.viewer.inside_layers import Look, inside_layer, inside_of
    from napari_tiled_unet.viewer.train_widget import TrainWidget

    image = viewer.add_image(PLANE, name="cells")
    docked.segment()
    finish(docked)
    kept = docked._tune.kept
    unsure = kept.uncertainty()
    look = Look(image, "yx", Region(), None, "encoder", 0)
    made = [*kept.image_layers(), kept.uncertainty_layer(unsure), kept.spread_layer(unsure)]
    viewer.layers.extend([*made, inside_layer(look, inside_of(look, kept.outcome.model))])
    painted = viewer.add_labels(TRUTH, name="painted")
    widget = TrainWidget(viewer)
    viewer.window.add_dock_widget(widget, name="Train")
    assert widget.pairs == [(image, painted)]
    assert widget._layers.images == [image]
    # To segment a map is the user's to choose.
    offered = [layer for _, layer in docked.control("layer")._offered]
    assert all(layer in offered for layer in made)


def test_patches_come_though_a_row_was_changed_meanwhile(viewer: Viewer, teach: TrainWidget, qtbot: Any) -> None:
    viewer.add_image(PLANE, name="cells")
    viewer.add_labels(TRUTH)
    teach.show_patches()
    assert teach.status == "drawing patches ..."
    assert not teach.control("train").enabled
    teach.control("steps").value = "many"
    qtbot.waitUntil(lambda: "patches labels" in viewer.layers, timeout=60_000)
    assert not teach.control("train").enabled, "the row is still wrong"
    teach.control("steps").value = "6"
    assert teach.control("train").enabled
    assert teach.control("patches").enabled


def test_every_control_has_a_tooltip(teach: TrainWidget) -> None:
    for name in (*teach._rows, "source", "images", "labels", "model_name", "resume", "train", "cancel", "patches"):
        assert teach.control(name).tooltip, name
