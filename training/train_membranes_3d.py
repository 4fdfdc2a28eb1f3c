"""Train the bundled model ``membranes-3d`` on fibsem_neuroproof: membranes between the neurons of a fly.

``python -m training.train_membranes_3d --data DATA --out membranes-3d.safetensors``

The last fifth of the slices is for the test, 10 slices before it are not used. Neurons are
made of the membrane map by watershed, from the maxima of the distance to a membrane.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.ndimage import distance_transform_edt, gaussian_filter
from skimage.measure import label
from skimage.morphology import h_maxima
from skimage.segmentation import find_boundaries, watershed

from napari_tiled_unet import Image, evaluate, iter_segment, read_image
from napari_tiled_unet.events import Finished
from napari_tiled_unet.model import Model
from training.bundled import Course, arguments, cut, make

NANOMETRES = (10.0, 10.0, 10.0)


def membranes(labels: Image) -> Image:
    """Return 1 at the borders between neurons and where no neuron is, else 0."""
    neurons = np.asarray(labels.data)
    border = find_boundaries(neurons, mode="thick") | (neurons == 0)
    return Image(border.astype(np.uint8), labels.axes, name=labels.name)


def neurons_of(membrane: npt.NDArray[np.float32]) -> npt.NDArray[np.int32]:
    """Return neurons by watershed of a membrane map, ``(z, y, x)``."""
    depth = gaussian_filter(distance_transform_edt(membrane < 0.5), 1.0)
    seeds = label(h_maxima(depth, 1.0))
    neurons: npt.NDArray[np.int32] = watershed(membrane, seeds).astype(np.int32)
    return neurons


def score(model: Model, test: Sequence[tuple[Image, Image]]) -> dict[str, float]:
    """Return variation of information and adapted Rand error of the test slab."""
    image, neurons = test[0]
    for event in iter_segment(image, model, keep_maps=True):
        if isinstance(event, Finished):
            finished = event
    assert finished.maps is not None
    scores = evaluate(neurons_of(finished.maps[1]), np.asarray(neurons.data)).scores
    return {k: scores[k] for k in ("VI split", "VI merge", "adapted Rand error", "F1")}


def main() -> None:
    """Train it."""
    chosen = arguments(__doc__ or "", steps=4000)
    folder = chosen.data / "fibsem_neuroproof"
    image = Image(read_image(folder / "raw.tif", axes="zyx").data, "zyx", NANOMETRES, "nm", name="neuroproof")
    neurons = Image(read_image(folder / "labels.tif", axes="zyx").data, "zyx")
    (image_part, neurons_part), test = cut(image, neurons, "z", share=0.2, gap=10)
    course = Course(
        name="membranes-3d",
        summary="Membranes between neurons in isotropic 3D electron microscopy, 10 nm voxels",
        licence="CC-BY-4.0",
        source="janelia-flyem/neuroproof_examples, Janelia FlyEM, Creative Commons Attribution",
        learn=[(image_part, membranes(neurons_part))],
        test=[test],
        held_out="the last 50 of 250 slices, after a gap of 10",
        options={"target": "classes", "classes": ("cell", "membrane")},
        score=score,
    )
    make(course, chosen)


if __name__ == "__main__":
    main()
