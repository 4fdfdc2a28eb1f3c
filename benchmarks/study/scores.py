"""What is measured on a network: agreement with the truth, grids, and steadiness under a shift."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from benchmarks.study.data import Sample, target_of
from benchmarks.study.training import predict
from napari_tiled_unet.metrics import average_precision, boundary_f_score, dice, overlapping_pairs
from napari_tiled_unet.networks.zoo import Network
from napari_tiled_unet.options import SegmentOptions

THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9)


def score(network: Network, samples: list[Sample], data: str) -> dict[str, float]:
    """Return the scores of a trained network on held-out samples."""
    target = target_of(data)
    maps = [predict(network, s.frame, target) for s in samples]
    moved = [predict(network, np.roll(s.frame, 1, -1), target) for s in samples]
    channel = 1 if data == "isbi2012" else 0
    found: dict[str, float] = {
        "shift agreement": float(
            np.mean([_agreement(a[channel] > 0.5, b[channel] > 0.5) for a, b in zip(maps, moved, strict=True)])
        ),
        "grid energy": grid_energy(network),
    }
    truth = [s.truth for s in samples]
    masks = [m[channel] > 0.5 for m in maps]
    found["Dice"] = float(np.mean([dice(m, t) for m, t in zip(masks, truth, strict=True)]))
    for tolerance in (1, 2):
        values = [boundary_f_score(m, t > 0, tolerance) for m, t in zip(masks, truth, strict=True)]
        found[f"boundary F, {tolerance} px"] = float(np.mean(values))
    if data == "isbi2012":
        return found | _membranes([m[channel] for m in maps], truth)
    labels = [target.decode(m, SegmentOptions()) for m in maps]
    pooled = average_precision(labels, truth).pooled
    found |= {"AP 0.5": float(pooled[0]), "AP 0.75": float(pooled[5])}
    found["AP 0.5, small"] = _small_objects(labels, truth)
    return found


def _agreement(still: npt.NDArray[np.bool_], moved: npt.NDArray[np.bool_]) -> float:
    # The columns at the side where the image was rolled show another image.
    return dice(np.roll(moved, -1, -1)[..., 16:-16], still[..., 16:-16])


def _small_objects(predicted: list[npt.NDArray[Any]], truth: list[npt.NDArray[Any]]) -> float:
    """Return TP / (TP + FP + FN) at an IoU of 0.5 over objects smaller than the lower quartile of the truth."""
    sizes = np.concatenate([_sizes(t) for t in truth])
    small = float(np.quantile(sizes, 0.25))
    tp = fp = fn = 0
    for p, t in zip(predicted, truth, strict=True):
        pairs = overlapping_pairs(p, t)
        good = pairs.iou > 0.5
        hit_first, hit_second = set(pairs.first[good].tolist()), set(pairs.second[good].tolist())
        tp += sum(1 for i, n in enumerate(_sizes(t)) if n < small and i in hit_second)
        fn += sum(1 for i, n in enumerate(_sizes(t)) if n < small and i not in hit_second)
        fp += sum(1 for i, n in enumerate(_sizes(p)) if n < small and i not in hit_first)
    return tp / max(1, tp + fp + fn)


def _sizes(labels: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    counts = np.bincount(labels.ravel())[1:]
    return counts[counts > 0]


def _membranes(inside: Iterable[npt.NDArray[np.float32]], truth: list[npt.NDArray[Any]]) -> dict[str, float]:
    """Return foreground-restricted Rand and information scores, each at its best threshold as in the challenge."""
    from skimage.measure import label
    from skimage.metrics import adapted_rand_error, variation_of_information

    inside = list(inside)
    cells = [label(t, connectivity=1) for t in truth]
    rand, information = [], []
    for threshold in THRESHOLDS:
        parts = [label(p > threshold, connectivity=1) for p in inside]
        pairs = list(zip(cells, parts, strict=True))
        rand.append(np.mean([1 - adapted_rand_error(t, p, ignore_labels=(0,))[0] for t, p in pairs]))
        information.append(np.mean([sum(variation_of_information(t, p, ignore_labels=(0,))) for t, p in pairs]))
    return {"Rand F": float(max(rand)), "variation of information": float(min(information))}


@torch.inference_mode()
def grid_energy(network: Network, images: int = 4, seed: int = 0) -> float:
    """Return how much more power the maps of noise have at the grid of the stride than beside it; 1 is none.

    White noise has no grid. What stands out of its maps' spectrum at multiples of 1 / stride
    was put there by the network.
    """
    spec, stride = network.spec, network.stride
    sides = [8 * s if spec.ndim == 3 else 16 * s for s in stride]
    generator = torch.Generator().manual_seed(seed)
    power: Any = 0
    for _ in range(images):
        y = network(torch.rand(1, spec.in_channels, *sides, generator=generator))[0].double()
        y = y - y.mean(tuple(range(1, y.ndim)), keepdim=True)
        for axis in range(spec.ndim):
            # Without a taper the border would leak over the whole spectrum.
            y = y * torch.hann_window(sides[axis], dtype=torch.double).reshape(
                [-1 if a == axis else 1 for a in range(spec.ndim)]
            )
        power = power + torch.fft.fftn(y, dim=tuple(range(1, y.ndim))).abs().square().mean(0).numpy()
    on = np.ones(sides, bool)
    near = np.ones(sides, bool)
    # Maps are smooth: what lies beside zero frequency has more power than any grid.
    low = np.ones(sides, bool)
    for axis, (n, s) in enumerate(zip(sides, stride, strict=True)):
        away = np.arange(n) % (n // s)
        away = np.minimum(away, n // s - away)
        shape = [-1 if a == axis else 1 for a in range(len(sides))]
        on &= (away == 0).reshape(shape)
        # The window spreads a line over its neighbours, so the comparison starts behind them.
        near &= ((away >= 3) & (away <= 5)).reshape(shape)
        low &= (np.minimum(np.arange(n), n - np.arange(n)) < n // s).reshape(shape)
    on &= ~low
    near &= ~low
    return float(power[on].mean() / power[near].mean())
