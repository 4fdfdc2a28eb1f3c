"""What a network under training makes of the part that is looked at; no Qt."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_tiled_unet.events import Event
from napari_tiled_unet.image import Frame, Image, luminance

if TYPE_CHECKING:
    from napari_tiled_unet.normalise import Statistics
    from napari_tiled_unet.region import Region
    from napari_tiled_unet.training.preparation import Session

# Seconds between two glimpses at least, and how many times longer than a glimpse is trained between them.
_EVERY, _SHARE = 3.0, 4.0
# Voxels that are predicted at most, around the middle of the view.
_MOST = 2**20


@dataclass(frozen=True)
class Glimpsed(Event):
    """The part that is looked at, as the network sees it now.

    Attributes
    ----------
    image : Image
        What was looked at.
    labels : numpy.ndarray
        With the axes ``axes``, one voxel long along those of the frames.
    axes : str
        Axes of the labels.
    offset : dict of str to int
        Where they begin in the image.
    """

    image: Image
    labels: npt.NDArray[Any]
    axes: str
    offset: dict[str, int]


@dataclass
class Sight:
    """What is looked at; written by the main thread, read by the training's.

    Attributes
    ----------
    asked : tuple of (Image, Region) or None
        Both at once, so that they always belong together.
    """

    asked: tuple[Image, Region] | None = None
    _known: dict[tuple[int, tuple[int, ...]], tuple[Image, Statistics]] = field(default_factory=dict)

    def look_at(self, image: Image, region: Region) -> None:
        """Look at a part of an image."""
        self.asked = image, region

    def look_away(self) -> None:
        """Look at nothing."""
        self.asked = None

    def statistics(self, given: Image, frame: Frame, shape: tuple[int, ...], session: Session) -> Statistics:
        """Return the intensities of a frame of a given image, measured once."""
        from napari_tiled_unet.training.grounds import measured

        key = id(given), frame.position
        if key not in self._known:
            found = measured(frame, shape, session.plan.normalisation, session.examiner.channels)
            self._known[key] = given, found  # the image too, or its id could be another's
        return self._known[key][1]


def with_glimpses(
    events: Generator[Event, None, None], session: Session, sight: Sight, every: float = _EVERY
) -> Generator[Event, None, None]:
    """Yield the events of a training, and every few seconds a glimpse.

    Parameters
    ----------
    events : generator of Event
        From the training of the session; closed with this one.
    session : Session
        Whose network is asked.
    sight : Sight
        What is looked at.
    every : float
        Seconds between two glimpses, at least.
    """
    from napari_tiled_unet.training.happenings import StepDone

    due = time.monotonic()
    with contextlib.closing(events):
        for event in events:
            yield event
            if isinstance(event, StepDone) and time.monotonic() >= due:
                started = time.monotonic()
                seen = glimpse(session, sight)
                if seen is not None:
                    yield seen
                due = time.monotonic() + max(every, _SHARE * (time.monotonic() - started))


def glimpse(session: Session, sight: Sight) -> Glimpsed | None:
    """Predict what is looked at; None where nothing is, or the network does not suit it."""
    from napari_tiled_unet.runtime import Runner
    from napari_tiled_unet.training.grounds import Ground
    from napari_tiled_unet.training.survey import Survey

    asked, plan, examiner = sight.asked, session.plan, session.examiner
    if asked is None or not set(plan.axes) <= set(asked[0].axes):
        return None
    image = _in_channels(asked[0], session)
    if image is None:
        return None
    slices = dict(zip(image.axes, asked[1].slices(image.axes, image.shape, image.name), strict=True))
    counted = image.frame_axes(plan.axes)
    position = tuple(slices[a].start for a in counted)
    frame, shape = Frame(image, plan.axes, 0, position), image.frame_shape(plan.axes)
    box = around_middle([slices[a] for a in plan.axes], _MOST)
    statistics = sight.statistics(asked[0], frame, shape, session)
    ground = Ground(frame, frame, box, Survey(shape), statistics)
    network = session.state.averaged
    runner = Runner(network, plan.target.activate, session.device, session.dtype)
    labels = examiner.labels(runner, network, ground)
    offset = dict(zip(counted + plan.axes, (*position, *(s.start for s in box)), strict=True))
    return Glimpsed(asked[0], labels.reshape((1,) * len(counted) + labels.shape), counted + plan.axes, offset)


def _in_channels(image: Image, session: Session) -> Image | None:
    """Return the image with the channels of the network, grey where it learns from grey."""
    channels, wanted = session.examiner.channels, session.plan.network.in_channels
    if channels is not None:
        return image if max(channels) < image.n_channels else None
    if image.n_channels == wanted:
        return image
    return luminance(image) if wanted == 1 and image.is_rgb else None


def around_middle(box: Sequence[slice], most: int) -> tuple[slice, ...]:
    """Return the middle of a box, of at most so many voxels; the longest sides are cut first."""
    sizes = [s.stop - s.start for s in box]
    while np.prod(sizes, dtype=float) > most and max(sizes) > 1:
        longest = int(np.argmax(sizes))
        sizes[longest] = max(1, sizes[longest] * 7 // 8)
    starts = [s.start + (s.stop - s.start - n) // 2 for s, n in zip(box, sizes, strict=True)]
    return tuple(slice(a, a + n) for a, n in zip(starts, sizes, strict=True))
