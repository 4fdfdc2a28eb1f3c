"""What the metadata of a file say, in the words of an image: axes, voxel sizes, place and time step."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from napari_tiled_unet.axes import AXES
from napari_tiled_unet.errors import ImageError
from napari_tiled_unet.image import Image
from napari_tiled_unet.units import NO_LENGTH, micrometres_per, seconds_per

_MEANINGS = {"z": "z-stack", "t": "time series", "c": "channels"}


def check_level(level: int, count: int, name: str) -> None:
    """Refuse a resolution that a file does not have.

    Raises
    ------
    ImageError
        If there is none of this number.
    """
    if not 0 <= level < count:
        there = f"{count} resolutions, 0 to {count - 1}" if count > 1 else "one resolution"
        raise ImageError(f"level={level}: {name!r} has {there}; take one of those, 0 is the full one")


def known_axes(found: str, shape: tuple[int, ...], name: str) -> str:
    """Return the axes that a file names, if they are ours.

    Parameters
    ----------
    found : str
        A letter per axis; any letter that is not one of ``tczyx`` is an unknown axis.
    shape : tuple of int
        Shape of the array.
    name : str
        For messages.

    Raises
    ------
    ImageError
        If an axis is unknown; the message names the choices.
    """
    unknown = [n for a, n in zip(found, shape, strict=True) if a not in AXES]
    if not unknown and len(set(found)) == len(found):
        return found
    free = [a for a in "ztcyx" if a not in found]
    if not {"y", "x"} <= set(found) or not 0 < len(unknown) <= len(free):
        raise ImageError(
            f"{name!r} has shape {shape}, and the axes that its metadata name are no image's ({found!r}); "
            f"say with axes what they are, a letter of {AXES!r} for each, or take a part of it"
        )
    choices = []
    for letters in itertools.permutations(free, len(unknown)):
        left = iter(letters)
        filled = "".join(a if a in AXES else next(left) for a in found)
        choices.append(f"{filled!r} ({_MEANINGS[letters[0]]})" if len(letters) == 1 else repr(filled))
    sizes = " and ".join(map(str, unknown))
    question = f"the axis of {sizes} voxels is" if len(unknown) == 1 else f"the axes of {sizes} voxels are"
    raise ImageError(
        f"{name!r} has shape {shape}; its metadata do not say what {question}: "
        f"say with axes, for example {', '.join(choices)}"
    )


@dataclass(frozen=True)
class Calibration:
    """What a file says of lengths and times.

    Attributes
    ----------
    sizes : mapping of str to float
        Micrometres per voxel by axis of the file, as far as they are known.
    origin : mapping of str to float
        Micrometres of the first voxel, likewise.
    time_step : float or None
        Seconds; None when unknown.
    odd_units : mapping of str to str
        Units by axis, ``t`` among them, that are none that is known; empty where a number has none.
    """

    sizes: Mapping[str, float] = field(default_factory=dict)
    origin: Mapping[str, float] = field(default_factory=dict)
    time_step: float | None = None
    odd_units: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        sizes: Iterable[tuple[str, Any, Any]],
        *,
        origin: Iterable[tuple[str, Any, Any]] = (),
        time_step: tuple[Any, Any] = (None, ""),
    ) -> Calibration:
        """Return what numbers and units say, as they were found; what is no number is left out.

        Parameters
        ----------
        sizes, origin : iterable of (str, Any, Any)
            Axis, micrometres or other length, and unit; a unit of None is one that was left out.
        time_step : (Any, Any)
            Likewise.
        """
        known, odd = _converted(sizes, micrometres_per)
        step, odd_time = _converted([("t", *time_step)], seconds_per)
        places = {axis: place for axis, found, unit in origin if (place := _length(found, unit)) is not None}
        return cls(known, places, step.get("t"), odd | odd_time)


def _converted(
    found: Iterable[tuple[str, Any, Any]], per: Callable[[str], float | None]
) -> tuple[dict[str, float], dict[str, str]]:
    """Return positive numbers in our unit by axis, and the units that are not known."""
    known: dict[str, float] = {}
    odd: dict[str, str] = {}
    for axis, given, unit in found:
        value = _number(given)
        if value is None or value <= 0:
            continue
        factor = None if unit is None else per(str(unit))
        if factor is not None:
            known[axis] = value * factor
        elif unit is None:
            # A size of 1 that has no unit is what writers state who know none.
            odd |= {axis: ""} if value != 1 else {}
        elif str(unit).strip().lower() not in NO_LENGTH:
            odd[axis] = str(unit)
    return known, odd


def _length(found: Any, unit: Any) -> float | None:
    value, factor = _number(found), None if unit is None else micrometres_per(str(unit))
    return None if value is None or factor is None else value * factor


def _number(found: Any) -> float | None:
    try:
        value = float(found)
    except (TypeError, ValueError):
        return None
    return value if math.isfinite(value) else None


def calibrated(image: Image, found: str, calibration: Calibration) -> Image:
    """Return an image with what its file says of lengths and times, and notes of what that lacks.

    Parameters
    ----------
    image : Image
        Its axes may be the user's.
    found : str
        The axes that the file names, in the same order.
    calibration : Calibration
        By axis of the file.
    """
    theirs = dict(zip(image.axes, found, strict=True))
    sizes, origin = (
        {axis: values[theirs[axis]] for axis in image.spatial_axes if theirs[axis] in values}
        for values in (calibration.sizes, calibration.origin)
    )
    is_time = theirs.get("t") == "t"
    odd = {axis: calibration.odd_units[theirs[axis]] for axis in theirs if theirs[axis] in calibration.odd_units}
    return replace(
        image,
        partial_spacing=sizes,
        origin=origin,
        time_step=calibration.time_step if is_time else None,
        notes=(*image.notes, *_odd_units(image, odd, is_time=is_time), *_unknown_sizes(image, sizes)),
    )


def _odd_units(image: Image, odd: Mapping[str, str], *, is_time: bool) -> Iterator[str]:
    """Say which numbers are not used, since their unit is not known."""
    for unit in dict.fromkeys(odd[axis] for axis in image.spatial_axes if axis in odd):
        along = _along([axis for axis in image.spatial_axes if odd.get(axis) == unit])
        stated = f"in {unit!r}, which is no length that is known" if unit else "stated without a unit"
        yield f"{image.name}: the voxel size along {along} is {stated}, so that it is not used; give spacing"
    if is_time and "t" in odd:
        stated = f"in {odd['t']!r}, which is no time that is known" if odd["t"] else "stated without a unit"
        yield f"{image.name}: the time step is {stated}, so that it is not kept"


def _unknown_sizes(image: Image, known: Mapping[str, float]) -> Iterator[str]:
    """Say of voxel sizes that are known along some axes who uses them."""
    unknown = [axis for axis in image.spatial_axes if axis not in known]
    if not unknown or not known:
        return
    told = f"{image.name}: the voxel size is known along {_along(known)}, not along {_along(unknown)}"
    if {"y", "x"} <= set(known):
        yield f"{told}: a 2D model uses it, a 3D model does not; give spacing for one that does"
    else:
        yield f"{told}, so that no model uses it; give spacing"


def _along(axes: Iterable[str]) -> str:
    return " and ".join(axes)
