"""Labels as they come: each tile at once, the final ones at the end, in one layer; no Qt.

Labels of a tile are provisional: an object that a tile cuts has two numbers until the frame is
through. When the final labels come, every object keeps the colour in which it was first seen.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_tiled_unet.events import Event, Finished, Planned, TileDone
from napari_tiled_unet.viewer.layers import METADATA_KEY, labels_axes, labels_for_layer, labels_placement
from napari_tiled_unet.viewer.measuring import forget_features
from napari_tiled_unet.viewer.results import mark_of, own_result

if TYPE_CHECKING:
    from collections.abc import Sequence

    import napari.layers
    from napari.components import LayerList

    from napari_tiled_unet.options import SegmentOptions
    from napari_tiled_unet.targets import Target
    from napari_tiled_unet.tiling import Box

Labels = npt.NDArray[Any]

# napari holds the colours of labels in a texture of at most this many.
_MOST_COLOURS = 2**16 - 1
# Voxels changed at once: about 10 ms of the main thread.
_AT_ONCE = 2**18


@dataclass(frozen=True)
class TileLabels(Event):
    """The provisional labels of a tile, where they are not background.

    Attributes
    ----------
    frame : int
        Index of the frame.
    position : tuple of int
        Of the frame along the leading axes of the labels.
    where : tuple of numpy.ndarray
        Indices in the frame, on the image's grid, one array per axis.
    values : numpy.ndarray
        The label at each of them, from 1.
    """

    frame: int
    position: tuple[int, ...]
    where: tuple[npt.NDArray[np.intp], ...]
    values: Labels


def tile_labels(done: TileDone, target: Target, options: SegmentOptions, planned: Planned) -> TileLabels:
    """Return the provisional labels of a tile whose maps came along."""
    assert done.maps is not None
    n = len(planned.plan.shape)
    small = options.changed(min_size=0) if target.kind == "objects" else options
    found = on_image(target.decode(done.maps, small), done.tile.write, planned.shape[-n:], planned.plan.shape)
    box, labels = found
    local = np.nonzero(labels)
    where = tuple(index + side.start for index, side in zip(local, box, strict=True))
    return TileLabels(done.frame, done.position, where, labels[local].astype(np.uint32))


def on_image(
    labels: Labels, write: Box, image: Sequence[int], network: Sequence[int]
) -> tuple[tuple[slice, ...], Labels]:
    """Return the labels of a tile on the image's grid, by the nearest voxel, and where they lie.

    Parameters
    ----------
    labels : numpy.ndarray
        Of the box ``write``, on the network's grid.
    write : tuple of slice
        Where the tile lies on the network's grid.
    image, network : sequence of int
        Shapes of the frame on the two grids.
    """
    if tuple(image) == tuple(network):
        return tuple(write), labels
    box, picked = [], []
    for side, size, grid in zip(write, image, network, strict=True):
        nearest = ((np.arange(size) + 0.5) * grid / size).astype(np.intp)
        inside = np.flatnonzero((nearest >= side.start) & (nearest < side.stop))
        box.append(slice(int(inside[0]), int(inside[-1]) + 1) if inside.size else slice(0, 0))
        picked.append(nearest[inside] - side.start)
    return tuple(box), labels[np.ix_(*picked)]


class LiveLabels:
    """The Labels layer of a run, from its first tile to its end.

    It is the layer of the image's earlier run where there is one, which comes back as it was
    if the run does not end well.

    Parameters
    ----------
    layers : LayerList
        Layers of the viewer.
    source : napari.layers.Image
        The layer that is segmented.
    axes : str
        Axes of its data.
    planned : Planned
        The labels to come.
    offset : dict of str to int
        Where they begin in the image.
    classes : bool
        Whether values are classes, which no tile numbers anew.
    """

    def __init__(
        self,
        layers: LayerList,
        source: napari.layers.Image,
        axes: str,
        planned: Planned,
        offset: dict[str, int],
        *,
        classes: bool = False,
    ) -> None:
        from napari.layers import Labels

        self._layers, self._source, self._axes, self._given = layers, source, axes, planned.axes
        self._classes, self._numbered = classes, 0
        self._wanted = labels_axes(axes, rgb=bool(source.rgb))
        self._data = np.zeros(planned.shape, np.uint32)
        shown = labels_for_layer(self._data, self._given, self._wanted)
        placement = labels_placement(source, axes, offset)
        earlier = own_result(layers, source)
        self._replaced = earlier if earlier is not None and earlier.ndim != shown.ndim else None
        self._before: dict[str, Any] | None = None
        if earlier is not None and self._replaced is None:
            self._before = {"data": earlier.data, **{name: getattr(earlier, name) for name in placement}}
            self.layer = earlier
            _set(earlier, shown, placement)
        else:
            self.layer = Labels(shown, name=f"{source.name} labels", **placement)
            layers.append(self.layer)
        self.layer.editable = False

    @property
    def is_there(self) -> bool:
        """Whether the user has left the layer in the viewer."""
        return self.layer in self._layers

    def paint(self, tile: TileLabels) -> None:
        """Show the labels of a tile; only its voxels are drawn anew."""
        if not self.is_there:
            return
        count = int(tile.values.max(initial=0))
        values = tile.values if self._classes else tile.values + np.uint32(self._numbered)
        self._numbered += count
        for start in range(0, len(values), _AT_ONCE):
            part = slice(start, start + _AT_ONCE)
            index = self._index(tile.position, tuple(axis[part] for axis in tile.where))
            self.layer.data_setitem(index, values[part])
        # Nobody will want to undo a tile, and its voxels would be kept for that.
        self.layer._reset_history()

    def _index(
        self, position: tuple[int, ...], where: tuple[npt.NDArray[np.intp], ...]
    ) -> tuple[npt.NDArray[np.intp], ...]:
        """Return indices in the layer's data, whose axes are in the image's order."""
        size = len(where[0])
        by_axis = {a: np.full(size, p, np.intp) for a, p in zip(self._given, position, strict=False)}
        by_axis |= dict(zip(self._given[len(position) :], where, strict=True))
        return tuple(by_axis.get(axis, np.zeros(size, np.intp)) for axis in self._wanted)

    def finish(self, finished: Finished, more: dict[str, Any]) -> napari.layers.Labels:
        """Show the final labels, in the colours in which their objects were first seen.

        Parameters
        ----------
        finished : Finished
            The end of the run.
        more : dict
            What else is kept in the layer's metadata.
        """
        if self._replaced is not None and self._replaced in self._layers:
            self._layers.remove(self._replaced)
        if not self.is_there:
            self._layers.append(self.layer)
        if not self._classes and self._numbered:
            keep_colours(self.layer, self._data, finished.labels)
        forget_features(self.layer)
        placement = labels_placement(self._source, self._axes, dict(zip(finished.axes, finished.offset, strict=False)))
        _set(self.layer, labels_for_layer(finished.labels, finished.axes, self._wanted), placement)
        self.layer.metadata[METADATA_KEY] = mark_of(self._source, self.layer, finished, more)
        self.layer.editable = True
        return self.layer

    def withdraw(self) -> None:
        """Leave every layer as it was before the run."""
        self.layer.editable = True
        if not self.is_there:
            return
        if self._before is None:
            self._layers.remove(self.layer)
        else:
            data = self._before.pop("data")
            _set(self.layer, data, self._before)


def _set(layer: napari.layers.Labels, data: Labels, placement: dict[str, Any]) -> None:
    layer.data = data
    for name, value in placement.items():
        if not np.array_equal(np.asarray(getattr(layer, name)), np.asarray(value)):
            setattr(layer, name, value)


def keep_colours(layer: napari.layers.Labels, old: Labels, new: Labels) -> None:
    """Give every object of ``new`` the colour that it has in ``old``; objects that are new any.

    Only where the layer's colours are napari's cycle, and there are not more objects than it
    can hold colours. The first voxel of an object, in the order of the array, says which it was.
    """
    from napari.utils.colormaps import CyclicLabelColormap

    present = seen_as(old, new)
    colours = layer.colormap
    if not isinstance(colours, CyclicLabelColormap) or not 0 < len(present) - 1 <= _MOST_COLOURS:
        return
    numbers = np.where(present > 0, present, np.arange(len(present), dtype=np.int64))
    table = np.asarray(colours.map(numbers), dtype=np.float32)
    # Never shorter than napari's own cycle, so that what the user paints stays colourful.
    more = np.arange(len(table), max(len(table), len(colours.colors)), dtype=np.int64)
    if len(more):
        table = np.vstack([table, colours.map(more)])
    table[0] = 0
    layer.colormap = CyclicLabelColormap(colors=table, seed=colours.seed, background_value=colours.background_value)


def seen_as(old: Labels, new: Labels) -> npt.NDArray[np.int64]:
    """Return, for every label of ``new``, the label of ``old`` at its first labelled voxel; 0 for none."""
    both = np.flatnonzero((new > 0) & (old > 0))
    found = np.zeros(int(new.max(initial=0)) + 1, np.int64)
    # Written from the back, so that the first one stays.
    found[new.ravel()[both[::-1]]] = old.ravel()[both[::-1]]
    return found
