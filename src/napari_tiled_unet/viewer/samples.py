"""Sample data for File > Open Sample."""

from __future__ import annotations

from typing import Any

LayerData = tuple[Any, dict[str, Any], str]


def nuclei_2d() -> list[LayerData]:
    """Return the bundled field of nuclei as the data of one image layer."""
    from napari_tiled_unet.demo import read_sample

    image = read_sample()
    settings: dict[str, Any] = {"name": "nuclei", "axis_labels": tuple(image.axes)}
    if image.spacing is not None and image.units != "pixel":
        settings |= {"scale": image.spacing, "units": (image.units,) * len(image.spacing)}
    return [(image.data, settings, "image")]
