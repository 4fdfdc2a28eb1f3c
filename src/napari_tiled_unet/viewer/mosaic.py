"""Patches of a training laid out side by side, to look at; no Qt."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_tiled_unet.training.patches import Patch

# Voxels between two patches.
_GAP = 4


def mosaic(patches: Sequence[Patch], *, sparse: bool) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int32]]:
    """Lay patches out in rows and columns.

    Parameters
    ----------
    patches : sequence of Patch
        All of one shape.
    sparse : bool
        Whether labels are partial: then they are numbered as they are painted, 0 for not labelled.

    Returns
    -------
    image : numpy.ndarray
        ``(c, [z,] Y, X)``; between patches it is as dark as the darkest voxel.
    labels : numpy.ndarray
        ``([z,] Y, X)``.
    """
    columns = math.ceil(math.sqrt(len(patches)))
    rows = math.ceil(len(patches) / columns)
    *front, height, width = patches[0].image.shape
    size = rows * (height + _GAP) - _GAP, columns * (width + _GAP) - _GAP
    image = np.full((*front, *size), min(float(p.image.min()) for p in patches), np.float32)
    labels = np.zeros((*front[1:], *size), np.int32)
    for number, patch in enumerate(patches):
        y, x = number // columns * (height + _GAP), number % columns * (width + _GAP)
        image[..., y : y + height, x : x + width] = patch.image
        numbers = patch.labels + 1 if sparse else np.maximum(patch.labels, 0)
        labels[..., y : y + height, x : x + width] = numbers
    return image, labels
