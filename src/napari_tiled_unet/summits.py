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
walked in bands that fit the processor's cache, some of them side by side; a band sees the row
before and the row after it, so the basins are those of the whole. Beside the landscape there is one array of its
size: first where each voxel climbs to, then its basin, then its label.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_tiled_unet.crew import BAND_VOXELS, Crew

Land = npt.NDArray[np.float32]
Whole = npt.NDArray[np.signedinteger[Any]]

_OUTSIDE = np.float32(-np.inf)
# Rounds in which a band's voxels follow their chains before the other bands have their turn.
_ROUNDS = 6


def prominent_basins(
    height: npt.NDArray[np.floating[Any]],
    mask: npt.NDArray[np.bool_],
    *,
    prominence: float,
    least: float,
    band_voxels: int = BAND_VOXELS,
    threads: int = 1,
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
        Voxels that a thread has in work at once; the basins do not depend on it.
    threads : int
        Threads that share the work; the basins do not depend on it.

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
    return basins_of_land(land, prominence=prominence, least=least, band_voxels=band_voxels, threads=threads)


def basins_of_land(
    land: Land, *, prominence: float, least: float, band_voxels: int = BAND_VOXELS, threads: int = 1
) -> npt.NDArray[np.uint32]:
    """Part a landscape whose outside is minus infinity; as :func:`prominent_basins`."""
    with Crew(land.shape, band_voxels, threads) as crew:
        basins, summits = _climb(np.ascontiguousarray(land), crew)
        if not summits.size:
            return basins.astype(np.uint32)
        number = _join(*_passes(land, basins, summits.size, crew), summits, prominence, least)
        labels = basins if basins.dtype == np.int32 else np.empty(basins.shape, np.int32)

        def tell(band: slice) -> None:
            labels[band] = number.take(basins[band])

        crew.each(tell)
    return labels.view(np.uint32)


def _climb(land: Land, crew: Crew) -> tuple[Whole, Land]:
    """Return the basin of every voxel, from 1, 0 outside, and the height of every basin's summit."""
    small = np.dtype(np.int32 if land.size < np.iinfo(np.int32).max else np.int64)
    # At or above 0 is the voxel to climb to, below 0 the number of a basin, bit by bit inverted.
    above: Whole = np.empty(land.shape, small)
    pointers = above.reshape(-1)
    row = math.prod(land.shape[1:])

    def part(band: slice) -> slice:
        return slice(band.start * row, band.stop * row)

    def begin(band: slice) -> npt.NDArray[np.intp]:
        here, outside = above[band], ~(land[band] > _OUTSIDE)
        first = band.start * row
        here[...] = np.arange(first, first + here.size, dtype=small).reshape(here.shape)
        steps = _steps(land, band)
        here += steps
        np.copyto(here, ~0, where=outside)
        summits: npt.NDArray[np.intp] = np.flatnonzero((steps == 0) & ~outside) + first
        return summits

    summits = np.concatenate([*crew.each(begin), np.zeros(0, np.intp)])
    pointers[summits] = ~np.arange(1, summits.size + 1, dtype=small)
    unfinished = crew.bands
    while unfinished:
        done = crew.each(lambda band: _follow(pointers, part(band)), unfinished)
        unfinished = [band for band, ended in zip(unfinished, done, strict=True) if not ended]
    crew.each(lambda band: np.invert(above[band], out=above[band]))
    return above, land.reshape(-1)[summits]


def _steps(land: Land, band: slice) -> Whole:
    """Return how far along the row of all voxels each voxel of a band steps to climb."""
    best = land[band].copy()
    steps = np.zeros(best.shape, np.int32 if land.size < np.iinfo(np.int32).max else np.int64)
    for axis in range(land.ndim):
        stride = math.prod(land.shape[axis + 1 :])
        for way in (1, -1):
            here, there = _beside(land.shape, band, axis, way)
            ahead, so_far = land[there], best[here]
            higher = ahead > so_far
            np.copyto(so_far, ahead, where=higher)
            np.copyto(steps[here], way * stride, where=higher)
    return steps


def _beside(shape: tuple[int, ...], band: slice, axis: int, way: int) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Return the voxels of a band that have a neighbour that way, in the band and in the whole."""
    if axis:
        before = (slice(None),) * (axis - 1)
        low, high = slice(None, -1), slice(1, None)
        here, there = (low, high) if way > 0 else (high, low)
        return (slice(None), *before, here), (band, *before, there)
    start, stop = max(band.start + way, 0), min(band.stop + way, shape[0])
    return (slice(start - way - band.start, stop - way - band.start),), (slice(start, stop),)


def _follow(pointers: npt.NDArray[Any], part: slice) -> bool:
    """Put the numbers of basins in the place of pointers to them, for a part; return whether there are none left.

    Each round doubles how far the part's pointers see, or goes on by one where the chain leads to voxels that have
    not been followed: so it gives up after some rounds, for the other parts to be followed first.
    """
    own = pointers[part]
    voxels = np.flatnonzero(own >= 0)
    here = own.take(voxels)
    for _ in range(_ROUNDS):
        # ``take`` needs less than half of the time of an index in brackets, for int32.
        here = pointers.take(here)
        own[voxels] = here
        climbing = here >= 0
        if not climbing.any():
            return True
        voxels, here = voxels[climbing], here[climbing]
    return False


def _passes(
    land: Land, basins: Whole, n_summits: int, crew: Crew
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], Land]:
    """Return neighbouring basins, each pair once, and the highest pass between them, highest first."""

    def within(band: slice) -> list[tuple[npt.NDArray[np.int64], Land]]:
        found = []
        for axis in range(land.ndim):
            here, there = _beside(land.shape, band, axis, 1)
            a, b = basins[band][here], basins[there]
            apart = np.flatnonzero((a != b) & (a > 0) & (b > 0))
            if not apart.size:
                continue
            low, high = a.reshape(-1)[apart].astype(np.int64), b.reshape(-1)[apart].astype(np.int64)
            pair = np.minimum(low, high) * (n_summits + 1) + np.maximum(low, high)
            found.append(
                _highest(pair, np.minimum(land[band][here].reshape(-1)[apart], land[there].reshape(-1)[apart]))
            )
        return found

    found = [one for band in crew.each(within) for one in band]
    if not found:
        return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32)
    pair, height = _highest(np.concatenate([pair for pair, _ in found]), np.concatenate([h for _, h in found]))
    order = np.argsort(-height, kind="stable")
    low, high = np.divmod(pair[order], n_summits + 1)
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
