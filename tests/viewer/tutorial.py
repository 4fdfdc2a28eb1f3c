"""The steps of docs/tutorial.md, as a user does them; for the test and for the pictures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari.layers import Labels
    from napari.viewer import Viewer

    from napari_tiled_unet.viewer.segment_widget import SegmentWidget


class Tutorial:
    """A viewer in which the tutorial is followed.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
        An empty one.
    folder : Path
        Where files are written.
    wait : callable
        Given a condition, lets Qt work until it holds.
    """

    def __init__(self, viewer: Viewer, folder: Path, wait: Callable[[Callable[[], bool]], None]) -> None:
        self.viewer, self.folder, self._wait = viewer, folder, wait
        self.widget: SegmentWidget
        self.steps: dict[str, Callable[[], None]] = {
            "1. Open a picture": self.open_picture,
            "2. Open the widget": self.open_widget,
            "3. Segment": self.segment,
            "4. Look, and tune": self.tune,
            "5. Numbers": self.measure,
            "6. Write it down": self.write_down,
            "7. The same for a folder": self.whole_folder,
        }

    @property
    def labels(self) -> Labels:
        """The result."""
        layer: Any = self.viewer.layers["nuclei labels"]
        return layer

    def settle(self) -> None:
        """Wait for what is under way."""
        widget = self.widget
        self._wait(lambda: not (widget.running or widget._outlook.busy or widget._tune.busy or widget.measuring))

    def open_picture(self) -> None:
        """File > Open Sample > Tiled U-Net."""
        from napari_tiled_unet.viewer.samples import nuclei_2d

        ((data, settings, _),) = nuclei_2d()
        self.viewer.add_image(data, **settings)

    def open_widget(self) -> None:
        """Layers > Segment > Tiled U-Net > Segment."""
        from napari_tiled_unet.viewer.segment_widget import SegmentWidget

        self.widget = SegmentWidget(self.viewer)
        self.viewer.window.add_dock_widget(self.widget, name="Segment (Tiled U-Net)", area="right")
        self.settle()

    def segment(self) -> None:
        """Click Segment, and wait."""
        self.widget.control("segment").native.click()
        self.settle()

    def tune(self) -> None:
        """Move a slider."""
        self.widget._tune.slider("min_size").value = 60
        self.settle()

    def measure(self) -> None:
        """Tick measure objects, and export."""
        self.widget.control("measure").value = True
        self.settle()
        self.widget.control("export").native.click()

    def write_down(self) -> None:
        """Save the recipe."""
        self.widget._repeat.save_recipe()

    def whole_folder(self) -> None:
        """Load the recipe in the widget for folders, and start."""
        from napari_tiled_unet.viewer.batch_widget import BatchWidget

        self.batch = BatchWidget(self.viewer)
        self.viewer.window.add_dock_widget(self.batch, name="Segment a folder (Tiled U-Net)", area="right", tabify=True)
        self.batch.load_recipe()
        self.batch.control("folder").line_edit.value = str(self.folder / "images")
        self.batch.control("out").line_edit.value = str(self.folder / "labels")
        self.batch.control("start").native.click()
        self._wait(lambda: not self.batch.running)
