"""Many files, one after the other: what the command line's ``segment`` and the viewer's batch do.

A bad file costs that file alone; what is written is written whole or not at all.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from napari_tiled_unet.errors import FileError, OptionsError, TiledUnetError
from napari_tiled_unet.events import Event, Finished, Notice, Planned, TileDone
from napari_tiled_unet.pairing import stem_of
from napari_tiled_unet.terminal import FileResult, Progress, report, shown_progress

if TYPE_CHECKING:
    from napari_tiled_unet.model import Model
    from napari_tiled_unet.options import SegmentOptions

# Formats of images, which somebody may take for those of labels.
_NO_LABELS = (".png", ".jpg", ".jpeg", ".bmp", ".npy", ".lsm", ".zarr")
_LABELS, _MAPS, _SPREAD = "_labels.ome.tif", "_maps.ome.tif", "_spread.ome.tif"


@dataclass(frozen=True)
class FileStarted(Event):
    """A file is begun: its number, counted from 0."""

    number: int


@dataclass(frozen=True)
class FileEnded(Event):
    """A file is done with, well or not."""

    number: int
    result: FileResult


def run_batch(
    paths: Sequence[Path],
    options: SegmentOptions,
    *,
    out: Path | None,
    save_maps: bool,
    overwrite: bool,
    as_json: bool,
    explain_plan: bool = False,
) -> int:
    """Segment files and report; return the exit status.

    Parameters
    ----------
    paths : sequence of Path
        Image files, or folders of them.
    options : SegmentOptions
        How to segment.
    out : Path or None
        Folder of the results, or the file of a single one; None is beside each image.
    save_maps, overwrite : bool
        Whether to write the maps too, and to replace results that exist.
    as_json : bool
        Whether to report for machines.
    explain_plan : bool
        Whether to say which tiles are taken and why.

    Returns
    -------
    int
        0, or 1 if a file failed.

    Raises
    ------
    OptionsError
        If there is no image, or ``out`` names a file and there are several images.
    ModelError
        If the model cannot be loaded: no file could be done.
    """
    from napari_tiled_unet.io import image_files

    images = image_files(paths)
    if not images:
        raise OptionsError(
            f"no image files in {', '.join(map(str, paths))}; give image files or a folder that has some"
        )
    targets = result_paths(images, out)

    from napari_tiled_unet.model import load_model

    model = load_model(options.model)
    events = iter_batch(images, targets, model, options, save_maps=save_maps, overwrite=overwrite)
    started = time.perf_counter()
    with shown_progress() as progress:
        results = _told(events, images, progress, explain_plan=explain_plan)
    report(results, time.perf_counter() - started, as_json=as_json)
    return 1 if any(result.state == "failed" for result in results) else 0


def _told(
    events: Generator[Event, None, None], images: Sequence[Path], progress: Progress, *, explain_plan: bool
) -> list[FileResult]:
    """Drain a batch, telling of it, and return what became of its files."""
    results: list[FileResult] = []
    name = ""
    for event in events:
        match event:
            case FileStarted(number):
                name = images[number].name
                progress.start(name, number + 1, len(images))
            case Planned():
                progress.plan(event.n_tiles)
                if explain_plan:
                    progress.say("\n".join(event.explanation))
            case TileDone():
                progress.advance()
            case Notice():
                progress.say(f"{name}: {event.message}")
            case FileEnded(_, result):
                results.append(result)
                if result.state == "failed":
                    progress.say(f"{name}: {result.error}")
    return results


def iter_batch(
    images: Sequence[Path],
    targets: Sequence[Path],
    model: Model,
    options: SegmentOptions,
    *,
    save_maps: bool = False,
    overwrite: bool = False,
) -> Generator[Event, None, None]:
    """Segment files one after the other, and yield what happens.

    Parameters
    ----------
    images, targets : sequence of Path
        What is segmented, and where its labels go; see :func:`result_paths`.
    model : Model
        With what.
    options : SegmentOptions
        How.
    save_maps, overwrite : bool
        As for :func:`run_batch`.

    Yields
    ------
    Event
        Of each file :class:`FileStarted`, the events of its run, and :class:`FileEnded`.
        Closing the generator stops within a tile; the file under way is not written.
    """
    batch = _Batch(model, options, save_maps, overwrite)
    for number, (image, labels) in enumerate(zip(images, targets, strict=True)):
        yield FileStarted(number)
        result = yield from batch.segment(image, labels, taken=labels in targets[:number])
        yield FileEnded(number, result)


def result_paths(images: Sequence[Path], out: Path | None) -> list[Path]:
    """Return where the labels of each image go.

    Raises
    ------
    OptionsError
        If ``out`` is a file name and there is more than one image, or one of a format that is not written.
    """
    if out is not None and out.suffix.lower() in _NO_LABELS and not out.is_dir():
        raise OptionsError(f"--out {str(out)!r}: labels are written as OME-TIFF; name a .ome.tif file, or a folder")
    if out is not None and out.name.lower().endswith((".tif", ".tiff")):
        if len(images) > 1:
            raise OptionsError(f"--out {str(out)!r} names one file, there are {len(images)} images; give a folder")
        return [out]
    return [(image.parent if out is None else out) / f"{stem_of(image)}{_LABELS}" for image in images]


def maps_path(labels: Path, *, spread: bool = False) -> Path:
    """Return where the maps go that belong to a label file, or their spread over flips."""
    stem = labels.name.removesuffix(_LABELS)
    return labels.with_name(f"{stem_of(Path(stem)) if stem == labels.name else stem}{_SPREAD if spread else _MAPS}")


@dataclass(frozen=True)
class _Batch:
    """What is the same for every file of a run."""

    model: Model
    options: SegmentOptions
    save_maps: bool
    overwrite: bool

    def segment(self, image: Path, labels: Path, *, taken: bool) -> Generator[Event, None, FileResult]:
        """Segment one file; whatever is wrong with it ends up in the result."""
        from napari_tiled_unet.io import is_result

        result = FileResult(str(image), str(labels))
        started = time.perf_counter()
        try:
            if taken:
                raise FileError(
                    f"another image of this run also writes {str(labels)!r}; segment them into different folders"
                )
            if is_result(image):
                result.state, result.error = "skipped", "a result of an earlier run; rename it to segment it"
                return result
            if labels.resolve() == image.resolve():
                raise FileError(f"the labels would replace the image {str(image)!r}; name another file or folder")
            if not self.overwrite and (there := [path for path in self._outputs(labels) if path.exists()]):
                if labels not in there:
                    raise FileError(f"{str(there[0])!r} exists and its labels do not; --overwrite replaces it")
                result.state, result.error = "skipped", "result exists; --overwrite replaces it"
                return result
            yield from self._work(image, labels, result)
            result.state = "done"
        except (TiledUnetError, MemoryError) as error:
            result.error = str(error) or "out of memory; take a smaller tile"
        except Exception as error:  # noqa: BLE001 - whatever it is, the other files are done and reported
            result.error = f"{type(error).__name__}: {error}"
        finally:
            result.seconds = round(time.perf_counter() - started, 3)
        return result

    def _outputs(self, labels: Path) -> list[Path]:
        """Return the files that a run writes: labels, and maps and their spread where they are asked for."""
        maps = [maps_path(labels)] if self.save_maps else []
        spread = [maps_path(labels, spread=True)] if self.save_maps and self.options.flips else []
        return [labels, *maps, *spread]

    def _work(self, image: Path, labels: Path, result: FileResult) -> Generator[Event, None, None]:
        from napari_tiled_unet.io import require_writable
        from napari_tiled_unet.segmentation import iter_segment

        # Minutes of work must not end at a folder that cannot be written.
        require_writable(labels.parent)
        with contextlib.closing(
            iter_segment(image, self.model, options=self.options, keep_maps=self.save_maps)
        ) as events:
            for event in events:
                if isinstance(event, Finished):
                    self._write(event, labels)
                    result.n_objects = event.n_objects
                    result.megavoxels = round(event.labels.size / 1e6, 3)
                yield event

    def _write(self, done: Finished, labels: Path) -> None:
        from napari_tiled_unet.io import write_labels, write_maps

        size, provenance = (done.spacing, done.units), done.provenance
        if done.maps is not None:
            names = self.model.spec.target.channels
            written = partial(write_maps, offset=(0, *done.offset), description=provenance, overwrite=self.overwrite)
            axes = f"c{done.axes}"
            written(maps_path(labels), done.maps, axes, names, *size)
            if done.spread is not None:
                written(maps_path(labels, spread=True), done.spread[None], axes, ("spread",), *size)
        # Last, so that labels that exist mean that all of the image is done.
        write_labels(
            labels,
            done.labels,
            done.axes,
            *size,
            offset=done.offset,
            description=provenance,
            overwrite=self.overwrite,
        )
