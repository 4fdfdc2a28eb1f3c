"""Rows of the form as magicgui widgets that stay narrow."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakMethod

from magicgui.types import FileDialogMode
from magicgui.widgets import CheckBox, ComboBox, Container, FileEdit, Label, LineEdit, PushButton, Widget
from qtpy.QtCore import QEvent, QObject, QSize, Qt
from qtpy.QtGui import QIcon, QShowEvent
from qtpy.QtWidgets import QComboBox, QFrame, QLabel, QScrollArea, QSizePolicy, QWidget

from napari_tiled_unet.viewer.form import AUTOMATIC, text_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from napari_tiled_unet.viewer.form import Choice, Row

_ICONS = Path(__file__).with_name("icons")


class DropDown(ComboBox):
    """A drop-down that never asks for more width than a narrow dock has.

    Parameters
    ----------
    name, label, tooltip : str
        As for any magicgui widget.
    """

    def __init__(self, *, name: str, label: str, tooltip: str = "") -> None:
        self._offered: tuple[Choice, ...] = ()
        super().__init__(choices=lambda _: self._offered, name=name, label=label, tooltip=tooltip)
        box: QComboBox = self.native
        box.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        box.setMinimumContentsLength(6)
        box.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)

    def offer(self, choices: Sequence[Choice], value: Any) -> None:
        """Replace the choices and the chosen value, silently."""
        with self.changed.blocked():
            if tuple(choices) != self._offered:
                self._offered = tuple(choices)
                # magicgui keeps the old order of those that stay; start anew.
                self.native.blockSignals(True)
                self.native.clear()
                self.native.blockSignals(False)
                self.reset_choices()
            if self._offered and self.value != value:
                self.value = value

    def grey(self, reasons: Mapping[Any, str]) -> None:
        """Grey the choices that cannot be taken; the reason is their tooltip."""
        items = self.native.model()
        for place, (_, value) in enumerate(self._offered):
            items.item(place).setEnabled(value not in reasons)
            self.native.setItemData(place, reasons.get(value, ""), Qt.ItemDataRole.ToolTipRole)

    def rename_automatic(self, text: str) -> None:
        """Show ``text`` for the automatic choice, if there is one."""
        self.offer([(text if value == AUTOMATIC else shown, value) for shown, value in self._offered], self.value)


def row_widget(row: Row) -> Widget:
    """Return the widget of an option; drop-downs that depend on layer or model start empty."""
    if row.kind == "check":
        return CheckBox(value=bool(row.default), name=row.name, text=row.label, tooltip=row.tooltip)
    if row.kind == "choice":
        drop_down = DropDown(name=row.name, label=row.label, tooltip=row.tooltip)
        default = row.default if row.default is not None else AUTOMATIC
        if row.choices:
            drop_down.offer(row.choices, default)
        return drop_down
    line = LineEdit(value=text_of(row.default), name=row.name, label=row.label, tooltip=row.tooltip)
    line.native.setMinimumWidth(60)
    return line


def show_meaning(widget: Widget, text: str) -> None:
    """Show what an empty row means, in the row."""
    if isinstance(widget, LineEdit):
        widget.native.setPlaceholderText(text)
    elif isinstance(widget, DropDown):
        widget.rename_automatic(text)


def sentence(name: str, tooltip: str = "") -> Label:
    """Return a line of text as wide as there is room, which wraps only where it must."""
    label = Label(name=name, label="", value="", tooltip=tooltip)
    label.native.setWordWrap(True)
    label.native.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Preferred)
    return label


def side_by_side(*widgets: Widget, label: str = "", name: str = "") -> Container[Widget]:
    """Return widgets beside each other, without a frame."""
    container: Container[Widget] = Container(widgets=widgets, layout="horizontal", labels=False, label=label, name=name)
    container.margins = (0, 0, 0, 0)
    return container


def push_button(text: str, *, name: str, tooltip: str, icon: str) -> PushButton:
    """Return a button with an icon, one of ``icons/*.svg`` without its suffix."""
    button = PushButton(text=text or name, name=name, tooltip=tooltip)
    # magicgui would put the name where there is no text.
    button.native.setText(text)
    button.native.setIcon(QIcon(str(_ICONS / f"{icon}.svg")))
    return button


def folder_row(name: str, label: str, tooltip: str) -> FileEdit:
    """Return a row for the path of a folder."""
    edit = FileEdit(mode=FileDialogMode.EXISTING_DIRECTORY, name=name, label=label, tooltip=tooltip)
    edit.line_edit.value = ""
    edit.line_edit.tooltip, edit.choose_btn.tooltip = tooltip, "choose the folder"
    # magicgui's own words would leave no room for the path.
    edit.choose_btn.text = "…"
    edit.choose_btn.native.setFixedWidth(30)
    return edit


def folding(rows: Sequence[Widget], *, title: str) -> PushButton:
    """Return a button that folds rows out and away; they start folded away."""
    button = PushButton(text=f"▸ {title}", name=title.lower(), tooltip=f"show or hide the {title.lower()} options")
    button.native.setStyleSheet("text-align: left; padding-left: 6px;")
    for row in rows:
        row.visible = False

    def fold() -> None:
        # isHidden and not isVisible, which is also false while the dock itself is hidden.
        opened = rows[0].native.isHidden()
        for row in rows:
            row.visible = opened
        button.text = f"{'▾' if opened else '▸'} {title}"

    button.changed.connect(fold)
    return button


class ScrollingRows(QScrollArea):
    """An area as high as its rows where there is room, which else scrolls up and down, never sideways.

    Parameters
    ----------
    rows : Container
        What is scrolled; only its Qt half is kept.
    """

    def __init__(self, rows: Container[Widget]) -> None:
        super().__init__()
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.setWidgetResizable(True)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Maximum)
        self.setWidget(rows.native)

    def sizeHint(self) -> QSize:  # noqa: N802
        """Return the size of the rows; Qt's own hint stops at 24 lines."""
        content = self.widget()
        # The viewer's theme draws a border around it.
        return content.sizeHint().grownBy(self.contentsMargins()) if content else super().sizeHint()

    def showEvent(self, event: QShowEvent | None) -> None:  # noqa: N802
        """Line the rows up behind the widest label, in the font that the viewer's theme gave them."""
        super().showEvent(event)
        labels = self.findChildren(QLabel)
        for label in labels:
            label.ensurePolished()
        widest = max((label.sizeHint().width() for label in labels), default=0)
        for label in labels:
            label.setMinimumWidth(widest)

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:  # noqa: N802
        """Follow the rows as they fold out and away."""
        if event and event.type() == QEvent.Type.LayoutRequest:
            self.updateGeometry()
        return super().eventFilter(watched, event)


class Departure(QObject):
    """Tells when a widget leaves its dock, and when Qt destroys it.

    Parameters
    ----------
    widget : QWidget
        The widget, which owns this object.
    undocked, destroyed : callable
        Called without arguments.
    """

    def __init__(self, widget: QWidget, *, undocked: Callable[[], None], destroyed: Callable[[], None]) -> None:
        super().__init__(widget)
        # Weak, or the connection would keep the listener and with it the viewer.
        self._undocked, gone = WeakMethod(undocked), WeakMethod(destroyed)
        widget.installEventFilter(self)
        widget.destroyed.connect(lambda: _call(gone))

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:  # noqa: N802
        """Look for the loss of the parent; every event goes on."""
        if event and watched and event.type() == QEvent.Type.ParentChange and watched.parent() is None:
            _call(self._undocked)
        return False


def _call(method: WeakMethod[Callable[[], None]]) -> None:
    alive = method()
    if alive is not None:
        alive()
