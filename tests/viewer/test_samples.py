"""The sample data of File > Open Sample."""

from __future__ import annotations

import numpy as np
from napari.layers import Layer

from napari_tiled_unet.demo import read_sample
from napari_tiled_unet.viewer.samples import nuclei_2d


def test_the_sample_is_one_image_layer() -> None:
    ((data, settings, kind),) = nuclei_2d()
    layer = Layer.create(data, settings, kind)
    sample = read_sample()
    assert kind == "image"
    assert layer.name == "nuclei"
    assert layer.axis_labels == ("y", "x")
    np.testing.assert_array_equal(layer.data, np.asarray(sample.data))
