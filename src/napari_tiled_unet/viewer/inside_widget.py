"""Plugins > Tiled U-Net > Look inside: features, skips and attention of a network over the view."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from magicgui.widgets import Container, Widget

from napari_tiled_unet.errors import TiledUnetError
from napari_tiled_unet.model_files import list_models, recent_model
from napari_tiled_unet.options import SegmentOptions
from napari_tiled_unet.viewer.form import UNSAID, form_state
from napari_tiled_unet.viewer.inside_layers import TITLES, Look, inside_layer, inside_of, look_at
from napari_tiled_unet.viewer.layers import METADATA_KEY, facts_of, is_image_layer
from napari_tiled_unet.viewer.preferences import read_preferences, use_model_folder
from napari_tiled_unet.viewer.regions import view_of
from napari_tiled_unet.viewer.rows import Departure, DropDown, ScrollingRows, push_button, sentence
from napari_tiled_unet.viewer.running import tell
from napari_tiled_unet.viewer.worker import Latest, one_core_left

if TYPE_CHECKING:
    import napari.layers
    import napari.viewer

    from napari_tiled_unet.model_files import ModelEntry
    from napari_tiled_unet.networks.inside import Inside


class InsideWidget(Container[Widget]):
    """Show what a network sees of the current view, level by level.

    Parameters
    ----------
    napari_viewer : napari.viewer.Viewer
        Whose view is looked at and where the maps are shown.
    """

    def __init__(self, napari_viewer: napari.viewer.Viewer) -> None:
        super().__init__(labels=False)
        self._viewer = napari_viewer
        self._models: dict[str, ModelEntry] = {}
        self._said: dict[Any, int] = {}  # channel that the user chose, by layer
        self._latest = Latest()
        self._known = False  # whether the parts are those of the model that is chosen
        self._look: Look | None = None  # under way
        self._image = DropDown(name="layer", label="image", tooltip="the Image layer to look at")
        self._model = DropDown(name="model", label="model", tooltip="the model whose network is looked into")
        self._channel = DropDown(name="channel", label="channel", tooltip="the channel that the network is given")
        self._part = DropDown(
            name="part",
            label="show",
            tooltip="features of the encoder, what its skips bring to the decoder, the weights of "
            "attention gates, or features of the decoder",
        )
        self._level = DropDown(name="level", label="level", tooltip="0 is the finest; each one below sees more around")
        self._show = push_button(
            "Look inside", name="show", tooltip="run the network over the current view", icon="layers"
        )
        self._line = sentence("line", tooltip="what was shown, or why not")
        rows: Container[Widget] = Container(widgets=[self._image, self._model, self._channel, self._part, self._level])
        rows.margins = (0, 0, 0, 0)
        self.extend([self._show, self._line])
        self.native.layout().insertWidget(0, ScrollingRows(rows))
        self.native.setMinimumWidth(240)
        self._image.changed.connect(self._offer_channels)
        self._model.changed.connect(self._offer_channels)
        self._channel.changed.connect(self._say_channel)
        self._model.changed.connect(self._offer_parts)
        self._part.changed.connect(self._offer_levels)
        self._show.changed.connect(self.show_inside)
        for event in self._layer_events():
            event.connect(self.reset_choices)
        self._departure = Departure(self.native, undocked=self._look_away, destroyed=self._leave)
        self._parts: dict[Any, tuple[int, ...]] = {}
        self.reset_choices()
        self.read_models()

    # --- what is chosen ---------------------------------------------------------------

    def control(self, name: str) -> Any:
        """Return a control: layer, model, channel, part, level, show."""
        own = (self._image, self._model, self._channel, self._part, self._level, self._show)
        return {w.name: w for w in own}[name]

    @property
    def busy(self) -> bool:
        """Whether a look is under way."""
        return self._latest.busy

    @property
    def status(self) -> str:
        """What the line below the button says."""
        return str(self._line.value)

    def read_models(self) -> None:
        """Look for models and offer them."""
        use_model_folder(read_preferences())
        before = self._models.get(self._model.value)
        self._models = {entry.name: entry for entry in list_models()}
        default = SegmentOptions.model_fields["model"].default
        chosen = next((name for name in (self._model.value, default, *self._models) if name in self._models), None)
        self._model.offer([(f"{n} ({len(e.spec.axes)}D)", n) for n, e in self._models.items()], chosen)
        self._offer_channels()
        # A network that is known stays as it is, and a look into it goes on.
        if not self._known or self._models.get(self._model.value) != before:
            self._offer_parts()

    def reset_choices(self, *_: Any) -> None:
        """Offer the image layers that the viewer has now, other than those shown from here."""
        layers = [
            layer
            for layer in self._viewer.layers
            if is_image_layer(layer) and "part" not in layer.metadata.get(METADATA_KEY, {})
        ]
        chosen = self._image.value if self._image.value in layers else layers[-1] if layers else None
        self._image.offer([(layer.name, layer) for layer in layers], chosen)
        self._allow()
        self._offer_channels()

    def _allow(self) -> None:
        """Let the button be pressed where there is something to look into, and no look under way."""
        self._show.enabled = self._known and self._look is None and self._image.value is not None

    def _offer_channels(self, *_: Any) -> None:
        """Offer the channels of the image where the model takes one of several."""
        layer, entry = self._image.value, self._models.get(self._model.value)
        if layer is None or entry is None:
            self._channel.visible = False
            return
        state = form_state(facts_of(layer), entry.spec, chosen_channel=self._said.get(layer.unique_id))
        self._channel.offer(state.channels, UNSAID if state.channel_taken is None else state.channel_taken)
        self._channel.visible = bool(state.channels)

    def _say_channel(self, channel: Any) -> None:
        layer = self._image.value
        if layer is None:
            return
        if channel in (None, UNSAID):
            self._said.pop(layer.unique_id, None)
        else:
            self._said[layer.unique_id] = channel
        self._offer_channels()

    def _offer_parts(self, *_: Any) -> None:
        if self._model.value not in self._models:
            return
        # The network is read in a thread: torch would hold up the viewer.
        self._known, self._line.value = False, ""
        self._allow()
        name = self._model.value
        self._latest.ask(partial(_parts_of, name), partial(self._take_parts, name))

    def _take_parts(self, name: str, parts: Any) -> None:
        if name != self._model.value:
            return
        if isinstance(parts, Exception):
            self._line.value = str(parts)
            tell(parts)
            return
        self._known = True
        self._parts = {part: levels for part, levels in parts.items() if levels}
        part = self._part.value if self._part.value in self._parts else "skip" if "skip" in self._parts else "encoder"
        self._part.offer([(TITLES[name], name) for name in self._parts], part)
        self._offer_levels()
        self._allow()

    def _offer_levels(self, *_: Any) -> None:
        levels = self._parts.get(self._part.value, ())
        chosen = self._level.value if self._level.value in levels else levels[0] if levels else None
        self._level.offer([(str(level), level) for level in levels], chosen)

    # --- a look -----------------------------------------------------------------------

    def show_inside(self) -> None:
        """Run the network over the view in a thread, and show the maps when they are there."""
        layer: napari.layers.Image | None = self._image.value
        entry = self._models.get(self._model.value)
        if layer is None or entry is None or self._level.value is None:
            return
        if self._look is not None or not self._known:
            return
        # Axes may have been named since.
        self._offer_channels()
        channel = self._said.get(layer.unique_id)
        try:
            look = look_at(layer, view_of(self._viewer), entry.spec, self._part.value, self._level.value, channel)
        except TiledUnetError as error:
            self._line.value = str(error)
            return
        if isinstance(look, str):
            self._line.value = look
            return
        self._line.value, self._look = "looking ...", look
        self._allow()
        self._latest.ask(lambda: _inside(look, entry.name), lambda inside: self._take(look, inside))

    def _take(self, look: Look, inside: Inside | Exception) -> None:
        if look is not self._look:
            return
        self._look = None
        self._allow()
        if isinstance(inside, Exception):
            self._line.value = str(inside)
            tell(inside)
            return
        if look.layer not in self._viewer.layers:
            self._line.value = f"{look.layer.name!r} was removed"
            return
        made = inside_layer(look, inside)
        for old in [layer for layer in self._viewer.layers if layer.name == made.name and _is_ours(layer)]:
            self._viewer.layers.remove(old)
        self._viewer.add_layer(made)
        shape = " x ".join(map(str, inside.maps.shape[1:]))
        self._line.value = f"{len(inside.maps)} features of {shape}: the slider goes through them"

    # --- its end ----------------------------------------------------------------------

    def _layer_events(self) -> tuple[Any, ...]:
        events = self._viewer.layers.events
        return events.inserted, events.removed, events.renamed

    def _look_away(self) -> None:
        """Show nothing of a look under way when the dock is closed; its thread ends soon."""
        if self._look is not None:
            self._look, self._line.value = None, ""
            self._allow()

    def _leave(self) -> None:
        self._latest.close()
        for event in self._layer_events():
            event.disconnect(self.reset_choices)


def _parts_of(name: str) -> dict[Any, tuple[int, ...]]:
    from napari_tiled_unet.networks.inside import parts_of

    return dict(parts_of(recent_model(name).network))


def _inside(look: Look, model: str) -> Inside:
    with one_core_left():
        return inside_of(look, recent_model(model))


def _is_ours(layer: Any) -> bool:
    return "part" in layer.metadata.get(METADATA_KEY, {})
