"""Maps to labels, labels to the centre map, and the joining of slices; 2D and 3D alike.

The centre map of an object voxel is ``d_border / (d_border + d_centre)``: 1 at the centre,
falling to 0 at the border, with one summit per object however elongated it is. Two
touching objects have a valley between them where the watershed puts its line.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Labels = npt.NDArray[Any]

# Levels of the centre map that the watershed tells apart; more only cost time.
_LEVELS = 255


def classes_from_maps(probabilities: npt.NDArray[np.float32], background: int | None = 0) -> npt.NDArray[np.uint8]:
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
        ``([z,] y, x)`` uint8. With a background, the other classes keep their order from 1.
    """
    best: npt.NDArray[np.intp] = probabilities.argmax(axis=0)
    if background is None:
        return (best + 1).astype(np.uint8)
    order = np.arange(1, len(probabilities) + 1)
    order[background:] -= 1
    order[background] = 0
    labels: npt.NDArray[np.uint8] = order.astype(np.uint8)[best]
    return labels


def centre_map(labels: Labels, spacing: Sequence[float] | None = None) -> npt.NDArray[np.float32]:
    """Return how central each voxel is in its object.

    Parameters
    ----------
    labels : numpy.ndarray
        ``([z,] y, x)`` integer labels, 0 is background. Objects need not be connected.
    spacing : sequence of float, optional
        Voxel size per axis; distances are measured in it.

    Returns
    -------
    numpy.ndarray
        float32 of the same shape, ``d_border / (d_border + d_centre)``, 0 in the background.
        The centre of an object is the voxel of it that is nearest to its centroid. The
        border of the image is not a border of the objects that it cuts.
    """
    import edt
    import fastremap

    out = np.zeros(labels.shape, np.float32)
    compact, _ = fastremap.renumber(labels.astype(np.uint32, order="C"), in_place=True)
    places = np.nonzero(compact)
    if not places[0].size:
        return out
    size = tuple(float(s) for s in (spacing or (1.0,) * labels.ndim))
    border = edt.edt(np.ascontiguousarray(compact), anisotropy=size, black_border=False)[places]
    # An object that fills the image has no border: its distance is infinite.
    border = np.minimum(border, np.float32(sum(n * s for n, s in zip(labels.shape, size, strict=True))))
    number = compact[places].astype(np.int64)
    count = np.bincount(number)
    positions = [p * s for p, s in zip(places, size, strict=True)]

    def squared_distance(centres: list[npt.NDArray[np.float64]]) -> npt.NDArray[np.float64]:
        total: npt.NDArray[np.float64] = sum(
            ((p - c[number]) ** 2 for p, c in zip(positions, centres, strict=True)), np.zeros(number.size)
        )
        return total

    with np.errstate(invalid="ignore"):
        centroids = [np.bincount(number, weights=p) / count for p in positions]
    order = np.lexsort((squared_distance(centroids), number))
    nearest = order[np.r_[0, np.flatnonzero(np.diff(number[order])) + 1]]
    centres = [np.r_[0.0, p[nearest]] for p in positions]
    centre = np.sqrt(squared_distance(centres)).astype(np.float32)
    out[places] = border / (border + centre)
    return out


def objects_from_maps(
    maps: npt.NDArray[np.float32],
    *,
    foreground_threshold: float = 0.5,
    seed_threshold: float = 0.5,
    min_size: int = 0,
    fill_holes: bool = True,
) -> npt.NDArray[np.uint32]:
    """Return objects from foreground and centre map by seeded watershed.

    Parameters
    ----------
    maps : numpy.ndarray
        ``(2, [z,] y, x)`` float: foreground probability and centre map, both 0 to 1.
    foreground_threshold : float
        Voxels of higher probability are object.
    seed_threshold : float
        Each connected part of the foreground that is more central than this is one object.
        Parts without any such voxel stay one object each.
    min_size : int
        Smaller objects are dropped.
    fill_holes : bool
        Fill background that one object encloses.

    Returns
    -------
    numpy.ndarray
        ``([z,] y, x)`` uint32, objects numbered from 1 without gaps, each connected by faces.
    """
    from skimage.segmentation import watershed

    mask = maps[0] > foreground_threshold
    parts = _components(mask)
    seeds = _components(mask & (maps[1] > seed_threshold))
    seeds = _seed_the_rest(seeds, parts)
    depth = (_LEVELS - np.clip(maps[1] * _LEVELS, 0, _LEVELS)).astype(np.uint8)
    labels: npt.NDArray[np.uint32]
    if mask.any():
        labels = watershed(depth, markers=seeds.astype(np.int32), mask=mask).astype(np.uint32)
    else:
        labels = np.zeros(mask.shape, np.uint32)
    if fill_holes:
        labels = fill_object_holes(labels)
    return remove_small(labels, min_size)


def _components(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint32]:
    """Return the parts of a mask that hang together by faces, numbered."""
    import cc3d

    numbered = cc3d.connected_components(
        np.ascontiguousarray(mask), connectivity=6 if mask.ndim == 3 else 4, out_dtype=np.uint32
    )
    return numbered.astype(np.uint32, copy=False)


def _seed_the_rest(seeds: npt.NDArray[np.uint32], parts: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint32]:
    """Make each part of the foreground without a seed a seed of its own."""
    has_seed = np.zeros(int(parts.max(initial=0)) + 1, bool)
    has_seed[parts[seeds > 0]] = True
    has_seed[0] = True
    if has_seed.all():
        return seeds
    extra = np.cumsum(~has_seed).astype(np.uint32)
    extra[~has_seed] += seeds.max(initial=0)
    extra[has_seed] = 0
    return np.maximum(seeds, extra[parts])


def remove_small(labels: Labels, min_size: int) -> npt.NDArray[np.uint32]:
    """Drop objects of fewer than ``min_size`` voxels and number the rest from 1 without gaps."""
    sizes = np.bincount(labels.ravel(), minlength=1)
    keep = sizes >= max(min_size, 1)
    keep[0] = False
    number = np.where(keep, np.cumsum(keep), 0).astype(np.uint32)
    return number[labels]


def fill_object_holes(labels: Labels) -> npt.NDArray[np.uint32]:
    """Fill background that a single object encloses; holes between several objects stay.

    Parameters
    ----------
    labels : numpy.ndarray
        ``([z,] y, x)`` labels, 0 is background.

    Returns
    -------
    numpy.ndarray
        uint32 labels; the input is not changed.
    """
    filled = labels.astype(np.uint32)
    gaps = _components(labels == 0)
    n_gaps = int(gaps.max(initial=0))
    open_gaps = np.zeros(n_gaps + 1, bool)
    for axis in range(labels.ndim):
        for end in (0, -1):
            open_gaps[np.take(gaps, end, axis=axis).ravel()] = True
    if open_gaps[1:].all():
        return filled
    low = np.full(n_gaps + 1, np.iinfo(np.uint32).max, np.uint32)
    high = np.zeros(n_gaps + 1, np.uint32)
    for axis in range(labels.ndim):
        first = (slice(None),) * axis + (slice(None, -1),)
        second = (slice(None),) * axis + (slice(1, None),)
        for gap, beside in ((gaps[first], filled[second]), (gaps[second], filled[first])):
            touching = (gap > 0) & (beside > 0)
            np.minimum.at(low, gap[touching], beside[touching])
            np.maximum.at(high, gap[touching], beside[touching])
    owner = np.where(~open_gaps & (low == high), high, 0).astype(np.uint32)
    owner[0] = 0
    return np.where(filled == 0, owner[gaps], filled)


def link_slices(labels: Labels, *, min_overlap: float = 0.5) -> npt.NDArray[np.uint32]:
    """Join the 2D objects of neighbouring slices into 3D objects.

    Parameters
    ----------
    labels : numpy.ndarray
        ``(z, y, x)``; each slice has its own objects, numbers need not differ between slices.
    min_overlap : float
        Least intersection over union of two objects that are joined. They must also be
        each other's best partner.

    Returns
    -------
    numpy.ndarray
        ``(z, y, x)`` uint32, objects numbered from 1 without gaps.
    """
    from napari_tiled_unet.metrics import intersection_over_union

    linked = np.zeros(labels.shape, np.uint32)
    above_numbers: npt.NDArray[np.uint32] = np.zeros(0, np.uint32)
    highest = 0
    for z, plane in enumerate(labels):
        values = np.unique(plane)
        values = values[values > 0]
        numbers = np.zeros(values.size, np.uint32)
        if z and values.size and above_numbers.size:
            scores = intersection_over_union(plane, labels[z - 1])
            best_above, best_here = scores.argmax(axis=1), scores.argmax(axis=0)
            mutual = best_here[best_above] == np.arange(values.size)
            joined = mutual & (scores.max(axis=1) >= min_overlap)
            numbers[joined] = above_numbers[best_above[joined]]
        fresh = numbers == 0
        numbers[fresh] = highest + np.arange(1, np.count_nonzero(fresh) + 1)
        highest = max(highest, int(numbers.max(initial=0)))
        if values.size:
            lookup = np.zeros(int(values[-1]) + 1, np.uint32)
            lookup[values] = numbers
            linked[z] = lookup[plane]
        above_numbers = numbers
    return linked
