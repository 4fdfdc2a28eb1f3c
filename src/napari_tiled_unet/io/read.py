"""Reading an image file, by its suffix."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from napari_tiled_unet.errors import FileError, ImageError
from napari_tiled_unet.image import Image, image_from_array
from napari_tiled_unet.io.metadata import check_level
from napari_tiled_unet.io.ome_zarr import is_zarr, read_zarr
from napari_tiled_unet.io.tiff import LAZY_BYTES, read_tiff

_TIFF = (".tif", ".tiff", ".lsm")
_PICTURE = (".png", ".jpg", ".jpeg", ".bmp")
_SUFFIXES = (*_TIFF, *_PICTURE, ".npy", ".zarr")
_RESULTS = ("_labels.ome.tif", "_maps.ome.tif", "_spread.ome.tif")
# How pictures that are neither grey nor RGB are read: palettes and print colours as what they look like.
_AS_SHOWN = {"LA": "L", "La": "L", "P": "RGB", "PA": "RGB", "CMYK": "RGB", "YCbCr": "RGB", "LAB": "RGB", "HSV": "RGB"}


def read_image(path: str | Path, axes: str | None = None, level: int = 0) -> Image:
    """Open an image file.

    Parameters
    ----------
    path : str or Path
        TIFF, OME-TIFF, ImageJ TIFF, LSM, PNG, JPEG, BMP, NPY, or the folder of an OME-Zarr.
        Of several images in a file the first is read.
    axes : str, optional
        Letters of ``tczyx`` in the file's order, instead of what its metadata say.
    level : int
        Which resolution of a multiscale file (OME-Zarr, pyramidal TIFF); 0 is the full one.

    Returns
    -------
    Image
        With axes, spacing in micrometres (None unless known for every spatial axis), and
        notes of what was left out. More than 256 MB stay on disk and are read frame by frame.

    Raises
    ------
    FileError
        If the file is missing, damaged, a folder, or of an unknown format.
    ImageError
        If its axes are ambiguous, or it has no such level; the message names the choices.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if not path.exists():
        raise FileError(f"image file {str(path)!r} does not exist; check the path")
    folder_of_zarr = is_zarr(path)
    if path.is_dir() and not folder_of_zarr:
        raise FileError(f"{str(path)!r} is a folder; give an image file, or on the command line its images are taken")
    if suffix not in _SUFFIXES and not folder_of_zarr:
        raise FileError(
            f"{str(path)!r} has an unknown format; the known ones are {', '.join(_SUFFIXES)}: convert it to OME-TIFF"
        )
    reader = read_zarr if folder_of_zarr else _READERS[suffix]
    try:
        return reader(path, axes, level)
    except (FileError, ImageError, MemoryError):
        raise
    except ModuleNotFoundError as error:
        raise FileError(
            f"{str(path)!r} needs the package {error.name!r}; install it with pip install {error.name}"
        ) from None
    except PermissionError as error:
        raise FileError(f"{str(path)!r} cannot be read: {error.strerror}; check its permissions") from error
    except Exception as error:  # a damaged file can raise anything in the libraries that decode it
        raise FileError(
            f"{str(path)!r} is damaged or not a {suffix} file ({error}); open it elsewhere or get it again"
        ) from error


def _read_npy(path: Path, axes: str | None, level: int) -> Image:
    check_level(level, 1, path.name)
    large = path.stat().st_size > LAZY_BYTES
    data = np.load(path, mmap_mode="r" if large else None, allow_pickle=False)
    return image_from_array(data, axes, name=path.name)


def _read_picture(path: Path, axes: str | None, level: int) -> Image:
    check_level(level, 1, path.name)
    from PIL import Image as Picture

    with _any_size(), Picture.open(path) as picture:
        mode = _AS_SHOWN.get(picture.mode, picture.mode)
        data = np.asarray(picture.convert(mode) if mode != picture.mode else picture)
    rgb = mode in ("RGB", "RGBA")
    image = image_from_array(data, axes or ("yxc" if rgb else None), name=path.name)
    return replace(image, is_rgb=rgb and "c" in image.axes)


_READERS = {
    **dict.fromkeys(_TIFF, read_tiff),
    **dict.fromkeys(_PICTURE, _read_picture),
    ".npy": _read_npy,
    ".zarr": read_zarr,
}


@contextlib.contextmanager
def _any_size() -> Iterator[None]:
    """Let pictures be large: Pillow takes those above 179 megapixels for an attack."""
    from PIL import Image as Picture

    limit, Picture.MAX_IMAGE_PIXELS = Picture.MAX_IMAGE_PIXELS, None
    try:
        yield
    finally:
        Picture.MAX_IMAGE_PIXELS = limit


def image_files(paths: Iterable[str | Path]) -> list[Path]:
    """Return the image files that paths stand for: a folder is the images in it, sorted.

    Results of earlier runs (``*_labels.ome.tif``, ``*_maps.ome.tif``, ``*_spread.ome.tif``) and hidden
    files in a folder are left out. Paths that do not exist are kept, so that each is reported.
    """
    files: list[Path] = []
    for path in map(Path, paths):
        if not path.is_dir() or is_zarr(path):
            files.append(path)
            continue
        files += [
            p
            for p in sorted(path.iterdir())
            if p.suffix.lower() in _SUFFIXES
            and not p.name.startswith(".")
            and not p.name.endswith(_RESULTS)
            and (p.is_file() or is_zarr(p))
        ]
    return files
