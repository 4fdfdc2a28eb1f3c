"""Labels layers compared: what is scored, how it is told, and where a fault lies; no Qt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from napari_tiled_unet.disagreement import COLOURS
from napari_tiled_unet.errors import ImageError
from napari_tiled_unet.viewer.layers import METADATA_KEY, data_of, labels_axes, named_axes, shape_of

if TYPE_CHECKING:
    import napari.layers

    from napari_tiled_unet.disagreement import Fault
    from napari_tiled_unet.evaluation import Evaluation

FAULT_COLOURS: dict[str, str] = {
    "matched": "#009e73",
    "missed": "#56b4e9",
    "extra": "#f0e442",
    "split": "#cc79a7",
    "merged": "#d55e00",
}
"""What each kind looks like; told apart with any kind of colour vision."""
# Scores that are whole numbers.
_COUNTS = ("true objects", "predicted objects", "matched", "split", "merged", "missed", "extra")


@dataclass(frozen=True)
class Place:
    """A fault, and where it is in the data of its layer.

    Attributes
    ----------
    text : str
        What the list says.
    voxel : tuple of float
        Along all axes of the layer.
    """

    text: str
    voxel: tuple[float, ...]


@dataclass(frozen=True)
class Verdict:
    """Two Labels layers compared.

    Attributes
    ----------
    evaluation : Evaluation
        Frame by frame.
    places : tuple of Place
        The faults, kind by kind.
    faults : numpy.ndarray or None
        uint8, of the layers' shape, values of :data:`napari_tiled_unet.disagreement.COLOURS`; None for classes.
    """

    evaluation: Evaluation
    places: tuple[Place, ...]
    faults: npt.NDArray[np.uint8] | None


def compare_layers(
    predicted: napari.layers.Labels, true: napari.layers.Labels, target: Literal["objects", "classes"], *, stack: bool
) -> Verdict:
    """Score a Labels layer against another.

    Parameters
    ----------
    predicted, true : Labels layers
        On the same grid; axes that are one voxel long do not count.
    target : {"objects", "classes"}
        Whether a number is one object, or a class.
    stack : bool
        Whether three axes are one stack; else every plane is an image of its own.

    Raises
    ------
    ImageError
        If they do not have the same grid.
    """
    from napari_tiled_unet.evaluation import evaluate

    p, t = (np.asarray(data_of(layer)) for layer in (predicted, true))
    if np.squeeze(p).shape != np.squeeze(t).shape:
        raise ImageError(
            f"{predicted.name!r} has shape {p.shape}, {true.name!r} has {t.shape}; they must be of the same image"
        )
    shape = t.shape
    frames = frames_of(shape, stack=stack)
    own = t.reshape(shape), p.reshape(shape)
    found = evaluate(
        [own[1][index].reshape(_frame_shape(shape, index)) for index in frames],
        [own[0][index].reshape(_frame_shape(shape, index)) for index in frames],
        target=target,
    )
    if target == "classes":
        return Verdict(found, (), None)
    faults = np.zeros(shape, np.uint8)
    places = []
    for index, image in zip(frames, found.images, strict=True):
        assert image.comparison is not None
        assert image.faults is not None
        faults[index] = image.faults.reshape(faults[index].shape)
        places += [Place(fault_text(f), _voxel(index, f, shape)) for f in image.comparison.faults]
    order = list(FAULT_COLOURS)
    places.sort(key=lambda place: order.index(place.text.split()[0]), reverse=True)
    return Verdict(found, tuple(places), faults)


def frames_of(shape: tuple[int, ...], *, stack: bool) -> list[tuple[int, ...]]:
    """Return the index of each frame: of two axes, or of three where they are one stack."""
    inner = 3 if stack and len(shape) > 2 else 2
    return [tuple(map(int, index)) for index in np.ndindex(*shape[: len(shape) - inner])]


def planes_in_time(layer: napari.layers.Labels) -> bool:
    """Return whether the planes of a Labels layer follow each other in time and are no stack.

    As its axis labels say, or the run that made it wrote down; axes that are one voxel long do not count.
    """
    mark = layer.metadata.get(METADATA_KEY)
    image_axes = mark.get("image_axes") or "" if isinstance(mark, dict) else ""
    shape = shape_of(layer)
    for axes in (named_axes(layer), labels_axes(image_axes), labels_axes(image_axes, rgb=True)):
        if axes is not None and len(axes) == len(shape):
            outer = [axis for axis, size in zip(axes[:-2], shape[:-2], strict=True) if size > 1]
            if outer[-1:] == ["t"]:
                return True
    return False


def _frame_shape(shape: tuple[int, ...], index: tuple[int, ...]) -> tuple[int, ...]:
    inner = shape[len(index) :]
    return inner[1:] if len(inner) == 3 and inner[0] == 1 else inner


def _voxel(index: tuple[int, ...], fault: Fault, shape: tuple[int, ...]) -> tuple[float, ...]:
    between = (0.0,) * (len(shape) - len(index) - len(fault.centre))
    return (*map(float, index), *between, *fault.centre)


def fault_text(fault: Fault) -> str:
    """Return a fault as a line of the list."""
    names = {
        "split": lambda: f"true {fault.true[0]} into {_numbers(fault.predicted)}",
        "merged": lambda: f"true {_numbers(fault.true)} into {fault.predicted[0]}",
        "missed": lambda: f"true {fault.true[0]}",
        "extra": lambda: f"predicted {fault.predicted[0]}",
    }
    return f"{fault.kind} {names[fault.kind]()}, {fault.voxels} voxels"


def _numbers(labels: tuple[int, ...]) -> str:
    return ", ".join(map(str, labels[:5])) + (" ..." if len(labels) > 5 else "")


def score_rows(scores: dict[str, float]) -> list[tuple[str, str]]:
    """Return names and scores as they are shown."""
    return [(name, f"{value:.0f}" if name in _COUNTS else f"{value:.3f}") for name, value in scores.items()]


def colour_table() -> dict[int | None, Any]:
    """Return the colour of each value of the coloured layer, for napari's direct colour map."""
    table: dict[int | None, Any] = {None: "transparent", 0: "transparent"}
    return table | {value: FAULT_COLOURS[kind] for kind, value in COLOURS.items()}
