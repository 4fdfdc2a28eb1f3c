"""Patches of a training laid out side by side, as layers to look at; no Qt."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from napari_tiled_unet.viewer.layers import SHOWN

if TYPE_CHECKING:
    from collections.abc import Sequence

    import napari.viewer

    from napari_tiled_unet.training.patches import Patch
    from napari_tiled_unet.viewer.teaching import Lesson

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


def first_patches(lesson: Lesson, count: int) -> list[Patch]:
    """Return the first patches that a training would learn from."""
    from napari_tiled_unet.training.preparation import prepare
    from napari_tiled_unet.viewer.worker import one_core_left

    with one_core_left():
        session = prepare(lesson.images, lesson.labels, lesson.options, out=None, resume=False, overwrite=False)
        return [session.patches.patch(number) for number in range(count)]


def show_patch_layers(viewer: napari.viewer.Viewer, patches: list[Patch], *, sparse: bool) -> None:
    """Show patches as an Image layer per channel and a Labels layer, beside what is there."""
    image, labels = mosaic(patches, sparse=sparse)
    for layer in [layer for layer in viewer.layers if layer.name.startswith("patches") and layer.metadata.get(SHOWN)]:
        viewer.layers.remove(layer)
    right = float(viewer.layers.extent.world[1][-1]) if len(viewer.layers) else 0.0
    translate = [0.0] * (labels.ndim - 1) + [right + labels.shape[-1] * 0.05]
    for number, channel in enumerate(image):
        name = "patches" if len(image) == 1 else f"patches, channel {number}"
        blending = "translucent" if number == 0 else "additive"
        viewer.add_image(channel, name=name, translate=translate, blending=blending, metadata={SHOWN: True})
    viewer.add_labels(labels, name="patches labels", translate=translate, opacity=0.4, metadata={SHOWN: True})
    viewer.reset_view()
