"""Shapes of tiles and what they cost: every combination of sides, tried at once.

The cost of a plan is what the network computes, overlap and padding to the stride included,
plus a constant for every call of the network::

    cost = tiles x voxels of a tile  +  calls x voxels that the time of a call would pay for

in voxels computed, so that 1.0 per voxel of the frame is no waste. Measured on the CPU, the
time per voxel does not depend on the size of the tile beyond that constant; what is in memory
does. Shapes are free on every axis: a stack that is flat in z gets flat tiles.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt

from napari_tiled_unet.errors import MemoryBudgetError
from napari_tiled_unet.tiling import TilePlan

if TYPE_CHECKING:
    from napari_tiled_unet.networks.footprint import Footprint

_GIB = 2**30
# A tile of more voxels is not computed faster, and makes progress, cancel and live labels coarse.
_LARGEST_TILE = 2**22
# On the CPU, tiles take at most this much where there is a choice: other programs need memory too.
_COMFORT = 0.75 * _GIB
# ... but for tiles with so many times the cost of larger ones: in 3D smaller tiles can be half overlap.
_WORTH_MORE = 1.25
# Even then nobody waits for a tile of more voxels.
_UTMOST_TILE = 2**24
# Multiply-adds that the time of one call of a tensor operation would pay for. 50 operations
# took 1.8 ms beyond the work of a 32 x 32 tile, at 0.7 microseconds per voxel of 86,000.
_CALL_WORK = 4.5e6
# Voxels of a batch of small tiles: enough to make the cost of a call small.
_BATCH_VOXELS = {"cpu": 2**14}
_BATCH_VOXELS_ELSEWHERE = 2**21


Voxels = TypeVar("Voxels", float, "npt.NDArray[np.float64]")


@dataclass(frozen=True)
class Large:
    """Bytes of a large tile: some whatever its size, and some per voxel."""

    fixed_bytes: float
    voxel_bytes: float


@dataclass(frozen=True)
class Costs:
    """What a tile costs.

    Attributes
    ----------
    voxel_bytes : float
        Bytes that the network needs per voxel of a tile.
    large : Large, optional
        Bytes that large tiles need, where the backend holds less of them at a time.
    budget : int
        Bytes that the tiles in work may take.
    call_voxels : float
        Voxels that could be computed in the time that a call of the network takes by itself.
    device : str
        Kind of device; the CPU shares its memory with everything else.
    largest_tile : int
        Voxels; larger tiles are not taken unless they are worth it.
    views : int
        How many times the network sees each tile, one after the other.
    """

    voxel_bytes: float
    budget: int
    call_voxels: float = 2500.0
    device: str = "cpu"
    largest_tile: int = _LARGEST_TILE
    views: int = 1
    large: Large | None = None

    def bytes(self, voxels: Voxels) -> Voxels:
        """Return the bytes that tiles of so many voxels need, for one number or an array of them."""
        plain = voxels * self.voxel_bytes
        if self.large is None:
            return plain
        smaller: Any = np.minimum(plain, self.large.fixed_bytes + voxels * self.large.voxel_bytes)
        return smaller  # type: ignore[no-any-return]

    def voxels(self, size: float) -> int:
        """Return how many voxels a tile of so many bytes has."""
        plain = size / self.voxel_bytes
        return int(
            plain if self.large is None else max(plain, (size - self.large.fixed_bytes) / self.large.voxel_bytes)
        )

    @property
    def comfort(self) -> float:
        """Bytes that tiles take where there is a choice."""
        return min(self.budget, _COMFORT) if self.device == "cpu" else self.budget

    @classmethod
    def of(
        cls,
        found: Footprint,
        budget: int,
        device: str,
        *,
        views: int = 1,
        large: Large | None = None,
    ) -> Costs:
        """Return the costs of a network by its footprint."""
        call_voxels = found.operations * _CALL_WORK / max(found.voxel_work, 1.0)
        return cls(found.voxel_bytes, budget, call_voxels, device, views=views, large=large)


@dataclass(frozen=True)
class Candidate:
    """One shape of tiles that was considered.

    Attributes
    ----------
    tile : tuple of int
        Shape of a tile.
    n_tiles : int
        Tiles of the frame.
    voxels : int
        Voxels computed, overlap and padding included.
    work_ratio : float
        Voxels computed per voxel of the frame.
    bytes : int
        Memory of one tile in work.
    cost : float
        Voxels computed and calls, in voxels computed per voxel of the frame.
    fits : bool
        Whether the tile may be taken.
    """

    tile: tuple[int, ...]
    n_tiles: int
    voxels: int
    work_ratio: float
    bytes: int
    cost: float
    fits: bool


def asked_for(plan: TilePlan, costs: Costs) -> Candidate:
    """Return the numbers of a plan whose tile was asked for."""
    cost = (plan.voxels_computed + len(plan) * costs.call_voxels) / math.prod(plan.shape)
    memory = int(costs.bytes(float(math.prod(plan.tile))))
    return Candidate(plan.tile, len(plan), plan.voxels_computed, plan.work_ratio, memory, cost, fits=True)


def consider(
    shape: tuple[int, ...], overlap: tuple[int, ...], stride: tuple[int, ...], costs: Costs, at_most: int | None
) -> tuple[Candidate, ...]:
    """Return the best shape of tiles and others that were considered, the best first.

    Raises
    ------
    MemoryBudgetError
        If no shape fits.
    """
    padded = tuple(math.ceil(n / s) * s for n, s in zip(shape, stride, strict=True))
    axes = [axis_sides(p, o, s) for p, o, s in zip(padded, overlap, stride, strict=True)]
    # Every combination of the sides of the axes, one per row.
    sides = np.array(list(itertools.product(*([side for side, _ in axis] for axis in axes))), np.int64)
    counts = np.array(list(itertools.product(*([n for _, n in axis] for axis in axes))), np.int64)
    tile_voxels, tiles = sides.prod(axis=1), counts.prod(axis=1)
    # Small tiles go through the network together, and share the cost of a call.
    per_call = np.clip(_BATCH_VOXELS.get(costs.device, _BATCH_VOXELS_ELSEWHERE) // tile_voxels, 1, tiles)
    cost = tiles * tile_voxels + np.ceil(tiles / per_call) * costs.call_voxels
    memory = costs.bytes(tile_voxels.astype(float))
    allowed = (memory <= costs.budget) & (tile_voxels <= (at_most or np.inf))
    pleasant = (memory <= costs.comfort) & (tile_voxels <= costs.largest_tile)
    chosen = _chosen_row(cost, tile_voxels, allowed, pleasant)
    if chosen is None:
        least = int(tile_voxels.argmin())
        raise MemoryBudgetError(
            f"the smallest tile that overlap {overlap} allows, {tuple(sides[least].tolist())} voxels, does not fit the "
            f"memory that may be used ({costs.voxels(costs.budget)} voxels); take a smaller overlap, "
            "or allow more memory"
        )
    # Beside it: the whole frame, and the cheapest of each number of tiles around it.
    others = {int(tiles.argmin())}
    for row in np.argsort(cost, kind="stable"):
        if len(others) >= 6:
            break
        if not any(tiles[row] == tiles[o] for o in others):
            others.add(int(row))
    ordered = [chosen, *sorted(others - {chosen}, key=lambda row: -int(tile_voxels[row]))]
    voxels = math.prod(shape)
    return tuple(
        Candidate(
            tuple(sides[row].tolist()),
            int(tiles[row]),
            int(tiles[row] * tile_voxels[row]),
            float(tiles[row] * tile_voxels[row] / voxels),
            int(memory[row]),
            float(cost[row] / voxels),
            bool(allowed[row]),
        )
        for row in ordered
    )


def _chosen_row(
    cost: npt.NDArray[np.float64],
    voxels: npt.NDArray[np.int64],
    allowed: npt.NDArray[np.bool_],
    pleasant: npt.NDArray[np.bool_],
) -> int | None:
    """Return the cheapest row that is pleasant, or the smallest worth more than that; None if none is allowed."""
    rows = np.flatnonzero(allowed & ((voxels <= _UTMOST_TILE) | pleasant))
    if not rows.size:
        # The overlap leaves no tile as small as wanted: the smallest is the closest to it.
        rows = np.flatnonzero(allowed)
        return int(rows[np.lexsort((cost[rows], voxels[rows]))[0]]) if rows.size else None
    worth = cost <= _WORTH_MORE * float(cost[rows].min())
    if (chosen := rows[pleasant[rows] & worth[rows]]).size:
        return int(chosen[np.lexsort((voxels[chosen], cost[chosen]))[0]])
    chosen = rows[worth[rows]]
    return int(chosen[np.lexsort((cost[chosen], voxels[chosen]))[0]])


def axis_sides(padded: int, overlap: int, stride: int) -> list[tuple[int, int]]:
    """Return sides of tiles along one axis, each with the number of tiles, from the whole axis down."""
    length, both = padded // stride, math.ceil(2 * overlap / stride)
    found = [(padded, 1)]
    tiles = 2
    while True:
        # The smallest side, in strides, with which so many tiles reach the end.
        side = max(math.ceil((length + both * (tiles - 1)) / tiles), both + 1)
        if side < length and side * stride < found[-1][0]:
            # Fewer may do, since a side is a whole number of strides.
            step = (side * stride - 2 * overlap) // stride
            found.append((side * stride, math.ceil((length - side) / step) + 1))
        if side <= both + 1 or tiles > length:
            return found
        tiles = max(tiles + 1, tiles * 9 // 8)


def batch_of(plan: TilePlan, costs: Costs, at_most: int | None) -> int:
    """Return how many tiles the network is given at once: more only where tiles are small."""
    voxels = math.prod(plan.tile)
    wanted = _BATCH_VOXELS.get(costs.device, _BATCH_VOXELS_ELSEWHERE) // voxels
    if at_most is not None:
        wanted = min(wanted, at_most // voxels)
    return max(1, min(wanted, int(costs.budget / (voxels * costs.voxel_bytes)), len(plan)))
