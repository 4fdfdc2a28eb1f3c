"""A frame to maps: read tiles, run the network, blend; a generator of events."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_tiled_unet.blending import Blend
from napari_tiled_unet.events import TileDone
from napari_tiled_unet.tiling import Tile, TilePlan, read_tile

if TYPE_CHECKING:
    from napari_tiled_unet.focus import Focus
    from napari_tiled_unet.normalise import Statistics
    from napari_tiled_unet.options import BlendMode
    from napari_tiled_unet.runtime import Runner


def iter_predict(
    frame: npt.NDArray[Any],
    statistics: Statistics,
    runner: Runner,
    plan: TilePlan,
    *,
    n_maps: int,
    blend: BlendMode = "crop",
    index: int = 0,
    position: tuple[int, ...] = (),
    live: bool = False,
    focus: Focus | None = None,
    scale: tuple[float, ...] | None = None,
) -> Generator[TileDone, None, npt.NDArray[np.float32]]:
    """Run a network over a frame tile by tile.

    Parameters
    ----------
    frame : numpy.ndarray
        ``(c, [z,] y, x)``, raw intensities.
    statistics : Statistics
        Of the whole frame; each tile is normalised with them.
    runner : Runner
        The network.
    plan : TilePlan
        The tiles of the frame.
    n_maps : int
        Number of maps that the network gives.
    blend : {"crop", "gaussian"}
        How tiles meet.
    index, position : int, tuple of int
        Index and position of the frame, repeated in the events.
    live : bool
        Whether the events carry a copy of what each tile adds to the maps.
    focus : Focus, optional
        What comes first; the order of the plan otherwise.
    scale : tuple of float, optional
        Voxels of the frame per voxel of the labels, in which the focus is given; 1 by default.

    Yields
    ------
    TileDone
        After each tile.

    Returns
    -------
    numpy.ndarray
        ``(k, [z,] y, x)`` float32 maps of the frame.
    """
    blended = Blend(plan, n_maps, blend)
    waiting = {tile.index: tile for tile in plan}
    while waiting:
        tile = _next(waiting, focus, scale or (1.0,) * len(plan.shape))
        del waiting[tile.index]
        x = statistics.apply(read_tile(frame, tile, plan))
        maps = runner.run(x[None])[0]
        blended.add(tile, maps)
        yield TileDone(index, tile.index, tile, position, maps[(slice(None), *tile.crop)].copy() if live else None)
    return blended.finish()


def _next(waiting: dict[int, Tile], focus: Focus | None, scale: tuple[float, ...]) -> Tile:
    return next(iter(waiting.values())) if focus is None else focus.nearest_tile(waiting.values(), scale)
