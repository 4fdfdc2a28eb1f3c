"""The Labels layer of a run: marked, and found again by the next run; no Qt."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari_tiled_unet.viewer.layers import METADATA_KEY

if TYPE_CHECKING:
    from collections.abc import Iterable

    import napari.layers

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


def mark_of(
    source: napari.layers.Image, layer: napari.layers.Labels, finished: Finished, more: dict[str, Any]
) -> dict[str, Any]:
    """Return what the metadata of a result say: what was run, on which layer, and that it is ours."""
    return {**finished.provenance, **more, "source": str(source.unique_id), "layer": str(layer.unique_id)}
