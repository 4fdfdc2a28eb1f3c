"""Plugins > Tiled U-Net > Segment: an image layer in, a Labels layer out."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from magicgui.widgets import Container, PushButton, Widget
from napari.utils.notifications import show_error
from qtpy.QtCore import QTimer

from napari_tiled_unet.cards import card_lines
from napari_tiled_unet.errors import OptionsError, TiledUnetError
from napari_tiled_unet.model import list_models
from napari_tiled_unet.options import SegmentOptions
from napari_tiled_unet.viewer.form import (
    UNSAID,
    FormState,
    form_state,
    option_rows,
    options_from_rows,
    rows_of,
)
from napari_tiled_unet.viewer.layers import facts_of, image_from_layer, is_image_layer, is_shapes_layer
from napari_tiled_unet.viewer.maps import KeptMaps, room_for_maps
from napari_tiled_unet.viewer.outlook import Outlook
from napari_tiled_unet.viewer.regions import FRAME, RANGE, VIEW, WHOLE, region_text
from napari_tiled_unet.viewer.repeat import Repeat
from napari_tiled_unet.viewer.results import own_result
from napari_tiled_unet.viewer.rows import (
    Departure,
    DropDown,
    ScrollingRows,
    folding,
    row_widget,
    sentence,
    show_meaning,
    side_by_side,
)
from napari_tiled_unet.viewer.running import Bar, Order, Running, tell
from napari_tiled_unet.viewer.tuning import Tune

if TYPE_CHECKING:
    import napari.layers
    import napari.viewer

    from napari_tiled_unet.image import Image
    from napari_tiled_unet.model import ModelEntry

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

    Attributes
    ----------
    state : FormState
        What the form shows.
    """

    def __init__(self, napari_viewer: napari.viewer.Viewer) -> None:
        super().__init__(labels=False)
        self.state = FormState()
        self._viewer = napari_viewer
        self._models: dict[str, ModelEntry] = {}
        self._said: dict[Any, dict[str, Any]] = {}  # axes and channel that the user chose, by layer
        self._run: Running | None = None
        self._outcome = ""
        self._build()
        self._offer_layers()
        self.read_models()
        self._listen()

    # --- what it is made of -----------------------------------------------------------

    def _build(self) -> None:
        self._image = DropDown(name="layer", label="image", tooltip="the Image layer to segment")
        self._rows: dict[str, Any] = {row.name: row_widget(row) for row in option_rows()}
        self._reread = PushButton(text="↻", name="reread", tooltip="look for models again")
        self._reread.native.setFixedWidth(30)
        common = [self._rows[row.name] for row in option_rows() if not row.advanced and row.name != "model"]
        advanced = [self._rows[row.name] for row in option_rows() if row.advanced]
        self._fold = folding(advanced, title="Advanced")
        model = side_by_side(self._rows["model"], self._reread, label="model", name="model_and_reread")
        self._run_on = DropDown(name="run_on", label="run on", tooltip="which part of the image is segmented")
        place = next(i for i, widget in enumerate(common) if widget.name == "region")
        common.insert(place, self._run_on)
        rows: Container[Widget] = Container(widgets=[self._image, model, *common, self._fold, *advanced])
        rows.margins = (0, 0, 0, 0)
        self._segment = PushButton(text="Segment", name="segment", tooltip="segment the layer with these options")
        self._cancel = PushButton(text="Cancel", name="cancel", tooltip="stop within a tile; no layer is made")
        self._bar = Bar(self._show_line)
        self._repeat = Repeat(
            options=self.segment_options,
            source=self._source,
            take=self.take_options,
            run_again=self.run_again,
            layers=lambda: self._viewer.layers,
        )
        self._outlook = Outlook(self._foretold)
        self._tune = Tune(self._viewer, self._tuned)
        self._tune.visible = False
        self._line = sentence("line")
        buttons = side_by_side(self._segment, self._cancel, name="buttons")
        self.extend([self._outlook.widget, buttons, self._bar.widget, self._line, self._tune, self._repeat])
        self._form = rows  # the scroll area holds its Qt half only
        self.native.layout().insertWidget(0, ScrollingRows(rows))
        self.native.setMinimumWidth(240)

    def _listen(self) -> None:
        self._image.changed.connect(self._change_row)
        self._rows["axes"].changed.connect(self._say_axes)
        self._rows["channel"].changed.connect(self._say_channel)
        for widget in (self._run_on, *self._rows.values()):
            widget.changed.connect(self._change_row)
        self._reread.changed.connect(self.read_models)
        self._segment.changed.connect(self.segment)
        self._cancel.changed.connect(self.cancel)
        for event in self._layer_events():
            event.connect(self.reset_choices)
        self._rest = QTimer(self.native)
        self._rest.setSingleShot(True)
        self._rest.timeout.connect(self._refresh)
        for event in self._moves():
            event.connect(self._moved)
        self._departure = Departure(self.native, undocked=self.cancel, destroyed=self._leave)

    def _layer_events(self) -> tuple[Any, ...]:
        events = self._viewer.layers.events
        return events.inserted, events.removed, events.renamed, events.reordered

    def _moves(self) -> tuple[Any, ...]:
        camera, dims = self._viewer.scene.camera.events, self._viewer.dims.events
        return camera.center, camera.zoom, dims.current_step, dims.ndisplay

    def _moved(self) -> None:
        if self._run_on.value in (VIEW, FRAME):
            self._rest.start(_REST)

    def _leave(self) -> None:
        """Let go of viewer and run once Qt has destroyed the widget."""
        for event in self._layer_events():
            event.disconnect(self.reset_choices)
        for event in self._moves():
            event.disconnect(self._moved)
        self._tune.close_threads()
        self._outlook.close()
        if self._run is not None:
            self._run.abandon()
            self._run = None

    # --- what is chosen ---------------------------------------------------------------

    @property
    def layer(self) -> napari.layers.Image | None:
        """The image layer that is chosen."""
        return self._image.value

    @layer.setter
    def layer(self, layer: napari.layers.Image) -> None:
        self._image.value = layer

    @property
    def running(self) -> bool:
        """Whether a run is under way, or a cancelled one has not ended yet."""
        return self._run is not None

    @property
    def status(self) -> str:
        """What the line below the buttons says."""
        return str(self._line.value)

    def control(self, name: str) -> Any:
        """Return a control: the row of an option, or layer, run_on, reread, advanced, segment, cancel."""
        own = (self._image, self._run_on, self._reread, self._fold, self._segment, self._cancel)
        others = {w.name: w for w in own}
        return self._rows[name] if name in self._rows else others[name]

    def segment_options(self) -> SegmentOptions:
        """Return the options that the form says.

        Raises
        ------
        OptionsError
            If a row holds a value that breaks its rule, or nothing would be segmented.
        """
        values = {name: self.control(name).value for name in self._rows if name not in self.state.idle}
        values |= {"axes": self.state.axes_taken, "channel": self.state.channel_taken, "region": self._region()}
        return options_from_rows(values)

    def _region(self) -> str | None:
        entry, layer, axes = self._models.get(self.control("model").value), self.layer, self.state.axes_taken
        if layer is None or axes is None or entry is None:
            return None
        return region_text(self._run_on.value, layer, axes, self._viewer, entry.spec.axes, self.control("region").value)

    def take_options(self, options: SegmentOptions) -> None:
        """Fill the form with options, for example those of a recipe.

        Raises
        ------
        OptionsError
            If their model is not installed.
        """
        if options.model not in self._models:
            raise OptionsError(
                f"the recipe is for model {options.model!r}, which is not installed; "
                f"choose another or install it; there are {', '.join(self._models)}"
            )
        values = rows_of(options) | {"model": options.model, "region": options.region or ""}
        for name, value in values.items():
            with self.control(name).changed.blocked():
                self.control(name).value = value
        self._say(axes=options.axes, channel=options.channel)
        self._offer_layers()
        with self._run_on.changed.blocked():
            self._run_on.value = RANGE if options.region else WHOLE
        self._change_row()

    def _source(self) -> tuple[napari.layers.Image | None, str | None, napari.layers.Labels | None]:
        """Return the image layer, the reading of its axes, and its result."""
        layer = self.layer
        return layer, self.state.axes_taken, None if layer is None else own_result(self._viewer.layers, layer)

    def read_models(self) -> None:
        """Look for models again and offer them."""
        self._models = {entry.name: entry for entry in list_models()}
        row, default = self.control("model"), SegmentOptions.model_fields["model"].default
        chosen = next((name for name in (row.value, default, *self._models) if name in self._models), None)
        row.offer([(f"{name} ({len(entry.spec.axes)}D)", name) for name, entry in self._models.items()], chosen)
        self._refresh()

    def reset_choices(self, *_: Any) -> None:
        """Offer the image layers that the viewer has now; napari calls it as layers come and go."""
        if self._run is not None:
            self._run.follow_layers()
        self._offer_layers()
        self._refresh()

    def _offer_layers(self) -> None:
        layers = [layer for layer in self._viewer.layers if is_image_layer(layer)]
        chosen, active = self.layer, self._viewer.layers.selection.active
        if chosen not in layers:
            chosen = active if active in layers else layers[-1] if layers else None
        self._image.offer([(layer.name, layer) for layer in layers], chosen)
        drawn = [layer for layer in self._viewer.layers if is_shapes_layer(layer)]
        places = [WHOLE, VIEW, FRAME, *drawn, RANGE]
        kept = self._run_on.value if self._run_on.value in places else WHOLE
        self._run_on.offer([(p if isinstance(p, str) else f"shapes: {p.name}", p) for p in places], kept)

    def _say_axes(self, axes: str) -> None:
        self._say(axes=axes)

    def _say_channel(self, channel: Any) -> None:
        self._say(channel=None if channel == UNSAID else channel)

    def _say(self, **said: Any) -> None:
        if self.layer is not None:
            self._said.setdefault(self.layer.unique_id, {}).update(said)

    def _change_row(self) -> None:
        self._outcome = ""
        self._refresh()

    # --- state, computed and applied --------------------------------------------------

    def _refresh(self) -> None:
        entry = self._models.get(self.control("model").value)
        layer = self.layer
        said = self._said.get(layer.unique_id, {}) if layer is not None else {}
        self.state = form_state(
            facts_of(layer) if layer is not None else None,
            entry.spec if entry is not None else None,
            chosen_axes=said.get("axes"),
            chosen_channel=said.get("channel"),
        )
        if entry is not None:
            self.control("model").tooltip = "\n".join(card_lines(entry.spec, entry.path))
        self._apply(self.state)

    def _apply(self, state: FormState) -> None:
        taken = UNSAID if state.axes_taken is None else state.axes_taken
        self.control("axes").offer(state.axes, taken)
        self.control("channel").offer(state.channels, UNSAID if state.channel_taken is None else state.channel_taken)
        self.control("channel").visible = bool(state.channels)
        self.control("region").visible = self._run_on.value == RANGE
        for row in option_rows():
            widget, idle = self.control(row.name), state.idle.get(row.name)
            show_meaning(widget, state.placeholders.get(row.name, ""))
            widget.enabled = idle is None
            if row.name != "model":
                widget.tooltip = f"{row.tooltip} ({idle})" if idle else row.tooltip
        problem = state.problem
        if problem is None:
            try:
                self.segment_options()
            except OptionsError as error:
                problem = str(error)
        self._segment.enabled = problem is None and not self.running
        self._tune.visible = not self.running and self._can_tune()
        self._cancel.enabled = self.running and self._run is not None and not self._run.cancelled
        self._outlook.refresh()
        if not self.running:
            self._line.value = self._outcome or problem or ""

    def _show_line(self, text: str) -> None:
        self._line.value = text

    def _foretold(self) -> tuple[Image, SegmentOptions] | None:
        """Return the run to foretell: none while one is under way, or where the form is not complete."""
        layer, axes = self.layer, self.state.axes_taken
        if self.running or layer is None or axes is None or self.state.problem is not None:
            return None
        try:
            return image_from_layer(layer, axes), self.segment_options()
        except TiledUnetError:
            return None

    def _can_tune(self) -> bool:
        """Whether the maps that are kept are those of the layer that is chosen, and its labels are there."""
        kept = self._tune.kept
        if kept is None:
            return False
        if kept.outcome.labels not in self._viewer.layers or kept.outcome.order.layer not in self._viewer.layers:
            self._tune.offer(None)
            return False
        return kept.outcome.order.layer is self.layer

    # --- a run ------------------------------------------------------------------------

    def segment(self) -> None:
        """Start a run with what the form says; labels appear as tiles are done."""
        layer, axes = self.layer, self.state.axes_taken
        if self.running:
            return
        if layer is None or axes is None or self.state.problem is not None:
            show_error(self.state.problem or "choose an image layer first")
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

    def _tuned(self, options: SegmentOptions) -> None:
        """Let the form say what the sliders say, for the next run."""
        values = rows_of(options)
        for name in ("foreground_threshold", "seed_threshold", "min_size"):
            with self.control(name).changed.blocked():
                self.control(name).value = values[name]
        self._refresh()
