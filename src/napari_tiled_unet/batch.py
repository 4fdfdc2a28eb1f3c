"""Many files, one after the other: what the command line's ``segment`` and the viewer's batch do.

A bad file costs that file alone; what is written is written whole or not at all.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from napari_tiled_unet.errors import FileError, OptionsError, TiledUnetError
from napari_tiled_unet.events import Event, Finished, Notice, Planned, TileDone
from napari_tiled_unet.pairing import stem_of
from napari_tiled_unet.result_files import ResultFiles, place_of, removal_of, result_paths, rivals_of
from napari_tiled_unet.terminal import FileResult, Progress, report, shown_progress

if TYPE_CHECKING:
    from napari_tiled_unet.model import Model
    from napari_tiled_unet.options import SegmentOptions


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
        Whether to write the maps too, and to replace results that exist. Maps of an earlier run that do not belong
        to the new labels are removed, and maps that an interrupted run left without labels are replaced.
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
        If there is no image, or ``out`` names a file and there are several images, or the device, precision or
        backend cannot be used here.
    ModelError
        If the model cannot be loaded: no file could be done.

    Notes
    -----
    An image that is given twice is segmented once. Images that would write the same file fail all, and so does one
    whose result exists and is of another image by :func:`napari_tiled_unet.io.result_of`.
    """
    from napari_tiled_unet.model_files import load_model
    from napari_tiled_unet.runtime import choose_hardware

    images = _listed(paths, out)
    targets = result_paths(images, out)
    model = load_model(options.model)
    choose_hardware(options)
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
        What is segmented, and where its labels go; see :func:`napari_tiled_unet.result_files.result_paths`.
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
    rivals = rivals_of(images, targets)
    for number, (image, labels) in enumerate(zip(images, targets, strict=True)):
        yield FileStarted(number)
        result = yield from batch.segment(image, labels, rivals=rivals[number])
        yield FileEnded(number, result)


def _listed(paths: Sequence[Path], out: Path | None) -> list[Path]:
    """Return the images that paths stand for, each once; a link with a result of its own is kept.

    Raises
    ------
    OptionsError
        If there are none.
    """
    from napari_tiled_unet.io import image_files

    kept: dict[tuple[str, str, str], Path] = {}
    for image in image_files(paths):
        folder = image.parent if out is None else out
        kept.setdefault((place_of(image), place_of(folder), stem_of(image)), image)
    if not kept:
        raise OptionsError(
            f"no image files in {', '.join(map(str, paths))}; give image files or a folder that has some"
        )
    return list(kept.values())


@dataclass(frozen=True)
class _Batch:
    """What is the same for every file of a run."""

    model: Model
    options: SegmentOptions
    save_maps: bool
    overwrite: bool

    def segment(self, image: Path, labels: Path, *, rivals: Sequence[Path]) -> Generator[Event, None, FileResult]:
        """Segment one file; whatever is wrong with it ends up in the result."""
        from napari_tiled_unet.io import is_result

        files = ResultFiles(image, labels, self.save_maps, self.options.flips, self.overwrite)
        result = FileResult(str(image), str(labels))
        started = time.perf_counter()
        try:
            if is_result(image):
                result.state, result.error = "skipped", "a result of an earlier run; rename it to segment it"
                return result
            files.require_free(rivals)
            if files.are_done():
                result.state, result.error = "skipped", "result exists; --overwrite replaces it"
                return result
            try:
                yield from self._work(files, result)
                result.state = "done"
            except FileError:
                # Another process may have been quicker with the same image.
                if self.overwrite or not files.are_done():
                    raise
                result.state, result.error = "skipped", "another process wrote the result meanwhile"
        except (TiledUnetError, MemoryError) as error:
            result.error = str(error) or "out of memory; take a smaller tile"
        except Exception as error:  # noqa: BLE001 - whatever it is, the other files are done and reported
            result.error = f"{type(error).__name__}: {error}"
        finally:
            result.seconds = round(time.perf_counter() - started, 3)
        return result

    def _work(self, files: ResultFiles, result: FileResult) -> Generator[Event, None, None]:
        from napari_tiled_unet.io import identity_of, require_writable
        from napari_tiled_unet.segmentation import iter_segment

        # Minutes of work must not end at a folder that cannot be written.
        require_writable(files.labels.parent)
        with contextlib.closing(
            iter_segment(files.image, self.model, options=self.options, keep_maps=self.save_maps)
        ) as events:
            identity = identity_of(files.image)
            for event in events:
                if isinstance(event, Finished):
                    event = replace(event, provenance={**event.provenance, **identity})
                    removed = files.write(event, self.model.spec.target.channels)
                    result.removed = tuple(map(str, removed))
                    yield from map(removal_of, removed)
                    result.n_objects = event.n_objects
                    result.megavoxels = round(event.labels.size / 1e6, 3)
                yield event
