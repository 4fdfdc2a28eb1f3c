"""One run in the viewer, from the click to its layer: progress, live labels, a clean end."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from magicgui.widgets import ProgressBar
from napari.utils import progress
from napari.utils.notifications import Notification, notification_manager, show_error, show_warning

from napari_tiled_unet.errors import OptionsError, TiledUnetError
from napari_tiled_unet.events import Finished, FrameDone, Notice, Planned, TileDone
from napari_tiled_unet.focus import Focus
from napari_tiled_unet.forecast import learn
from napari_tiled_unet.recipe import pinned, recipe_text, said
from napari_tiled_unet.region import Region
from napari_tiled_unet.viewer.correction import origin_of
from napari_tiled_unet.viewer.form import finished_text, progress_text
from napari_tiled_unet.viewer.hands import claim, is_claimed, release
from napari_tiled_unet.viewer.layers import image_from_layer
from napari_tiled_unet.viewer.live import LiveLabels, TileLabels
from napari_tiled_unet.viewer.regions import region_of_view, view_of
from napari_tiled_unet.viewer.worker import Failed, Loaded, Run

if TYPE_CHECKING:
    from collections.abc import Callable

    import napari.layers
    import napari.viewer

    from napari_tiled_unet.events import Event
    from napari_tiled_unet.image import Image
    from napari_tiled_unet.model import Model, ModelSpec
    from napari_tiled_unet.options import SegmentOptions
    from napari_tiled_unet.viewer.worker import Room

# Seconds between two updates of the progress; more would cost the run and nest event loops.
_SHOW_EVERY = 0.1


@dataclass(frozen=True)
class Order:
    """What is to be run: a layer, what its axes are, and how."""

    layer: napari.layers.Image
    axes: str
    options: SegmentOptions


@dataclass(frozen=True)
class Outcome:
    """A run that ended well."""

    order: Order
    model: Model
    planned: Planned
    finished: Finished
    labels: napari.layers.Labels


class Bar:
    """How far a run is: in the widget, in a line of text, and in napari's activity dock.

    Parameters
    ----------
    say : callable
        Shows the line.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self.widget = ProgressBar(name="bar", label="", tooltip="how many of the tiles are done", visible=False)
        self._say = say
        self._progress: progress | None = None
        self._started = self._shown = 0.0
        self._tiles = 0
        self._telling = False

    def start(self, what: str) -> None:
        """Begin, with a length that is not known yet."""
        self._tiles, self._shown = 0, 0.0
        self.widget.native.setRange(0, 0)
        self.widget.visible = True
        self._say("loading the model ...")
        self._progress = progress(total=None, desc=f"segment {what}")

    # napari's progress runs the event loop whenever it changes: it always comes last, because
    # the next events of the run, even its end, may have been heard when it returns.

    def plan(self, total: int, again: int | None = None) -> None:
        """Say how many tiles there are; of a later plan also how many that were done are computed again."""
        self.widget.native.setRange(0, total)
        if again is None:
            self._started = time.perf_counter()
        else:
            self._tiles -= again
        self._show()
        self._tell(total=total)

    def count(self) -> None:
        """One more tile is done."""
        self._tiles += 1
        now = time.perf_counter()
        if now - self._shown < _SHOW_EVERY and self._tiles < self.widget.native.maximum():
            return
        self._shown = now
        self._show()
        self._tell()

    def _tell(self, total: int | None = None) -> None:
        if self._progress is None or self._telling:
            # Events heard while napari runs the event loop would nest without end.
            return
        self._telling = True
        try:
            if total is not None:
                self._progress.total = total
            if self._tiles != self._progress.n:
                self._progress.update(self._tiles - self._progress.n)
        finally:
            self._telling = False

    def _show(self) -> None:
        self.widget.native.setValue(self._tiles)
        seconds = time.perf_counter() - self._started
        self._say(progress_text(self._tiles, self.widget.native.maximum(), seconds))

    def hide(self) -> None:
        """Take it out of the widget."""
        self.widget.visible = False

    def close(self) -> None:
        """Take it out of the activity dock, which may outlive the widget."""
        shown, self._progress = self._progress, None
        if shown is not None:
            shown.close()


class Running:
    """A run under way.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
        Where the labels are shown, and whose camera says what comes first.
    order : Order
        What is run.
    bar : Bar
        Shows how far it is.
    on_end : callable
        Called without arguments when the thread has ended.
    room : callable, optional
        Makes the array that keeps the maps.

    Attributes
    ----------
    words : str
        How it ended, for the line below the buttons.
    outcome : Outcome or None
        Its result, once it ended well.

    Raises
    ------
    OptionsError
        If another run has the layer in hand.
    ImageError
        If the layer cannot be segmented.
    """

    def __init__(
        self,
        viewer: napari.viewer.Viewer,
        order: Order,
        bar: Bar,
        *,
        on_end: Callable[[], None],
        room: Room | None = None,
    ) -> None:
        if is_claimed(order.layer):
            raise OptionsError(claimed_problem(order.layer))
        # Kept, for the user may change scale and units of the layer during the run.
        self._image = image_from_layer(order.layer, order.axes, order.options.level)
        self.order, self.words = order, ""
        self.outcome: Outcome | None = None
        self._viewer, self._bar, self._on_end = viewer, bar, on_end
        self._notes: list[str] = []
        self._model: Model | None = None
        self._planned: Planned | None = None
        self._planned_at = 0.0
        self._frame, self._tiles_of_frame = -1, 0
        self._live: LiveLabels | None = None
        self._focus = Focus()
        self._offset = dict.fromkeys("tzyx", 0)
        if order.options.region:
            self._offset = dict(zip("tzyx", Region.parse(order.options.region).offset("tzyx"), strict=True))
        order.layer.events.data.connect(self._data_changed)
        for event in self._moves():
            event.connect(self.look)
        claim(order.layer)
        bar.start(order.layer.name)
        self._run = Run(self._image, order.options, focus=self._focus, room=room, on_event=self._hear, on_end=self._end)

    @property
    def cancelled(self) -> bool:
        """Whether it was told to stop."""
        return self._run.cancelled

    @property
    def labels(self) -> napari.layers.Labels | None:
        """The layer in which its labels appear, from its first tile on."""
        return self._live.layer if self._live is not None else None

    def stop(self, words: str) -> None:
        """End within a tile; every layer will be as it was."""
        if not self._run.cancelled:
            self.words = words
            self._run.cancel()

    def follow_layers(self) -> None:
        """End if the image or the labels were removed from the viewer."""
        if self.order.layer not in self._viewer.layers:
            self.stop("stopped: the image layer was removed")
        elif self._live is not None and not self._live.is_there:
            self.stop("stopped: the labels layer was removed")

    def abandon(self) -> None:
        """End for a widget that goes away; nothing is shown any more, and every layer is as it was."""
        self._run.abandon()
        live = self._live
        self._let_go()
        if live is not None:
            # The window may be half gone, and what showed the layer with it.
            with suppress(RuntimeError):
                live.withdraw()

    def look(self) -> None:
        """Turn the run to what is on the screen."""
        if self._planned is None or self.cancelled:
            return
        axes = self._planned.axes
        spatial = axes[-len(self._planned.plan.shape) :]
        try:
            level = self.order.options.level
            region = region_of_view(self.order.layer, self.order.axes, view_of(self._viewer), spatial, level)
        except TiledUnetError:
            self._focus.look_away()
            return
        sizes = dict(zip(axes, self._planned.shape, strict=True))
        ranges = {a: (start, stop) for a, start, stop in region.ranges}
        start, stop = [], []
        for axis in axes:
            low, high = ranges.get(axis, (self._offset[axis], None))
            start.append(low - self._offset[axis])
            stop.append(max(low, high - 1) - self._offset[axis] if high is not None else sizes[axis] - 1)
        self._focus.look_at(start, stop)

    def _moves(self) -> tuple[Any, ...]:
        camera, dims = self._viewer.scene.camera.events, self._viewer.dims.events
        return camera.center, camera.zoom, dims.current_step

    def _data_changed(self) -> None:
        self.stop("stopped: the data of the image layer were replaced")

    def _hear(self, event: Event) -> None:
        match event:
            case Notice(message, caution):
                self._notes.append(message)
                if caution:
                    show_warning(message)
            case Loaded(model):
                self._model = model
            case Planned():
                self._plan(event)
            case TileLabels():
                if self._live is not None:
                    self._live.paint(event)
            case TileDone(frame):
                self._tiles_of_frame = self._tiles_of_frame + 1 if frame == self._frame else 1
                self._frame = frame
                self._bar.count()
            case FrameDone():
                self._tiles_of_frame = 0
            case Finished():
                self._finish(event)
            case Failed(error):
                self.fail(error)

    def _plan(self, planned: Planned) -> None:
        earlier, self._planned = self._planned, planned
        self.look()
        if earlier is not None:
            # Memory ran out: a frame begins anew with smaller tiles, into the same labels.
            again, self._tiles_of_frame = self._tiles_of_frame, 0
            self._bar.plan(planned.n_tiles, again)
            return
        self._planned_at = time.perf_counter()
        self._live = LiveLabels(
            self._viewer.layers,
            self.order.layer,
            self.order.axes,
            planned,
            self._offset,
            level=self.order.options.level,
        )
        self._bar.plan(planned.n_tiles)

    def _finish(self, finished: Finished) -> None:
        assert self._live is not None
        assert self._planned is not None
        assert self._model is not None
        planned = self._planned
        seconds = time.perf_counter() - self._planned_at
        learn(self._model, planned.device, planned.precision, planned.voxels, seconds)
        labels = self._live.finish(finished, written(self.order, self._image, planned, self._model, finished))
        left = [left_text(self._live.left, labels.name)] if self._live.left is not None else []
        self.words = finished_text(finished, [*left, *self._notes])
        self.outcome = Outcome(self.order, self._model, planned, finished, labels)

    def fail(self, error: Exception) -> None:
        """Say what went wrong."""
        self.words = str(error) or type(error).__name__
        tell(error)

    def _end(self) -> None:
        live = self._live
        self._let_go()
        if live is not None and self.outcome is None:
            live.withdraw()
        self._bar.hide()
        self._on_end()

    def _let_go(self) -> None:
        """Free what belongs to a run."""
        self._live = None
        self.order.layer.events.data.disconnect(self._data_changed)
        for event in self._moves():
            event.disconnect(self.look)
        self._bar.close()
        release(self.order.layer)


def claimed_problem(layer: napari.layers.Image) -> str:
    """Return why an image layer cannot be segmented now, one sentence."""
    return f"{layer.name!r} is being segmented by another Segment widget; wait until that run ends, or cancel it"


def left_text(edited: str, name: str) -> str:
    """Return that labels went to a new layer because the user had edited the old one."""
    return f"you edited {edited!r}, which stays as it is; these labels are in {name!r}"


def written(order: Order, image: Image, planned: Planned, model: Model, finished: Finished) -> dict[str, Any]:
    """Return how a run is written down in its result: as it was asked for, and with all that it chose.

    The size of voxels is named too, since the layer need not agree with the file it came from;
    and what must be known to measure the objects later, or to know model and image again.
    """
    ran = finished.provenance
    # What ran, not what was planned: a backend or a format may have been given up, and where all is empty none ran.
    precision, backend = ran["precision"] or planned.precision, ran["backend"] or order.options.backend
    exact = pinned(order.options, planned.plan, device=planned.device, precision=precision)
    exact = exact.changed(backend=backend)
    if exact.spacing is None:
        exact = exact.changed(spacing=spacing_shown(image, model.spec))
    spatial = "zyx" if order.options.link_slices and "z" in finished.axes else model.spec.axes
    offset = finished.offset or (0,) * len(finished.axes)
    measured: dict[str, Any] = {"image_axes": order.axes, "level": exact.level, "axes": finished.axes}
    measured |= {"offset": list(offset), "spatial": spatial}
    origin = origin_of(model, image, order.options.region)
    return {"recipe": recipe_text(order.options), "exact": said(exact), "measured": measured, "origin": origin}


def spacing_shown(image: Image, spec: ModelSpec) -> tuple[float, ...] | str | None:
    """Return the option by which an image of a layer is segmented as it is shown, whatever its file says."""
    return image.spacing or ("none" if spec.spacing else None)


def tell(error: Exception) -> None:
    """Tell of an error: refusals as their sentence, anything else with its traceback."""
    if isinstance(error, TiledUnetError):
        show_error(str(error))
    else:
        notification_manager.dispatch(Notification.from_exception(error))
