"""Images of bright discs and balls whose labels are known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Scene = tuple[npt.NDArray[np.uint16], npt.NDArray[np.uint16]]

# Small enough that a step takes a tenth of a second.
SMALL: dict[str, Any] = {"width": 4, "depth": 2, "patch": 32, "batch": 2, "validate_every": 4, "patience": 0}


def scene(shape: tuple[int, ...] = (64, 64), count: int = 6, radius: int = 6, seed: int = 0) -> Scene:
    """Return a noisy image of separate bright balls, and its labels."""
    rng = np.random.default_rng(seed)
    labels = np.zeros(shape, np.uint16)
    grid = np.indices(shape)
    number = 0
    while number < count:
        centre = [int(rng.integers(min(radius, n // 2), max(n - radius, n // 2 + 1))) for n in shape]
        ball = sum((g - c) ** 2 for g, c in zip(grid, centre, strict=True)) < radius**2
        if not labels[ball].any():
            number += 1
            labels[ball] = number
        elif rng.random() < 0.02:
            break
    image = np.clip((labels > 0) * 200 + rng.normal(100, 20, shape), 0, 500).astype(np.uint16)
    return image, labels


def scenes(n: int = 3, **how: Any) -> tuple[list[npt.NDArray[np.uint16]], list[npt.NDArray[np.uint16]]]:
    """Return several images, and their labels."""
    pairs = [scene(seed=seed, **how) for seed in range(n)]
    return [image for image, _ in pairs], [labels for _, labels in pairs]


def folders(folder: Path, n: int = 3) -> tuple[Path, Path]:
    """Write images and labels into two folders."""
    import tifffile

    images, labels = folder / "images", folder / "labels"
    images.mkdir(parents=True)
    labels.mkdir()
    for number, (image, truth) in enumerate(zip(*scenes(n), strict=True)):
        tifffile.imwrite(images / f"cells {number}.tif", image)
        tifffile.imwrite(labels / f"cells {number}_labels.tif", truth)
    return images, labels
