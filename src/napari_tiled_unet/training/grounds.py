"""Where to learn and where to be examined: the held-out part never meets the training patches.

Of many images whole images are held out. Of few, one image says little about the others, so each
is cut in two along its longest axis, with a gap between; so is a single one. A series or a stack of
slices is cut along the series, slices of a stack over time in time or all at the same depth; of fewer
than five frames all are cut at the same place::

    |<------------- training ------------->| gap |<--- validation --->|
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from napari_tiled_unet.errors import ImageError
from napari_tiled_unet.image import Frame
from napari_tiled_unet.normalise import Normalisation, Statistics, measure
from napari_tiled_unet.training.pairs import Pair
from napari_tiled_unet.training.survey import Box, Survey, blocks, survey

# Of fewer images whole ones are not held out: they would be one, and missing among those learned from.
_FEW_IMAGES = 8
# A series of fewer frames is too short to hold some of them out, with a gap.
_SHORT_SERIES = 5
# Frames of more voxels are measured on part of their blocks.
_MEASURED = 2**25

_NOTHING_TO_FIND = (
    "only one image has labels above the background, and it is learned from, so the scores tell nothing but whether "
    "something is found where nothing is; label a second image"
)


@dataclass(frozen=True)
class Ground:
    """A frame, or a box of it, with its labels.

    Attributes
    ----------
    image, labels : Frame
        Read box by box.
    box : tuple of slice
        The part that may be used; nothing outside is ever read.
    survey : Survey
        What the labels hold there.
    statistics : Statistics
        Intensities of the whole frame.
    """

    image: Frame
    labels: Frame
    box: Box
    survey: Survey
    statistics: Statistics

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the usable part."""
        return tuple(s.stop - s.start for s in self.box)

    @property
    def name(self) -> str:
        """Name of the image, with the frame's position."""
        where = f" {self.image.position}" if self.image.position else ""
        return f"{self.image.image.name}{where}"


@dataclass(frozen=True)
class Split:
    """What is learned from and what is held out.

    Attributes
    ----------
    training, validation : tuple of Ground
        Never a voxel in common, unless ``caution`` says so.
    reason : str
        How it was divided.
    caution : str or None
        What makes the scores less than they seem.
    """

    training: tuple[Ground, ...]
    validation: tuple[Ground, ...]
    reason: str
    caution: str | None = None


def survey_pairs(
    pairs: Sequence[Pair],
    spatial: str,
    normalisation: Normalisation,
    *,
    sparse: bool,
    channels: Sequence[int] | None,
    told: list[str],
) -> list[list[Ground]]:
    """Look through all frames; return those of each pair that can teach something.

    Parameters
    ----------
    pairs : sequence of Pair
        Images and labels.
    spatial : {"yx", "zyx"}
        Axes of a frame.
    normalisation : Normalisation
        What is measured on each frame.
    sparse : bool
        Whether 0 means not labelled.
    channels : sequence of int or None
        Channels that are used.
    told : list of str
        What is left out is added.

    Raises
    ------
    ImageError
        If nothing is left.
    """
    grounds, unlabelled, constant = [], [], []
    for pair in pairs:
        usable = []
        for image, labels in pair.frames(spatial):
            shape = pair.image.frame_shape(spatial)
            found = survey(labels, shape, sparse=sparse)
            # A frame of background alone teaches too; that some frame has more is checked after the split.
            if not found.labelled:
                unlabelled.append(pair.name)
                continue
            statistics = measured(image, shape, normalisation, channels)
            if not any(statistics.scale):
                constant.append(pair.name)
                continue
            usable.append(Ground(image, labels, tuple(slice(0, n) for n in shape), found, statistics))
        if usable:
            grounds.append(usable)
    if constant:
        told.append(f"{len(constant)} constant frames are left out: {', '.join(sorted(set(constant))[:5])}")
    if unlabelled and len(set(unlabelled)) < len(pairs):
        told.append(f"{len(unlabelled)} frames without labels are left out")
    if not grounds:
        if constant:
            raise ImageError(f"every labelled frame is constant ({constant[0]!r}); check that it is the right channel")
        raise ImageError(
            "no voxel is labelled: every label is 0, which is not labelled when sparse; paint background as 1 and "
            "objects or classes from 2"
        )
    return grounds


def measured(
    frame: Frame, shape: tuple[int, ...], normalisation: Normalisation, channels: Sequence[int] | None
) -> Statistics:
    """Measure a frame as :func:`measure` does, a large one on evenly spaced blocks."""
    if int(np.prod(shape)) <= _MEASURED:
        return measure(frame.read(channels), normalisation)[0]
    boxes = list(blocks(shape))
    chosen = boxes[:: max(1, len(boxes) // 8)]
    data: npt.NDArray[np.generic] = np.concatenate(
        [(part := frame.read(channels, box)).reshape(len(part), -1) for box in chosen], axis=1
    )
    return measure(data, normalisation)[0]


def split(grounds: Sequence[Sequence[Ground]], share: float, gap: Sequence[int], seed: int) -> Split:
    """Hold out a share of the images, or of each of a few.

    Parameters
    ----------
    grounds : sequence of sequence of Ground
        The frames of each image.
    share : float
        Part that is held out.
    gap : sequence of int
        Voxels per axis between the parts of an image that is cut.
    seed : int
        Draws the images that are held out.
    """
    if 1 < len(grounds) < _FEW_IMAGES and (parts := _cut_each(grounds, share, gap)) is not None:
        return parts
    if len(grounds) > 1:
        order = np.random.default_rng(seed).permutation(len(grounds)).tolist()
        with_objects = [i for i in order if any(g.survey.objects for g in grounds[i])]
        count = min(len(grounds) - 1, max(1, round(share * len(grounds))))
        # An image without anything to find says little, so it is held out last; but one with objects is learned from.
        first = with_objects[: max(0, min(count, len(with_objects) - 1))]
        held = sorted((first + [i for i in order if i not in with_objects])[:count])
        names = ", ".join(grounds[i][0].image.image.name for i in held[:5])
        return Split(
            tuple(g for i, frames in enumerate(grounds) if i not in held for g in frames),
            tuple(g for i in held for g in grounds[i]),
            f"{count} of {len(grounds)} images are held out, drawn with the seed: {names}",
            None if first else _NOTHING_TO_FIND,
        )
    frames = list(grounds[0])
    if (parts := _cut(frames, share, gap)) is not None:
        return parts
    return Split(
        tuple(frames),
        tuple(frames),
        "the one image is too small, or has too few labels, to hold a part of it out",
        "training and validation are the same voxels, so the scores say nothing about new images; label a second image",
    )


def _cut_each(grounds: Sequence[Sequence[Ground]], share: float, gap: Sequence[int]) -> Split | None:
    """Cut each of a few images; those that cannot be are learned whole, if they are the lesser part."""
    training: list[Ground] = []
    validation: list[Ground] = []
    count = 0
    for frames in grounds:
        parts = _cut(list(frames), share, gap)
        training += frames if parts is None else parts.training
        if parts is not None:
            validation += parts.validation
            count += 1
    if 2 * count <= len(grounds):
        return None
    told = f"a part of {count} of {len(grounds)} images is held out, after a gap: too few to hold out whole ones"
    return Split(tuple(training), tuple(validation), told)


def _cut(frames: list[Ground], share: float, gap: Sequence[int]) -> Split | None:
    """Cut the frames of one image; None if it is too small or has too few labels."""
    series = [sorted({g.image.position[axis] for g in frames}) for axis in range(len(frames[0].image.position))]
    for axis, steps in enumerate(series):
        if len(steps) >= _SHORT_SERIES and (parts := _cut_series(frames, axis, steps, share)) is not None:
            return parts
    return _cut_frames(frames, share, gap)


def _cut_series(frames: list[Ground], axis: int, steps: list[int], share: float) -> Split | None:
    """Cut all frames at one of the ``steps`` along an axis of the series.

    In a stack over time a plane looks the same a moment later, so that a cut in the middle of a stack would
    examine what was learned.
    """
    count = max(1, round(share * len(steps)))
    gap = 1 if len(steps) < 20 else len(steps) // 20
    learned, held = set(steps[: len(steps) - count - gap]), set(steps[len(steps) - count :])
    training = tuple(g for g in frames if g.image.position[axis] in learned)
    validation = tuple(g for g in frames if g.image.position[axis] in held)
    if not (_teaches(training) and _teaches(validation)):
        return None
    image = frames[0].image
    what = "frames" if len(steps) == len(frames) else f"positions along {image.image.frame_axes(image.spatial)[axis]}"
    told = f"the last {count} of {len(steps)} {what} are held out, with {gap} unused before them"
    return Split(training, validation, told)


def _cut_frames(frames: list[Ground], share: float, gap: Sequence[int]) -> Split | None:
    """Cut where the share of the labelled places lies beyond, along the longest axis that allows it.

    All frames are cut there: what is held out of one must not be learned from its neighbour.
    """
    marked = [p for g in frames for v, p in sorted(g.survey.places.items()) if v > 0]
    places = np.concatenate(marked or [np.zeros((0, 2), int)])
    if len(places) < 4:
        return None
    shape, spatial = frames[0].shape, frames[0].image.spatial
    for axis in np.argsort([-n for n in shape], kind="stable").tolist():
        size = shape[axis]
        cut = int(np.clip(np.quantile(places[:, axis], 1 - share), size // 2, size - 8))
        before = cut - int(gap[axis])
        if before < 8 or size - cut < 8:
            continue
        first, last = _parts(frames, axis, 0, before), _parts(frames, axis, cut, size)
        if _teaches(first) and _teaches(last):
            whose = f" of all {len(frames)} frames" if len(frames) > 1 else ""
            told = f"voxels from {cut} on along axis {spatial[axis]}{whose} are held out, after a gap of {gap[axis]}"
            return Split(first, last, told)
    return None


def _parts(frames: list[Ground], axis: int, start: int, stop: int) -> tuple[Ground, ...]:
    """Return the same part of every frame, where something of it is labelled."""
    return tuple(part for g in frames if (part := _part(g, axis, start, stop)).survey.labelled)


def _part(ground: Ground, axis: int, start: int, stop: int) -> Ground:
    box = tuple(slice(start, stop) if a == axis else s for a, s in enumerate(ground.box))
    return replace(ground, box=box, survey=ground.survey.within(box))


def _teaches(grounds: Sequence[Ground]) -> bool:
    return any(g.survey.objects for g in grounds)
