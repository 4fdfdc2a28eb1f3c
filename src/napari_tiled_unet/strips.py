"""A frame in strips: each is read once, and the network keeps what the next one looks back to.

A strip is a tile that reads what no tile before it has read, and writes what is certain by then. One
axis of 40 voxels, strips of 8, a receptive field of 10, a stride of 4, one character per voxel::

    strip 0   rrrrrrrrrrrrrrrrrrrr                      writes 00000000
    strip 1                       rrrrrrrr              writes         11111111
    strip 2                               rrrrrrrr      writes                 22222222
    strip 3                                       rrrr  writes                         3333333333333333

Where a row of the frame is too long for the memory, the frame is cut into columns that overlap as tiles
do, and each is gone through in strips.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from napari_tiled_unet.candidates import Candidate, Costs, axis_sides
from napari_tiled_unet.tiling import Tile, TilePlan, plan_tiles

# Voxels of a strip, the largest that fits is taken: more of them are computed a little faster, and take more memory.
_STRIP_VOXELS = (2**20, 2**19, 2**18)

# Where rows are too long, the next that are tried are at most this part of them.
_NARROWER = 0.8

Count = Callable[[tuple[int, ...], int, int], tuple[float, float]]
"""Bytes, and work per voxel against that of the whole image, of columns in strips of some rows of an axis."""


@dataclass(frozen=True)
class StripPlan(TilePlan):
    """Tiles that follow each other along an axis, column after column; made by :func:`plan_strips`.

    Attributes
    ----------
    axis : int
        That they follow each other along. The order of the tiles is no choice.
    rows : int
        Of a strip; the first has those of the receptive field more, the last fewer.
    tile : tuple of int
        Shape of the largest ``read``, the first of a column.
    """

    axis: int = 0
    rows: int = 1

    @property
    def n_columns(self) -> int:
        """Columns that the frame is cut into; 1 is none."""
        return sum(tile.read[self.axis].start == 0 for tile in self.tiles)

    @property
    def voxels_computed(self) -> int:
        """Voxels of the columns, each once; what a network repeats between its bands is not among them."""
        sides = list(self.tile)
        sides[self.axis] = self.padded[self.axis]
        return self.n_columns * math.prod(sides)

    def output_shape(self, tile: Tile) -> tuple[int, ...]:
        """Return the shape of what the network gives: as many rows as are written."""
        return tuple(
            written.stop - written.start if a == self.axis else read.stop - read.start
            for a, (read, written) in enumerate(zip(tile.read, tile.write, strict=True))
        )


def plan_strips(
    shape: Sequence[int], column: Sequence[int], overlap: Sequence[int], stride: Sequence[int], axis: int, rows: int
) -> StripPlan:
    """Cover a frame with strips.

    Parameters
    ----------
    shape : sequence of int
        Shape of the frame in voxels.
    column : sequence of int
        Sides of a column; along ``axis`` it is as long as the frame.
    overlap : sequence of int
        Receptive field along ``axis``; overlap of the columns along the others.
    stride : sequence of int
        The network's total downsampling.
    axis : int
        That strips follow each other along.
    rows : int
        Of a strip, rounded up to the stride; the first reads the receptive field more.

    Returns
    -------
    StripPlan
        As the module's drawing shows.

    Raises
    ------
    ImageError, OptionsError
        As :func:`napari_tiled_unet.tiling.plan_tiles`.
    """
    sides = tuple(shape[a] if a == axis else side for a, side in enumerate(column))
    columns = plan_tiles(shape, sides, overlap, stride)
    step, length, side = stride[axis], columns.padded[axis], columns.shape[axis]
    ahead, rows = math.ceil(overlap[axis] / step) * step, math.ceil(rows / step) * step
    ends = [*range(min(rows + ahead, length), length, rows), length]
    cuts = [0, *(end - ahead for end in ends[:-1]), side]
    tiles: list[Tile] = []
    for whole in columns:
        for (start, end), (first, stop) in zip(itertools.pairwise([0, *ends]), itertools.pairwise(cuts), strict=True):
            read, crop, write = (
                (*box[:axis], part, *box[axis + 1 :])
                for box, part in (
                    (whole.read, slice(start, end)),
                    (whole.crop, slice(0, stop - first)),
                    (whole.write, slice(first, stop)),
                )
            )
            tiles.append(Tile(len(tiles), read, crop, write))
    tile = tuple(ends[0] if a == axis else t for a, t in enumerate(columns.tile))
    return StripPlan(columns.shape, columns.padded, tile, columns.overlap, columns.stride, tuple(tiles), axis, rows)


def choose_strips(
    shape: tuple[int, ...],
    overlap: tuple[int, ...],
    reach: tuple[int, ...],
    stride: tuple[int, ...],
    costs: Costs,
    count: Count,
) -> tuple[StripPlan, Candidate] | None:
    """Return the strips with the least work that fit where there is a choice; None if none do.

    Parameters
    ----------
    shape : tuple of int
        Spatial shape of the frame.
    overlap : tuple of int
        Of columns, where there must be several.
    reach, stride : tuple of int
        Receptive field and total downsampling of the network.
    costs : Costs
        What may be spent.
    count : callable
        Tells what strips take.
    """
    padded = tuple(math.ceil(n / s) * s for n, s in zip(shape, stride, strict=True))
    too_long = math.inf
    for axis, column in _columns(padded, overlap, stride):
        sides = tuple(side for side, _ in column)
        row_voxels = math.prod(sides) // sides[axis]
        if row_voxels >= too_long:
            continue
        # Counting takes a moment, and mostly the first fits.
        for rows in _strip_rows(row_voxels, padded[axis] - reach[axis], stride[axis]):
            size, work = count(sides, axis, rows)
            if size > costs.comfort:
                too_long = row_voxels * min(_NARROWER, costs.comfort / size)
                continue
            # Where one column covers an axis nothing is missing, and smaller tiles must not miss it either.
            wide = tuple(reach[a] if n == 1 else overlap[a] for a, (_, n) in enumerate(column))
            plan = plan_strips(shape, sides, wide, stride, axis, rows)
            cost = (plan.voxels_computed * work + len(plan) * costs.call_voxels) / math.prod(shape)
            ratio = plan.work_ratio * work
            return plan, Candidate(plan.tile, len(plan), plan.voxels_computed, ratio, int(size), float(cost), fits=True)
    return None


def _columns(
    padded: tuple[int, ...], overlap: tuple[int, ...], stride: tuple[int, ...]
) -> Iterator[tuple[int, tuple[tuple[int, int], ...]]]:
    """Yield axes, and sides and number of columns across them: whole rows first, then columns by their work."""
    axes = range(len(padded))
    # Rows of the first axis lie together in memory; those of others are copied, but may be shorter.
    for axis in sorted(axes, key=lambda a: (a > 0, -padded[a])):
        yield axis, tuple((side, 1) for side in padded)
    longest = max(axes, key=lambda a: (padded[a], -a))
    choices = [
        [(p, 1)] if a == longest else axis_sides(p, o, s)
        for a, (p, o, s) in enumerate(zip(padded, overlap, stride, strict=True))
    ]
    for column in sorted(itertools.product(*choices), key=lambda c: math.prod(side * n for side, n in c)):
        yield longest, column


def _strip_rows(row_voxels: int, most: int, stride: int) -> list[int]:
    """Return the rows of strips to try, the largest first."""
    wanted = [max(1, voxels // row_voxels // stride) * stride for voxels in _STRIP_VOXELS]
    return [rows for rows in dict.fromkeys(wanted) if rows < most]
