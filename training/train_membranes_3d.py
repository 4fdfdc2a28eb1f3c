"""Train the bundled model ``membranes-3d`` on fibsem_neuroproof: membranes between the neurons of a fly.

``python -m training.train_membranes_3d --data DATA --out membranes-3d.safetensors``

The last fifth of the slices is for the test, 10 slices before it are not used. Neurons are made of
the membrane map by watershed, from the maxima of the distance to a membrane; then fragments are
joined where the membrane between them is weak.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.ndimage import distance_transform_edt, gaussian_filter
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from skimage.measure import label
from skimage.morphology import h_maxima
from skimage.segmentation import find_boundaries, watershed

from napari_tiled_unet import Image, iter_segment, read_image
from napari_tiled_unet.events import Finished
from napari_tiled_unet.model import Model
from training.bundled import Course, Labels, arguments, cut, make

NANOMETRES = (10.0, 10.0, 10.0)
# Below this the membrane map is inside a cell; fragments are joined below this mean of it along their border.
# Both were chosen on slices that were learned from.
INSIDE, WEAK = 0.3, 0.3


def membranes(labels: Image) -> Image:
    """Return 1 at the borders between neurons and where no neuron is, else 0."""
    neurons = np.asarray(labels.data)
    border = find_boundaries(neurons, mode="thick") | (neurons == 0)
    return Image(border.astype(np.uint8), labels.axes, name=labels.name)


def neurons_of(membrane: npt.NDArray[np.float32], weak: float = WEAK) -> Labels:
    """Return neurons of a membrane map, ``(z, y, x)``."""
    depth = gaussian_filter(distance_transform_edt(membrane < INSIDE), 1.0)
    seeds = label(h_maxima(depth, 1.0))
    return joined(watershed(membrane, seeds).astype(np.int64), membrane, weak)


def joined(fragments: npt.NDArray[np.int64], membrane: npt.NDArray[np.float32], weak: float) -> Labels:
    """Join fragments, numbered from 1, where the mean of the membrane map along their border is below ``weak``."""
    count = int(fragments.max()) + 1
    keys, values = [], []
    for axis in range(fragments.ndim):
        first, second = (
            tuple(side if a == axis else slice(None) for a in range(fragments.ndim))
            for side in (slice(None, -1), slice(1, None))
        )
        one, two = fragments[first], fragments[second]
        border = one != two
        keys.append(np.minimum(one, two)[border] * count + np.maximum(one, two)[border])
        values.append(np.maximum(membrane[first], membrane[second])[border])
    pairs, which = np.unique(np.concatenate(keys), return_inverse=True)
    mean = np.bincount(which, np.concatenate(values)) / np.bincount(which)
    weakly = pairs[mean < weak]
    graph = coo_array((np.ones(len(weakly)), (weakly // count, weakly % count)), (count, count))
    _, of_fragment = connected_components(graph, directed=False)
    neurons: Labels = (of_fragment[fragments] + 1).astype(np.int32)
    return neurons


def find(model: Model, image: Image) -> Labels:
    """Return the neurons of an image."""
    finished: Finished | None = None
    for event in iter_segment(image, model, keep_maps=True):
        if isinstance(event, Finished):
            finished = event
    assert finished is not None
    assert finished.maps is not None
    return neurons_of(finished.maps[1])


def course(data: Path) -> Course:
    """Return what it is made of."""
    folder = data / "fibsem_neuroproof"
    image = Image(read_image(folder / "raw.tif", axes="zyx").data, "zyx", NANOMETRES, "nm", name="neuroproof")
    neurons = Image(read_image(folder / "labels.tif", axes="zyx").data, "zyx")
    (image_part, neurons_part), test = cut(image, neurons, "z", share=0.2, gap=10)
    return Course(
        name="membranes-3d",
        summary="Membranes between neurons in isotropic 3D electron microscopy, 10 nm voxels",
        licence="CC-BY-4.0",
        source="janelia-flyem/neuroproof_examples, Janelia FlyEM, Creative Commons Attribution",
        learn=[(image_part, membranes(neurons_part))],
        test=[test],
        held_out="the last 50 of 250 slices, after a gap of 10",
        channel="electron microscopy",
        told=("VI split", "VI merge", "adapted Rand error", "F1"),
        options={"target": "classes", "classes": ("cell", "membrane"), "depth": 3},
        find=find,
    )


if __name__ == "__main__":
    chosen = arguments(__doc__ or "", steps=3000, minutes=11, validate_every=100)
    make(course(chosen.data), chosen)
