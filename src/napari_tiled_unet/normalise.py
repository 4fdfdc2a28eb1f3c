"""Intensity normalisation: measure a frame once, apply to each of its tiles.

A network expects intensities on the scale that it was trained on. The scale is measured
per channel on the whole frame, never on a tile, so that labels don't depend on how the
frame is cut; a normalised value is ``(x - offset) * scale``.

============ ======================= ==================== ===========================
method       offset (becomes 0)      1 / scale            for
============ ======================= ==================== ===========================
percentile   low percentile          high - low           microscopy: deaf to hot
                                                          pixels and dark corners
minmax       minimum                 maximum - minimum    clean or synthetic images
zscore       mean                    standard deviation   networks trained that way
none         0                       1                    calibrated intensities
============ ======================= ==================== ===========================

Values are not clipped: a voxel above the high percentile stays above 1. Voxels that are
not finite take no part in the measurement and become 0, the low end of the scale (the
mean for z-score).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, get_args

import numpy as np
import numpy.typing as npt

from napari_tiled_unet.errors import ImageError, OptionsError
from napari_tiled_unet.options import NormalisationMethod

# Temporary arrays of a pass over a whole frame have at most this many voxels.
_BLOCK_VOXELS = 2**18
# Normalised values beyond this changed labels up to a receptive field away (65 did, by .3 % of the voxels of a field).
_FAR = 50
_FLOAT32 = np.finfo(np.float32)


@dataclass(frozen=True)
class Normalisation:
    """How frames are normalised; part of a model's spec.

    Attributes
    ----------
    method : {"percentile", "minmax", "zscore", "none"}
        What is measured; the module's table tells them apart.
    low, high : float
        Percentiles, 0 to 100, that become 0 and 1 under ``percentile``; otherwise without
        meaning. The defaults are those of the StarDist examples: a few dead and a few
        saturated voxels have no say.

    Raises
    ------
    OptionsError
        If the method is unknown, or not ``0 <= low < high <= 100``.
    """

    method: NormalisationMethod = "percentile"
    low: float = 1.0
    high: float = 99.8

    def __post_init__(self) -> None:
        methods = get_args(NormalisationMethod)
        if self.method not in methods:
            raise OptionsError(f"normalisation {self.method!r} is unknown; it must be one of {', '.join(methods)}")
        if not 0 <= self.low < self.high <= 100:
            raise OptionsError(
                f"percentiles low={self.low}, high={self.high} must satisfy 0 <= low < high <= 100; take 1 and 99.8"
            )

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as a dict that JSON can hold."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Normalisation:
        """Build from what :meth:`to_dict` gave; fields left out take their defaults.

        Raises
        ------
        OptionsError
            If a field is unknown or a value breaks its rule.
        """
        unknown = sorted(set(values) - set(cls.__dataclass_fields__))
        if unknown:
            raise OptionsError(
                f"normalisation has no field {', '.join(map(repr, unknown))}; "
                f"the fields are {', '.join(cls.__dataclass_fields__)}"
            )
        return cls(**values)


@dataclass(frozen=True)
class Statistics:
    """What was measured on a frame, one number per channel.

    Attributes
    ----------
    offset : tuple of float
        Intensity that becomes 0.
    scale : tuple of float
        Normalised units per unit of intensity; 0 for a constant channel.
    """

    offset: tuple[float, ...]
    scale: tuple[float, ...]

    def apply(self, tile: npt.NDArray[Any], out: npt.NDArray[np.float32] | None = None) -> npt.NDArray[np.float32]:
        """Normalise a tile of the frame, or all of it.

        Parameters
        ----------
        tile : numpy.ndarray, ``(c, ...)``
            Raw intensities: bool, integer or float of any width.
        out : numpy.ndarray, optional
            float32 of the same shape, where the result goes.

        Returns
        -------
        numpy.ndarray
            ``(tile - offset) * scale``, a new C-contiguous float32 array of the same shape
            (or ``out``), always finite: what is NaN or infinite, or beyond float32, becomes 0.

        Raises
        ------
        ImageError
            If the number of channels is not the one that was measured.
        """
        if tile.ndim < 1 or tile.shape[0] != len(self.offset):
            raise ImageError(
                f"a tile of shape {tile.shape} does not have the {len(self.offset)} channels that were measured; "
                "give channels first, as in the frame"
            )
        per_channel = (-1,) + (1,) * (tile.ndim - 1)
        offset = np.asarray(self.offset, np.float64).reshape(per_channel)
        scale = np.asarray(self.scale, np.float32).reshape(per_channel)
        normalised = np.empty(tile.shape, np.float32) if out is None else out
        with np.errstate(over="ignore", invalid="ignore"):
            # float64 only inside NumPy's small buffers: a large offset must not eat the digits.
            np.subtract(tile, offset, out=normalised, dtype=np.float64, casting="same_kind")
            normalised *= scale
            # A sum shows a NaN or an infinity without an array of flags.
            if not np.isfinite(normalised.sum()):
                normalised[~np.isfinite(normalised)] = 0
        return normalised


def measure(
    frame: npt.NDArray[Any], normalisation: Normalisation | None = None, *, max_voxels: int = 2**22
) -> tuple[Statistics, list[str]]:
    """Measure the intensity scale of a frame, channel by channel.

    Parameters
    ----------
    frame : numpy.ndarray, ``(c, [z,] y, x)``
        Raw intensities, bool, integer or float of any width; any number of spatial axes.
    normalisation : Normalisation, optional
        What to measure; percentiles 1 and 99.8 by default.
    max_voxels : int
        Where a channel has more voxels, percentiles, mean and standard deviation are
        measured on a regular grid of at most this many; the same grid each time. Extremes
        and counts of unusable voxels are always those of all voxels.

    Returns
    -------
    statistics : Statistics
        Offset and scale per channel.
    warnings : list of str
        What the user should know: unusable voxels, constant channels, percentiles that
        coincide. One readable sentence each.

    Raises
    ------
    ImageError
        If the frame has no voxels, no spatial axis, or is not made of real numbers.
    OptionsError
        If ``max_voxels`` is below 1.

    Notes
    -----
    A constant channel is given scale 0 and so becomes zeros. Where the percentiles coincide
    in a channel that is not constant (a few bright objects on a clipped background), its
    minimum and maximum are used instead, for the objects would be lost otherwise.

    Examples
    --------
    >>> statistics, warnings = measure(np.arange(1001, dtype=np.uint16).reshape(1, 1, 1001))
    >>> [round(x) for x in statistics.offset], [round(1 / s) for s in statistics.scale], warnings
    ([10], [988], [])
    """
    if frame.dtype.kind not in "buif":
        raise ImageError(f"a frame of type {frame.dtype} cannot be normalised; convert it to integers or floats")
    if frame.ndim < 2 or frame.size == 0:
        raise ImageError(
            f"a frame of shape {frame.shape} has no voxels to measure; it must be (c, [z,] y, x), sides >= 1"
        )
    if max_voxels < 1:
        raise OptionsError(f"max_voxels={max_voxels} leaves nothing to measure; give at least 1")
    normalisation = normalisation or Normalisation()
    offsets: list[float] = []
    scales: list[float] = []
    warnings: list[str] = []
    for index, channel in enumerate(frame):
        offset, scale, sentences = _measure_channel(channel, normalisation, max_voxels)
        offsets.append(offset)
        scales.append(scale)
        warnings.extend(f"channel {index}: {sentence}" for sentence in sentences)
    return Statistics(tuple(offsets), tuple(scales)), warnings


def _measure_channel(
    channel: npt.NDArray[Any], normalisation: Normalisation, max_voxels: int
) -> tuple[float, float, list[str]]:
    """Return offset, scale and sentences of caution for one channel."""
    sentences = _unusable(channel)
    if normalisation.method == "none":
        return 0.0, 1.0, sentences
    if normalisation.method != "minmax":
        offset, spread = _offset_and_spread(_finite(_sample(channel, max_voxels)), normalisation)
        if _is_usable(spread):
            return offset, 1.0 / spread, [*sentences, *_far_off(channel, offset, spread)]
    extremes = _extremes(channel)
    if extremes is None:
        return 0.0, 0.0, [*sentences, "no voxel is finite, so the channel becomes zeros; check the image"]
    low, high = extremes
    if not _is_usable(high - low):
        values = (
            f"every finite voxel is {low:g}" if low == high else f"values from {low:g} to {high:g} have no usable range"
        )
        return low, 0.0, [*sentences, f"{values}, so the channel becomes zeros; check that it is the right one"]
    if normalisation.method != "minmax":
        measured = (
            f"percentiles {normalisation.low:g} and {normalisation.high:g}"
            if normalisation.method == "percentile"
            else "mean and standard deviation of the voxels sampled"
        )
        sentences.append(
            f"{measured} span no range, so its minimum and maximum, {low:g} and {high:g}, are used instead"
        )
    return low, 1.0 / (high - low), sentences


def _far_off(channel: npt.NDArray[Any], offset: float, spread: float) -> list[str]:
    """Return a sentence if a finite voxel lies so far off that a network sees little else around it."""
    if channel.dtype.kind in "bui" and 256.0**channel.dtype.itemsize <= _FAR * spread:
        return []
    low, high = _extremes(channel) or (offset, offset)
    if max(high - offset, offset - low) <= _FAR * spread:
        return []
    return [
        f"values from {low:g} to {high:g} reach beyond {_FAR} times the range that was measured, {spread:g}, "
        "and change the labels around them; where they stand for missing data or broken pixels, make them NaN"
    ]


def _offset_and_spread(sample: npt.NDArray[Any], normalisation: Normalisation) -> tuple[float, float]:
    """Return what becomes 0, and how far from it is 1, in a flat sample of finite values."""
    if sample.size == 0:
        return 0.0, 0.0
    if normalisation.method == "percentile":
        low, high = _percentiles(sample, (normalisation.low, normalisation.high))
        return low, high - low
    if sample.min() == sample.max():
        # Rounding of the mean would give a constant a tiny, meaningless deviation.
        return float(sample[0]), 0.0
    with np.errstate(over="ignore", invalid="ignore"):
        return float(sample.mean(dtype=np.float64)), float(sample.std(dtype=np.float64))


def _percentiles(sample: npt.NDArray[Any], percentiles: tuple[float, ...]) -> list[float]:
    """Return percentiles, linear between neighbours, of a flat sample in its own dtype.

    numpy.percentile subtracts neighbours in the sample's dtype, which int8 overflows and
    bool refuses.
    """
    positions = [percentile / 100 * (sample.size - 1) for percentile in percentiles]
    pairs = [(math.floor(position), math.ceil(position)) for position in positions]
    ordered = np.partition(sample, sorted({rank for pair in pairs for rank in pair}))
    values = []
    for position, (below, above) in zip(positions, pairs, strict=True):
        low, high = float(ordered[below]), float(ordered[above])
        values.append(low + (high - low) * (position - below))
    return values


def _sample(channel: npt.NDArray[Any], max_voxels: int) -> npt.NDArray[Any]:
    """Return at most ``max_voxels`` voxels on a regular, centred grid, flat.

    Long axes are thinned before short ones, so that a stack of few planes keeps them all.
    """
    grid = [slice(None)] * channel.ndim
    left = max_voxels
    by_length = sorted(range(channel.ndim), key=lambda axis: channel.shape[axis])
    for done, axis in enumerate(by_length):
        side = channel.shape[axis]
        wanted = max(1, int(left ** (1 / (channel.ndim - done))))
        step = math.ceil(side / wanted)
        grid[axis] = slice((side - 1) % step // 2, None, step)
        left //= math.ceil(side / step)
    return channel[tuple(grid)].ravel()


def _finite(sample: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the finite values, float16 widened (its partition is slow)."""
    if sample.dtype.kind != "f":
        return sample
    finite = np.isfinite(sample)
    kept = sample if finite.all() else sample[finite]
    return kept.astype(np.float32) if kept.dtype.itemsize < 4 else kept


def _unusable(channel: npt.NDArray[Any]) -> list[str]:
    """Return a sentence with the counts if any voxel is NaN or infinite."""
    if channel.dtype.kind != "f":
        return []
    nan = infinite = 0
    for block in _blocks(channel):
        if not np.isfinite(block).all():
            nan += int(np.count_nonzero(np.isnan(block)))
            infinite += int(np.count_nonzero(np.isinf(block)))
    if not nan + infinite:
        return []
    counts = " and ".join(f"{n} {kind}" for n, kind in ((nan, "NaN"), (infinite, "infinite")) if n)
    return [f"{counts} of {channel.size} voxels are left out of the intensity statistics and become 0"]


def _extremes(channel: npt.NDArray[Any]) -> tuple[float, float] | None:
    """Return minimum and maximum of all finite voxels, None if there is none."""
    lows, highs = [], []
    for block in _blocks(channel):
        finite = _finite(block)
        if finite.size:
            lows.append(float(finite.min()))
            highs.append(float(finite.max()))
    return (min(lows), max(highs)) if lows else None


def _blocks(channel: npt.NDArray[Any]) -> Iterator[npt.NDArray[Any]]:
    """Cut into views of a bounded size, so that flags and copies never have that of the frame."""
    plane = math.prod(channel.shape[1:])
    if plane > _BLOCK_VOXELS:
        for part in channel:
            yield from _blocks(part)
        return
    rows = _BLOCK_VOXELS // plane
    for start in range(0, channel.shape[0], rows):
        yield channel[start : start + rows]


def _is_usable(spread: float) -> bool:
    """Whether one over the spread is a normal float32."""
    return math.isfinite(spread) and spread > 0 and float(_FLOAT32.tiny) <= 1.0 / spread <= float(_FLOAT32.max)
