"""A network asked several times about the same voxels, mirrored: the mean of its answers, and their spread.

Each tile goes through the network as it is, mirrored along y, along x, and along both; the maps are
mirrored back and averaged (test-time augmentation)::

    tile      views                       maps, mirrored back       mean and spread
    ab        ab   cd   ba   dc           A B   A B   A B   A B     A B
    cd        cd   ab   dc   ba           C D   C D   C D   C D     C D

Tiles start on multiples of the stride and are multiples of it long, and so is the padded frame: a
mirrored tile therefore lies on the grid of the mirrored frame, and tiles stay exact.

z is left alone: above and below a stack, light and focus differ, and trainings on thick slices
never saw it mirrored.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Maps = npt.NDArray[np.float32]

VIEWS: tuple[tuple[int, ...], ...] = ((), (-2,), (-1,), (-2, -1))
"""The axes along which each view is mirrored, counted from the end: none, y, x, both."""


def views_of(*, flips: bool) -> int:
    """Return how many times the network sees each tile."""
    return len(VIEWS) if flips else 1


@dataclass(frozen=True)
class Flips:
    """How the views of a tile become one answer.

    Attributes
    ----------
    spread_of : int
        So many of the first maps are compared over the views: the mean of their standard deviations
        comes as one more map, the last. 0 leaves it out.
    """

    spread_of: int = 0

    def run(self, network: Callable[[Maps], Maps], tiles: Maps) -> Maps:
        """Return the maps of tiles, averaged over their views.

        Parameters
        ----------
        network : callable
            Gives the maps, ``(n, k, [z,] y, x)``, of tiles.
        tiles : numpy.ndarray
            ``(n, c, [z,] y, x)``.

        Returns
        -------
        numpy.ndarray
            ``(n, k, [z,] y, x)`` float32, or ``k + 1`` maps with the spread.
        """
        first = network(tiles)
        compared = first[:, : self.spread_of]
        extra = 1 if self.spread_of else 0
        out = np.empty((len(first), first.shape[1] + extra, *first.shape[2:]), np.float32)
        mean = out[:, : first.shape[1]]
        mean[...] = first
        squares = np.zeros_like(compared)
        for axes in VIEWS[1:]:
            maps = np.flip(network(np.flip(tiles, axes).copy()), axes)
            mean += maps
            if extra:
                squares += np.square(maps[:, : self.spread_of] - compared)
        mean /= len(VIEWS)
        if extra:
            # From the first view and not from 0, where rounding would drown a small spread.
            variance = squares / len(VIEWS) - np.square(mean[:, : self.spread_of] - compared)
            out[:, -1] = np.sqrt(np.maximum(variance, 0)).mean(axis=1)
        return out
