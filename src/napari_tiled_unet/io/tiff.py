"""Reading TIFF: OME, ImageJ, LSM and plain files."""

from __future__ import annotations

import contextlib
import json
import logging
import re
import threading
import weakref
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from napari_tiled_unet.errors import FileError
from napari_tiled_unet.image import Image
from napari_tiled_unet.io.metadata import Calibration, calibrated, check_level, known_axes
from napari_tiled_unet.units import micrometres_per

LAZY_BYTES = 2**28
"""Larger images stay on disk and are read frame by frame."""

# What tifffile logs where pages or their standard tags are lost, before it goes on without them.
_LOST = re.compile(
    r"invalid page offset|invalid offset to page|corrupted tag list|corrupted file|circular reference"
    r"|TiffTag \d{1,4} .*invalid value offset"
)


def read_tiff(path: Path, axes: str | None, level: int = 0) -> Image:
    """Open one resolution of the first image that lies in a TIFF; as :func:`read_image`."""
    import tifffile

    with _damage_is_an_error(path), tifffile.TiffFile(path) as tiff:
        index = _own_index(tiff)
        full = tiff.series[index]
        check_level(level, len(full.levels), path.name)
        series = full.levels[level]
        _check_whole(path, series)
        # Axes of one voxel say nothing; some writers leave them out, some keep them.
        found = series.get_axes(squeeze=True).lower()
        if "c" not in found:
            found = found.replace("s", "c")
        rgb = _is_rgb(series)
        calibration = _of_level(_calibration(tiff, index), full, series)
        notes = tuple(_notes(path.name, tiff, index, found, level))
        data = _data(path, series, index, level)
    image = Image(data, axes or known_axes(found, tuple(data.shape), path.name), name=path.name, notes=notes)
    image = replace(image, is_rgb=rgb and image.n_channels in (3, 4), level=level)
    return calibrated(image, found, calibration)


def _own_index(tiff: Any) -> int:
    """Return the number of the first image that lies in this file; an OME-TIFF may tell of other files' too."""
    if not tiff.is_ome:
        return 0
    return next((index for index, series in enumerate(tiff.series) if _lies_in(tiff, series)), 0)


def _lies_in(tiff: Any, series: Any) -> bool:
    """Return whether some of an image is in this file; of most the first page tells."""
    return any(page is not None and page.parent is tiff for page in series)


def _files_of(series: Any) -> set[str]:
    """Return the paths of the files that an image is spread over."""
    if series.dataoffset is not None:
        return {series.keyframe.parent.filehandle.path}
    return {page.parent.filehandle.path for page in series if page is not None}


def _of_level(full_one: Calibration, full: Any, series: Any) -> Calibration:
    """Return the voxel sizes of a resolution, given those of the full one."""
    axes, shapes = full.get_axes(squeeze=True).lower(), [s.get_shape(squeeze=True) for s in (full, series)]
    factors = {axis: n / m for axis, n, m in zip(axes, *shapes, strict=False)}
    return replace(full_one, sizes={axis: size * factors.get(axis, 1.0) for axis, size in full_one.sizes.items()})


def _data(path: Path, series: Any, index: int, level: int) -> Any:
    """Return an image of a TIFF: in memory, mapped, or as Zarr chunks when it is large."""
    shape = series.get_shape(squeeze=True)
    if series.nbytes <= LAZY_BYTES:
        return series.asarray().reshape(shape)
    import tifffile
    import zarr

    if series.dataoffset is not None and series.keyframe.is_memmappable:
        return tifffile.memmap(path, series=index, level=level, mode="r").reshape(shape)
    store = series.aszarr(level=0, squeeze=True)
    array = zarr.open_array(store, mode="r")
    # The file stays open as long as the array is in use, and no longer.
    weakref.finalize(array, store.close)
    return array


def _check_whole(path: Path, series: Any) -> None:
    """Find out now whether the file ends before its image does: read lazily, the rest could pass for zeros."""
    if series.dataoffset is not None:
        ends = [(series.dataoffset + series.nbytes, series.keyframe)]
    else:
        ends = [
            (max((o + n for o, n in zip(page.dataoffsets, page.databytecounts, strict=False) if n), default=0), page)
            for page in series
            if page is not None
        ]
    for end, page in ends:
        size = page.parent.filehandle.size
        if end > size:
            raise FileError(
                f"{str(path)!r} is damaged: it ends at byte {size}, its image at {end}; "
                "open it elsewhere or get it again"
            )


@contextlib.contextmanager
def _damage_is_an_error(path: Path) -> Iterator[None]:
    """Raise what tifffile only logs: pages that are missing."""
    heard: list[str] = []
    reader = threading.get_ident()

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            # Another thread may be reading another file.
            if record.thread == reader and _LOST.search(record.getMessage()):
                heard.append(record.getMessage())

    listener, logger = Listener(logging.ERROR), logging.getLogger("tifffile")
    logger.addHandler(listener)
    try:
        yield
    finally:
        logger.removeHandler(listener)
    if heard:
        raise FileError(f"{str(path)!r} is damaged ({heard[0]}); open it elsewhere or get it again")


def _is_rgb(series: Any) -> bool:
    """Return whether the samples of a pixel are red, green and blue."""
    import tifffile

    page = series.keyframe
    # JPEG stores luma and chroma, which the decoder turns into RGB.
    decoded = page.photometric == tifffile.PHOTOMETRIC.YCBCR and page.compression == tifffile.COMPRESSION.JPEG
    return "S" in series.axes and (page.photometric == tifffile.PHOTOMETRIC.RGB or decoded)


def _notes(name: str, tiff: Any, index: int, found: str, level: int) -> Iterator[str]:
    """Say what is left out or assumed of a TIFF."""
    import tifffile

    series = tiff.series[index]
    files = _files_of(series) if tiff.is_ome else set()
    elsewhere = sum(not _lies_in(tiff, other) for other in tiff.series) if tiff.is_ome else 0
    if len(tiff.series) - elsewhere > 1:
        yield f"{name} holds {len(tiff.series) - elsewhere} images, the first is taken"
    if elsewhere:
        yield f"{name} tells of {elsewhere} more images, which lie in other files and are left out"
    if len(files) > 1:
        yield f"{name} is one of {len(files)} files that together hold one image; all of it is read"
    if len(series.levels) > 1:
        which = f"number {level}" if level else "the full one"
        yield f"{name} holds {len(series.levels)} resolutions, {which} is taken"
    if series.dataoffset is None and (missing := sum(page is None for page in series)):
        yield f"{name}: {missing} of {len(series)} planes are not in the file and taken as 0"
    if series.keyframe.photometric == tifffile.PHOTOMETRIC.PALETTE:
        yield f"{name} holds the numbers of palette colours; they are taken for intensities"
    if series.keyframe.photometric == tifffile.PHOTOMETRIC.MINISWHITE and series.dtype != bool:
        yield f"{name} says that 0 is white; intensities are taken as they are stored"
    if "z" in found and _imagej_default_depth(tiff):
        unit = _imagej_unit(tiff, "z")
        yield f"{name}: the distance of its slices is not stated, which in an ImageJ file means 1 {unit}"


def _calibration(tiff: Any, index: int) -> Calibration:
    """Return voxel size and time step, as far as the metadata tell."""
    if tiff.is_ome and tiff.ome_metadata:
        pixels = _first(_ome_image(tiff, index).get("Pixels"))
        return Calibration.of(
            (
                (a, pixels.get(f"PhysicalSize{a.upper()}"), pixels.get(f"PhysicalSize{a.upper()}Unit", "µm"))
                for a in "zyx"
            ),
            origin=_stage(pixels),
            time_step=(pixels.get("TimeIncrement"), pixels.get("TimeIncrementUnit", "s")),
        )
    if tiff.is_lsm and tiff.lsm_metadata:
        found = tiff.lsm_metadata
        # So it is spelt in the files.
        time_step = (found.get("TimeIntervall"), "s")
        return Calibration.of(((a, found.get(f"VoxelSize{a.upper()}"), "m") for a in "zyx"), time_step=time_step)
    if tiff.is_imagej and tiff.imagej_metadata:
        return _imagej_calibration(tiff)
    return Calibration()


def _stage(pixels: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """Yield axis, place and unit of the first plane of an OME image."""
    planes = pixels.get("Plane")
    for plane in planes if isinstance(planes, list | tuple) else (planes,):
        if isinstance(plane, Mapping) and all(str(plane.get(f"The{a}", 0)) == "0" for a in "ZCT"):
            # Without a unit a place is on a scale of the microscope's own.
            yield from ((a, plane.get(f"Position{a.upper()}"), plane.get(f"Position{a.upper()}Unit")) for a in "zyx")
            return


def _imagej_calibration(tiff: Any) -> Calibration:
    depth = 1.0 if _imagej_default_depth(tiff) else tiff.imagej_metadata.get("spacing")
    # ImageJ counts slices downwards with a negative distance.
    sizes = [("z", abs(depth) if isinstance(depth, int | float) else None, _imagej_unit(tiff, "z"))]
    for axis, name in (("y", "YResolution"), ("x", "XResolution")):
        tag = tiff.pages[0].tags.get(name)
        pixels_per, per = tag.value if tag else (0, 1)
        sizes.append((axis, per / pixels_per if pixels_per else None, _imagej_unit(tiff, axis)))
    found = tiff.imagej_metadata
    return Calibration.of(sizes, time_step=(found.get("finterval"), found.get("tunit", "s")))


def _imagej_unit(tiff: Any, axis: str = "x") -> str:
    metadata = tiff.imagej_metadata or {}
    # Those of y and z are there only where they are others.
    return str(metadata.get(f"{axis}unit", metadata.get("unit", "")))


def _imagej_default_depth(tiff: Any) -> bool:
    """Return whether ImageJ left out the distance of slices, as it does when that is 1 unit of length."""
    metadata: Mapping[str, Any] = (tiff.imagej_metadata if tiff.is_imagej else None) or {}
    return "unit" in metadata and "spacing" not in metadata and micrometres_per(_imagej_unit(tiff, "z")) is not None


def _ome_image(tiff: Any, index: int = 0) -> Mapping[str, Any]:
    """Return the metadata of an image of an OME-TIFF; empty where there are none."""
    import tifffile

    return _first(_first(tifffile.xml2dict(tiff.ome_metadata).get("OME")).get("Image"), index)


def _first(node: Any, index: int = 0) -> Mapping[str, Any]:
    """Return an XML element, where there are several the first or that of a number, else an empty one."""
    if isinstance(node, list | tuple):
        node = node[index] if index < len(node) else None
    return node if isinstance(node, Mapping) else {}


def read_description(path: str | Path) -> dict[str, Any]:
    """Return the provenance that :func:`write_labels` stored in a file; empty if there is none.

    Parameters
    ----------
    path : str or Path
        OME-TIFF.

    Returns
    -------
    dict
        As it was given to the writer.

    Raises
    ------
    FileError
        If the file is no OME-TIFF.
    """
    import tifffile

    try:
        with tifffile.TiffFile(path) as tiff:
            image = _ome_image(tiff) if tiff.ome_metadata else None
    except MemoryError:
        raise
    except Exception as error:  # as in read_image
        raise FileError(f"{str(path)!r} cannot be read: {error}; give an OME-TIFF") from error
    if image is None:
        raise FileError(f"{str(path)!r} is not an OME-TIFF, so it has no description of ours; give one written by us")
    try:
        described = json.loads(str(image.get("Description", "")))
    except json.JSONDecodeError:
        return {}
    return described if isinstance(described, dict) else {}
