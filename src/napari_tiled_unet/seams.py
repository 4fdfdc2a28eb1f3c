"""How much tiles differ from the whole frame at their seams: measured for a model, certified for a run.

A seam is where two tiles meet. What a tile lacks there is the context beyond its overlap; with an
overlap of the receptive field it lacks nothing. How much less is enough is a property of the
trained network, and is measured::

    whole frame    ..............................
    tiled          ..........|.........|.........     the same windows of both are compared:
    windows               [  |  ]   [  |  ]           maps, voxels and objects that change
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_tiled_unet.errors import OptionsError
from napari_tiled_unet.matching import Grid, match_channels, match_image, match_scale
from napari_tiled_unet.metrics import overlapping_pairs
from napari_tiled_unet.model import Model, SeamPoint
from napari_tiled_unet.model_files import find_model, load_model, save_model, stored_half
from napari_tiled_unet.normalise import measure
from napari_tiled_unet.options import SegmentOptions
from napari_tiled_unet.predict import iter_predict
from napari_tiled_unet.tiling import Tile, TilePlan, plan_tiles, read_tile

if TYPE_CHECKING:
    from napari_tiled_unet.model import ModelSpec
    from napari_tiled_unet.normalise import Statistics
    from napari_tiled_unet.runtime import Runner

# Parts of the receptive field at which the curve is measured.
PARTS = (0.0, 0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 1.0)
# Below this largest difference of a map, and if no voxel changes, more overlap is not looked at.
_NOTHING = 1e-3
# An object stays the same if one of the other labels overlaps it by more than this.
_SAME_OBJECT = 0.8
# The windows of a certificate reach this far to each side of the seam, in strides.
_WINDOW_STRIDES = 2
# A certificate takes at most this part of the work of the frame, and so many windows by itself.
_CERTIFICATE_WORK, _CERTIFICATE_WINDOWS = 0.03, 4


@dataclass(frozen=True)
class SeamError:
    """What a few windows across seams say about a run.

    Attributes
    ----------
    max, mean : float
        Absolute difference of the maps to those computed without tiles.
    windows, voxels : int
        How many windows were compared, and their voxels.
    """

    max: float
    mean: float
    windows: int
    voxels: int

    def to_dict(self) -> dict[str, float]:
        """Return the fields as a dict that JSON can hold."""
        return asdict(self)


def certify(
    frame: npt.NDArray[Any],
    statistics: Statistics,
    runner: Runner,
    plan: TilePlan,
    maps: npt.NDArray[Any],
    *,
    reach: tuple[int, ...],
    windows: int | None = None,
    seed: int = 0,
) -> SeamError | None:
    """Recompute a few windows across seams without tiles and compare.

    Parameters
    ----------
    frame, statistics, runner, plan
        As they were for :func:`napari_tiled_unet.predict.iter_predict`.
    maps : numpy.ndarray
        ``(k, [z,] y, x)``, what it gave; the first ones, if only these are to be compared.
    reach : tuple of int
        The network's receptive field: how much context a window needs.
    windows : int, optional
        How many; by default 4, or as many of them as 3 % of the work of the frame allow.
    seed : int
        Of the choice of the windows.

    Returns
    -------
    SeamError or None
        None if there is no seam, or no window is cheap enough.
    """
    seams = [
        (axis, cut)
        for axis, starts in enumerate(plan.starts)
        if len(starts) > 1
        for cut in sorted({tile.write[axis].start for tile in plan} - {0})
    ]
    most = 2 * _WINDOW_STRIDES
    reads = [min(p, (most + 2) * s + 2 * r) for p, s, r in zip(plan.padded, plan.stride, reach, strict=True)]
    if windows is None:
        affordable = _CERTIFICATE_WORK * plan.voxels_computed / math.prod(reads)
        windows = min(_CERTIFICATE_WINDOWS, int(affordable))
    if not seams or windows < 1:
        return None
    rng = np.random.default_rng(seed)
    largest = total = 0.0
    voxels = 0
    for _ in range(windows):
        axis, cut = seams[rng.integers(len(seams))]
        tile = _window(plan, axis, cut, reach, rng)
        x = statistics.apply(read_tile(frame, tile, plan))
        untiled = runner.run(x[None])[0][(slice(len(maps)), *tile.crop)]
        difference = np.abs(untiled - maps[(slice(None), *tile.write)].astype(np.float32))
        largest = max(largest, float(difference.max()))
        total += float(difference.sum())
        voxels += difference.size
    return SeamError(largest, total / voxels, windows, voxels // len(maps))


def _window(plan: TilePlan, axis: int, cut: int, reach: tuple[int, ...], rng: np.random.Generator) -> Tile:
    """Return a tile that writes a window across a seam and reads all that this depends on."""
    read, crop, write = [], [], []
    for a, (side, padded, stride, far) in enumerate(zip(plan.shape, plan.padded, plan.stride, reach, strict=True)):
        half = _WINDOW_STRIDES * stride
        middle = cut if a == axis else int(rng.integers(side))
        start = max(0, min(middle - half, side - 2 * half))
        stop = min(side, start + 2 * half)
        first = max(0, (start - far) // stride * stride)
        last = min(padded, math.ceil((stop + far) / stride) * stride)
        read.append(slice(first, last))
        write.append(slice(start, stop))
        crop.append(slice(start - first, stop - first))
    return Tile(0, tuple(read), tuple(crop), tuple(write))


def measure_seams(
    model: Model,
    frames: Iterable[npt.NDArray[Any]],
    *,
    parts: Sequence[float] = PARTS,
    options: SegmentOptions | None = None,
) -> tuple[SeamPoint, ...]:
    """Measure the seam error of a model against the overlap, on some images, in float32 on the CPU.

    Each frame is computed whole, and once per overlap in tiles that keep four strides (or the
    overlap, where that is more), so that seams are dense. Overlaps are tried from the smallest on,
    until nothing changes any more. ``spec.model_copy(update={"seams": ...})`` stores the result.

    Parameters
    ----------
    model : Model
        With batch norm or none; other norms are never exact.
    frames : iterable of numpy.ndarray
        ``(c, [z,] y, x)`` raw intensities like those that the model is for, larger than two receptive
        fields; each must fit the memory whole.
    parts : sequence of float
        Overlaps, as parts of the receptive field.
    options : SegmentOptions, optional
        How maps become labels.

    Returns
    -------
    tuple of SeamPoint
        One per overlap, ascending; the worst over the frames, fractions over all of them.

    Raises
    ------
    OptionsError
        If there is no frame, or none has a seam.
    """
    import torch

    from napari_tiled_unet.runtime import Runner

    options = options or SegmentOptions()
    network, target = model.network, model.spec.target
    runner = Runner(network, target.activate, torch.device("cpu"), torch.float32)
    overlaps = sorted({tuple(math.ceil(r * part) for r in network.receptive_field) for part in parts})
    stride, n_maps = network.stride, len(target.channels)
    tallies = [_Tally(overlap) for overlap in overlaps]

    def maps_of(frame: npt.NDArray[Any], statistics: Statistics, plan: TilePlan) -> npt.NDArray[Any]:
        return _drained(iter_predict(frame, statistics, runner, plan, n_maps=n_maps))

    for frame in frames:
        statistics, _ = measure(frame, model.spec.normalisation)
        shape = frame.shape[1:]
        whole = maps_of(frame, statistics, plan_tiles(shape, shape, (0,) * len(shape), stride))
        labels = target.decode(whole, options)
        alike = False
        for tally in tallies:
            plan = plan_tiles(shape, _dense(tally.overlap, stride), tally.overlap, stride)
            if len(plan) > 1:
                # Where one overlap changes nothing larger ones need not be run, but the frame counts there too.
                tiled = whole if alike else maps_of(frame, statistics, plan)
                found = labels if alike else target.decode(tiled, options)
                alike = tally.add(whole, tiled, labels, found, target.kind == "objects")
    points = tuple(tally.point() for tally in tallies if tally.voxels)
    if not points:
        raise OptionsError(
            f"no frame has a seam to measure; give frames of more than {tuple(4 * s for s in stride)} voxels"
        )
    return points


def measure_files(name: str | Path, paths: Sequence[Path], *, axes: str | None = None, save: bool = False) -> ModelSpec:
    """Measure the seam error of a model on image files; return its spec with the curve.

    Parameters
    ----------
    name : str or Path
        Model to measure.
    paths : sequence of Path
        Image files, or folders of them; every frame is measured.
    axes : str, optional
        Of the images, where their metadata do not say.
    save : bool
        Whether the curve is written into the model file.

    Raises
    ------
    OptionsError, ImageError, FileError, ModelError
        If there is no image, one does not suit, or the model cannot be read or written.
    """
    from napari_tiled_unet.io import image_files

    images = image_files(paths)
    if not images:
        raise OptionsError(f"no image files in {', '.join(map(str, paths))}; give image files like the model is for")
    path = find_model(name)
    model = load_model(path)
    options = SegmentOptions(axes=axes)

    def frames() -> Generator[npt.NDArray[Any], None, None]:
        for image in images:
            source, _ = match_image(image, model, options)
            grid = Grid.of(source.frame_shape(model.spec.axes), match_scale(source, model, options)[0])
            for frame in source.frames(model.spec.axes):
                data = frame.read(match_channels(source, model, options))
                yield grid.to_network(data.astype(np.float32)) if grid.differs else data

    spec = model.spec.model_copy(update={"overlap": None, "seams": measure_seams(model, frames())})
    if save:
        save_model(Model(spec, model.network), path, overwrite=True, half=stored_half(path))
    return spec


def _dense(overlap: tuple[int, ...], stride: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape of tiles that keep little beside their overlap."""
    return tuple(2 * math.ceil(o / s) * s + max(4 * s, o // s * s) for o, s in zip(overlap, stride, strict=True))


class _Tally:
    """What changed at one overlap."""

    def __init__(self, overlap: tuple[int, ...]) -> None:
        self.overlap = overlap
        self.voxels = self.changed_voxels = self.objects = self.changed_objects = 0
        self.max_map = 0.0

    def add(self, whole: Any, tiled: Any, labels: Any, found: Any, are_objects: bool) -> bool:
        """Compare a frame; return whether nothing changed."""
        difference = float(np.abs(whole - tiled).max())
        self.max_map = max(self.max_map, difference)
        self.voxels += labels.size
        if not are_objects:
            changed = int(np.count_nonzero(labels != found))
            self.changed_voxels += changed
            return difference < _NOTHING and not changed
        pairs = overlapping_pairs(labels, found)
        same = np.zeros(pairs.n_first + 1, np.int64)
        alike = pairs.iou > _SAME_OBJECT
        same[pairs.first[alike] + 1] = pairs.second[alike] + 1
        self.objects += pairs.n_first
        # Objects of one that have no like in the other, on either side.
        self.changed_objects += int(pairs.n_first + pairs.n_second - 2 * np.count_nonzero(alike))
        changed = int(np.count_nonzero(same[labels] != found))
        self.changed_voxels += changed
        return difference < _NOTHING and not changed

    def point(self) -> SeamPoint:
        """Return the point of the curve."""
        return SeamPoint(
            overlap=self.overlap,
            max_map=self.max_map,
            voxels=self.changed_voxels / self.voxels,
            objects=self.changed_objects / max(self.objects, 1),
        )


def _drained(events: Generator[Any, None, npt.NDArray[Any]]) -> npt.NDArray[Any]:
    while True:
        try:
            next(events)
        except StopIteration as end:
            maps: npt.NDArray[Any] = end.value
            return maps
