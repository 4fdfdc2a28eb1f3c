"""The geometry of tiles: which boxes a network is given, and what is kept of its answers.

Everything is n-D: an axis is an entry of a tuple and no axis is special. One axis of
29 voxels, tiles of 16, an overlap of 3 and a stride of 4, two characters per voxel::

    grid     0       4       8       12      16      20      24      28      32
             |       |       |       |       |       |       |       |       |
    frame    ==========================================================
    padded   ==========================================================~~~~~~

    tile 0   WWWWWWWWWWWWWWWWWWWWWWWWrrrrrrrr
    tile 1                   rrrrrrrrWWWWWWWWWWWWWWWWrrrrrrrr
    tile 2                                   rrrrrrrrWWWWWWWWWWWWWWWWWWrrrrrr
    write    0000000000000000000000001111111111111111222222222222222222

- ``=`` the frame, ``~`` its reflection, added at the far end only, up to a multiple of
  the stride: all that the network would be given if it took the whole frame at once.
- ``r`` and ``W`` together are what a tile reads. All reads have one shape, start on a
  multiple of the stride (so that pooling falls on the same voxels as in the whole frame)
  and stay inside ``padded``; the first starts at 0, the last ends at the end.
- ``W`` is what a tile writes. Neighbours meet halfway between the end of one read and
  the start of the next, so a write lies at least ``overlap`` voxels inside its read,
  except where the read ends at a border of ``padded``: there the whole frame ends too.
- ``crop`` is ``W`` counted from the start of the read: ``out[write] = network(read)[crop]``.

With an overlap of at least the network's receptive field, that assignment gives exactly
what the network gives on the whole frame: no voxel that is kept has seen a false border.

Reads are spread evenly, so what rounding to the stride leaves over becomes extra context
at every seam instead of one tile that repeats most of its neighbour.
"""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_tiled_unet.errors import ImageError, OptionsError

Box = tuple[slice, ...]


@dataclass(frozen=True)
class Tile:
    """One box of a frame that the network is given at once.

    Attributes
    ----------
    index : int
        Place in the plan, counted from 0; the last axis runs fastest.
    read : tuple of slice
        What the network sees, on the grid of the padded frame.
    crop : tuple of slice
        The part of the network's output that ``blend="crop"`` keeps, counted from the
        start of ``read``.
    write : tuple of slice
        Where that part goes, on the grid of the frame. The writes of a plan cover the
        frame without touching a voxel twice.
    """

    index: int
    read: Box
    crop: Box
    write: Box


@dataclass(frozen=True)
class TilePlan:
    """The tiles of one frame; made by :func:`plan_tiles`.

    Every tuple has one entry per spatial axis, in voxels.

    Attributes
    ----------
    shape : tuple of int
        Shape of the frame, channels left out.
    padded : tuple of int
        ``shape`` rounded up to multiples of ``stride``.
    tile : tuple of int
        Shape of every ``read`` box.
    overlap : tuple of int
        Least distance between the sides of ``read`` and ``write``, true borders excepted.
    stride : tuple of int
        The network's total downsampling.
    tiles : tuple of Tile
        The tiles; iterating over the plan gives them too.
    """

    shape: tuple[int, ...]
    padded: tuple[int, ...]
    tile: tuple[int, ...]
    overlap: tuple[int, ...]
    stride: tuple[int, ...]
    tiles: tuple[Tile, ...] = field(repr=False)

    def __len__(self) -> int:
        return len(self.tiles)

    def __iter__(self) -> Iterator[Tile]:
        return iter(self.tiles)

    @cached_property
    def starts(self) -> tuple[tuple[int, ...], ...]:
        """Starts of the reads along each axis, ascending; the tiles are their product."""
        return tuple(tuple(sorted({tile.read[axis].start for tile in self.tiles})) for axis in range(len(self.shape)))

    @property
    def voxels_computed(self) -> int:
        """Voxels that the network computes, overlap and padding included."""
        return len(self.tiles) * math.prod(self.tile)

    def output_shape(self, tile: Tile) -> tuple[int, ...]:  # noqa: ARG002 - all tiles of this plan are alike
        """Return the spatial shape of what the network gives for a tile."""
        return self.tile

    @property
    def work_ratio(self) -> float:
        """Voxels computed per voxel of the frame; 1.0 is no waste."""
        return self.voxels_computed / math.prod(self.shape)


def plan_tiles(shape: Sequence[int], tile: Sequence[int], overlap: Sequence[int], stride: Sequence[int]) -> TilePlan:
    """Cover a frame with tiles.

    Parameters
    ----------
    shape : sequence of int
        Shape of the frame in voxels, channels left out; any number of axes.
    tile : sequence of int
        Wanted shape of what the network sees at once, in voxels. Each side is rounded up
        to the stride and is at most the padded frame.
    overlap : sequence of int
        Voxels, per side, that a tile must see past what it writes; need not be a multiple
        of the stride. Without meaning on an axis that one tile covers.
    stride : sequence of int
        The network's total downsampling; reads start on its multiples.

    Returns
    -------
    TilePlan
        The tiles, as the module's drawing shows.

    Raises
    ------
    ImageError
        If the frame has no axis or no voxel.
    OptionsError
        If the arguments differ in length, a number is out of range, or the overlap leaves
        a tile less than one stride to write.

    Examples
    --------
    >>> plan = plan_tiles(shape=(29,), tile=(16,), overlap=(3,), stride=(4,))
    >>> plan.padded, plan.starts, [tile.write for tile in plan]
    ((32,), ((0, 8, 16),), [(slice(0, 12, None),), (slice(12, 20, None),), (slice(20, 29, None),)])
    """
    shape = _whole_numbers("shape", shape)
    if not shape or min(shape) < 1:
        raise ImageError(f"a frame of shape {shape} has no voxels; give at least one axis and sides of at least 1")
    stride = _checked("stride", stride, len(shape), least=1)
    overlap = _checked("overlap", overlap, len(shape), least=0)
    tile = _checked("tile", tile, len(shape), least=1)
    padded = tuple(_round_up(n, s) for n, s in zip(shape, stride, strict=True))
    sides = tuple(min(_round_up(t, s), p) for t, s, p in zip(tile, stride, padded, strict=True))
    starts = [
        _axis_starts(axis, p, t, o, s)
        for axis, (p, t, o, s) in enumerate(zip(padded, sides, overlap, stride, strict=True))
    ]
    cuts = [_axis_cuts(first, t, n) for first, t, n in zip(starts, sides, shape, strict=True)]
    places = itertools.product(*(range(len(first)) for first in starts))
    tiles = tuple(_tile(index, place, starts, cuts, sides) for index, place in enumerate(places))
    return TilePlan(shape, padded, sides, overlap, stride, tiles)


def read_tile(frame: npt.NDArray[Any], tile: Tile, plan: TilePlan) -> npt.NDArray[Any]:
    """Read what the network sees of a frame, reflected past the frame's far border.

    The same voxels as ``numpy.pad(frame, ..., mode="reflect")`` cut to ``tile.read``, but
    only the tile is touched. The reflection leaves the border voxel out, is repeated where
    the padding is longer than the side, and repeats the one voxel of a side of 1.

    Parameters
    ----------
    frame : array, ``(c, *plan.shape)``
        Raw or normalised intensities of any dtype; anything that can be sliced.
    tile : Tile
        A tile of ``plan``.
    plan : TilePlan
        The plan of this frame.

    Returns
    -------
    numpy.ndarray
        ``(c, *plan.tile)`` of the frame's dtype; a view of the frame where nothing is
        reflected, so not to be written to.

    Raises
    ------
    ImageError
        If the frame does not have the plan's shape.
    """
    if tuple(frame.shape[1:]) != plan.shape:
        raise ImageError(
            f"a frame of shape {tuple(frame.shape)} does not fit a plan for (c, {', '.join(map(str, plan.shape))}); "
            "plan the tiles for this frame"
        )
    box: list[slice] = [slice(None)]
    reflected: dict[int, npt.NDArray[np.intp]] = {}
    for axis, (read, side) in enumerate(zip(tile.read, plan.shape, strict=True), start=1):
        if read.stop <= side:
            box.append(read)
            continue
        source = _reflect(np.arange(read.start, read.stop), side)
        nearest = int(source.min())
        box.append(slice(nearest, int(source.max()) + 1))
        reflected[axis] = source - nearest
    # Slicing first keeps every later copy as small as the tile; asarray also takes lazy arrays.
    voxels: npt.NDArray[Any] = np.asarray(frame[tuple(box)])
    for axis, source in reflected.items():
        voxels = voxels.take(source, axis=axis)
    return voxels


def _axis_starts(axis: int, padded: int, tile: int, overlap: int, stride: int) -> tuple[int, ...]:
    """Return the starts of the reads along one axis: as few as suffice, evenly spread."""
    if tile == padded:
        return (0,)
    step = (tile - 2 * overlap) // stride
    if step < 1:
        raise OptionsError(
            f"overlap {overlap} on both sides leaves {max(tile - 2 * overlap, 0)} of tile {tile} on axis {axis}, "
            f"at least the network's stride of {stride} must be left; take an overlap of at most "
            f"{(tile - stride) // 2} or a tile of at least {_round_up(2 * overlap + stride, stride)}"
        )
    room = (padded - tile) // stride
    gaps = math.ceil(room / step)
    return tuple(room * i // gaps * stride for i in range(gaps + 1))


def _axis_cuts(starts: tuple[int, ...], tile: int, side: int) -> tuple[int, ...]:
    """Return where the writes along one axis begin and end: halfway into what two reads share."""
    inner = ((before + tile + after) // 2 for before, after in itertools.pairwise(starts))
    return (0, *inner, side)


def _tile(
    index: int,
    place: tuple[int, ...],
    starts: Sequence[tuple[int, ...]],
    cuts: Sequence[tuple[int, ...]],
    sides: tuple[int, ...],
) -> Tile:
    read, crop, write = [], [], []
    for i, first, cut, side in zip(place, starts, cuts, sides, strict=True):
        read.append(slice(first[i], first[i] + side))
        write.append(slice(cut[i], cut[i + 1]))
        crop.append(slice(cut[i] - first[i], cut[i + 1] - first[i]))
    return Tile(index, tuple(read), tuple(crop), tuple(write))


def _reflect(positions: npt.NDArray[np.intp], side: int) -> npt.NDArray[np.intp]:
    """Fold positions at or after 0 back into a side, border voxels not doubled."""
    if side == 1:
        return np.zeros_like(positions)
    period = 2 * (side - 1)
    positions = positions % period
    return np.minimum(positions, period - positions)


def _round_up(value: int, step: int) -> int:
    return -(-value // step) * step


def _whole_numbers(name: str, values: Sequence[int]) -> tuple[int, ...]:
    try:
        return tuple(operator.index(value) for value in values)
    except TypeError:
        raise OptionsError(f"{name}={values!r} must be a sequence of whole numbers, one per spatial axis") from None


def _checked(name: str, values: Sequence[int], axes: int, *, least: int) -> tuple[int, ...]:
    numbers = _whole_numbers(name, values)
    if len(numbers) != axes:
        raise OptionsError(f"{name}={numbers} has {len(numbers)} numbers, the frame has {axes} axes; give one per axis")
    if min(numbers) < least:
        raise OptionsError(f"{name}={numbers} has a number below {least}; give whole numbers of at least {least}")
    return numbers
