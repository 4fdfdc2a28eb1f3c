"""The choice of tiles: the least work that fits the memory, with the overlap that is wanted or affordable."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from napari_tiled_unet.candidates import Candidate, Costs, asked_for, batch_of, consider
from napari_tiled_unet.errors import MemoryBudgetError, OptionsError, TiledUnetError
from napari_tiled_unet.strips import Count, StripPlan, choose_strips
from napari_tiled_unet.tiling import TilePlan, plan_tiles

if TYPE_CHECKING:
    from napari_tiled_unet.networks.zoo import Network

_GIB = 2**30
# Where somebody waits for the first tile, it should take about a second: multiply-adds that two
# processor cores may do in that time, by size of the number format, a rough estimate, and how
# many times the cost of larger tiles that may be.
_SOON_WORK = {4: 4e10, 2: 1.5e11}
_WORTH_SOON = 1.25
# Above this many computed voxels per voxel of the padded frame, auto takes a smaller overlap than the exact one.
_DEAREST_OVERLAP = 3.0


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
        what = "tiles"
        if isinstance(plan, StripPlan):
            what = f"strips along axis {plan.axis} in {plan.n_columns} columns, the first"
        lines = [
            f"frame {_by(plan.shape)}, padded to the stride {_by(plan.padded)}; overlap {_by(plan.overlap)}: "
            f"{self.overlap_from}",
            f"{len(plan)} {what} of {_by(plan.tile)} in batches of {self.batch}; "
            f"{costs.budget / _GIB:.2f} GiB may be used, {costs.comfort / _GIB:.2f} GiB where there is a choice, "
            f"{self._voxel_bytes:.0f} bytes per voxel",
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

    @property
    def _voxel_bytes(self) -> float:
        return self.considered[0].bytes / math.prod(self.plan.tile)

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
            "voxel_bytes": round(self._voxel_bytes, 1),
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
        Overlap that the model's spec has earned, or recommends, for ``auto``; with ``at_most`` also where an
        overlap is given, which was ``auto``'s choice before.
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
            return plan, (asked_for(plan, costs),)
        considered = consider(shape, overlap, network.stride, costs, at_most)
        return plan_tiles(shape, considered[0].tile, overlap, network.stride), considered

    if isinstance(overlap, tuple):
        why = "as asked for"
        plan, considered = planned(_per_axis(overlap, len(shape), "overlap"))
    elif overlap == "exact":
        why = "the receptive field"
        plan, considered = planned(network.receptive_field)
    else:
        plan, considered, why = _affordable(planned, network.receptive_field, trained_overlap)
    # What was measured to be enough needs no word of caution.
    measured = overlap == "auto" or at_most is not None
    enough = trained_overlap if measured and trained_overlap is not None else network.receptive_field
    caution = _caution(plan, network, enough)
    return Choice(plan, batch_of(plan, costs, at_most), caution, why, costs, considered)


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
    smaller = math.prod(sooner.plan.tile) < math.prod(choice.plan.tile)
    return sooner if worth and smaller and sooner.plan.overlap == choice.plan.overlap else choice


def take_strips(choice: Choice, network: Network, count: Count) -> Choice:
    """Return strips instead of the tiles chosen, if they cost no more; whatever they see, they see as much.

    Parameters
    ----------
    choice : Choice
        The best tiles.
    network : Network
        Gives stride and receptive field.
    count : callable
        Tells what strips take.
    """
    plan = choice.plan
    if len(plan) == 1:
        return choice
    found = choose_strips(plan.shape, plan.overlap, network.receptive_field, network.stride, choice.costs, count)
    if found is None or found[1].cost > choice.considered[0].cost:
        return choice
    strips, told = found
    why, caution = "the receptive field, kept from strip to strip", None
    if strips.n_columns > 1:
        why, caution = f"{why}; between columns {choice.overlap_from}", choice.caution
    return Choice(strips, 1, caution, why, choice.costs, (told, *choice.considered))


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
        # Against the padded frame: no overlap spares the padding.
        if plan.voxels_computed <= _DEAREST_OVERLAP * math.prod(plan.padded):
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
    needed = costs.bytes(float(math.prod(sides)))
    if needed > costs.budget:
        raise MemoryBudgetError(
            f"a tile of {tile} voxels needs about {needed / _GIB:.2f} GiB, {costs.budget / _GIB:.2f} GiB may be used; "
            "take a smaller tile, tile='auto', or allow more memory"
        )


def _by(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
