"""How well labels agree with the truth.

Object scores match predicted and true objects one to one at an intersection over union
(IoU) of at least a threshold, and count: a match is a true positive (TP), an unmatched
prediction a false positive (FP), an unmatched truth a false negative (FN).

Where there is nothing to find and nothing was found, every score is 1; where only one of
the two is empty, it is 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_tiled_unet.errors import ImageError, OptionsError

Labels = npt.NDArray[Any]

THRESHOLDS = tuple(round(0.5 + 0.05 * k, 2) for k in range(9))
"""IoU thresholds 0.5, 0.55 ... 0.9, at which average precision is commonly reported."""

# An IoU of 6/10 reaches a threshold of 0.6 even where that was summed up from 0.05s.
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Matches:
    """Counts of one pair of label images, one entry per threshold.

    Attributes
    ----------
    tp, fp, fn : numpy.ndarray
        int64, matched, extra and missed objects.
    """

    tp: npt.NDArray[np.int64]
    fp: npt.NDArray[np.int64]
    fn: npt.NDArray[np.int64]

    @property
    def average_precision(self) -> npt.NDArray[np.float64]:
        """TP / (TP + FP + FN) per threshold; 1 where neither image has an object."""
        total = self.tp + self.fp + self.fn
        return np.where(total > 0, self.tp / np.maximum(total, 1), 1.0)


@dataclass(frozen=True)
class AveragePrecision:
    """Average precision of a set of images.

    Attributes
    ----------
    thresholds : tuple of float
        IoU thresholds.
    images : tuple of Matches
        Counts of each image.
    """

    thresholds: tuple[float, ...]
    images: tuple[Matches, ...]

    @cached_property
    def total(self) -> Matches:
        """Counts summed over the images."""
        return Matches(
            sum((m.tp for m in self.images), np.zeros(len(self.thresholds), np.int64)),
            sum((m.fp for m in self.images), np.zeros(len(self.thresholds), np.int64)),
            sum((m.fn for m in self.images), np.zeros(len(self.thresholds), np.int64)),
        )

    @property
    def pooled(self) -> npt.NDArray[np.float64]:
        """TP / (TP + FP + FN) over the objects of all images: every object counts the same."""
        return self.total.average_precision

    @property
    def per_image_mean(self) -> npt.NDArray[np.float64]:
        """Mean of the images' own average precision: every image counts the same."""
        mean: npt.NDArray[np.float64] = np.stack([m.average_precision for m in self.images]).mean(axis=0)
        return mean


def average_precision(
    predicted: Sequence[Labels], true: Sequence[Labels], thresholds: Sequence[float] = THRESHOLDS
) -> AveragePrecision:
    """Score label images against the truth.

    Parameters
    ----------
    predicted, true : sequence of numpy.ndarray
        Label images, pair by pair of the same shape; 0 is background.
    thresholds : sequence of float
        IoU thresholds.

    Returns
    -------
    AveragePrecision
        Counts per image, and the scores from them.

    Raises
    ------
    ImageError
        If the numbers of images or the shapes of a pair differ, or labels are not integers.

    References
    ----------
    .. [1] J. C. Caicedo et al., "Nucleus segmentation across imaging experiments: the 2018
           Data Science Bowl", Nature Methods 2019, doi:10.1038/s41592-019-0612-7
    """
    if len(predicted) != len(true):
        raise ImageError(f"{len(predicted)} predictions for {len(true)} truths; give one for each")
    if not predicted:
        raise ImageError("0 images cannot be scored; give at least one pair")
    images = tuple(match_objects(p, t, thresholds) for p, t in zip(predicted, true, strict=True))
    return AveragePrecision(tuple(thresholds), images)


def match_objects(predicted: Labels, true: Labels, thresholds: Sequence[float] = THRESHOLDS) -> Matches:
    """Match the objects of two label images one to one, as many as possible.

    Parameters
    ----------
    predicted, true : numpy.ndarray
        Integer label images of the same shape; 0 is background, numbers may have gaps.
    thresholds : sequence of float
        Least IoU of a match, above 0 and at most 1.

    Returns
    -------
    Matches
        Counts per threshold. Two images without objects agree: nothing is counted.

    Raises
    ------
    ImageError
        If the shapes differ or labels are not integers.
    OptionsError
        If a threshold is outside its range.

    Notes
    -----
    The counts are those of ``stardist.matching`` [1]_, which assigns as many pairs as it can
    and breaks ties by IoU: the number of pairs is that of a maximum bipartite matching.

    References
    ----------
    .. [1] M. Weigert et al., "Star-convex polyhedra for 3D object detection and segmentation in
           microscopy", WACV 2020, arXiv:1908.03636
    """
    if wrong := [t for t in thresholds if not 0 < t <= 1]:
        raise OptionsError(f"IoU thresholds {wrong} are outside their range; give numbers above 0 and at most 1")
    pairs = overlapping_pairs(predicted, true)
    tp = np.array([_matched(pairs, threshold) for threshold in thresholds], np.int64)
    return Matches(tp, pairs.n_first - tp, pairs.n_second - tp)


@dataclass(frozen=True)
class Pairs:
    """Objects of two label images that share at least one voxel.

    Attributes
    ----------
    first, second : numpy.ndarray
        Indices of the two objects of each pair, from 0 in ascending order of the labels.
    iou : numpy.ndarray
        float64, their intersection over union.
    n_first, n_second : int
        Number of objects in each image.
    """

    first: npt.NDArray[np.intp]
    second: npt.NDArray[np.intp]
    iou: npt.NDArray[np.float64]
    n_first: int
    n_second: int


def overlapping_pairs(first: Labels, second: Labels) -> Pairs:
    """Return the overlapping objects of two label images with their IoU.

    Parameters
    ----------
    first, second : numpy.ndarray
        Integer label images of the same shape; 0 is background, numbers may have gaps.

    Returns
    -------
    Pairs
        Time and memory grow with the voxels and the pairs, not with the product of the objects.

    Raises
    ------
    ImageError
        If the shapes differ or labels are not integers.
    """
    import fastremap

    first, second = np.asarray(first), np.asarray(second)
    one, sizes_one = consecutive(first, "predicted")
    two, sizes_two = consecutive(second, "true")
    if first.shape != second.shape:
        raise ImageError(
            f"predicted labels have shape {first.shape}, true ones {second.shape}; they must be of the same image"
        )
    both = np.flatnonzero((one > 0) & (two > 0))
    keys = one[both].astype(np.uint64) * np.uint64(len(sizes_two)) + two[both]
    values, shared = fastremap.unique(keys, return_counts=True)
    i, j = (part.astype(np.intp) for part in np.divmod(values, np.uint64(len(sizes_two))))
    shared = shared.astype(np.int64)
    score = shared / (sizes_one[i] + sizes_two[j] - shared)
    return Pairs(i - 1, j - 1, score, len(sizes_one) - 1, len(sizes_two) - 1)


def consecutive(labels: Labels, name: str = "the") -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]:
    """Renumber objects from 1 without gaps, in ascending order of their labels.

    Parameters
    ----------
    labels : numpy.ndarray
        Integer labels, 0 is background.
    name : str
        Whose labels they are, for the error.

    Returns
    -------
    flat : numpy.ndarray
        The new labels as one row, of an integer type.
    sizes : numpy.ndarray
        int64, voxels of the background and of each object.

    Raises
    ------
    ImageError
        If labels are not integers or some are negative.
    """
    import fastremap

    if labels.dtype.kind not in "ui":
        raise ImageError(f"{name} labels are {labels.dtype}, they must be integers with 0 as background")
    flat = labels.ravel().astype(labels.dtype.newbyteorder("="), copy=False)
    lowest, highest = (int(flat.min()), int(flat.max())) if flat.size else (0, 0)
    if lowest < 0:
        raise ImageError(f"{name} labels go down to {lowest}; number the objects from 1, with 0 as background")
    if highest > 4 * flat.size:
        # Few numbers far apart: a table of all numbers up to the highest would not fit.
        values, flat = fastremap.unique(flat, return_inverse=True)
        flat = flat.ravel() + (0 if values[0] == 0 else 1)
        highest = int(flat.max())
    sizes = np.bincount(flat.astype(np.intp, copy=False), minlength=highest + 1)
    used = sizes > 0
    used[0] = True
    if not used.all():
        flat, sizes = (np.cumsum(used) - 1).astype(np.uint32)[flat], sizes[used]
    return flat, sizes


def _matched(pairs: Pairs, threshold: float) -> int:
    allowed = pairs.iou >= threshold - _ROUNDING
    first, second = pairs.first[allowed], pairs.second[allowed]
    if np.bincount(first).max(initial=0) <= 1 and np.bincount(second).max(initial=0) <= 1:
        # Always so above an IoU of one half, which no object can have with two partners.
        return int(first.size)
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import maximum_bipartite_matching

    graph = csr_array((np.ones(first.size, np.int8), (first, second)), shape=(pairs.n_first, pairs.n_second))
    return int(np.count_nonzero(maximum_bipartite_matching(graph, perm_type="column") >= 0))


def intersection_over_union(predicted: Labels, true: Labels) -> npt.NDArray[np.float64]:
    """Return the IoU of every predicted with every true object.

    Parameters
    ----------
    predicted, true : numpy.ndarray
        Integer label images of the same shape; 0 is background, numbers may have gaps.

    Returns
    -------
    numpy.ndarray
        ``(n_predicted, n_true)``, rows and columns in ascending order of the labels.

    Raises
    ------
    ImageError
        If the shapes differ or labels are not integers.
    """
    pairs = overlapping_pairs(predicted, true)
    scores = np.zeros((pairs.n_first, pairs.n_second))
    scores[pairs.first, pairs.second] = pairs.iou
    return scores


def dice(predicted: Labels, true: Labels) -> float:
    """Return the Dice coefficient of two masks: twice the overlap over the sum; 1 if both are empty."""
    p, t = _masks(predicted, true)
    total = np.count_nonzero(p) + np.count_nonzero(t)
    return 2 * np.count_nonzero(p & t) / total if total else 1.0


def iou(predicted: Labels, true: Labels) -> float:
    """Return the intersection over union of two masks; 1 if both are empty."""
    p, t = _masks(predicted, true)
    total = np.count_nonzero(p | t)
    return np.count_nonzero(p & t) / total if total else 1.0


def boundary_f_score(predicted: Labels, true: Labels, tolerance: float = 1.0) -> float:
    """Return the F-score of the borders of two masks or label images.

    Parameters
    ----------
    predicted, true : numpy.ndarray
        Masks or label images; every border between different values counts, the
        outermost voxels of each side being its border.
    tolerance : float
        How far, in voxels, a border may be from its counterpart.

    Returns
    -------
    float
        Harmonic mean of the share of predicted border near a true one and the reverse; 1
        if neither has a border, 0 if only one has.

    Raises
    ------
    ImageError
        If the shapes differ.
    OptionsError
        If the tolerance is negative or NaN.

    References
    ----------
    .. [1] G. Csurka et al., "What is a good evaluation measure for semantic
           segmentation?", BMVC 2013
    """
    import edt
    from skimage.segmentation import find_boundaries

    if not tolerance >= 0:
        raise OptionsError(f"tolerance={tolerance!r} must be 0 or more voxels, for example 1")
    predicted, true = np.asarray(predicted), np.asarray(true)
    _check_same_shape(predicted, true)
    # Its filters compute in double precision, where large neighbouring numbers are one.
    p, t = (find_boundaries(consecutive(x)[0].reshape(x.shape), mode="inner") for x in (predicted, true))
    if not p.any() or not t.any():
        return float(p.any() == t.any())
    precision = float(np.mean(edt.edt(~t, black_border=False)[p] <= tolerance))
    recall = float(np.mean(edt.edt(~p, black_border=False)[t] <= tolerance))
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def _masks(predicted: Labels, true: Labels) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    p, t = np.asarray(predicted) != 0, np.asarray(true) != 0
    _check_same_shape(p, t)
    return p, t


def _check_same_shape(predicted: Labels, true: Labels) -> None:
    if predicted.shape != true.shape:
        raise ImageError(f"masks have shapes {predicted.shape} and {true.shape}; they must be of the same image")
