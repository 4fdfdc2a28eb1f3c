"""What a human corrected in the labels of a model, and what of it is taught; no Qt.

Only what was touched is taught, in the numbers of partial labels::

    0   not touched, ignored
    1   background: what was erased, and a rim around the touched objects
    n   a touched object, whole; or a touched voxel of class n - 1
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from napari_tiled_unet.errors import ImageError
from napari_tiled_unet.model import bundled_folder, find_model, save_model, user_folder

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from napari_tiled_unet.image import Image
    from napari_tiled_unet.model import Model

Labels = npt.NDArray[Any]

# Voxels around a touched object that are taught as background where nothing else lies.
_RIM = 4


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


def compare_models(old: Model, new: Model, held_out: Sequence[tuple[Image, Labels]], device: str = "auto") -> Compared:
    """Segment held-out images with both models, and score both against the truth.

    Parameters
    ----------
    old, new : Model
        Of the same target.
    held_out : sequence of (Image, numpy.ndarray)
        Images and their right labels, which were not trained on.
    device : str
        Where it is computed.
    """
    from napari_tiled_unet.evaluation import evaluate
    from napari_tiled_unet.segmentation import segment

    kind = new.spec.target.kind
    truths = [np.squeeze(truth) for _, truth in held_out]
    names = ("AP", "AP@0.5", "F1") if kind == "objects" else ("Dice", "IoU")
    scores = []
    for model in (old, new):
        found = [np.squeeze(segment(image, model, device=device)) for image, _ in held_out]
        done = evaluate(found, truths, target=kind).scores
        scores.append({name: done[name] for name in names})
    return Compared(scores[0], scores[1], ", ".join(image.name for image, _ in held_out), new)


def candidate_path(name: str) -> Path:
    """Return where a new model waits until it is taken; no list of models shows it."""
    folder = user_folder() / "candidates"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{find_model(name).stem}.safetensors"


def taken_path(name: str) -> Path:
    """Return the file of the model that a new one becomes: the old one's, or for a bundled one a file beside it."""
    path = find_model(name)
    if path.parent == bundled_folder():
        return user_folder() / f"{path.stem}-improved.safetensors"
    return path


def take(name: str, model: Model) -> str:
    """Put a new model in the place of the old, which is kept beside it; return what was done.

    A bundled model stays; the new one gets a name of its own.

    Raises
    ------
    FileError
        If it cannot be written.
    """
    path = taken_path(name)
    kept = ""
    if path.exists():
        backup = path.with_suffix(".safetensors.old")
        shutil.copy2(path, backup)
        kept = f"; the old one is kept as {backup.name}"
    spec = model.spec.model_copy(update={"name": path.stem})
    save_model(type(model)(spec, model.network), path, overwrite=True)
    return f"{path.stem!r} is the new model now{kept}"
