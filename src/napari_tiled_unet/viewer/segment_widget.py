"""Plugins > Tiled U-Net > Segment: an image layer in, a Labels layer out."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from magicgui.widgets import Container, Label, ProgressBar, PushButton, Widget
from napari.utils import progress
from napari.utils.notifications import Notification, notification_manager, show_error, show_warning

from napari_tiled_unet.cards import card_lines
from napari_tiled_unet.errors import OptionsError, TiledUnetError
from napari_tiled_unet.events import Finished, Notice, Planned, TileDone
from napari_tiled_unet.model import list_models
from napari_tiled_unet.options import SegmentOptions
from napari_tiled_unet.viewer.form import (
    UNSAID,
    FormState,
    finished_text,
    form_state,
    option_rows,
    options_from_rows,
    progress_text,
)
from napari_tiled_unet.viewer.layers import facts_of, image_from_layer, is_image_layer
from napari_tiled_unet.viewer.results import show_labels
from napari_tiled_unet.viewer.rows import (
    Departure,
    DropDown,
    ScrollingRows,
    folding,
    row_widget,
    show_meaning,
    side_by_side,
)
from napari_tiled_unet.viewer.worker import Failed, Run

if TYPE_CHECKING:
    import napari.layers
    import napari.viewer

    from napari_tiled_unet.events import Event
    from napari_tiled_unet.model import ModelEntry

# Seconds between two updates of the progress; more would cost the run and nest event loops.
_SHOW_EVERY = 0.1


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
        self._run: Run | None = None
        self._source: tuple[napari.layers.Image, str] | None = None
        self._progress: progress | None = None
        self._started, self._shown, self._tiles = 0.0, 0.0, 0
        self._outcome = ""
        self._notes: list[str] = []
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
        rows: Container[Widget] = Container(widgets=[self._image, model, *common, self._fold, *advanced])
        rows.margins = (0, 0, 0, 0)
        self._segment = PushButton(text="Segment", name="segment", tooltip="segment the layer with these options")
        self._cancel = PushButton(text="Cancel", name="cancel", tooltip="stop within a tile; no layer is made")
        self._bar = ProgressBar(name="bar", label="", visible=False)
        self._line = Label(name="line", label="", value="")
        self._line.native.setWordWrap(True)
        self.extend([side_by_side(self._segment, self._cancel, name="buttons"), self._bar, self._line])
        self._form = rows  # the scroll area holds its Qt half only
        self.native.layout().insertWidget(0, ScrollingRows(rows))
        self.native.setMinimumWidth(240)

    def _listen(self) -> None:
        self._image.changed.connect(self._change_row)
        self._rows["axes"].changed.connect(self._say_axes)
        self._rows["channel"].changed.connect(self._say_channel)
        for widget in self._rows.values():
            widget.changed.connect(self._change_row)
        self._reread.changed.connect(self.read_models)
        self._segment.changed.connect(self.segment)
        self._cancel.changed.connect(self.cancel)
        for event in self._layer_events():
            event.connect(self.reset_choices)
        self._departure = Departure(self.native, undocked=self.cancel, destroyed=self._leave)

    def _layer_events(self) -> tuple[Any, ...]:
        events = self._viewer.layers.events
        return events.inserted, events.removed, events.renamed, events.reordered

    def _leave(self) -> None:
        """Let go of viewer and run once Qt has destroyed the widget."""
        for event in self._layer_events():
            event.disconnect(self.reset_choices)
        if self._run is not None:
            self._run.abandon()
            self._let_go()

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
        """Return a control: the row of an option, or layer, reread, advanced, segment, cancel."""
        others = {w.name: w for w in (self._image, self._reread, self._fold, self._segment, self._cancel)}
        return self._rows[name] if name in self._rows else others[name]

    def segment_options(self) -> SegmentOptions:
        """Return the options that the form says.

        Raises
        ------
        OptionsError
            If a row holds a value that breaks its rule.
        """
        values = {name: self.control(name).value for name in self._rows if name not in self.state.idle}
        return options_from_rows(values | {"axes": self.state.axes_taken, "channel": self.state.channel_taken})

    def read_models(self) -> None:
        """Look for models again and offer them."""
        self._models = {entry.name: entry for entry in list_models()}
        row, default = self.control("model"), SegmentOptions.model_fields["model"].default
        chosen = next((name for name in (row.value, default, *self._models) if name in self._models), None)
        row.offer([(f"{name} ({len(entry.spec.axes)}D)", name) for name, entry in self._models.items()], chosen)
        self._refresh()

    def reset_choices(self, *_: Any) -> None:
        """Offer the image layers that the viewer has now; napari calls it as layers come and go."""
        if self._source is not None and self._source[0] not in self._viewer.layers:
            self._stop("stopped: the image layer was removed")
        self._offer_layers()
        self._refresh()

    def _offer_layers(self) -> None:
        layers = [layer for layer in self._viewer.layers if is_image_layer(layer)]
        chosen, active = self.layer, self._viewer.layers.selection.active
        if chosen not in layers:
            chosen = active if active in layers else layers[-1] if layers else None
        self._image.offer([(layer.name, layer) for layer in layers], chosen)

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
        self._cancel.enabled = self.running and self._run is not None and not self._run.cancelled
        if not self.running:
            self._line.value = self._outcome or problem or ""

    # --- a run ------------------------------------------------------------------------

    def segment(self) -> None:
        """Start a run with what the form says; the labels appear when it is through."""
        layer, axes = self.layer, self.state.axes_taken
        if self.running:
            return
        if layer is None or axes is None or self.state.problem is not None:
            show_error(self.state.problem or "choose an image layer first")
            return
        try:
            image, options = image_from_layer(layer, axes), self.segment_options()
        except TiledUnetError as error:
            self._fail(error)
            return
        self._source, self._notes, self._outcome = (layer, axes), [], ""
        self._started, self._shown, self._tiles = time.perf_counter(), 0.0, 0
        layer.events.data.connect(self._source_changed)
        self._bar.native.setRange(0, 0)
        self._bar.visible = True
        self._line.value = "loading the model ..."
        self._segment.enabled = False
        self._progress = progress(total=None, desc=f"segment {layer.name}")
        self._run = Run(image, options, on_event=self._hear, on_end=self._end)
        self._refresh()

    def cancel(self) -> None:
        """End the run within a tile; no layer is made or changed."""
        self._stop("cancelled, no layer was changed")

    def _stop(self, outcome: str) -> None:
        if self._run is None or self._run.cancelled:
            return
        self._outcome = outcome
        self._line.value = "stopping after this tile ..."
        self._run.cancel()
        self._refresh()

    def _source_changed(self) -> None:
        self._stop("stopped: the data of the image layer were replaced")

    def _hear(self, event: Event) -> None:
        match event:
            case Notice(message, caution):
                self._notes.append(message)
                if caution:
                    show_warning(message)
            case Planned():
                self._plan(event)
            case TileDone():
                self._count_tile()
            case Finished():
                self._finish(event)
            case Failed(error):
                self._fail(error)

    # napari's progress runs the event loop whenever it changes: it always comes last, because
    # the next events of the run, even its end, may have been heard when it returns.

    def _plan(self, planned: Planned) -> None:
        self._bar.native.setRange(0, planned.n_tiles)
        self._started = time.perf_counter()
        self._show_tiles()
        if self._progress is not None:
            self._progress.total = planned.n_tiles

    def _count_tile(self) -> None:
        self._tiles += 1
        now = time.perf_counter()
        if now - self._shown < _SHOW_EVERY and self._tiles < self._bar.native.maximum():
            return
        self._shown = now
        self._show_tiles()
        if self._progress is not None:
            self._progress.update(self._tiles - self._progress.n)

    def _show_tiles(self) -> None:
        self._bar.native.setValue(self._tiles)
        seconds = time.perf_counter() - self._started
        self._line.value = progress_text(self._tiles, self._bar.native.maximum(), seconds)

    def _finish(self, finished: Finished) -> None:
        assert self._source is not None
        layer, axes = self._source
        self._outcome = finished_text(finished, self._notes)
        show_labels(self._viewer.layers, layer, axes, finished)

    def _fail(self, error: Exception) -> None:
        """Say what went wrong: refusals as their sentence, anything else with its traceback."""
        self._outcome = self._line.value = str(error) or type(error).__name__
        if isinstance(error, TiledUnetError):
            show_error(str(error))
        else:
            notification_manager.dispatch(Notification.from_exception(error))

    def _end(self) -> None:
        self._bar.visible = False
        self._let_go()
        self._refresh()

    def _let_go(self) -> None:
        """Free what belongs to a run."""
        source, shown = self._source, self._progress
        self._run = self._source = self._progress = None
        if source is not None:
            source[0].events.data.disconnect(self._source_changed)
        if shown is not None:
            shown.close()
