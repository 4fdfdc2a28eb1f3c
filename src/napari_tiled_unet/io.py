"""Readers and writers, by suffix.

=========================== =======================================================
read                        TIFF (OME, ImageJ, LSM, plain), PNG, JPEG, BMP, NPY, OME-Zarr, Zarr
written                     labels and maps as OME-TIFF
=========================== =======================================================

Spacing is in micrometres. What is written is written beside and renamed, so that no half
file is ever left under the final name.
"""

from __future__ import annotations

import json
import logging
import os
import weakref
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_tiled_unet.errors import FileError, ImageError
from napari_tiled_unet.image import AXES, Image, image_from_array

_TIFF = (".tif", ".tiff", ".lsm")
_PICTURE = (".png", ".jpg", ".jpeg", ".bmp")
_SUFFIXES = (*_TIFF, *_PICTURE, ".npy", ".zarr")
# Larger images stay on disk and are read frame by frame.
_LAZY_BYTES = 2**28
_BIGTIFF_BYTES = 2**32 - 2**25
_RESULTS = ("_labels.ome.tif", "_maps.ome.tif")
# Micrometres per unit.
_UNITS = {
    **dict.fromkeys(("m", "meter", "metre"), 1e6),
    **dict.fromkeys(("cm", "centimeter"), 1e4),
    **dict.fromkeys(("mm", "millimeter", "millimetre"), 1e3),
    # The micro sign, the Greek letter, and the escape that ImageJ writes.
    **dict.fromkeys(("\u00b5m", "\u03bcm", "\\u00b5m", "um", "micron", "microns", "micrometer", "micrometre"), 1.0),
    **dict.fromkeys(("nm", "nanometer", "nanometre"), 1e-3),
    **dict.fromkeys(("\u00e5", "angstrom"), 1e-4),
    **dict.fromkeys(("in", "inch"), 25400.0),
}


def read_image(path: str | Path, axes: str | None = None) -> Image:
    """Open an image file.

    Parameters
    ----------
    path : str or Path
        TIFF, OME-TIFF, ImageJ TIFF, LSM, PNG, JPEG, BMP, NPY, or the folder of an OME-Zarr.
    axes : str, optional
        Letters of ``tczyx`` in the file's order, instead of what its metadata say.

    Returns
    -------
    Image
        Large files stay on disk and are read frame by frame.

    Raises
    ------
    FileError
        If the file is missing, damaged, a folder, or of an unknown format.
    ImageError
        If its axes are ambiguous; the message names the choices.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if not path.exists():
        raise FileError(f"image file {str(path)!r} does not exist; check the path")
    if path.is_dir() and suffix != ".zarr":
        raise FileError(f"{str(path)!r} is a folder; give an image file, or on the command line its images are taken")
    if suffix not in _SUFFIXES:
        raise FileError(
            f"{str(path)!r} has an unknown format; the known ones are {', '.join(_SUFFIXES)}: convert it to OME-TIFF"
        )
    reader = _read_tiff if suffix in _TIFF else {".npy": _read_npy, ".zarr": _read_zarr}.get(suffix, _read_picture)
    try:
        return reader(path, axes)
    except (FileError, ImageError, MemoryError):
        raise
    except ModuleNotFoundError as error:
        raise FileError(
            f"{str(path)!r} needs the package {error.name!r}; install it with pip install {error.name}"
        ) from None
    except Exception as error:  # a damaged file can raise anything in the libraries that decode it
        raise FileError(
            f"{str(path)!r} is damaged or not a {suffix} file ({error}); open it elsewhere or get it again"
        ) from error


def _read_npy(path: Path, axes: str | None) -> Image:
    return image_from_array(np.load(path, mmap_mode="r", allow_pickle=False), axes, name=path.name)


def _read_picture(path: Path, axes: str | None) -> Image:
    from PIL import Image as Picture

    with Picture.open(path) as picture:
        # Palettes and print colours become what they look like.
        plain = picture.convert("RGB") if picture.mode in ("P", "CMYK", "YCbCr", "LAB", "HSV") else picture
        data = np.asarray(plain.convert("L") if plain.mode == "LA" else plain)
    if axes is None and data.ndim == 3:
        axes = "yxc"
    image = image_from_array(data, axes, name=path.name)
    return replace(image, is_rgb=image.n_channels in (3, 4))


def _read_tiff(path: Path, axes: str | None) -> Image:
    import tifffile

    notes: tuple[str, ...] = ()
    with _damage_is_an_error(path), tifffile.TiffFile(path) as tiff:
        series = tiff.series[0]
        if len(tiff.series) > 1:
            notes = (f"{path.name} holds {len(tiff.series)} images, the first is taken",)
        found = series.axes.lower()
        rgb = series.keyframe.photometric == tifffile.PHOTOMETRIC.RGB and "s" in found
        sizes = _tiff_spacing(tiff)
        data = _tiff_data(path, tiff)
    data, found = _without_unknown_axes(data, found)
    axes = axes or _known_axes(found, tuple(data.shape), path)
    image = Image(data, axes, name=path.name, is_rgb=rgb and "c" in axes, notes=notes)
    spacing = tuple(sizes.get(a, 0.0) for a in image.spatial_axes)
    return image.with_spacing(spacing) if all(s > 0 for s in spacing) else image


def _tiff_data(path: Path, tiff: Any) -> Any:
    """Return the first image of a TIFF: in memory, mapped, or as zarr chunks when it is large."""
    series = tiff.series[0]
    if series.nbytes < _LAZY_BYTES:
        return series.asarray()
    if series.dataoffset is not None and series.keyframe.is_memmappable:
        return np.memmap(
            path,
            dtype=np.dtype(tiff.byteorder + series.dtype.char),
            mode="r",
            offset=series.dataoffset,
            shape=series.shape,
        )
    import tifffile
    import zarr

    store: Any = tifffile.imread(path, aszarr=True, series=0, level=0)
    array = zarr.open_array(store, mode="r")
    # The file stays open as long as the array is in use, and no longer.
    weakref.finalize(array, store.close)
    return array


@contextmanager
def _damage_is_an_error(path: Path) -> Iterator[None]:
    """Raise what tifffile only logs: pages that are missing or cannot be decoded."""
    heard: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            heard.append(record.getMessage())

    listener, logger = Listener(logging.ERROR), logging.getLogger("tifffile")
    logger.addHandler(listener)
    try:
        yield
    finally:
        logger.removeHandler(listener)
    if heard:
        raise FileError(f"{str(path)!r} is damaged ({heard[0]}); open it elsewhere or get it again")


def _without_unknown_axes(data: Any, axes: str) -> tuple[Any, str]:
    """Drop axes of one voxel that are not ours, and call the samples of a pixel channels."""
    if "s" in axes and "c" not in axes:
        axes = axes.replace("s", "c")
    keep = [a in AXES or n != 1 for a, n in zip(axes, data.shape, strict=True)]
    if all(keep):
        return data, axes
    data = data[tuple(slice(None) if k else 0 for k in keep)]
    return data, "".join(a for a, k in zip(axes, keep, strict=True) if k)


def _known_axes(found: str, shape: tuple[int, ...], path: Path) -> str:
    if set(found) <= set(AXES):
        return found
    unknown = [n for a, n in zip(found, shape, strict=True) if a not in AXES]
    known = "".join(a for a in found if a in AXES)
    free = [a for a in "ztc" if a not in known]
    choices = ", ".join(repr("".join(letter if a not in AXES else a for a in found)) for letter in free)
    raise ImageError(
        f"{path.name} has shape {shape}; its metadata do not say what the axis of {unknown[0]} is: "
        f"say with axes, for example {choices}"
    )


def _tiff_spacing(tiff: Any) -> dict[str, float]:
    """Return micrometres per voxel by axis, as far as the metadata tell."""
    import tifffile

    if tiff.is_ome and tiff.ome_metadata:
        image = tifffile.xml2dict(tiff.ome_metadata).get("OME", {}).get("Image", {})
        pixels = (image[0] if isinstance(image, list) else image).get("Pixels", {})
        return _micrometres(
            (a, pixels.get(f"PhysicalSize{a.upper()}"), pixels.get(f"PhysicalSize{a.upper()}Unit", "µm")) for a in "zyx"
        )
    if tiff.is_lsm and tiff.lsm_metadata:
        return _micrometres((a, tiff.lsm_metadata.get(f"VoxelSize{a.upper()}"), "m") for a in "zyx")
    if tiff.is_imagej and tiff.imagej_metadata:
        unit = str(tiff.imagej_metadata.get("unit", ""))
        tags = tiff.pages[0].tags
        sizes: list[tuple[str, Any, str]] = [("z", tiff.imagej_metadata.get("spacing"), unit)]
        for axis, name in (("y", "YResolution"), ("x", "XResolution")):
            pixels_per, per = tags[name].value if name in tags else (0, 1)
            sizes.append((axis, per / pixels_per if pixels_per else None, unit))
        return _micrometres(sizes)
    return {}


def _micrometres(sizes: Iterable[tuple[str, Any, Any]]) -> dict[str, float]:
    known = {}
    for axis, size, unit in sizes:
        factor = _UNITS.get(str(unit).strip().lower())
        if size is not None and factor is not None and float(size) > 0:
            known[axis] = float(size) * factor
    return known


def _read_zarr(path: Path, axes: str | None) -> Image:
    import zarr

    root = zarr.open(path, mode="r")
    if isinstance(root, zarr.Array):
        return image_from_array(root, axes, name=path.name)
    attributes: Any = root.attrs
    multiscales: Any = (attributes.get("ome") or attributes).get("multiscales")
    if not multiscales:
        raise FileError(f"{str(path)!r} is a Zarr group without OME 'multiscales'; give the path of an array in it")
    scales = multiscales[0]
    level = scales["datasets"][0]
    data = root[level["path"]]
    named = [a if isinstance(a, dict) else {"name": a} for a in scales.get("axes", [])]
    found = "".join(str(a["name"]) for a in named) or AXES
    image = Image(data, axes or found, name=path.name)
    transforms = [*level.get("coordinateTransformations", []), *scales.get("coordinateTransformations", [])]
    factors = np.ones(len(found))
    for transform in transforms:
        if transform.get("type") == "scale":
            factors = factors * np.asarray(transform["scale"], float)
    sizes = _micrometres((a["name"], f, a.get("unit", "")) for a, f in zip(named, factors, strict=False))
    spacing = tuple(sizes.get(a, 0.0) for a in image.spatial_axes)
    return image.with_spacing(spacing) if all(s > 0 for s in spacing) else image


def image_files(paths: Iterable[str | Path]) -> list[Path]:
    """Return the image files that paths stand for: a folder is the images in it, sorted.

    Results of earlier runs (``*_labels.ome.tif``, ``*_maps.ome.tif``) and hidden files in
    a folder are left out. Paths that do not exist are kept, so that each is reported.
    """
    files: list[Path] = []
    for path in map(Path, paths):
        if not path.is_dir() or path.suffix.lower() == ".zarr":
            files.append(path)
            continue
        files += [
            p
            for p in sorted(path.iterdir())
            if p.suffix.lower() in _SUFFIXES
            and not p.name.startswith(".")
            and not p.name.endswith(_RESULTS)
            and (p.is_file() or p.suffix.lower() == ".zarr")
        ]
    return files


def smallest_label_dtype(maximum: int) -> np.dtype[Any]:
    """Return uint8, uint16 or uint32: the smallest that holds ``maximum``."""
    for dtype in (np.uint8, np.uint16):
        if maximum <= np.iinfo(dtype).max:
            return np.dtype(dtype)
    return np.dtype(np.uint32)


def write_labels(
    path: str | Path,
    labels: npt.NDArray[Any],
    axes: str,
    spacing: Sequence[float] | None = None,
    units: str = "micrometer",
    *,
    description: dict[str, Any] | None = None,
    overwrite: bool = False,
) -> None:
    """Write labels as a tiled, zlib-compressed OME-TIFF of the smallest unsigned type.

    Parameters
    ----------
    path : str or Path
        Best ending in ``.ome.tif``.
    labels : numpy.ndarray
        Integer labels.
    axes : str
        Letters of ``tczyx``, one per axis of ``labels``.
    spacing : sequence of float, optional
        Voxel size per spatial axis of ``axes``.
    units : str
        Unit of ``spacing``.
    description : dict, optional
        Provenance; stored as JSON in the image's description, see :func:`read_description`.
    overwrite : bool
        Whether an existing file may be replaced.

    Raises
    ------
    FileError
        If the file exists and may not be replaced, or cannot be written.
    """
    dtype = smallest_label_dtype(int(labels.max(initial=0)))
    _write_ome(Path(path), labels.astype(dtype, copy=False), axes, spacing, units, description, overwrite, {})


def write_maps(
    path: str | Path,
    maps: npt.NDArray[np.float32],
    axes: str,
    channel_names: Sequence[str],
    spacing: Sequence[float] | None = None,
    units: str = "micrometer",
    *,
    description: dict[str, Any] | None = None,
    overwrite: bool = False,
) -> None:
    """Write maps as a float32 OME-TIFF; as :func:`write_labels`, with a named channel axis."""
    # OME-TIFF wants the channel axis behind time and depth.
    order = "".join(a for a in "tzcyx" if a in axes)
    arranged = maps.transpose([axes.index(a) for a in order])
    channels = {"Channel": {"Name": list(channel_names)}}
    _write_ome(Path(path), arranged, order, spacing, units, description, overwrite, channels)


def _write_ome(
    path: Path,
    data: npt.NDArray[Any],
    axes: str,
    spacing: Sequence[float] | None,
    units: str,
    description: dict[str, Any] | None,
    overwrite: bool,
    more: dict[str, Any],
) -> None:
    import tifffile

    metadata: dict[str, Any] = {"axes": axes.upper(), **more}
    if spacing is not None and units != "pixel":
        unit = "µm" if units == "micrometer" else units
        for axis, size in zip((a for a in axes if a in "zyx"), spacing, strict=True):
            metadata[f"PhysicalSize{axis.upper()}"] = size
            metadata[f"PhysicalSize{axis.upper()}Unit"] = unit
    if description is not None:
        metadata["Description"] = json.dumps(description)
    with _beside(path, overwrite) as beside:
        tifffile.imwrite(
            beside,
            data,
            ome=True,
            bigtiff=data.nbytes > _BIGTIFF_BYTES,
            photometric="minisblack",
            compression="zlib",
            tile=(256, 256),
            metadata=metadata,
        )


def write_png(path: str | Path, picture: npt.NDArray[np.uint8], *, overwrite: bool = True) -> None:
    """Write a grey or RGB picture as PNG."""
    from PIL import Image as Picture

    with _beside(Path(path), overwrite) as beside:
        Picture.fromarray(picture).save(beside, format="PNG")


@contextmanager
def _beside(path: Path, overwrite: bool) -> Iterator[Path]:
    """Give a temporary path that becomes ``path`` when the block ends well and goes when not."""
    if path.exists() and not overwrite:
        raise FileError(f"{str(path)!r} exists; choose another name or allow overwriting")
    require_writable(path.parent)
    beside = path.with_name(f".{os.getpid()}.partial.{path.name}")
    try:
        yield beside
        beside.replace(path)
    except OSError as error:
        raise FileError(f"{str(path)!r} cannot be written: {error.strerror or error}; choose another folder") from error
    finally:
        beside.unlink(missing_ok=True)


def require_writable(folder: Path) -> None:
    """Make a folder if it is missing, and find out now whether files can be written there.

    Raises
    ------
    FileError
        If not.
    """
    probe = folder / f".{os.getpid()}.probe"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise FileError(
            f"folder {str(folder)!r} cannot be written to: {error.strerror or error}; choose another one"
        ) from error


def read_description(path: str | Path) -> dict[str, Any]:
    """Return the provenance that :func:`write_labels` stored in a file; empty if there is none.

    Raises
    ------
    FileError
        If the file is no OME-TIFF.
    """
    import tifffile

    try:
        with tifffile.TiffFile(path) as tiff:
            text = tiff.ome_metadata
    except (OSError, tifffile.TiffFileError) as error:
        raise FileError(f"{str(path)!r} cannot be read: {error}") from error
    if not text:
        raise FileError(f"{str(path)!r} is not an OME-TIFF, so it has no description of ours")
    image = tifffile.xml2dict(text)["OME"]["Image"]
    try:
        described = json.loads((image[0] if isinstance(image, list) else image).get("Description", "{}"))
    except json.JSONDecodeError:
        return {}
    return described if isinstance(described, dict) else {}
