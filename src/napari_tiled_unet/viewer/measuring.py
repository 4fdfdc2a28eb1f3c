"""A Labels layer and its image brought together, and measured; no Qt."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np

from napari_tiled_unet.errors import ImageError
from napari_tiled_unet.features import Table, measure_objects
from napari_tiled_unet.region import Region
from napari_tiled_unet.viewer.form import axes_readings, taken_axes
from napari_tiled_unet.viewer.hands import claimed_text, is_claimed
from napari_tiled_unet.viewer.layers import METADATA_KEY, facts_of, image_from_layer, labels_axes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import napari.layers

    from napari_tiled_unet.image import Image


def source_of(labels: napari.layers.Labels | None, layers: Iterable[Any]) -> napari.layers.Image | None:
    """Return the image layer that a run made these labels of, if it is still there."""
    source = _mark(labels).get("source")
    return next((layer for layer in layers if str(layer.unique_id) == source), None)


def measurement(labels: napari.layers.Labels, source: napari.layers.Image) -> Callable[[], Table]:
    """Return the work that measures a Labels layer on an image layer, to be done in any thread.

    Labels that are lazy are computed by that work.

    What a run wrote down says which axes the labels have and where they lie; for labels of
    other origin they are those of the whole image.

    Raises
    ------
    ImageError
        If the axes of the image are not known, the labels are not of its shape, or a run is making them.
    """
    if is_claimed(labels):
        raise ImageError(claimed_text(labels))
    mark = _mark(labels)
    own = mark.get("measured") if str(source.unique_id) == mark.get("source") else None
    data = labels.data[0] if labels.multiscale else labels.data
    if own is not None:
        image = image_from_layer(source, own["image_axes"], own.get("level", 0))
        return partial(_of_run, data, image, labels_axes(own["image_axes"], rgb=bool(source.rgb)), own)
    facts = facts_of(source)
    known = taken_axes(facts, axes_readings(facts), None)
    if known is None:
        raise ImageError(
            f"the axes of {source.name!r} are not known; name them, for example "
            f"viewer.layers[{source.name!r}].axis_labels = ('z', 'y', 'x')"
        )
    return partial(_of_image, data, image_from_layer(source, known), labels_axes(known, rgb=bool(source.rgb)))


def _of_run(data: Any, image: Image, wanted: str, own: dict[str, Any]) -> Table:
    """Measure labels that a run made of an image, with the axes ``wanted``."""
    data, axes, offset = np.asarray(data), own["axes"], tuple(own["offset"])
    if data.ndim != len(wanted):
        raise ImageError(
            f"the labels have {data.ndim} axes, the run made {wanted!r}: other data were put into the layer; measure "
            "them in a layer of their own"
        )
    if "c" in wanted:
        data = np.squeeze(data, wanted.index("c"))
    # The layer has its axes in the order of the image.
    data = data.transpose([wanted.replace("c", "").index(axis) for axis in axes])
    stops = {a: (o, o + n) for a, o, n in zip(axes, offset, data.shape, strict=True)}
    part = image.part(Region.of_slices(stops, {a: image.size_of(a) for a in axes}))
    return measure_objects(data, axes, part, spatial=own["spatial"], offset=offset)


def _of_image(data: Any, image: Image, wanted: str) -> Table:
    """Measure labels of a whole image, which may have the place of its channels."""
    data = np.asarray(data)
    if "c" in wanted and data.ndim == len(wanted) and data.shape[wanted.index("c")] == 1:
        data = np.squeeze(data, wanted.index("c"))
    return measure_objects(data, image.axes.replace("c", ""), image)


# Of layers that were measured: how often they were changed, and the table with the state it is of.
_changes: WeakKeyDictionary[Any, int] = WeakKeyDictionary()
_tables: WeakKeyDictionary[Any, tuple[tuple[int, ...], Any]] = WeakKeyDictionary()


def state_of(layer: napari.layers.Labels) -> tuple[int, ...]:
    """Return what differs once the labels of a layer are others: painted, taken back, or replaced."""
    if layer not in _changes:
        _changes[layer] = 0
        layer.events.paint.connect(_changed)
        layer.events.data.connect(_changed)
    # napari says nothing of what is taken back.
    return _changes[layer], len(layer._undo_history), len(layer._redo_history)


def _changed(event: Any) -> None:
    layer = event.source
    _changes[layer] += 1
    if layer in _tables and layer.features is _tables[layer][1]:
        forget_features(layer)


def show_features(layer: napari.layers.Labels, table: Any) -> None:
    """Make a table the features of a layer until its labels change: napari shows the row of the one under the mouse."""
    layer.features = table
    _tables[layer] = state_of(layer), layer.features


def table_of(layer: napari.layers.Labels) -> Any:
    """Return the table that was made of a layer's labels as they are now; None where there is none."""
    state, features = _tables.get(layer, ((), None))
    return features if layer.features is features and state == state_of(layer) else None


def is_stale(layer: napari.layers.Labels) -> bool:
    """Return whether the table of a layer is one of other labels than it has now."""
    state, features = _tables.get(layer, ((), None))
    return layer.features is features and state != state_of(layer)


def forget_features(layer: napari.layers.Labels) -> None:
    """Drop the features of a layer whose labels are about to change."""
    if len(layer.features.columns):
        layer.features = {}


def _mark(labels: Any) -> dict[str, Any]:
    mark = labels.metadata.get(METADATA_KEY) if labels is not None else None
    return mark if isinstance(mark, dict) else {}
