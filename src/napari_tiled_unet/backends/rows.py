"""Any rows of a network's features, from rows of those that they are made of.

A step is an encoder's level, a decoder's node, or a unit of one. It says which rows of its sources some rows of it
depend on, and computes these from those, so that nothing has to be whole: bands
(:mod:`~napari_tiled_unet.backends.bands`) take the rows from a tile, strips
(:mod:`~napari_tiled_unet.backends.streaming`) from what an image has given so far.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from torch import Tensor, nn

from napari_tiled_unet.networks.blocks import ConvUnit, Piece, PlainBlock, Span
from napari_tiled_unet.networks.spec import PerAxis
from napari_tiled_unet.networks.wiring import Node, Source, join_wires

IMAGE: Source = "image"
"""What the finest level is made of."""

Rows = Callable[[Source, Span], Tensor]
"""Gives rows of a source."""


class Step(Protocol):
    """Features that are computed for some rows at a time.

    Attributes
    ----------
    name : int or str
        A level of the encoder, a node, or a part of one.
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


def block_rows(block: Piece, x: Any, span: Span, axis: int, length: int) -> Tensor:
    """Return what a block makes of rows: ``x`` are those that the rows in ``span`` of ``length`` depend on.

    They are a tensor, or a tuple of such where the block takes it (``takes_parts``).

    A convolution is not padded where the rows beside it are there, so that nothing is computed that is cut off.
    """
    units = units_of(block)
    needs = [span]
    for unit in reversed(units):
        needs.append(clipped(unit.sources(needs[-1], axis), length))
    start = needs.pop()[0]
    for unit, wanted in zip(units, reversed(needs), strict=True):
        there = unit.sources(wanted, axis)
        if isinstance(unit, ConvUnit) and there == clipped(there, length):
            with _unpadded(unit.conv, axis):
                x = unit(x)
        else:
            x = part(unit(x), axis, wanted, start)
        start = wanted[0]
    return x  # type: ignore[no-any-return]


def units_of(block: Piece) -> list[Piece]:
    """Return what is applied one after the other."""
    return list(block.units) if isinstance(block, PlainBlock) else [block]  # type: ignore[arg-type]


@contextmanager
def _unpadded(conv: Any, axis: int) -> Iterator[None]:
    padding = tuple(conv.padding)
    conv.padding = tuple(0 if a == axis else p for a, p in enumerate(padding))
    try:
        yield
    finally:
        conv.padding = padding


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
        # A path down must not start between the rows that it gives; where it ends it needs no more than it reads.
        return first // down * down, last

    def compute(self, wanted: Span, axis: int, read: Span, x: Tensor) -> Tensor:
        """Return the rows that are wanted, from ``x``, the rows of ``read``."""
        if self.path is None:
            return x
        return part(self.path(x), axis, wanted, read[0] * self.there[axis] // self.here[axis])


class BlockRows:
    """A block, or one of its units, and what leads to it.

    Parameters
    ----------
    name, source : int or str
        Of it, and what it is made of.
    block : Piece or None
        Applied at the end.
    path : PathRows
        From the source.
    head : torch.nn.Module, optional
        Applied to what comes out.
    """

    def __init__(
        self, name: Source, source: Source, block: Piece | None, path: PathRows, head: nn.Module | None = None
    ) -> None:
        self.name, self.stride = name, path.here
        self._source, self._block, self._path, self._head = source, block, path, head

    def reads(self, span: Span, axis: int, length: int) -> dict[Source, Span]:
        """Return the rows of the source."""
        return {self._source: self._path.reads(_inner(self._block, span, axis, length), axis, length)}

    def compute(self, span: Span, axis: int, length: int, rows: Rows) -> Tensor:
        """Return the features of some rows."""
        inner = _inner(self._block, span, axis, length)
        read = self._path.reads(inner, axis, length)
        x = self._path.compute(inner, axis, read, rows(self._source, read))
        if self._block is not None:
            x = block_rows(self._block, x, span, axis, length)
        return x if self._head is None else self._head(x)


def unit_steps(
    name: Source,
    sources: Sequence[Source],
    units: Sequence[Piece | None],
    stride: PerAxis,
    head: nn.Module | None = None,
) -> list[Step]:
    """Return units that follow each other as steps: each of one source, the last with the name of the whole."""
    names = [*sources[1:], name]
    heads = [*(None for _ in names[1:]), head]
    straight = PathRows(None, stride, stride)
    return [
        BlockRows(its_name, source, unit, straight, its_head)
        for its_name, source, unit, its_head in zip(names, sources, units, heads, strict=True)
        if unit is not None
    ]


class NodeRows:
    """The wires of a node of a decoder, without gates, joined; then its block, and the head if it has one.

    Parameters
    ----------
    name : str
        Of what it gives.
    node : Node
        The node.
    strides : dict
        Of the sources of its wires.
    stride : tuple of int
        Of the node.
    block : Piece or None
        The node's, or the first of its units.
    head : torch.nn.Module, optional
        Applied to what comes out.
    """

    def __init__(
        self,
        name: Source,
        node: Node,
        strides: dict[Source, PerAxis],
        stride: PerAxis,
        block: Piece | None,
        head: nn.Module | None = None,
    ) -> None:
        self.name, self.stride = name, stride
        self._join, self._block, self._head = node.join, block, head
        self._wires = [(wire.source, PathRows(wire.path, strides[wire.source], stride)) for wire in node.wires]

    def reads(self, span: Span, axis: int, length: int) -> dict[Source, Span]:
        """Return the rows of each source."""
        joined = _inner(self._block, span, axis, length)
        needs: dict[Source, Span] = {}
        for source, path in self._wires:
            first, last = path.reads(joined, axis, length)
            known = needs.get(source, (first, last))
            needs[source] = min(first, known[0]), max(last, known[1])
        return needs

    def compute(self, span: Span, axis: int, length: int, rows: Rows) -> Tensor:
        """Return the features of some rows, or what the head makes of them."""
        joined = _inner(self._block, span, axis, length)
        brought = []
        for source, path in self._wires:
            read = path.reads(joined, axis, length)
            brought.append(path.compute(joined, axis, read, rows(source, read)))
        x: Any = join_wires(brought, self._join, self._block)
        del brought
        if self._block is not None:
            x = block_rows(self._block, x, span, axis, length)
        return x if self._head is None else self._head(x)  # type: ignore[no-any-return]


def _inner(block: Piece | None, span: Span, axis: int, length: int) -> Span:
    """Return the rows that a block, if there is one, computes some rows from."""
    return span if block is None else clipped(block.sources(span, axis), length)
