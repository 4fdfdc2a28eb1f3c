"""The maps of the last run: kept where there is room, decoded anew, shown as layers; no Qt."""

from __future__ import annotations

import math
import shutil
import tempfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_tiled_unet.errors import MemoryBudgetError
from napari_tiled_unet.memory import GIB, free_memory
from napari_tiled_unet.shortage import zeros_or_disk
from napari_tiled_unet.viewer.layers import SHOWN, labels_axes, labels_for_layer, labels_placement

if TYPE_CHECKING:
    import napari.layers

    from napari_tiled_unet.options import SegmentOptions
    from napari_tiled_unet.targets import Target
    from napari_tiled_unet.viewer.running import Outcome

Maps = npt.NDArray[np.float32]
Labels = npt.NDArray[Any]

# The part of the memory that maps may take: labels, the next run and the user's own work need the rest.
_PART = 0.25


def room_for_maps(shape: tuple[int, ...], memory: float | None = None) -> Maps | None:
    """Return an array for maps: in memory, else in a file that goes with it, else None.

    Parameters
    ----------
    shape : tuple of int
        Of the maps.
    memory : float, optional
        GiB that a run may use; what is free by default. Maps take a quarter of it.
    """
    size = math.prod(shape) * 4
    room = _PART * (free_memory() if memory is None else memory * GIB)
    if size > max(room, 0.5 * shutil.disk_usage(tempfile.gettempdir()).free):
        return None
    try:
        return zeros_or_disk(shape, np.float32, room)
    except MemoryBudgetError:
        return None


def entropy(maps: Maps, target: Target) -> Maps:
    """Return how unsure a network is of each voxel: the entropy of its class, within 0 to 1.

    Parameters
    ----------
    maps : numpy.ndarray
        ``(k, ...)`` probabilities.
    target : Target
        Of classes, the entropy of all; of objects, that of being foreground.

    Returns
    -------
    numpy.ndarray
        Float32, ``-sum(p log p) / log(number of classes)`` (Shannon 1948).
    """
    probability = maps if target.kind == "classes" else np.stack([maps[0], 1 - maps[0]])
    safe = np.clip(probability, np.finfo(np.float32).tiny, 1)
    return np.asarray(-(safe * np.log(safe)).sum(axis=0) / np.log(len(safe)), np.float32)


@dataclass(frozen=True)
class KeptMaps:
    """The maps of a run that ended well, and what they belong to."""

    outcome: Outcome
    maps: Maps

    @property
    def axes(self) -> str:
        """Axes of the labels."""
        return self.outcome.finished.axes

    def whole(self, options: SegmentOptions) -> Labels:
        """Return the labels that a run with these options would have made."""
        from napari_tiled_unet.segmentation import decode_maps

        return decode_maps(self.maps, self.axes, self.outcome.model, options)

    def in_layer(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return values with the axes of the labels as the data of a layer over the image; a view."""
        order = self.outcome.order
        return labels_for_layer(values, self.axes, labels_axes(order.axes, rgb=bool(order.layer.rgb)))

    def placement(self) -> dict[str, Any]:
        """Return where a layer of the labels lies, as arguments of a layer."""
        order, finished = self.outcome.order, self.outcome.finished
        offset = dict(zip(finished.axes, finished.offset, strict=False))
        return labels_placement(order.layer, order.axes, offset, order.options.level)

    def plane(self, box: tuple[slice | int, ...], options: SegmentOptions) -> Labels:
        """Return the labels of a box of the maps, of its planes if it is one of a volume."""
        return self.outcome.model.spec.target.decode(np.asarray(self.maps[(slice(None), *box)]), options)

    def names(self) -> tuple[str, ...]:
        """Return the names of the maps."""
        return self.outcome.model.spec.target.channels

    def image_layers(self) -> list[napari.layers.Image]:
        """Return a layer per map, over the image; the maps are not copied."""
        return [self._layer(values, name, "viridis") for values, name in zip(self.maps, self.names(), strict=True)]

    def uncertainty(self) -> Maps:
        """Return the entropy of the whole image, frame by frame."""
        found = np.zeros(self.maps.shape[1:], np.float32)
        for position in np.ndindex(found.shape[:-2]):
            found[position] = entropy(np.asarray(self.maps[(slice(None), *position)]), self.outcome.model.spec.target)
        return found

    def uncertainty_layer(self, values: Maps) -> napari.layers.Image:
        """Return what :meth:`uncertainty` gave as a layer over the image."""
        return self._layer(values, "uncertainty", "magma")

    def spread_layer(self, values: Maps) -> napari.layers.Image:
        """Return the spread over flips as a layer over the image; 0.5 is the most that values within 0 to 1 have."""
        return self._layer(values, "spread over flips", "magma", largest=0.5)

    def _layer(self, values: Maps, name: str, colormap: str, largest: float = 1.0) -> napari.layers.Image:
        from napari.layers import Image

        return Image(
            self.in_layer(values),
            name=f"{self.outcome.order.layer.name} {name}",
            colormap=colormap,
            contrast_limits=(0, largest),
            blending="additive",
            metadata={SHOWN: True},
            **self.placement(),
        )


def renumbered(old: Labels, new: Labels, free: int) -> Labels:
    """Return ``new`` with the numbers of ``old`` where its objects were there before.

    An object is what it was at its first voxel; of two that were one, the first keeps the
    number. What is new is counted from ``free``.

    Parameters
    ----------
    old, new : numpy.ndarray
        Labels of the same shape.
    free : int
        First number that nothing has.
    """
    from napari_tiled_unet.viewer.live import seen_as

    table = seen_as(old, new)
    _, firsts = np.unique(table, return_index=True)
    fresh = np.ones(len(table), bool)
    fresh[firsts] = table[firsts] == 0
    fresh[0] = False
    table[fresh] = free + np.arange(np.count_nonzero(fresh))
    return table[new].astype(np.uint32)
