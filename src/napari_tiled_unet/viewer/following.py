"""One layer at a time, followed by its events; no Qt."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import ref

if TYPE_CHECKING:
    from collections.abc import Callable

    import napari.layers

PLACE = ("scale", "translate", "rotate", "shear", "affine", "units")
"""Events of a layer that is moved or resized in the world."""


class Following:
    """Calls when the layer that is followed changes.

    Parameters
    ----------
    events : sequence of str
        Names of the events that count.
    action : callable
        A method, called without arguments.
    """

    def __init__(self, events: tuple[str, ...], action: Callable[[], None]) -> None:
        self._events, self._action = events, action
        self._layer: ref[Any] | None = None

    def follow(self, layer: napari.layers.Layer | None) -> None:
        """Follow a layer instead of the one before; None for none."""
        before = self._layer() if self._layer is not None else None
        if before is layer:
            return
        if before is not None:
            for name in self._events:
                getattr(before.events, name).disconnect(self._action)
        self._layer = None if layer is None else ref(layer)
        if layer is not None:
            for name in self._events:
                getattr(layer.events, name).connect(self._action)
