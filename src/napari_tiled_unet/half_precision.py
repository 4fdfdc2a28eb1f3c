"""Maps in half precision, which they are kept and decoded in.

NumPy rounds values below ``2**-14`` to half precision one by one in software. Most voxels of a map are background,
so that it takes nearly 60 ns per value of maps of nuclei, torch less than one (``benchmarks/half.py``).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


def to_half(values: npt.NDArray[Any], out: npt.NDArray[Any] | None = None) -> npt.NDArray[Any]:
    """Round to half precision as ``numpy.copyto`` does, to the nearest, ties to even.

    Parameters
    ----------
    values : numpy.ndarray
        Floats of any shape.
    out : numpy.ndarray, optional
        float16 of that shape, where they go; a new array by default.

    Returns
    -------
    numpy.ndarray
        ``out``, or ``values`` itself if it is half precision already and ``out`` is not given.
    """
    if out is None:
        if values.dtype == np.float16:
            return values
        out = np.empty(values.shape, np.float16)
    if _suits_torch(values):
        import torch

        torch.from_numpy(out).copy_(torch.from_numpy(values))
    else:
        np.copyto(out, values, casting="same_kind")
    return out


def _suits_torch(values: npt.NDArray[Any]) -> bool:
    # Torch would warn of memory that it may not write to, though it only reads it; it counts no axis
    # backwards, and rounds doubles twice.
    single = values.dtype == np.float32 and values.dtype.isnative
    return single and values.flags.writeable and min(values.strides, default=0) >= 0
