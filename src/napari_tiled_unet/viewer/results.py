"""The Labels layer of a run: found again by the next run, placed over its image; no Qt."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari_tiled_unet.viewer.layers import METADATA_KEY, labels_axes, labels_for_layer, labels_placement

if TYPE_CHECKING:
    from collections.abc import Iterable

    import napari.layers
    from napari.components import LayerList

    from napari_tiled_unet.events import Finished


def own_result(layers: Iterable[Any], source: napari.layers.Image) -> napari.layers.Labels | None:
    """Return the Labels layer that an earlier run made for an image layer, if it is still there.

    A copy of it that the user made carries the same metadata but not the same identity, and is
    the user's: it is never returned.
    """
    for layer in layers:
        mark = layer.metadata.get(METADATA_KEY)
        if not isinstance(mark, dict):
            continue
        if mark.get("source") == str(source.unique_id) and mark.get("layer") == str(layer.unique_id):
            return layer
    return None


def show_labels(layers: LayerList, source: napari.layers.Image, axes: str, finished: Finished) -> napari.layers.Labels:
    """Show the labels of a run: in the layer of the earlier run if it is there, else in a new one.

    Parameters
    ----------
    layers : LayerList
        Layers of the viewer.
    source : napari.layers.Image
        The layer that was segmented; the labels are placed where it is now.
    axes : str
        Axes of the layer's data.
    finished : Finished
        The end of the run.

    Returns
    -------
    napari.layers.Labels
        The layer that shows them.
    """
    from napari.layers import Labels

    wanted = labels_axes(axes, rgb=bool(source.rgb))
    data = labels_for_layer(finished.labels, finished.axes, wanted)
    placement = labels_placement(source, axes, dict(zip(finished.axes, finished.offset, strict=False)))
    earlier = own_result(layers, source)
    if earlier is not None and earlier.ndim != data.ndim:
        # A layer keeps its number of axes for life.
        layers.remove(earlier)
        earlier = None
    if earlier is None:
        layer = Labels(data, name=f"{source.name} labels", **placement)
        layer.metadata[METADATA_KEY] = _mark(source, layer, finished)
        layers.append(layer)
        return layer
    earlier.data = data
    for name, value in placement.items():
        setattr(earlier, name, value)
    earlier.metadata[METADATA_KEY] = _mark(source, earlier, finished)
    return earlier


def _mark(source: napari.layers.Image, layer: napari.layers.Labels, finished: Finished) -> dict[str, Any]:
    return {**finished.provenance, "source": str(source.unique_id), "layer": str(layer.unique_id)}
