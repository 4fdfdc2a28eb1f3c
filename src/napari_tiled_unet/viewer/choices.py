"""What the user chooses before a run: layer, model, place and options, as rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from magicgui.widgets import Container, Widget

from napari_tiled_unet.cards import card_lines
from napari_tiled_unet.errors import OptionsError, TiledUnetError
from napari_tiled_unet.model_files import list_models
from napari_tiled_unet.options import SegmentOptions
from napari_tiled_unet.viewer.form import (
    UNSAID,
    FormState,
    form_state,
    misfit,
    option_rows,
    options_from_rows,
    rows_of,
)
from napari_tiled_unet.viewer.layers import facts_of, is_image_layer, is_shapes_layer
from napari_tiled_unet.viewer.preferences import read_preferences, use_model_folder
from napari_tiled_unet.viewer.regions import FRAME, RANGE, VIEW, WHOLE, region_text
from napari_tiled_unet.viewer.rows import DropDown, folding, push_button, row_widget, show_meaning, side_by_side

if TYPE_CHECKING:
    from collections.abc import Callable

    import napari.layers
    import napari.viewer

    from napari_tiled_unet.model_files import ModelEntry


class Choices:
    """The rows of the form, and what they say.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
        Whose layers are offered.
    on_change : callable
        Called without arguments when the user changed a row, after the state was computed.

    Attributes
    ----------
    widget : Container
        The rows.
    state : FormState
        What they show.
    """

    def __init__(self, viewer: napari.viewer.Viewer, on_change: Callable[[], None]) -> None:
        self.state = FormState()
        self._viewer, self._on_change = viewer, on_change
        self._models: dict[str, ModelEntry] = {}
        self._said: dict[Any, dict[str, Any]] = {}  # axes, channel and level that the user chose, by layer
        self._build()
        self.show_values(read_preferences().rows)
        self._listen()

    def _build(self) -> None:
        self._image = DropDown(name="layer", label="image", tooltip="the Image layer to segment")
        self._rows: dict[str, Any] = {row.name: row_widget(row) for row in option_rows()}
        self._reread = push_button("", name="reread", tooltip="look for models again", icon="again")
        self._reread.native.setFixedWidth(30)
        common = [self._rows[row.name] for row in option_rows() if not row.advanced and row.name != "model"]
        advanced = [self._rows[row.name] for row in option_rows() if row.advanced]
        self._fold = folding(advanced, title="Advanced")
        model = side_by_side(self._rows["model"], self._reread, label="model", name="model_and_reread")
        self._run_on = DropDown(name="run_on", label="run on", tooltip="which part of the image is segmented")
        place = next(i for i, widget in enumerate(common) if widget.name == "region")
        common.insert(place, self._run_on)
        self.widget: Container[Widget] = Container(widgets=[self._image, model, *common, self._fold, *advanced])
        self.widget.margins = (0, 0, 0, 0)

    def _listen(self) -> None:
        self._image.changed.connect(self._changed)
        self._rows["axes"].changed.connect(self._say_axes)
        self._rows["channel"].changed.connect(self._say_channel)
        self._rows["level"].changed.connect(self._say_level)
        for widget in (self._run_on, *self._rows.values()):
            widget.changed.connect(self._changed)
        self._reread.changed.connect(self._read_again)

    def _changed(self) -> None:
        self.refresh()
        self._on_change()

    def _read_again(self) -> None:
        self.read_models()
        self._on_change()

    # --- what is chosen ---------------------------------------------------------------

    @property
    def layer(self) -> napari.layers.Image | None:
        """The image layer that is chosen."""
        return self._image.value

    @layer.setter
    def layer(self, layer: napari.layers.Image) -> None:
        self._image.value = layer

    @property
    def drawn(self) -> napari.layers.Shapes | None:
        """The Shapes layer whose extent is chosen."""
        return self._run_on.value if is_shapes_layer(self._run_on.value) else None

    @property
    def follows_camera(self) -> bool:
        """Whether the part that is chosen moves with the viewer."""
        return self._run_on.value in (VIEW, FRAME)

    @property
    def problem(self) -> str | None:
        """Why nothing can be run, one sentence; None when it can."""
        if self.state.problem is not None:
            return self.state.problem
        try:
            self.options()
        except TiledUnetError as error:
            return str(error)
        return None

    def control(self, name: str) -> Any:
        """Return a control: the row of an option, or layer, run_on, reread, advanced."""
        others = {w.name: w for w in (self._image, self._run_on, self._reread, self._fold)}
        return self._rows[name] if name in self._rows else others[name]

    def options(self) -> SegmentOptions:
        """Return the options that the rows say.

        Raises
        ------
        OptionsError
            If a row holds a value that breaks its rule, or nothing would be segmented.
        ImageError
            If the layer has other axes than it had.
        """
        values = {name: self._rows[name].value for name in self._rows if name not in self.state.idle}
        values |= {"axes": self.state.axes_taken, "channel": self.state.channel_taken}
        values |= {"level": self._level(), "region": self._region()}
        return options_from_rows(values)

    def _region(self) -> str | None:
        entry, layer, axes = self._entry(), self.layer, self.state.axes_taken
        if layer is None or axes is None or entry is None:
            return None
        typed = self._rows["region"].value
        return region_text(self._run_on.value, layer, axes, self._viewer, entry.spec.axes, typed, self._level())

    def _level(self) -> int:
        """Return the resolution that is chosen; the full one where there is no such choice any more."""
        if self.layer is None:
            return 0
        said: int = self._said.get(self.layer.unique_id, {}).get("level", 0)
        return said if said < len(facts_of(self.layer).levels) else 0

    def _entry(self) -> ModelEntry | None:
        return self._models.get(self._rows["model"].value)

    # --- filled from outside ----------------------------------------------------------

    def take(self, options: SegmentOptions) -> None:
        """Fill the rows with options, for example those of a recipe.

        Raises
        ------
        OptionsError
            If their model is not installed, or the image has no such level.
        """
        if options.model not in self._models:
            raise OptionsError(
                f"the recipe is for model {options.model!r}, which is not installed; "
                f"choose another or install it; there are {', '.join(self._models)}"
            )
        count = len(facts_of(self.layer).levels) if self.layer is not None else 1
        if options.level >= count:
            raise OptionsError(
                f"the recipe is for level {options.level} of a multiscale image, {self.layer} has {count}; "
                "choose another image, or take level out of the recipe"
            )
        self.show_values(rows_of(options) | {"model": options.model, "region": options.region or ""})
        self._say(axes=options.axes, channel=options.channel, level=options.level)
        self.offer_layers()
        with self._run_on.changed.blocked():
            self._run_on.value = RANGE if options.region else WHOLE
        self._changed()

    def show_values(self, values: dict[str, Any]) -> None:
        """Put values into rows, silently."""
        for name, value in values.items():
            with self._rows[name].changed.blocked():
                self._rows[name].value = value

    def read_models(self) -> None:
        """Look for models again and offer them."""
        use_model_folder(read_preferences())
        self._models = {entry.name: entry for entry in list_models()}
        row, default = self._rows["model"], SegmentOptions.model_fields["model"].default
        chosen = next((name for name in (row.value, default, *self._models) if name in self._models), None)
        row.offer([(f"{name} ({len(entry.spec.axes)}D)", name) for name, entry in self._models.items()], chosen)
        self.refresh()

    def offer_layers(self) -> None:
        """Offer the layers that the viewer has now."""
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

    def _say_level(self, level: Any) -> None:
        self._say(level=0 if level == UNSAID else level)

    def _say(self, **said: Any) -> None:
        if self.layer is not None:
            self._said.setdefault(self.layer.unique_id, {}).update(said)

    # --- state, computed and applied --------------------------------------------------

    def refresh(self) -> None:
        """Compute the state anew and show it."""
        entry, layer = self._entry(), self.layer
        said = self._said.get(layer.unique_id, {}) if layer is not None else {}
        facts = facts_of(layer, self._level()) if layer is not None else None
        self.state = form_state(
            facts,
            entry.spec if entry is not None else None,
            chosen_axes=said.get("axes"),
            chosen_channel=said.get("channel"),
        )
        unfit = {name: misfit(facts, other.spec) for name, other in self._models.items()}
        self._rows["model"].grey({name: reason for name, reason in unfit.items() if reason is not None})
        if entry is not None:
            self._rows["model"].tooltip = "\n".join(_card(entry))
        self._apply(self.state)

    def _apply(self, state: FormState) -> None:
        taken = UNSAID if state.axes_taken is None else state.axes_taken
        self._rows["axes"].offer(state.axes, taken)
        channel = self._rows["channel"]
        channel.offer(state.channels, UNSAID if state.channel_taken is None else state.channel_taken)
        channel.visible = bool(state.channels)
        self._rows["level"].offer(state.levels, self._level() if state.levels else UNSAID)
        self._rows["level"].visible = bool(state.levels)
        self._rows["region"].visible = self._run_on.value == RANGE
        for row in option_rows():
            widget, idle = self._rows[row.name], state.idle.get(row.name)
            show_meaning(widget, state.placeholders.get(row.name, ""))
            widget.enabled = idle is None
            if row.name != "model":
                widget.tooltip = f"{row.tooltip} ({idle})" if idle else row.tooltip


def offer_new_models(viewer: napari.viewer.Viewer) -> None:
    """Let every widget of ours in a viewer that offers models offer those that there are now."""
    # Here and not above: some of these modules import this one.
    from napari_tiled_unet.viewer.batch_widget import BatchWidget
    from napari_tiled_unet.viewer.inside_widget import InsideWidget
    from napari_tiled_unet.viewer.segment_widget import SegmentWidget
    from napari_tiled_unet.viewer.train_widget import TrainWidget

    for widget in viewer.window.dock_widgets.values():
        if isinstance(widget, SegmentWidget | TrainWidget | InsideWidget | BatchWidget):
            widget.read_models()


def _card(entry: ModelEntry) -> list[str]:
    try:
        return card_lines(entry.spec, entry.path)
    except OSError:
        # This is asked at every change of the layers, between which a file may go.
        return [*card_lines(entry.spec), f"  its file {entry.path} is not there any more: look for models again"]
