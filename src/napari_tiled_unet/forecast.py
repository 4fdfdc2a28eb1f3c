"""A run foretold: how many tiles, how much memory, how long.

Tiles are those that the run will plan. Memory is an estimate of the peak. Time is the voxels
that the network will compute times a rate, which is measured: on one tile at first, then on
every run that ends (:func:`learn`), by its part of the largest one.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from napari_tiled_unet.errors import MemoryBudgetError
from napari_tiled_unet.frame_plan import first_choice
from napari_tiled_unet.matching import Grid, match_channels, match_image, match_scale
from napari_tiled_unet.memory import GIB, free_memory, memory_budget
from napari_tiled_unet.region import Region
from napari_tiled_unet.runtime import Runner, choose_device, choose_precision

if TYPE_CHECKING:
    import torch

    from napari_tiled_unet.image import Image
    from napari_tiled_unet.model import Model
    from napari_tiled_unet.options import SegmentOptions

# Voxels of the tile on which a rate is first measured.
_PROBE_VOXELS = 2**16
# What it counts as beside runs: it is timed without a run's start, which is most of what a smaller one takes.
_PROBE_COUNTS = 2**20
# Part of the largest run below which another says nothing of it.
_LEAST_PART = 0.1
_rates: dict[tuple[str, str, str], Rate] = {}


@dataclass(frozen=True)
class Rate:
    """How long a voxel takes.

    Attributes
    ----------
    seconds : float
        Per voxel that the network computes.
    voxels : int
        Of how many that is known.
    """

    seconds: float
    voxels: int


@dataclass(frozen=True)
class Forecast:
    """What a run will take.

    Attributes
    ----------
    n_frames, n_tiles : int
        Frames, and tiles of all frames together; 0 where they do not fit.
    voxels : int
        Voxels that the network computes, overlaps and every view of flips included.
    memory : int
        Bytes at the peak, about.
    seconds : float or None
        About how long, where a rate is known.
    problem : str or None
        Why it does not fit, with the remedy.
    """

    n_frames: int = 0
    n_tiles: int = 0
    voxels: int = 0
    memory: int = 0
    seconds: float | None = None
    problem: str | None = None

    @property
    def text(self) -> str:
        """One line, for example ``12 tiles, 1.1 GiB, about 3 s``."""
        if self.problem is not None:
            return self.problem
        tiles = f"{self.n_tiles:,} {'tile' if self.n_tiles == 1 else 'tiles'}"
        size = (
            f"{self.memory / GIB:.1f} GiB" if self.memory >= 0.1 * GIB else f"{max(1, round(self.memory / 2**20))} MiB"
        )
        return f"{tiles}, {size}" + ("" if self.seconds is None else f", about {duration(self.seconds)}")


def duration(seconds: float) -> str:
    """Return a time as it is said: ``3 s``, ``12 min``, ``2.5 h``."""
    if seconds < 90:
        return f"{max(1, math.ceil(seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def forecast(image: Image, model: Model, options: SegmentOptions) -> Forecast:
    """Foretell a live run; nothing of the image is read.

    Parameters
    ----------
    image : Image
        What would be segmented.
    model : Model
        With what.
    options : SegmentOptions
        How.

    Returns
    -------
    Forecast
        With ``problem`` where it does not fit the memory.

    Raises
    ------
    OptionsError, ImageError
        As the run would.
    """
    spec = model.spec
    source, _ = match_image(image, model, options)
    channels = match_channels(source, model, options)
    scale, _ = match_scale(source, model, options)
    whole = source.frame_shape(spec.axes)
    if options.region:
        source = source.part(Region.parse(options.region))
    grid = Grid.of(source.frame_shape(spec.axes), scale)
    device = choose_device(options.device, options.backend)
    dtype = choose_precision(options.precision, device)
    budget = memory_budget(options.memory, device)
    try:
        choice = first_choice(grid.network, model, options, dtype, budget, device.type, live=True)
    except MemoryBudgetError as error:
        return Forecast(problem=str(error))
    plan, shape = choice.plan, source.label_shape(spec.axes)
    n_frames = math.prod(shape) // math.prod(grid.image)
    n_channels = len(channels) if channels is not None else source.n_channels
    frame = math.prod(whole) * n_channels * np.dtype(source.data.dtype).itemsize
    # Beside it lies the rescaled one, in float32.
    frame += grid.differs * 4 * n_channels * math.prod(grid.network)
    # One more for the spread over flips.
    n_maps = len(spec.target.channels) + options.flips
    maps = n_maps * 4 * (math.prod(grid.network) + grid.differs * math.prod(grid.image))
    network = choice.costs.bytes(float(math.prod(plan.tile))) if device.type == "cpu" else 0
    memory = int(network + frame + maps + 4 * math.prod(shape))
    voxels = plan.voxels_computed * n_frames * choice.costs.views
    rate = _rates.get(_key(model, device, dtype))
    found = Forecast(n_frames, n_frames * len(plan), voxels, memory, None if rate is None else rate.seconds * voxels)
    if memory > free_memory():
        found = replace(
            found,
            problem=f"needs {memory / GIB:.1f} GiB, {free_memory() / GIB:.1f} GiB are free; "
            "segment a part of the image at a time",
        )
    return found


def calibrate(model: Model, options: SegmentOptions) -> None:
    """Measure how fast a model runs here, on one tile, unless it is known."""
    device = choose_device(options.device, options.backend)
    dtype = choose_precision(options.precision, device)
    key = _key(model, device, dtype)
    if key in _rates:
        return
    stride = model.network.stride
    side = _PROBE_VOXELS ** (1 / len(stride))
    shape = tuple(max(1, round(side / s)) * s for s in stride)
    # Noise, so that what is timed is what a run would take: on an empty tile every number format is good enough.
    tile = np.random.default_rng(0).random((1, len(model.spec.channels), *shape), np.float32)
    # Of one view, as every rate is per voxel that the network computes; not left for the next run, which is to
    # check its backend on a tile of its own.
    runner = Runner(
        model.network,
        model.spec.target.activate,
        device,
        dtype,
        backend=options.backend,
        checked=options.precision == "auto",
    )
    runner.run(tile)  # the first is slower: memory, threads, choice of kernels
    started = time.perf_counter()
    runner.run(tile)
    n = math.prod(shape)
    _rates.setdefault(key, Rate((time.perf_counter() - started) / n, max(n, _PROBE_COUNTS)))


def learn(model: Model, device: str, precision: str, voxels: int, seconds: float) -> None:
    """Remember how long a run took.

    One that is as large as any before says all about the next; of a smaller one more is its start, and it
    counts by its part of the largest, or not at all.

    Parameters
    ----------
    model : Model
        That ran.
    device, precision : str
        On what, and in which number format, as in ``Planned``.
    voxels : int
        That the network computed, overlaps and every view of flips included: ``Planned.voxels``.
    seconds : float
        From the plan to the labels.
    """
    if voxels <= 0:
        return
    key, now = (model.spec.name, device, precision), seconds / voxels
    known = _rates.get(key)
    if known is None or voxels >= known.voxels:
        _rates[key] = Rate(now, voxels)
    elif (part := voxels / known.voxels) >= _LEAST_PART:
        _rates[key] = Rate((1 - part) * known.seconds + part * now, known.voxels)


def _key(model: Model, device: torch.device, dtype: torch.dtype) -> tuple[str, str, str]:
    return model.spec.name, str(device), str(dtype).removeprefix("torch.")
