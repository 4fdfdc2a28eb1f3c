"""One training in the viewer, from the click to the model file: progress, curves, a live prediction."""

from __future__ import annotations

import time
from collections.abc import Generator
from typing import TYPE_CHECKING, Any

from napari.utils.notifications import show_warning

from napari_tiled_unet.errors import ImageError, TiledUnetError
from napari_tiled_unet.events import Event, Notice
from napari_tiled_unet.viewer.glimpse import Glimpsed, Sight, with_glimpses
from napari_tiled_unet.viewer.layers import (
    SHOWN,
    data_of,
    image_from_layer,
    labels_axes,
    labels_for_layer,
    labels_placement,
    require_axes,
)
from napari_tiled_unet.viewer.live import put
from napari_tiled_unet.viewer.regions import region_of_view, view_of
from napari_tiled_unet.viewer.running import tell
from napari_tiled_unet.viewer.teaching import cancelled_text, minutes_text, scores_text, stage_text
from napari_tiled_unet.viewer.worker import Errand, Failed, one_core_left

if TYPE_CHECKING:
    from collections.abc import Callable

    import napari.layers
    import napari.viewer

    from napari_tiled_unet.image import Image
    from napari_tiled_unet.training.happenings import Prepared, Trained, Validated
    from napari_tiled_unet.viewer.chart import Chart
    from napari_tiled_unet.viewer.teaching import Lesson

PREVIEW = "training preview"
"""Name of the layer with the live prediction."""
# Seconds between two updates of line and curves.
_SHOW_EVERY = 0.2


def train_events(lesson: Lesson, sight: Sight) -> Generator[Event, None, None]:
    """Yield the events of a training with glimpses of what is looked at.

    Parameters
    ----------
    lesson : Lesson
        What is taught.
    sight : Sight
        What is looked at.
    """
    # Here and not above: the import of torch must not hold up the viewer.
    from napari_tiled_unet.training.loop import run_session
    from napari_tiled_unet.training.preparation import prepare

    with one_core_left():
        session = prepare(
            lesson.images,
            lesson.labels,
            lesson.options,
            out=lesson.out,
            resume=lesson.resume,
            overwrite=lesson.overwrite,
        )
        yield from with_glimpses(run_session(session), session, sight)


class Watch:
    """A layer that is looked at during a training, and the Labels layer with what the network makes of it.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
        Whose camera says which part.
    layer : napari.layers.Image
        What is predicted.
    image : Image
        The same.
    axes : str
        Axes of its data.
    """

    def __init__(self, viewer: napari.viewer.Viewer, layer: napari.layers.Image, image: Image, axes: str) -> None:
        self.sight = Sight()
        self._viewer, self._layer, self._image, self._axes = viewer, layer, image, axes
        self._spatial: str | None = None
        for event in self._moves():
            event.connect(self.look)

    def _moves(self) -> tuple[Any, ...]:
        camera, dims = self._viewer.scene.camera.events, self._viewer.dims.events
        return camera.center, camera.zoom, dims.current_step, dims.ndisplay

    def begin(self, spatial: str) -> None:
        """Say which axes the network has; from now on there is something to see."""
        self._spatial = spatial
        self.look()

    def look(self) -> None:
        """Turn the network to what is on the screen."""
        if self._spatial is None:
            return
        if self._layer not in self._viewer.layers:
            self.sight.look_away()
            return
        try:
            view = view_of(self._viewer)
            region = region_of_view(self._layer, self._axes, view, self._spatial, self._image.level)
        except TiledUnetError:
            self.sight.look_away()
            return
        self.sight.look_at(self._image, region)

    def show(self, seen: Glimpsed) -> None:
        """Show what the network sees."""
        from napari.layers import Labels

        if self._layer not in self._viewer.layers:
            return
        try:
            require_axes(self._layer, self._axes, self._image.level)
        except ImageError:
            # Its data were replaced, and what was seen is not what is shown.
            return
        data = labels_for_layer(seen.labels, seen.axes, labels_axes(self._axes, rgb=bool(self._layer.rgb)))
        placement = labels_placement(self._layer, self._axes, seen.offset, self._image.level)
        layers = self._viewer.layers
        shown = next((layer for layer in layers if layer.metadata.get(SHOWN) == PREVIEW), None)
        if shown is not None and shown.ndim == data.ndim:
            put(shown, data, placement)
            return
        active = layers.selection.active
        if shown is not None:
            layers.remove(shown)
        layers.append(Labels(data, name=PREVIEW, opacity=0.5, metadata={SHOWN: PREVIEW}, **placement))
        if active is not shown:
            # The user may be painting: the brush stays in the layer that it was in.
            layers.selection.active = active

    def close(self) -> None:
        """Follow the camera no more."""
        self._spatial = None
        self.sight.look_away()
        for event in self._moves():
            event.disconnect(self.look)


def watch_layer(
    viewer: napari.viewer.Viewer, layer: napari.layers.Image | None, axes: str | None, level: int = 0
) -> Watch | None:
    """Return the watch over a layer, at a resolution of it; None where it has other axes."""
    if layer is None or axes is None or len(data_of(layer).shape) != len(axes):
        return None
    return Watch(viewer, layer, image_from_layer(layer, axes, level), axes)


class Schooling(Errand):
    """A training under way.

    Parameters
    ----------
    lesson : Lesson
        What is taught.
    chart : Chart
        Shows the curves.
    say : callable
        Shows the line.
    on_end : callable
        Called without arguments when the thread has ended.
    watch : Watch, optional
        What is predicted meanwhile.
    source : callable
        Makes the generator of events that the thread runs.
    hear : callable, optional
        Called with every event that is not a training's.

    Attributes
    ----------
    words : str
        How it ended.
    trained : Trained or None
        Its result, once it ended by itself.
    prepared : Prepared or None
        The plan, once there is one.
    """

    def __init__(
        self,
        lesson: Lesson,
        chart: Chart,
        say: Callable[[str], None],
        *,
        on_end: Callable[[], None],
        watch: Watch | None = None,
        source: Callable[[Lesson, Sight], Generator[Event, None, None]] = train_events,
        hear: Callable[[Event], None] | None = None,
    ) -> None:
        self.lesson, self.words = lesson, ""
        self.trained: Trained | None = None
        self.prepared: Prepared | None = None
        self._abandoned = False
        self._chart, self._say, self._watch = chart, say, watch
        self._best: Validated | None = None
        self._step, self._seconds, self._shown = 0, 0.0, 0.0
        self._notes: list[str] = []
        chart.clear()
        say("looking through images and labels ...")
        sight = watch.sight if watch is not None else Sight()
        self._hear_more = hear
        # Last, for it starts the thread.
        super().__init__(source, lesson, sight, on_event=self._take, on_end=on_end)

    def abandon(self, then: Callable[[], None] | None = None) -> None:
        """End for a widget that goes away: nothing is shown any more.

        Parameters
        ----------
        then : callable, optional
            Called without arguments when the thread has ended.
        """
        self._abandoned = True
        if self._watch is not None:
            self._watch.close()
        super().abandon(then)

    def _wanted(self, event: Event) -> bool:
        if self._abandoned:
            return False
        # Not imported above, for torch comes with it.
        from napari_tiled_unet.training.happenings import Validated

        # A cancelled training keeps its best model, and says which that is.
        return not self.cancelled or isinstance(event, Validated | Failed)

    def _take(self, event: Event) -> None:
        from napari_tiled_unet.training.happenings import Prepared, StepDone, Trained, Validated

        match event:
            case Notice():
                self._note(event)
            case Prepared():
                self._begin(event)
            case StepDone():
                self._count(event)
            case Validated():
                self._chart.curves.score(event.step, event.score)
                self._chart.update()
                if event.is_best:
                    self._best = event
            case Glimpsed():
                if self._watch is not None:
                    self._watch.show(event)
            case Trained():
                self._finish(event)
            case Failed(error):
                self._fail(error)
            case _ if self._hear_more is not None:
                self._hear_more(event)

    def _note(self, notice: Notice) -> None:
        self._notes.append(notice.message)
        if notice.caution:
            show_warning(notice.message)

    def _begin(self, prepared: Prepared) -> None:
        self.prepared = prepared
        if self._watch is not None:
            self._watch.begin(prepared.plan.axes)
        self._say(self.prepared_text())

    def prepared_text(self) -> str:
        """Return what is learned from and what is held out."""
        if self.prepared is None:
            return ""
        return (
            f"{self.prepared.n_training} frames to learn from, {self.prepared.n_validation} held out: "
            f"{self.prepared.split}"
        )

    def _fail(self, error: Exception) -> None:
        self.words = str(error) or type(error).__name__
        tell(error)

    def _count(self, event: Any) -> None:
        self._chart.curves.learn(event.step, event.loss)
        self._step, self._seconds = event.step, event.seconds
        now = time.monotonic()
        if now - self._shown >= _SHOW_EVERY:
            self._shown = now
            self._chart.update()
            self._say(stage_text(event.step, self.lesson.options.steps, event.seconds, self._best))

    def _finish(self, done: Trained) -> None:
        self.trained = done
        name = self.lesson.out.stem if self.lesson.out is not None else "the model"
        told = f"{done.reason}, {done.step} steps in {minutes_text(done.seconds)}"
        scores = f" ({scores_text(done.scores)})" if done.scores else ""
        notes = "".join(f"; {note}" for note in self._notes)
        self.words = f"{name!r} is ready, of step {done.best_step}{scores}: {told}; Segment offers it{notes}"

    def _end(self) -> None:
        if self._abandoned:
            super()._end()
            return
        if self._watch is not None:
            self._watch.close()
        self._chart.update()
        if self.cancelled and not self.words:
            out = self.lesson.out
            saved = out is not None and out.exists()
            self.words = cancelled_text(out.stem if out is not None else "", self._step, self._best, saved=saved)
        super()._end()
