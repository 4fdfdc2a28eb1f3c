"""Writing labels, maps and pictures: beside, then renamed."""

from __future__ import annotations

import contextlib
import json
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from napari_tiled_unet.errors import FileError, ImageError
from napari_tiled_unet.image import Image
from napari_tiled_unet.io.ome import FILE_ORDER, Place, Spacing, ome_metadata

# Leaves room below 4 GiB for all that is not voxels.
_BIGTIFF_BYTES = 2**32 - 2**25


class AsOne:
    """Files that belong together: all are put in their places at the end of a ``with`` block, or none is.

    Given to :func:`write_labels` and :func:`write_maps`. At the end only renames are left, in the order of
    writing; a process that is killed between two of them leaves the first ones new.

    Examples
    --------
    >>> with AsOne() as group:
    ...     write_maps("a_maps.ome.tif", maps, "cyx", names, group=group, overwrite=True)
    ...     write_labels("a_labels.ome.tif", labels, "yx", group=group, overwrite=True)
    """

    def __init__(self) -> None:
        self._waiting: list[tuple[Path, Path]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        try:
            if kind is None:
                for beside, path in self._waiting:
                    with _named(path):
                        beside.replace(path)
        finally:
            for beside, _ in self._waiting:
                beside.unlink(missing_ok=True)
            self._waiting.clear()

    def wait(self, beside: Path, path: Path) -> None:
        """Take a file that is written, and the place that it is to have."""
        self._waiting.append((beside, path))


def smallest_label_dtype(maximum: int) -> np.dtype[Any]:
    """Return uint8, uint16 or uint32: the smallest that holds ``maximum``.

    Raises
    ------
    ImageError
        If none does.
    """
    for dtype in (np.uint8, np.uint16, np.uint32):
        if maximum <= np.iinfo(dtype).max:
            return np.dtype(dtype)
    raise ImageError(f"label {maximum} is above {2**32 - 1}, the highest that fits a file; number the labels from 1")


def write_labels(
    path: str | Path,
    labels: npt.NDArray[Any],
    axes: str | Image,
    spacing: Spacing = None,
    units: str = "micrometer",
    *,
    place: Place | None = None,
    description: dict[str, Any] | None = None,
    overwrite: bool = False,
    group: AsOne | None = None,
) -> None:
    """Write labels as a tiled, zlib-compressed OME-TIFF of the smallest unsigned type.

    Parameters
    ----------
    path : str or Path
        Best ending in ``.ome.tif``.
    labels : numpy.ndarray
        Labels, bool or integer, none negative; 0 is background.
    axes : str or Image
        Letters of ``tczyx``, one per axis of ``labels``. In the file they are in the order
        ``tzcyx``, as OME-TIFF has them. Or the image that the labels are of, all of it: it tells
        axes, spacing, units and place too.
    spacing : sequence of float, optional
        Voxel size per spatial axis of ``axes``; None along one for which it is not known.
    units : str
        Unit of ``spacing`` and of the place: any length, which is written as micrometres, or ``pixel`` for none.
    place : Place, optional
        Where the labels lie in space and time. With a spacing it is written as OME's position of every plane.
    description : dict, optional
        Provenance; stored as JSON in the image's description, see :func:`read_description`.
    overwrite : bool
        Whether an existing file may be replaced.
    group : AsOne, optional
        Files among which it is put in its place, when all of them are written.

    Raises
    ------
    FileError
        If the file exists and may not be replaced, or cannot be written.
    ImageError
        If the labels are no labels, or do not agree with axes, spacing or the image.
    """
    if isinstance(axes, Image):
        if spacing is not None or place is not None or units != "micrometer":
            raise ImageError("the image tells spacing, units and place of its labels; give the image alone, or axes")
        image, axes = axes, axes.label_axes()
        spacing, units, place = _told_by(image, labels.shape)
    if labels.dtype.kind not in "bui":
        raise ImageError(f"labels are of type {labels.dtype}, a label is a whole number; convert them to integer")
    lowest = int(labels.min(initial=0))
    if lowest < 0:
        raise ImageError(f"the lowest label is {lowest}, labels count from 0 (background); renumber them")
    dtype = smallest_label_dtype(int(labels.max(initial=0)))
    metadata = ome_metadata(axes, labels.shape, spacing, units, place or Place())
    with _beside(_named_tiff(path), overwrite, group) as beside:
        _write_ome(beside, labels.astype(dtype, copy=False), axes, metadata, description)


def _told_by(image: Image, shape: tuple[int, ...]) -> tuple[Spacing, str, Place]:
    """Return spacing, units and place of an image's labels."""
    axes = image.label_axes()
    if shape != image.label_shape():
        raise ImageError(
            f"labels have shape {shape}, those of the image {image.name!r} {image.label_shape()} with axes {axes!r}; "
            "of a part of an image give axes, spacing and a Place"
        )
    spacing = image.spacing_along("".join(a for a in axes if a in "zyx"))
    return spacing, image.units, Place(origin=image.origin, time_step=image.time_step)


def write_maps(
    path: str | Path,
    maps: npt.NDArray[np.float32],
    axes: str,
    channel_names: Sequence[str],
    spacing: Spacing = None,
    units: str = "micrometer",
    *,
    place: Place | None = None,
    description: dict[str, Any] | None = None,
    overwrite: bool = False,
    group: AsOne | None = None,
) -> None:
    """Write maps as a float32 OME-TIFF; as :func:`write_labels`, with a named channel axis.

    Parameters
    ----------
    path, axes, spacing, units, place, description, overwrite, group
        As for :func:`write_labels`; ``axes`` has ``c``.
    maps : numpy.ndarray
        Float maps.
    channel_names : sequence of str
        A name per channel.

    Raises
    ------
    FileError, ImageError
        As for :func:`write_labels`.
    """
    n_channels = maps.shape[axes.index("c")] if "c" in axes[: maps.ndim] else 0
    if len(channel_names) != n_channels:
        raise ImageError(
            f"{len(channel_names)} channel names {tuple(channel_names)} for maps of shape {maps.shape} and axes "
            f"{axes!r}; give one for each voxel of the axis 'c'"
        )
    metadata = ome_metadata(axes, maps.shape, spacing, units, place or Place())
    metadata["Channel"] = {"Name": list(channel_names)}
    with _beside(_named_tiff(path), overwrite, group) as beside:
        _write_ome(beside, maps.astype(np.float32, copy=False), axes, metadata, description)


def _write_ome(
    path: Path, data: npt.NDArray[Any], axes: str, metadata: dict[str, Any], description: dict[str, Any] | None
) -> None:
    import tifffile

    data = data.transpose([axes.index(a) for a in FILE_ORDER if a in axes])
    if description is not None:
        metadata["Description"] = json.dumps(description)
    tifffile.imwrite(
        path,
        data,
        ome=True,
        bigtiff=data.nbytes > _BIGTIFF_BYTES,
        photometric="minisblack",
        compression="zlib",
        tile=(256, 256),
        metadata=metadata,
    )


def _named_tiff(path: str | Path) -> Path:
    if not str(path).lower().endswith((".tif", ".tiff")):
        raise FileError(f"{str(path)!r} is to be an OME-TIFF; end its name in .ome.tif")
    return Path(path)


def write_png(path: str | Path, picture: npt.NDArray[np.uint8], *, overwrite: bool = True) -> None:
    """Write a grey or RGB picture as PNG."""
    from PIL import Image as Picture

    with _beside(Path(path), overwrite) as beside:
        Picture.fromarray(picture).save(beside, format="PNG")


@contextlib.contextmanager
def _beside(path: Path, overwrite: bool, group: AsOne | None = None) -> Iterator[Path]:
    """Give a temporary path that becomes ``path`` when the block, or the group, ends well and goes when not."""
    _require_free(path, overwrite)
    require_writable(path.parent)
    # Short, so that a name as long as can be leaves room for it.
    beside = path.with_name(f".{uuid.uuid4().hex}.partial")
    if group is not None:
        group.wait(beside, path)
        with _named(path):
            yield beside
        return
    with AsOne() as alone, _named(path):
        alone.wait(beside, path)
        yield beside


def _require_free(path: Path, overwrite: bool) -> None:
    if path.exists() and not overwrite:
        raise FileError(f"{str(path)!r} exists; choose another name or allow overwriting")


@contextlib.contextmanager
def _named(path: Path) -> Iterator[None]:
    """Tell of errors of the system as those of writing a file."""
    try:
        yield
    except OSError as error:
        raise FileError(f"{str(path)!r} cannot be written: {error.strerror or error}; choose another folder") from error


def require_writable(folder: Path) -> None:
    """Make a folder if it is missing, and find out now whether files can be written there.

    Raises
    ------
    FileError
        If not.
    """
    probe = folder / f".{uuid.uuid4().hex}.probe"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise FileError(
            f"folder {str(folder)!r} cannot be written to: {error.strerror or error}; choose another one"
        ) from error
