"""Plugins > Tiled U-Net > Evaluate: two Labels layers in, scores and the faults by place out."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import ref

import numpy as np
from magicgui.widgets import CheckBox, Container, Widget
from napari.utils.notifications import show_error
from qtpy.QtCore import Qt
from qtpy.QtGui import QColor
from qtpy.QtWidgets import QListWidget, QListWidgetItem, QTableWidget, QTableWidgetItem

from napari_tiled_unet.viewer.hands import claimed_text
from napari_tiled_unet.viewer.layers import SHOWN
from napari_tiled_unet.viewer.regions import in_units
from napari_tiled_unet.viewer.rows import Departure, DropDown, ScrollingRows, push_button, sentence
from napari_tiled_unet.viewer.running import tell
from napari_tiled_unet.viewer.teaching import is_own_result
from napari_tiled_unet.viewer.verdict import (
    FAULT_COLOURS,
    Place,
    Verdict,
    colour_table,
    compare_layers,
    planes_in_time,
    score_rows,
)
from napari_tiled_unet.viewer.worker import Latest

if TYPE_CHECKING:
    import napari.layers
    import napari.viewer

# Magnification to which a click on a fault zooms at least, in pixels of the screen per voxel.
_ZOOM = 4.0


class EvaluateWidget(Container[Widget]):
    """Score a Labels layer against the truth, and go to what is wrong.

    Parameters
    ----------
    napari_viewer : napari.viewer.Viewer
        Whose layers are offered.
    """

    def __init__(self, napari_viewer: napari.viewer.Viewer) -> None:
        super().__init__(labels=False)
        self._viewer = napari_viewer
        self._work = Latest()
        self._places: tuple[Place, ...] = ()
        self._faults: ref[Any] | None = None  # weak: the user may remove the layer
        self._said_stack = False
        self._predicted = DropDown(name="prediction", label="prediction", tooltip="Labels layer that is scored")
        self._true = DropDown(name="truth", label="truth", tooltip="Labels layer that is right")
        self._target = DropDown(name="target", label="labels are", tooltip="whether a number is one object, or a class")
        self._target.offer([("objects", "objects"), ("classes", "classes")], "objects")
        self._stack = CheckBox(
            name="stack", text="3D objects", value=True, tooltip="off: every plane is an image of its own"
        )
        self._evaluate = push_button("Evaluate", name="evaluate", tooltip="score the prediction", icon="run")
        self._line = sentence("line", "how it went")
        form: Container[Widget] = Container(
            widgets=[self._predicted, self._true, self._target, self._stack], name="form"
        )
        form.margins = (0, 0, 0, 0)
        self.extend([self._evaluate, self._line])
        self.native.layout().insertWidget(0, ScrollingRows(form))
        self._add_table_and_list()
        self._evaluate.changed.connect(self.evaluate)
        self._predicted.changed.connect(self._show_stack)
        self._true.changed.connect(self._show_stack)
        self._stack.changed.connect(self._say_stack)
        for event in self._layer_events():
            event.connect(self.reset_choices)
        self._departure = Departure(self.native, undocked=self._work_on, destroyed=self._leave)
        self.reset_choices()

    def _add_table_and_list(self) -> None:
        self.table = QTableWidget(0, 2)
        self.table.setHorizontalHeaderLabels(["score", "value"])
        self.table.setEditTriggers(QTableWidget.EditTrigger.NoEditTriggers)
        numbers, names = self.table.verticalHeader(), self.table.horizontalHeader()
        if numbers is not None and names is not None:
            numbers.setVisible(False)
            names.setStretchLastSection(True)
        self.table.setToolTip("scores over all frames")
        self.list = QListWidget()
        self.list.setToolTip("what is wrong; a click goes there")
        self.list.itemClicked.connect(self._go)
        self.native.layout().addWidget(self.table)
        self.native.layout().addWidget(self.list)
        self.native.setMinimumWidth(240)

    def _layer_events(self) -> tuple[Any, ...]:
        events = self._viewer.layers.events
        return events.inserted, events.removed, events.renamed, events.reordered

    def _work_on(self) -> None:
        """Leave a comparison under way alone: it ends by itself, and may be docked again."""

    def _leave(self) -> None:
        for event in self._layer_events():
            event.disconnect(self.reset_choices)
        self._work.close()

    def control(self, name: str) -> Any:
        """Return a control: prediction, truth, target, stack, evaluate."""
        own = (self._predicted, self._true, self._target, self._stack, self._evaluate)
        return {w.name: w for w in own}[name]

    @property
    def busy(self) -> bool:
        """Whether a comparison is under way."""
        return self._work.busy

    @property
    def status(self) -> str:
        """What the line says."""
        return str(self._line.value)

    @property
    def places(self) -> tuple[Place, ...]:
        """The faults of the list."""
        return self._places

    def reset_choices(self, *_: Any) -> None:
        """Offer the Labels layers that the viewer has now."""
        from napari.layers import Labels

        layers = [la for la in self._viewer.layers if isinstance(la, Labels) and not la.metadata.get(SHOWN)]
        made = [layer for layer in layers if is_own_result(layer)]
        predicted = self._predicted.value if self._predicted.value in layers else next(iter(made or layers), None)
        others = [layer for layer in layers if layer is not predicted]
        human = [layer for layer in others if layer not in made]
        true = self._true.value if self._true.value in others else next(iter(human or others), predicted)
        choices = [(layer.name, layer) for layer in layers]
        self._predicted.offer(choices, predicted)
        self._true.offer(choices, true)
        self._evaluate.enabled = len(layers) > 1
        self._show_stack()

    def _show_stack(self) -> None:
        """Offer to take planes as a stack: at first where nothing says that they are a time series."""
        layers = [row.value for row in (self._predicted, self._true) if row.value is not None]
        self._stack.visible = self._true.value is not None and self._true.value.ndim > 2
        if not self._said_stack:
            with self._stack.changed.blocked():
                self._stack.value = not any(planes_in_time(layer) for layer in layers)

    def _say_stack(self) -> None:
        self._said_stack = True

    def evaluate(self) -> None:
        """Score the prediction; the faults appear as a layer and in the list."""
        predicted, true = self._predicted.value, self._true.value
        if predicted is None or true is None or predicted is true:
            self._line.value = "choose two different Labels layers: the prediction and the truth"
            show_error(self.status)
            return
        held = claimed_text(predicted) or claimed_text(true)
        if held:
            self._line.value = held
            show_error(held)
            return
        # Axes may have been named since, or a run have ended.
        self._show_stack()
        self._line.value = "comparing ..."
        work = partial(compare_layers, predicted, true, self._target.value, stack=bool(self._stack.value))
        # The name as it is now: the layers may be gone when the answer comes.
        self._work.ask(work, partial(self._show, predicted.name, true))

    def _show(self, predicted: str, true: napari.layers.Labels, found: Any) -> None:
        if isinstance(found, Exception):
            self._line.value = str(found)
            tell(found)
            return
        verdict: Verdict = found
        rows = score_rows(verdict.evaluation.scores)
        self.table.setRowCount(len(rows))
        for number, row in enumerate(rows):
            for column, text in enumerate(row):
                self.table.setItem(number, column, QTableWidgetItem(text))
        self._places = verdict.places
        self.list.clear()
        for number, place in enumerate(verdict.places):
            item = QListWidgetItem(place.text)
            item.setForeground(QColor(FAULT_COLOURS[place.text.split()[0]]))
            item.setData(Qt.ItemDataRole.UserRole, number)
            self.list.addItem(item)
        self._remove_faults()
        if verdict.faults is not None:
            self._show_layer(predicted, true, verdict)
        told = f"{len(verdict.places)} faults; a click on one goes there" if verdict.places else "no object is wrong"
        self._line.value = told if verdict.faults is not None else "scores of the classes"

    def _shown(self) -> napari.layers.Labels | None:
        """Return the layer of faults if it is still in the viewer."""
        layer = self._faults() if self._faults is not None else None
        return layer if layer in self._viewer.layers else None

    def _remove_faults(self) -> None:
        shown = self._shown()
        if shown is not None:
            self._viewer.layers.remove(shown)

    def _show_layer(self, predicted: str, true: napari.layers.Labels, verdict: Verdict) -> None:
        from napari.layers import Labels
        from napari.utils.colormaps import DirectLabelColormap

        where = ("scale", "translate", "rotate", "shear", "affine", "units", "axis_labels")
        layer = Labels(
            verdict.faults,
            name=f"faults of {predicted}",
            colormap=DirectLabelColormap(color_dict=colour_table()),
            metadata={SHOWN: True},
            **{name: getattr(true, name) for name in where},
        )
        self._faults = ref(layer)
        self._viewer.layers.append(layer)

    def _go(self, item: QListWidgetItem) -> None:
        self.go_to(self._places[item.data(Qt.ItemDataRole.UserRole)])

    def go_to(self, place: Place) -> None:
        """Move camera and sliders to a fault."""
        shown, units = self._shown(), self._viewer.dims.units
        if shown is None:
            self._line.value = "the layer of faults was removed; evaluate again"
            return
        found = np.array([shown.data_to_world(place.voxel), shown.scale], float)
        # A layer may be in other units than the world; None is a world without any.
        world, size = found if units is None else in_units(found, tuple(shown.units), units)
        missing = self._viewer.dims.ndim - len(world)
        for axis, value in enumerate(world):
            self._viewer.dims.set_point(axis + missing, value)
        camera = self._viewer.scene.camera
        displayed = [float(world[axis - missing]) for axis in self._viewer.dims.displayed if axis >= missing]
        camera.center = (*(0.0,) * (3 - len(displayed)), *displayed)
        pixel = min(abs(float(s)) for s in size[-2:])
        camera.zoom = max(camera.zoom, _ZOOM / pixel)
