"""Many files, one after the other: what the command line's ``segment`` and the viewer's batch do.

A bad file costs that file alone; what is written is written whole or not at all.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
        If there is no image, or ``out`` names a file and there are several images.
    ModelError
        If the model cannot be loaded: no file could be done.

    Notes
    -----
    An image that is given twice is segmented once. Images that would write the same file fail all, and so does one
    whose result exists and is of another image by :func:`napari_tiled_unet.io.result_of`.
    """
    from napari_tiled_unet.model import load_model

    images = _listed(paths, out)
    targets = result_paths(images, out)
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
    rivals = _rivals(images, targets)
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
        kept.setdefault((_place(image), _place(folder), stem_of(image)), image)
    if not kept:
        raise OptionsError(
            f"no image files in {', '.join(map(str, paths))}; give image files or a folder that has some"
        )
    return list(kept.values())


def _rivals(images: Sequence[Path], targets: Sequence[Path]) -> list[list[Path]]:
    """Return, for each image, the others whose labels would go into the same file."""
    from napari_tiled_unet.io import is_result

    places = [_place(target) for target in targets]
    claims: dict[str, list[Path]] = {}
    for image, place in zip(images, places, strict=True):
        if not is_result(image):
            claims.setdefault(place, []).append(image)
    return [
        [other for other in claims.get(place, []) if other != image]
        for image, place in zip(images, places, strict=True)
    ]


def _place(path: Path) -> str:
    """Return the one name of a path, links resolved, in the case of a system that knows none."""
    try:
        return os.path.normcase(path.resolve())
    except (OSError, RuntimeError):  # as in image_files
        return os.path.normcase(path.absolute())


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

    def segment(self, image: Path, labels: Path, *, rivals: Sequence[Path]) -> Generator[Event, None, FileResult]:
        """Segment one file; whatever is wrong with it ends up in the result."""
        from napari_tiled_unet.io import is_result

        result = FileResult(str(image), str(labels))
        started = time.perf_counter()
        try:
            if is_result(image):
                result.state, result.error = "skipped", "a result of an earlier run; rename it to segment it"
                return result
            if rivals:
                raise FileError(
                    f"{str(image)!r} and {' and '.join(repr(str(rival)) for rival in rivals)} would write the "
                    f"same file, {str(labels)!r}; segment them into different folders, or rename one"
                )
            if _place(labels) == _place(image):
                raise FileError(f"the labels would replace the image {str(image)!r}; name another file or folder")
            if not self.overwrite and self._is_done(image, labels):
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

    def _is_done(self, image: Path, labels: Path) -> bool:
        """Return whether the labels of an image are there; refuse what may not be replaced without a word.

        Raises
        ------
        FileError
            If they are of another image, or maps are there that no run on this image left.
        """
        from napari_tiled_unet.io import is_ours

        if labels.exists():
            _require_of(image, labels)
            return True
        for path, wanted in self._maps(labels).items():
            if path.exists() and is_ours(path):
                # Labels come last: what a run left that was interrupted before them is replaced.
                _require_of(image, path)
            elif path.exists() and wanted:
                raise FileError(f"{str(path)!r} exists and its labels do not; --overwrite replaces it")
        return False

    def _maps(self, labels: Path) -> dict[Path, bool]:
        """Return the files of maps and their spread, and whether a run writes them."""
        return {
            maps_path(labels): self.save_maps,
            maps_path(labels, spread=True): self.save_maps and self.options.flips,
        }

    def _work(self, image: Path, labels: Path, result: FileResult) -> Generator[Event, None, None]:
        from napari_tiled_unet.io import identity_of, require_writable
        from napari_tiled_unet.segmentation import iter_segment

        # Minutes of work must not end at a folder that cannot be written.
        require_writable(labels.parent)
        with contextlib.closing(
            iter_segment(image, self.model, options=self.options, keep_maps=self.save_maps)
        ) as events:
            identity = identity_of(image)
            for event in events:
                if isinstance(event, Finished):
                    event = replace(event, provenance={**event.provenance, **identity})
                    self._write_maps(event, labels)
                    for path in self._stale(labels):
                        yield _removed(path)
                        result.removed += (str(path),)
                    # Last, so that labels that exist mean that all of the image is done.
                    self._write_labels(event, labels)
                    result.n_objects = event.n_objects
                    result.megavoxels = round(event.labels.size / 1e6, 3)
                yield event

    def _write_maps(self, done: Finished, labels: Path) -> None:
        from napari_tiled_unet.io import is_ours, write_maps

        maps = {maps_path(labels): (done.maps, self.model.spec.target.channels)}
        maps[maps_path(labels, spread=True)] = (None if done.spread is None else done.spread[None], ("spread",))
        for path, (data, names) in maps.items():
            if data is not None:
                replaced, offset = self.overwrite or is_ours(path), (0, *done.offset)
                write_maps(path, data, f"c{done.axes}", names, offset=offset, overwrite=replaced, **_known(done))

    def _stale(self, labels: Path) -> list[Path]:
        """Return maps that an earlier run left where this one writes none."""
        from napari_tiled_unet.io import is_ours

        return [path for path, wanted in self._maps(labels).items() if not wanted and path.exists() and is_ours(path)]

    def _write_labels(self, done: Finished, labels: Path) -> None:
        from napari_tiled_unet.io import write_labels

        write_labels(labels, done.labels, done.axes, offset=done.offset, overwrite=self.overwrite, **_known(done))


def _known(done: Finished) -> dict[str, Any]:
    """Return what is written with labels and maps alike."""
    known = {"spacing": done.spacing, "units": done.units, "origin": done.origin}
    return {**known, "time_step": done.time_step, "description": done.provenance}


def _require_of(image: Path, result: Path) -> None:
    """Refuse a result that says that it is of another image than the one that would write it.

    Raises
    ------
    FileError
        If it does.
    """
    from napari_tiled_unet.io import image_of, result_of

    whose = result_of(result, image)
    if whose == "other":
        raise FileError(
            f"{str(result)!r} is of another image, {image_of(result)!r}; write into another folder with --out, "
            "rename one of the images, or replace it with --overwrite"
        )
    if whose == "changed":
        raise FileError(
            f"{str(result)!r} is of {str(image)!r} as it was, which has changed since; "
            "--overwrite segments it as it is now"
        )


def _removed(path: Path) -> Notice:
    """Remove the maps of an earlier run, and return what is told of it.

    Raises
    ------
    FileError
        If they cannot be removed.
    """
    try:
        path.unlink()
    except OSError as error:
        raise FileError(
            f"{str(path)!r} does not belong to the new labels and cannot be removed: {error.strerror or error}; "
            "remove it, or write into another folder with --out"
        ) from error
    return Notice(
        f"{path.name!r} of an earlier run is removed, it does not belong to the new labels; "
        f"--save-maps{' with --flips' * path.name.endswith(_SPREAD)} writes them anew"
    )
