"""Images and their labels brought together: from arrays, files or folders, opened but not read.

Files are paired by name. ``cell_1.tif`` goes with ``cell_1.tif`` in the folder of labels, or
with ``cell_1_labels.ome.tif``, ``cell_1_mask.png`` and the like, also in the same folder.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from napari_tiled_unet.errors import FileError, ImageError, OptionsError
from napari_tiled_unet.image import Frame, Image, image_from_array, luminance
from napari_tiled_unet.io import image_files, read_image
from napari_tiled_unet.train_options import TrainOptions

# What people append to the name of an image for its labels.
_LABEL_ENDING = re.compile(r"[ _.-]?(labels?|masks?|seg(mentation)?|gt|truth|annotations?)$", re.IGNORECASE)
_MANY = 5


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


@dataclass(frozen=True)
class Pairing:
    """Which files belong together.

    Attributes
    ----------
    matched : tuple of (Path, Path)
        Image and label files.
    without_labels, without_image : tuple of Path
        What has no partner.
    """

    matched: tuple[tuple[Path, Path], ...]
    without_labels: tuple[Path, ...] = ()
    without_image: tuple[Path, ...] = ()

    def report(self) -> str:
        """Return one sentence that names what has no partner."""
        told = [f"{len(self.matched)} images have labels"]
        if self.without_labels:
            told.append(f"without labels: {_names(self.without_labels)}")
        if self.without_image:
            told.append(f"labels without an image: {_names(self.without_image)}")
        return "; ".join(told)


def _names(paths: Sequence[Path]) -> str:
    shown = ", ".join(p.name for p in paths[:_MANY])
    return shown if len(paths) <= _MANY else f"{shown} and {len(paths) - _MANY} more"


def pair_files(images: str | Path, labels: str | Path) -> Pairing:
    """Pair the files of two folders (or of one, given twice) by name.

    Parameters
    ----------
    images, labels : str or Path
        Folders, or a file each.

    Raises
    ------
    FileError
        If a path does not exist, nothing matches, or two label files claim the same image.
    """
    images, labels = Path(images), Path(labels)
    for path in (images, labels):
        if not path.exists():
            raise FileError(f"{str(path)!r} does not exist; give a folder, or an image file")
    image_list, label_list = image_files([images]), _label_files(labels)
    if not images.is_dir() and not labels.is_dir():
        return Pairing(((images, labels),))
    if images.resolve() == labels.resolve():
        # In one folder the label files are those whose names say so.
        label_list = [p for p in label_list if _LABEL_ENDING.search(_stem(p))]
        image_list = [p for p in image_list if p not in label_list]
    claims: dict[str, list[Path]] = {}
    for path in label_list:
        for key in {_stem(path), _LABEL_ENDING.sub("", _stem(path))}:
            claims.setdefault(key, []).append(path)
    matched, lonely = [], []
    for path in image_list:
        partners = claims.get(_stem(path), [])
        exact = [p for p in partners if _stem(p) == _stem(path)]
        partners = exact or partners
        if len(partners) > 1:
            raise FileError(f"{_names(partners)} all claim to be the labels of {path.name}; keep one of them there")
        if partners:
            matched.append((path, partners[0]))
        else:
            lonely.append(path)
    used = {p for _, p in matched}
    pairing = Pairing(tuple(matched), tuple(lonely), tuple(p for p in label_list if p not in used))
    if not matched:
        raise FileError(
            f"no image in {str(images)!r} has labels in {str(labels)!r} ({pairing.report()}); "
            "give label files the names of their images, or those with _labels or _mask at the end"
        )
    return pairing


def _label_files(path: Path) -> list[Path]:
    files = image_files([path])
    if path.is_dir():
        # Our own results are labels too.
        files = sorted({*files, *path.glob("*_labels.ome.tif")})
    return files


def _stem(path: Path) -> str:
    name = path.name
    for suffix in (".ome.tiff", ".ome.tif", ".ome.zarr"):
        if name.lower().endswith(suffix):
            return name[: -len(suffix)]
    return path.stem


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
            truth = read_image(labels)
        except ImageError:
            truth = read_image(labels, axes=expected)
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
