"""An image to labels: frames, normalisation, tiles, decoding, and back to the image's grid."""

from __future__ import annotations

import logging
import math
import time
import warnings
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_tiled_unet import labelling
from napari_tiled_unet.errors import ImageError, MemoryBudgetError, OptionsError
from napari_tiled_unet.events import Event, Finished, FrameDone, Notice, Planned
from napari_tiled_unet.image import Image, image_from_array, luminance
from napari_tiled_unet.io import read_image, smallest_label_dtype
from napari_tiled_unet.model import Model, load_model
from napari_tiled_unet.normalise import Normalisation, measure
from napari_tiled_unet.options import SegmentOptions, with_option_keywords
from napari_tiled_unet.predict import iter_predict
from napari_tiled_unet.runtime import (
    Runner,
    bytes_per_voxel,
    choose_device,
    choose_precision,
    choose_tiles,
    memory_budget,
)

if TYPE_CHECKING:
    from napari_tiled_unet.image import Frame
    from napari_tiled_unet.tiling import TilePlan

logger = logging.getLogger(__name__)

# Rescaling by less than this is not worth the blur of interpolation.
_SAME_SCALE = 0.02


@with_option_keywords
def segment(
    image: Image | npt.ArrayLike | str | Path,
    model: str | Path | Model | None = None,
    *,
    options: SegmentOptions | None = None,
    **keywords: Any,
) -> npt.NDArray[Any]:
    """Segment an image.

    Parameters
    ----------
    image : Image, array or path
        NumPy, dask or zarr array, or the path of an image file. Arrays with more than two
        axes need ``axes``, files bring theirs in their metadata.
    model : str, Path or Model, optional
        Name of a bundled or user model, path of a model file, or a loaded model;
        ``"nuclei"`` by default.
    options : SegmentOptions, optional
        How to segment; the keywords below replace single values of it.
    **keywords
        Any field of :class:`SegmentOptions`: ``axes``, ``channel``, ``spacing``,
        ``object_size``, ``tile``, ``overlap``, ``blend``, ``device``, ``precision``,
        ``memory``, ``normalisation``, ``foreground_threshold``, ``seed_threshold``, ``seed_prominence``,
        ``min_size``, ``fill_holes``, ``link_slices``.

    Returns
    -------
    numpy.ndarray
        Labels, unsigned integer of the smallest sufficient type, on the image's grid, with the image's
        axes less the channel axis. 0 is background.

    Raises
    ------
    OptionsError
        If an option breaks its rule or does not suit the image or model.
    ImageError
        If the image cannot be segmented by the model.
    FileError
        If the path cannot be read.
    ModelError
        If the model cannot be loaded.
    MemoryBudgetError
        If not even a small tile fits the memory.

    Warns
    -----
    UserWarning
        For every caution: non-finite voxels, constant frames, inexact seams.

    Examples
    --------
    >>> import numpy as np
    >>> from napari_tiled_unet import segment
    >>> labels = segment(np.zeros((64, 64), np.uint8))  # doctest: +SKIP
    """
    finished: Finished | None = None
    for event in iter_segment(image, model, options=options, **keywords):
        if isinstance(event, Notice):
            if event.caution:
                warnings.warn(event.message, UserWarning, stacklevel=2)
            else:
                logger.info(event.message)
        elif isinstance(event, Finished):
            finished = event
    assert finished is not None
    return finished.labels


@with_option_keywords
def iter_segment(
    image: Image | npt.ArrayLike | str | Path,
    model: str | Path | Model | None = None,
    *,
    options: SegmentOptions | None = None,
    keep_maps: bool = False,
    **keywords: Any,
) -> Generator[Event, None, None]:
    """Segment an image, event by event; closing the generator cancels and frees everything.

    Parameters
    ----------
    image, model, options, **keywords
        As for :func:`segment`.
    keep_maps : bool
        Whether the events carry the maps (float32, ``k`` times the voxels of the image).

    Yields
    ------
    Event
        ``Notice`` at any time, ``Planned`` once, ``TileDone`` per tile, ``FrameDone``
        per frame, ``Finished`` at the end.

    Raises
    ------
    OptionsError, ImageError, FileError, ModelError, MemoryBudgetError
        As for :func:`segment`; those about options and image come before the first event.
    """
    # A plain function first, so that bad input raises at the call and not at the first event.
    started = time.perf_counter()
    options = _options(options, model, keywords)
    loaded = model if isinstance(model, Model) else load_model(options.model)
    source, notices = _prepare_image(image, loaded, options)
    return _run(source, loaded, options, notices, keep_maps, started)


def _options(options: SegmentOptions | None, model: Any, keywords: dict[str, Any]) -> SegmentOptions:
    if isinstance(model, Model):
        keywords = {**keywords, "model": model.spec.name}
    elif model is not None:
        keywords = {**keywords, "model": str(model)}
    return (options or SegmentOptions()).changed(**keywords)


def _prepare_image(image: Any, model: Model, options: SegmentOptions) -> tuple[Image, list[Notice]]:
    """Return the image with axes and channels that suit the model, and what was decided."""
    if isinstance(image, str | Path):
        source = read_image(image, axes=options.axes)
    elif isinstance(image, Image):
        source = image
    else:
        source = image_from_array(image, axes=options.axes)
    notices = [Notice(note) for note in source.notes]
    if options.spacing is not None:
        source = source.with_spacing(options.spacing, model.spec.units)
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
    wanted = len(model.spec.channels)
    if source.is_rgb and wanted == 1 and options.channel is None:
        notices.append(Notice(f"{source.name}: RGB converted to grey (ITU-R 601 luminance) for a one-channel model"))
        source = luminance(source)
    _channels(source, model, options)
    return source, notices


def _channels(source: Image, model: Model, options: SegmentOptions) -> tuple[int, ...] | None:
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


def _scale(source: Image, model: Model, options: SegmentOptions) -> tuple[tuple[float, ...], Notice | None]:
    """Return network voxels per image voxel, per axis of the model, and a notice if something is ignored."""
    spec = model.spec
    same = (1.0,) * len(spec.axes)
    if options.object_size is not None:
        if spec.object_size is None:
            raise OptionsError(f"object_size needs a model that states its own, {spec.name!r} does not; leave it out")
        return (spec.object_size / options.object_size,) * len(spec.axes), None
    spacing = source.spacing_of(spec.axes)
    if spec.spacing is None or spacing is None:
        if options.spacing is not None and spec.spacing is None:
            return same, Notice(
                f"model {spec.name!r} was trained on images of unknown voxel size: spacing is written to the result, "
                "nothing is rescaled; object_size rescales"
            )
        return same, None
    return tuple(s / m for s, m in zip(spacing, spec.spacing, strict=True)), None


@dataclass(frozen=True)
class _Grid:
    """The network's grid of a frame: its shape, and whether it differs from the image's."""

    image: tuple[int, ...]
    network: tuple[int, ...]

    @classmethod
    def of(cls, shape: tuple[int, ...], scale: tuple[float, ...]) -> _Grid:
        if all(abs(s - 1) <= _SAME_SCALE for s in scale):
            return cls(shape, shape)
        return cls(shape, tuple(max(1, round(n * s)) for n, s in zip(shape, scale, strict=True)))

    @property
    def differs(self) -> bool:
        return self.image != self.network

    def to_network(self, frame: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return _resized(frame, self.network) if self.differs else frame

    def to_image(self, maps: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        return _resized(maps, self.image) if self.differs else maps


def _resized(channels: npt.NDArray[Any], shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    """Resize ``(c, ...)`` channel by channel: linear, low-passed where it shrinks."""
    from skimage.transform import resize

    shrinks = any(new < old for new, old in zip(shape, channels.shape[1:], strict=True))
    out = np.empty((len(channels), *shape), np.float32)
    for target, channel in zip(out, channels, strict=True):
        target[...] = resize(
            channel.astype(np.float32), shape, order=1, mode="reflect", anti_aliasing=shrinks, preserve_range=True
        )
    return out


def _run(
    source: Image, model: Model, options: SegmentOptions, notices: list[Notice], keep_maps: bool, started: float
) -> Generator[Event, None, None]:
    """Yield the events of a run whose input was checked."""
    yield from notices
    spec = model.spec
    channels = _channels(source, model, options)
    scale, ignored = _scale(source, model, options)
    if ignored:
        yield ignored
    frames = list(source.frames(spec.axes))
    spatial = source.frame_shape(spec.axes)
    grid = _Grid.of(spatial, scale)
    if grid.differs:
        yield Notice(f"frames of {grid.image} are rescaled to {grid.network} voxels for the model")

    device = choose_device(options.device)
    dtype = choose_precision(options.precision, device)
    budget = memory_budget(options.memory, device)
    plan, caution = choose_tiles(
        grid.network,
        options.tile,
        options.overlap,
        model.network,
        voxel_bytes=bytes_per_voxel(model.network, dtype),
        budget=budget,
        trained_overlap=spec.overlap,
    )
    if caution:
        yield Notice(caution, caution=True)
    precision = str(dtype).removeprefix("torch.")
    shape, axes = source.label_shape(spec.axes), source.label_axes(spec.axes)
    _check_results_fit(shape, len(spec.target.channels) if keep_maps else 0)
    yield Planned(len(frames), len(frames) * len(plan), shape, axes, plan, str(device), precision)

    runner = Runner(model.network, spec.target.activate, device, dtype)
    labels = np.zeros(shape, np.uint32)
    maps = np.zeros((len(spec.target.channels), *shape), np.float32) if keep_maps else None
    numbered = 0
    for frame in frames:
        frame_labels, frame_maps = yield from _run_frame(frame, model, options, runner, plan, grid, channels)
        count = int(frame_labels.max(initial=0))
        if spec.target.kind == "objects":
            # One number is one object in the whole image, also over frames.
            frame_labels = np.where(frame_labels > 0, frame_labels.astype(np.uint32) + np.uint32(numbered), 0)
            numbered += count
        labels[frame.position] = frame_labels
        if maps is not None:
            maps.reshape(len(maps), len(frames), *spatial)[:, frame.index] = frame_maps
        yield FrameDone(frame.index, frame.position, labels[frame.position], count, frame_maps if keep_maps else None)
    if options.link_slices:
        _link(labels, axes)
    labels = labels.astype(smallest_label_dtype(int(labels.max(initial=0))), copy=False)
    seconds = time.perf_counter() - started
    yield Finished(
        labels,
        axes,
        _count(labels),
        seconds,
        _provenance(source, model, options, plan, device=str(device), precision=precision, seconds=seconds),
        maps,
    )


def _run_frame(
    frame: Frame,
    model: Model,
    options: SegmentOptions,
    runner: Runner,
    plan: TilePlan,
    grid: _Grid,
    channels: tuple[int, ...] | None,
) -> Generator[Event, None, tuple[npt.NDArray[Any], npt.NDArray[np.float32]]]:
    spec = model.spec
    data = frame.read(channels)
    normalisation = spec.normalisation
    if options.normalisation is not None:
        normalisation = Normalisation(options.normalisation)
    statistics, cautions = measure(data, normalisation)
    where = f" (frame {frame.position})" if frame.position else ""
    for message in cautions:
        yield Notice(message + where, caution=True)
    maps = yield from iter_predict(
        grid.to_network(data),
        statistics,
        runner,
        plan,
        n_maps=len(spec.target.channels),
        blend=options.blend,
        index=frame.index,
    )
    maps = grid.to_image(maps)
    return spec.target.decode(maps, options), maps


def _check_results_fit(shape: tuple[int, ...], n_maps: int) -> None:
    from napari_tiled_unet.runtime import GIB, free_memory

    needed, free = math.prod(shape) * (4 + 4 * n_maps), free_memory()
    if needed > free:
        raise MemoryBudgetError(
            f"the result of shape {shape} needs {needed / GIB:.1f} GiB, {free / GIB:.1f} GiB are free; "
            "segment part of the image at a time, or do not keep the maps"
        )


def _link(labels: npt.NDArray[np.uint32], axes: str) -> None:
    """Join the objects of neighbouring z slices, in place, volume by volume."""
    stack = np.moveaxis(labels, [axes.index(a) for a in "zyx"], [-3, -2, -1])
    numbered = 0
    for volume in np.ndindex(stack.shape[:-3]):
        linked = labelling.link_slices(stack[volume])
        stack[volume] = np.where(linked > 0, linked + numbered, 0)
        numbered += int(linked.max(initial=0))


def _count(labels: npt.NDArray[Any]) -> int:
    import fastremap

    values = fastremap.unique(labels)
    return int(np.count_nonzero(values))


def _provenance(
    source: Image, model: Model, options: SegmentOptions, plan: TilePlan, **measured: Any
) -> dict[str, Any]:
    from napari_tiled_unet import __version__

    return {
        "software": "napari-tiled-unet",
        "version": __version__,
        "image": source.name,
        "image_shape": list(source.shape),
        "image_axes": source.axes,
        "model": model.spec.name,
        "model_package_version": model.spec.package_version,
        "options": options.model_dump(exclude_defaults=True),
        "tile": list(plan.tile),
        "overlap": list(plan.overlap),
        "tiles_per_frame": len(plan),
        **measured,
    }
