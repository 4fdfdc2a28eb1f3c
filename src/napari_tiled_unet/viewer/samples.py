"""Sample data for File > Open Sample."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari_tiled_unet.image import Image

LayerData = tuple[Any, dict[str, Any], str]


def nuclei_2d() -> list[LayerData]:
    """Return the bundled field of nuclei as the data of one image layer."""
    return _layer("nuclei_2d", "nuclei")


def nuclei_3d() -> list[LayerData]:
    """Return the bundled stack of nuclei as the data of one image layer."""
    return _layer("nuclei_3d", "nuclei stack")


def two_channels() -> list[LayerData]:
    """Return the bundled stack of two channels as the data of one image layer."""
    return _layer("two_channels", "two channels")


def _layer(sample: str, name: str) -> list[LayerData]:
    from napari_tiled_unet.demo import read_sample

    image = read_sample(sample)
    return [(image.data, layer_settings(image, name), "image")]


def layer_settings(image: Image, name: str) -> dict[str, Any]:
    """Return name, axes, voxel size and units of an image as arguments of a layer."""
    settings: dict[str, Any] = {"name": name, "axis_labels": tuple(image.axes)}
    if image.spacing is not None:
        size = dict(zip(image.spatial_axes, image.spacing, strict=True))
        settings["scale"] = tuple(size.get(axis, 1.0) for axis in image.axes)
        settings["units"] = tuple("micrometer" if axis in size else "pixel" for axis in image.axes)
    return settings
