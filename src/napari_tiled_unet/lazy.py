"""Arrays that are only read where they are sliced: a part of another one, and its luminance."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

# ITU-R BT.601, as every grey conversion of RGB photographs.
_LUMINANCE = np.array([0.299, 0.587, 0.114], np.float32)


class Part:
    """A lazy array: a box of another one, which is sliced only where this one is."""

    def __init__(self, data: Any, box: tuple[slice, ...]) -> None:
        self._data, self._box = data, box
        self.dtype = data.dtype
        self.shape = tuple(side.stop - side.start for side in box)

    def __getitem__(self, key: Any) -> npt.NDArray[Any]:
        keys = key if isinstance(key, tuple) else (key,)
        keys += (slice(None),) * (len(self.shape) - len(keys))
        return np.asarray(self._data[tuple(_shifted(k, side) for k, side in zip(keys, self._box, strict=True))])


def reads_an_open_file(data: Any) -> bool:
    """Whether slices are read through a file that was opened once: processes forked from this one share its place."""
    while isinstance(data, Part | Luminance):
        data = data._data
    return type(getattr(data, "store", None)).__module__.startswith("tifffile")


def _shifted(key: Any, side: slice) -> Any:
    """Return an index of a part's axis as an index of the whole axis."""
    size = side.stop - side.start
    if isinstance(key, slice):
        start, stop, step = key.indices(size)
        return slice(side.start + start, side.start + max(start, stop), step)
    numbers = [range(size)[int(k)] + side.start for k in np.atleast_1d(key)]
    return numbers if np.ndim(key) else numbers[0]


class Luminance:
    """A lazy array: the weighted sum over the channels of what is sliced."""

    dtype = np.dtype(np.float32)

    def __init__(self, data: Any, channel_axis: int) -> None:
        self._data, self._channel_axis = data, channel_axis
        self.shape = tuple(n for axis, n in enumerate(data.shape) if axis != channel_axis)

    def __getitem__(self, key: Any) -> npt.NDArray[np.float32]:
        full = list(key) if isinstance(key, tuple) else [key]
        full += [slice(None)] * (len(self.shape) - len(full))
        full.insert(self._channel_axis, slice(0, 3))
        # Indices given as numbers drop their axis, so the channels move forward.
        axis = sum(not isinstance(k, int | np.integer) for k in full[: self._channel_axis])
        colours = np.asarray(self._data[tuple(full)]).astype(np.float32, copy=False)
        return np.tensordot(colours, _LUMINANCE, axes=([axis], [0])).astype(np.float32, copy=False)
