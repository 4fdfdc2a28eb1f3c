"""Running out of memory: how it is recognised, and where large arrays go then."""

from __future__ import annotations

import math
import tempfile
from typing import Any

import numpy as np
import numpy.typing as npt

# What libraries say when an allocation fails and their error has no class of its own.
_SIGNS = ("not enough memory", "out of memory", "cannot allocate memory", "failed to allocate", "bad_alloc")


def is_shortage(error: BaseException) -> bool:
    """Whether an error means that memory ran out, on the host or on a device.

    Torch raises a bare RuntimeError for the host, OpenVINO and ONNX Runtime for either.
    """
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(sign in text for sign in _SIGNS)


def zeros_or_disk(shape: tuple[int, ...], dtype: npt.DTypeLike, free: float = math.inf) -> npt.NDArray[Any]:
    """Return zeros in memory, or in a temporary file where they do not fit.

    Parameters
    ----------
    shape, dtype
        Of the array.
    free : float
        Bytes of memory that it may take.

    Returns
    -------
    numpy.ndarray
        A ``numpy.memmap`` if it lies in a file; the file has no name and goes with the array.

    Raises
    ------
    OSError
        If the disk is full as well.
    """
    needed = math.prod(shape) * np.dtype(dtype).itemsize
    if needed <= free:
        try:
            return np.zeros(shape, dtype)
        except MemoryError:
            pass
    # The map keeps the file open, and with it its room on the disk.
    with tempfile.TemporaryFile(prefix="tiled-unet-") as file:
        return np.memmap(file, dtype, mode="w+", shape=shape)
