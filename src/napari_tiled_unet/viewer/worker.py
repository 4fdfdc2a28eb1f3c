"""A run of the engine in a thread of its own, heard and stopped from the main thread."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from napari.qt.threading import GeneratorWorker, create_worker

from napari_tiled_unet.events import Event

if TYPE_CHECKING:
    from napari_tiled_unet.image import Image
    from napari_tiled_unet.options import SegmentOptions


@dataclass(frozen=True)
class Failed(Event):
    """The run ended with an error."""

    error: Exception


def segment_events(image: Image, options: SegmentOptions) -> Generator[Event, None, None]:
    """Yield the events of a run; an error comes as the last event.

    The worker takes a RuntimeError, which torch raises for almost anything, for its own
    deletion and drops it: errors therefore travel as events.
    """
    try:
        # Here and not above: the import of torch must not hold up the viewer.
        from napari_tiled_unet.segmentation import iter_segment

        yield from iter_segment(image, options=options)
    except Exception as error:  # noqa: BLE001  whatever it is, the user must hear of it
        # The frames hold image and maps, which a kept notification would keep as well.
        traceback.clear_frames(error.__traceback__)
        yield Failed(error)


class _ClosingWorker(GeneratorWorker):  # type: ignore[misc]
    """A worker that closes its generator in its own thread, so that a cancel frees memory at once."""

    def work(self) -> Any:
        try:
            return super().work()
        finally:
            self._gen.close()


class Run:
    """One run, as the main thread sees it.

    Parameters
    ----------
    image : Image
        What is segmented.
    options : SegmentOptions
        How.
    on_event : callable
        Called with each event, on the main thread, unless the run was cancelled.
    on_end : callable
        Called once, on the main thread, when the thread has ended, however it ended.
    """

    def __init__(
        self,
        image: Image,
        options: SegmentOptions,
        *,
        on_event: Callable[[Event], None],
        on_end: Callable[[], None],
    ) -> None:
        self.cancelled = False
        self._on_event, self._on_end = on_event, on_end
        self._worker = create_worker(segment_events, image, options, _worker_class=_ClosingWorker)
        self._worker.yielded.connect(self._hear)
        self._worker.finished.connect(self._end)
        self._worker.start()

    def cancel(self) -> None:
        """End the run within a tile; its events are not heard from now on."""
        self.cancelled = True
        self._worker.quit()

    def abandon(self) -> None:
        """End the run for a listener that goes away: nothing is called any more."""
        self._on_end = _nothing
        self.cancel()

    def _hear(self, event: Event) -> None:
        # Events that were queued before the cancel still arrive after it.
        if not self.cancelled:
            self._on_event(event)

    def _end(self) -> None:
        self._on_end()


def _nothing() -> None:
    """Stand in for a listener that is gone."""
