"""Any rows of a network's features, from rows of those that they are made of.

A step is an encoder's level or a decoder's node. It says which rows of its sources some rows of it
depend on, and computes these from those, so that nothing has to be whole: bands
(:mod:`~napari_tiled_unet.backends.bands`) take the rows from a tile, strips
(:mod:`~napari_tiled_unet.backends.streaming`) from what an image has given so far.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor, nn

from napari_tiled_unet.networks.blocks import Piece, Span
from napari_tiled_unet.networks.spec import PerAxis
from napari_tiled_unet.networks.wiring import Node, Source, Wire

IMAGE: Source = "image"
"""What the finest level is made of."""

Rows = Callable[[Source, Span], Tensor]
"""Gives rows of a source."""


class Step(Protocol):
    """Features that are computed for some rows at a time.

    Attributes
    ----------
    name : int or str
        A level of the encoder, or a node.
    stride : tuple of int
        Of its features against the image.
    """

    name: Source
    stride: PerAxis

    def reads(self, span: Span, axis: int, length: int) -> dict[Source, Span]:
        """Return the rows of each source that the rows in ``span`` of ``length`` are computed from."""
        ...

    def compute(self, span: Span, axis: int, length: int, rows: Rows) -> Tensor:
        """Return the features of the rows in ``span``."""
        ...


def clipped(span: Span, length: int) -> Span:
    """Return what of a span lies within an axis."""
    return max(span[0], 0), min(span[1], length - 1)


def part(x: Tensor, axis: int, span: Span, start: int = 0) -> Tensor:
    """Return rows of features whose first row is number ``start``."""
    return x.narrow(axis + 2, span[0] - start, span[1] - span[0] + 1)


class PathRows:
    """A path between two resolutions.

    Parameters
    ----------
    path : Piece or None
        None where both are one.
    there, here : tuple of int
        Strides of its source and of what it gives.
    """

    def __init__(self, path: Piece | None, there: PerAxis, here: PerAxis) -> None:
        self.path, self.there, self.here = path, there, here

    def reads(self, wanted: Span, axis: int, length: int) -> Span:
        """Return the rows of the source, for rows of the ``length`` that the path gives."""
        if self.path is None:
            return wanted
        there, here = self.there[axis], self.here[axis]
        first, last = clipped(self.path.sources(wanted, axis), length * here // there)
        down = max(1, here // there)
        # Whole rows of what it gives, or a path down would start between them.
        return first // down * down, (last // down + 1) * down - 1

    def compute(self, wanted: Span, axis: int, read: Span, x: Tensor) -> Tensor:
        """Return the rows that are wanted, from ``x``, the rows of ``read``."""
        if self.path is None:
            return x
        return part(self.path(x), axis, wanted, read[0] * self.there[axis] // self.here[axis])


class LevelRows:
    """A level of an encoder of blocks: the way down from the finer level, and the block."""

    def __init__(self, level: int, block: Piece, down: Piece | None, strides: tuple[PerAxis, ...]) -> None:
        self.name: Source = level
        self.stride = strides[level]
        self._block, self._source = block, IMAGE if down is None else level - 1
        self._path = PathRows(down, strides[max(0, level - 1)], self.stride)

    def reads(self, span: Span, axis: int, length: int) -> dict[Source, Span]:
        """Return the rows of the finer level, or of the image."""
        inner = clipped(self._block.sources(span, axis), length)
        return {self._source: self._path.reads(inner, axis, length)}

    def compute(self, span: Span, axis: int, length: int, rows: Rows) -> Tensor:
        """Return the features of some rows."""
        inner = clipped(self._block.sources(span, axis), length)
        read = self._path.reads(inner, axis, length)
        x = self._path.compute(inner, axis, read, rows(self._source, read))
        return part(self._block(x), axis, span, inner[0])


class NodeRows:
    """A node of a decoder, without gates, and the head if it has one."""

    def __init__(self, node: Node, strides: dict[Source, PerAxis], stride: PerAxis, head: nn.Module) -> None:
        self.name: Source = node.name
        self.stride = stride
        self._node, self._head = node, head
        self._wires: list[tuple[Wire, PathRows]] = [
            (wire, PathRows(wire.path, strides[wire.source], stride)) for wire in node.wires
        ]

    def reads(self, span: Span, axis: int, length: int) -> dict[Source, Span]:
        """Return the rows of each source."""
        joined, needs = self._joined(span, axis, length), {}
        for wire, path in self._wires:
            first, last = path.reads(joined, axis, length)
            known = needs.get(wire.source, (first, last))
            needs[wire.source] = min(first, known[0]), max(last, known[1])
        return needs

    def compute(self, span: Span, axis: int, length: int, rows: Rows) -> Tensor:
        """Return the features of some rows, or what the head makes of them."""
        node, joined = self._node, self._joined(span, axis, length)
        brought = []
        for wire, path in self._wires:
            read = path.reads(joined, axis, length)
            brought.append(path.compute(joined, axis, read, rows(wire.source, read)))
        x = torch.cat(brought, dim=1) if node.join == "concatenate" else sum(brought[1:], brought[0])
        del brought
        return self._head(part(x if node.block is None else node.block(x), axis, span, joined[0]))  # type: ignore[no-any-return]

    def _joined(self, span: Span, axis: int, length: int) -> Span:
        block = self._node.block
        return span if block is None else clipped(block.sources(span, axis), length)
