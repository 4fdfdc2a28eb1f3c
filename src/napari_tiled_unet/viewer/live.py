"""Labels as they come: each tile at once, the final ones at the end, in one layer; no Qt.

Labels of a tile are provisional: an object that a tile cuts has two numbers until the frame is
through. When the final labels come, every object keeps the colour in which it was first seen.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from napari_tiled_unet.events import Event, Finished, Planned, TileDone
from napari_tiled_unet.viewer.hands import claim, follow_edits, is_edited, own_hand, release
from napari_tiled_unet.viewer.layers import METADATA_KEY, labels_axes, labels_for_layer, labels_placement
from napari_tiled_unet.viewer.measuring import forget_features, show_features, table_of
from napari_tiled_unet.viewer.results import mark_of, own_result

if TYPE_CHECKING:
    from collections.abc import Sequence

    import napari.layers
    from napari.components import LayerList

    from napari_tiled_unet.options import SegmentOptions
    from napari_tiled_unet.targets import Target
    from napari_tiled_unet.tiling import Box

Labels = npt.NDArray[Any]

# napari holds the colours of labels in a texture of at most this many, and shows labels of
# two bytes as they lie in memory; wider ones it would convert, a whole plane at each change.
_MOST_COLOURS = 2**16 - 1
# Voxels changed at once: about 10 ms of the main thread.
_AT_ONCE = 2**15


@dataclass(frozen=True)
class TileLabels(Event):
    """The provisional labels of a tile, or of a part of it, where they are not background.

    Attributes
    ----------
    frame : int
        Index of the frame.
    position : tuple of int
        Of the frame along the leading axes of the labels.
    where : tuple of numpy.ndarray
        Indices in the frame, on the image's grid, one array per axis.
    values : numpy.ndarray
        The label at each of them, from 1; of objects, each of the run has a number of its own.
    middles : numpy.ndarray
        Which of the voxels stand for an object; none of classes.
    """

    frame: int
    position: tuple[int, ...]
    where: tuple[npt.NDArray[np.intp], ...]
    values: Labels
    middles: npt.NDArray[np.intp]


def tile_labels(
    done: TileDone, target: Target, options: SegmentOptions, planned: Planned, numbered: int
) -> tuple[list[TileLabels], int]:
    """Return the provisional labels of a tile whose maps came along, in parts, and how many are numbered then.

    Parameters
    ----------
    done : TileDone
        The tile.
    target, options, planned : Target, SegmentOptions, Planned
        How labels are made of it, and where it lies.
    numbered : int
        How many objects had a number before.
    """
    assert done.maps is not None
    n = len(planned.plan.shape)
    small = options.changed(min_size=0) if target.kind == "objects" else options
    found = on_image(target.decode(done.maps, small), done.tile.write, planned.shape[-n:], planned.plan.shape)
    box, labels = found
    local = np.nonzero(labels)
    where = tuple(index + side.start for index, side in zip(local, box, strict=True))
    values = labels[local].astype(np.uint32)
    middles = middles_of(values) if target.kind == "objects" else np.zeros(0, np.intp)
    values += np.uint32(numbered if len(middles) else 0)
    parts = []
    for start in range(0, max(1, len(values)), _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        within = middles[(middles >= start) & (middles < part.stop)] - start
        parts.append(TileLabels(done.frame, done.position, tuple(axis[part] for axis in where), values[part], within))
    return parts, numbered + len(middles)


def middles_of(values: Labels) -> npt.NDArray[np.intp]:
    """Return the place of the middle one of the voxels of every label, from 1 to the largest.

    In the order of the array the middle voxel of a round object lies well inside, where other
    labels of the same object will be too.
    """
    count = np.bincount(values)[1:] if len(values) else np.zeros(0, np.intp)
    middles = (np.cumsum(count) - (count + 1) // 2)[count > 0]
    return np.asarray(np.argsort(values, kind="stable")[middles], np.intp)


def nearest_voxels(size: int, of: int) -> npt.NDArray[np.intp]:
    """Return which of ``of`` voxels lies nearest to each of ``size`` over the same length."""
    return ((np.arange(size) + 0.5) * of / size).astype(np.intp)


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
        nearest = nearest_voxels(size, grid)
        inside = np.flatnonzero((nearest >= side.start) & (nearest < side.stop))
        box.append(slice(int(inside[0]), int(inside[-1]) + 1) if inside.size else slice(0, 0))
        picked.append(nearest[inside] - side.start)
    return tuple(box), labels[np.ix_(*picked)]


class LiveLabels:
    """The Labels layer of a run, from its first tile to its end.

    It is the layer of the image's earlier run where there is one, which comes back as it was
    if the run does not end well; a new one if the user edited that.

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
    level : int
        The resolution of a multiscale image that they are of.

    Attributes
    ----------
    layer : napari.layers.Labels
        The layer.
    left : str or None
        Name of the layer of the earlier run, if it was edited and therefore left alone.
    """

    def __init__(
        self,
        layers: LayerList,
        source: napari.layers.Image,
        axes: str,
        planned: Planned,
        offset: dict[str, int],
        *,
        level: int = 0,
    ) -> None:
        from napari.layers import Labels

        self._layers, self._source, self._axes, self._given = layers, source, axes, planned.axes
        self._seen: list[tuple[tuple[npt.NDArray[np.intp], ...], Labels]] = []
        self._wanted = labels_axes(axes, rgb=bool(source.rgb))
        self._data = np.zeros(planned.shape, np.uint16)
        shown = labels_for_layer(self._data, self._given, self._wanted)
        self._level = level
        placement = labels_placement(source, axes, offset, level)
        earlier = own_result(layers, source)
        if earlier is not None:
            put_back(earlier)
        self.left: str | None = None
        if earlier is not None and is_edited(earlier):
            self.left, earlier = earlier.name, None
        self._replaced = earlier if earlier is not None and earlier.ndim != shown.ndim else None
        self._before: dict[str, Any] | None = None
        if earlier is not None and self._replaced is None:
            self._before = {"data": earlier.data, **{name: getattr(earlier, name) for name in placement}}
            self._table = table_of(earlier)
            self.layer = earlier
            put(earlier, shown, placement)
            claim(self.layer)
        else:
            self.layer = Labels(shown, name=f"{source.name} labels", **placement)
            claim(self.layer)
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
        # Counted round: past the last colour a number is used again, as its colour would be.
        values = ((tile.values - 1) % _MOST_COLOURS + 1).astype(np.uint16)
        if len(tile.middles):
            index = self._place(tile.position, tuple(axis[tile.middles] for axis in tile.where))
            self._seen.append((index, values[tile.middles]))
        index = self._index(tile.position, tile.where)
        if not self.layer.visible:
            # napari left its slice at the old shape, and makes a new one when the layer is shown.
            self.layer.data[index] = values
            return
        with own_hand(self.layer):
            self.layer.data_setitem(index, values)
        # Nobody will want to undo a tile, and its voxels would be kept for that.
        self.layer._reset_history()

    def _place(
        self, position: tuple[int, ...], where: tuple[npt.NDArray[np.intp], ...]
    ) -> tuple[npt.NDArray[np.intp], ...]:
        """Return indices in the labels of the run."""
        size = len(where[0])
        return *(np.full(size, p, np.intp) for p in position), *where

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
        if self._seen:
            keep_colours(self.layer, self._first_seen(finished.labels))
        forget_features(self.layer)
        offset = dict(zip(finished.axes, finished.offset, strict=False))
        placement = labels_placement(self._source, self._axes, offset, self._level)
        put(self.layer, labels_for_layer(finished.labels, finished.axes, self._wanted), placement)
        self.layer.metadata[METADATA_KEY] = mark_of(self._source, self.layer, finished, more)
        self._hand_over()
        return self.layer

    def _hand_over(self) -> None:
        self.layer.editable = True
        follow_edits(self.layer)
        release(self.layer)

    def _first_seen(self, labels: Labels) -> npt.NDArray[np.int64]:
        """Return, for every final label, as which of its provisional ones it was seen first; 0 for none.

        By one voxel of each: to compare all of them would hold the main thread up.
        """
        found = np.zeros(int(labels.max(initial=0)) + 1, np.int64)
        for index, values in reversed(self._seen):
            # What was painted over, when memory ran out and a frame began anew, is not seen any more.
            there = self._data[index] == values
            found[labels[index][there][::-1]] = values[there][::-1]
        found[0] = 0
        return found

    def withdraw(self) -> None:
        """Leave every layer as it was before the run."""
        try:
            if self.is_there and self._before is None:
                self._layers.remove(self.layer)
            elif self.is_there and self._before is not None:
                data = self._before.pop("data")
                put(self.layer, data, self._before)
                if self._table is not None:
                    show_features(self.layer, self._table)
        finally:
            self._hand_over()


def put(layer: napari.layers.Labels, data: Labels, placement: dict[str, Any]) -> None:
    """Put other labels into a layer, at another place; from :func:`labels_placement`."""
    with own_hand(layer):
        layer.data = data
    for name, value in placement.items():
        if not np.array_equal(np.asarray(getattr(layer, name)), np.asarray(value)):
            setattr(layer, name, value)


# Of layers of which a part is painted anew before the rest: their labels and table from before.
_aside: WeakKeyDictionary[Any, tuple[Labels, Any]] = WeakKeyDictionary()


def set_aside(layer: napari.layers.Labels) -> None:
    """Keep the labels of a layer and let it have a copy with room for more numbers, a part of which will be painted."""
    if layer in _aside:
        return
    _aside[layer] = layer.data, table_of(layer)
    with own_hand(layer):
        layer.data = layer.data.astype(np.uint32)


def replace_all(layer: napari.layers.Labels, data: Labels) -> None:
    """Put other labels into a layer at its place; what was set aside is not needed any more."""
    _aside.pop(layer, None)
    forget_features(layer)
    with own_hand(layer):
        layer.data = data


def put_back(layer: napari.layers.Labels) -> None:
    """Let a layer of which a part was painted anew be as it was, unless the user edited it since."""
    data, table = _aside.pop(layer, (None, None))
    if data is None or is_edited(layer):
        return
    with own_hand(layer):
        layer.data = data
    if table is not None:
        show_features(layer, table)


def keep_colours(layer: napari.layers.Labels, present: npt.NDArray[np.int64]) -> None:
    """Give every object the colour of the label as which it was seen before; objects that are new any.

    Only where the layer's colours are napari's cycle, and there are not more objects than it
    can hold colours.

    Parameters
    ----------
    layer : napari.layers.Labels
        Whose colours are set, for labels that it does not have yet.
    present : numpy.ndarray
        For every label to come, the label that it had; 0 for none.
    """
    from napari.utils.colormaps import CyclicLabelColormap

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
