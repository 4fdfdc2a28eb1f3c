r"""A landscape parted at its valleys, if the valleys are deep enough; any number of dimensions.

Every voxel climbs to its highest neighbour until it stands on a summit; what climbs to the
same summit is a basin. Two basins stay apart only if the lower of their summits rises above
the pass between them by more than a prominence; noise on a slope makes summits, but not
prominent ones::

         a              c
        /\     b       /\         a and b: the pass is hardly lower than b, one basin
       /  \/\_/\      /  \        b and c: a deep valley, two basins
      /         \____/    \

That is the watershed from the h-maxima of the landscape, without a flood: each step is one
pass over the voxels in NumPy, and only the passes between basins are handled one by one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt


def prominent_basins(
    height: npt.NDArray[np.floating[Any]], mask: npt.NDArray[np.bool_], *, prominence: float, least: float
) -> npt.NDArray[np.uint32]:
    """Part a mask into the basins of its prominent summits.

    Parameters
    ----------
    height : numpy.ndarray
        The landscape.
    mask : numpy.ndarray
        bool, of the same shape: where there are basins.
    prominence : float
        Basins are joined unless the lower summit is higher than the pass between them by
        more than this.
    least : float
        Basins whose summit is lower are joined to the neighbour over the highest pass; those
        without a neighbour stay.

    Returns
    -------
    numpy.ndarray
        uint32 of the same shape: 0 outside the mask, basins numbered from 1 without gaps, each
        connected by faces.

    References
    ----------
    .. [1] L. Vincent and P. Soille, "Watersheds in digital spaces", IEEE PAMI 1991,
           doi:10.1109/34.87344
    .. [2] M. Grimaud, "A new measure of contrast: the dynamics", SPIE 1769, 1992,
           doi:10.1117/12.60650
    """
    labels = np.zeros(mask.shape, np.uint32)
    if not mask.any():
        return labels
    land = _Land.of(height, mask)
    basin, summits = land.climb()
    joined = _join(land.passes(basin), summits, prominence, least)
    labels.ravel()[np.flatnonzero(mask)] = joined[basin]
    return labels


@dataclass(frozen=True)
class _Land:
    """The voxels of the mask in a row, with what is needed to step to their neighbours.

    Attributes
    ----------
    height : numpy.ndarray
        Per voxel.
    neighbours : list of numpy.ndarray
        Per axis, the index in the row of each voxel's next neighbour; -1 outside the mask.
    """

    height: npt.NDArray[np.float32]
    neighbours: list[npt.NDArray[np.signedinteger[Any]]]

    @classmethod
    def of(cls, height: npt.NDArray[np.floating[Any]], mask: npt.NDArray[np.bool_]) -> _Land:
        # A rim of background makes every step valid.
        inside = np.pad(mask, 1)
        small = np.dtype(np.int32 if inside.size < np.iinfo(np.int32).max else np.int64)
        place: npt.NDArray[np.signedinteger[Any]] = np.flatnonzero(inside).astype(small)
        index = np.full(inside.size, -1, small)
        index[place] = np.arange(place.size, dtype=small)
        steps = [math.prod(inside.shape[axis + 1 :]) for axis in range(inside.ndim)]
        values = np.ravel(height)[np.flatnonzero(mask)].astype(np.float32, copy=False)
        return cls(values, [index[place + small.type(step)] for step in steps])

    def climb(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        """Return the basin of every voxel, from 0, and the height of every basin's summit."""
        above = np.arange(self.height.size, dtype=self.neighbours[0].dtype)
        best = self.height.copy()
        for after in self.neighbours:
            lower = np.flatnonzero(after >= 0)
            upper = after[lower]
            for here, there in ((lower, upper), (upper, lower)):
                # Each voxel stands once in `here`: it has one neighbour in this direction.
                higher = self.height[there] > best[here]
                climbing, towards = here[higher], there[higher]
                above[climbing], best[climbing] = towards, self.height[towards]
        while True:
            further = above[above]
            if np.array_equal(further, above):
                break
            above = further
        is_summit = above == np.arange(above.size, dtype=above.dtype)
        number = np.cumsum(is_summit) - 1
        return number[above], self.height[is_summit]

    def passes(self, basin: npt.NDArray[np.int64]) -> list[tuple[int, int, float]]:
        """Return the highest pass between each pair of neighbouring basins, highest first."""
        n_basins = int(basin.max()) + 1
        pairs, heights = [], []
        for after in self.neighbours:
            here = np.flatnonzero(after >= 0)
            there = after[here]
            a, b = basin[here], basin[there]
            apart = a != b
            low, high = np.minimum(a[apart], b[apart]), np.maximum(a[apart], b[apart])
            pairs.append(low * n_basins + high)
            heights.append(np.minimum(self.height[here[apart]], self.height[there[apart]]))
        pair, height = np.concatenate(pairs), np.concatenate(heights)
        order = np.argsort(-height, kind="stable")
        pair, height = pair[order], height[order]
        _, first = np.unique(pair, return_index=True)
        first.sort()
        low, high = np.divmod(pair[first], n_basins)
        return list(zip(low.tolist(), high.tolist(), height[first].tolist(), strict=True))


def _join(
    passes: list[tuple[int, int, float]], summits: npt.NDArray[np.float32], prominence: float, least: float
) -> npt.NDArray[np.uint32]:
    """Return the number, from 1, that each basin has after joining over the passes."""
    parent = list(range(summits.size))
    summit = summits.tolist()

    def root(basin: int) -> int:
        while parent[basin] != basin:
            parent[basin] = parent[parent[basin]]
            basin = parent[basin]
        return basin

    for a, b, height in passes:
        high, low = root(a), root(b)
        if summit[high] < summit[low]:
            high, low = low, high
        if high != low and (summit[low] - height <= prominence or summit[low] < least):
            parent[low] = high
    roots = np.array([root(basin) for basin in range(summits.size)])
    return (np.unique(roots, return_inverse=True)[1].reshape(-1) + 1).astype(np.uint32)
