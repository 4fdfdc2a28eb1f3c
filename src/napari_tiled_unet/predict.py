"""A frame to maps: read tiles, run the network, blend; a generator of events."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_tiled_unet.blending import Blend
from napari_tiled_unet.events import TileDone
from napari_tiled_unet.tiling import TilePlan, read_tile

if TYPE_CHECKING:
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
    index : int
        Index of the frame, repeated in the events.

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
    for tile in plan:
        x = statistics.apply(read_tile(frame, tile, plan))
        blended.add(tile, runner.run(x[None])[0])
        yield TileDone(index, tile.index, tile)
    return blended.finish()
