"""Make the pictures of docs/napari.md, docs/tutorial.md and docs/teach.md: a viewer with the bundled sample.

Run ``python docs/make_screenshots.py`` from the root of the repository; where there is no
display it starts Xvfb.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from tests.viewer.display import virtual_display  # noqa: E402
from tests.viewer.tutorial import Tutorial  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari.viewer import Viewer

    from napari_tiled_unet.viewer.segment_widget import SegmentWidget

SAMPLE = ROOT / "src" / "napari_tiled_unet" / "samples" / "nuclei_2d.tif"
IMAGES = ROOT / "docs" / "images"


def main() -> None:
    """Write the pictures; with a name as argument, of that page alone."""
    pages = {"napari": take_pictures, "tutorial": follow_tutorial, "teach": take_lessons}
    with virtual_display(1400, 900):
        import napari

        for page in sys.argv[1:] or pages:
            viewer = napari.Viewer()
            pages[page](viewer)
            viewer.close()


def follow_tutorial(viewer: Viewer) -> None:
    """Photograph the steps of the tutorial that it shows."""
    from qtpy.QtWidgets import QApplication, QFileDialog

    application: Any = QApplication.instance()
    viewer.window._qt_window.resize(1280, 800)

    def wait(holds: Callable[[], bool]) -> None:
        while not holds():
            application.processEvents()

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "images").mkdir()
        for copy in ("plate_A1", "plate_A2", "plate_A3"):
            shutil.copy(SAMPLE, folder / "images" / f"{copy}.tif")
        chosen = {"Export features": "nuclei.csv", "Save recipe": "recipe.yaml", "Load recipe": "recipe.yaml"}
        QFileDialog.getSaveFileName = QFileDialog.getOpenFileName = staticmethod(
            lambda _parent, title, *_: (str(folder / chosen[title]), "")
        )
        tutorial = Tutorial(viewer, folder, wait)
        for title, step in tutorial.steps.items():
            step()
            viewer.layers[0].gamma = 0.6
            viewer.reset_view()
            if title[0] in "23457":
                photograph(viewer, application, IMAGES / f"tutorial-{title[0]}.png")


def take_pictures(viewer: Viewer) -> None:
    """Segment the sample as a user would, and photograph the window."""
    from qtpy.QtWidgets import QApplication

    from napari_tiled_unet.viewer.samples import nuclei_2d
    from napari_tiled_unet.viewer.segment_widget import SegmentWidget

    application: Any = QApplication.instance()
    window = viewer.window._qt_window
    window.resize(1280, 800)
    ((data, settings, _),) = nuclei_2d()
    # A gamma below 1 shows dim nuclei beside bright ones.
    viewer.add_image(data, **settings, gamma=0.6)
    widget = SegmentWidget(viewer)
    dock = viewer.window.add_dock_widget(widget, name="Segment (Tiled U-Net)", area="right")
    window.resizeDocks([dock], [320], _horizontal())
    settle(widget, application)
    widget.segment()
    settle(widget, application)
    viewer.reset_view()
    photograph(viewer, application, IMAGES / "widget.png")
    widget.control("advanced").native.click()
    photograph(viewer, application, IMAGES / "widget-advanced.png")
    foretell_too_much(viewer, widget, application)
    widget.control("advanced").native.click()
    tune(viewer, widget, application)
    run_in_tiles(viewer, widget, application)
    look_inside(viewer, application)


def settle(widget: SegmentWidget, application: Any) -> None:
    """Wait for what is under way: a run, a forecast, labels made anew."""
    while widget.running or widget._outlook.busy or widget._tune.busy:
        application.processEvents()


def foretell_too_much(viewer: Viewer, widget: SegmentWidget, application: Any) -> None:
    """Photograph the forecast of a run that does not fit the memory."""
    widget.control("tile").value, widget.control("memory").value = "520, 696", "0.1"
    settle(widget, application)
    photograph(viewer, application, IMAGES / "widget-too-much.png")
    widget.control("tile").value = widget.control("memory").value = ""
    settle(widget, application)


def tune(viewer: Viewer, widget: SegmentWidget, application: Any) -> None:
    """Photograph uncertainty and labels after a move of a slider."""
    widget._tune.slider("foreground_threshold").value = 0.6
    settle(widget, application)
    widget._tune.show_uncertainty()
    settle(widget, application)
    photograph(viewer, application, IMAGES / "widget-tuned.png")


def run_in_tiles(viewer: Viewer, widget: SegmentWidget, application: Any) -> None:
    """Photograph a run on a rectangle, half way."""
    del viewer.layers[1:]
    image = viewer.layers[0]
    drawn = viewer.add_shapes([[[60, 80], [60, 600], [460, 600], [460, 80]]], shape_type="polygon", name="region")
    drawn.face_color, drawn.edge_color, drawn.edge_width = "transparent", "yellow", 3
    widget.layer = image
    widget.control("run_on").value = drawn
    widget.control("tile").value, widget.control("overlap").value = "160", "32"
    settle(widget, application)
    widget.segment()
    while widget.running and widget._bar._tiles < 8:
        application.processEvents()
    photograph(viewer, application, IMAGES / "widget-live.png")
    widget.cancel()
    settle(widget, application)


def look_inside(viewer: Viewer, application: Any) -> None:
    """Photograph what the skip of the second level carries."""
    from napari_tiled_unet.viewer.inside_widget import InsideWidget

    del viewer.layers[1:]
    for shown in list(viewer.window._wrapped_dock_widgets.values()):
        shown.close()
    widget = InsideWidget(viewer)
    dock = viewer.window.add_dock_widget(widget, name="Look inside (Tiled U-Net)", area="right")
    viewer.window._qt_window.resizeDocks([dock], [320], _horizontal())
    while widget.busy:
        application.processEvents()
    widget.control("level").value = 1
    widget.show_inside()
    while widget.busy:
        application.processEvents()
    photograph(viewer, application, IMAGES / "inside.png")


def take_lessons(viewer: Viewer) -> None:
    """Paint nuclei of the left half, train on them, and photograph what the widgets of training show."""
    import numpy as np
    import tifffile
    from qtpy.QtWidgets import QApplication

    from napari_tiled_unet.viewer.samples import nuclei_2d

    application: Any = QApplication.instance()
    # Its models are not the user's.
    os.environ["TILED_UNET_MODELS"] = tempfile.mkdtemp()
    window = viewer.window._qt_window
    window.resize(1280, 900)
    ((data, settings, _),) = nuclei_2d()
    viewer.add_image(data, **settings, gamma=0.6)
    truth = tifffile.imread(ROOT / "tests" / "data" / "nuclei_2d_labels.tif").astype(np.int32)
    painted = truth + 1
    painted[:, truth.shape[1] // 2 :] = 0
    viewer.add_labels(painted, name="painted", scale=viewer.layers[0].scale)
    train(viewer, application)
    evaluate(viewer, truth, application)
    improve(viewer, truth, application)


def train(viewer: Viewer, application: Any) -> None:
    """Photograph a training under way, and patches."""
    from napari_tiled_unet.viewer.train_widget import TrainWidget

    widget = TrainWidget(viewer)
    dock = viewer.window.add_dock_widget(widget, name="Train (Tiled U-Net)", area="right")
    viewer.window._qt_window.resizeDocks([dock], [340], _horizontal())
    for name, value in {"sparse": True, "width": "8", "depth": "3", "patch": "96", "batch": "4"}.items():
        widget.control(name).value = value
    widget.control("steps").value, widget.control("validate_every").value = "160", "10"
    application.processEvents()
    viewer.reset_view()
    widget.show_patches()
    while "patches labels" not in viewer.layers:
        application.processEvents()
    photograph(viewer, application, IMAGES / "widget-patches.png")
    del viewer.layers[2:]
    viewer.layers.selection.active = viewer.layers["painted"]
    viewer.reset_view()
    widget.train()
    while widget.running and len(widget.chart.curves.scored) < 12:
        application.processEvents()
    viewer.layers["painted"].visible = False
    photograph(viewer, application, IMAGES / "widget-train.png")
    widget.cancel()
    while widget.running:
        application.processEvents()
    viewer.window.remove_dock_widget(dock)


def evaluate(viewer: Viewer, truth: Any, application: Any) -> None:
    """Photograph the faults of the bundled model at a threshold that is too low."""
    from napari_tiled_unet import segment
    from napari_tiled_unet.viewer.evaluate_widget import EvaluateWidget

    image = viewer.layers["nuclei"]
    del viewer.layers[1:]
    found = segment(image.data, "nuclei", foreground_threshold=0.1)
    viewer.add_labels(found, name="found", scale=image.scale, visible=False)
    viewer.add_labels(truth, name="truth", scale=image.scale, visible=False)
    widget = EvaluateWidget(viewer)
    dock = viewer.window.add_dock_widget(widget, name="Evaluate (Tiled U-Net)", area="right")
    viewer.window._qt_window.resizeDocks([dock], [340], _horizontal())
    widget.control("prediction").value = viewer.layers["found"]
    widget.control("truth").value = viewer.layers["truth"]
    widget.evaluate()
    while widget.busy:
        application.processEvents()
    viewer.reset_view()
    photograph(viewer, application, IMAGES / "widget-evaluate.png")


def improve(viewer: Viewer, truth: Any, application: Any) -> None:
    """Correct the labels of a quarter, and photograph the comparison of old and new model."""
    from napari_tiled_unet.viewer.improve_widget import ImproveWidget
    from napari_tiled_unet.viewer.segment_widget import SegmentWidget

    del viewer.layers[1:]
    for shown in list(viewer.window._wrapped_dock_widgets.values()):
        shown.close()
    segmenting = SegmentWidget(viewer)
    segmenting.segment()
    settle(segmenting, application)
    labels = viewer.layers["nuclei labels"]
    corrected = labels.data.astype("uint32")
    quarter = tuple(slice(0, n // 2) for n in corrected.shape)
    free = int(corrected.max()) + 1
    corrected[quarter] = truth[quarter] + free * (truth[quarter] > 0)
    labels.data = corrected
    widget = ImproveWidget(viewer)
    dock = viewer.window.add_dock_widget(widget, name="Improve (Tiled U-Net)", area="right")
    viewer.window._qt_window.resizeDocks([dock], [340], _horizontal())
    widget.control("steps").value = 48
    viewer.reset_view()
    widget.improve()
    while widget.running:
        application.processEvents()
    photograph(viewer, application, IMAGES / "widget-improve.png")
    widget.discard()


def photograph(viewer: Viewer, application: Any, path: Path) -> None:
    """Save the window as it is once everything is drawn."""
    for _ in range(5):
        application.processEvents()
    path.parent.mkdir(exist_ok=True)
    viewer.window.screenshot(str(path), canvas_only=False, flash=False)


def _horizontal() -> Any:
    from qtpy.QtCore import Qt

    return Qt.Orientation.Horizontal


if __name__ == "__main__":
    main()
