"""The choice of tiles: the least work that fits the memory, and the numbers behind it.

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
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_tiled_unet.errors import MemoryBudgetError, OptionsError, TiledUnetError
from napari_tiled_unet.tiling import TilePlan, plan_tiles

if TYPE_CHECKING:
    from napari_tiled_unet.networks.zoo import Network

_GIB = 2**30
# A tile of more voxels gains no speed and makes progress, cancel and live labels coarse.
_LARGEST_TILE = 2**22
# Where somebody waits for the first tile, it should take about a second: multiply-adds that two
# processor cores may do in that time, by size of the number format, a rough estimate, and how
# many times the cost of larger tiles that may be.
_SOON_WORK = {4: 4e10, 2: 1.5e11}
_WORTH_SOON = 1.25
# On the CPU, tiles take at most this much unless nothing smaller is possible: what more would
# save in overlap is little, and other programs need memory too.
_COMFORT = 0.75 * _GIB
# ... but for tiles with so many times the cost of larger ones.
_WORTH_MEMORY = 1.25
# Above this many computed voxels per voxel, auto takes a smaller overlap than the exact one.
_DEAREST_OVERLAP = 3.0
# Multiply-adds that the time of one call of a tensor operation would pay for. 50 operations
# took 1.8 ms beyond the work of a 32 x 32 tile, at 0.7 microseconds per voxel of 86,000.
_CALL_WORK = 4.5e6
# Voxels of a batch of small tiles: enough to make the cost of a call small.
_BATCH_VOXELS = {"cpu": 2**14}
_BATCH_VOXELS_ELSEWHERE = 2**21


@dataclass(frozen=True)
class Costs:
    """What a tile costs.

    Attributes
    ----------
    voxel_bytes : float
        Bytes that the network needs per voxel of a tile.
    budget : int
        Bytes that the tiles in work may take.
    call_voxels : float
        Voxels that could be computed in the time that a call of the network takes by itself.
    device : str
        Kind of device; the CPU shares its memory with everything else.
    largest_tile : int
        Voxels; larger tiles are not taken where there is a choice.
    views : int
        How many times the network sees each tile, one after the other.
    """

    voxel_bytes: float
    budget: int
    call_voxels: float = 2500.0
    device: str = "cpu"
    largest_tile: int = _LARGEST_TILE
    views: int = 1

    @property
    def comfort(self) -> float:
        """Bytes that tiles take where there is a choice."""
        return min(self.budget, _COMFORT) if self.device == "cpu" else self.budget

    @classmethod
    def of(
        cls, voxel_bytes: float, budget: int, operations: int, voxel_work: float, device: str, *, views: int = 1
    ) -> Costs:
        """Return the costs of a network by its footprint."""
        return cls(voxel_bytes, budget, operations * _CALL_WORK / max(voxel_work, 1.0), device, views=views)


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


@dataclass(frozen=True)
class Choice:
    """A plan and why it was chosen.

    Attributes
    ----------
    plan : TilePlan
        The tiles.
    batch : int
        Tiles that the network is given at once.
    caution : str or None
        A sentence when tiles will not give exactly what the whole frame would.
    overlap_from : str
        Where the overlap comes from.
    costs : Costs
        What was reckoned with.
    considered : tuple of Candidate
        The chosen shape first, then others.
    """

    plan: TilePlan
    batch: int
    caution: str | None
    overlap_from: str
    costs: Costs
    considered: tuple[Candidate, ...] = field(repr=False)

    def explain(self) -> list[str]:
        """Return the choice in lines for people."""
        plan, costs = self.plan, self.costs
        lines = [
            f"frame {_by(plan.shape)}, padded to the stride {_by(plan.padded)}; overlap {_by(plan.overlap)}: "
            f"{self.overlap_from}",
            f"{len(plan)} tiles of {_by(plan.tile)} in batches of {self.batch}; "
            f"{costs.budget / _GIB:.2f} GiB may be used, {costs.comfort / _GIB:.2f} GiB where there is a choice, "
            f"{costs.voxel_bytes:.0f} bytes per voxel",
            *self._views_line(),
            f"  {'tile':>18} {'tiles':>7} {'voxels computed':>16} {'per voxel':>10} {'GiB':>7} {'cost':>7}",
        ]
        for place, c in enumerate(self.considered):
            note = "chosen" if place == 0 else "" if c.fits else "does not fit"
            row = (
                f"  {_by(c.tile):>18} {c.n_tiles:>7} {c.voxels:>16} {c.work_ratio:>10.2f} {c.bytes / _GIB:>7.2f} "
                f"{c.cost:>7.2f}  {note}"
            )
            lines.append(row.rstrip())
        return lines

    def _views_line(self) -> list[str]:
        views = self.costs.views
        return [] if views == 1 else [f"each tile is computed {views} times, mirrored: {views} times the work below"]

    def numbers(self) -> dict[str, Any]:
        """Return what provenance keeps."""
        return {
            "tile": list(self.plan.tile),
            "overlap": list(self.plan.overlap),
            "overlap_from": self.overlap_from,
            "tiles_per_frame": len(self.plan),
            "batch": self.batch,
            "work_ratio": round(self.plan.work_ratio, 4),
            "views": self.costs.views,
            "voxel_bytes": round(self.costs.voxel_bytes, 1),
        }


def choose_tiles(
    shape: tuple[int, ...],
    tile: tuple[int, ...] | str,
    overlap: tuple[int, ...] | str,
    network: Network,
    *,
    costs: Costs,
    trained_overlap: tuple[int, ...] | None = None,
    at_most: int | None = None,
) -> Choice:
    """Plan the tiles of a frame, choosing what is ``auto``.

    Parameters
    ----------
    shape : tuple of int
        Spatial shape of the frame.
    tile, overlap : tuple of int, or "auto" (or "exact" for the overlap)
        What the user asked for; one number stands for every axis.
    network : Network
        Gives stride and receptive field.
    costs : Costs
        What a tile costs and what may be spent.
    trained_overlap : tuple of int, optional
        Overlap that the model's spec has earned, or recommends, for ``auto``.
    at_most : int, optional
        Voxels of the largest tile; a tile that was asked for gives way to it.

    Returns
    -------
    Choice
        The plan, and what it was chosen from.

    Raises
    ------
    MemoryBudgetError
        If the tile asked for, or the smallest one that is possible, does not fit.
    OptionsError
        If the number of values does not match the axes, or the overlap leaves nothing.
    """
    if isinstance(tile, tuple):
        tile = _per_axis(tile, len(shape), "tile")
        if at_most is not None:
            tile = "auto"
        else:
            _check_fits(shape, tile, network, costs)

    def planned(overlap: tuple[int, ...]) -> tuple[TilePlan, tuple[Candidate, ...]]:
        if isinstance(tile, tuple):
            plan = plan_tiles(shape, tile, overlap, network.stride)
            return plan, (_candidate(plan, costs),)
        considered = _consider(shape, overlap, network.stride, costs, at_most)
        return plan_tiles(shape, considered[0].tile, overlap, network.stride), considered

    if isinstance(overlap, tuple):
        why = "as asked for"
        plan, considered = planned(_per_axis(overlap, len(shape), "overlap"))
    elif overlap == "exact" or not network.exact_tiling:
        why = "the receptive field"
        plan, considered = planned(network.receptive_field)
    else:
        plan, considered, why = _affordable(planned, network.receptive_field, trained_overlap)
    # What was measured to be enough needs no word of caution.
    enough = network.receptive_field if overlap != "auto" or trained_overlap is None else trained_overlap
    caution = _caution(plan, network, enough)
    return Choice(plan, _batch(plan, costs, at_most), caution, why, costs, considered)


def choose_soon(choice: Choice, voxel_work: float, itemsize: int, choose: Callable[[Costs], Choice]) -> Choice:
    """Return tiles whose first one is there soon, if they cost little more than those chosen and see as much.

    Parameters
    ----------
    choice : Choice
        What is best for the whole run.
    voxel_work : float
        Multiply-adds of the network per voxel.
    itemsize : int
        Bytes of its numbers; short ones are computed faster.
    choose : callable
        Chooses again, by other costs.
    """
    largest = int(_SOON_WORK[itemsize] / max(voxel_work * choice.costs.views, 1.0))
    if choice.costs.device != "cpu" or math.prod(choice.plan.tile) <= largest:
        return choice
    sooner = choose(replace(choice.costs, largest_tile=largest))
    worth = sooner.considered[0].cost <= _WORTH_SOON * choice.considered[0].cost
    return sooner if worth and sooner.plan.overlap == choice.plan.overlap else choice


_Planned = Callable[[tuple[int, ...]], tuple[TilePlan, tuple[Candidate, ...]]]


def _affordable(
    planned: _Planned, exact: tuple[int, ...], trained: tuple[int, ...] | None
) -> tuple[TilePlan, tuple[Candidate, ...], str]:
    """Return the plan of the overlap wanted, or of the largest part of it that fits and is worth its work."""
    if trained is not None:
        wanted, name = tuple(min(t, e) for t, e in zip(trained, exact, strict=True)), "measured for this model"
    else:
        wanted, name = exact, "the receptive field"
    found: tuple[TilePlan, tuple[Candidate, ...], str] | None = None
    refused: TiledUnetError | None = None
    for part in (1, 2, 4, 8, 16):
        try:
            plan, considered = planned(tuple(math.ceil(o / part) for o in wanted))
        except (MemoryBudgetError, OptionsError) as error:
            refused = error
            continue
        found = plan, considered, name if part == 1 else f"1/{part} of {name}, more would cost too much"
        if plan.work_ratio <= _DEAREST_OVERLAP:
            break
    if found is None:
        assert refused is not None
        raise refused
    return found


def _caution(plan: TilePlan, network: Network, enough: tuple[int, ...]) -> str | None:
    """Return a sentence if the tiles may not give what the whole frame would."""
    if len(plan) == 1:
        return None
    if not network.exact_tiling:
        return (
            f"{network.looks_at_whole} looks at the whole of a tile, so {len(plan)} tiles give other maps than the "
            "whole frame would; a larger tile is closer to it"
        )
    reach = network.receptive_field
    axes = range(len(plan.shape))
    if all(plan.overlap[a] >= min(reach[a], enough[a]) or plan.tile[a] == plan.padded[a] for a in axes):
        return None
    return (
        f"tiles overlap by {plan.overlap} voxels, less than the network's receptive field {reach}: "
        "seams are close but not exact; overlap='exact' is, at more work"
    )


def _per_axis(values: tuple[int, ...], ndim: int, name: str) -> tuple[int, ...]:
    if len(values) == 1:
        return values * ndim
    if len(values) != ndim:
        raise OptionsError(f"{name}={values} has {len(values)} numbers, the model has {ndim} axes; give 1 or {ndim}")
    return values


def _check_fits(shape: tuple[int, ...], tile: tuple[int, ...], network: Network, costs: Costs) -> None:
    sides = tuple(
        min(math.ceil(n / s), math.ceil(t / s)) * s for n, t, s in zip(shape, tile, network.stride, strict=True)
    )
    needed = math.prod(sides) * costs.voxel_bytes
    if needed > costs.budget:
        raise MemoryBudgetError(
            f"a tile of {tile} voxels needs about {needed / _GIB:.2f} GiB, {costs.budget / _GIB:.2f} GiB may be used; "
            "take a smaller tile, tile='auto', or allow more memory"
        )


def _candidate(plan: TilePlan, costs: Costs) -> Candidate:
    """Return the numbers of a plan whose tile was asked for."""
    cost = (plan.voxels_computed + len(plan) * costs.call_voxels) / math.prod(plan.shape)
    memory = int(math.prod(plan.tile) * costs.voxel_bytes)
    return Candidate(plan.tile, len(plan), plan.voxels_computed, plan.work_ratio, memory, cost, fits=True)


def _consider(
    shape: tuple[int, ...], overlap: tuple[int, ...], stride: tuple[int, ...], costs: Costs, at_most: int | None
) -> tuple[Candidate, ...]:
    """Return the best shape of tiles and others that were considered, the best first.

    Raises
    ------
    MemoryBudgetError
        If no shape fits.
    """
    padded = tuple(math.ceil(n / s) * s for n, s in zip(shape, stride, strict=True))
    axes = [_axis_sides(p, o, s) for p, o, s in zip(padded, overlap, stride, strict=True)]
    # Every combination of the sides of the axes, one per row.
    sides = np.array(list(itertools.product(*([side for side, _ in axis] for axis in axes))), np.int64)
    counts = np.array(list(itertools.product(*([n for _, n in axis] for axis in axes))), np.int64)
    tile_voxels, tiles = sides.prod(axis=1), counts.prod(axis=1)
    # Small tiles go through the network together, and share the cost of a call.
    per_call = np.clip(_BATCH_VOXELS.get(costs.device, _BATCH_VOXELS_ELSEWHERE) // tile_voxels, 1, tiles)
    cost = tiles * tile_voxels + np.ceil(tiles / per_call) * costs.call_voxels
    memory = tile_voxels * costs.voxel_bytes
    allowed = (memory <= costs.budget) & (tile_voxels <= (at_most or np.inf))
    chosen = _chosen_row(cost, memory, allowed, allowed & (tile_voxels <= costs.largest_tile), costs.comfort)
    if chosen is None:
        least = int(tile_voxels.argmin())
        raise MemoryBudgetError(
            f"the smallest tile that overlap {overlap} allows, {tuple(sides[least].tolist())} voxels, does not fit the "
            f"memory that may be used ({costs.budget / costs.voxel_bytes:.0f} voxels); take a smaller overlap, "
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
    memory: npt.NDArray[np.float64],
    possible: npt.NDArray[np.bool_],
    wanted: npt.NDArray[np.bool_],
    comfort: float,
) -> int | None:
    """Return the cheapest row that is comfortable, or worth its discomfort; None if none is possible."""
    rows = np.flatnonzero(wanted)
    if not rows.size:
        # The overlap leaves no tile as small as wanted: the smallest is the closest to it.
        rows = np.flatnonzero(possible)
        return int(rows[np.lexsort((cost[rows], memory[rows]))[0]]) if rows.size else None
    comfortable = rows[memory[rows] <= comfort]
    cheapest = float(cost[rows].min())
    if comfortable.size and cost[comfortable].min() <= _WORTH_MEMORY * cheapest:
        rows = comfortable
    else:
        # As little more memory as brings the cost down to what is worth it.
        rows = rows[cost[rows] <= _WORTH_MEMORY * cheapest]
        return int(rows[np.lexsort((cost[rows], memory[rows]))[0]])
    return int(rows[np.lexsort((memory[rows], cost[rows]))[0]])


def _axis_sides(padded: int, overlap: int, stride: int) -> list[tuple[int, int]]:
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


def _batch(plan: TilePlan, costs: Costs, at_most: int | None) -> int:
    """Return how many tiles the network is given at once: more only where tiles are small."""
    voxels = math.prod(plan.tile)
    wanted = _BATCH_VOXELS.get(costs.device, _BATCH_VOXELS_ELSEWHERE) // voxels
    if at_most is not None:
        wanted = min(wanted, at_most // voxels)
    return max(1, min(wanted, int(costs.budget / (voxels * costs.voxel_bytes)), len(plan)))


def _by(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
