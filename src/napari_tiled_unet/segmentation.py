"""An image to labels: frames, normalisation, tiles, decoding, and back to the image's grid."""

from __future__ import annotations

import logging
import math
import time
import warnings
from collections.abc import Callable, Generator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_tiled_unet import labelling
from napari_tiled_unet.errors import MemoryBudgetError
from napari_tiled_unet.events import Event, Finished, FrameDone, Notice, Planned
from napari_tiled_unet.frame_plan import first_choice
from napari_tiled_unet.framewise import Framewise, Wishes
from napari_tiled_unet.half_precision import to_half
from napari_tiled_unet.io import smallest_label_dtype
from napari_tiled_unet.matching import Grid, match_channels, match_image, match_scale
from napari_tiled_unet.memory import GIB, free_memory, memory_budget
from napari_tiled_unet.model import Model, ModelSpec
from napari_tiled_unet.model_files import recent_model
from napari_tiled_unet.options import SegmentOptions, with_option_keywords
from napari_tiled_unet.provenance import called, provenance
from napari_tiled_unet.region import Region
from napari_tiled_unet.runtime import Runner, choose_hardware
from napari_tiled_unet.strips import StripPlan

if TYPE_CHECKING:
    from napari_tiled_unet.focus import Focus
    from napari_tiled_unet.image import Frame, Image

logger = logging.getLogger(__name__)


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
        Any field of :class:`SegmentOptions`; the signature lists them.

    Returns
    -------
    numpy.ndarray
        Labels, unsigned integer of the smallest sufficient type, on the image's grid, with the image's
        axes less the channel axis. 0 is background. Under ``region`` they are those of that part.

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
        if isinstance(event, Notice) and event.caution:
            warnings.warn(event.message, UserWarning, stacklevel=2)
        elif isinstance(event, Notice):
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
    keep_maps: bool | Callable[[tuple[int, ...]], npt.NDArray[np.float32] | None] = False,
    live: bool = False,
    focus: Focus | None = None,
    **keywords: Any,
) -> Generator[Event, None, None]:
    """Segment an image, event by event; closing the generator cancels and frees everything.

    Parameters
    ----------
    image, model, options, **keywords
        As for :func:`segment`.
    keep_maps : bool or callable
        Whether the events carry the maps (float32, ``k`` times the voxels of the image). A callable
        is given their shape and makes the array that takes them, for example a ``numpy.memmap``;
        or returns None, and they are not kept. With ``flips`` the array has one more map, which
        becomes ``Finished.spread``.
    live : bool
        Whether ``TileDone`` carries what the tile adds to the maps.
    focus : Focus, optional
        What is computed first; may be moved during the run. The labels do not depend on it.

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
    named = {} if model is None or isinstance(model, Model) else {"model": str(model)}
    options = (options or SegmentOptions()).changed(**keywords, **named)
    loaded = model if isinstance(model, Model) else recent_model(options.model)
    # By the name or path that finds it again, from wherever.
    options = options.changed(model=called(loaded))
    source, notices = match_image(image, loaded, options)
    if options.region:
        source.part(Region.parse(options.region))
    return _run(source, loaded, options, notices, Wishes(keep_maps, live, focus), started)


def _run(
    source: Image, model: Model, options: SegmentOptions, notices: list[Notice], wishes: Wishes, started: float
) -> Generator[Event, None, None]:
    """Yield the events of a run whose input was checked."""
    yield from notices
    spec = model.spec
    region = Region.parse(options.region) if options.region else Region()
    whole, source = source, source.part(region)
    channels = match_channels(source, model, options)
    scale, ignored = match_scale(source, model, options)
    if ignored:
        yield ignored
    frames = list(source.frames(spec.axes))
    spatial = source.frame_shape(spec.axes)
    grid = Grid.of(spatial, scale)
    if grid.differs:
        yield Notice(f"frames of {grid.image} are rescaled to {grid.network} voxels for the model")

    device, dtype = choose_hardware(options)
    budget = memory_budget(options.memory, device)
    if grid.differs:
        _check_rescaled_fits(grid, source, len(spec.channels), len(spec.target.channels), budget)
    choice = first_choice(grid.network, model, options, dtype, budget, device.type, live=wishes.live)
    if choice.caution:
        yield Notice(choice.caution, caution=True)
    if options.seam_windows and not model.network.exact_tiling and len(choice.plan) > 1:
        yield Notice(
            f"seam_windows={options.seam_windows} is left out: {spec.name!r} looks at the whole of what it is "
            "given, so that a window without tiles is no truth to compare with"
        )
    shape = source.label_shape(spec.axes)
    spread_of = _spread_of(spec) if options.flips and wishes.keep_maps else 0
    _check_results_fit(shape, len(spec.target.channels) + (spread_of > 0) if wishes.keep_maps is True else 0)
    planned = Planned(
        len(frames),
        len(frames) * len(choice.plan),
        shape,
        source.label_axes(spec.axes),
        choice.plan,
        str(device),
        str(dtype).removeprefix("torch."),
        tuple(choice.explain()),
        choice.costs.views,
    )
    yield planned

    # Only torch computes strips, whatever is installed.
    asked = options.changed(backend="torch") if isinstance(choice.plan, StripPlan) else options
    runner = Runner.of(model.network, spec.target.activate, asked, device, dtype, spread_of=spread_of)
    cut = source.frame_shape(spec.axes) != whole.frame_shape(spec.axes)

    def measured(frame: Frame) -> Frame:
        # On the whole frame, so that a part looks to the network as it does in the whole.
        return frame.around(whole, region) if cut else frame

    framewise = Framewise(model, options, wishes, runner, grid, channels, planned, choice, measured)
    labels, maps, n_objects = yield from _all_frames(frames, framewise, shape)
    finished = _finished(source, framewise, region, (labels, maps, n_objects), started)
    yield replace(finished, origin=whole.origin, time_step=whole.time_step)


def _finished(source: Image, framewise: Framewise, region: Region, results: _Results, started: float) -> Finished:
    """Return what a run ends with."""
    labels, maps, n_objects = results
    axes, n_maps, runner = framewise.planned.axes, framewise.n_maps, framewise.runner
    if framewise.options.link_slices:
        _link(labels, axes)
        n_objects = None
    labels = labels.astype(smallest_label_dtype(int(labels.max(initial=0))), copy=False)
    spacing = source.spacing_along("".join(a for a in axes if a in "zyx"))
    seconds = time.perf_counter() - started
    # Where every tile was empty and no seam was looked at, no network ran.
    idle = framewise.tiles_empty == framewise.tiles_done and framewise.seam_error is None
    what = (None, None) if idle else (runner.backend, runner.precision)
    ran = {"device": framewise.planned.device, "backend": what[0], "precision": what[1]}
    return Finished(
        labels,
        axes,
        _count(labels) if n_objects is None else n_objects,
        seconds,
        provenance(source, framewise, **ran, seconds=seconds),
        None if maps is None else maps[:n_maps],
        spacing,
        "pixel" if spacing is None else "micrometer",
        region.offset(axes),
        maps[n_maps] if maps is not None and runner.gives_spread else None,
    )


# Labels, maps that are kept, and how many objects, if they are objects.
_Results = tuple[npt.NDArray[Any], npt.NDArray[np.float32] | None, int | None]


def _spread_of(spec: ModelSpec) -> int:
    """Return how many of the first maps say how sure a network is: the foreground, or all classes."""
    return 1 if spec.target.kind == "objects" else len(spec.target.channels)


def _all_frames(frames: list[Frame], framewise: Framewise, shape: tuple[int, ...]) -> Generator[Event, None, _Results]:
    """Yield the events of every frame; return labels and maps of the image, the spread last, and how many objects."""
    spec, wishes = framewise.model.spec, framewise.wishes
    are_objects = spec.target.kind == "objects"
    labels = np.zeros(shape if len(frames) > 1 else (), np.uint32)
    maps = _room_for_maps((framewise.n_results, *shape), wishes)
    counts, starts = [0] * len(frames), [0] * len(frames)
    waiting = list(frames)
    while waiting:
        frame = waiting.pop(_next_frame(waiting, wishes.focus))
        frame_labels, frame_maps = yield from framewise.iter_frame(frame, len(waiting) + 1)
        count = int(frame_labels.max(initial=0))
        if are_objects:
            # One number is one object in the whole image, also over frames.
            starts[frame.index], counts[frame.index] = sum(counts), count
            _shift(frame_labels, starts[frame.index])
        if len(frames) > 1:
            labels[frame.position] = frame_labels
        else:
            labels = frame_labels.astype(np.uint32, copy=False).reshape(shape)
        kept = None
        if maps is not None:
            kept = frame_maps.astype(np.float32, copy=False)
            for of_all, of_frame in zip(maps, kept, strict=True):
                of_all[frame.position] = of_frame
            kept = kept[: framewise.n_maps]
        del frame_labels, frame_maps
        yield FrameDone(frame.index, frame.position, labels[frame.position], count, kept)
    _number_in_order(labels, frames, starts, counts)
    return labels, maps, sum(counts) if are_objects else None


def _room_for_maps(shape: tuple[int, ...], wishes: Wishes) -> npt.NDArray[np.float32] | None:
    if callable(wishes.keep_maps):
        return wishes.keep_maps(shape)
    return np.zeros(shape, np.float32) if wishes.keep_maps else None


def _next_frame(waiting: list[Frame], focus: Focus | None) -> int:
    """Return the place of the frame that comes next."""
    return 0 if focus is None else focus.nearest_frame([f.position for f in waiting], len(waiting[0].spatial))


def _shift(labels: npt.NDArray[np.uint32], by: int) -> None:
    """Add a number to the labels above 0, in place."""
    if by:
        np.add(labels, np.uint32(by), out=labels, where=labels > 0)


def _number_in_order(labels: npt.NDArray[np.uint32], frames: list[Frame], starts: list[int], counts: list[int]) -> None:
    """Make numbers follow the order of the frames, in place, whatever order they were computed in."""
    before = 0
    for frame, start, count in zip(frames, starts, counts, strict=True):
        if start != before and count:
            # Modulo 2**32, so that a number may also fall.
            _shift(labels[frame.position], (before - start) % 2**32)
        before += count


def decode_maps(maps: npt.NDArray[np.float32], axes: str, model: Model, options: SegmentOptions) -> npt.NDArray[Any]:
    """Return the labels that a run with these options makes of its maps.

    Parameters
    ----------
    maps : numpy.ndarray
        ``(k, ...)`` float32 maps of a whole run, as in ``Finished``.
    axes : str
        Axes of the labels.
    model : Model
        Whose maps they are.
    options : SegmentOptions
        How they become labels; nothing else of it is used.

    Returns
    -------
    numpy.ndarray
        As from :func:`segment`.
    """
    labels = np.zeros(maps.shape[1:], np.uint32)
    numbered = 0
    for position in np.ndindex(labels.shape[: -len(model.spec.axes)]):
        # In half precision, as a run decodes them.
        found = model.spec.target.decode(to_half(maps[(slice(None), *position)]), options)
        labels[position] = found
        if model.spec.target.kind == "objects":
            _shift(labels[position], numbered)
            numbered += int(found.max(initial=0))
    if options.link_slices:
        _link(labels, axes)
    return labels.astype(smallest_label_dtype(int(labels.max(initial=0))), copy=False)


def _check_results_fit(shape: tuple[int, ...], n_maps: int) -> None:
    needed, free = math.prod(shape) * (4 + 4 * n_maps), free_memory()
    if needed > free:
        raise MemoryBudgetError(
            f"the result of shape {shape} needs {needed / GIB:.1f} GiB, {free / GIB:.1f} GiB are free; "
            "segment part of the image at a time, or do not keep the maps"
        )


def _check_rescaled_fits(grid: Grid, source: Image, n_channels: int, n_maps: int, budget: int) -> None:
    """Refuse a rescaled frame that is larger than the image's and does not fit beside its maps."""
    # The frame in single, the maps in half precision.
    needed = math.prod(grid.network) * (4 * n_channels + 2 * n_maps)
    if math.prod(grid.network) > math.prod(grid.image) and needed > budget:
        raise MemoryBudgetError(
            f"rescaled to the model, frames of {grid.image} voxels become {grid.network} and need {needed / GIB:.1f} "
            f"GiB, {budget / GIB:.1f} GiB may be used; is the voxel size of {source.name!r} right ({source.spacing}), "
            "and the object size, in voxels? Give spacing or object_size, spacing='none', or a part of the image"
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
