"""Plugins > Tiled U-Net > Train: images and painted labels in, a model out."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from magicgui.widgets import CheckBox, Container, LineEdit, Widget
from napari.utils.notifications import show_error

from napari_tiled_unet.errors import OptionsError, TiledUnetError
from napari_tiled_unet.model_files import list_models, user_folder
from napari_tiled_unet.viewer.chart import Chart
from napari_tiled_unet.viewer.choices import offer_new_models
from napari_tiled_unet.viewer.form import AUTOMATIC, UNSAID, axes_readings, taken_axes
from napari_tiled_unet.viewer.layer_pairs import LayerPairs
from napari_tiled_unet.viewer.layers import SHOWN, facts_of, is_image_layer
from napari_tiled_unet.viewer.mosaic import first_patches, show_patch_layers
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
from napari_tiled_unet.viewer.schooling import Schooling, watch_layer
from napari_tiled_unet.viewer.teaching import (
    FOLDERS,
    FRESH,
    LAYERS,
    READINGS,
    Lesson,
    file_name,
    free_name,
    images_and_labels,
    train_options,
    train_rows,
)
from napari_tiled_unet.viewer.worker import Latest

if TYPE_CHECKING:
    import napari.layers
    import napari.viewer

    from napari_tiled_unet.train_options import TrainOptions

_SHOWN_PATCHES = 16


class TrainWidget(Container[Widget]):
    """Teach a U-Net from image layers and the labels painted for them, or from two folders.

    Parameters
    ----------
    napari_viewer : napari.viewer.Viewer
        Whose layers are offered, and where the live prediction is shown.
    """

    def __init__(self, napari_viewer: napari.viewer.Viewer) -> None:
        super().__init__(labels=False)
        self._viewer = napari_viewer
        self._run: Schooling | None = None
        self._outcome = ""
        self._said_axes: dict[Any, str] = {}
        self._named = ""
        self._looked, self._drawing = Latest(), False
        self._build()
        self._offer_layers()
        self._listen()
        self._refresh()

    # --- what it is made of -----------------------------------------------------------

    def _build(self) -> None:
        self._rows: dict[str, Any] = {row.name: row_widget(row) for row in train_rows()}
        for name, value in read_preferences().rows.items():
            self._rows[name].value = value
        self._source = DropDown(name="source", label="learn from", tooltip="layers of this viewer, or files in folders")
        self._source.offer([("layers", LAYERS), ("folders of images and labels", FOLDERS)], LAYERS)
        self._layers = LayerPairs(self._change_row)
        self._folder = folder_row("images", "images", "folder with the images")
        self._truths = folder_row("labels", "labels", "folder with the labels, which are paired by name")
        self._called = LineEdit(name="model_name", label="save as", tooltip="name of the model that is made")
        self._called.native.setMinimumWidth(60)
        self._resume = CheckBox(
            name="resume", text="go on from its checkpoint", tooltip="continue the training that was cancelled"
        )
        rows = train_rows()
        common = [self._rows[row.name] for row in rows if not row.advanced]
        advanced = [self._rows[row.name] for row in rows if row.advanced]
        self._fold = folding(advanced, title="Advanced")
        self._form: Container[Widget] = Container(
            widgets=[
                self._source, self._layers, self._folder, self._truths,
                self._called, self._resume, *common, self._fold, *advanced,
            ]
        )  # fmt: skip
        self._form.margins = (0, 0, 0, 0)
        self._train = push_button("Train", name="train", tooltip="teach a model with these options", icon="run")
        self._cancel = push_button("Cancel", name="cancel", tooltip="stop; the best model so far is kept", icon="stop")
        self._patches = push_button(
            "Show patches",
            name="patches",
            tooltip="show what the network will learn from, varied, as layers",
            icon="layers",
        )
        self.chart = Chart()
        self._line = sentence("line", "how the training goes")
        self.extend([side_by_side(self._train, self._cancel, self._patches, name="buttons"), self._line])
        self.native.layout().insertWidget(0, ScrollingRows(self._form))
        self.native.layout().insertWidget(2, self.chart)
        self.native.setMinimumWidth(260)

    def _listen(self) -> None:
        self._rows["axes"].changed.connect(self._say_axes)
        self._called.changed.connect(self._say_name)
        for widget in (self._source, self._folder, self._truths, self._resume, *self._rows.values()):
            widget.changed.connect(self._change_row)
        self._train.changed.connect(self.train)
        self._cancel.changed.connect(self.cancel)
        self._patches.changed.connect(self.show_patches)
        for event in self._layer_events():
            event.connect(self.reset_choices)
        self._departure = Departure(self.native, undocked=self.cancel, destroyed=self._leave)

    def _layer_events(self) -> tuple[Any, ...]:
        events = self._viewer.layers.events
        return events.inserted, events.removed, events.renamed, events.reordered

    def _leave(self) -> None:
        for event in self._layer_events():
            event.disconnect(self.reset_choices)
        self._looked.close()
        if self._run is not None:
            self._run.abandon()
            self._run = None

    # --- what is chosen ---------------------------------------------------------------

    @property
    def running(self) -> bool:
        """Whether a training is under way, or a cancelled one has not ended yet."""
        return self._run is not None

    @property
    def status(self) -> str:
        """What the line below the buttons says."""
        return str(self._line.value)

    @property
    def pairs(self) -> list[tuple[napari.layers.Image, napari.layers.Labels]]:
        """The image layers that are learned from, with their labels."""
        return self._layers.chosen

    @property
    def axes(self) -> str | None:
        """What the axes of the images are; None where that is not said, or files say it."""
        value = self._rows["axes"].value
        return value if value not in (None, UNSAID, AUTOMATIC) else None

    @property
    def model_path(self) -> Path:
        """The model file that is made."""
        return _model_folder() / f"{file_name(self._called.value or self._proposed_name())}.safetensors"

    def control(self, name: str) -> Any:
        """Return a control by its name: the row of an option, or any other of the form."""
        own = (
            self._source, self._folder, self._truths, self._called, self._resume,
            self._fold, self._train, self._cancel, self._patches,
        )  # fmt: skip
        return self._rows[name] if name in self._rows else {w.name: w for w in own}[name]

    def labels_row(self, image: napari.layers.Image) -> DropDown:
        """Return the row that says which labels belong to an image layer."""
        return self._layers.row_of(image)

    def train_options(self) -> TrainOptions:
        """Return the options that the form says.

        Raises
        ------
        OptionsError
            If a row holds a value that breaks its rule.
        """
        values = {name: widget.value for name, widget in self._rows.items()}
        values["axes"] = self.axes if self._source.value == FOLDERS else None
        return train_options(values)

    def lesson(self, *, keep: bool = True) -> Lesson:
        """Return the training that the form says.

        Parameters
        ----------
        keep : bool
            Whether there is to be a model file.

        Raises
        ------
        TiledUnetError
            If something is missing or breaks its rule.
        """
        options = self.train_options()
        images, labels = self._material()
        if not keep:
            return Lesson(images, labels, options)
        path, resume = self.model_path, self._can_resume() and bool(self._resume.value)
        if path.exists() and not resume:
            go_on = f", or tick {self._resume.text!r}" if self._can_resume() else ""
            raise OptionsError(f"a model {path.stem!r} exists; choose another name under 'save as'{go_on}")
        return Lesson(images, labels, options, path, resume)

    def _material(self) -> tuple[Any, Any]:
        if self._source.value == FOLDERS:
            folders = [self._folder.value, self._truths.value]
            if any(str(folder) in ("", ".") for folder in folders):
                raise OptionsError("choose a folder of images and a folder of labels")
            return folders[0], folders[1]
        if not self.pairs:
            raise OptionsError(
                "no image has labels: paint some objects in a Labels layer of the image's size, and choose it"
            )
        if self.axes is None:
            raise OptionsError(f"choose what the axes of {self.pairs[0][0].name!r} are")
        return images_and_labels(self.pairs, self.axes)

    def _can_resume(self) -> bool:
        return self.model_path.with_suffix(".checkpoint").exists()

    def _proposed_name(self) -> str:
        named = self.pairs[0][0].name if self._source.value == LAYERS and self.pairs else "my cells"
        return free_name(named, _model_folder())

    # --- choices offered --------------------------------------------------------------

    def reset_choices(self, *_: Any) -> None:
        """Offer the layers that the viewer has now; napari calls it as layers come and go."""
        self._offer_layers()
        self._refresh()

    def read_models(self) -> None:
        """Look for models again and offer them to start from."""
        self._refresh()

    def _offer_layers(self) -> None:
        self._layers.offer(layer for layer in self._viewer.layers if not layer.metadata.get(SHOWN))

    def _say_axes(self, axes: str) -> None:
        if self.pairs:
            self._said_axes[self.pairs[0][0].unique_id] = axes

    def _say_name(self, name: str) -> None:
        self._named = name
        self._change_row()

    def _change_row(self) -> None:
        self._outcome = ""
        self._refresh()

    def _refresh(self) -> None:
        in_layers = self._source.value == LAYERS
        self._layers.visible = in_layers
        self._folder.visible = self._truths.visible = not in_layers
        self._offer_axes()
        use_model_folder(read_preferences())
        models = [(f"{entry.name} ({len(entry.spec.axes)}D)", entry.name) for entry in list_models()]
        start = self._rows["start"]
        known = [FRESH, *(name for _, name in models)]
        start.offer([("fresh weights", FRESH), *models], start.value if start.value in known else FRESH)
        self._called.native.setPlaceholderText(self._proposed_name())
        self._resume.visible = self._can_resume()
        self._rows["classes"].enabled = self._rows["target"].value == "classes"
        self._train.enabled = self._patches.enabled = not self.running
        self._cancel.enabled = self._run is not None and not self._run.cancelled
        if self.running:
            return
        problem = ""
        try:
            self.train_options()
            if in_layers and not self.pairs:
                self._material()
        except TiledUnetError as error:
            problem = str(error)
        self._train.enabled = self._patches.enabled = not problem and not self._drawing
        self._line.value = self._outcome or problem

    def _offer_axes(self) -> None:
        row = self._rows["axes"]
        if self._source.value == FOLDERS:
            choices = [("as the files say", AUTOMATIC), *((r, r) for r in READINGS)]
            row.offer(choices, row.value if row.value in (AUTOMATIC, *READINGS) else AUTOMATIC)
            return
        if not self.pairs:
            row.offer([("", UNSAID)], UNSAID)
            return
        layer = self.pairs[0][0]
        facts = facts_of(layer)
        readings = axes_readings(facts)
        taken = taken_axes(facts, readings, self._said_axes.get(layer.unique_id))
        choose = [("choose ...", UNSAID)] if taken is None else []
        row.offer([*choose, *((r, r) for r in readings)], UNSAID if taken is None else taken)

    # --- a training -------------------------------------------------------------------

    def train(self) -> None:
        """Start a training with what the form says; curves and a prediction of the view follow it."""
        if self.running or self._drawing:
            return
        try:
            lesson = self.lesson()
            watch = watch_layer(self._viewer, self._watched(), self._watched_axes())
        except TiledUnetError as error:
            self._outcome = str(error)
            show_error(str(error))
            self._refresh()
            return
        self._outcome = ""
        self._run = Schooling(lesson, self.chart, self._show_line, on_end=self._end, watch=watch)
        self._refresh()

    def _watched(self) -> napari.layers.Image | None:
        """Return the layer whose prediction is shown: the active one, or the first that is learned from."""
        active = self._viewer.layers.selection.active
        if is_image_layer(active):
            return active
        if self._source.value == LAYERS:
            return self.pairs[0][0] if self.pairs else None
        return next(iter(self._layers.images), None)

    def _watched_axes(self) -> str | None:
        layer = self._watched()
        if layer is None or self._source.value == LAYERS:
            return self.axes
        facts = facts_of(layer)
        return taken_axes(facts, axes_readings(facts), self.axes)

    def cancel(self) -> None:
        """End the training within a step; the best model so far is kept."""
        if self._run is None or self._run.cancelled:
            return
        self._run.cancel()
        self._line.value = "stopping; the best model so far is kept ..."
        self._refresh()

    def _show_line(self, text: str) -> None:
        self._line.value = text

    def _end(self) -> None:
        assert self._run is not None
        ended, self._run = self._run, None
        self._outcome = ended.words
        if ended.trained is None:
            self._keep_name(ended.lesson.out)
        offer_new_models(self._viewer)
        self._refresh()

    def _keep_name(self, out: Path | None) -> None:
        """Say the name of a training that can go on, where none was said: the next proposed one is another."""
        if out is not None and out.with_suffix(".checkpoint").exists():
            with self._called.changed.blocked():
                self._called.value = out.stem

    # --- patches ----------------------------------------------------------------------

    def show_patches(self) -> None:
        """Show patches as the network will learn them, as layers."""
        if self._drawing or self.running:
            return
        try:
            lesson = self.lesson(keep=False)
        except TiledUnetError as error:
            show_error(str(error))
            return
        self._drawing, self._outcome = True, "drawing patches ..."
        self._looked.ask(partial(first_patches, lesson, _SHOWN_PATCHES), partial(self._show_patches, lesson))
        self._refresh()

    def _show_patches(self, lesson: Lesson, found: Any) -> None:
        self._drawing = False
        if isinstance(found, Exception):
            self._outcome = str(found)
            tell(found)
        else:
            self._outcome = f"{len(found)} patches as layers 'patches' and 'patches labels'"
            show_patch_layers(self._viewer, found, sparse=lesson.options.sparse)
        self._refresh()


def _model_folder() -> Path:
    """Return the folder of the user's models, as the preferences say now."""
    use_model_folder(read_preferences())
    return user_folder()
