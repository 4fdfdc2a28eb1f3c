"""The sample data of File > Open Sample."""

from __future__ import annotations

import numpy as np
from napari.layers import Layer

from napari_tiled_unet.demo import read_sample
from napari_tiled_unet.viewer.samples import nuclei_2d, nuclei_3d, two_channels


def test_the_sample_is_one_image_layer() -> None:
    ((data, settings, kind),) = nuclei_2d()
    layer = Layer.create(data, settings, kind)
    sample = read_sample()
    assert kind == "image"
    assert layer.name == "nuclei"
    assert layer.axis_labels == ("y", "x")
    np.testing.assert_array_equal(layer.data, np.asarray(sample.data))


def test_the_stack_has_axes_and_voxels() -> None:
    ((data, settings, kind),) = nuclei_3d()
    layer = Layer.create(data, settings, kind)
    assert layer.axis_labels == ("z", "y", "x")
    assert layer.data.shape == (40, 80, 80)
    np.testing.assert_allclose(layer.scale, (0.284, 0.127, 0.127))
    assert {str(unit) for unit in layer.units} == {"micrometer"}


def test_the_channels_are_one_layer() -> None:
    ((data, settings, kind),) = two_channels()
    layer = Layer.create(data, settings, kind)
    assert layer.axis_labels == ("z", "c", "y", "x")
    assert layer.data.shape == (32, 2, 75, 75)
