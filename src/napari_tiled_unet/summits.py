r"""A landscape parted at its valleys, if the valleys are deep enough; any number of dimensions.

Every voxel climbs to its highest neighbour until it stands on a summit; what climbs to the
same summit is a basin. Two basins stay apart only if the lower of their summits rises above
the pass between them by more than a prominence; noise on a slope makes summits, but not
prominent ones::

         a              c
        /\     b       /\         a and b: the pass is hardly lower than b, one basin
       /  \/\_/\      /  \        b and c: a deep valley, two basins
      /         \____/    \

That is the watershed from the h-maxima of the landscape, without a flood. The landscape is
walked in bands that fit the processor's cache; a band sees the row before and the row after
it, so the basins are those of the whole. Beside the landscape there is one array of its
size: first where each voxel climbs to, then its basin, then its label.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

BAND_VOXELS = 2**17
"""Voxels of a band, at least one row of the first axis: what is in work stays in the cache."""

Land = npt.NDArray[np.float32]
Whole = npt.NDArray[np.signedinteger[Any]]

_OUTSIDE = np.float32(-np.inf)


def prominent_basins(
    height: npt.NDArray[np.floating[Any]],
    mask: npt.NDArray[np.bool_],
    *,
    prominence: float,
    least: float,
    band_voxels: int = BAND_VOXELS,
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
        without a neighbour are left out.
    band_voxels : int
        Voxels that are in work at once; the basins do not depend on it.

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
    land = np.where(mask, height, _OUTSIDE).astype(np.float32, copy=False)
    return basins_of_land(land, prominence=prominence, least=least, band_voxels=band_voxels)


def basins_of_land(
    land: Land, *, prominence: float, least: float, band_voxels: int = BAND_VOXELS
) -> npt.NDArray[np.uint32]:
    """Part a landscape whose outside is minus infinity; as :func:`prominent_basins`."""
    rows = list(bands(land.shape, band_voxels))
    basins, summits = _climb(np.ascontiguousarray(land), rows)
    if not summits.size:
        return basins.astype(np.uint32)
    number = _join(*_passes(land, basins, rows), summits, prominence, least)
    labels = basins if basins.dtype == np.int32 else np.empty(basins.shape, np.int32)
    for band in rows:
        labels[band] = number[basins[band]]
    return labels.view(np.uint32)


def bands(shape: tuple[int, ...], voxels: int = BAND_VOXELS) -> Iterator[slice]:
    """Cut the first axis into bands of at most so many voxels, at least one row each."""
    rows = max(1, voxels // max(1, math.prod(shape[1:])))
    for start in range(0, shape[0], rows):
        yield slice(start, min(start + rows, shape[0]))


def _climb(land: Land, rows: list[slice]) -> tuple[Whole, Land]:
    """Return the basin of every voxel, from 1, 0 outside, and the height of every basin's summit."""
    small = np.dtype(np.int32 if land.size < np.iinfo(np.int32).max else np.int64)
    above: Whole = np.empty(land.shape, small)
    row = math.prod(land.shape[1:])
    for band in rows:
        first = band.start * row
        here = above[band]
        here[...] = np.arange(first, first + here.size, dtype=small).reshape(here.shape)
        here += _steps(land, band, small)
    pointers = above.reshape(-1)
    heights = land.reshape(-1)
    parts = [slice(band.start * row, band.stop * row) for band in rows]
    _follow(pointers, parts)
    summits = np.concatenate(
        [
            part.start
            + np.flatnonzero(
                (pointers[part] == np.arange(part.start, part.stop, dtype=small)) & (heights[part] > _OUTSIDE)
            )
            for part in parts
        ]
        or [np.zeros(0, np.intp)]
    )
    # Summits hold their number below 0 while the others are still being told it: they point at or above 0.
    pointers[summits] = -1 - np.arange(summits.size, dtype=small)
    for part in parts:
        here = pointers[part]
        pointers[part] = np.where(here < 0, here, pointers[np.maximum(here, 0)])
    for part in parts:
        here = pointers[part]
        np.negative(here, out=here)
        np.maximum(here, 0, out=here)
    return above, heights[summits]


def _steps(land: Land, band: slice, small: np.dtype[Any]) -> Whole:
    """Return how far along the row of all voxels each voxel of a band steps to climb."""
    best = land[band].copy()
    direction = np.zeros(best.shape, np.int8)
    steps = [0]
    for axis in range(land.ndim):
        for way in (1, -1):
            steps.append(way * math.prod(land.shape[axis + 1 :]))
            here, there = _beside(land.shape, band, axis, way)
            ahead, so_far = land[there], best[here]
            higher = ahead > so_far
            np.copyto(so_far, ahead, where=higher)
            np.copyto(direction[here], np.int8(len(steps) - 1), where=higher)
    direction[land[band] == _OUTSIDE] = 0
    return np.array(steps, small)[direction]


def _beside(shape: tuple[int, ...], band: slice, axis: int, way: int) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Return the voxels of a band that have a neighbour that way, in the band and in the whole."""
    if axis:
        before = (slice(None),) * (axis - 1)
        low, high = slice(None, -1), slice(1, None)
        here, there = (low, high) if way > 0 else (high, low)
        return (slice(None), *before, here), (band, *before, there)
    start, stop = max(band.start + way, 0), min(band.stop + way, shape[0])
    return (slice(start - way - band.start, stop - way - band.start),), (slice(start, stop),)


def _follow(pointers: npt.NDArray[Any], parts: list[slice]) -> None:
    """Let every pointer point to the end of its chain, in place."""
    while parts:
        unfinished = []
        for part in parts:
            here = pointers[part]
            further = pointers[here]
            if not np.array_equal(here, further):
                pointers[part] = further
                unfinished.append(part)
        parts = unfinished


def _passes(land: Land, basins: Whole, rows: list[slice]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], Land]:
    """Return neighbouring basins, each pair once, and the highest pass between them, highest first."""
    n_basins = int(max(basins[band].max() for band in rows)) + 1
    pairs, heights = [], []
    for band in rows:
        for axis in range(land.ndim):
            here, there = _beside(land.shape, band, axis, 1)
            a, b = basins[band][here], basins[there]
            apart = np.flatnonzero((a != b) & (a > 0) & (b > 0))
            if not apart.size:
                continue
            low, high = a.reshape(-1)[apart].astype(np.int64), b.reshape(-1)[apart].astype(np.int64)
            pair = np.minimum(low, high) * n_basins + np.maximum(low, high)
            height = np.minimum(land[band][here].reshape(-1)[apart], land[there].reshape(-1)[apart])
            pair, height = _highest(pair, height)
            pairs.append(pair)
            heights.append(height)
    if not pairs:
        return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32)
    pair, height = _highest(np.concatenate(pairs), np.concatenate(heights))
    order = np.argsort(-height, kind="stable")
    low, high = np.divmod(pair[order], n_basins)
    return low, high, height[order]


def _highest(pair: npt.NDArray[np.int64], height: Land) -> tuple[npt.NDArray[np.int64], Land]:
    """Return each pair once, ascending, with the highest of its heights."""
    order = np.argsort(pair)
    pair = pair[order]
    first = np.flatnonzero(np.diff(pair, prepend=-1))
    return pair[first], np.maximum.reduceat(height[order], first)


def _join(
    low: npt.NDArray[np.int64],
    high: npt.NDArray[np.int64],
    heights: Land,
    summits: Land,
    prominence: float,
    least: float,
) -> npt.NDArray[np.int32]:
    """Return the number, from 1, that each basin has after joining over the passes; 0 for none."""
    parent = list(range(summits.size + 1))
    summit = [0.0, *summits.tolist()]

    def root(basin: int) -> int:
        while parent[basin] != basin:
            parent[basin] = parent[parent[basin]]
            basin = parent[basin]
        return basin

    for a, b, height in zip(low.tolist(), high.tolist(), heights.tolist(), strict=True):
        upper, lower = root(a), root(b)
        if summit[upper] < summit[lower]:
            upper, lower = lower, upper
        if upper != lower and (summit[lower] - height <= prominence or summit[lower] < least):
            parent[lower] = upper
    roots = np.array([root(basin) for basin in range(len(parent))])
    # What has joined no summit that is high enough has no seed, and is no object.
    roots[np.asarray(summit)[roots] < least] = 0
    return np.unique(roots, return_inverse=True)[1].reshape(-1).astype(np.int32)
