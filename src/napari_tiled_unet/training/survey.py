"""What there is to learn in the labels of a frame: how much of what, how large, and where.

Labels are read block by block, so that they may be larger than the memory; what is kept is a
few numbers and some places per label. From here on labels have one meaning, whether they
were given whole or in parts::

    given            sparse=False      sparse=True        from here on
    0                background        not labelled       -1  not labelled, ignored
    1                object/class 1    background          0  background
    2                object/class 2    object/class 1      1  object or class 1
    past the image                                        -2  ignored, and no border of an object
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_tiled_unet.errors import ImageError
from napari_tiled_unet.image import Frame
from napari_tiled_unet.targets import UNLABELLED

Box = tuple[slice, ...]

# Labels are looked through in blocks of at most this many voxels.
_BLOCK = 2**22
# Places that are remembered per label and block; patches are drawn around them.
_PLACES = 24


def meaning(labels: npt.NDArray[Any], *, sparse: bool) -> npt.NDArray[np.int32]:
    """Return labels with the one meaning of the module's table.

    Raises
    ------
    ImageError
        If there are negative labels, or more than int32 can number.
    """
    if labels.size and (labels.dtype.kind == "i" and int(labels.min()) < 0):
        raise ImageError(f"labels go down to {int(labels.min())}; number them from 0")
    if labels.size and int(labels.max()) >= 2**31:
        raise ImageError(f"labels go up to {int(labels.max())}; renumber them below {2**31}")
    numbers = labels.astype(np.int32)
    return numbers - 1 if sparse else numbers


@dataclass
class Survey:
    """What the labels of a frame hold.

    Attributes
    ----------
    shape : tuple of int
        Shape of the frame.
    voxels : dict of int to int
        Number of voxels of each label; not labelled is -1.
    places : dict of int to numpy.ndarray
        ``(n, ndim)`` some voxels of each label above background, and of the background.
    low, high : dict of int to numpy.ndarray
        First and last voxel of each object's bounding box.
    """

    shape: tuple[int, ...]
    voxels: dict[int, int] = field(default_factory=dict)
    places: dict[int, npt.NDArray[np.int64]] = field(default_factory=dict)
    low: dict[int, npt.NDArray[np.int64]] = field(default_factory=dict)
    high: dict[int, npt.NDArray[np.int64]] = field(default_factory=dict)

    @property
    def objects(self) -> list[int]:
        """Labels above the background, ascending."""
        return sorted(value for value in self.voxels if value > 0)

    @property
    def labelled(self) -> int:
        """Number of voxels that are labelled."""
        return sum(n for value, n in self.voxels.items() if value >= 0)

    def extents(self) -> npt.NDArray[np.float64]:
        """Return the sides of the objects' bounding boxes, ``(n, ndim)``."""
        sides = [self.high[v] - self.low[v] + 1 for v in self.objects]
        return np.array(sides, np.float64).reshape(len(sides), len(self.shape))

    def within(self, box: Box) -> Survey:
        """Return what lies in a box, as far as the remembered places tell."""
        start = np.array([s.start for s in box])
        stop = np.array([s.stop for s in box])
        kept = Survey(tuple(int(n) for n in stop - start))
        for value, places in self.places.items():
            inside = places[((places >= start) & (places < stop)).all(axis=1)]
            if len(inside):
                kept.places[value] = inside
                kept.voxels[value] = max(1, self.voxels[value] * len(inside) // len(places))
                if value in self.low:
                    kept.low[value], kept.high[value] = self.low[value], self.high[value]
        if UNLABELLED in self.voxels:
            kept.voxels[UNLABELLED] = self.voxels[UNLABELLED]
        return kept


def survey(labels: Frame, shape: Sequence[int], *, sparse: bool, seed: int = 0) -> Survey:
    """Look through the labels of a frame.

    Parameters
    ----------
    labels : Frame
        One channel of labels as they were given.
    shape : sequence of int
        Spatial shape of the frame.
    sparse : bool
        Whether 0 means not labelled.
    seed : int
        Which places are remembered.

    Raises
    ------
    ImageError
        If labels are negative.
    """
    found = Survey(tuple(int(n) for n in shape))
    rng = np.random.default_rng((seed, *labels.position))
    for box in blocks(found.shape):
        block = meaning(labels.read(box=box)[0], sparse=sparse)
        _add(found, block, np.array([s.start for s in box]), rng)
    return found


def blocks(shape: Sequence[int]) -> Iterator[Box]:
    """Yield boxes of a bounded size that cover a frame."""
    sides = list(shape)
    while int(np.prod(sides)) > _BLOCK:
        # Slabs along the slowest axes first: that is how files lie on the disk.
        axis = next(a for a, n in enumerate(sides) if n > 1)
        sides[axis] = max(1, min(sides[axis] // 2, sides[axis] * _BLOCK // int(np.prod(sides))))
    starts = [range(0, n, side) for n, side in zip(shape, sides, strict=True)]
    for corner in itertools.product(*starts):
        yield tuple(slice(c, min(c + s, n)) for c, s, n in zip(corner, sides, shape, strict=True))


def _add(found: Survey, block: npt.NDArray[np.int32], start: npt.NDArray[Any], rng: np.random.Generator) -> None:
    """Count a block's labels and remember some of their places."""
    flat = block.ravel()
    for value in (UNLABELLED, 0):
        where = np.flatnonzero(flat == value)
        if where.size:
            found.voxels[value] = found.voxels.get(value, 0) + where.size
            if value == 0:
                _remember(found, value, where, block.shape, start, rng)
    where = np.flatnonzero(flat > 0)
    if not where.size:
        return
    order = np.argsort(flat[where], kind="stable")
    where = where[order]
    values, first = np.unique(flat[where], return_index=True)
    for value, part in zip(values.tolist(), np.split(where, first[1:]), strict=True):
        found.voxels[value] = found.voxels.get(value, 0) + part.size
        index = np.stack(np.unravel_index(part, block.shape))
        low, high = index.min(axis=1) + start, index.max(axis=1) + start
        found.low[value] = np.minimum(found.low.get(value, low), low)
        found.high[value] = np.maximum(found.high.get(value, high), high)
        _remember(found, value, part, block.shape, start, rng)


def _remember(
    found: Survey,
    value: int,
    where: npt.NDArray[np.int64],
    shape: tuple[int, ...],
    start: npt.NDArray[Any],
    rng: np.random.Generator,
) -> None:
    some = where[rng.integers(where.size, size=min(_PLACES, where.size))]
    places = np.stack(np.unravel_index(some, shape), axis=1) + start
    before = found.places.get(value)
    found.places[value] = places if before is None else np.concatenate([before, places])
