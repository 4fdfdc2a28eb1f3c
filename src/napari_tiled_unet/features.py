"""Objects in numbers: size, place, shape and intensity of every label, as a table.

A row is an object in one frame. Lengths are in micrometres where the size of a voxel is
known and in voxels where not, and the name of a column says which::

    index  t  centroid_y  centroid_x  area_um2  diameter_um  ...  intensity_mean
    1      0        15.2        20.9      30.5          6.2  ...           812.4
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_tiled_unet.errors import FileError, ImageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from napari_tiled_unet.image import Frame, Image

Table = dict[str, npt.NDArray[Any]]
"""Columns by name, all of the same length."""

_INTENSITIES = ("intensity_mean", "intensity_min", "intensity_max")
_COMMON = ("label", "area", "centroid", "equivalent_diameter_area", "inertia_tensor_eigvals", *_INTENSITIES)


def measure_objects(
    labels: npt.NDArray[Any], axes: str, image: Image, *, spatial: str | None = None, offset: Sequence[int] = ()
) -> Table:
    """Measure every object, frame by frame.

    Parameters
    ----------
    labels : numpy.ndarray
        Integer labels, 0 is background.
    axes : str
        Their axes, letters of ``tzyx``.
    image : Image
        What was segmented, or the part of it that the labels cover. It may be lazy: one frame
        of it is in memory at a time.
    spatial : {"yx", "zyx"}, optional
        Axes over which an object extends. By default all spatial ones of ``axes``; ``"yx"``
        for a stack whose slices have objects of their own.
    offset : sequence of int, optional
        First voxel of labels and image in the whole image, along each of ``axes``; added to
        places and frames.

    Returns
    -------
    dict of str to numpy.ndarray
        ``index`` (the label), the frame (``t``, ``z``), ``centroid_*`` in voxels of the whole image,
        ``area`` or ``volume``, ``diameter`` (of the circle or ball of the same size), ``major_axis`` and
        ``minor_axis`` (of the ellipse or ellipsoid with the same second moments), ``extent`` in 3D,
        ``eccentricity`` and ``solidity`` in 2D, and mean, least and greatest intensity, of each channel
        where there are several (``_c0``, ``_c1``).

    Raises
    ------
    ImageError
        If labels, axes and image do not agree.
    """
    spatial = spatial or "".join(a for a in "zyx" if a in axes)
    _check(labels, axes, image, spatial)
    frame_axes = image.frame_axes(spatial)
    ordered = labels.transpose([axes.index(a) for a in frame_axes + spatial])
    first = dict(zip(axes, offset, strict=True)) if len(offset) else {}
    start = [first.get(axis, 0) for axis in frame_axes]
    parts = []
    for frame in image.frames(spatial):
        table = _measure_frame(ordered[frame.position], frame, [first.get(axis, 0) for axis in spatial])
        rows = len(table["index"])
        place = {a: np.full(rows, p + s) for a, p, s in zip(frame_axes, frame.position, start, strict=True)}
        parts.append({"index": table.pop("index"), **place, **table})
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _check(labels: npt.NDArray[Any], axes: str, image: Image, spatial: str) -> None:
    if labels.dtype.kind not in "bui":
        raise ImageError(f"labels are of type {labels.dtype}, a label is a whole number; convert them to integer")
    if len(axes) != labels.ndim or set(axes) != set(image.axes) - {"c"} or not set(spatial) <= set(axes):
        raise ImageError(
            f"labels with axes {axes!r} and {labels.ndim} dimensions must have those of the image {image.name!r} "
            f"({image.axes!r}) without c, among them {spatial!r}; choose the image that was segmented"
        )
    sizes = tuple(image.size_of(axis) for axis in axes)
    if sizes != labels.shape:
        raise ImageError(
            f"labels of shape {labels.shape} must have that of the image {image.name!r}, {sizes} along {axes!r}; "
            "choose the image that was segmented"
        )


def _measure_frame(labels: npt.NDArray[Any], frame: Frame, offset: Sequence[int]) -> Table:
    import fastremap
    from skimage.measure import regionprops_table

    ndim = labels.ndim
    spacing = frame.image.spacing_of(frame.spatial)
    step = spacing or (1.0,) * ndim
    shape = ("eccentricity", "solidity") if ndim == 2 else ("extent",)
    channels_last = np.moveaxis(frame.read(), 0, -1)
    # A mask is one object, what lies below 0 is none.
    numbers = np.maximum(labels, 0)
    numbers = np.ascontiguousarray(numbers, numbers.dtype.newbyteorder("="))
    # Renumbered, since scikit-image keeps a slot for every number up to the highest.
    values, places = fastremap.unique(numbers, return_inverse=True)
    objects = values[values > 0]
    places = places.reshape(labels.shape).astype(np.int64) + (len(objects) + 1 - len(values))
    found = regionprops_table(places, channels_last, properties=(*_COMMON, *shape), spacing=step, separator="-")
    length = "um" if spacing else "px"
    size = f"area_{length}2" if ndim == 2 else f"volume_{length}3"
    # Signed as ever, but for numbers that may not fit.
    table: Table = {"index": objects if objects.dtype == np.uint64 else objects.astype(np.int64)}
    for i, axis in enumerate(frame.spatial):
        table[f"centroid_{axis}"] = found[f"centroid-{i}"] / step[i] + offset[i]
    table[size] = found["area"]
    table[f"diameter_{length}"] = found["equivalent_diameter_area"]
    major, minor = _axis_lengths([found[f"inertia_tensor_eigvals-{i}"] for i in range(ndim)])
    table |= {f"major_axis_{length}": major, f"minor_axis_{length}": minor}
    table |= {name: found[name] for name in shape}
    count = channels_last.shape[-1]
    for channel in range(count):
        suffix = f"_c{channel}" if count > 1 else ""
        table |= {f"{name}{suffix}": found[f"{name}-{channel}"] for name in _INTENSITIES}
    return table


def _axis_lengths(eigenvalues: Sequence[npt.NDArray[Any]]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Return the longest and the shortest axis of the ellipsoids with these inertia tensors.

    The variance along an axis is half the sum of the moments minus its own (in 3D), the other
    one's moment (in 2D); an ellipsoid of variance v along an axis is ``2 sqrt((n + 2) v)`` long there.
    """
    moments = np.stack([np.asarray(values, float) for values in eigenvalues])
    n = len(moments)
    variances = moments if n == 2 else moments.sum(axis=0) / 2 - moments
    # An object one voxel thick may come out a rounding error below 0.
    lengths = 2 * np.sqrt((n + 2) * np.clip(variances, 0, None))
    return lengths.max(axis=0), lengths.min(axis=0)


def write_features(path: str | Path, table: Mapping[str, Any], *, overwrite: bool = True) -> None:
    """Write a table as CSV: a line of names, a line per object.

    Parameters
    ----------
    path : str or Path
        Where to; its folder must be there.
    table : mapping of str to array
        Columns of equal length, as of :func:`measure_objects`.
    overwrite : bool
        Whether an existing file may be replaced.

    Raises
    ------
    FileError
        If it exists and may not be replaced, or cannot be written.
    """
    path = Path(path)
    if path.exists() and not overwrite:
        raise FileError(f"{str(path)!r} exists; choose another name or allow overwriting")
    beside = path.with_name(f".{path.name}.partial")
    columns = [np.asarray(column).tolist() for column in table.values()]
    try:
        with beside.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(table)
            writer.writerows(zip(*columns, strict=True))
        beside.replace(path)
    except OSError as error:
        raise FileError(f"{str(path)!r} cannot be written: {error.strerror or error}; choose another folder") from error
    finally:
        beside.unlink(missing_ok=True)
