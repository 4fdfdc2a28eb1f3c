"""Labels against the truth: scores, and where they disagree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from napari_tiled_unet.disagreement import Comparison, Fault, compare_objects, fault_labels
from napari_tiled_unet.errors import FileError, ImageError, OptionsError, TiledUnetError
from napari_tiled_unet.image import Image
from napari_tiled_unet.io import read_labels
from napari_tiled_unet.metrics import THRESHOLDS, AveragePrecision, boundary_f_score, consecutive, match_objects
from napari_tiled_unet.pairing import Pairing, pair_label_files

Labels = npt.NDArray[Any]


@dataclass(frozen=True)
class ImageEvaluation:
    """What one pair of label images gives.

    Attributes
    ----------
    name : str
        Of the prediction.
    scores : dict of str to float
        By name; what cannot be said of an empty image is left out.
    comparison : Comparison or None
        Object by object, with the list of faults; None for classes.
    faults : numpy.ndarray or None
        uint8 labels that show the faults, values of :data:`napari_tiled_unet.disagreement.COLOURS`.
    """

    name: str
    scores: dict[str, float]
    comparison: Comparison | None = None
    faults: npt.NDArray[np.uint8] | None = None


@dataclass(frozen=True)
class Evaluation:
    """What a set of label images gives.

    Attributes
    ----------
    scores : dict of str to float
        Pooled over all objects (AP, F1, panoptic quality), or over all voxels (Dice, IoU of classes);
        means over the images for what is left.
    images : tuple of ImageEvaluation
        Each image on its own; of a time series each frame.
    not_predicted, not_true : tuple of str
        Names of files that have no partner among the others, and are not scored.
    failed : tuple of (str, str)
        Names of predicted files that could not be scored, and why; they count in no score.
    """

    scores: dict[str, float]
    images: tuple[ImageEvaluation, ...]
    not_predicted: tuple[str, ...] = ()
    not_true: tuple[str, ...] = ()
    failed: tuple[tuple[str, str], ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return everything that JSON can hold: scores and faults, no arrays."""
        return {
            "scores": self.scores,
            "not_predicted": list(self.not_predicted),
            "not_true": list(self.not_true),
            "failed": [{"name": name, "reason": reason} for name, reason in self.failed],
            "images": [
                {
                    "name": image.name,
                    "scores": image.scores,
                    "faults": [asdict(f) for f in _faults(image)],
                }
                for image in self.images
            ],
        }


def _faults(image: ImageEvaluation) -> tuple[Fault, ...]:
    return image.comparison.faults if image.comparison is not None else ()


def evaluate(
    predicted: Any,
    true: Any,
    *,
    target: Literal["objects", "classes"] = "objects",
    classes: Sequence[str] = (),
    thresholds: Sequence[float] = THRESHOLDS,
    tolerance: float = 1.0,
) -> Evaluation:
    """Score labels against the truth.

    Parameters
    ----------
    predicted, true : array, Image, path, or a sequence of those
        Integer labels on the same grid, of one channel, 0 is background; or a folder each, paired by name.
        Images with a time axis, of files too, are scored frame by frame.
    target : {"objects", "classes"}
        Whether a number is one object, or a class.
    classes : sequence of str
        Names of the classes in the order of their values, background first.
    thresholds : sequence of float
        Intersection over union from which two objects match.
    tolerance : float
        How far, in voxels, borders may be apart for the boundary F-score.

    Returns
    -------
    Evaluation
        For objects: ``AP@t`` per threshold and ``AP`` their mean, ``F1``, ``precision``, ``recall`` and
        ``PQ`` (panoptic quality) at 0.5, ``boundary F``, ``adapted Rand error``, ``VI split`` and ``VI merge``
        (variation of information in bits), counts of objects and faults. For classes: ``Dice`` and ``IoU`` of each
        class and their means past the background, ``boundary F``.

    Raises
    ------
    ImageError, FileError, OptionsError
        If labels are not integers, are colours, lie below 0, are of another shape, or do not pair. In folders a
        pair of which that is true is left out and named in ``failed``, unless it is true of all.

    References
    ----------
    .. [1] A. Kirillov et al., "Panoptic segmentation", CVPR 2019, arXiv:1801.00868
    .. [2] I. Arganda-Carreras et al., "Crowdsourcing the creation of image segmentation algorithms for
           connectomics", Front. Neuroanat. 2015, doi:10.3389/fnana.2015.00142
    .. [3] M. Meila, "Comparing clusterings: an information based distance", J. Multivar. Anal. 2007
    """
    if target not in ("objects", "classes"):
        raise OptionsError(f"target={target!r} is unknown; it must be 'objects' or 'classes'")
    pairing = Pairing(())
    failed: list[tuple[str, str]] = []
    if isinstance(predicted, str | Path) and isinstance(true, str | Path):
        pairing = pair_label_files(true, predicted)
        pairs, failed = _file_pairs(pairing, target)
    else:
        pairs = _pairs(predicted, true, target)
    if target == "classes":
        done = _evaluate_classes(pairs, classes, tolerance)
    else:
        done = _evaluate_objects(pairs, thresholds, tolerance)
    lonely = [tuple(path.name for path in paths) for paths in (pairing.without_labels, pairing.without_image)]
    return replace(done, not_predicted=lonely[0], not_true=lonely[1], failed=tuple(failed))


def _file_pairs(
    pairing: Pairing, target: Literal["objects", "classes"]
) -> tuple[list[tuple[str, Labels, Labels]], list[tuple[str, str]]]:
    """Return the pairs that can be scored, and names and reasons of those that cannot.

    Raises
    ------
    ImageError, FileError
        If none can: that of the first.
    """
    pairs: list[tuple[str, Labels, Labels]] = []
    errors: dict[str, TiledUnetError] = {}
    for true, predicted in pairing.matched:
        try:
            pairs += _frames(predicted.name, predicted, true, target)
        except (FileError, ImageError) as error:
            errors[predicted.name] = error
    if errors and not pairs:
        raise next(iter(errors.values()))
    return pairs, [(name, str(error)) for name, error in errors.items()]


def _pairs(predicted: Any, true: Any, target: Literal["objects", "classes"]) -> list[tuple[str, Labels, Labels]]:
    many = isinstance(predicted, list | tuple)
    if many != isinstance(true, list | tuple):
        raise ImageError(
            "predictions are a list and truths are not, or the reverse; give a list of each, or one of each"
        )
    left, right = (predicted, true) if many else ([predicted], [true])
    if len(left) != len(right) or not left:
        raise ImageError(f"{len(left)} predictions for {len(right)} truths; give one for each")
    both = enumerate(zip(left, right, strict=True))
    return [pair for i, (p, t) in both for pair in _frames(f"image {i}", p, t, target)]


def _frames(
    name: str, predicted: Any, true: Any, target: Literal["objects", "classes"]
) -> list[tuple[str, Labels, Labels]]:
    """Return the frames of a time series: a number is one object in its frame, as often as it comes again."""
    predicted, true = _both_opened(predicted, true)
    if not isinstance(predicted, Image) or not isinstance(true, Image):
        return [_scorable(name, predicted, true, target)]
    p, t = predicted.axes.replace("c", ""), true.axes.replace("c", "")
    if p != t:
        raise ImageError(
            f"predicted labels {predicted.name!r} have axes {p!r}, true ones {true.name!r} {t!r}; "
            "say which they are with axes when you read them, or save both with the same"
        )
    if "t" not in p:
        return [_scorable(name, predicted, true, target)]
    series = [np.moveaxis(_array(x, which), p.index("t"), 0) for x, which in ((predicted, "predicted"), (true, "true"))]
    if series[0].shape != series[1].shape:
        raise ImageError(
            f"predicted labels have shape {series[0].shape}, true ones {series[1].shape}; "
            "they must be of the same image"
        )
    frames = enumerate(zip(*series, strict=True))
    return [_scorable(f"t={i} of {name}", one, other, target) for i, (one, other) in frames]


def _both_opened(predicted: Any, true: Any) -> tuple[Any, Any]:
    """Return what is to be compared; of two files one that does not say its axes has those of the other.

    Raises
    ------
    ImageError, FileError
        If neither says them, or one cannot be read.
    """
    try:
        one = _opened(predicted, "predicted")
    except ImageError:
        other = _opened(true, "true") if isinstance(predicted, str | Path) else None
        if not isinstance(other, Image):
            raise
        return read_labels(predicted, axes=other.axes.replace("c", "")), other
    try:
        return one, _opened(true, "true")
    except ImageError:
        if not isinstance(true, str | Path) or not isinstance(one, Image):
            raise
        return one, read_labels(true, axes=one.axes.replace("c", ""))


def _opened(labels: Any, name: str) -> Any:
    """Return the image of a path; refuse a bare array shaped as pictures are, for volumes of 3 columns are rare."""
    if isinstance(labels, str | Path):
        return read_labels(labels)
    if isinstance(labels, Image):
        return labels
    array = np.asarray(labels)
    if array.ndim == 3 and array.shape[2] in (3, 4) and min(array.shape[:2]) > array.shape[2]:
        raise ImageError(
            f"{name} labels have shape {array.shape}, that of a picture in colours, they must have one number per "
            "voxel; give the labels themselves, or of a volume of so few columns Image(labels, 'zyx')"
        )
    return array


def _scorable(
    name: str, predicted: Any, true: Any, target: Literal["objects", "classes"]
) -> tuple[str, Labels, Labels]:
    """Return labels that can be compared, of bool as numbers; refuse others."""
    p, t = _array(predicted, "predicted"), _array(true, "true")
    for whose, labels in (("predicted", p), ("true", t)):
        if labels.dtype.kind not in "bui":
            raise ImageError(f"{whose} labels are {labels.dtype}, they must be whole numbers with 0 as background")
        if labels.ndim not in (2, 3):
            raise ImageError(f"{whose} labels have shape {labels.shape}; they must be ([z,] y, x)")
    if p.shape != t.shape:
        raise ImageError(f"predicted labels have shape {p.shape}, true ones {t.shape}; they must be of the same image")
    for whose, labels in (("predicted", p), ("true", t)):
        if (lowest := int(labels.min(initial=0))) < 0:
            remedy = "classes are counted from 0, cut out what is not labelled or give it a class"
            if target == "objects":
                remedy = "number the objects from 1, with 0 as background"
            raise ImageError(f"{whose} labels of {name} go down to {lowest}; {remedy}")
    p, t = (labels.astype(np.uint8) if labels.dtype == bool else labels for labels in (p, t))
    return name, p, t


def _array(labels: Any, name: str) -> Labels:
    if not isinstance(labels, Image):
        return np.asarray(labels)
    if labels.n_channels > 1:
        raise ImageError(
            f"{name} labels {labels.name!r} have {labels.n_channels} channels (axes {labels.axes!r}), they must have "
            "one number per voxel; save the labels themselves and no picture of them in colours"
        )
    try:
        data = np.asarray(labels.data)
    except (TiledUnetError, MemoryError):
        raise
    except Exception as error:  # a damaged file can raise anything in the library that decodes it
        raise FileError(f"{name} labels {labels.name!r} cannot be read: {error}; the file may be damaged") from error
    return data.squeeze(labels.axes.index("c")) if "c" in labels.axes else data


def _evaluate_objects(
    pairs: Sequence[tuple[str, Labels, Labels]], thresholds: Sequence[float], tolerance: float
) -> Evaluation:
    images, matches, halves = [], [], []
    for name, p, t in pairs:
        comparison = compare_objects(p, t)
        matches.append(match_objects(p, t, thresholds))
        halves.append(int(match_objects(p, t, (0.5,)).tp[0]))
        own = AveragePrecision(tuple(thresholds), (matches[-1],)).pooled
        counted = _counted([comparison], halves[-1])
        scores = {**_precisions(thresholds, own), **counted, **_partition_scores(p, t, tolerance)}
        images.append(ImageEvaluation(name, scores, comparison, fault_labels(p, t, comparison)))
    pooled = AveragePrecision(tuple(thresholds), tuple(matches)).pooled
    comparisons = [i.comparison for i in images if i.comparison is not None]
    means = {
        name: float(np.mean(values))
        for name in ("boundary F", "adapted Rand error", "VI split", "VI merge")
        if (values := [i.scores[name] for i in images if name in i.scores])
    }
    return Evaluation({**_precisions(thresholds, pooled), **_counted(comparisons, sum(halves)), **means}, tuple(images))


def _precisions(thresholds: Sequence[float], values: npt.NDArray[np.float64]) -> dict[str, float]:
    return {"AP": float(values.mean()), **{f"AP@{t:g}": float(v) for t, v in zip(thresholds, values, strict=True)}}


def _counted(comparisons: Sequence[Comparison], tp: int) -> dict[str, float]:
    """Return scores at an intersection over union of one half, given the number of matches, and counts."""
    n_true, n_predicted = sum(c.n_true for c in comparisons), sum(c.n_predicted for c in comparisons)
    # A comparison's matches are above one half; the rest of the matches are at one half exactly.
    above = sum(len(c.matched) for c in comparisons)
    quality = sum(sum(c.quality) for c in comparisons) + 0.5 * (tp - above)
    both = n_true + n_predicted
    counts = {f"{kind}": float(sum(len(c.of_kind(kind)) for c in comparisons)) for kind in _KINDS}
    return {
        "F1": 2 * tp / both if both else 1.0,
        "precision": tp / n_predicted if n_predicted else float(not n_true),
        "recall": tp / n_true if n_true else float(not n_predicted),
        "PQ": 2 * quality / both if both else 1.0,
        "true objects": float(n_true),
        "predicted objects": float(n_predicted),
        "matched": float(tp),
        **counts,
    }


_KINDS: tuple[Literal["split", "merged", "missed", "extra"], ...] = ("split", "merged", "missed", "extra")


def _partition_scores(predicted: Labels, true: Labels, tolerance: float) -> dict[str, float]:
    from skimage.metrics import adapted_rand_error, variation_of_information

    scores = {"boundary F": boundary_f_score(predicted, true, tolerance)}
    if true.any():
        # Renumbered, since both make a table with a row for every number up to the highest.
        p, t = (consecutive(labels)[0].astype(np.intp, copy=False) for labels in (predicted, true))
        # Both look at true objects only: what lies on true background is no split and no merge.
        with np.errstate(invalid="ignore"):
            error, _, _ = adapted_rand_error(t, p, ignore_labels=(0,))
        split, merge = variation_of_information(t, p, ignore_labels=(0,))
        scores |= {"VI split": float(split), "VI merge": float(merge)}
        if np.isfinite(error):  # objects of one voxel have no pair of voxels to go by
            scores["adapted Rand error"] = float(error)
    return scores


def _evaluate_classes(
    pairs: Sequence[tuple[str, Labels, Labels]], classes: Sequence[str], tolerance: float
) -> Evaluation:
    count = max(len(classes), *(int(max(p.max(initial=0), t.max(initial=0))) + 1 for _, p, t in pairs))
    if count > 256:
        raise ImageError(f"labels go up to {count - 1}, too many for classes; take target='objects'")
    if classes and count > len(classes):
        raise OptionsError(
            f"labels go up to {count - 1}, {len(classes)} classes are named, counted from 0; name them all"
        )
    names = tuple(classes) or ("background", *(f"class {i}" for i in range(1, count)))
    images, tables = [], []
    for name, p, t in pairs:
        cells = t.ravel().astype(np.int64) * count + p.ravel().astype(np.int64)
        table = np.bincount(cells, minlength=count**2).reshape(count, count)
        tables.append(table)
        scores = {**_class_scores(table, names), "boundary F": boundary_f_score(p, t, tolerance)}
        images.append(ImageEvaluation(name, scores))
    mean = float(np.mean([i.scores["boundary F"] for i in images]))
    return Evaluation({**_class_scores(np.sum(tables, axis=0), names), "boundary F": mean}, tuple(images))


def _class_scores(table: npt.NDArray[np.int64], names: Sequence[str]) -> dict[str, float]:
    """Return Dice and IoU per class from the table of true by predicted voxels; 1 where a class is in neither."""
    both, t, p = np.diag(table), table.sum(axis=1), table.sum(axis=0)
    dice = np.where(t + p > 0, 2 * both / np.maximum(t + p, 1), 1.0)
    iou = np.where(t + p > 0, both / np.maximum(t + p - both, 1), 1.0)
    past = slice(1, None) if len(names) > 1 else slice(None)
    return {
        "Dice": float(dice[past].mean()),
        "IoU": float(iou[past].mean()),
        **{f"Dice {name}": float(v) for name, v in zip(names, dice, strict=True)},
        **{f"IoU {name}": float(v) for name, v in zip(names, iou, strict=True)},
    }
