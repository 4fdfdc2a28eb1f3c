"""A network that is given an image in strips and keeps what the next one looks back to.

Tiles overlap, and what lies in their overlaps is computed again by each. A strip continues the one
before: every level of the network keeps the last of its rows, as many as what is made of them still
looks back to, and goes on as far as its sources have got. Rows of the maps are given as soon as all
that they depend on is there::

    image     ----------------->|          given so far
    level 0   --------------->|
    level 1   ------------->|              each lags behind what it is made of
    node 0    ------>|                     so far the maps are certain
             kept:   [ rows ]              hardly any is computed twice, none is left out

The numbers are those of the whole image, in memory that grows with a row and not with the image.
(Fused-layer evaluation, as M. Alwani et al., "Fused-Layer CNN Accelerators", MICRO 2016, did for the
layers of a classifier, with skips as sources that are kept for longer.)
"""

from __future__ import annotations

import bisect
import copy
import itertools
import math
import weakref
from collections import deque
from typing import Any

import torch
from torch import Tensor

from napari_tiled_unet.backends.bands import BandedDecoder, compute_in_bands, has_gates, row_count
from napari_tiled_unet.backends.fusing import can_fuse, count_as_fused
from napari_tiled_unet.backends.rows import IMAGE, BlockRows, PathRows, Step, part, unit_steps, units_of
from napari_tiled_unet.networks.blocks import ConvUnit, Piece, Span
from napari_tiled_unet.networks.encoders import BlockEncoder
from napari_tiled_unet.networks.footprint import Inference, count_calls, held_bytes
from napari_tiled_unet.networks.wiring import Source
from napari_tiled_unet.networks.zoo import Network

# Multiply-adds in the time that it takes to copy a number.
_COPY_WORK = 80
# A piece is let go when a row in so many is still looked back to.
_WORTH_A_COPY = 4
# So many strips show what any number of them holds and does.
_COUNTED_STRIPS = 4
# What was counted, half a second each time, by what was asked for.
_COUNTED: weakref.WeakKeyDictionary[Network, dict[tuple[object, ...], tuple[float, float]]] = (
    weakref.WeakKeyDictionary()
)


def can_stream(network: Network) -> bool:
    """Return whether a network's maps are made of rows: blocks all the way, no gate, nothing that sees the whole."""
    decoder = network.decoder
    nodes = decoder.needed(decoder.outputs[:1])
    return network.exact_tiling and isinstance(network.encoder, BlockEncoder) and not any(map(has_gates, nodes))


def stream_costs(
    network: Network, dtype: torch.dtype, sides: tuple[int, ...], axis: int, rows: int
) -> tuple[float, float]:
    """Return what strips take: bytes, and multiply-adds per voxel of the image; kept by network.

    Parameters
    ----------
    network : Network
        Not changed.
    dtype : torch.dtype
        Of the features.
    sides : tuple of int
        Of the image, or of a column of it; multiples of the stride.
    axis : int
        That strips follow each other along.
    rows : int
        Of a strip.
    """
    known, asked = _COUNTED.setdefault(network, {}), (dtype, sides, axis, rows)
    if asked not in known:
        known[asked] = _counted_costs(network, dtype, sides, axis, rows)
    return known[asked]


def _counted_costs(
    network: Network, dtype: torch.dtype, sides: tuple[int, ...], axis: int, rows: int
) -> tuple[float, float]:
    streamed = copy.deepcopy(network)
    compute_in_bands(streamed)
    if can_fuse(network.spec.ndim, dtype):
        count_as_fused(streamed, dtype)
    ahead = math.ceil(network.receptive_field[axis] / network.stride[axis]) * network.stride[axis]
    length = sides[axis]
    widest = tuple(min(rows + ahead, length) if a == axis else side for a, side in enumerate(sides))

    def counted(strips: int) -> Inference:
        def run(on_meta: Network, x: Tensor) -> None:
            stream, given = Stream(on_meta, axis, length, rows), 0
            for strip in range(strips):
                more = min(rows + (0 if strip else ahead), length - given)
                given += more
                stream.push(part(x, axis, (0, more - 1)).clone(), length if given == length else given - ahead)

        return count_calls(streamed, widest, run)

    row_voxels = math.prod(sides) // length
    strips = 1 + math.ceil(max(0, length - rows - ahead) / rows)
    most = counted(min(strips, _COUNTED_STRIPS))
    size = held_bytes(most.peak_values, dtype)
    if strips <= _COUNTED_STRIPS:
        return size, most.multiply_adds / (row_voxels * length)
    # All but the first and the last do the same work, and those two together as much as their rows.
    return size, (most.multiply_adds - counted(_COUNTED_STRIPS - 1).multiply_adds) / (row_voxels * rows)


class Stream:
    """A network in the middle of an image.

    Parameters
    ----------
    network : Network
        That computes in bands (:func:`~napari_tiled_unet.backends.bands.compute_in_bands`).
    axis : int
        Spatial axis that strips follow each other along.
    length : int
        Rows of the whole image along it, a multiple of the stride.
    rows : int
        Of a strip; the first may have more.
    """

    def __init__(self, network: Network, axis: int, length: int, rows: int) -> None:
        self._axis, self._length, self._rows_at_once = axis, length, rows
        self._steps = _steps_of(network, axis, rows)
        self._kept = {source: _Kept(axis) for source in (IMAGE, *(step.name for step in self._steps))}

    def push(self, strip: Tensor, stop: int) -> Tensor:
        """Take the next rows of the image and return the next rows of the answer, up to row ``stop``.

        Parameters
        ----------
        strip : torch.Tensor
            ``(1, c, *sides)``.
        stop : int
            At least the receptive field before the end of what was given so far, unless that is all.
        """
        answer, axis = self._steps[-1], self._axis
        # The first strip is long: in parts it takes no more memory than the others.
        for span in _even(0, strip.shape[axis + 2], self._rows_at_once):
            self._kept[IMAGE].append(part(strip, axis, span))
            self._go_on(strip, stop)
        return self._kept[answer.name].take()

    def _go_on(self, strip: Tensor, stop: int) -> None:
        """Compute what can be computed by now, in turns of as many rows as a strip has, and let go of what is done."""
        answer, more = self._steps[-1], True
        while more:
            more = False
            for step in self._steps:
                kept, length = self._kept[step.name], self._length_of(step)
                # What waits at the end of the image is much: at once it would take more memory than all before.
                most = min(stop if step is answer else length, kept.stop + self._turn(step))
                for span in _even(kept.stop, self._reachable(step, most), self._band(step, strip)):
                    kept.append(step.compute(span, self._axis, length, self._rows))
                    more = True
            self._let_go()

    def _turn(self, step: Step) -> int:
        return max(1, self._rows_at_once // step.stride[self._axis])

    def _rows(self, source: Source, span: Span) -> Tensor:
        return self._kept[source].rows(span)

    def _length_of(self, step: Step) -> int:
        return self._length // step.stride[self._axis]

    def _reachable(self, step: Step, most: int) -> int:
        """Return the row up to which a step can be computed from what its sources have by now."""
        length, first = self._length_of(step), self._kept[step.name].stop

        def lacks(row: int) -> bool:
            needs = step.reads((row, row), self._axis, length)
            return any(last >= self._kept[source].stop for source, (_, last) in needs.items())

        return first + bisect.bisect_left(range(first, most), True, key=lacks)

    def _band(self, step: Step, strip: Tensor) -> int:
        """Return the rows of a step that are computed at once."""
        sides = [n // s for n, s in zip(strip.shape[2:], step.stride, strict=True)]
        sides[self._axis] = self._length_of(step)
        return row_count((1, 1, *sides), self._axis)[1] or self._length_of(step)

    def _let_go(self) -> None:
        """Drop the rows that no step looks back to."""
        needed: dict[Source, int] = {}
        for step in self._steps:
            length, row = self._length_of(step), self._kept[step.name].stop
            if row < length:
                for source, (first, _) in step.reads((row, row), self._axis, length).items():
                    needed[source] = min(first, needed.get(source, first))
        for source, kept in self._kept.items():
            if source != self._steps[-1].name:
                kept.drop(needed.get(source, kept.stop))


class _Kept:
    """The rows of a source that are still looked back to, in the pieces in which they came."""

    def __init__(self, axis: int) -> None:
        self._axis = axis
        self._pieces: deque[tuple[int, Tensor]] = deque()
        self.stop = 0

    def append(self, piece: Tensor) -> None:
        """Take the next rows."""
        self._pieces.append((self.stop, piece))
        self.stop += piece.shape[self._axis + 2]

    def rows(self, span: Span) -> Tensor:
        """Return some rows; they are copied only where they came in several pieces."""
        found = []
        for start, piece in self._pieces:
            first, last = max(span[0], start), min(span[1], start + piece.shape[self._axis + 2] - 1)
            if first <= last:
                found.append(part(piece, self._axis, (first, last), start))
        return found[0] if len(found) == 1 else torch.cat(found, dim=self._axis + 2)

    def drop(self, first: int) -> None:
        """Let go of all pieces that end before a row, and of one of which few rows are left, which are copied."""
        along = self._axis + 2
        while self._pieces and self._pieces[0][0] + self._pieces[0][1].shape[along] <= first:
            self._pieces.popleft()
        if self._pieces:
            start, piece = self._pieces[0]
            rows = piece.shape[along]
            if 0 < (start + rows - first) * _WORTH_A_COPY <= rows:
                self._pieces[0] = first, part(piece, self._axis, (first, start + rows - 1), start).clone()

    def take(self) -> Tensor:
        """Return all rows that are kept, and keep none."""
        pieces = [piece for _, piece in self._pieces]
        self._pieces.clear()
        return pieces[0] if len(pieces) == 1 else torch.cat(pieces, dim=self._axis + 2)


def _steps_of(network: Network, axis: int, rows: int) -> list[Step]:
    """Return the levels of the encoder and the nodes that the answer is made of, in their order."""
    encoder, decoder = network.encoder, network.decoder
    assert isinstance(encoder, BlockEncoder)
    assert isinstance(decoder, BandedDecoder)
    strides, steps = encoder.strides, list[Step]()
    for level, banded in enumerate(encoder.blocks):
        block: Any = getattr(banded, "block", banded)
        down: Any = encoder.downs[level - 1] if level else None
        path = PathRows(down, strides[max(0, level - 1)], strides[level])
        source: Source = level - 1 if level else IMAGE
        units = [block]
        if _units_keep_rows(block, axis, rows // strides[level][axis]):
            units = units_of(block)
            if level:
                steps.append(BlockRows(f"down to {level}", source, None, path))
                source, path = f"down to {level}", PathRows(None, strides[level], strides[level])
        names: list[Source] = [f"level {level} unit {i}" for i in range(len(units) - 1)]
        steps.append(BlockRows([*names, level][0], source, units[0], path))
        steps += unit_steps(level, names, units[1:], strides[level]) if names else []
    for node in decoder.needed(decoder.outputs[:1]):
        split = node.block is not None and _units_keep_rows(node.block, axis, rows // strides[node.level][axis])
        steps += decoder.rows_of(node, split=split)
    return steps


def _units_keep_rows(block: Piece, axis: int, rows: int) -> bool:
    """Return whether each unit of a block keeps its rows, of strips of so many.

    Else the block keeps none within it, and repeats what its units look back to, which is less than a copy of all.
    """
    units, beside = units_of(block), 0
    for unit, before in zip(reversed(units[1:]), reversed(units[:-1]), strict=True):
        first, last = unit.sources((0, 0), axis)
        beside += last - first
        if isinstance(before, ConvUnit) and beside * before.voxel_work > _COPY_WORK * (rows + beside):
            return True
    return False


def _even(start: int, stop: int, most: int) -> list[Span]:
    """Return rows from ``start`` up to ``stop`` in equal parts of about ``most`` rows at most."""
    parts = max(1, math.ceil((stop - start) / most))
    cuts = [start + (stop - start) * i // parts for i in range(parts + 1)]
    return [(first, last - 1) for first, last in itertools.pairwise(cuts) if first < last]
