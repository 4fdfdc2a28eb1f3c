"""Plugins > Tiled U-Net > Batch: a folder of images in, label files out."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from magicgui.widgets import CheckBox, Container, LineEdit, ProgressBar, Widget
from napari.utils.notifications import show_error
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QAbstractItemView, QFileDialog, QHeaderView, QTableWidget, QTableWidgetItem

from napari_tiled_unet.errors import TiledUnetError
from napari_tiled_unet.model_files import list_models
from napari_tiled_unet.options import SegmentOptions
from napari_tiled_unet.recipe import read_recipe
from napari_tiled_unet.viewer.batching import COLUMNS, BatchState, FileRow, batch_events, batch_of, layers_of
from napari_tiled_unet.viewer.form import option_rows, options_from_rows, rows_of, text_of
from napari_tiled_unet.viewer.preferences import read_preferences, use_model_folder
from napari_tiled_unet.viewer.rows import (
    Departure,
    DropDown,
    ScrollingRows,
    folder_row,
    folding,
    push_button,
    row_widget,
    sentence,
    side_by_side,
)
from napari_tiled_unet.viewer.running import tell
from napari_tiled_unet.viewer.worker import Errand, Failed, Latest

if TYPE_CHECKING:
    import napari.viewer

    from napari_tiled_unet.events import Event
    from napari_tiled_unet.viewer.form import Row

# What depends on a layer in the segment widget is written as text here.
_WRITTEN = ("axes", "channel", "level")
_STEPS = 1000


class BatchWidget(Container[Widget]):
    """Segment the images of a folder into label files.

    Parameters
    ----------
    napari_viewer : napari.viewer.Viewer
        Where finished files are opened.

    Attributes
    ----------
    state : BatchState
        What the table shows.
    """

    def __init__(self, napari_viewer: napari.viewer.Viewer) -> None:
        super().__init__(labels=False)
        self.state = BatchState()
        self._viewer = napari_viewer
        self._errand: Errand | None = None
        self._opening = Latest()
        self._build()
        self.read_models()
        self._listen()
        self._show()

    def _build(self) -> None:
        self._folder = folder_row("folder", "images", "the folder with the images")
        self._pattern = LineEdit(
            value="*", name="pattern", label="which", tooltip="which files: *.tif, or **/*.tif for folders within, too"
        )
        self._out = folder_row("out", "labels to", "folder for the labels; empty is beside each image")
        self._rows: dict[str, Any] = {row.name: _widget(row) for row in option_rows()}
        for name, value in read_preferences().rows.items():
            self._rows[name].value = value
        options = [widget for name, widget in self._rows.items() if name != "model"]
        self._fold = folding(options, title="Options")
        self._overwrite = CheckBox(
            name="overwrite", text="replace results that exist", tooltip="otherwise their images are skipped"
        )
        self._recipe = push_button(
            "Recipe ...", name="recipe", tooltip="fill model and options from a recipe file", icon="read"
        )
        rows: Container[Widget] = Container(
            widgets=[self._folder, self._pattern, self._out, self._rows["model"], self._fold, *options]
        )
        rows.margins = (0, 0, 0, 0)
        self._start = push_button("Start", name="start", tooltip="segment the files, one after the other", icon="run")
        self._cancel = push_button(
            "Cancel", name="cancel", tooltip="stop within a tile; what is done stays", icon="stop"
        )
        self._bar = ProgressBar(name="bar", label="", max=_STEPS, tooltip="how much of the batch is done")
        self._line = sentence("line")
        self._table = _table()
        self.extend([self._overwrite, side_by_side(self._recipe, self._start, self._cancel, name="buttons")])
        self.extend([self._bar, self._line])
        self._form = rows
        self.native.layout().insertWidget(0, ScrollingRows(rows))
        self.native.layout().addWidget(self._table)
        self.native.setMinimumWidth(310)

    def _listen(self) -> None:
        self._start.changed.connect(self.start)
        self._cancel.changed.connect(self.cancel)
        self._recipe.changed.connect(self.load_recipe)
        self._table.cellDoubleClicked.connect(self.open_file)
        self._departure = Departure(self.native, undocked=self.cancel, destroyed=self._leave)

    def _leave(self) -> None:
        self._opening.close()
        if self._errand is not None:
            self._errand.abandon()
            self._errand = None

    # --- what is chosen ---------------------------------------------------------------

    @property
    def running(self) -> bool:
        """Whether a batch is under way."""
        return self._errand is not None

    @property
    def opening(self) -> bool:
        """Whether a file is being read for the viewer."""
        return self._opening.busy

    @property
    def status(self) -> str:
        """What the line above the table says."""
        return str(self._line.value)

    def control(self, name: str) -> Any:
        """Return a control: the row of an option, or folder, pattern, out, overwrite, recipe, start, cancel."""
        own = (self._folder, self._pattern, self._out, self._overwrite, self._recipe, self._start, self._cancel)
        return self._rows[name] if name in self._rows else {w.name: w for w in own}[name]

    def read_models(self) -> None:
        """Look for models and offer them."""
        use_model_folder(read_preferences())
        names = [entry.name for entry in list_models()]
        default = SegmentOptions.model_fields["model"].default
        self._offer_models(names, self._rows["model"].value or (default if default in names else names[0]))

    def _offer_models(self, names: list[str], chosen: str) -> None:
        """Offer models, the chosen one too where it is not there: a recipe may name it."""
        offered = names if chosen in names else [*names, chosen]
        self._rows["model"].offer([(name, name) for name in offered], chosen)

    def batch_options(self) -> SegmentOptions:
        """Return the options that the form says.

        Raises
        ------
        OptionsError
            If a row holds a value that breaks its rule.
        """
        return options_from_rows({name: widget.value for name, widget in self._rows.items()})

    def take_options(self, options: SegmentOptions) -> None:
        """Fill the form with options, for example those of a recipe."""
        written = {name: text_of(getattr(options, name)) for name in (*_WRITTEN, "region")}
        for name, value in (rows_of(options) | written).items():
            self._rows[name].value = value
        self._offer_models([name for _, name in self._rows["model"]._offered], options.model)

    def load_recipe(self) -> None:
        """Ask for a recipe file and fill the form from it."""
        chosen, _ = QFileDialog.getOpenFileName(self.native, "Load recipe", "", "Recipe (*.yaml *.yml)")
        if not chosen:
            return
        try:
            self.take_options(read_recipe(chosen))
        except TiledUnetError as error:
            tell(error)

    # --- a batch ----------------------------------------------------------------------

    def start(self) -> None:
        """Start the batch that the form says."""
        if self.running:
            return
        try:
            out = self._out.line_edit.value
            state = batch_of(self._folder.line_edit.value, self._pattern.value, out)
            options = self.batch_options()
        except TiledUnetError as error:
            self._line.value = str(error)
            show_error(str(error))
            return
        self.state = state
        self._errand = Errand(
            batch_events, state.rows, options, self._overwrite.value, on_event=self._hear, on_end=self._end
        )
        self._show()

    def cancel(self) -> None:
        """Stop within a tile; the files that are done stay."""
        if self._errand is not None and not self._errand.cancelled:
            self._errand.cancel()
            self._line.value = "stopping after this tile ..."
            self._cancel.enabled = False

    def _hear(self, event: Event) -> None:
        if isinstance(event, Failed):
            tell(event.error)
        before, self.state = self.state, self.state.after(event)
        if self.state is not before:
            self._show()

    def _end(self) -> None:
        self._errand = None
        self.state = self.state.stopped()
        self._show()

    def _show(self) -> None:
        self._start.enabled, self._cancel.enabled = not self.running, self.running
        self._bar.visible = self.running
        self._bar.value = round(_STEPS * self.state.fraction)
        self._line.value = self.state.words or "choose a folder of images"
        self._table.setRowCount(len(self.state.rows))
        for number, row in enumerate(self.state.rows):
            _fill(self._table, number, row)

    # --- a file -----------------------------------------------------------------------

    def open_file(self, number: int, _column: int = 0) -> None:
        """Open a finished file and its labels in the viewer."""
        row = self.state.rows[number]
        if not row.can_open:
            return
        self._opening.ask(partial(layers_of, row), self._opened)

    def _opened(self, layers: Any) -> None:
        if isinstance(layers, Exception):
            tell(layers)
        else:
            self._viewer.layers.extend(layers)


def _widget(row: Row) -> Widget:
    """Return the widget of an option where there is no layer to choose from."""
    if row.name in _WRITTEN:
        return LineEdit(value="", name=row.name, label=row.label, tooltip=row.tooltip)
    if row.name == "model":
        return DropDown(name=row.name, label=row.label, tooltip=row.tooltip)
    return row_widget(row)


def _table() -> QTableWidget:
    table = QTableWidget(0, len(COLUMNS))
    table.setHorizontalHeaderLabels(list(COLUMNS))
    table.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
    table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
    table.setToolTip("double click opens a finished file and its labels")
    table.setMinimumHeight(120)
    head = table.horizontalHeader()
    assert head is not None
    head.setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
    # What does not fit stands in the tooltip: no scrolling sideways.
    head.setMinimumSectionSize(30)
    head.setSectionResizeMode(len(COLUMNS) - 1, QHeaderView.ResizeMode.Stretch)
    side = table.verticalHeader()
    assert side is not None
    side.hide()
    return table


def _fill(table: QTableWidget, number: int, row: FileRow) -> None:
    """Show a row; cells that say it already are left alone."""
    tip = f"{row.image}\n{row.remark or row.labels}"
    for column, text in enumerate(row.cells):
        item = table.item(number, column)
        if item is None:
            item = QTableWidgetItem()
            table.setItem(number, column, item)
            if COLUMNS[column] in ("objects", "seconds"):
                item.setTextAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
        if item.text() != text:
            item.setText(text)
        if item.toolTip() != tip:
            item.setToolTip(tip)
