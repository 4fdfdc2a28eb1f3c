"""Many files as the batch widget shows them: which, how far, what became of them; no Qt."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from napari_tiled_unet.batch import FileEnded, FileStarted, iter_batch
from napari_tiled_unet.errors import OptionsError
from napari_tiled_unet.events import Event, Planned, TileDone
from napari_tiled_unet.model_files import recent_model
from napari_tiled_unet.result_files import result_paths
from napari_tiled_unet.viewer.layers import labels_axes, labels_for_layer, labels_placement
from napari_tiled_unet.viewer.samples import layer_settings
from napari_tiled_unet.viewer.worker import one_core_left

if TYPE_CHECKING:
    import napari.layers

    from napari_tiled_unet.image import Image
    from napari_tiled_unet.options import SegmentOptions

State = Literal["waiting", "running", "done", "skipped", "failed", "stopped"]
COLUMNS = ("file", "state", "objects", "seconds", "remark")


@dataclass(frozen=True)
class FileRow:
    """A file of the table.

    Attributes
    ----------
    image, labels : Path
        What is read and what is written.
    state : str
        How far it is.
    n_objects, seconds : int, float or None
        What was found and how long it took, once it is done.
    remark : str
        Why it was skipped or failed.
    """

    image: Path
    labels: Path
    state: State = "waiting"
    n_objects: int | None = None
    seconds: float | None = None
    remark: str = ""

    @property
    def cells(self) -> tuple[str, ...]:
        """What the table shows, in the order of ``COLUMNS``."""
        count = "" if self.n_objects is None else str(self.n_objects)
        seconds = "" if self.seconds is None or self.state == "skipped" else f"{self.seconds:.1f}"
        return self.image.name, self.state, count, seconds, self.remark

    @property
    def can_open(self) -> bool:
        """Whether there are labels to look at."""
        return self.state in ("done", "skipped")


@dataclass(frozen=True)
class BatchState:
    """A batch: its files, and the tiles of the one that is under way."""

    rows: tuple[FileRow, ...] = ()
    tiles: int = 0
    tiles_done: int = 0

    @property
    def fraction(self) -> float:
        """How much is done, from 0 to 1; a file counts as much as any other."""
        if not self.rows:
            return 0.0
        ended = sum(row.state not in ("waiting", "running") for row in self.rows)
        running = any(row.state == "running" for row in self.rows)
        part = self.tiles_done / self.tiles if running and self.tiles else 0.0
        return (ended + part) / len(self.rows)

    @property
    def words(self) -> str:
        """The files counted by state, for example ``3 done, 1 failed, 6 waiting``."""
        counts = {state: sum(row.state == state for row in self.rows) for state in State.__args__}  # type: ignore[attr-defined]
        return ", ".join(f"{count} {state}" for state, count in counts.items() if count)

    def after(self, event: Event) -> BatchState:
        """Return the state after an event of the batch."""
        match event:
            case FileStarted(number):
                return replace(self._with(number, state="running"), tiles=0, tiles_done=0)
            case Planned():
                return replace(self, tiles=event.n_tiles, tiles_done=0)
            case TileDone():
                return replace(self, tiles_done=self.tiles_done + 1)
            case FileEnded(number, result):
                removed = ", ".join(Path(path).name for path in result.removed)
                remark = "exists already" if result.state == "skipped" else result.error
                remark = remark or (f"removed, of an earlier run: {removed}" if removed else "")
                return self._with(
                    number, state=result.state, n_objects=result.n_objects, seconds=result.seconds, remark=remark
                )
        return self

    def stopped(self) -> BatchState:
        """Return the state of a batch that ended before its time."""
        rows = (replace(row, state="stopped") if row.state in ("waiting", "running") else row for row in self.rows)
        return replace(self, rows=tuple(rows))

    def _with(self, number: int, **changes: Any) -> BatchState:
        rows = (replace(row, **changes) if i == number else row for i, row in enumerate(self.rows))
        return replace(self, rows=tuple(rows))


def batch_of(folder: str | Path, pattern: str, out: str | Path | None) -> BatchState:
    """Return the batch of the image files in a folder.

    Parameters
    ----------
    folder : str or Path
        Where the images are.
    pattern : str
        Which of them, such as ``*.tif`` or ``**/*_dapi.tif``; empty for all.
    out : str, Path or None
        Folder for the labels; None or empty is beside each image.

    Raises
    ------
    OptionsError
        If there is no such folder, no image in it, or the pattern is none.
    """
    from napari_tiled_unet.io import image_files

    where = Path(folder).expanduser()
    if not str(folder).strip() or not where.is_dir():
        raise OptionsError(f"{str(folder)!r} is no folder; choose the one with the images")
    pattern = pattern.strip() or "*"
    if Path(pattern).is_absolute():
        raise OptionsError(f"pattern {pattern!r} must be relative to the folder, for example *.tif")
    # Told here, for Python raises errors of several kinds, and from 3.13 on takes some for other patterns.
    parts = Path(pattern).parts
    if not parts:
        raise OptionsError(f"pattern {pattern!r} names no file; give one such as *.tif")
    if any("**" in part and part != "**" for part in parts):
        raise OptionsError(
            f"pattern {pattern!r}: ** is for folders within and stands alone between slashes; give one such as **/*.tif"
        )
    matches = sorted(where.glob(pattern))
    known = set(image_files(sorted({path.parent for path in matches})))
    images = [path for path in matches if path in known]
    if not images:
        raise OptionsError(f"no image in {str(where)!r} fits {pattern!r}; give another pattern, such as *.tif")
    targets = result_paths(images, Path(out).expanduser() if out and str(out).strip() else None)
    return BatchState(tuple(FileRow(image, labels) for image, labels in zip(images, targets, strict=True)))


def batch_events(rows: Sequence[FileRow], options: SegmentOptions, overwrite: bool) -> Generator[Event, None, None]:
    """Yield the events of a batch; raises only what is of no file."""
    with one_core_left():
        model = recent_model(options.model)
        images, targets = [row.image for row in rows], [row.labels for row in rows]
        yield from iter_batch(images, targets, model, options, overwrite=overwrite)


def layers_of(row: FileRow) -> list[napari.layers.Layer]:
    """Return an image layer and its Labels layer, read from the files of a row.

    Raises
    ------
    FileError, ImageError
        If one of them cannot be read, or the image is not any more what was segmented.
    """
    from napari.layers import Image as ImageLayer
    from napari.layers import Labels

    from napari_tiled_unet.io import read_description, read_image
    from napari_tiled_unet.region import Region

    labels, said = read_image(row.labels), read_description(row.labels).get("options", {})
    # As it was read for the run: of a pyramid the same resolution.
    image = read_image(row.image, axes=said.get("axes"), level=said.get("level", 0))
    if image.is_rgb and isinstance(image.data, np.ndarray):
        # Of an image that stays on disk no view can be made: its colours are shown as channels.
        image = _colours_last(image)
    rgb = image.is_rgb and image.axes.endswith("c")
    shown = ImageLayer(image.data, rgb=rgb, **_fitting(layer_settings(image, row.image.name), rgb))
    offset = dict(zip("tzyx", Region.parse(said["region"]).offset("tzyx"), strict=True)) if said.get("region") else {}
    wanted = labels_axes(image.axes, rgb=rgb)
    # A file keeps no axes of one voxel, such as that of a region with one plane.
    given = "".join(axis for axis in "tzyx" if axis in wanted)
    data = np.asarray(labels.data).reshape([labels.size_of(axis) for axis in given])
    placed = labels_placement(shown, image.axes, offset)
    return [shown, Labels(labels_for_layer(data, given, wanted), name=f"{row.image.name} labels", **placed)]


def _colours_last(image: Image) -> Image:
    """Return a colour image as napari has them, whatever the planes of its file; a view."""
    place = image.axes.index("c")
    axes = image.axes.replace("c", "") + "c"
    return replace(image, data=np.moveaxis(image.data, place, -1), axes=axes)


def _fitting(settings: dict[str, Any], rgb: bool) -> dict[str, Any]:
    """Return the settings of a layer without those of the colour axis, which is none of a layer's."""
    if not rgb:
        return settings
    return {name: value[:-1] if isinstance(value, tuple) else value for name, value in settings.items()}
