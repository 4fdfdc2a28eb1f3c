"""The levels of a large tile computed in bands, so that few of its features are whole at any time.

On a large tile the features of the finest levels are hundreds of megabytes each, and giving out so much fresh memory
can take the system half as long as the convolutions take. Here a whole node of the network (what comes up,
the skip beside it, their join, all convolutions and the head) is computed for a band of rows before the next band:
only what a node takes and gives is ever whole. A band reads as far beside itself as the node looks (``sources`` of its
pieces), so the numbers are the same.
"""

from __future__ import annotations

import copy
import math
import weakref
from collections.abc import Callable

import torch
from torch import Tensor, nn

from napari_tiled_unet.backends.columns import channels_last
from napari_tiled_unet.backends.rows import NodeRows, Step, block_rows, clipped, part, unit_steps, units_of
from napari_tiled_unet.networks.blocks import Piece, Span
from napari_tiled_unet.networks.encoders import BlockEncoder
from napari_tiled_unet.networks.footprint import count_inference, held_bytes
from napari_tiled_unet.networks.spec import PerAxis
from napari_tiled_unet.networks.wiring import Decoder, Node, Source
from napari_tiled_unet.networks.zoo import Network

# Voxels of a band: with 32 channels of float32 that is 32 MB.
_BAND_VOXELS = 2**18
# A block of two convolutions reads two rows on either side again, so thin bands would compute much twice.
_LEAST_ROWS = 24
# Numbers that are held in bands, whatever the size of a tile and per voxel of it.
_COUNTED: weakref.WeakKeyDictionary[Network, tuple[float, float]] = weakref.WeakKeyDictionary()


def compute_in_bands(network: Network) -> None:
    """Let a network compute large tiles in bands, in place; same outputs.

    Networks that look at the whole of their input (``exact_tiling`` is False) are left as they are.
    """
    if not network.exact_tiling:
        return
    if isinstance(network.encoder, BlockEncoder):
        blocks = network.encoder.blocks
        for level, block in enumerate(blocks):
            blocks[level] = _BandedBlock(block)  # type: ignore[arg-type]
    last = network.decoder.outputs[0]
    head = None if network.decoder.scores else network.head
    network.decoder = BandedDecoder(network.decoder, network.encoder.strides, {} if head is None else {last: head})
    if head is not None:
        network.head = nn.Identity()


def large_bytes(network: Network, dtype: torch.dtype) -> tuple[float, float]:
    """Return what a large tile takes in bands: bytes whatever its size, and bytes per voxel.

    Counted on two tiles without numbers; kept by network.
    """
    if network not in _COUNTED:
        banded = copy.deepcopy(network)
        compute_in_bands(banded)
        counts = []
        for factor in (8, 32):
            # Not smaller than bands: sides are multiples of the stride around those of so many bands.
            side = (factor * _BAND_VOXELS) ** (1 / network.spec.ndim)
            shape = tuple(math.ceil(side / s) * s for s in network.stride)
            voxels = math.prod(shape)
            counts.append((voxels, count_inference(banded, shape).peak_values * voxels))
        (few, small), (many, large) = counts
        slope = (large - small) / (many - few)
        _COUNTED[network] = small - slope * few, slope
    fixed, slope = _COUNTED[network]
    return held_bytes(fixed, dtype), held_bytes(slope, dtype) + 4.0 * network.spec.out_channels


class _BandedBlock(nn.Module):
    """A block, in bands."""

    def __init__(self, block: Piece) -> None:
        super().__init__()
        self.block: Piece = block

    def forward(self, x: Tensor) -> Tensor:
        axis, rows = row_count(x.shape)
        if not rows:
            return self.block(x)  # type: ignore[no-any-return]
        length = x.shape[axis + 2]

        def band(span: Span) -> Tensor:
            read = clipped(self.block.sources(span, axis), length)
            return block_rows(self.block, part(x, axis, read), span, axis, length)

        return _assembled(length, axis, rows, band)


class BandedDecoder(Decoder):
    """A decoder whose nodes are computed in bands; a head is applied to each band of its node."""

    def __init__(self, decoder: Decoder, strides: tuple[PerAxis, ...], heads: dict[str, nn.Module]) -> None:
        super().__init__(list(decoder.nodes.values()), decoder.outputs, scores=decoder.scores)
        self._strides = strides
        self.heads = nn.ModuleDict(heads)

    def rows_of(self, node: Node, *, split: bool = False) -> list[Step]:
        """Return a node as what gives any of its rows: at once, or ``split`` into the units of its block."""
        stride = self._strides[node.level]
        strides = {wire.source: self._strides[self.level_of(wire.source)] for wire in node.wires}
        head = dict(self.heads.items()).get(node.name)
        units = units_of(node.block) if split and node.block is not None else [node.block]
        if len(units) == 1:
            return [NodeRows(node.name, node, strides, stride, units[0], head)]
        names = [f"{node.name} unit {i}" for i in range(len(units) - 1)]
        first = NodeRows(names[0], node, strides, stride, units[0])
        return [first, *unit_steps(node.name, names, units[1:], stride, head)]

    def _join(self, node: Node, values: dict[Source, Tensor], seen: dict[str, Tensor] | None) -> Tensor:
        source = values[node.wires[0].source]
        there, here = self._strides[self.level_of(node.wires[0].source)], self._strides[node.level]
        sides = [n * t // h for n, t, h in zip(source.shape[2:], there, here, strict=True)]
        axis, rows = row_count((len(source), node.channels, *sides))
        if not rows or has_gates(node):
            head = self.heads[node.name] if node.name in self.heads else nn.Identity()
            return head(super()._join(node, values, seen))  # type: ignore[no-any-return]
        (step,) = self.rows_of(node)

        def band(span: Span) -> Tensor:
            return step.compute(span, axis, sides[axis], lambda name, read: part(values[name], axis, read))

        return _assembled(sides[axis], axis, rows, band)


def has_gates(node: Node) -> bool:
    """Return whether something in a node is steered by what lies at another resolution."""
    return any(wire.gate is not None for wire in node.wires)


def row_count(shape: tuple[int, ...] | torch.Size, axis: int | None = None) -> tuple[int, int]:
    """Return the axis to cut features of a shape along, the longest by default, and the rows of a band.

    0 rows where whole is better.
    """
    sides = shape[2:]
    if axis is None:
        axis = max(range(len(sides)), key=lambda a: (sides[a], -a))
    rows = max(_LEAST_ROWS, _BAND_VOXELS * sides[axis] // math.prod(sides))
    return axis, rows if shape[0] == 1 and 2 * rows <= sides[axis] else 0


def _assembled(length: int, axis: int, rows: int, band: Callable[[Span], Tensor]) -> Tensor:
    """Return the bands of an axis as one, in memory that each is written to as soon as it is there."""
    whole: Tensor | None = None
    for first in range(0, length, rows):
        span = first, min(first + rows, length) - 1
        done = band(span)
        if whole is None:
            shape = list(done.shape)
            shape[axis + 2] = length
            layout = channels_last(done.ndim - 2)
            whole = torch.empty(shape, dtype=done.dtype, device=done.device, memory_format=layout)
        part(whole, axis, span).copy_(done)
    assert whole is not None
    return whole
