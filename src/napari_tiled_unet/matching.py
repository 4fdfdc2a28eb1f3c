"""An image and a model brought together: axes, channels, and the size of voxels and objects.

What does not suit is refused here, before any work.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_tiled_unet.errors import ImageError, OptionsError
from napari_tiled_unet.events import Notice
from napari_tiled_unet.half_precision import to_half
from napari_tiled_unet.image import Image, image_from_array, luminance
from napari_tiled_unet.io import read_image
from napari_tiled_unet.options import OF_OBJECTS
from napari_tiled_unet.units import micrometres_per

if TYPE_CHECKING:
    from napari_tiled_unet.model import Model
    from napari_tiled_unet.options import SegmentOptions

# Rescaling by less than this is not worth the blur of interpolation.
_SAME_SCALE = 0.02

# Makes an array from shape and dtype.
Allocate = Callable[..., npt.NDArray[Any]]


def match_image(image: Any, model: Model, options: SegmentOptions) -> tuple[Image, list[Notice]]:
    """Return the image with axes and channels that suit the model, and what was decided."""
    if isinstance(image, str | Path):
        source = read_image(image, axes=options.axes, level=options.level)
    elif isinstance(image, Image):
        source = image
        if options.axes not in (None, source.axes):
            raise OptionsError(
                f"axes={options.axes!r}: {source.name!r} has axes {source.axes!r} already; "
                "leave axes out, or make the Image with those that it has"
            )
    else:
        source = image_from_array(image, axes=options.axes)
    if options.level not in (0, source.level):
        raise ImageError(
            f"level={options.level}: {source.name!r} is one array, not a multiscale file; "
            "leave level out and give the array of that level, or the path of the file"
        )
    notices = [Notice(note) for note in source.notes]
    if options.spacing == "none":
        source = replace(source, spacing=None, partial_spacing={})
    elif options.spacing is not None:
        source = source.with_spacing(options.spacing)
    missing = set(model.spec.axes) - set(source.axes)
    if missing:
        raise ImageError(
            f"model {model.spec.name!r} needs axes {model.spec.axes!r}, the image {source.name!r} has {source.axes!r}; "
            "take a 2D model, or say with axes what the image's axes are"
        )
    if options.link_slices and (model.spec.axes != "yx" or "z" not in source.axes):
        raise OptionsError(
            "link_slices joins the 2D objects of a z-stack; "
            f"model axes are {model.spec.axes!r}, image axes {source.axes!r}: "
            "leave it out, or give an image with a z axis to a 2D model"
        )
    if options.link_slices and model.spec.target.kind != "objects":
        raise OptionsError("link_slices joins objects, this model predicts classes; leave it out")
    if model.spec.target.kind != "objects" and (idle := [n for n in OF_OBJECTS if getattr(options, n) is not None]):
        raise OptionsError(
            f"{' and '.join(idle)}: model {model.spec.name!r} predicts classes, and these make objects of maps; "
            "leave them out"
        )
    wanted = len(model.spec.channels)
    if source.is_rgb and wanted == 1 and options.channel is None:
        notices.append(Notice(f"{source.name}: RGB converted to grey (ITU-R 601 luminance) for a one-channel model"))
        source = luminance(source)
    match_channels(source, model, options)
    return source, notices


def match_channels(source: Image, model: Model, options: SegmentOptions) -> tuple[int, ...] | None:
    """Return the channels of the image that the model sees; None for all.

    Raises
    ------
    ImageError, OptionsError
        If the image has too few channels, too many without a choice, or not the one asked for.
    """
    wanted, found = len(model.spec.channels), source.n_channels
    if options.channel is not None:
        if wanted != 1:
            raise OptionsError(f"channel chooses one channel, model {model.spec.name!r} needs {wanted}; leave it out")
        if options.channel >= found:
            raise OptionsError(
                f"channel={options.channel}, the image has {found}, counted from 0; take 0 to {found - 1}"
            )
        return (options.channel,)
    if found == wanted:
        return None
    if found > wanted == 1:
        raise OptionsError(
            f"the image {source.name!r} has {found} channels, model {model.spec.name!r} takes one "
            f"({model.spec.channels[0]}); say which with channel=0 to {found - 1}"
        )
    raise ImageError(
        f"the image {source.name!r} has {found} channels, model {model.spec.name!r} needs {wanted} "
        f"({', '.join(model.spec.channels)}); give exactly those"
    )


def match_scale(source: Image, model: Model, options: SegmentOptions) -> tuple[tuple[float, ...], Notice | None]:
    """Return network voxels per image voxel, per axis of the model, and a notice if something is ignored."""
    spec = model.spec
    same = (1.0,) * len(spec.axes)
    if options.object_size is not None:
        if spec.object_size is None:
            raise OptionsError(f"object_size needs a model that states its own, {spec.name!r} does not; leave it out")
        return (spec.object_size / options.object_size,) * len(spec.axes), None
    spacing = source.spacing_of(spec.axes)
    if spec.spacing is None or spacing is None:
        if isinstance(options.spacing, tuple) and spec.spacing is None:
            return same, Notice(
                f"model {spec.name!r} was trained on images of unknown voxel size: spacing is written to the result, "
                "nothing is rescaled; object_size rescales"
            )
        return same, None
    unit = micrometres_per(spec.units)
    assert unit is not None, "the spec was checked"
    return tuple(s / (m * unit) for s, m in zip(spacing, spec.spacing, strict=True)), None


@dataclass(frozen=True)
class Grid:
    """The voxels of a frame in the image, and those that the network is given.

    Attributes
    ----------
    image, network : tuple of int
        Shapes of the frame, channels left out.
    """

    image: tuple[int, ...]
    network: tuple[int, ...]

    @classmethod
    def of(cls, shape: tuple[int, ...], scale: tuple[float, ...]) -> Grid:
        """Return the grid of a frame, given network voxels per image voxel along each axis."""
        if all(abs(s - 1) <= _SAME_SCALE for s in scale):
            return cls(shape, shape)
        return cls(shape, tuple(max(1, round(n * s)) for n, s in zip(shape, scale, strict=True)))

    @property
    def differs(self) -> bool:
        """Whether frames have to be rescaled."""
        return self.image != self.network

    def to_network(self, frame: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Rescale a finite frame ``(c, ...)`` to the network's voxels."""
        return _resized(frame, self.network, np.float32, np.empty) if self.differs else frame

    def to_image(
        self, maps: npt.NDArray[Any], dtype: npt.DTypeLike = np.float32, allocate: Allocate = np.empty
    ) -> npt.NDArray[Any]:
        """Rescale maps ``(k, ...)`` back to the image's voxels, into an array of ``dtype`` that ``allocate`` makes."""
        return _resized(maps, self.image, dtype, allocate) if self.differs else maps


def _resized(
    channels: npt.NDArray[Any], shape: tuple[int, ...], dtype: npt.DTypeLike, allocate: Allocate
) -> npt.NDArray[Any]:
    """Resize ``(c, ...)`` channel by channel: linear, low-passed where it shrinks."""
    from skimage.transform import resize

    shrinks = any(new < old for new, old in zip(shape, channels.shape[1:], strict=True))
    out = allocate((len(channels), *shape), dtype)
    for target, channel in zip(out, channels, strict=True):
        resized = resize(channel, shape, order=1, mode="reflect", anti_aliasing=shrinks, preserve_range=True)
        if target.dtype == np.float16:
            to_half(resized, target)
        else:
            target[...] = resized
    return out
