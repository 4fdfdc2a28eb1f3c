"""By what an image file is known again: where it lies, and a digest of some of its bytes.

A name says little, since every folder of a plate has its ``A1.tif``; a path alone changes when
a folder is moved, and a time when it is copied.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from napari_tiled_unet.errors import FileError
from napari_tiled_unet.io.tiff import read_description

# Of a file at most so many blocks of so many bytes are looked at: 1 MiB, all of a small one.
_BLOCKS, _BLOCK = 16, 2**16
# Of the folder of a Zarr the first files, in the order of their names.
_FILES = 64

SOFTWARE = "napari-tiled-unet"
_KEY = "image_file"


def identity_of(image: str | Path) -> dict[str, Any]:
    """Return by what an image file is known again, as a part of the provenance of its results.

    Parameters
    ----------
    image : str or Path
        The file, or the folder of a Zarr.

    Returns
    -------
    dict
        ``image_file`` with its absolute ``path``, and a ``digest`` of its size and of 1 MiB spread over
        it; of a folder that of the names, sizes and beginnings of its first 64 files.

    Raises
    ------
    FileError
        If it cannot be read.
    """
    return {_KEY: {"path": str(Path(image).resolve()), "digest": _digest(Path(image))}}


def result_of(result: Path, image: Path) -> Literal["same", "changed", "other", "unknown"]:
    """Return whether a result, labels or maps, is of an image.

    Parameters
    ----------
    result, image : Path
        Files that exist.

    Returns
    -------
    str
        ``same``: of this image, also where it was moved since. ``changed``: of the file at this path, which
        holds something else now. ``other``: of another one. ``unknown``: the result does not say.

    Raises
    ------
    FileError
        If the image cannot be read.
    """
    recorded = _recorded(result)
    if recorded is None:
        return "unknown"
    if recorded["digest"] == _digest(image):
        return "same"
    return "changed" if recorded["path"] == str(image.resolve()) else "other"


def image_of(result: Path) -> str | None:
    """Return the path of the image that a result says it is of; None where it does not say."""
    recorded = _recorded(result)
    return None if recorded is None else str(recorded["path"])


def is_ours(path: Path) -> bool:
    """Return whether a file was written by a run of this package, by its description."""
    return _description(path).get("software") == SOFTWARE


def _recorded(result: Path) -> Mapping[str, Any] | None:
    found = _description(result).get(_KEY)
    return found if isinstance(found, dict) and {"path", "digest"} <= set(found) else None


def _description(path: Path) -> dict[str, Any]:
    try:
        return read_description(path)
    except FileError:
        return {}


def _digest(image: Path) -> str:
    digest = hashlib.blake2b(digest_size=16)
    try:
        if image.is_dir():
            for file in islice(_files_below(image), _FILES):
                digest.update(f"{file.relative_to(image).as_posix()} {file.stat().st_size} ".encode())
                with file.open("rb") as opened:
                    digest.update(opened.read(_BLOCK))
        else:
            _add_blocks(image, digest)
    except OSError as error:
        raise FileError(
            f"{str(image)!r} cannot be read: {error.strerror or error}; check its path and permissions"
        ) from error
    return digest.hexdigest()


def _add_blocks(file: Path, digest: hashlib.blake2b) -> None:
    size = file.stat().st_size
    digest.update(f"{size} ".encode())
    # From the first to the last, so that all of a file of less than 1 MiB is among them.
    step = max(_BLOCK, -(-max(0, size - _BLOCK) // (_BLOCKS - 1)))
    with file.open("rb") as opened:
        for start in range(0, size, step):
            opened.seek(start)
            digest.update(opened.read(_BLOCK))


def _files_below(folder: Path) -> Iterator[Path]:
    for where, folders, files in os.walk(folder):
        folders.sort()
        yield from (Path(where) / name for name in sorted(files))
