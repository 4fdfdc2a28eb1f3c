"""What an OME-TIFF says of its voxels: their size, where they lie, how far apart in time; as metadata to be written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from napari_tiled_unet.axes import AXES
from napari_tiled_unet.errors import ImageError
from napari_tiled_unet.units import micrometres_per

# OME-TIFF wants the planes last and, as most of its readers, the channels right before them.
FILE_ORDER = "tzcyx"
# Voxel size per spatial axis, None along one for which it is not known.
Spacing = Sequence[float | None] | None


@dataclass(frozen=True)
class Place:
    """Where the voxels of a file lie in space and time.

    Attributes
    ----------
    offset : mapping of str to int
        First voxel in the image by axis, where the file holds a part of it; 0 where none is named.
    origin : mapping of str to float
        Where the first voxel of the image lies, by spatial axis, in the unit of the spacing; 0 where none is named.
    time_step : float, optional
        Seconds from one frame of a time series to the next.

    Raises
    ------
    ImageError
        If a value is not finite, or an axis none of ``tczyx``.
    """

    offset: Mapping[str, int] = field(default_factory=dict)
    origin: Mapping[str, float] = field(default_factory=dict)
    time_step: float | None = None

    def __post_init__(self) -> None:
        for name, values in (("offset", self.offset), ("origin", self.origin)):
            for axis, value in values.items():
                if axis not in set(AXES) or not np.isfinite(value):
                    raise ImageError(
                        f"{name} {{{axis!r}: {value}}} is no place; give a finite number for axes among {AXES!r}"
                    )


def ome_metadata(axes: str, shape: tuple[int, ...], spacing: Spacing, units: str, place: Place) -> dict[str, Any]:
    """Return size and place of the voxels of an array, as tifffile takes them; what is unknown is left out.

    Raises
    ------
    ImageError
        If axes, shape, spacing and place do not agree.
    """
    _check_axes(axes, shape)
    order = "".join(a for a in FILE_ORDER if a in axes)
    found = {"axes": order.upper(), **_physical_sizes(axes, spacing, units), **_time_step(axes, place.time_step)}
    return found | _positions(axes, shape, spacing, units, place)


def _check_axes(axes: str, shape: tuple[int, ...]) -> None:
    letters_fit = set(axes) <= set(AXES) and len(set(axes)) == len(axes) and {"y", "x"} <= set(axes)
    if not letters_fit or len(axes) != len(shape) or 0 in shape:
        raise ImageError(
            f"axes {axes!r} do not suit an array of shape {shape}; give a different letter of {AXES!r} for each axis, "
            "y and x among them, and at least one voxel along each"
        )


def _physical_sizes(axes: str, spacing: Spacing, units: str) -> dict[str, Any]:
    """Return the voxel size as OME metadata; empty when unknown."""
    factor = micrometres_per(units)
    if spacing is None or factor is None:
        return {}
    spatial = [a for a in axes if a in "zyx"]
    if len(spacing) != len(spatial) or not all(np.isfinite(s) and s > 0 for s in spacing if s is not None):
        raise ImageError(
            f"spacing {tuple(spacing)} must be one positive number per spatial axis ({''.join(spatial)}); "
            f"give {len(spatial)}, or None"
        )
    sizes: dict[str, Any] = {}
    for axis, size in zip(spatial, spacing, strict=True):
        if size is None:
            continue
        sizes[f"PhysicalSize{axis.upper()}"] = float(size) * factor
        sizes[f"PhysicalSize{axis.upper()}Unit"] = "µm"
    return sizes


def _time_step(axes: str, seconds: float | None) -> dict[str, Any]:
    """Return the time step of a series as OME metadata; empty when unknown."""
    if seconds is None or "t" not in axes:
        return {}
    if not (np.isfinite(seconds) and seconds > 0):
        raise ImageError(f"time_step={seconds} must be a positive number of seconds; give that, or None")
    return {"TimeIncrement": float(seconds), "TimeIncrementUnit": "s"}


def _positions(axes: str, shape: tuple[int, ...], spacing: Spacing, units: str, place: Place) -> dict[str, Any]:
    """Return where each plane begins as OME metadata; empty when unknown or at the first voxel of the image."""
    factor = micrometres_per(units)
    if spacing is None or factor is None or not (any(place.offset.values()) or any(place.origin.values())):
        return {}
    sizes = zip((a for a in axes if a in "zyx"), spacing, strict=True)
    size = {axis: float(step) * factor for axis, step in sizes if step is not None}
    length = dict(zip(axes, shape, strict=True))
    leading = [a for a in FILE_ORDER[:-2] if a in axes]
    planes = list(np.ndindex(*(length[a] for a in leading)))
    found: dict[str, Any] = {}
    for axis, step in size.items():
        index = leading.index(axis) if axis in leading else None
        voxels = [place.offset.get(axis, 0) + (plane[index] if index is not None else 0) for plane in planes]
        begin = place.origin.get(axis, 0.0) * factor
        found[f"Position{axis.upper()}"] = [begin + step * voxel for voxel in voxels]
        found[f"Position{axis.upper()}Unit"] = ["µm"] * len(planes)
    return {"Plane": found}
