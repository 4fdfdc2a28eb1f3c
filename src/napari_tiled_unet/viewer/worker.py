"""A run of the engine in a thread of its own, heard and stopped from the main thread."""

from __future__ import annotations

import contextlib
import functools
import os
import threading
import time
import traceback
from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from napari.qt.threading import GeneratorWorker, create_worker

from napari_tiled_unet.events import Event, Finished, FrameDone, Planned, TileDone
from napari_tiled_unet.process_setting import ProcessSetting
from napari_tiled_unet.viewer.live import tile_labels
from napari_tiled_unet.viewer.results import paintable

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from napari_tiled_unet.focus import Focus
    from napari_tiled_unet.image import Image
    from napari_tiled_unet.model import Model
    from napari_tiled_unet.options import SegmentOptions

    Room = Callable[[tuple[int, ...]], npt.NDArray[np.float32] | None]


# Seconds between two parts of a tile; of a megapixel full of nuclei there are about five.
_BREATH = 0.005
# Seconds that a run waits at most for a busy window to say what is looked at.
_PATIENCE = 10.0


@dataclass(frozen=True)
class Failed(Event):
    """The run ended with an error."""

    error: Exception


@dataclass(frozen=True)
class Loaded(Event):
    """The model is in memory."""

    model: Model


def segment_events(
    image: Image,
    options: SegmentOptions,
    focus: Focus | None = None,
    room: Room | None = None,
    told: threading.Event | None = None,
) -> Generator[Event, None, None]:
    """Yield the events of a run, tiles as their labels.

    Parameters
    ----------
    image, options : Image, SegmentOptions
        What is segmented, and how.
    focus : Focus, optional
        What comes first.
    room : callable, optional
        Makes the array that takes the maps; they are not kept without.
    told : threading.Event, optional
        Set once the listener of a plan has turned ``focus``; no tile begins before it.
    """
    # Here and not above: the import of torch must not hold up the viewer.
    from napari_tiled_unet.model_files import recent_model
    from napari_tiled_unet.segmentation import iter_segment

    with one_core_left():
        model = recent_model(options.model)
        yield Loaded(model)
        events = iter_segment(image, model, options=options, live=True, focus=focus, keep_maps=room or False)
        with contextlib.closing(_with_labels(events, model, options)) as as_labels:
            for event in as_labels:
                yield event
                if told is not None and isinstance(event, Planned):
                    told.wait(_PATIENCE)


def _with_labels(
    events: Generator[Event, None, None], model: Model, options: SegmentOptions
) -> Generator[Event, None, None]:
    planned: Planned | None = None
    numbered = 0
    with contextlib.closing(events):
        for event in events:
            if isinstance(event, Planned):
                planned = event
            if isinstance(event, TileDone) and event.maps is not None and planned is not None:
                parts, numbered = tile_labels(event, model.spec.target, options, planned, numbered)
                for place, part in enumerate(parts):
                    if place:
                        # Time to draw the one before, and to hear the user.
                        time.sleep(_BREATH)
                    yield part
                yield replace(event, maps=None)
            elif isinstance(event, FrameDone):
                yield replace(event, maps=None)
            elif isinstance(event, Finished):
                yield replace(event, labels=paintable(event.labels))
            else:
                yield event


@functools.cache
def warm_up() -> None:
    """Import and reckon what napari does at the first Labels layer, which would hold up the viewer then."""
    import numpy as np
    from napari.layers import Labels

    Labels(np.zeros((2, 2), np.uint8))
    with contextlib.suppress(ImportError):
        # The outline of its polygon tool has patterns of dashes, which vispy keeps once it has them.
        from vispy.visuals.line.dash_atlas import DashAtlas

        DashAtlas()


def one_core_left() -> ProcessSetting[int]:
    """Let torch take all cores but one, so that the viewer answers during a run; for a ``with`` block."""
    return _threads


def _leave_one_core() -> int:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(max(1, min(before, (os.cpu_count() or 1) - 1)))
    return before


def _set_threads(count: int) -> None:
    import torch

    torch.set_num_threads(count)


_threads = ProcessSetting(_leave_one_core, _set_threads)


class ClosingWorker(GeneratorWorker):  # type: ignore[misc]
    """A worker that closes its generator in its own thread, so that a cancel frees memory at once."""

    def work(self) -> Any:
        """Work as any worker does, and close the generator however that ends."""
        try:
            return super().work()
        finally:
            self._gen.close()


def _with_error(events: Callable[..., Generator[Event, None, None]], *arguments: Any) -> Generator[Event, None, None]:
    """Yield events; an error comes as the last one.

    The worker takes a RuntimeError, which torch raises for almost anything, for its own
    deletion and drops it: errors therefore travel as events.
    """
    try:
        yield from events(*arguments)
    except Exception as error:  # noqa: BLE001  whatever it is, the user must hear of it
        # The frames hold image and maps, which a kept notification would keep as well.
        traceback.clear_frames(error.__traceback__)
        yield Failed(error)


class Errand:
    """A generator of events in a thread of its own, as the main thread sees it.

    Parameters
    ----------
    events : callable
        Makes the generator, in that thread; what it raises is heard as :class:`Failed`.
    *arguments
        What it is called with.
    on_event : callable
        Called with each event, on the main thread, unless the errand was cancelled.
    on_end : callable
        Called once, on the main thread, when the thread has ended, however it ended.
    """

    def __init__(
        self,
        events: Callable[..., Generator[Event, None, None]],
        *arguments: Any,
        on_event: Callable[[Event], None],
        on_end: Callable[[], None],
    ) -> None:
        self.cancelled = False
        self._on_event, self._on_end = on_event, on_end
        self._worker = create_worker(_with_error, events, *arguments, _worker_class=ClosingWorker)
        self._worker.yielded.connect(self._hear)
        self._worker.finished.connect(self._end)
        _under_way.add(self)
        self._worker.start()

    def cancel(self) -> None:
        """End the run within a tile; its events are not heard from now on."""
        self.cancelled = True
        self._worker.quit()

    def abandon(self, then: Callable[[], None] | None = None) -> None:
        """End the run for a listener that goes away: nothing of it is called any more.

        Parameters
        ----------
        then : callable, optional
            Called without arguments when the thread has ended; it may not need the listener.
        """
        self._on_end = then if then is not None else _nothing
        self.cancel()

    def _wanted(self, event: Event) -> bool:  # noqa: ARG002 - others look at it
        # Events that were queued before the cancel still arrive after it.
        return not self.cancelled

    def _hear(self, event: Event) -> None:
        if self._wanted(event):
            self._on_event(event)

    def _end(self) -> None:
        _under_way.discard(self)
        self._on_end()


# Held until they have ended: their widget may be gone before, and Qt keeps none of those it tells.
_under_way: set[Errand] = set()


class Run(Errand):
    """One run of the engine.

    Parameters
    ----------
    image : Image
        What is segmented.
    options : SegmentOptions
        How.
    focus, room : optional
        As for :func:`segment_events`.
    on_event, on_end : callable
        As for :class:`Errand`.
    """

    def __init__(
        self,
        image: Image,
        options: SegmentOptions,
        *,
        focus: Focus | None = None,
        room: Room | None = None,
        on_event: Callable[[Event], None],
        on_end: Callable[[], None],
    ) -> None:
        self._told = threading.Event()
        super().__init__(segment_events, image, options, focus, room, self._told, on_event=on_event, on_end=on_end)

    def cancel(self) -> None:
        """End the run within a tile; its events are not heard from now on."""
        super().cancel()
        self._told.set()

    def _hear(self, event: Event) -> None:
        try:
            super()._hear(event)
        finally:
            if isinstance(event, Planned):
                self._told.set()


def _nothing() -> None:
    """Stand in for a listener that is gone."""


class Latest:
    """Work in a thread where only the newest question matters.

    While one is answered, at most one waits; a newer one takes its place. Answers come on the
    main thread.
    """

    def __init__(self) -> None:
        self._worker: Any = None
        self._waiting: tuple[Callable[[], Any], Callable[[Any], None]] | None = None
        self._answer: Callable[[Any], None] | None = None
        self._closed = False

    @property
    def busy(self) -> bool:
        """Whether an answer is still to come."""
        return self._worker is not None

    def ask(self, work: Callable[[], Any], answer: Callable[[Any], None]) -> None:
        """Do ``work`` in a thread and give what it returns to ``answer``; an exception is given as it is."""
        if self._closed:
            return
        if self._worker is not None:
            self._waiting = work, answer
            return
        # napari keeps every worker until it quits: what this one works on must not stay with it.
        asked, self._answer = [work], answer
        self._worker = create_worker(lambda: _caught(asked.pop()))
        self._worker.returned.connect(self._tell)
        self._worker.finished.connect(self._next)
        self._worker.start()

    def close(self) -> None:
        """Ask nothing more, and hear of nothing any more."""
        self._closed, self._waiting, self._answer = True, None, None

    def _tell(self, result: tuple[Any]) -> None:
        answer, self._answer = self._answer, None
        if not self._closed and answer is not None:
            answer(result[0])

    def _next(self) -> None:
        self._worker = None
        if self._waiting is not None:
            (work, answer), self._waiting = self._waiting, None
            self.ask(work, answer)


def _caught(work: Callable[[], Any]) -> tuple[Any]:
    # In a tuple, since the worker raises an exception that is returned.
    try:
        return (work(),)
    except Exception as error:  # noqa: BLE001  who asked decides what it means
        traceback.clear_frames(error.__traceback__)
        return (error,)
