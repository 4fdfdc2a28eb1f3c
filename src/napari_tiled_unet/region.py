"""Which part of an image: a range of voxels along some of its axes, as text and as slices.

::

    "t=3,z=2:10,y=100:400,x=50:"
      |   |      |         |
      |   |      |         from 50 to the end
      |   |      from 100 up to, not including, 400
      |   slices 2 to 9
      frame 3 alone; the axis stays, one voxel long

Axes that are not named are whole. Channels are chosen by ``channel``, not here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from napari_tiled_unet.errors import ImageError, OptionsError

_AXES = "tzyx"
_PART = re.compile(r"(?P<axis>[a-z])=(?P<start>\d*)(?P<colon>:?)(?P<stop>\d*)")
_EXAMPLE = "for example 't=3,z=2:10,y=100:400,x=50:600'"


@dataclass(frozen=True)
class Region:
    """A box of an image, in voxels of the whole image.

    Attributes
    ----------
    ranges : tuple of (str, int, int or None)
        Axis, first voxel, and the voxel after the last one; None is the end of the axis.
        In the order ``tzyx``, no axis twice.

    Raises
    ------
    OptionsError
        If an axis is unknown or repeated, or a range is empty.
    """

    ranges: tuple[tuple[str, int, int | None], ...] = ()

    def __post_init__(self) -> None:
        axes = [axis for axis, _, _ in self.ranges]
        if set(axes) - set(_AXES) or len(set(axes)) != len(axes):
            hint = "; choose channels with channel" if "c" in axes else ""
            raise OptionsError(f"region {self.text!r} must name different axes among t, z, y and x, {_EXAMPLE}{hint}")
        for axis, start, stop in self.ranges:
            if start < 0 or (stop is not None and stop <= start):
                raise OptionsError(
                    f"region {self.text!r} has no voxel along {axis}: a range is start:stop, "
                    f"counted from 0, the stop left out, {_EXAMPLE}"
                )
        ordered = tuple(sorted(self.ranges, key=lambda part: _AXES.index(part[0])))
        object.__setattr__(self, "ranges", ordered)

    @classmethod
    def parse(cls, text: str) -> Region:
        """Read a region as it is written in options, on the command line and in recipes.

        Raises
        ------
        OptionsError
            If it does not say one.
        """
        ranges: list[tuple[str, int, int | None]] = []
        for part in text.replace(" ", "").strip(",").lower().split(","):
            match = _PART.fullmatch(part)
            if match is None or not (match["start"] or match["colon"]):
                raise OptionsError(f"region {text!r} must be axis=start:stop, separated by commas, {_EXAMPLE}")
            start = int(match["start"] or 0)
            stop = int(match["stop"]) if match["stop"] else None if match["colon"] else start + 1
            ranges.append((match["axis"], start, stop))
        return cls(tuple(ranges))

    @classmethod
    def of_slices(cls, slices: Mapping[str, tuple[int, int]], sizes: Mapping[str, int]) -> Region:
        """Return the region of start and stop per axis; axes that are whole are left out."""
        return cls(tuple((a, lo, hi) for a, (lo, hi) in slices.items() if (lo, hi) != (0, sizes[a])))

    @property
    def text(self) -> str:
        """The region as text, the inverse of :meth:`parse`; empty where all is whole."""
        return ",".join(
            f"{axis}={start}" if stop == start + 1 else f"{axis}={start}:{'' if stop is None else stop}"
            for axis, start, stop in self.ranges
        )

    def slices(self, axes: str, shape: Sequence[int], name: str = "image") -> tuple[slice, ...]:
        """Return a slice per axis of an array.

        Raises
        ------
        ImageError
            If the array lacks an axis, or is too short along one.
        """
        found = {axis: slice(0, int(size)) for axis, size in zip(axes, shape, strict=True)}
        for axis, start, stop in self.ranges:
            if axis not in found:
                raise ImageError(f"region {self.text!r} names axis {axis!r}, {name!r} has {axes!r}; leave {axis} out")
            size = found[axis].stop
            if start >= size or (stop or 0) > size:
                raise ImageError(
                    f"region {self.text!r} reaches past {name!r}, which has {size} voxels along {axis}; "
                    f"take {axis} within 0:{size}"
                )
            found[axis] = slice(start, size if stop is None else stop)
        return tuple(found.values())

    def offset(self, axes: str) -> tuple[int, ...]:
        """Return the first voxel along each of the axes; 0 where the region does not name one."""
        starts = {axis: start for axis, start, _ in self.ranges}
        return tuple(starts.get(axis, 0) for axis in axes)
