"""The Labels layer of a run: marked, and found again by the next run; no Qt."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_tiled_unet.viewer.hands import is_edited
from napari_tiled_unet.viewer.layers import METADATA_KEY

if TYPE_CHECKING:
    from collections.abc import Iterable

    import napari.layers

    from napari_tiled_unet.events import Finished


# Numbers that are left for objects that the user will paint.
_FREE = 1000


def own_result(layers: Iterable[Any], source: napari.layers.Image) -> napari.layers.Labels | None:
    """Return the Labels layer that an earlier run made for an image layer, if it is still there.

    A copy of it that the user made carries the same metadata but not the same identity, and is
    the user's: it is never returned. Of several the last one that nobody edited, else the last.
    """
    found = [layer for layer in layers if _is_result_of(source, layer)]
    untouched = [layer for layer in found if not is_edited(layer)]
    return next(reversed(untouched or found), None)


def _is_result_of(source: napari.layers.Image, layer: Any) -> bool:
    mark = layer.metadata.get(METADATA_KEY)
    return (
        isinstance(mark, dict)
        and mark.get("source") == str(source.unique_id)
        and mark.get("layer") == str(layer.unique_id)
    )


def paintable(labels: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return labels in a type that has numbers left for new objects: uint16, or uint32 where that is full."""
    highest = int(labels.max(initial=0))
    return labels.astype(np.uint16 if highest + _FREE < 2**16 else np.uint32, copy=False)


def mark_of(
    source: napari.layers.Image, layer: napari.layers.Labels, finished: Finished, more: dict[str, Any]
) -> dict[str, Any]:
    """Return what the metadata of a result say: what was run, on which layer, and that it is ours."""
    return {**finished.provenance, **more, "source": str(source.unique_id), "layer": str(layer.unique_id)}
