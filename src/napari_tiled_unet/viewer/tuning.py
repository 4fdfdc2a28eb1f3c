"""Sliders that make other labels of the maps that are there: the view at once, all on release."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from magicgui.widgets import Container, FloatSlider, Slider, Widget
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QAbstractSlider, QMenu

from napari_tiled_unet.errors import TiledUnetError
from napari_tiled_unet.recipe import recipe_text
from napari_tiled_unet.viewer.following import Following
from napari_tiled_unet.viewer.hands import follow_edits, is_claimed, is_edited, own_hand
from napari_tiled_unet.viewer.layers import METADATA_KEY, labels_axes
from napari_tiled_unet.viewer.live import keep_colours, put_back, replace_all, seen_as, set_aside
from napari_tiled_unet.viewer.maps import KeptMaps, renumbered
from napari_tiled_unet.viewer.regions import region_of_view, view_of
from napari_tiled_unet.viewer.repeat import add_entry
from napari_tiled_unet.viewer.results import paintable
from napari_tiled_unet.viewer.rows import push_button, side_by_side
from napari_tiled_unet.viewer.running import left_text, tell
from napari_tiled_unet.viewer.worker import Latest

if TYPE_CHECKING:
    from collections.abc import Callable

    import napari.layers
    import napari.viewer
    import numpy.typing as npt

    from napari_tiled_unet.options import SegmentOptions

# Milliseconds after a move of a slider until the view and, where nobody holds it, all is decoded.
_VIEW_AFTER, _ALL_AFTER = 30, 500
_LARGEST_SIZE = 1000


class Tune(Container[Widget]):
    """Sliders of the decoding, and the layers that a run can show beside its labels.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
        Whose view comes first.
    on_change : callable
        Given the options as tuned, once all labels are made anew with them.
    say : callable
        Shows a sentence.
    """

    def __init__(
        self, viewer: napari.viewer.Viewer, on_change: Callable[[SegmentOptions], None], say: Callable[[str], None]
    ) -> None:
        super().__init__(labels=True, name="tune")
        self._viewer, self._on_change, self._say = viewer, on_change, say
        self.kept: KeptMaps | None = None
        self._mark: dict[str, Any] | None = None  # what the labels of the maps say of themselves
        self._all_with: SegmentOptions | None = None  # what all labels were made anew with last
        self._image = Following(("data",), self._outdate)
        # One each: a newer question would throw away the other's that waits.
        self._decoder, self._painter, self._entropy = Latest(), Latest(), Latest()
        self._build()
        self._view_soon, self._all_soon = QTimer(self.native), QTimer(self.native)
        for timer, action in ((self._view_soon, self.decode_view), (self._all_soon, self._decode_if_let_go)):
            timer.setSingleShot(True)
            timer.timeout.connect(action)

    def _build(self) -> None:
        again = "makes labels anew from the maps of the last run, without the network"
        self._sliders: dict[str, Any] = {
            "foreground_threshold": FloatSlider(
                min=0.01, max=0.99, step=0.01, label="foreground", tooltip=f"higher: smaller objects; {again}"
            ),
            "seed_threshold": FloatSlider(
                min=0.01, max=0.99, step=0.01, label="seeds", tooltip=f"higher: fewer, clearer objects; {again}"
            ),
            "min_size": Slider(
                min=0, max=_LARGEST_SIZE, label="smallest", tooltip=f"voxels that an object needs; {again}"
            ),
        }
        for name, slider in self._sliders.items():
            slider.changed.connect(partial(self._moved, name))
            self.track(name).sliderReleased.connect(self.decode_all)
            slider.native.setMinimumWidth(60)
            # magicgui gives the tooltip to the slider alone, not to its number.
            slider.native.setToolTip(slider.tooltip)
        layers = push_button(
            "Show", name="show", tooltip="maps and uncertainty of the last run as layers", icon="layers"
        )
        self.menu = QMenu(layers.native)
        add_entry(self.menu, "Maps", "what the network gave, an image layer each", self.show_maps)
        add_entry(self.menu, "Uncertainty", "how unsure the network is, as entropy from 0 to 1", self.show_uncertainty)
        flips = "how much the maps differ when the image is mirrored, from 0 to 0.5"
        self.spread_entry = add_entry(self.menu, "Spread over flips", flips, self.show_spread)
        layers.native.setMenu(self.menu)
        self.extend([*self._sliders.values(), side_by_side(layers, label="layers", name="layers")])
        self.margins = (0, 0, 0, 0)

    # --- what is tuned ----------------------------------------------------------------

    def slider(self, name: str) -> Any:
        """Return the slider of an option."""
        return self._sliders[name]

    def track(self, name: str) -> QAbstractSlider:
        """Return the part of a slider that the mouse holds."""
        found: QAbstractSlider | None = self._sliders[name].native.findChild(QAbstractSlider)
        assert found is not None
        return found

    @property
    def busy(self) -> bool:
        """Whether labels are being made anew, or the uncertainty."""
        timers = self._view_soon.isActive() or self._all_soon.isActive()
        return timers or self._decoder.busy or self._painter.busy or self._entropy.busy

    def offer(self, kept: KeptMaps | None) -> None:
        """Tune another run, or none."""
        self._view_soon.stop()
        self._all_soon.stop()
        if self.kept is not None:
            put_back(self.kept.outcome.labels)
        self.kept = kept
        self._image.follow(None if kept is None else kept.outcome.order.layer)
        if kept is None:
            return
        self._mark = kept.outcome.labels.metadata.get(METADATA_KEY)
        self.spread_entry.setVisible(kept.outcome.finished.spread is not None)
        target, options = kept.outcome.model.spec.target, kept.outcome.order.options
        for name, slider in self._sliders.items():
            slider.visible = target.kind == "objects"
            if target.kind == "objects":
                said_value = getattr(options, name)
                value = getattr(target, name) if said_value is None else said_value
                with slider.changed.blocked():
                    if name == "min_size":
                        slider.max = max(_LARGEST_SIZE, 2 * value)
                    slider.value = min(max(value, slider.min), slider.max)
        self._chosen = options

    def _outdate(self) -> None:
        self.offer(None)

    def close_threads(self) -> None:
        """Hear of nothing any more; labels of which only a part was made anew are as they were."""
        self._image.follow(None)
        kept, self.kept = self.kept, None
        # The window may be half gone, and what showed the layer with it.
        with suppress(RuntimeError):
            if kept is not None:
                put_back(kept.outcome.labels)
        self._decoder.close()
        self._painter.close()
        self._entropy.close()

    def _moved(self, name: str, value: float) -> None:
        if self.kept is None:
            return
        # Of this one alone: the others may show less than was typed, which has more digits or lies past their ends.
        self._chosen = self._chosen.changed(**{name: value if name == "min_size" else round(value, 2)})
        self._view_soon.start(_VIEW_AFTER)
        self._all_soon.start(_ALL_AFTER)

    # --- labels made anew -------------------------------------------------------------

    def decode_view(self) -> None:
        """Make the labels on the screen anew."""
        kept = self.kept
        box = None if kept is None else self._view_box(kept)
        if kept is None or box is None:
            return
        options = self._chosen
        self._painter.ask(lambda: kept.plane(box, options), lambda labels: self._paint(kept, options, box, labels))

    def _view_box(self, kept: KeptMaps) -> tuple[slice | int, ...] | None:
        """Return the part of the labels that is on the screen, planes apart; None if none is."""
        order, axes, shape = kept.outcome.order, kept.axes, kept.maps.shape[1:]
        try:
            region = region_of_view(order.layer, order.axes, view_of(self._viewer), "yx", order.options.level)
        except TiledUnetError:
            return None
        offset = dict(zip(axes, kept.outcome.finished.offset, strict=True))
        ranges = {a: (start, stop) for a, start, stop in region.ranges}
        box: list[slice | int] = []
        for axis, size in zip(axes, shape, strict=True):
            start, stop = ranges.get(axis, (0, None))
            low = max(0, start - offset[axis])
            high = size if stop is None else min(size, stop - offset[axis])
            if high <= low:
                return None
            box.append(low if axis not in "yx" and high - low == 1 else slice(low, high))
        # More than a plane is on the screen: a view in 3D waits for all.
        return tuple(box) if sum(isinstance(side, slice) for side in box) == 2 else None

    @property
    def is_current(self) -> bool:
        """Whether the labels of the maps that are kept are in the viewer, and no other run wrote them since."""
        if self.kept is None:
            return False
        labels = self.kept.outcome.labels
        return labels in self._viewer.layers and labels.metadata.get(METADATA_KEY) is self._mark

    def _is_open(self, kept: KeptMaps) -> bool:
        """Whether labels of these maps may still be shown: they are tuned, and their layer is there and of no run."""
        now = self.kept
        if now is None or now.maps is not kept.maps:
            return False
        return self.is_current and not is_claimed(now.outcome.labels)

    def _own_layer(self) -> napari.layers.Labels:
        """Return the layer of the labels that are tuned: a new one from the moment that the user edited the old."""
        from napari.layers import Labels

        kept = self.kept
        assert kept is not None
        old = kept.outcome.labels
        if not is_edited(old):
            return old
        name = f"{kept.outcome.order.layer.name} labels"
        layer = Labels(_shown(kept).copy(), name=name, colormap=old.colormap, **kept.placement())
        self._mark = {**old.metadata[METADATA_KEY], "layer": str(layer.unique_id)}
        layer.metadata[METADATA_KEY] = self._mark
        follow_edits(layer)
        self.kept = replace(kept, outcome=replace(kept.outcome, labels=layer))
        self._viewer.layers.append(layer)
        self._say(left_text(old.name, layer.name))
        return layer

    def _paint(self, kept: KeptMaps, options: SegmentOptions, box: tuple[slice | int, ...], labels: Any) -> None:
        if isinstance(labels, Exception) or not self._is_open(kept):
            return
        if options is self._all_with or (options is not self._chosen and not self._view_soon.isActive()):
            return
        layer = self._own_layer()
        # Of a hidden one nothing is on the screen, and napari would not slice it anew.
        if layer.visible:
            self._paint_part(layer, kept, box, labels)

    def _paint_part(
        self, layer: napari.layers.Labels, kept: KeptMaps, box: tuple[slice | int, ...], labels: Any
    ) -> None:
        order = kept.outcome.order
        wanted = labels_axes(order.axes, rgb=bool(order.layer.rgb))
        own = [kept.axes.index(axis) for axis in wanted if axis != "c"]
        in_order = np.squeeze(layer.data, wanted.index("c")) if "c" in wanted else layer.data
        shown = in_order.transpose(np.argsort(own))
        part = shown[box]
        new = renumbered(part, labels, int(shown.max(initial=0)) + 1)
        changed = np.nonzero(part != new)
        if not len(changed[0]):
            return
        local = iter(changed)
        by_axis = {
            axis: next(local) + side.start if isinstance(side, slice) else np.full(len(changed[0]), side)
            for axis, side in zip(kept.axes, box, strict=True)
        }
        index = tuple(by_axis.get(axis, np.zeros(len(changed[0]), np.intp)) for axis in wanted)
        set_aside(layer)
        with own_hand(layer):
            layer.data_setitem(index, new[changed])
        layer._reset_history()

    def _decode_if_let_go(self) -> None:
        if any(self.track(name).isSliderDown() for name in self._sliders):
            self._all_soon.start(_ALL_AFTER)
        else:
            self.decode_all()

    def decode_all(self) -> None:
        """Make all labels anew."""
        kept = self.kept
        if kept is None:
            return
        self._view_soon.stop()
        self._all_soon.stop()
        options = self._chosen
        shown = _shown(kept)

        def decode() -> tuple[Any, Any]:
            data = kept.in_layer(paintable(kept.whole(options)))
            # Here, since to compare all voxels would hold the main thread up.
            return data, seen_as(shown, data)

        self._decoder.ask(decode, lambda found: self._replace(kept, options, found))

    def _replace(self, kept: KeptMaps, options: SegmentOptions, found: Any) -> None:
        if isinstance(found, Exception):
            tell(found)
            return
        if options is not self._chosen or not self._is_open(kept):
            return
        layer, (data, present) = self._own_layer(), found
        keep_colours(layer, present)
        replace_all(layer, data)
        self._all_with = options
        mark = dict(layer.metadata[METADATA_KEY])
        tuned = {name: getattr(options, name) for name in self._sliders if getattr(options, name) is not None}
        mark |= {
            "options": {**mark["options"], **tuned},
            "exact": {**mark["exact"], **tuned},
            "recipe": recipe_text(options),
        }
        self._mark = layer.metadata[METADATA_KEY] = mark
        self._on_change(options)

    # --- layers -----------------------------------------------------------------------

    def show_maps(self) -> None:
        """Show the maps as image layers."""
        if self.kept is not None:
            self._viewer.layers.extend(self.kept.image_layers())

    def show_uncertainty(self) -> None:
        """Show how unsure the network is as an image layer."""
        kept = self.kept
        if kept is not None:
            self._entropy.ask(kept.uncertainty, lambda values: self._add(kept, values))

    def show_spread(self) -> None:
        """Show how much the maps differed over the flips of the run as an image layer."""
        if self.kept is not None and self.kept.outcome.finished.spread is not None:
            self._viewer.layers.append(self.kept.spread_layer(self.kept.outcome.finished.spread))

    def _add(self, kept: KeptMaps, values: Any) -> None:
        if isinstance(values, Exception):
            tell(values)
        else:
            self._viewer.layers.append(kept.uncertainty_layer(values))


def _shown(kept: KeptMaps) -> npt.NDArray[Any]:
    """Return the labels that are tuned as they are shown; none where the user put other data in their place."""
    blank = kept.in_layer(np.zeros(kept.maps.shape[1:], np.uint16))
    data = np.asarray(kept.outcome.labels.data)
    return data if data.shape == blank.shape else blank
