"""What the user looks at: it is computed first, and does not change what is computed."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from napari_tiled_unet.errors import OptionsError

if TYPE_CHECKING:
    from napari_tiled_unet.tiling import Box, Tile

Extent = tuple[tuple[float, float], ...]
"""Start and stop along each axis."""


class Focus:
    """A point or a box of the labels that a run turns to first; may be moved while it runs.

    Frames and tiles nearest to it come first; without one, the order is that of the plan. The
    order is looked up for every tile, so a move counts from the tile after the one in work
    and the one that is already being read. Any thread may move it.

    Examples
    --------
    >>> focus = Focus()
    >>> focus.look_at((2, 100.0, 240.0))
    >>> focus.look_at((2, 64, 64), (2, 320, 576))
    >>> focus.look_away()
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._extent: Extent | None = None

    def look_at(self, start: Sequence[float], stop: Sequence[float] | None = None) -> None:
        """Turn to a point, or to the box from ``start`` to ``stop``.

        Parameters
        ----------
        start, stop : sequence of float
            In voxels of the labels, one number per axis of the labels; axes in front may be
            left out, and then have no say.

        Raises
        ------
        OptionsError
            If the two differ in length, or a box ends before it starts.
        """
        first = tuple(float(v) for v in start)
        last = first if stop is None else tuple(float(v) for v in stop)
        if len(first) != len(last) or not all(a <= b for a, b in zip(first, last, strict=True)):
            raise OptionsError(
                f"a focus from {first} to {last} is no box; give one start and one stop per axis, start first"
            )
        with self._lock:
            self._extent = tuple(zip(first, last, strict=True))

    def look_away(self) -> None:
        """Go back to the order of the plan."""
        with self._lock:
            self._extent = None

    @property
    def extent(self) -> Extent | None:
        """Where it is, one ``(start, stop)`` per axis; None when nowhere."""
        with self._lock:
            return self._extent

    def nearest_frame(self, positions: Sequence[tuple[int, ...]], n_spatial: int) -> int:
        """Return which of some frames comes next.

        Parameters
        ----------
        positions : sequence of tuple of int
            Of the frames along the leading axes of the labels, in the order of the plan.
        n_spatial : int
            Number of axes of a frame.
        """
        extent = (self.extent or ())[:-n_spatial]
        return min(range(len(positions)), key=lambda i: _distance(extent, [(p, p) for p in positions[i]]))

    def nearest_tile(self, tiles: Iterable[Tile], scale: Sequence[float]) -> Tile:
        """Return which of some tiles comes next.

        Parameters
        ----------
        tiles : iterable of Tile
            Not empty, in the order of the plan.
        scale : sequence of float
            Voxels of the tiles' grid per voxel of the labels, along each axis of the frame.
        """
        extent = self.extent
        if extent is None:
            return next(iter(tiles))
        scaled = [(a * s, b * s) for (a, b), s in zip(extent[-len(scale) :][::-1], scale[::-1], strict=False)][::-1]
        return min(tiles, key=lambda tile: _distance(scaled, _sides(tile.write)))


def _sides(box: Box) -> list[tuple[float, float]]:
    return [(side.start, side.stop - 1) for side in box]


def _distance(focus: Sequence[tuple[float, float]], box: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Return how far a box is from the focus, and their middles from each other, both squared."""
    gap = middles = 0.0
    # From the last axis on: what the focus leaves out are the axes in front.
    for (start, stop), (low, high) in zip(reversed(focus), reversed(box), strict=False):
        gap += max(low - stop, start - high, 0.0) ** 2
        middles += (start + stop - low - high) ** 2
    return gap, middles
