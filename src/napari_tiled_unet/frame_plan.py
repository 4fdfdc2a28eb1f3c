"""The plan of a model's frames: its tiles, or strips where torch runs and they save work."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_tiled_unet.candidates import Costs, Large
from napari_tiled_unet.flips import views_of
from napari_tiled_unet.planning import Choice, choose_soon, choose_tiles, take_strips

if TYPE_CHECKING:
    import torch

    from napari_tiled_unet.model import Model
    from napari_tiled_unet.networks.zoo import Network
    from napari_tiled_unet.options import SegmentOptions

# About what another runtime gains over torch at the most: so much overlap its strips must save.
_WORTH_TORCH = 1.1


def first_choice(
    shape: tuple[int, ...],
    model: Model,
    options: SegmentOptions,
    dtype: torch.dtype,
    budget: int,
    device: str,
    *,
    live: bool = False,
) -> Choice:
    """Return the plan of frames of a shape, by the network's footprint; with ``live``, the first tile comes soon.

    Raises
    ------
    MemoryBudgetError, OptionsError
        As :func:`napari_tiled_unet.planning.choose_tiles`.
    """
    from napari_tiled_unet.backends.interface import only_torch
    from napari_tiled_unet.networks.footprint import footprint

    network = model.network
    found = footprint(network, dtype)
    views = views_of(flips=options.flips)
    torch_alone = device == "cpu" and only_torch(options.backend)
    large = _large(network, dtype) if torch_alone else None
    costs = Costs.of(found, budget, device, views=views, large=large)

    def choose(costs: Costs) -> Choice:
        return choose_tiles(
            shape, options.tile, options.overlap, network, costs=costs, trained_overlap=model.spec.earned_overlap
        )

    choice = choose(costs)
    if live and not network.exact_tiling:
        # Its labels depend on the tiles, and must be those that a run elsewhere gives.
        return choice
    if live:
        return choose_soon(choice, found.voxel_work, dtype.itemsize, choose)
    free = options.tile == "auto" and isinstance(options.overlap, str) and options.blend == "crop"
    overlaps = choice.considered[0].work_ratio >= _WORTH_TORCH
    any_runtime = overlaps and device == "cpu" and options.backend == "auto"
    skips_empty = model.spec.empty_below is not None and options.overlap != "exact"
    if not (torch_alone or any_runtime) or not free or views > 1 or skips_empty:
        return choice
    strips = _in_strips(choice, network, dtype, found.voxel_work)
    saved = choice.considered[0].work_ratio / strips.considered[0].work_ratio
    return strips if torch_alone or saved >= _WORTH_TORCH else choice


def _in_strips(choice: Choice, network: Network, dtype: torch.dtype, voxel_work: float) -> Choice:
    """Return strips instead of tiles, where the network can be given them and they are worth it."""
    from napari_tiled_unet.backends.streaming import can_stream, stream_costs

    if not can_stream(network):
        return choice

    def count(sides: tuple[int, ...], axis: int, rows: int) -> tuple[float, float]:
        size, work = stream_costs(network, dtype, sides, axis, rows)
        return size, work / voxel_work

    return take_strips(choice, network, count)


def _large(network: Network, dtype: torch.dtype) -> Large | None:
    """Return what large tiles take in torch, which computes them in bands."""
    from napari_tiled_unet.backends.bands import large_bytes

    return Large(*large_bytes(network, dtype)) if network.exact_tiling else None
