"""The names of axes, and what an array must be to be an image with them."""

from __future__ import annotations

from typing import Any

import numpy as np

from napari_tiled_unet.errors import ImageError

AXES = "tczyx"
"""Every axis there is, in the order in which labels are given back."""

_CHOICES = {
    3: "'zyx' (z-stack), 'tyx' (time series), 'cyx' (channels) or 'yxc' (RGB)",
    4: "'tzyx', 'zcyx', 'czyx', 'tcyx' or 'zyxc'",
    5: "'tczyx' or 'tzcyx'",
}


def check_array(data: Any, name: str) -> None:
    """Refuse what cannot be an image.

    Raises
    ------
    ImageError
        If it is no array of numbers, or has too few or too many axes, or an empty one.
    """
    if not all(hasattr(data, need) for need in ("shape", "dtype", "__getitem__")):
        raise ImageError(
            f"a {type(data).__name__} is not an array; give an array, an Image or a path "
            "(of a viewer's layer its data, and of an image layer: labels cannot be segmented)"
        )
    try:
        dtype = np.dtype(data.dtype)
    except TypeError:
        raise ImageError(
            f"{name!r} is a {type(data).__name__} of data type {data.dtype}, which NumPy does not have; "
            "convert it to a NumPy array"
        ) from None
    if dtype.kind not in "buif":
        raise ImageError(
            f"{name!r} has data type {dtype}, an image must be bool, integer or float; "
            "take for example the magnitude of complex data"
        )
    shape = tuple(data.shape)
    if any(n != n for n in shape):
        raise ImageError(
            f"{name!r} has the shape {shape}, whose sizes must be known; call compute_chunk_sizes() of a dask array"
        )
    if not 2 <= len(shape) <= len(AXES):
        raise ImageError(
            f"{name!r} has {len(shape)} axes (shape {shape}), an image has 2 to {len(AXES)}, of {AXES!r}; "
            "take a part of it, or add the axes that are missing"
        )
    if 0 in shape:
        raise ImageError(f"{name!r} of shape {shape} is empty; every axis must have at least one voxel")


def check_axes(axes: str, shape: tuple[int, ...], name: str) -> None:
    """Refuse axes that an array of a shape cannot have.

    Raises
    ------
    ImageError
        If they are not different letters, one for each, y and x among them.
    """
    if len(axes) != len(shape):
        raise ImageError(
            f"axes {axes!r} name {len(axes)} axes, {name!r} has {len(shape)} (shape {shape}); give one letter for each"
        )
    if set(axes) - set(AXES) or len(set(axes)) != len(axes) or not {"y", "x"} <= set(axes):
        raise ImageError(f"axes {axes!r} of {name!r} must be different letters of {AXES!r}, y and x among them")


def axes_of(data: Any) -> str:
    """Return the axes of an array that are known without a word: those that it names itself, or two.

    Raises
    ------
    ImageError
        If they are ambiguous; the message names the choices.
    """
    names = [str(n).lower() for n in getattr(data, "dims", ())]
    if names and all(len(n) == 1 and n in AXES for n in names):
        return "".join(names)
    if len(data.shape) != 2:
        raise ImageError(
            f"the axes of an array of shape {tuple(data.shape)} are ambiguous; say with axes whether it is "
            f"{_CHOICES[len(data.shape)]}"
        )
    return "yx"
