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
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_tiled_unet.errors import ImageError, OptionsError
from napari_tiled_unet.metrics import Pairs, consecutive, overlapping_pairs
from napari_tiled_unet.summits import BAND_VOXELS, bands, basins_of_land

Labels = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]
Objects = npt.NDArray[np.uint32]

# Voxels of Gaussian blur that quiet the centre map before its summits are sought.
_QUIET, _QUIET_REACH = 0.7, 2


def classes_from_maps(probabilities: npt.NDArray[np.floating[Any]], background: int | None = 0) -> Labels:
    """Return the most probable class of every voxel.

    Parameters
    ----------
    probabilities : numpy.ndarray
        ``(k, [z,] y, x)``.
    background : int or None
        Class that becomes label 0; None numbers the classes from 1.

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
    # Class after class takes half the time of argmax, and no int64 array of the whole frame.
    highest = probabilities[0].copy()
    labels = np.full(highest.shape, numbers[0], np.uint8 if n_classes <= 255 else np.uint16)
    for number, probability in zip(numbers[1:], probabilities[1:], strict=True):
        labels[probability > highest] = number
        np.maximum(highest, probability, out=highest)
    return labels


def objects_from_maps(
    maps: npt.NDArray[np.floating[Any]],
    *,
    foreground_threshold: float = 0.5,
    seed_threshold: float = 0.3,
    seed_prominence: float = 0.1,
    min_size: int = 0,
    fill_holes: bool = True,
    band_voxels: int = BAND_VOXELS,
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
        Voxels that are in work at once; the objects do not depend on it.

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
    land = _quiet_centre(maps, foreground_threshold, band_voxels)
    labels = basins_of_land(land, prominence=seed_prominence, least=seed_threshold, band_voxels=band_voxels)
    del land
    _drop_small(labels, min_size, band_voxels)
    return _filled_in_place(labels) if fill_holes else labels


def _quiet_centre(maps: npt.NDArray[np.floating[Any]], threshold: float, band_voxels: int) -> npt.NDArray[np.float32]:
    """Return the centre map without its noise, minus infinity outside the foreground."""
    from scipy.ndimage import gaussian_filter

    shape = maps.shape[1:]
    land = np.empty(shape, np.float32)
    # A few rows at least, or most of the work were rows of the neighbours.
    for band in bands(shape, max(band_voxels, 4 * _QUIET_REACH * math.prod(shape[1:]))):
        # The blur reaches this far; rows further away cannot change the band.
        start = max(0, band.start - _QUIET_REACH)
        centre = maps[1, start : band.stop + _QUIET_REACH].astype(np.float32, copy=False)
        blurred = gaussian_filter(centre, _QUIET, output=np.float32, radius=_QUIET_REACH)
        land[band] = blurred[band.start - start : band.stop - start]
        np.copyto(land[band], np.float32(-np.inf), where=maps[0, band] <= threshold)
    return land


def _drop_small(labels: Objects, min_size: int, band_voxels: int) -> None:
    """Drop small objects, in place, and number the rest from 1 in their order; there are no gaps before."""
    if min_size <= 1:
        return
    # int32 and band by band, since counting widens what it is given.
    highest = int(labels.max(initial=0))
    sizes = np.zeros(highest + 1, np.int64)
    for band in bands(labels.shape, band_voxels):
        sizes += np.bincount(labels[band].reshape(-1), minlength=highest + 1)
    keep = sizes >= min_size
    keep[0] = False
    if keep[1:].all():
        return
    number = np.where(keep, np.cumsum(keep), 0).astype(np.uint32)
    for band in bands(labels.shape, band_voxels):
        labels[band] = number[labels[band]]


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
    return _filled_in_place(labels.astype(np.uint32, order="C"))


def _filled_in_place(filled: Objects) -> Objects:
    gaps, n_gaps = _components(filled == 0)
    closed = np.ones(n_gaps + 1, bool)
    closed[0] = False
    for axis in range(filled.ndim):
        for end in (0, -1):
            closed[np.take(gaps, end, axis=axis).ravel()] = False
    if not closed.any():
        return filled
    holes = np.flatnonzero(closed[gaps])
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
