"""An image: an array, the names of its axes, and the size of its voxels.

Axis names live here and in :mod:`napari_tiled_unet.axes` alone. Past this room, arrays are frames: channels first,
``(c, [z,] y, x)``. An image may be lazy (dask, zarr, memory-mapped); only one frame of it
is ever in memory.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_tiled_unet.axes import AXES, axes_of, check_array, check_axes
from napari_tiled_unet.errors import FileError, ImageError, TiledUnetError
from napari_tiled_unet.lazy import Luminance, Part
from napari_tiled_unet.region import Region
from napari_tiled_unet.units import NO_LENGTH, micrometres_per


@dataclass(frozen=True, eq=False)
class Image:
    """An array with named axes.

    Attributes
    ----------
    data : array
        NumPy, dask or zarr: anything with ``shape``, ``dtype`` and slicing. Bool, integer or float;
        NaN is allowed.
    axes : str
        Letters of ``tczyx`` in array order, one per axis; ``y`` and ``x`` must be there.
    spacing : tuple of float or None
        Size of a voxel along each spatial axis, in array order, in micrometres whatever
        unit it was given in; None when unknown.
    units : str
        Unit in which ``spacing`` is given, any length; afterwards ``micrometer``, or
        ``pixel`` when there is no spacing.
    name : str
        For messages and layer names.
    is_rgb : bool
        Whether the channels are red, green, blue (and alpha), by its metadata.
    notes : tuple of str
        What was left out or assumed when it was read.
    level : int
        Which resolution of a multiscale image it is, 0 the full one.
    partial_spacing : mapping of str to float
        Micrometres per voxel by spatial axis, where they are not known along all; else empty.
    origin : mapping of str to float
        Where the first voxel lies, in micrometres, by spatial axis, as far as that is known.
    time_step : float or None
        Seconds from one frame of a time series to the next; None when unknown.

    Raises
    ------
    ImageError
        If the array cannot be an image, or axes and array or spacing do not agree.
    """

    data: Any
    axes: str
    spacing: tuple[float, ...] | None = None
    units: str = "micrometer"
    name: str = "image"
    is_rgb: bool = False
    notes: tuple[str, ...] = ()
    level: int = 0
    partial_spacing: Mapping[str, float] = field(default_factory=dict)
    origin: Mapping[str, float] = field(default_factory=dict)
    time_step: float | None = None

    def __post_init__(self) -> None:
        check_array(self.data, self.name)
        check_axes(self.axes, tuple(self.data.shape), self.name)
        spacing, partial = None, dict(self.partial_spacing)
        if self.spacing is not None:
            spacing, partial = self._in_micrometres(self.spacing), {}
        self._check_partial_spacing(partial)
        if len(partial) == len(self.spatial_axes):
            spacing, partial = tuple(partial[axis] for axis in self.spatial_axes), {}
        object.__setattr__(self, "spacing", spacing)
        object.__setattr__(self, "partial_spacing", partial)
        object.__setattr__(self, "units", "pixel" if spacing is None else "micrometer")

    def _in_micrometres(self, spacing: Sequence[float]) -> tuple[float, ...] | None:
        """Check a voxel size and convert it; None if its unit is no length."""
        try:
            sizes = tuple(float(s) for s in spacing)
        except (TypeError, ValueError):
            sizes = ()
        if len(sizes) != len(self.spatial_axes) or not all(s > 0 and math.isfinite(s) for s in sizes):
            raise ImageError(
                f"spacing {spacing} of {self.name!r} must be one positive number per spatial axis "
                f"({self.spatial_axes}); give {len(self.spatial_axes)}, or one for all"
            )
        if self.units in NO_LENGTH:
            return None
        factor = micrometres_per(self.units)
        if factor is None:
            raise ImageError(
                f"units {self.units!r} of {self.name!r} are no length that is known; "
                "give the spacing in 'micrometer', 'nm', 'mm' or 'pixel'"
            )
        return tuple(s * factor for s in sizes)

    def _check_partial_spacing(self, partial: Mapping[str, float]) -> None:
        fits = set(partial) <= set(self.spatial_axes)
        if not fits or not all(size > 0 and math.isfinite(size) for size in partial.values()):
            raise ImageError(
                f"partial_spacing {dict(partial)} of {self.name!r} must be positive numbers of axes among "
                f"{self.spatial_axes!r}; leave out those that are not known"
            )

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the array."""
        return tuple(int(n) for n in self.data.shape)

    @property
    def spatial_axes(self) -> str:
        """The axes among ``zyx``, in array order."""
        return "".join(a for a in self.axes if a in "zyx")

    @property
    def n_channels(self) -> int:
        """Number of channels; 1 without a channel axis."""
        return self.size_of("c")

    def size_of(self, axis: str) -> int:
        """Return the number of voxels along an axis; 1 if the image does not have it."""
        return self.shape[self.axes.index(axis)] if axis in self.axes else 1

    def spacing_of(self, axes: str) -> tuple[float, ...] | None:
        """Return the voxel size along the given spatial axes, or None when unknown."""
        known = self._known_spacing()
        return tuple(known[axis] for axis in axes) if known and set(axes) <= set(known) else None

    def spacing_along(self, axes: str) -> tuple[float | None, ...] | None:
        """Return the voxel size along each of the axes, None where unknown; or None when known along none."""
        known = self._known_spacing()
        return tuple(known.get(axis) for axis in axes) if set(axes) & set(known) else None

    def _known_spacing(self) -> Mapping[str, float]:
        if self.spacing is None:
            return self.partial_spacing
        return dict(zip(self.spatial_axes, self.spacing, strict=True))

    def with_spacing(self, spacing: Sequence[float], units: str = "micrometer") -> Image:
        """Return the same image with another voxel size; one number stands for every spatial axis."""
        values = tuple(float(s) for s in spacing)
        if len(values) == 1:
            values *= len(self.spatial_axes)
        return replace(self, spacing=values, units=units)

    def part(self, region: Region) -> Image:
        """Return a part of the image, lazily: nothing is read and nothing is copied.

        Raises
        ------
        ImageError
            If the region does not lie in the image.
        """
        slices = region.slices(self.axes, self.shape, self.name)
        # zarr and the like would read at once.
        data = self.data[slices] if isinstance(self.data, np.ndarray) else Part(self.data, slices)
        known = self._known_spacing()
        starts = {axis: side.start for axis, side in zip(self.axes, slices, strict=True)}
        # How far a part begins from the first voxel is not known where the size of a voxel is not.
        origin = {
            axis: place + starts[axis] * known.get(axis, 0.0)
            for axis, place in self.origin.items()
            if axis in known or not starts[axis]
        }
        return replace(self, data=data, origin=origin)

    def frame_axes(self, spatial: str) -> str:
        """Return the axes over which frames are counted: all but channels and ``spatial``."""
        return "".join(a for a in AXES if a in self.axes and a != "c" and a not in spatial)

    def frame_shape(self, spatial: str) -> tuple[int, ...]:
        """Return the shape of a frame without its channels."""
        return tuple(self.size_of(axis) for axis in spatial)

    def label_axes(self, spatial: str = "yx") -> str:
        """Return the axes of the image's labels: those of the frames, then ``spatial``.

        They are the same for models of two and of three axes.
        """
        return self.frame_axes(spatial) + spatial

    def label_shape(self, spatial: str = "yx") -> tuple[int, ...]:
        """Return the shape of the image's labels."""
        return tuple(self.size_of(axis) for axis in self.label_axes(spatial))

    def frames(self, spatial: str) -> Iterator[Frame]:
        """Yield the frames of the image; nothing is read yet.

        Parameters
        ----------
        spatial : {"yx", "zyx"}
            Spatial axes of a frame.

        Raises
        ------
        ImageError
            If the image lacks one of them.
        """
        missing = [a for a in spatial if a not in self.axes]
        if missing:
            raise ImageError(
                f"frames of {spatial!r} need axis {missing[0]!r}, the image {self.name!r} has {self.axes!r}; "
                "take a model of fewer dimensions, or give the right axes"
            )
        counts = [range(self.size_of(axis)) for axis in self.frame_axes(spatial)]
        for index, position in enumerate(itertools.product(*counts)):
            yield Frame(self, spatial, index, position)


@dataclass(frozen=True)
class Frame:
    """One network-sized job of an image.

    Attributes
    ----------
    image : Image
        Where it comes from.
    spatial : str
        Its spatial axes.
    index : int
        Number of the frame, from 0.
    position : tuple of int
        Index along each of ``image.frame_axes(spatial)``.
    """

    image: Image
    spatial: str
    index: int
    position: tuple[int, ...]

    def read(self, channels: Sequence[int] | None = None, box: Sequence[slice] | None = None) -> npt.NDArray[Any]:
        """Read the frame, or a box of it, into memory.

        Parameters
        ----------
        channels : sequence of int, optional
            Channels to read, in this order; all by default.
        box : sequence of slice, optional
            The part to read, one slice per spatial axis; all of the frame by default.

        Returns
        -------
        numpy.ndarray
            ``(c, [z,] y, x)`` of the image's data type, in the byte order of this machine;
            bool becomes uint8. A view of the image's data where they are in memory.

        Raises
        ------
        FileError
            If the data of a lazy image cannot be read.
        ImageError
            If the image does not have one of the channels.
        """
        n_channels = self.image.n_channels
        wanted = list(range(n_channels)) if channels is None else [int(c) for c in channels]
        if not wanted or not all(0 <= c < n_channels for c in wanted):
            raise ImageError(
                f"channels {wanted} of {self.image.name!r} must be one or more of its {n_channels}, counted from 0; "
                f"take 0 to {n_channels - 1}"
            )
        # Sorted and without repeats, since not every kind of array can be indexed otherwise.
        read = sorted(set(wanted))
        adjacent = read[-1] - read[0] == len(read) - 1
        data = self._read(slice(read[0], read[-1] + 1) if adjacent else read, box)
        if wanted != read:
            data = data[[read.index(c) for c in wanted]]
        if data.dtype == bool:
            return data.astype(np.uint8)
        return data if data.dtype.isnative else data.astype(data.dtype.newbyteorder("="))

    def around(self, whole: Image, region: Region) -> Frame:
        """Return the frame of a whole image that this one, of its part ``region``, was cut from."""
        first = region.offset(whole.frame_axes(self.spatial))
        position = tuple(p + o for p, o in zip(self.position, first, strict=True))
        return Frame(whole, self.spatial, self.index, position)

    def _read(self, channels: slice | list[int], box: Sequence[slice] | None) -> npt.NDArray[Any]:
        image = self.image
        counted = image.frame_axes(self.spatial)
        # One-voxel slices, since numbers beside a list would move the axes.
        index: dict[str, slice | list[int]] = {a: slice(i, i + 1) for a, i in zip(counted, self.position, strict=True)}
        index["c"] = channels
        if box is not None:
            index.update(zip(self.spatial, box, strict=True))
        try:
            data = np.asarray(image.data[tuple(index.get(a, slice(None)) for a in image.axes)])
        except (TiledUnetError, MemoryError):
            raise
        except Exception as error:  # a damaged file can raise anything in the library that decodes it
            where = f"frame {self.position} of " if self.position else ""
            raise FileError(f"{where}{image.name!r} cannot be read: {error}; the file may be damaged") from error
        axes = image.axes
        if "c" not in axes:
            data, axes = data[None], "c" + axes
        ordered = data.transpose([axes.index(a) for a in f"{counted}c{self.spatial}"])
        return ordered.reshape(ordered.shape[len(counted) :])


def image_from_array(
    data: Any,
    axes: str | None = None,
    spacing: Sequence[float] | None = None,
    units: str = "micrometer",
    name: str = "image",
) -> Image:
    """Wrap an array; its axes are never guessed.

    Parameters
    ----------
    data : array
        NumPy, dask, zarr or xarray, or nested lists of numbers.
    axes : str, optional
        Letters of ``tczyx`` in array order. Needed for more than two axes, unless the
        array names them itself (xarray ``dims``).
    spacing : sequence of float, optional
        Voxel size per spatial axis, or one for all.
    units : str
        Unit of ``spacing``: any length, or ``pixel`` for none.
    name : str
        For messages.

    Returns
    -------
    Image
        Of the same array, not copied. Its channels are never taken for colours: a bare
        array does not say so.

    Raises
    ------
    ImageError
        If it is no image array, or its axes are ambiguous; the message names the choices.
    """
    if isinstance(data, list | tuple):
        data = np.asarray(data)
    check_array(data, name)
    image = Image(data, axes_of(data) if axes is None else axes, name=name)
    return image if spacing is None else image.with_spacing(spacing, units)


def luminance(image: Image) -> Image:
    """Return the grey image of an RGB image: ITU-R BT.601 weights, alpha dropped, lazily.

    Parameters
    ----------
    image : Image
        With 3 or 4 channels.

    Returns
    -------
    Image
        Float32, on the intensity scale of the input, without a channel axis.

    Raises
    ------
    ImageError
        If it does not have 3 or 4 channels.

    References
    ----------
    .. [1] Recommendation ITU-R BT.601-7 (2011), section 2.5.1: E'Y = 0.299 E'R + 0.587 E'G + 0.114 E'B.
    """
    if image.n_channels not in (3, 4):
        raise ImageError(f"{image.name!r} has {image.n_channels} channels, RGB has 3 or 4; choose one with channel")
    channel_axis = image.axes.index("c")
    return replace(image, data=Luminance(image.data, channel_axis), axes=image.axes.replace("c", ""), is_rgb=False)
