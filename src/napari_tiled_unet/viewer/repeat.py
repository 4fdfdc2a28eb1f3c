"""A run written down: copied as Python or as a command, saved and loaded as a recipe."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import ref

import numpy as np
from magicgui.widgets import Container, Widget
from napari.utils.notifications import show_info
from qtpy.QtGui import QAction  # type: ignore[attr-defined]
from qtpy.QtWidgets import QApplication, QFileDialog, QMenu

from napari_tiled_unet.errors import OptionsError, TiledUnetError
from napari_tiled_unet.io import read_image
from napari_tiled_unet.model_files import find_model, read_spec
from napari_tiled_unet.options import SegmentOptions
from napari_tiled_unet.recipe import as_command, as_python, parse_recipe, read_recipe, write_recipe
from napari_tiled_unet.viewer.layers import METADATA_KEY, data_of, image_from_layer, is_image_layer
from napari_tiled_unet.viewer.rows import push_button, side_by_side
from napari_tiled_unet.viewer.running import spacing_shown, tell
from napari_tiled_unet.viewer.worker import Latest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import napari.layers
    import numpy.typing as npt

# Voxels along an axis by which a layer is compared with its file.
_COMPARED = 256
_FILES = "Recipe (*.yaml *.yml)"


def image_expression(layer: napari.layers.Image, axes: str, level: int = 0, path: str | None = None) -> tuple[str, str]:
    """Return the Python that stands for a layer's image at a resolution, and the imports that it needs.

    The path of its file where it is what that holds, else its data in napari's console.
    """
    if path is not None:
        return repr(path), ""
    data = f"viewer.layers[{layer.name!r}].data" + (f"[{level}]" if layer.multiscale else "")
    if layer.rgb or level:
        more = ", is_rgb=True" * bool(layer.rgb) + f", level={level}" * bool(level)
        return f"Image({data}, {axes!r}{more})", "from napari_tiled_unet import Image"
    return data, ""


def source_path(layer: napari.layers.Image) -> str | None:
    """Return the file that a layer was read from, if it is still there."""
    path = layer.source.path
    return None if path is None or "://" in str(path) or not Path(path).exists() else str(path)


def path_if_same(path: str, shown: Any, axes: str, level: int = 0) -> str | None:
    """Return the path of a file if read anew it is what a layer shows; in any thread, for files are large.

    It is not where a reader made several layers of it, or the data were replaced: the axes would
    not fit, or the middle of the image differs.

    Parameters
    ----------
    path : str
        From :func:`source_path`.
    shown : array
        Data of the layer, at the resolution ``level``.
    axes, level
        Of the data.
    """
    try:
        file = read_image(path, axes=axes, level=level)
        same = file.shape == tuple(shown.shape) and bool((_middle(file.data, axes) == _middle(shown, axes)).all())
    except (TiledUnetError, OSError):
        return None
    return path if same else None


def _middle(data: Any, axes: str) -> npt.NDArray[np.float64]:
    """Return a part of an image in its middle that is quick to read, whatever its type; NaN as 0."""
    sides = {"y": _COMPARED, "x": _COMPARED, "c": data.shape[axes.index("c")] if "c" in axes else 1}
    box = tuple(
        slice(start := max(0, (n - sides.get(axis, 1)) // 2), start + sides.get(axis, 1))
        for axis, n in zip(axes, data.shape, strict=True)
    )
    return np.nan_to_num(np.asarray(data[box]).astype(np.float64))


def last_run(labels: napari.layers.Labels | None) -> SegmentOptions | None:
    """Return the options of the run that made a layer, with all that it chose; None if no run did."""
    mark: Any = labels.metadata.get(METADATA_KEY) if labels is not None else None
    if not isinstance(mark, dict) or "exact" not in mark:
        return None
    return SegmentOptions.of(**mark["exact"])


def recipe_of(labels: Any) -> SegmentOptions | None:
    """Return the recipe that a layer carries, as it was asked for; None if it carries none.

    Raises
    ------
    OptionsError
        If it is one that this version cannot read.
    """
    mark = labels.metadata.get(METADATA_KEY) if labels is not None else None
    if not isinstance(mark, dict) or "recipe" not in mark:
        return None
    return parse_recipe(mark["recipe"], labels.name)


class Repeat(Container[Widget]):
    """The buttons that write a run down.

    Parameters
    ----------
    options : callable
        Returns what the form says; may raise OptionsError.
    source : callable
        Returns the image layer, the reading of its axes and its result, each or None.
    take : callable
        Fills the form with options.
    run_again : callable
        Given the recipe of a result and another image layer, segments that.
    layers : callable
        Returns the layers of the viewer.
    """

    def __init__(
        self,
        *,
        options: Callable[[], SegmentOptions],
        source: Callable[[], tuple[Any, str | None, Any]],
        take: Callable[[SegmentOptions], None],
        run_again: Callable[[SegmentOptions, Any], None],
        layers: Callable[[], Iterable[Any]],
    ) -> None:
        super().__init__(labels=False, name="repeat")
        self._options, self._source, self._take = options, source, take
        self._run_again, self._layers = run_again, layers
        self._files = Latest()
        python = push_button(
            "Python",
            name="copy_python",
            tooltip="copy the last run on this image as Python; before the first run, what the form says",
            icon="copy",
        )
        command = push_button(
            "Command",
            name="copy_command",
            tooltip="copy the last run on this image as a command; before the first run, what the form says",
            icon="copy",
        )
        recipe = push_button(
            "Recipe", name="recipe", tooltip="save or load a recipe, or run one on another image", icon="read"
        )
        python.changed.connect(self.copy_python)
        command.changed.connect(self.copy_command)
        self.menu = QMenu(recipe.native)
        self.menu.setToolTipsVisible(True)
        self.menu.aboutToShow.connect(self._fill_menu)
        # Once, for to clear the menu deletes its entries, but not a menu in it.
        self._again = QMenu("Run again on", self.menu)
        self._again.setToolTipsVisible(True)
        recipe.native.setMenu(self.menu)
        self.append(side_by_side(python, command, recipe))
        self.margins = (0, 0, 0, 0)
        for button in (python, command, recipe):
            button.native.setMinimumWidth(40)

    # --- copied -----------------------------------------------------------------------

    def as_written(self) -> tuple[SegmentOptions, Any, str]:
        """Return the run to write down, its image layer and the reading of its axes.

        Raises
        ------
        OptionsError
            If there is no image, or the form says what cannot be.
        """
        layer, axes, labels = self._source()
        ran = last_run(labels)
        options = ran or self._options()
        if layer is None:
            raise OptionsError("nothing can be written down without an image; open one first")
        axes = options.axes or axes or "yx"
        if ran is None and options.spacing is None:
            # As a run would write it down: the layer's voxels need not be those of its file.
            image, spec = image_from_layer(layer, axes, options.level), read_spec(find_model(options.model))
            options = options.changed(spacing=spacing_shown(image, spec))
        return options, layer, axes

    def copy_python(self) -> None:
        """Copy the run as a Python script."""
        self._copy(
            lambda options, layer, axes, path: as_python(options, *image_expression(layer, axes, options.level, path)),
            "Python",
        )

    def copy_command(self) -> None:
        """Copy the run as a command."""
        self._copy(lambda options, _layer, _axes, path: as_command(options, path or "IMAGE"), "command")

    def _copy(self, text: Callable[[SegmentOptions, Any, str, str | None], str], what: str) -> None:
        try:
            options, layer, axes = self.as_written()
            path, shown = source_path(layer), data_of(layer, options.level)
        except TiledUnetError as error:
            tell(error)
            return

        def put(path: Any) -> None:
            if isinstance(path, Exception):
                tell(path)
                return
            clipboard = QApplication.clipboard()
            assert clipboard is not None
            clipboard.setText(text(options, layer, axes, path))
            hint = "" if path else _without_file(layer, what)
            show_info(f"{what} copied{hint}")

        if path is None:
            put(None)
        else:
            self._files.ask(partial(path_if_same, path, shown, axes, options.level), put)

    @property
    def busy(self) -> bool:
        """Whether a file is being read, after which what was asked for is copied."""
        return self._files.busy

    def close_threads(self) -> None:
        """Copy nothing any more."""
        self._files.close()

    # --- files ------------------------------------------------------------------------

    def _fill_menu(self) -> None:
        self.menu.clear()
        add_entry(self.menu, "Save recipe ...", "write what the form says to a file", self.save_recipe)
        add_entry(self.menu, "Load recipe ...", "fill the form from a file", self.load_recipe)
        self._again.clear()
        self.menu.addMenu(self._again)
        try:
            options = recipe_of(self._source()[2])
        except OptionsError:
            options = None
        self._again.setEnabled(options is not None)
        for layer in self._layers():
            if options is not None and is_image_layer(layer):
                tip = f"segment {layer.name} as the last run on this image was"
                # Not the layer, which may be removed while the entry waits for the next opening.
                add_entry(self._again, layer.name, tip, partial(self._run_again_on, options, ref(layer)))

    def _run_again_on(self, options: SegmentOptions, layer: ref[Any]) -> None:
        there = layer()
        if there is not None:
            self._run_again(options, there)

    def save_recipe(self) -> None:
        """Ask for a file and write what the form says to it."""
        try:
            options = self._options()
            chosen, _ = QFileDialog.getSaveFileName(self.native, "Save recipe", "recipe.yaml", _FILES)
            if chosen:
                path = Path(chosen)
                write_recipe(path if path.suffix else path.with_suffix(".yaml"), options)
        except TiledUnetError as error:
            tell(error)

    def load_recipe(self) -> None:
        """Ask for a recipe file and fill the form from it."""
        chosen, _ = QFileDialog.getOpenFileName(self.native, "Load recipe", "", _FILES)
        if not chosen:
            return
        try:
            self._take(read_recipe(chosen))
        except TiledUnetError as error:
            tell(error)


def _without_file(layer: Any, what: str) -> str:
    of_none = "is of no file" if layer.source.path is None else "is not what its file holds"
    if what == "Python":
        return f"; {layer.name!r} {of_none}, so it is for napari's console"
    return f"; {layer.name!r} {of_none}: save it and put its path for IMAGE"


def add_entry(menu: QMenu, text: str, tooltip: str, action: Callable[[], None]) -> QAction:
    """Add an entry with a tooltip to a menu, and return it."""
    entry = QAction(text, menu)
    entry.setToolTip(tooltip)
    entry.triggered.connect(lambda *_: action())
    menu.addAction(entry)
    return entry
