r"""Maps to labels, and the joining of slices; 2D and 3D alike.

The centre map of an object voxel (:mod:`napari_tiled_unet.centre`) is 1 at the centre, falling
to 0 at the border, with one summit per object however elongated it is. Touching
objects have a valley between them, and are parted there if it is deep enough::

    centre map          /\    /\        /\
                       /  \  /  \      /  \
                      /    \/    \    /    \
    foreground      [______________]  [______]   a valley: two objects
                     one    two        three     no valley: that object, as it is
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_tiled_unet.crew import BAND_VOXELS, Crew
from napari_tiled_unet.errors import ImageError, OptionsError
from napari_tiled_unet.metrics import Pairs, consecutive, overlapping_pairs
from napari_tiled_unet.summits import basins_of_land

Labels = npt.NDArray[Any]
Maps = npt.NDArray[np.floating[Any]]
Mask = npt.NDArray[np.bool_]
Objects = npt.NDArray[np.uint32]

# Voxels of Gaussian blur that quiet the centre map before its summits are sought.
_QUIET, _QUIET_REACH = 0.7, 2


def classes_from_maps(
    probabilities: Maps, background: int | None = 0, *, band_voxels: int = BAND_VOXELS, threads: int = 1
) -> Labels:
    """Return the most probable class of every voxel.

    Parameters
    ----------
    probabilities : numpy.ndarray
        ``(k, [z,] y, x)``.
    background : int or None
        Class that becomes label 0; None numbers the classes from 1.
    band_voxels : int
        Voxels that a thread has in work at once; the labels do not depend on it.
    threads : int
        Threads that share the work; the labels do not depend on it.

    Returns
    -------
    numpy.ndarray
        ``([z,] y, x)`` uint8, or uint16 above 255 classes. With a background, the other
        classes keep their order from 1. Of equally probable classes the first is taken.

    Raises
    ------
    OptionsError
        If the background is none of the classes.
    """
    n_classes = len(probabilities)
    if background is not None and not 0 <= background < n_classes:
        raise OptionsError(f"background={background} is none of the {n_classes} classes 0 to {n_classes - 1}")
    numbers = [k + 1 if background is None or k < background else k for k in range(n_classes)]
    if background is not None:
        numbers[background] = 0
    labels = np.full(probabilities.shape[1:], numbers[0], np.uint8 if n_classes <= 255 else np.uint16)
    single = _of_each(lambda values: values.astype(np.promote_types(values.dtype, np.float32)), probabilities.dtype)

    def choose(band: slice) -> None:
        # Class after class takes half the time of argmax.
        highest = single(probabilities[0, band])
        for number, values in zip(numbers[1:], probabilities[1:], strict=True):
            probability = single(values[band])
            np.copyto(labels[band], number, where=probability > highest)
            np.maximum(highest, probability, out=highest)

    with Crew(labels.shape, band_voxels, threads) as crew:
        crew.each(choose)
    return labels


def objects_from_maps(
    maps: Maps,
    *,
    foreground_threshold: float = 0.5,
    seed_threshold: float = 0.3,
    seed_prominence: float = 0.1,
    min_size: int = 0,
    fill_holes: bool = True,
    band_voxels: int = BAND_VOXELS,
    threads: int = 1,
) -> Objects:
    """Return objects from foreground and centre map by watershed from the map's summits.

    Parameters
    ----------
    maps : numpy.ndarray
        ``(2, [z,] y, x)`` float of any width: foreground probability and centre map, both 0 to 1.
    foreground_threshold : float
        Voxels of higher probability are object.
    seed_threshold : float
        Least centre value of an object's summit; what has a lower one joins its neighbour, and
        is dropped where there is none.
    seed_prominence : float
        How far the centre map must fall between two summits for them to be two objects.
    min_size : int
        Objects of fewer voxels are dropped, before holes are filled.
    fill_holes : bool
        Fill background that one object encloses.
    band_voxels : int
        Voxels that a thread has in work at once; the objects do not depend on it.
    threads : int
        Threads that share the work; the objects do not depend on it.

    Returns
    -------
    numpy.ndarray
        ``([z,] y, x)`` uint32, objects numbered from 1 without gaps, each connected by faces.

    Raises
    ------
    ImageError
        If there are not two maps in two or three dimensions.

    See Also
    --------
    napari_tiled_unet.summits.prominent_basins : how summits become objects, with the sources.
    """
    if maps.ndim not in (3, 4) or len(maps) != 2:
        raise ImageError(
            f"maps have shape {maps.shape}; objects need (2, [z,] y, x), the foreground and the centre map"
        )
    if 0 in maps.shape:
        return np.zeros(maps.shape[1:], np.uint32)
    land = _quiet_centre(maps, foreground_threshold, band_voxels, threads)
    labels = basins_of_land(
        land, prominence=seed_prominence, least=seed_threshold, band_voxels=band_voxels, threads=threads
    )
    del land
    with Crew(labels.shape, band_voxels, threads) as crew:
        _drop_small(labels, min_size, crew)
        return _filled_in_place(labels, crew) if fill_holes else labels


def _quiet_centre(maps: Maps, threshold: float, band_voxels: int, threads: int) -> npt.NDArray[np.float32]:
    """Return the centre map without its noise, minus infinity outside the foreground."""
    foreground, centre = maps
    land = np.empty(centre.shape, np.float32)
    single = _of_each(lambda values: values.astype(np.float32, copy=False), maps.dtype)
    outside = _of_each(lambda values: ~(values > threshold), maps.dtype)
    # Past its ends the first axis is mirrored.
    rows = np.pad(np.arange(len(centre)), _QUIET_REACH, mode="symmetric")

    def quiet(band: slice) -> None:
        near = rows[band.start : band.stop + 2 * _QUIET_REACH]
        inner = near[-1] - near[0] == near.size - 1
        blurred = _blurred(single(centre[near[0] : near[-1] + 1] if inner else centre[near]), 0)
        for axis in range(1, centre.ndim):
            margin = [(_QUIET_REACH if k == axis else 0,) * 2 for k in range(centre.ndim)]
            blurred = _blurred(np.pad(blurred, margin, mode="symmetric"), axis)
        land[band] = np.where(outside(foreground[band]), np.float32(-np.inf), blurred)

    with Crew(land.shape, band_voxels, threads) as crew:
        crew.each(quiet)
    return land


def _blurred(wide: npt.NDArray[np.float32], axis: int) -> npt.NDArray[np.float32]:
    """Return a Gaussian blur along an axis, without the margins that it reaches into.

    With SciPy's filter, which computes in doubles and the margins too, quieting takes 1.5 times as long in 2D and three
    times in 3D.
    """
    weights = np.exp(-0.5 * (np.arange(_QUIET_REACH + 1) / _QUIET) ** 2)
    weights = (weights / (weights[0] + 2 * weights[1:].sum())).astype(np.float32)
    side = wide.shape[axis] - 2 * _QUIET_REACH

    def moved(by: int) -> npt.NDArray[np.float32]:
        start = _QUIET_REACH + by
        return wide[(slice(None),) * axis + (slice(start, start + side),)]

    blurred: npt.NDArray[np.float32] = moved(0) * weights[0]
    for step in range(1, _QUIET_REACH + 1):
        pair = moved(-step) + moved(step)
        pair *= weights[step]
        blurred += pair
    return blurred


def _of_each(function: Callable[[Maps], npt.NDArray[Any]], dtype: np.dtype[Any]) -> Callable[[Maps], npt.NDArray[Any]]:
    """Return a function of single numbers; of halves, which NumPy computes with in software, as a table of them all."""
    if dtype != np.float16 or not dtype.isnative:
        return function
    table = function(np.arange(2**16, dtype=np.uint16).view(np.float16))
    return lambda values: table.take(values.view(np.uint16))


def _drop_small(labels: Objects, min_size: int, crew: Crew) -> None:
    """Drop small objects, in place, and number the rest from 1 in their order; there are no gaps before."""
    if min_size <= 1:
        return
    highest = int(max(crew.each(lambda band: labels[band].max(initial=0)), default=0))
    sizes = np.zeros(highest + 1, np.int64)
    # Band by band, since counting widens what it is given.
    for counted in crew.each(lambda band: np.bincount(labels[band].reshape(-1).view(np.int32))):
        sizes[: counted.size] += counted
    keep = sizes >= min_size
    keep[0] = False
    if keep[1:].all():
        return
    number = np.where(keep, np.cumsum(keep), 0).astype(np.uint32)

    def renumber(band: slice) -> None:
        labels[band] = number.take(labels[band])

    crew.each(renumber)


def _components(mask: Mask) -> tuple[Objects, int]:
    """Return the parts of a mask that hang together by faces, numbered, and how many they are."""
    import cc3d

    numbered, count = cc3d.connected_components(
        np.ascontiguousarray(mask), connectivity=6 if mask.ndim == 3 else 4, out_dtype=np.uint32, return_N=True
    )
    return numbered.astype(np.uint32, copy=False), int(count)


def remove_small(labels: Labels, min_size: int) -> Objects:
    """Drop small objects and number the rest from 1 without gaps.

    Parameters
    ----------
    labels : numpy.ndarray
        Integer labels in two or three dimensions, 0 is background; numbers may have gaps.
    min_size : int
        Objects of fewer voxels are dropped.

    Returns
    -------
    numpy.ndarray
        uint32, the kept objects in the order of their numbers.

    Raises
    ------
    ImageError
        If labels are not integers in two or three dimensions.
    """
    check_labels(labels)
    flat, sizes = consecutive(labels)
    keep = sizes >= min_size
    keep[0] = False
    number = np.where(keep, np.cumsum(keep), 0).astype(np.uint32)
    kept: Objects = number[flat].reshape(labels.shape)
    return kept


def fill_object_holes(labels: Labels) -> Objects:
    """Fill background that a single object encloses; holes between several objects stay.

    Parameters
    ----------
    labels : numpy.ndarray
        ``([z,] y, x)`` integer labels, 0 is background.

    Returns
    -------
    numpy.ndarray
        uint32 labels; the input is not changed. Background that reaches the border of the
        image is no hole, and background hangs together by faces.

    Raises
    ------
    ImageError
        If labels are not integers in two or three dimensions.
    """
    check_labels(labels)
    filled = labels.astype(np.uint32, order="C")
    with Crew(filled.shape) as crew:
        return _filled_in_place(filled, crew)


def _filled_in_place(filled: Objects, crew: Crew) -> Objects:
    gaps, n_gaps = _components(filled == 0)
    closed = np.ones(n_gaps + 1, bool)
    closed[0] = False
    for axis in range(filled.ndim):
        for end in (0, -1):
            closed[np.take(gaps, end, axis=axis).ravel()] = False
    if not closed.any():
        return filled
    row = math.prod(filled.shape[1:])
    # Band by band, since numbers are widened to look them up.
    found = crew.each(lambda band: np.flatnonzero(closed.take(gaps[band])) + band.start * row)
    holes = np.concatenate([*found, np.zeros(0, np.intp)])
    hole, flat = gaps.ravel()[holes], filled.ravel()
    lowest = np.full(n_gaps + 1, np.iinfo(np.uint32).max, np.uint32)
    highest = np.zeros(n_gaps + 1, np.uint32)
    for stride in (s // filled.itemsize for s in filled.strides):
        for step in (-stride, stride):
            # A closed hole has no voxel at the border of the image: the neighbour exists.
            beside = flat[holes + step]
            objects = beside > 0
            np.minimum.at(lowest, hole[objects], beside[objects])
            np.maximum.at(highest, hole[objects], beside[objects])
    flat[holes] = np.where(lowest == highest, highest, 0)[hole]
    return filled


def link_slices(labels: Labels, *, min_overlap: float = 0.5) -> Objects:
    """Join the 2D objects of neighbouring slices into 3D objects.

    Parameters
    ----------
    labels : numpy.ndarray
        ``(z, y, x)`` integers; each slice has its own objects, the same number in two slices
        means nothing.
    min_overlap : float
        Least intersection over union of two objects that are joined, 0 to 1. They must also
        be each other's best partner; of equal partners the one of lower number is the best.

    Returns
    -------
    numpy.ndarray
        ``(z, y, x)`` uint32, objects numbered from 1 without gaps, in the order of the slices.

    Raises
    ------
    ImageError
        If labels are not integers in three dimensions.
    OptionsError
        If the overlap is outside its range.
    """
    check_labels(labels)
    if labels.ndim != 3:
        raise ImageError(f"labels have shape {labels.shape}; linking slices needs (z, y, x)")
    if not 0 <= min_overlap <= 1:
        raise OptionsError(
            f"min_overlap={min_overlap} is outside its range; give a number from 0 to 1, for example 0.5"
        )
    linked = np.zeros(labels.shape, np.uint32)
    above: Objects = np.zeros(0, np.uint32)
    n_objects = 0
    for z, plane in enumerate(labels):
        flat, sizes = consecutive(plane)
        numbers = np.zeros(len(sizes), np.uint32)
        if z:
            here, there = _best_of_each_other(overlapping_pairs(plane, labels[z - 1]), min_overlap)
            numbers[here + 1] = above[there + 1]
        fresh = np.flatnonzero(numbers[1:] == 0) + 1
        numbers[fresh] = n_objects + np.arange(1, fresh.size + 1)
        n_objects += fresh.size
        linked[z] = numbers[flat].reshape(plane.shape)
        above = numbers
    return linked


def _best_of_each_other(pairs: Pairs, min_overlap: float) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Return the indices of the objects that are each other's best partner and overlap enough."""

    def is_best(one: npt.NDArray[np.intp], other: npt.NDArray[np.intp]) -> Mask:
        order = np.lexsort((other, -pairs.iou, one))
        best = np.zeros(one.size, bool)
        best[order[np.flatnonzero(np.diff(one[order], prepend=-1))]] = True
        return best

    joined = is_best(pairs.first, pairs.second) & is_best(pairs.second, pairs.first) & (pairs.iou >= min_overlap)
    return pairs.first[joined], pairs.second[joined]


def check_labels(labels: Labels) -> None:
    """Refuse what are no labels of one frame.

    Raises
    ------
    ImageError
        If they are not integers in two or three dimensions.
    """
    if labels.dtype.kind not in "ui" or labels.ndim not in (2, 3):
        raise ImageError(
            f"labels are {labels.dtype} of shape {labels.shape}; they must be integers ([z,] y, x) with 0 as background"
        )
