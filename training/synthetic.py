"""Stacks of drawn nuclei, whose labels are known: ellipsoids of one tissue, blurred as by a microscope, and noisy."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter

from napari_tiled_unet import Image

SHAPE = (64, 96, 96)
# Nuclei that are tried; most of the later ones find no room.
_TRIES = 150
# Part of a nucleus that may be taken by its neighbours.
_SHARED = 0.2


def drawn_nuclei(seed: int) -> tuple[Image, Image]:
    """Return a stack and its labels; size, flatness, brightness, blur and noise depend on the seed."""
    rng = np.random.default_rng(seed)
    radius, flat = rng.uniform(5.0, 11.0), rng.uniform(0.55, 1.0)
    labels = np.zeros(SHAPE, np.uint16)
    grid = np.indices(SHAPE, dtype=np.float32)
    number = 0
    for _ in range(_TRIES):
        nucleus = _ellipsoid(grid, rng, radius, flat)
        if (labels[nucleus] > 0).mean() <= _SHARED:
            number += 1
            labels[nucleus & (labels == 0)] = number
    name = f"drawn {seed}"
    return Image(_photographed(labels, rng), "zyx", name=name), Image(labels, "zyx", name=name)


def _ellipsoid(
    grid: npt.NDArray[np.float32], rng: np.random.Generator, radius: float, flat: float
) -> npt.NDArray[np.bool_]:
    """Return the voxels of an ellipsoid anywhere, turned in the plane."""
    z, y, x = (axis - rng.uniform(0, n) for axis, n in zip(grid, SHAPE, strict=True))
    angle = rng.uniform(0, np.pi)
    along, across = np.cos(angle) * y + np.sin(angle) * x, np.cos(angle) * x - np.sin(angle) * y
    axes = radius * rng.uniform(0.8, 1.25, 3) * (flat, 1.0, 1.0)
    inside: npt.NDArray[np.bool_] = (z / axes[0]) ** 2 + (along / axes[1]) ** 2 + (across / axes[2]) ** 2 < 1
    return inside


def _photographed(labels: npt.NDArray[np.uint16], rng: np.random.Generator) -> npt.NDArray[np.uint16]:
    """Return the stack as a microscope would see it."""
    brightness = np.append(0.0, rng.lognormal(0.0, 0.4, int(labels.max())))[labels]
    grain = gaussian_filter(rng.normal(size=SHAPE), rng.uniform(1.0, 2.5))
    haze = gaussian_filter(rng.normal(size=SHAPE), 25)
    light = brightness * (1 + 0.35 * grain / grain.std()) + rng.uniform(0.02, 0.15) * (1.5 + haze / haze.std())
    blurred = gaussian_filter(np.maximum(light, 0), (rng.uniform(0.8, 2.5), *(rng.uniform(0.5, 1.2),) * 2))
    photons = rng.uniform(20, 200)
    counts = rng.poisson(blurred * photons) + rng.normal(10, 2, SHAPE)
    stack: npt.NDArray[np.uint16] = counts.clip(0, 65535).astype(np.uint16)
    return stack
