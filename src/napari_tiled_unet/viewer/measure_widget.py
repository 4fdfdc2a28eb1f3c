"""Layers > Measure > Tiled U-Net > Measure objects: a Labels layer to a table, shown and exported."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from magicgui.widgets import Container, Widget
from napari.utils.notifications import show_error, show_info
from qtpy.QtWidgets import QFileDialog

from napari_tiled_unet.errors import TiledUnetError
from napari_tiled_unet.features import write_features
from napari_tiled_unet.viewer.layers import is_image_layer, is_labels_layer
from napari_tiled_unet.viewer.measuring import (
    forget_features,
    is_stale,
    measurement,
    show_features,
    source_of,
    state_of,
)
from napari_tiled_unet.viewer.rows import Departure, DropDown, ScrollingRows, push_button, sentence, side_by_side
from napari_tiled_unet.viewer.running import tell
from napari_tiled_unet.viewer.worker import Latest

if TYPE_CHECKING:
    from collections.abc import Callable

    import napari.layers
    import napari.viewer

    from napari_tiled_unet.features import Table


class Measure:
    """Measures Labels layers in a thread, and gives them their features.

    Parameters
    ----------
    say : callable
        Shows a sentence about what became of it.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._work = Latest()

    @property
    def busy(self) -> bool:
        """Whether a table is still to come."""
        return self._work.busy

    def measure(self, labels: napari.layers.Labels, source: napari.layers.Image) -> None:
        """Measure a Labels layer on an image layer."""
        try:
            work = measurement(labels, source)
        except TiledUnetError as error:
            self._say(str(error))
            tell(error)
            return
        self._work.ask(work, partial(self._show, labels, state_of(labels)))

    def _show(self, labels: napari.layers.Labels, before: tuple[int, ...], table: Table | Exception) -> None:
        if isinstance(table, Exception):
            self._say(str(table))
            tell(table)
        elif state_of(labels) != before:
            self._say(f"{labels.name!r} changed while it was measured; measure it again")
        else:
            show_features(labels, table)
            count = len(table["index"])
            self._say(f"{count} object{'' if count == 1 else 's'} measured")

    def close(self) -> None:
        """Hear of nothing any more."""
        self._work.close()


def export_features(labels: napari.layers.Labels | None, parent: Any) -> None:
    """Ask for a file and write the features of a layer to it as CSV."""
    if labels is not None and is_stale(labels):
        forget_features(labels)
        show_error(f"{labels.name!r} changed since it was measured; measure it again")
        return
    if labels is None or not len(labels.features.columns):
        show_error("there is no table yet; measure the objects first")
        return
    chosen, _ = QFileDialog.getSaveFileName(parent, "Export features", f"{labels.name}.csv", "Table (*.csv)")
    if not chosen:
        return
    path = Path(chosen)
    try:
        written = path if path.suffix else path.with_suffix(".csv")
        write_features(written, {name: labels.features[name] for name in labels.features.columns})
    except TiledUnetError as error:
        tell(error)
    else:
        show_info(f"{len(labels.features)} rows written to {written.name}")


class MeasureWidget(Container[Widget]):
    """Measure the objects of a Labels layer.

    Parameters
    ----------
    napari_viewer : napari.viewer.Viewer
        Whose layers are offered.
    """

    def __init__(self, napari_viewer: napari.viewer.Viewer) -> None:
        super().__init__(labels=False)
        self._viewer = napari_viewer
        self._labels_row = DropDown(name="labels", label="labels", tooltip="the Labels layer that is measured")
        self._image_row = DropDown(name="image", label="image", tooltip="the Image layer with the intensities")
        self._go = push_button(
            "Measure", name="measure", tooltip="make a table of size, place, shape, intensity", icon="measure"
        )
        self._export = push_button(
            "Export ...", name="export", tooltip="write the table of the layer as CSV", icon="save"
        )
        self._line = sentence("line")
        self._measure = Measure(self._say)
        self._image_said = False  # whether the user chose the image for these labels
        rows: Container[Widget] = Container(widgets=[self._labels_row, self._image_row])
        rows.margins = (0, 0, 0, 0)
        self.extend([side_by_side(self._go, self._export, name="buttons"), self._line])
        self.native.layout().insertWidget(0, ScrollingRows(rows))
        self.native.setMinimumWidth(240)
        self._labels_row.changed.connect(self._choose_labels)
        self._image_row.changed.connect(self._choose_image)
        self._go.changed.connect(self.measure)
        self._export.changed.connect(self.export)
        for event in self._layer_events():
            event.connect(self.reset_choices)
        self._departure = Departure(self.native, undocked=self._work_on, destroyed=self._leave)
        self.reset_choices()

    def _layer_events(self) -> tuple[Any, ...]:
        events = self._viewer.layers.events
        return events.inserted, events.removed, events.renamed, events.reordered

    def _work_on(self) -> None:
        """Leave a measurement under way alone: it ends by itself, and may be docked again."""

    def _leave(self) -> None:
        for event in self._layer_events():
            event.disconnect(self.reset_choices)
        self._measure.close()

    @property
    def busy(self) -> bool:
        """Whether a table is still to come."""
        return self._measure.busy

    @property
    def status(self) -> str:
        """What the line below the buttons says."""
        return str(self._line.value)

    def control(self, name: str) -> Any:
        """Return a control: labels, image, measure, export."""
        return {w.name: w for w in (self._labels_row, self._image_row, self._go, self._export)}[name]

    def reset_choices(self, *_: Any) -> None:
        """Offer the layers that the viewer has now."""
        active = self._viewer.layers.selection.active
        before = self._labels_row.value, self._image_row.value
        for row, fits in ((self._labels_row, is_labels_layer), (self._image_row, is_image_layer)):
            layers = [layer for layer in self._viewer.layers if fits(layer)]
            likely = active if active in layers else layers[-1] if layers else None
            row.offer([(layer.name, layer) for layer in layers], row.value if row.value in layers else likely)
        # What the user chose stays for as long as it is there.
        self._image_said &= (self._labels_row.value, self._image_row.value) == before
        self._follow()
        self._go.enabled = self._labels_row.value is not None and self._image_row.value is not None
        self._export.enabled = self._labels_row.value is not None

    def _choose_labels(self) -> None:
        self._image_said = False
        self._follow()

    def _choose_image(self) -> None:
        self._image_said = True

    def _follow(self) -> None:
        """Show the image of the run that made the labels, unless the user chose another one."""
        if self._image_said:
            return
        source = source_of(self._labels_row.value, self._viewer.layers)
        if source is not None:
            with self._image_row.changed.blocked():
                self._image_row.value = source

    def _say(self, text: str) -> None:
        self._line.value = text

    def measure(self) -> None:
        """Measure the layers that are chosen."""
        if self._labels_row.value is not None and self._image_row.value is not None:
            self._say("measuring ...")
            self._measure.measure(self._labels_row.value, self._image_row.value)

    def export(self) -> None:
        """Write the table as CSV."""
        export_features(self._labels_row.value, self.native)
