"""The choice of tiles: as large as memory allows, with as much overlap as is worth its work."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from napari_tiled_unet.errors import MemoryBudgetError, OptionsError, TiledUnetError
from napari_tiled_unet.tiling import TilePlan, plan_tiles

if TYPE_CHECKING:
    import torch

    from napari_tiled_unet.networks.zoo import Network

_GIB = 2**30
# A tile of more voxels gains little speed and makes progress, cancel and live labels coarse.
_LARGEST_TILE = 2**22
# What somebody watches comes in smaller ones, at about a fifth more work.
_LARGEST_LIVE_TILE = 2**20
# Above this many computed voxels per voxel, auto takes a smaller overlap than the exact one.
_DEAREST_OVERLAP = 3.0


def bytes_per_voxel(network: Network, dtype: torch.dtype) -> float:
    """Estimate the peak bytes that the network needs per input voxel at inference.

    The peak lies in the finest decoder block, which holds skip, upsampled features,
    their concatenation and two convolution results, beside the coarser skips.
    """
    encoder = network.encoder
    values = 6.0 * encoder.channels[0] + 4.0
    for channels, stride in zip(encoder.channels[1:], encoder.strides[1:], strict=True):
        values += 3.0 * channels / math.prod(stride)
    # Blocked layouts of the convolution library pad and copy; a third on top covers it.
    return values * dtype.itemsize * 1.33 + 4.0 * network.spec.out_channels


def choose_tiles(
    shape: tuple[int, ...],
    tile: tuple[int, ...] | str,
    overlap: tuple[int, ...] | str,
    network: Network,
    *,
    voxel_bytes: float,
    budget: int,
    trained_overlap: tuple[int, ...] | None = None,
    live: bool = False,
) -> tuple[TilePlan, str | None]:
    """Plan the tiles of a frame, choosing what is ``auto``.

    Parameters
    ----------
    shape : tuple of int
        Spatial shape of the frame.
    tile, overlap : tuple of int, or "auto" (or "exact" for the overlap)
        What the user asked for; one number stands for every axis.
    network : Network
        Gives stride and receptive field.
    voxel_bytes : float
        Bytes that the network needs per voxel of a tile.
    budget : int
        Bytes that a tile may take.
    trained_overlap : tuple of int, optional
        Overlap that the model's spec recommends for ``auto``.
    live : bool
        Whether somebody watches: ``auto`` then takes smaller tiles, so that the first comes soon.

    Returns
    -------
    plan : TilePlan
        The tiles.
    caution : str or None
        A sentence when tiles will not give exactly what the whole frame would.

    Raises
    ------
    MemoryBudgetError
        If the tile asked for, or the smallest one that is possible, does not fit.
    OptionsError
        If the number of values does not match the axes, or the overlap leaves nothing.
    """
    possible = budget / voxel_bytes
    if isinstance(tile, tuple):
        tile = _per_axis(tile, len(shape), "tile")
        _check_fits(shape, tile, network, voxel_bytes, budget)

    def planned(overlap: tuple[int, ...]) -> TilePlan:
        sides = tile
        if not isinstance(sides, tuple):
            sides = _largest_tile(
                shape, overlap, network.stride, min(possible, _LARGEST_LIVE_TILE if live else _LARGEST_TILE), possible
            )
        return plan_tiles(shape, sides, overlap, network.stride)

    if isinstance(overlap, tuple):
        plan = planned(_per_axis(overlap, len(shape), "overlap"))
    elif overlap == "exact":
        plan = planned(network.receptive_field)
    else:
        plan = _affordable(planned, trained_overlap or network.receptive_field)
    return plan, _caution(plan, network)


def _affordable(planned: Callable[[tuple[int, ...]], TilePlan], wanted: tuple[int, ...]) -> TilePlan:
    """Return the plan of the overlap wanted, or of the largest part of it that fits and is worth its work."""
    plan: TilePlan | None = None
    refused: TiledUnetError | None = None
    for part in (1, 2, 4, 8, 16):
        try:
            plan = planned(tuple(math.ceil(o / part) for o in wanted))
        except (MemoryBudgetError, OptionsError) as error:
            refused = error
            continue
        if plan.work_ratio <= _DEAREST_OVERLAP:
            break
    if plan is None:
        assert refused is not None
        raise refused
    return plan


def _caution(plan: TilePlan, network: Network) -> str | None:
    """Return a sentence if the tiles do not give exactly what the whole frame would."""
    if len(plan) == 1:
        return None
    if not network.exact_tiling:
        return (
            f"{network.spec.norm} norm looks at the whole of a tile, so {len(plan)} tiles give other maps than the "
            "whole frame would; a larger tile is closer to it"
        )
    reach = network.receptive_field
    axes = range(len(plan.shape))
    if all(plan.overlap[a] >= reach[a] or plan.tile[a] == plan.padded[a] for a in axes):
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


def _check_fits(
    shape: tuple[int, ...], tile: tuple[int, ...], network: Network, voxel_bytes: float, budget: int
) -> None:
    sides = tuple(
        min(math.ceil(n / s), math.ceil(t / s)) * s for n, t, s in zip(shape, tile, network.stride, strict=True)
    )
    needed = math.prod(sides) * voxel_bytes
    if needed > budget:
        raise MemoryBudgetError(
            f"a tile of {tile} voxels needs about {needed / _GIB:.2f} GiB, {budget / _GIB:.2f} GiB may be used; "
            "take a smaller tile, tile='auto', or allow more memory"
        )


def _largest_tile(
    shape: tuple[int, ...], overlap: tuple[int, ...], stride: tuple[int, ...], wanted: float, possible: float
) -> tuple[int, ...]:
    """Return the largest tile of at most ``wanted`` voxels that divides the frame evenly.

    Splits the axis with most tile per overlap until it is small enough; goes above
    ``wanted`` (never above ``possible``) where the overlap leaves no smaller tile.
    """
    least = tuple(
        min(math.ceil(n / s) * s, math.ceil((2 * o + 1) / s) * s + s)
        for n, o, s in zip(shape, overlap, stride, strict=True)
    )
    parts = [1] * len(shape)

    def sides() -> tuple[int, ...]:
        result = []
        for n, o, s, part, low in zip(shape, overlap, stride, parts, least, strict=True):
            core = math.ceil(n / part)
            side = math.ceil(n / s) * s if part == 1 else math.ceil((core + 2 * o) / s) * s + s
            result.append(max(low, min(side, math.ceil(n / s) * s)))
        return tuple(result)

    while math.prod(sides()) > wanted:
        now = sides()
        splittable = [axis for axis in range(len(shape)) if now[axis] > least[axis]]
        if not splittable:
            break
        axis = max(splittable, key=lambda a: (now[a] - 2 * overlap[a]) / stride[a])
        parts[axis] += 1
    result = sides()
    if math.prod(result) > possible:
        raise MemoryBudgetError(
            f"the smallest tile that overlap {overlap} allows, {result} voxels, does not fit the memory "
            f"that may be used ({possible:.0f} voxels); take a smaller overlap, or allow more memory"
        )
    return result
