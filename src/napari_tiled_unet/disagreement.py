"""Where predicted and true objects disagree: split, merged, missed and extra ones.

An object belongs to the other image's object that covers more than half of it::

    split    a true object to which two or more predicted ones belong
    merged   a predicted object to which two or more true ones belong
    missed   a true object without a match, and in neither of those
    extra    a predicted object without a match, and in neither of those

A match has an intersection over union above one half, which no object can have twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from napari_tiled_unet.metrics import consecutive, overlapping_pairs

Labels = npt.NDArray[Any]
FaultKind = Literal["split", "merged", "missed", "extra"]

COLOURS: dict[str, int] = {"matched": 1, "missed": 2, "extra": 3, "split": 4, "merged": 5}
"""Values of :func:`fault_labels`."""

# What belongs must also be this share of its owner, or specks would count as splits.
_SPECK = 0.05


@dataclass(frozen=True)
class Fault:
    """One disagreement.

    Attributes
    ----------
    kind : {"split", "merged", "missed", "extra"}
        Which, by the module's table.
    true, predicted : tuple of int
        Labels that take part.
    centre : tuple of float
        Where it is, in voxels: the middle of the object that is split, merged, missed or extra.
    voxels : int
        Size of that object.
    """

    kind: FaultKind
    true: tuple[int, ...]
    predicted: tuple[int, ...]
    centre: tuple[float, ...]
    voxels: int


@dataclass(frozen=True)
class Comparison:
    """Predicted and true objects, one to another.

    Attributes
    ----------
    faults : tuple of Fault
        Sorted by kind, the largest first.
    matched : tuple of (int, int)
        True and predicted label of each match.
    quality : tuple of float
        Intersection over union of each match.
    n_true, n_predicted : int
        Number of objects.
    """

    faults: tuple[Fault, ...]
    matched: tuple[tuple[int, int], ...]
    quality: tuple[float, ...]
    n_true: int
    n_predicted: int

    def of_kind(self, kind: FaultKind) -> list[Fault]:
        """Return the faults of one kind."""
        return [fault for fault in self.faults if fault.kind == kind]


def compare_objects(predicted: Labels, true: Labels) -> Comparison:
    """Compare two label images object by object.

    Parameters
    ----------
    predicted, true : numpy.ndarray
        Integer label images of the same shape; 0 is background.

    Raises
    ------
    ImageError
        If the shapes differ or labels are not integers.
    """
    pairs = overlapping_pairs(predicted, true)
    p_values, t_values = _values(predicted), _values(true)
    p_size, t_size = consecutive(predicted)[1][1:], consecutive(true)[1][1:]
    p, t = pairs.first, pairs.second
    shared = np.rint(pairs.iou * (p_size[p] + t_size[t]) / (1 + pairs.iou))
    match = pairs.iou > 0.5
    p_in_t = (2 * shared > p_size[p]) & (shared >= _SPECK * t_size[t])
    t_in_p = (2 * shared > t_size[t]) & (shared >= _SPECK * p_size[p])
    split_true = np.flatnonzero(np.bincount(t[p_in_t], minlength=len(t_size)) >= 2)
    merging = np.flatnonzero(np.bincount(p[t_in_p], minlength=len(p_size)) >= 2)
    in_split = p_in_t & np.isin(t, split_true)
    in_merge = t_in_p & np.isin(p, merging)
    t_done = np.union1d(np.union1d(t[match], split_true), t[in_merge])
    p_done = np.union1d(np.union1d(p[match], merging), p[in_split])
    t_where, p_where = _centres(true, t_values), _centres(predicted, p_values)
    faults = [
        *(
            _fault("split", (i,), p[in_split & (t == i)], t_values, p_values, t_where[i], t_size[i])
            for i in split_true.tolist()
        ),
        *(
            _fault("merged", t[in_merge & (p == i)], (i,), t_values, p_values, p_where[i], p_size[i])
            for i in merging.tolist()
        ),
        *(
            _fault("missed", (i,), (), t_values, p_values, t_where[i], t_size[i])
            for i in np.setdiff1d(np.arange(len(t_size)), t_done).tolist()
        ),
        *(
            _fault("extra", (), (i,), t_values, p_values, p_where[i], p_size[i])
            for i in np.setdiff1d(np.arange(len(p_size)), p_done).tolist()
        ),
    ]
    order = ("split", "merged", "missed", "extra")
    faults.sort(key=lambda f: (order.index(f.kind), -f.voxels, f.true, f.predicted))
    matched = tuple((int(t_values[j]), int(p_values[i])) for i, j in zip(p[match], t[match], strict=True))
    return Comparison(tuple(faults), matched, tuple(map(float, pairs.iou[match])), len(t_size), len(p_size))


def fault_labels(predicted: Labels, true: Labels, comparison: Comparison) -> npt.NDArray[np.uint8]:
    """Return a label image that shows what agrees and what does not, by the values of :data:`COLOURS`.

    Parameters
    ----------
    predicted, true : numpy.ndarray
        What was compared.
    comparison : Comparison
        From :func:`compare_objects`.
    """
    shown = np.zeros(true.shape, np.uint8)
    # Later ones are drawn over earlier ones: what is wrong must be seen.
    shown[np.isin(true, [t for t, _ in comparison.matched])] = COLOURS["matched"]
    for kind in ("extra", "missed", "split", "merged"):
        faults = comparison.of_kind(kind)
        source, labels = (
            (predicted, [f.predicted[0] for f in faults])
            if kind in ("extra", "merged")
            else (true, [f.true[0] for f in faults])
        )
        shown[np.isin(source, labels)] = COLOURS[kind]
    return shown


def _values(labels: Labels) -> npt.NDArray[Any]:
    import fastremap

    values = fastremap.unique(np.ascontiguousarray(labels, labels.dtype.newbyteorder("=")))
    kept: npt.NDArray[Any] = values[values > 0]
    return kept


def _centres(labels: Labels, values: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Return the middle of each object, ``(n, ndim)``."""
    flat = np.flatnonzero(labels)
    number = np.searchsorted(values, labels.ravel()[flat])
    count = np.maximum(np.bincount(number, minlength=len(values)), 1)
    axes = np.unravel_index(flat, labels.shape)
    return np.stack([np.bincount(number, weights=a, minlength=len(values)) / count for a in axes], axis=1)


def _fault(
    kind: FaultKind,
    true: Sequence[int],
    predicted: Sequence[int],
    t_values: npt.NDArray[Any],
    p_values: npt.NDArray[Any],
    where: npt.NDArray[np.float64],
    size: int,
) -> Fault:
    return Fault(
        kind,
        tuple(int(t_values[i]) for i in true),
        tuple(int(p_values[i]) for i in predicted),
        tuple(round(float(w), 1) for w in where),
        int(size),
    )
