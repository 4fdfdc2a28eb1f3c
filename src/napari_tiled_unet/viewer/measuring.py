"""A Labels layer and its image brought together, and measured; no Qt."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_tiled_unet.errors import ImageError
from napari_tiled_unet.features import Table, measure_objects
from napari_tiled_unet.region import Region
from napari_tiled_unet.viewer.form import axes_readings, taken_axes
from napari_tiled_unet.viewer.layers import METADATA_KEY, facts_of, image_from_layer, labels_axes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import napari.layers


def source_of(labels: napari.layers.Labels | None, layers: Iterable[Any]) -> napari.layers.Image | None:
    """Return the image layer that a run made these labels of, if it is still there."""
    source = _mark(labels).get("source")
    return next((layer for layer in layers if str(layer.unique_id) == source), None)


def measurement(labels: napari.layers.Labels, source: napari.layers.Image) -> Callable[[], Table]:
    """Return the work that measures a Labels layer on an image layer, to be done in any thread.

    What a run wrote down says which axes the labels have and where they lie; for labels of
    other origin they are those of the whole image.

    Raises
    ------
    ImageError
        If the axes of the image are not known, or the labels are not of its shape.
    """
    mark = _mark(labels)
    own = mark.get("measured") if str(source.unique_id) == mark.get("source") else None
    data = np.asarray(labels.data[0] if labels.multiscale else labels.data)
    if own is not None:
        image = image_from_layer(source, own["image_axes"], own.get("level", 0))
        axes, offset, spatial = own["axes"], tuple(own["offset"]), own["spatial"]
        wanted = labels_axes(own["image_axes"], rgb=bool(source.rgb))
        if "c" in wanted:
            data = np.squeeze(data, wanted.index("c"))
        # The layer has its axes in the order of the image.
        data = data.transpose([wanted.replace("c", "").index(axis) for axis in axes])
        stops = {a: (o, o + n) for a, o, n in zip(axes, offset, data.shape, strict=True)}
        part = image.part(Region.of_slices(stops, {a: image.size_of(a) for a in axes}))
        return partial(measure_objects, data, axes, part, spatial=spatial, offset=offset)
    facts = facts_of(source)
    known = taken_axes(facts, axes_readings(facts), None)
    if known is None:
        raise ImageError(
            f"the axes of {source.name!r} are not known; name them, for example "
            f"viewer.layers[{source.name!r}].axis_labels = ('z', 'y', 'x')"
        )
    axes = known.replace("c", "")
    wanted = labels_axes(known, rgb=bool(source.rgb))
    if "c" in wanted and data.ndim == len(wanted) and data.shape[wanted.index("c")] == 1:
        data = np.squeeze(data, wanted.index("c"))
    return partial(measure_objects, data, axes, image_from_layer(source, known))


def show_features(layer: napari.layers.Labels, table: Table) -> None:
    """Make a table the features of a layer: napari shows the row of the object under the mouse."""
    layer.features = table


def forget_features(layer: napari.layers.Labels) -> None:
    """Drop the features of a layer whose labels are about to change."""
    if len(layer.features.columns):
        layer.features = {}


def _mark(labels: Any) -> dict[str, Any]:
    mark = labels.metadata.get(METADATA_KEY) if labels is not None else None
    return mark if isinstance(mark, dict) else {}
