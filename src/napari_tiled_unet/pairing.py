"""Two folders of files brought together by name.

``cell_1.tif`` goes with ``cell_1.tif`` in the folder of labels, or with
``cell_1_labels.ome.tif``, ``cell_1_mask.png`` and the like, also in the same folder.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from napari_tiled_unet.errors import FileError
from napari_tiled_unet.io import image_files

# What people append to the name of an image for its labels.
_LABEL_ENDING = re.compile(r"[ _.-]?(labels?|masks?|seg(mentation)?|gt|truth|annotations?)$", re.IGNORECASE)
_MANY = 5


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
    _check_existence(images, labels)
    return _pair(images, labels, image_files([images]))


def pair_label_files(true: str | Path, predicted: str | Path) -> Pairing:
    """Pair the true and the predicted label files of two folders (or of one, given twice) by name.

    As :func:`pair_files` does, but both sides are labels: ``cell_1_mask.png`` goes with
    ``cell_1_labels.ome.tif``, and files of the same name go together, our own results too.

    Parameters
    ----------
    true, predicted : str or Path
        Folders, or a file each.

    Returns
    -------
    Pairing
        The true files stand in the place of the images.

    Raises
    ------
    FileError
        If a path does not exist, nothing matches, or two files claim the same partner.
    """
    true, predicted = Path(true), Path(predicted)
    _check_existence(true, predicted)
    pairing = _pair(true, predicted, _label_files(true), endings=True)
    claims: dict[Path, list[Path]] = {}
    for truth, found in pairing.matched:
        claims.setdefault(found, []).append(truth)
    matched = []
    for found, truths in claims.items():
        # An image may lie beside its truth: the file of the very same name is what is meant.
        meant = [t for t in truths if stem_of(t) == stem_of(found)] or truths
        if len(meant) > 1:
            raise FileError(f"{_names(meant)} all claim to be the truth of {found.name}; keep one of them there")
        matched.append((meant[0], found))
    return Pairing(tuple(matched), pairing.without_labels, pairing.without_image)


def _check_existence(*paths: Path) -> None:
    for path in paths:
        if not path.exists():
            raise FileError(f"{str(path)!r} does not exist; give a folder, or an image file")


def _pair(images: Path, labels: Path, image_list: list[Path], *, endings: bool = False) -> Pairing:
    """Pair listed images with labels; with ``endings`` they too may be called _mask and the like."""
    label_list = _label_files(labels)
    if not images.is_dir() and not labels.is_dir():
        return Pairing(((images, labels),))
    if images.resolve() == labels.resolve():
        # In one folder the label files are those whose names say so.
        label_list = [p for p in label_list if _LABEL_ENDING.search(stem_of(p))]
        image_list = [p for p in image_list if p not in label_list]
    claims: dict[str, list[Path]] = {}
    for path in label_list:
        for key in {stem_of(path), _LABEL_ENDING.sub("", stem_of(path))}:
            claims.setdefault(key, []).append(path)
    matched, lonely = [], []
    for path in image_list:
        partners = claims.get(stem_of(path), [])
        if endings and not partners:
            partners = claims.get(_LABEL_ENDING.sub("", stem_of(path)), [])
        exact = [p for p in partners if stem_of(p) == stem_of(path)]
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
        files = sorted({*files, *(p for p in path.glob("*_labels.ome.tif") if not p.name.startswith("."))})
    return files


def stem_of(path: Path) -> str:
    """Return the name of an image file without its suffix, be it a double one such as ``.ome.tif``."""
    name = path.name
    for suffix in (".ome.tiff", ".ome.tif", ".ome.zarr"):
        if name.lower().endswith(suffix):
            return name[: -len(suffix)]
    return path.stem
