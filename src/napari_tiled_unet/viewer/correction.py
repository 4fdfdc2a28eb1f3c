"""What a human corrected in the labels of a model, and what of it is taught; no Qt.

Only what was touched is taught, in the numbers of partial labels::

    0   not touched, ignored
    1   background: what was erased, and a rim around the touched objects
    n   a touched object, whole; or a touched voxel of class n - 1
"""

from __future__ import annotations

import shutil
import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from napari_tiled_unet.errors import FileError, ImageError, ModelError, TiledUnetError
from napari_tiled_unet.model_files import bundled_folder, save_model, user_folder
from napari_tiled_unet.region import Region

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from napari_tiled_unet.image import Image
    from napari_tiled_unet.model import Model
    from napari_tiled_unet.options import SegmentOptions

Labels = npt.NDArray[Any]

# Voxels around a touched object that are taught as background where nothing else lies.
_RIM = 4
# Fields of a spec by which labels change; name and card do not count.
_USED = {"axes", "spacing", "units", "object_size", "normalisation", "network", "target", "empty_below"}
# Voxels by which an image is known again, at most.
_SAMPLED = 2**16


@dataclass(frozen=True)
class Touched:
    """What was corrected.

    Attributes
    ----------
    labels : numpy.ndarray
        int32, by the module's table.
    changed : int
        Number of voxels that changed.
    objects : int
        Number of objects that are taught.
    """

    labels: npt.NDArray[np.int32]
    changed: int
    objects: int


def touched(before: Labels, after: Labels, target: Literal["objects", "classes"], rim: int = _RIM) -> Touched:
    """Return what a human changed in labels, as partial labels.

    Parameters
    ----------
    before, after : numpy.ndarray
        Labels of the model and as they are now, ``([z,] y, x)`` or with frames in front.
    target : {"objects", "classes"}
        What labels are.
    rim : int
        Voxels of background around a touched object, in the plane, that are taught.

    Raises
    ------
    ImageError
        If the shapes differ, or nothing was changed.
    """
    from scipy.ndimage import binary_dilation

    if before.shape != after.shape:
        raise ImageError(
            f"the labels have shape {after.shape} now, the model made {before.shape}; correct the layer of the run"
        )
    changed = before != after
    if not changed.any():
        raise ImageError("no label was changed: correct some objects in the layer of the run first")
    around = np.zeros((3,) * after.ndim, bool)
    around[(1,) * (after.ndim - 2) + (slice(None),) * 2] = True
    if target == "classes":
        near = binary_dilation(changed, around, iterations=rim)
        return Touched(np.where(near, after.astype(np.int32) + 1, 0).astype(np.int32), int(changed.sum()), 0)
    numbers = np.unique(after[changed])
    # An object that lost voxels was touched too, and is taught as it is now.
    numbers = np.union1d(numbers, np.unique(after[np.isin(before, np.unique(before[changed])) & (before == after)]))
    numbers = numbers[numbers > 0]
    whole = np.isin(after, numbers)
    background = (after == 0) & binary_dilation(whole | changed, around, iterations=rim)
    taught = np.zeros(after.shape, np.int32)
    taught[background] = 1
    taught[whole] = np.searchsorted(numbers, after[whole]).astype(np.int32) + 2
    return Touched(taught, int(changed.sum()), len(numbers))


def origin_of(model: Model, image: Image, region: str | None) -> dict[str, Any]:
    """Return by what the model and the image of a run are known again, as plain data.

    Parameters
    ----------
    model : Model
        As it ran.
    image : Image
        The whole image, at the resolution that was segmented.
    region : str or None
        Which part of it was; of other frames nothing is kept.
    """
    ranges = Region.parse(region).ranges if region else ()
    # Frames as a whole: their intensities are measured beyond the region.
    frames = image.part(Region(tuple(part for part in ranges if part[0] not in model.spec.axes)))
    return {"model": _model_sum(model), "shape": list(frames.shape), "voxels": _voxel_sum(frames.data)}


def _model_sum(model: Model) -> str:
    """Return the checksum of a model: milliseconds, since a viewer waits for it."""
    import torch

    total = zlib.crc32(model.spec.model_dump_json(include=_USED).encode())
    for key, value in model.network.state_dict().items():
        total = zlib.crc32(key.encode(), total)
        total = zlib.crc32(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data, total)
    return f"{total:08x}"


def _voxel_sum(data: Any) -> str | None:
    """Return the checksum of some voxels on a grid; None of data that would have to be read for it."""
    if type(data) is not np.ndarray:
        return None
    side = int(_SAMPLED ** (1 / data.ndim))
    grid = np.ix_(*(np.linspace(0, n - 1, min(n, side)).astype(np.intp) for n in data.shape))
    # By value, since a copy of another type or order in memory is no other image.
    return f"{zlib.crc32(np.nan_to_num(data[grid].astype(np.float64)).tobytes()):08x}"


def require_origin(origin: Mapping[str, Any], model: Model, image: Image, region: str | None) -> None:
    """Refuse another model or image than those of a run: what they change would be taken for corrections.

    Parameters
    ----------
    origin : mapping
        From :func:`origin_of`, of the run.
    model, image, region
        As they are now, as for :func:`origin_of`.

    Raises
    ------
    ModelError, ImageError
        If they are known to be others.
    """
    now = origin_of(model, image, region)
    if now["model"] != origin["model"]:
        raise ModelError(
            f"model {model.spec.name!r} has changed since this run, and what it finds now would pass for corrections; "
            "segment the image again, and correct the new labels"
        )
    known = now["voxels"] is not None and origin["voxels"] is not None
    if now["shape"] != origin["shape"] or (known and now["voxels"] != origin["voxels"]):
        raise ImageError(
            f"the data of {image.name!r} have changed since this run, and what is found in them now would pass for "
            "corrections; segment it again, and correct the new labels"
        )


@dataclass(frozen=True)
class Compared:
    """Old and new model on the same held-out images.

    Attributes
    ----------
    old, new : dict of str to float
        Their scores, those that count first.
    reason : str
        What was held out.
    caution : str or None
        What makes the scores less than they seem.
    model : Model
        The new one.
    """

    old: dict[str, float]
    new: dict[str, float]
    reason: str
    model: Model = field(repr=False)
    caution: str | None = None

    @property
    def is_better(self) -> bool:
        """Whether the new model has the better score."""
        return next(iter(self.new.values())) > next(iter(self.old.values()))

    @property
    def text(self) -> str:
        """Both in a sentence."""
        told = ", ".join(f"{name} {self.old[name]:.3f} -> {value:.3f}" for name, value in list(self.new.items())[:3])
        better = "the new model is better" if self.is_better else "the new model is NOT better"
        caution = f" ({self.caution})" if self.caution else ""
        return f"{better}: {told}; on {self.reason}{caution}"


def for_another_image(asked: SegmentOptions) -> SegmentOptions:
    """Return the options of a run without those that are of its image or of its plan."""
    return asked.changed(axes=None, region=None, level=0, tile="auto", overlap="auto")


def require_comparable(model: Model, held_out: Sequence[tuple[Image, Labels]], options: SegmentOptions) -> None:
    """Refuse what :func:`compare_models` would refuse, before any work.

    Parameters
    ----------
    model, held_out, options
        As for :func:`compare_models`.

    Raises
    ------
    ImageError
        If an image does not suit model and options, or its labels are of another shape.
    """
    from napari_tiled_unet.matching import match_image, match_scale

    for image, truth in held_out:
        try:
            source, _ = match_image(image, model, options)
            match_scale(source, model, options)
        except TiledUnetError as error:
            raise ImageError(
                f"{image.name!r} cannot be segmented as this run was: {error}; or compare on another image"
            ) from None
        shape = source.label_shape(model.spec.axes)
        if truth.shape != shape:
            raise ImageError(
                f"the right labels of {image.name!r} have shape {truth.shape}, those of a model would have {shape}; "
                "choose labels of that image"
            )


def compare_models(
    old: Model, new: Model, held_out: Sequence[tuple[Image, Labels]], options: SegmentOptions | None = None
) -> Compared:
    """Segment held-out images with both models, and score both against the truth.

    Parameters
    ----------
    old, new : Model
        Of the same target.
    held_out : sequence of (Image, numpy.ndarray)
        Images and their right labels, which were not trained on, with the axes that a run would give them.
    options : SegmentOptions, optional
        How they are segmented, by both.
    """
    from napari_tiled_unet.evaluation import evaluate
    from napari_tiled_unet.segmentation import segment

    kind = new.spec.target.kind
    truths = [part for _, truth in held_out for part in _as_stacks(truth)]
    names = ("AP", "AP@0.5", "F1") if kind == "objects" else ("Dice", "IoU")
    scores = []
    for model in (old, new):
        found = [part for image, _ in held_out for part in _as_stacks(segment(image, model, options=options))]
        done = evaluate(found, truths, target=kind).scores
        scores.append({name: done[name] for name in names})
    return Compared(scores[0], scores[1], ", ".join(image.name for image, _ in held_out), new)


def _as_stacks(labels: Labels) -> list[Labels]:
    """Return labels in parts of three axes at most, which is what can be scored."""
    labels = np.squeeze(labels)
    return list(labels.reshape(-1, *labels.shape[-3:])) if labels.ndim > 3 else [labels]


def candidate_path(model: Path) -> Path:
    """Return where what becomes of a model's file waits until it is taken; no list of models shows it.

    Raises
    ------
    FileError
        If there can be no such folder.
    """
    return _made(user_folder() / "candidates") / f"{model.stem}.safetensors"


def _made(folder: Path) -> Path:
    """Return a folder that is there: one that the preferences name need not be yet."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(
            f"folder {str(folder)!r} cannot be made ({error.strerror or error}); choose another folder of models"
        ) from None
    return folder


def taken_path(old: Path) -> Path:
    """Return the file that a new model becomes: the old one's, or for a bundled one a file of the user's."""
    if old.parent == bundled_folder():
        return user_folder() / f"{old.stem}-improved.safetensors"
    return old


def take(old: Path, model: Model) -> str:
    """Put a new model in the place of the old file, which is kept beside it; return what was done.

    A bundled model stays; the new one gets a name of its own. The old file may be gone by then.

    Raises
    ------
    FileError
        If it cannot be written.
    """
    path = taken_path(old)
    _made(path.parent)
    kept = ""
    if path.exists():
        backup = path.with_suffix(".safetensors.old")
        try:
            shutil.copy2(path, backup)
        except OSError as error:
            raise FileError(
                f"the old model cannot be kept as {str(backup)!r} ({error.strerror or error}), so it was not replaced; "
                "make room, or let the folder be written to, and take the new one again"
            ) from None
        kept = f"; the old one is kept as {backup.name}"
    spec = model.spec.model_copy(update={"name": path.stem})
    save_model(type(model)(spec, model.network), path, overwrite=True)
    return f"{path.stem!r} is the new model now{kept}"
