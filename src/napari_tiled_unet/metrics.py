"""How well labels agree with the truth.

Object scores match predicted and true objects one to one at an intersection over union
(IoU) of at least a threshold, and count: a match is a true positive (TP), an unmatched
prediction a false positive (FP), an unmatched truth a false negative (FN).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_tiled_unet.errors import ImageError

Labels = npt.NDArray[Any]

THRESHOLDS = tuple(round(0.5 + 0.05 * k, 2) for k in range(9))
"""IoU thresholds 0.5, 0.55 ... 0.9, at which average precision is commonly reported."""

# Half a voxel of a large object: an IoU of 2/4 must count as 0.5 whatever the rounding.
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
        Label images of the same shape; 0 is background.
    thresholds : sequence of float
        Least IoU of a match.

    Returns
    -------
    Matches
        Counts per threshold.
    """
    scores = intersection_over_union(predicted, true)
    n_predicted, n_true = scores.shape
    tp = np.array([_matched(scores, threshold) for threshold in thresholds], np.int64)
    return Matches(tp, n_predicted - tp, n_true - tp)


def _matched(scores: npt.NDArray[np.float64], threshold: float) -> int:
    allowed = scores >= threshold - _ROUNDING
    rows, columns = allowed.sum(axis=1), allowed.sum(axis=0)
    if rows.max(initial=0) <= 1 and columns.max(initial=0) <= 1:
        # Above an IoU of one half no object has two partners.
        return int(rows.sum())
    from scipy.optimize import linear_sum_assignment

    # Number of matches first, sum of their IoU second, as stardist.matching does.
    value = allowed + np.where(allowed, scores, 0) / (2 * min(scores.shape))
    chosen = linear_sum_assignment(value, maximize=True)
    return int(np.count_nonzero(allowed[chosen]))


def intersection_over_union(predicted: Labels, true: Labels) -> npt.NDArray[np.float64]:
    """Return the IoU of every predicted with every true object.

    Parameters
    ----------
    predicted, true : numpy.ndarray
        Label images of the same shape; 0 is background, other numbers may have gaps.

    Returns
    -------
    numpy.ndarray
        ``(n_predicted, n_true)``, rows and columns in ascending order of the labels.
    """
    p, n_p = _consecutive(predicted, "predicted")
    t, n_t = _consecutive(true, "true")
    if p.shape != t.shape:
        raise ImageError(f"predicted labels have shape {p.shape}, true ones {t.shape}; they must be of the same image")
    overlap = np.bincount((p * np.int64(n_t + 1) + t).ravel(), minlength=(n_p + 1) * (n_t + 1))
    overlap = overlap.reshape(n_p + 1, n_t + 1)
    union = overlap.sum(axis=1, keepdims=True) + overlap.sum(axis=0, keepdims=True) - overlap
    scores: npt.NDArray[np.float64] = overlap[1:, 1:] / np.maximum(union[1:, 1:], 1)
    return scores


def _consecutive(labels: Labels, name: str) -> tuple[npt.NDArray[np.int64], int]:
    labels = np.asarray(labels)
    if labels.dtype.kind not in "ui":
        raise ImageError(f"{name} labels are {labels.dtype}, they must be integers with 0 as background")
    values, index = np.unique(labels, return_inverse=True)
    index = index.reshape(labels.shape).astype(np.int64)
    if values.size and values[0] != 0:
        return index + 1, values.size
    return index, max(values.size - 1, 0)


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
        Masks or label images; every border between different values counts.
    tolerance : float
        How far, in voxels, a border may be from its counterpart.

    Returns
    -------
    float
        Harmonic mean of the share of predicted border near a true one and the reverse; 1
        if neither has a border.

    References
    ----------
    .. [1] G. Csurka et al., "What is a good evaluation measure for semantic
           segmentation?", BMVC 2013
    """
    from scipy.ndimage import distance_transform_edt
    from skimage.segmentation import find_boundaries

    if predicted.shape != true.shape:
        raise ImageError(f"masks have shapes {predicted.shape} and {true.shape}; they must be of the same image")
    p = find_boundaries(predicted.astype(np.int64), mode="inner")
    t = find_boundaries(true.astype(np.int64), mode="inner")
    if not p.any() or not t.any():
        return float(p.any() == t.any())
    precision = float(np.mean(distance_transform_edt(~t)[p] <= tolerance))
    recall = float(np.mean(distance_transform_edt(~p)[t] <= tolerance))
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def _masks(predicted: Labels, true: Labels) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    p, t = np.asarray(predicted) != 0, np.asarray(true) != 0
    if p.shape != t.shape:
        raise ImageError(f"masks have shapes {p.shape} and {t.shape}; they must be of the same image")
    return p, t
