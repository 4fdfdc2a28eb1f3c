"""Running out of memory: how it is recognised, and where large arrays go then."""

from __future__ import annotations

import math
import os
import tempfile
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from napari_tiled_unet.errors import MemoryBudgetError

_CLAIMED_AT_ONCE = 2**24

# What libraries say when an allocation fails and their error has no class of its own.
_SIGNS = (
    "not enough memory",
    "out of memory",
    "cannot allocate memory",
    "failed to allocate",
    "bad_alloc",
    # CUBLAS_STATUS_ALLOC_FAILED and the like, CUDNN_STATUS_..._ALLOCATION_FAILED.
    "alloc_failed",
    "allocation_failed",
    # What oneDNN's fused convolutions say when their scratch memory is not there.
    "could not create a primitive",
)


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
    MemoryBudgetError
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
        try:
            _claim(file, needed)
            return np.memmap(file, dtype, mode="w+", shape=shape)
        except OSError as error:
            raise MemoryBudgetError(
                f"an array of {needed / 2**30:.2f} GiB fits neither the memory nor {tempfile.gettempdir()} "
                f"({error.strerror}); make room, name another folder in TMPDIR, or segment a part of the image"
            ) from error


def is_on_disk(array: npt.NDArray[Any]) -> bool:
    """Whether an array of :func:`zeros_or_disk`, and not a copy of it, lies in a file."""
    return getattr(array, "_mmap", None) is not None


def _claim(file: IO[bytes], size: int) -> None:
    """Take room on the disk now: where a page of a map finds none, the process is killed."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), 0, size)
        return
    for start in range(0, size, _CLAIMED_AT_ONCE):
        file.write(bytes(min(_CLAIMED_AT_ONCE, size - start)))
    file.flush()
