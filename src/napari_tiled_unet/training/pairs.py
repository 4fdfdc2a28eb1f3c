"""Images and their labels brought together: from arrays, files or folders, opened but not read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from napari_tiled_unet.errors import ImageError, OptionsError
from napari_tiled_unet.image import Frame, Image, image_from_array, luminance
from napari_tiled_unet.io import read_image, read_labels
from napari_tiled_unet.pairing import pair_files
from napari_tiled_unet.train_options import TrainOptions


@dataclass(frozen=True)
class Pair:
    """An image and its labels, opened lazily.

    Attributes
    ----------
    image, labels : Image
        On the same grid; the labels have no channel axis.
    """

    image: Image
    labels: Image

    @property
    def name(self) -> str:
        """Name of the image."""
        return self.image.name

    def frames(self, spatial: str) -> list[tuple[Frame, Frame]]:
        """Return the frames of image and labels, pair by pair."""
        return list(zip(self.image.frames(spatial), self.labels.frames(spatial), strict=True))


def open_pairs(images: Any, labels: Any, options: TrainOptions) -> tuple[list[Pair], list[str]]:
    """Open images and labels, and check that they belong together.

    Parameters
    ----------
    images, labels
        An array, Image or path each, or a sequence of those, or a folder each.
    options : TrainOptions
        ``axes``, ``channel`` and ``spacing`` are used.

    Returns
    -------
    pairs : list of Pair
        All with the same channels.
    told : list of str
        What was decided or left out.

    Raises
    ------
    ImageError, FileError, OptionsError
        If there are none, or they do not belong together.
    """
    told: list[str] = []
    if _is_path(images) and _is_path(labels):
        pairing = pair_files(images, labels)
        told.append(pairing.report())
        sources: list[tuple[Any, Any]] = list(pairing.matched)
    else:
        sources = _in_pairs(images, labels)
    numbered = isinstance(images, list | tuple)
    pairs = [
        _open(image, label, options, f"image {number}" if numbered else "image")
        for number, (image, label) in enumerate(sources)
    ]
    return _with_equal_channels(pairs, options, told), told


def _is_path(value: Any) -> bool:
    return isinstance(value, str | Path)


def _in_pairs(images: Any, labels: Any) -> list[tuple[Any, Any]]:
    """Return sequences item by item; anything else is a single pair."""
    many = (list, tuple)
    if isinstance(images, many) != isinstance(labels, many):
        raise ImageError("images are a list and labels are not, or the reverse; give a list of each, or one of each")
    if not isinstance(images, many):
        return [(images, labels)]
    if len(images) != len(labels):
        raise ImageError(f"{len(images)} images for {len(labels)} label images; give one for each")
    if not images:
        raise ImageError("there are 0 images; give at least one image with its labels")
    return list(zip(images, labels, strict=True))


def _open(image: Any, labels: Any, options: TrainOptions, name: str) -> Pair:
    source = _opened(image, options.axes, name)
    if options.spacing is not None:
        source = source.with_spacing(options.spacing)
    truth = _labels_on(labels, source)
    _check_labels(truth, source)
    return Pair(source, truth)


def _opened(image: Any, axes: str | None, name: str) -> Image:
    if _is_path(image):
        return read_image(image, axes=axes)
    return image if isinstance(image, Image) else image_from_array(image, axes, name=name)


def _labels_on(labels: Any, image: Image) -> Image:
    """Open labels; where they do not name their axes, they have those of the image."""
    expected = image.axes.replace("c", "")
    if isinstance(labels, Image):
        truth = labels
    elif _is_path(labels):
        try:
            truth = read_labels(labels)
        except ImageError:
            truth = read_labels(labels, axes=expected)
    else:
        if hasattr(labels, "shape") and len(labels.shape) != len(expected):
            raise ImageError(
                f"labels of {image.name!r} have shape {tuple(labels.shape)}, the image has axes {image.axes!r} "
                f"and shape {image.shape}; give one label per voxel, with axes {expected!r}"
            )
        truth = image_from_array(labels, expected, name=f"labels of {image.name}")
    if truth.axes != expected and len(truth.shape) == len(expected) and set(truth.axes) != set(expected):
        truth = replace(truth, axes=expected, spacing=None)
    return truth


def _check_labels(labels: Image, image: Image) -> None:
    sizes = {axis: image.size_of(axis) for axis in image.axes if axis != "c"}
    found = {axis: labels.size_of(axis) for axis in labels.axes}
    if "c" in found and found.pop("c") != 1:
        raise ImageError(
            f"labels {labels.name!r} have {labels.n_channels} channels; give one number per voxel, not a colour picture"
        )
    if found != sizes:
        raise ImageError(
            f"labels of {image.name!r} have shape {labels.shape} ({labels.axes}), the image has {image.shape} "
            f"({image.axes}); they must be of the same image, one label per voxel"
        )
    if labels.data.dtype.kind == "f":
        raise ImageError(
            f"labels of {image.name!r} are {labels.data.dtype}; labels are whole numbers: "
            "convert them with labels.astype('uint32') if that is what they hold"
        )


def _with_equal_channels(pairs: Sequence[Pair], options: TrainOptions, told: list[str]) -> list[Pair]:
    """Return the pairs with the chosen channel, or grey where RGB and grey images are mixed."""
    counts = {pair.image.n_channels for pair in pairs}
    if options.channel is not None:
        few = [p for p in pairs if p.image.n_channels <= options.channel]
        if few:
            raise OptionsError(
                f"channel={options.channel}: {few[0].name!r} has {few[0].image.n_channels} channels, counted from 0"
            )
        return list(pairs)
    mixed = len(counts) > 1
    if mixed and all(pair.image.is_rgb or pair.image.n_channels == 1 for pair in pairs):
        told.append("RGB images are converted to grey (ITU-R 601 luminance), since others are grey")
        return grey(pairs)
    if mixed:
        first = next(p for p in pairs if p.image.n_channels != pairs[0].image.n_channels)
        raise ImageError(
            f"{pairs[0].name!r} has {pairs[0].image.n_channels} channels, {first.name!r} has "
            f"{first.image.n_channels}; give images with the same channels, or choose one with channel"
        )
    return list(pairs)


def grey(pairs: Iterable[Pair]) -> list[Pair]:
    """Return the pairs with RGB images as grey ones."""
    return [replace(p, image=luminance(p.image)) if p.image.is_rgb else p for p in pairs]
