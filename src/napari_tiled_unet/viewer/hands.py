"""Whose a Labels layer is at the moment: a run's that paints it, or the user's who edited it; no Qt.

All of it is for the main thread, as layers are.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from napari.utils.events import EventEmitter

if TYPE_CHECKING:
    import napari.layers

claims = EventEmitter(type_name="claims")
"""Emitted when a run takes a layer in hand, or lets go of it."""
_claimed: WeakSet[Any] = WeakSet()
_followed: WeakSet[Any] = WeakSet()
_edited: WeakSet[Any] = WeakSet()
_ours: WeakSet[Any] = WeakSet()


def claim(layer: napari.layers.Layer) -> None:
    """Take a layer in hand for a run: it is segmented, or painted."""
    _claimed.add(layer)
    claims()


def release(layer: napari.layers.Layer) -> None:
    """Let go of a layer that a run had in hand."""
    if layer in _claimed:
        _claimed.discard(layer)
        claims()


def is_claimed(layer: Any) -> bool:
    """Return whether a run has a layer in hand."""
    return layer in _claimed


def claimed_text(labels: napari.layers.Labels) -> str:
    """Return why labels cannot be used yet, one sentence; empty where they can."""
    return f"a run is making {labels.name!r}; wait until it ends, or cancel it" if is_claimed(labels) else ""


def follow_edits(labels: napari.layers.Labels) -> None:
    """Notice from now on when a Labels layer is painted in, or its data are replaced, by another hand than ours."""
    if labels not in _followed:
        _followed.add(labels)
        labels.events.paint.connect(_note)
        labels.events.data.connect(_note)


def _note(event: Any) -> None:
    if event.source not in _ours:
        _edited.add(event.source)


@contextlib.contextmanager
def own_hand(labels: napari.layers.Labels) -> Iterator[None]:
    """Change a Labels layer without that counting as an edit."""
    within = labels in _ours
    _ours.add(labels)
    try:
        yield
    finally:
        if not within:
            _ours.discard(labels)


def is_edited(labels: napari.layers.Labels) -> bool:
    """Return whether a Labels layer that is followed was edited; also while a brush is still down."""
    # napari has no event for a stroke that has begun, and no public name for what it keeps of it.
    return labels in _followed and (labels in _edited or bool(getattr(labels, "_staged_history", ())))
