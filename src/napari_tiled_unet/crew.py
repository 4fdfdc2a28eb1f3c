"""Threads that share the work on an array, band by band along its first axis.

NumPy lets other threads compute while it works on a band, so they need no processes and no copies.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Self, TypeVar

Result = TypeVar("Result")

BAND_VOXELS = 2**17
"""Voxels of a band, at least one row of the first axis: what is in work stays in the cache."""


class Crew:
    """Threads, and the bands that they take one after the other; a context that ends with them.

    Parameters
    ----------
    shape : tuple of int
        Of the array.
    voxels : int
        Voxels of a band, which has at least one row of the first axis.
    threads : int
        How many bands are in work at once, at most.

    Attributes
    ----------
    bands : list of slice
        Along the first axis, in their order.
    threads : int
        How many are in work at once: fewer where that were more than a part in 32 of a large array.
    """

    def __init__(self, shape: tuple[int, ...], voxels: int = BAND_VOXELS, threads: int = 1) -> None:
        row = max(1, math.prod(shape[1:]))
        rows = max(1, voxels // row)
        self.bands = [slice(start, min(start + rows, shape[0])) for start in range(0, shape[0], rows)]
        # Rows of a stack are whole planes: what is in work at once must stay small beside the array.
        in_work = max(16 * voxels, shape[0] * row // 32)
        self.threads = max(1, min(threads, len(self.bands), in_work // (rows * row)))
        self._pool = ThreadPoolExecutor(self.threads) if self.threads > 1 else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown()

    def each(self, work: Callable[[slice], Result], bands: Sequence[slice] | None = None) -> list[Result]:
        """Do some work on every band, or on those given, and return the results in their order.

        The first exception that the work raises is raised, when the others are through.
        """
        given = self.bands if bands is None else bands
        return list(map(work, given) if self._pool is None else self._pool.map(work, given))
