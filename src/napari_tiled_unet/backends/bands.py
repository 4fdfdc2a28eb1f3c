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

from napari_tiled_unet.networks.blocks import Piece, Span
from napari_tiled_unet.networks.encoders import BlockEncoder
from napari_tiled_unet.networks.footprint import count_inference, held_bytes
from napari_tiled_unet.networks.spec import PerAxis
from napari_tiled_unet.networks.wiring import Decoder, Node, Source, Wire
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
    network.decoder = _BandedDecoder(network.decoder, network.encoder.strides, {} if head is None else {last: head})
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
        self.block = block

    def forward(self, x: Tensor) -> Tensor:
        axis, rows = _bands(x.shape)
        if not rows:
            return self.block(x)  # type: ignore[no-any-return]
        length = x.shape[axis + 2]

        def band(span: Span) -> Tensor:
            read = _clipped(self.block.sources(span, axis), length)
            return _part(self.block(_part(x, axis, read)), axis, span, read[0])

        return _assembled(length, axis, rows, band)


class _BandedDecoder(Decoder):
    """A decoder whose nodes are computed in bands; a head is applied to each band of its node."""

    def __init__(self, decoder: Decoder, strides: tuple[PerAxis, ...], heads: dict[str, nn.Module]) -> None:
        super().__init__(list(decoder.nodes.values()), decoder.outputs, scores=decoder.scores)
        self._strides = strides
        self.heads = nn.ModuleDict(heads)

    def _join(self, node: Node, values: dict[Source, Tensor], seen: dict[str, Tensor] | None) -> Tensor:
        head = self.heads[node.name] if node.name in self.heads else nn.Identity()
        source = values[node.wires[0].source]
        there, here = self._strides[self.level_of(node.wires[0].source)], self._strides[node.level]
        sides = [n * t // h for n, t, h in zip(source.shape[2:], there, here, strict=True)]
        axis, rows = _bands((len(source), node.channels, *sides))
        # A gate is steered by what lies at another resolution.
        if not rows or any(wire.gate is not None for wire in node.wires):
            return head(super()._join(node, values, seen))  # type: ignore[no-any-return]

        def band(span: Span) -> Tensor:
            joined = span if node.block is None else _clipped(node.block.sources(span, axis), sides[axis])
            brought = [self._brought_part(node, wire, values[wire.source], axis, joined) for wire in node.wires]
            x = torch.cat(brought, dim=1) if node.join == "concatenate" else sum(brought[1:], brought[0])
            return head(_part(x if node.block is None else node.block(x), axis, span, joined[0]))  # type: ignore[no-any-return]

        return _assembled(sides[axis], axis, rows, band)

    def _brought_part(self, node: Node, wire: Wire, whole: Tensor, axis: int, wanted: Span) -> Tensor:
        """Return what a wire brings to some rows of a node, of as few rows of its source as will do."""
        if wire.path is None:
            return _part(whole, axis, wanted)
        there, here = self._strides[self.level_of(wire.source)][axis], self._strides[node.level][axis]
        first, last = _clipped(wire.path.sources(wanted, axis), whole.shape[axis + 2])
        down = max(1, here // there)
        # Whole rows of the node, or a path down would start between them.
        read = first // down * down, (last // down + 1) * down - 1
        return _part(wire.path(_part(whole, axis, read)), axis, wanted, read[0] * there // here)


def _bands(shape: tuple[int, ...] | torch.Size) -> tuple[int, int]:
    """Return the axis to cut features of a shape along, and the rows of a band; 0 rows where whole is better."""
    sides = shape[2:]
    axis = max(range(len(sides)), key=lambda a: (sides[a], -a))
    rows = max(_LEAST_ROWS, _BAND_VOXELS * sides[axis] // math.prod(sides))
    return axis, rows if shape[0] == 1 and 2 * rows <= sides[axis] else 0


def _clipped(span: Span, length: int) -> Span:
    return max(span[0], 0), min(span[1], length - 1)


def _part(x: Tensor, axis: int, span: Span, start: int = 0) -> Tensor:
    """Return rows of features whose first row is number ``start``."""
    return x.narrow(axis + 2, span[0] - start, span[1] - span[0] + 1)


def _assembled(length: int, axis: int, rows: int, band: Callable[[Span], Tensor]) -> Tensor:
    """Return the bands of an axis as one, in memory that each is written to as soon as it is there."""
    whole: Tensor | None = None
    for first in range(0, length, rows):
        span = first, min(first + rows, length) - 1
        part = band(span)
        if whole is None:
            shape = list(part.shape)
            shape[axis + 2] = length
            layout = torch.channels_last if part.ndim == 4 else torch.channels_last_3d
            whole = torch.empty(shape, dtype=part.dtype, device=part.device, memory_format=layout)
        _part(whole, axis, span).copy_(part)
    assert whole is not None
    return whole
