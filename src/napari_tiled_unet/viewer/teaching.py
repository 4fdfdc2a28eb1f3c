"""What the train form shows, as pure functions: rows from the options, pairs from the layers; no Qt."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_tiled_unet.errors import ImageError
from napari_tiled_unet.image import Image
from napari_tiled_unet.model_files import bundled_folder
from napari_tiled_unet.train_options import TrainOptions
from napari_tiled_unet.viewer.form import Row, option_rows, said_in_rows
from napari_tiled_unet.viewer.hands import claimed_text, is_claimed
from napari_tiled_unet.viewer.layers import METADATA_KEY, data_of, image_from_layer, labels_axes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import napari.layers

    from napari_tiled_unet.training.happenings import Validated

LAYERS, FOLDERS = "layers", "folders"
"""Where the images are."""
FRESH = ""
"""The start that is no model."""
# Every reading of the axes of a file that does not name them.
READINGS = ("yx", "zyx", "tyx", "cyx", "tzyx", "tcyx", "czyx", "zcyx", "tczyx")
_LABELS = {"sparse": "labels are partial", "start": "start from", "validation": "held out"}
# Axes and start are drop-downs of their own; a channel is a number that is typed.
_KINDS: dict[str, Any] = {"start": "choice", "channel": "text"}


@dataclass(frozen=True)
class Lesson:
    """A training as it was asked for.

    Attributes
    ----------
    images, labels
        Lists of images, or a folder each.
    options : TrainOptions
        How.
    out : Path or None
        The model file; None where nothing is kept.
    resume : bool
        Whether to go on from the checkpoint beside it.
    overwrite : bool
        Whether the model file may be there already.
    """

    images: Any
    labels: Any
    options: TrainOptions
    out: Path | None = None
    resume: bool = False
    overwrite: bool = False


def train_rows() -> tuple[Row, ...]:
    """Return the rows of the form, one per field of :class:`TrainOptions`, in its order."""
    return tuple(
        replace(row, kind=_KINDS.get(row.name, row.kind), label=_LABELS.get(row.name, row.label))
        for row in option_rows(TrainOptions)
    )


def train_options(values: Mapping[str, Any]) -> TrainOptions:
    """Return the options that the rows say; empty lines stand for the defaults.

    Raises
    ------
    OptionsError
        If a row holds a value that breaks its rule.
    """
    said = said_in_rows(values)
    if "classes" in said:
        said["classes"] = tuple(part.strip() for part in said["classes"].split(",") if part.strip())
    return TrainOptions.of(**said)


def is_own_result(layer: Any) -> bool:
    """Return whether a Labels layer was made by a model of ours, or is being made, not by a human."""
    return METADATA_KEY in layer.metadata or is_claimed(layer)


def fits(image: napari.layers.Image, labels: napari.layers.Labels) -> bool:
    """Return whether labels can be those of an image: the same size along y and x, not more axes."""
    whole = [int(n) for n in data_of(image).shape]
    own = whole[:-1] if image.rgb else whole
    found = [int(n) for n in data_of(labels).shape]
    return len(found) <= len(own) and found[-2:] == own[-2:]


def proposed(
    image: napari.layers.Image, labels: Sequence[napari.layers.Labels]
) -> tuple[list[napari.layers.Labels], napari.layers.Labels | None]:
    """Return the Labels layers that fit an image, and the one to start with, if one is clearly meant.

    A layer whose name holds the image's comes first, else the only one that fits. What a model
    of ours made is never taken unasked: it would be taught what it says already.
    """
    fitting = [layer for layer in labels if fits(image, layer)]
    human = [layer for layer in fitting if not is_own_result(layer)]
    named = [layer for layer in human if image.name.lower() in layer.name.lower()]
    if len(named) == 1:
        return fitting, named[0]
    return fitting, human[0] if len(human) == 1 else None


def images_and_labels(
    pairs: Sequence[tuple[napari.layers.Image, napari.layers.Labels]], axes: str
) -> tuple[list[Image], list[Image]]:
    """Return the images of layers and their labels, as they stand now: painting on changes nothing.

    Raises
    ------
    ImageError
        If a layer has other axes.
    """
    images, truths = [], []
    for image, labels in pairs:
        n = len(data_of(image).shape)
        if n != len(axes):
            raise ImageError(f"{image.name!r} has {n} axes, not {axes!r}; train on layers with the same axes")
        images.append(image_from_layer(image, axes))
        truths.append(labels_from_layer(labels, image, axes))
    return images, truths


def labels_from_layer(labels: napari.layers.Labels, image: napari.layers.Image, axes: str) -> Image:
    """Return the labels of an image; a copy where they are in memory.

    Raises
    ------
    ImageError
        If they have other axes than the image, or a run is making them.
    """
    if is_claimed(labels):
        raise ImageError(claimed_text(labels))
    data = data_of(labels)
    with_place = labels_axes(axes, rgb=bool(image.rgb))
    own = with_place if len(data.shape) == len(with_place) else axes.replace("c", "")
    if len(data.shape) != len(own):
        raise ImageError(
            f"labels {labels.name!r} have shape {tuple(data.shape)}, the image {image.name!r} has axes {axes!r}; "
            f"give one label per voxel, with axes {axes.replace('c', '')!r}"
        )
    if type(data) is np.ndarray:
        data = data.copy()
    return Image(data, own, name=labels.name)


def file_name(text: str) -> str:
    """Return a name that every file system takes."""
    return re.sub(r"[^\w.-]+", "-", text.strip().removesuffix(".safetensors")).strip("-.") or "model"


def free_name(wanted: str, folder: Path) -> str:
    """Return a name of a model that is neither in the folder nor bundled: as wanted, or with a number.

    A user's model hides the bundled one of the same name.
    """
    name, number = file_name(wanted), 2
    while any((place / f"{name}.safetensors").exists() for place in (folder, bundled_folder())):
        name, number = f"{file_name(wanted)}-{number}", number + 1
    return name


def stage_text(step: int, steps: int, seconds: float, best: Validated | None) -> str:
    """Return the line of a training under way."""
    told = f"step {step} of at most {steps}, {minutes_text(seconds)}"
    return told if best is None else f"{told}; best so far after step {best.step}: {scores_text(best.scores)}"


def scores_text(scores: Mapping[str, float]) -> str:
    """Return scores as a few words, those that models are chosen by first."""
    return ", ".join(f"{name} {value:.2f}" for name, value in list(scores.items())[:3])


def minutes_text(seconds: float) -> str:
    """Return a time for people."""
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.1f} min"


def cancelled_text(name: str, step: int, best: Validated | None, *, saved: bool) -> str:
    """Return what a cancelled training leaves behind."""
    if not saved:
        return "cancelled before anything was learned; no model was made"
    if best is None:
        return f"cancelled after step {step}: the model as it stood then is kept as {name!r}; Segment offers it"
    return (
        f"cancelled after step {step}: the best model so far, of step {best.step} ({scores_text(best.scores)}), "
        f"is kept as {name!r}; Segment offers it"
    )
