"""Every control of every widget says what it does, and every button with words shows it."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

import pytest
from qtpy.QtWidgets import (
    QAbstractButton,
    QAbstractSlider,
    QAbstractSpinBox,
    QComboBox,
    QLineEdit,
    QPushButton,
    QScrollBar,
    QWidget,
)

if TYPE_CHECKING:
    from pathlib import Path

    from napari.viewer import Viewer

WIDGETS = {
    "segment_widget": "SegmentWidget",
    "batch_widget": "BatchWidget",
    "train_widget": "TrainWidget",
    "evaluate_widget": "EvaluateWidget",
    "improve_widget": "ImproveWidget",
    "measure_widget": "MeasureWidget",
    "inside_widget": "InsideWidget",
}
# What Qt makes itself: scroll bars, and the fields inside of boxes.
_PARTS = (QComboBox, QAbstractSpinBox)


def controls(of: QWidget) -> list[QWidget]:
    """Return what a user can operate in a widget."""
    kinds = (QAbstractButton, QComboBox, QLineEdit, QAbstractSlider, QAbstractSpinBox)
    found = [child for kind in kinds for child in of.findChildren(kind)]
    return [child for child in found if not isinstance(child, QScrollBar) and not isinstance(child.parent(), _PARTS)]


def explained(control: QWidget, within: QWidget) -> bool:
    """Return whether a control, or the row that it is a part of, has a tooltip."""
    here: QWidget | None = control
    while here is not None and here is not within:
        if here.toolTip():
            return True
        here = here.parentWidget()
    return False


@pytest.mark.parametrize("module", WIDGETS)
def test_every_control_has_a_tooltip_and_every_button_an_icon(viewer: Viewer, user_models: Path, module: str) -> None:
    made = getattr(import_module(f"napari_tiled_unet.viewer.{module}"), WIDGETS[module])
    widget = made(viewer)
    viewer.window.add_dock_widget(widget, area="right")
    native = widget.native
    found = controls(native)
    assert len(found) > 3
    assert not [(type(c).__name__, c.objectName()) for c in found if not explained(c, native)]
    buttons = [b for b in native.findChildren(QPushButton) if b.text()[:1] not in ("▸", "▾", "…")]
    assert buttons
    for button in buttons:
        # An icon of a file that is missing or no picture is not null before it is drawn.
        assert not button.icon().pixmap(16, 16).isNull(), button.text()
