"""Reading an image file, by its suffix."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np

from napari_tiled_unet.errors import FileError, ImageError
from napari_tiled_unet.image import Image, image_from_array
from napari_tiled_unet.io.metadata import check_level
from napari_tiled_unet.io.ome_zarr import is_zarr, read_zarr
from napari_tiled_unet.io.tiff import LAZY_BYTES, read_tiff
from napari_tiled_unet.process_setting import ProcessSetting

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
    return _read(Path(path), axes, level)


def read_labels(path: str | Path, axes: str | None = None) -> Image:
    """Open a file of labels; as :func:`read_image`, but of a picture with a palette the numbers are read.

    Raises
    ------
    FileError, ImageError
        As :func:`read_image`.
    """
    return _read(Path(path), axes, 0, numbers=True)


def _read(path: Path, axes: str | None, level: int, *, numbers: bool = False) -> Image:
    suffix = path.suffix.lower()
    try:
        folder_of_zarr = _found(path)
    except PermissionError as error:
        raise _forbidden(path, error) from error
    if suffix not in _SUFFIXES and not folder_of_zarr:
        raise FileError(
            f"{str(path)!r} has an unknown format; the known ones are {', '.join(_SUFFIXES)}: convert it to OME-TIFF"
        )
    reader: _Reader = read_zarr if folder_of_zarr else _READERS[suffix]
    if numbers and reader is _read_picture:
        reader = functools.partial(_read_picture, numbers=True)
    try:
        return reader(path, axes, level)
    except (FileError, ImageError, MemoryError):
        raise
    except ModuleNotFoundError as error:
        raise FileError(
            f"{str(path)!r} needs the package {error.name!r}; install it with pip install {error.name}"
        ) from None
    except PermissionError as error:
        raise _forbidden(path, error) from error
    except Exception as error:  # a damaged file can raise anything in the libraries that decode it
        raise FileError(
            f"{str(path)!r} is damaged or not a {suffix} file ({error}); open it elsewhere or get it again"
        ) from error


def _found(path: Path) -> bool:
    """Return whether a path is the folder of a Zarr; refuse one that is no image."""
    if not path.exists():
        raise FileError(f"image file {str(path)!r} does not exist; check the path")
    if is_zarr(path):
        return True
    if path.is_dir():
        # A folder that may not be listed says so.
        next(path.iterdir(), None)
        raise FileError(f"{str(path)!r} is a folder; give an image file, or on the command line its images are taken")
    return False


def _forbidden(path: Path, error: PermissionError) -> FileError:
    return FileError(f"{str(path)!r} cannot be read: {error.strerror}; check its permissions")


def _read_npy(path: Path, axes: str | None, level: int) -> Image:
    check_level(level, 1, path.name)
    large = path.stat().st_size > LAZY_BYTES
    data = np.load(path, mmap_mode="r" if large else None, allow_pickle=False)
    return image_from_array(data, axes, name=path.name)


def _read_picture(path: Path, axes: str | None, level: int, *, numbers: bool = False) -> Image:
    check_level(level, 1, path.name)
    from PIL import Image as Picture

    with _any_size, Picture.open(path) as picture:
        # The numbers of a palette are those of labels, and its colours what an image looks like.
        mode = picture.mode if numbers and picture.mode == "P" else _AS_SHOWN.get(picture.mode, picture.mode)
        data = np.asarray(picture.convert(mode) if mode != picture.mode else picture)
    if data.dtype == np.uint8 and _is_deep_png(path):
        # Pillow gives 8 of the 16 bits, and grey with alpha as RGBA.
        import imagecodecs

        data = imagecodecs.png_decode(path.read_bytes())
        if data.ndim == 3 and data.shape[2] == 2:
            data, mode = data[..., 0], "L"
    rgb = mode in ("RGB", "RGBA")
    image = image_from_array(data, axes or ("yxc" if rgb else None), name=path.name)
    return replace(image, is_rgb=rgb and "c" in image.axes)


def _is_deep_png(path: Path) -> bool:
    """Return whether a PNG has 16 bits per value."""
    with path.open("rb") as file:
        header = file.read(25)
    return header.startswith(b"\x89PNG") and header[24:25] == b"\x10"


_Reader = Callable[[Path, "str | None", int], Image]
_READERS: dict[str, _Reader] = {
    **dict.fromkeys(_TIFF, read_tiff),
    **dict.fromkeys(_PICTURE, _read_picture),
    ".npy": _read_npy,
    ".zarr": read_zarr,
}


def _allow_any_size() -> int | None:
    """Let pictures be large: Pillow takes those above 179 megapixels for an attack. Returns the limit."""
    from PIL import Image as Picture

    limit, Picture.MAX_IMAGE_PIXELS = Picture.MAX_IMAGE_PIXELS, None
    return limit


def _limit_size(limit: int | None) -> None:
    from PIL import Image as Picture

    Picture.MAX_IMAGE_PIXELS = limit


_any_size = ProcessSetting(_allow_any_size, _limit_size)


def image_files(paths: Iterable[str | Path]) -> list[Path]:
    """Return the image files that paths stand for: a folder is the images in it, sorted.

    Results of earlier runs (``*_labels.ome.tif``, ``*_maps.ome.tif``, ``*_spread.ome.tif``) and hidden
    files in a folder are left out. Paths that do not exist or cannot be looked at are kept, so that each is
    reported.
    """
    files: list[Path] = []
    for path in map(Path, paths):
        try:
            files += [path] if not path.is_dir() or is_zarr(path) else filter(_is_listed, sorted(path.iterdir()))
        except (OSError, RuntimeError):
            # A name that is too long, or links in a circle, which Python before 3.13 calls a RuntimeError.
            files.append(path)
    return files


def is_result(path: Path) -> bool:
    """Return whether a file has the name of a result of ours."""
    return path.name.endswith(_RESULTS)


def _is_listed(path: Path) -> bool:
    if path.suffix.lower() not in _SUFFIXES or path.name.startswith(".") or is_result(path):
        return False
    try:
        # A link to nothing is no file, but somebody's image all the same.
        return path.is_file() or is_zarr(path) or (path.is_symlink() and not path.exists())
    except (OSError, RuntimeError):
        return True
