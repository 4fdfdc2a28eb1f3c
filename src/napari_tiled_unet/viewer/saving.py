"""File > Save of a Labels layer as OME-TIFF, with voxel size, axes and provenance; no Qt."""

from __future__ import annotations

from typing import Any

import numpy as np

from napari_tiled_unet.errors import ImageError
from napari_tiled_unet.viewer.layers import METADATA_KEY, axis_spacing, labels_axes, named_axes


def write_labels_layer(path: str, data: Any, attributes: dict[str, Any]) -> list[str]:
    """Write a Labels layer as napari hands it over; return the paths that were written.

    Parameters
    ----------
    path : str
        Where to, ending in ``.ome.tif``.
    data : array or list of arrays
        Labels; of several resolutions the first is written.
    attributes : dict
        As of ``layer.as_layer_data_tuple()``.

    Raises
    ------
    ImageError
        If the axes of the layer are not known.
    FileError
        If it cannot be written.
    """
    from napari.layers import Labels

    from napari_tiled_unet.io import Place, write_labels

    labels = np.asarray(data[0] if attributes.get("multiscale") or isinstance(data, list) else data)
    known = ("scale", "units", "axis_labels")
    layer: Any = Labels(labels, **{name: attributes[name] for name in known if attributes.get(name) is not None})
    mark = attributes.get("metadata", {}).get(METADATA_KEY)
    run: dict[str, Any] = mark if isinstance(mark, dict) else {}
    measured = run.get("measured", {})
    axes = _axes(layer, run, str(attributes.get("name", "labels")))
    size = dict(zip(axes, axis_spacing(layer), strict=True))
    kept = axes.replace("c", "")
    if "c" in axes:
        labels = np.squeeze(labels, axes.index("c"))
    spacing = [size[axis] for axis in kept if axis in "zyx"]
    known_size = [step for step in spacing if step is not None]
    given = known_size if len(known_size) == len(spacing) else None
    described = {name: value for name, value in run.items() if name not in ("source", "layer", "measured")}
    # Where a part of an image begins; a run has its own order of axes.
    first = zip(measured.get("axes", ""), measured.get("offset", ()), strict=True)
    place = Place({axis: int(voxel) for axis, voxel in first if axis in kept})
    write_labels(path, labels, kept, given, place=place, description=described or None, overwrite=True)
    return [path]


def _axes(layer: Any, run: dict[str, Any], name: str) -> str:
    """Return the axes of a layer: as a run wrote them down, as it names them, or the only ones there are."""
    measured = run.get("measured", {})
    image_axes = measured.get("image_axes", "")
    # An RGB image has its colours last, where labels have none.
    own = labels_axes(image_axes, rgb=image_axes.endswith("c"))
    if len(own) == layer.ndim:
        return own
    axes = named_axes(layer) or ("yx" if layer.ndim == 2 else None)
    if axes is None or ("c" in axes and layer.data.shape[axes.index("c")] != 1):
        raise ImageError(
            f"the axes of {name!r} are not known; name them, for example "
            f"viewer.layers[{name!r}].axis_labels = ('z', 'y', 'x')"
        )
    return axes
