"""Plugins > Tiled U-Net > Segment: an image layer in, a Labels layer out."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from magicgui.widgets import CheckBox, Container, Widget
from napari.utils.notifications import show_error
from qtpy.QtCore import QTimer

from napari_tiled_unet.errors import OptionsError, TiledUnetError
from napari_tiled_unet.viewer.choices import Choices
from napari_tiled_unet.viewer.following import PLACE, Following
from napari_tiled_unet.viewer.form import FormState, rows_of
from napari_tiled_unet.viewer.hands import claims, is_claimed
from napari_tiled_unet.viewer.layers import image_from_layer
from napari_tiled_unet.viewer.maps import KeptMaps, room_for_maps
from napari_tiled_unet.viewer.measure_widget import Measure, export_features
from napari_tiled_unet.viewer.outlook import Outlook
from napari_tiled_unet.viewer.repeat import Repeat
from napari_tiled_unet.viewer.results import own_result
from napari_tiled_unet.viewer.rows import Departure, ScrollingRows, push_button, sentence, side_by_side
from napari_tiled_unet.viewer.running import Bar, Order, Running, claimed_problem, tell
from napari_tiled_unet.viewer.tuning import Tune

if TYPE_CHECKING:
    import napari.layers
    import napari.viewer

    from napari_tiled_unet.image import Image
    from napari_tiled_unet.options import SegmentOptions

# Milliseconds after which the form follows a camera that came to rest.
_REST = 150


class SegmentWidget(Container[Widget]):
    """Segment an image layer tile by tile with a U-Net.

    The form is a thin shell: what it shows is computed by
    :func:`napari_tiled_unet.viewer.form.form_state`, and applied as it stands.

    Parameters
    ----------
    napari_viewer : napari.viewer.Viewer
        Whose layers are offered and where the labels are shown.
    """

    def __init__(self, napari_viewer: napari.viewer.Viewer) -> None:
        super().__init__(labels=False)
        self._viewer = napari_viewer
        self._run: Running | None = None
        self._outcome = ""
        self._choices = Choices(napari_viewer, self._choose)
        self._build()
        self._choices.offer_layers()
        self.read_models()
        self._listen()

    # --- what it is made of -----------------------------------------------------------

    def _build(self) -> None:
        self._segment = push_button(
            "Segment", name="segment", tooltip="segment the layer with these options", icon="run"
        )
        self._cancel = push_button("Cancel", name="cancel", tooltip="stop within a tile; no layer is made", icon="stop")
        self._bar = Bar(self._show_line)
        self._repeat = Repeat(
            options=self.segment_options,
            source=self._source,
            take=self.take_options,
            run_again=self.run_again,
            layers=lambda: self._viewer.layers,
        )
        self._outlook = Outlook(self._foretold)
        self._image_follow = Following(("data", "axis_labels", *PLACE), self._changed)
        self._shapes_follow = Following(("data", "highlight", *PLACE), self._changed)
        self._tune = Tune(self._viewer, self._tuned, self._say_outcome)
        self._tune.visible = False
        self._line = sentence("line")
        self._measures = CheckBox(
            name="measure",
            text="measure objects",
            tooltip="after a run, give the labels a table of size, place, shape and intensity of each object",
        )
        self._export = push_button(
            "CSV ...", name="export", tooltip="write the table of the objects to a file", icon="save"
        )
        self._measure = Measure(self._say_measured)
        measuring = side_by_side(self._measures, self._export, name="measuring")
        buttons = side_by_side(self._segment, self._cancel, name="buttons")
        self.extend([self._outlook.widget, buttons, self._bar.widget, self._line, measuring, self._tune, self._repeat])
        self.native.layout().insertWidget(0, ScrollingRows(self._choices.widget))
        self.native.setMinimumWidth(310)

    def _listen(self) -> None:
        self._segment.changed.connect(self.segment)
        self._cancel.changed.connect(self.cancel)
        self._measures.changed.connect(self.measure)
        self._export.changed.connect(self.export)
        for event in self._layer_events():
            event.connect(self.reset_choices)
        self._rest = QTimer(self.native)
        self._rest.setSingleShot(True)
        self._rest.timeout.connect(self._refresh)
        for event in self._moves():
            event.connect(self._moved)
        claims.connect(self._refresh)
        self._departure = Departure(self.native, undocked=self._undock, destroyed=self._leave)

    def _layer_events(self) -> tuple[Any, ...]:
        events = self._viewer.layers.events
        return events.inserted, events.removed, events.renamed, events.reordered

    def _moves(self) -> tuple[Any, ...]:
        camera, dims = self._viewer.scene.camera.events, self._viewer.dims.events
        return camera.center, camera.zoom, dims.current_step, dims.ndisplay

    def _moved(self) -> None:
        if self._choices.follows_camera:
            self._changed()

    def _changed(self) -> None:
        """Look anew soon: many events may come at once, some of them before a layer is as it will be."""
        self._rest.start(_REST)

    def _undock(self) -> None:
        """End what is under way; the widget may be gone before Qt says that it destroyed it."""
        self.cancel()
        if self._tune.kept is not None:
            self._tune.offer(None)
            self._refresh()

    def _leave(self) -> None:
        """Let go of viewer and run once Qt has destroyed the widget."""
        for event in self._layer_events():
            event.disconnect(self.reset_choices)
        for event in self._moves():
            event.disconnect(self._moved)
        claims.disconnect(self._refresh)
        self._image_follow.follow(None)
        self._shapes_follow.follow(None)
        self._tune.close_threads()
        self._repeat.close_threads()
        self._outlook.close()
        self._measure.close()
        if self._run is not None:
            self._run.abandon()
            self._run = None

    # --- what is chosen ---------------------------------------------------------------

    @property
    def state(self) -> FormState:
        """What the form shows."""
        return self._choices.state

    @property
    def layer(self) -> napari.layers.Image | None:
        """The image layer that is chosen."""
        return self._choices.layer

    @layer.setter
    def layer(self, layer: napari.layers.Image) -> None:
        self._choices.layer = layer

    @property
    def running(self) -> bool:
        """Whether a run is under way, or a cancelled one has not ended yet."""
        return self._run is not None

    @property
    def status(self) -> str:
        """What the line below the buttons says."""
        return str(self._line.value)

    def control(self, name: str) -> Any:
        """Return a control: an option, or layer, run_on, reread, advanced, segment, cancel, measure, export."""
        own = {w.name: w for w in (self._segment, self._cancel, self._measures, self._export)}
        return own[name] if name in own else self._choices.control(name)

    def segment_options(self) -> SegmentOptions:
        """Return the options that the form says.

        Raises
        ------
        OptionsError
            If a row holds a value that breaks its rule, or nothing would be segmented.
        """
        return self._choices.options()

    def take_options(self, options: SegmentOptions) -> None:
        """Fill the form with options, for example those of a recipe.

        Raises
        ------
        OptionsError
            If their model is not installed.
        """
        self._choices.take(options)

    def _source(self) -> tuple[napari.layers.Image | None, str | None, napari.layers.Labels | None]:
        """Return the image layer, the reading of its axes, and its result."""
        layer = self.layer
        return layer, self.state.axes_taken, None if layer is None else own_result(self._viewer.layers, layer)

    def read_models(self) -> None:
        """Look for models again and offer them."""
        self._choices.read_models()
        self._show()

    def reset_choices(self, *_: Any) -> None:
        """Offer the image layers that the viewer has now; napari calls it as layers come and go."""
        if self._run is not None:
            self._run.follow_layers()
        before = self.layer
        self._choices.offer_layers()
        if self.layer is not before:
            self._outcome = ""
        self._refresh()

    def _choose(self) -> None:
        self._outcome = ""
        self._show()

    # --- state, computed and applied --------------------------------------------------

    def _refresh(self) -> None:
        self._choices.refresh()
        self._show()

    def _claimed(self) -> str | None:
        """Return that another widget has the image in hand, one sentence; None where it has not."""
        if self.layer is None or self.running or not is_claimed(self.layer):
            return None
        return claimed_problem(self.layer)

    @property
    def _problem(self) -> str | None:
        """Why nothing can be run now, one sentence; None when it can."""
        return self._claimed() or self._choices.problem

    def _show(self) -> None:
        self._image_follow.follow(self.layer)
        self._shapes_follow.follow(self._choices.drawn)
        self._segment.enabled = self._problem is None and not self.running
        self._tune.visible = not self.running and self._can_tune()
        self._cancel.enabled = self.running and self._run is not None and not self._run.cancelled
        self._outlook.refresh()
        if not self.running:
            self._say()

    def _say(self, more: str = "") -> None:
        """Show what keeps the layer from being segmented, how the last run ended, and more."""
        parts = (self._problem, self._outcome, more)
        self._line.value = "\n".join(dict.fromkeys(part for part in parts if part))

    def _show_line(self, text: str) -> None:
        self._line.value = text

    def _say_outcome(self, text: str) -> None:
        self._outcome = text
        self._show()

    def _foretold(self) -> tuple[Image, SegmentOptions] | None:
        """Return the run to foretell: none while one is under way, or where the form is not complete."""
        layer, axes = self.layer, self.state.axes_taken
        if self.running or layer is None or axes is None or self.state.problem is not None:
            return None
        try:
            options = self.segment_options()
            return image_from_layer(layer, axes, options.level), options
        except TiledUnetError:
            return None

    def _can_tune(self) -> bool:
        """Whether the maps that are kept are those of the layer that is chosen, and its labels are still theirs."""
        kept = self._tune.kept
        if kept is None or is_claimed(kept.outcome.labels):
            return False
        if not self._tune.is_current or kept.outcome.order.layer not in self._viewer.layers:
            self._tune.offer(None)
            return False
        return kept.outcome.order.layer is self.layer

    # --- a run ------------------------------------------------------------------------

    def segment(self) -> None:
        """Start a run with what the form says; labels appear as tiles are done."""
        if self.running:
            return
        self._choices.refresh()
        layer, axes = self.layer, self.state.axes_taken
        problem = self._claimed() or self.state.problem
        if layer is None or axes is None or problem is not None:
            show_error(problem or "choose an image layer first")
            self._refresh()
            return
        self._segment.enabled = False
        try:
            order = Order(layer, axes, self.segment_options())
            self._tune.offer(None)
            room = partial(room_for_maps, memory=order.options.memory)
            self._run = Running(self._viewer, order, self._bar, on_end=self._end, room=room)
        except TiledUnetError as error:
            self._outcome = str(error)
            tell(error)
        finally:
            self._refresh()

    def run_again(self, options: SegmentOptions, layer: napari.layers.Image) -> None:
        """Segment another image layer with the options of a recipe."""
        self.layer = layer
        try:
            self.take_options(options)
        except OptionsError as error:
            tell(error)
            return
        self.segment()

    def cancel(self) -> None:
        """End the run within a tile; every layer is left as it was."""
        if self._run is None or self._run.cancelled:
            return
        self._run.stop("cancelled, no layer was changed")
        self._line.value = "stopping after this tile ..."
        self._refresh()

    def _end(self) -> None:
        assert self._run is not None
        ended, self._run = self._run, None
        self._outcome = ended.words
        outcome = ended.outcome
        if outcome is not None and outcome.finished.maps is not None:
            self._tune.offer(KeptMaps(outcome, outcome.finished.maps))
        self._refresh()
        if outcome is not None:
            self._measure_result(outcome.labels, outcome.order.layer)

    def _tuned(self, options: SegmentOptions) -> None:
        """Let the form say what the sliders say, for the next run."""
        values = rows_of(options)
        tuned = ("foreground_threshold", "seed_threshold", "min_size")
        self._choices.show_values({name: values[name] for name in tuned})
        self._refresh()
        kept = self._tune.kept
        if kept is not None:
            self._measure_result(kept.outcome.labels, kept.outcome.order.layer)

    # --- objects in numbers -----------------------------------------------------------

    @property
    def measuring(self) -> bool:
        """Whether a table is still to come."""
        return self._measure.busy

    def measure(self) -> None:
        """Measure the objects in the result of the layer that is chosen, if that is asked for."""
        layer, _, labels = self._source()
        if layer is not None and labels is not None:
            self._measure_result(labels, layer)

    def _measure_result(self, labels: napari.layers.Labels, layer: napari.layers.Image) -> None:
        if self._measures.value and not self.running:
            self._measure.measure(labels, layer)

    def _say_measured(self, text: str) -> None:
        if not self.running:
            self._say(text)

    def export(self) -> None:
        """Write the table of the result as CSV."""
        export_features(self._source()[2], self.native)
