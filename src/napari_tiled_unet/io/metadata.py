"""What the metadata of a file say, in the words of an image: axes and voxel sizes."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from napari_tiled_unet.errors import ImageError
from napari_tiled_unet.image import AXES, Image, micrometres_per

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


def micrometres(sizes: Iterable[tuple[str, Any, Any]]) -> dict[str, float]:
    """Return the known voxel sizes in micrometres.

    Parameters
    ----------
    sizes : iterable of (str, Any, Any)
        Axis, size and unit, as found; whatever is no positive length is left out.
    """
    known = {}
    for axis, size, unit in sizes:
        factor = micrometres_per(str(unit))
        try:
            value = float(size)
        except (TypeError, ValueError):
            continue
        if factor is not None and math.isfinite(value) and value > 0:
            known[axis] = value * factor
    return known


def with_voxel_size(image: Image, found: str, sizes: Mapping[str, float]) -> Image:
    """Return the image with the voxel size of its file, if that is known for every spatial axis.

    Parameters
    ----------
    image : Image
        Its axes may be the user's.
    found : str
        The axes that the file names, in the same order.
    sizes : mapping of str to float
        Micrometres by axis of the file.
    """
    named = {axis: theirs for axis, theirs in zip(image.axes, found, strict=True) if axis in image.spatial_axes}
    unknown = [axis for axis, theirs in named.items() if theirs not in sizes]
    if not unknown:
        return replace(image, spacing=tuple(sizes[theirs] for theirs in named.values()), units="micrometer")
    if len(unknown) == len(named):
        return image
    note = (
        f"{image.name}: the voxel size along {' and '.join(unknown)} is not known, so that none is used; give spacing"
    )
    return replace(image, notes=(*image.notes, note))
