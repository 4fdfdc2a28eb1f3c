"""Many files, one after the other: what the command line's ``segment`` does.

A bad file costs that file alone; what is written is written whole or not at all.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from napari_tiled_unet.errors import FileError, OptionsError, TiledUnetError
from napari_tiled_unet.events import Finished, Notice, Planned, TileDone

if TYPE_CHECKING:
    from napari_tiled_unet.model import Model
    from napari_tiled_unet.options import SegmentOptions


@dataclass
class FileResult:
    """What became of one file.

    Attributes
    ----------
    image, labels : str
        Paths of what was read and what was written (or would have been).
    state : {"done", "skipped", "failed"}
        Skipped: the result was there and ``overwrite`` was not asked for.
    n_objects : int or None
        Number of objects, or of classes present.
    seconds : float
        Time from reading to written.
    megavoxels : float
        Size of the labels.
    error : str
        Why it failed or was skipped.
    """

    image: str
    labels: str
    state: Literal["done", "skipped", "failed"] = "failed"
    n_objects: int | None = None
    seconds: float = 0.0
    megavoxels: float = 0.0
    error: str = ""


class Progress(Protocol):
    """Where progress is told."""

    def start(self, name: str, number: int, total: int) -> None:
        """Begin a file."""

    def plan(self, n_tiles: int) -> None:
        """Learn how many tiles the file has."""

    def advance(self) -> None:
        """Count a tile."""

    def say(self, message: str) -> None:
        """Tell a sentence."""


def run_batch(
    paths: Sequence[Path],
    options: SegmentOptions,
    *,
    out: Path | None,
    save_maps: bool,
    overwrite: bool,
    as_json: bool,
) -> int:
    """Segment files and report; return the exit status.

    Raises
    ------
    OptionsError
        If ``out`` names a file and there are several images.
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
    results: list[FileResult] = []
    started = time.perf_counter()
    with _progress() as progress:
        for number, (image, labels) in enumerate(zip(images, targets, strict=True), start=1):
            progress.start(image.name, number, len(images))
            clash = labels in targets[: number - 1]
            results.append(_segment_file(image, labels, model, options, progress, save_maps, overwrite, clash))
    _report(results, time.perf_counter() - started, as_json)
    return 1 if any(result.state == "failed" for result in results) else 0


def result_paths(images: Sequence[Path], out: Path | None) -> list[Path]:
    """Return where the labels of each image go.

    Raises
    ------
    OptionsError
        If ``out`` is a file name and there is more than one image.
    """
    if out is not None and out.name.lower().endswith((".tif", ".tiff")):
        if len(images) > 1:
            raise OptionsError(f"--out {str(out)!r} names one file, there are {len(images)} images; give a folder")
        return [out]
    return [(image.parent if out is None else out) / f"{_stem(image)}_labels.ome.tif" for image in images]


def _stem(path: Path) -> str:
    name = path.name
    for suffix in (".ome.tiff", ".ome.tif", ".ome.zarr"):
        if name.lower().endswith(suffix):
            return name[: -len(suffix)]
    return path.stem


def _segment_file(
    image: Path,
    labels: Path,
    model: Model,
    options: SegmentOptions,
    progress: Progress,
    save_maps: bool,
    overwrite: bool,
    clash: bool,
) -> FileResult:
    result = FileResult(str(image), str(labels))
    started = time.perf_counter()
    try:
        if clash:
            raise FileError(
                f"another image of this run also writes {str(labels)!r}; segment them into different folders"
            )
        if labels.exists() and not overwrite:
            result.state, result.error = "skipped", "result exists; --overwrite replaces it"
            return result
        _work(image, labels, model, options, progress, save_maps, overwrite, result)
        result.state = "done"
    except (TiledUnetError, MemoryError) as error:
        result.error = str(error) or "out of memory; allow a smaller tile"
        progress.say(f"{image.name}: {result.error}")
    finally:
        result.seconds = round(time.perf_counter() - started, 3)
    return result


def _work(
    image: Path,
    labels: Path,
    model: Model,
    options: SegmentOptions,
    progress: Progress,
    save_maps: bool,
    overwrite: bool,
    result: FileResult,
) -> None:
    from napari_tiled_unet.io import read_image, require_writable, write_labels, write_maps
    from napari_tiled_unet.segmentation import iter_segment

    # Minutes of work must not end at a folder that cannot be written.
    require_writable(labels.parent)
    source = read_image(image, axes=options.axes)
    if options.spacing is not None:
        source = source.with_spacing(options.spacing, model.spec.units)
    events = iter_segment(source, model, options=options, keep_maps=save_maps)
    try:
        for event in events:
            if isinstance(event, Planned):
                progress.plan(event.n_tiles)
            elif isinstance(event, TileDone):
                progress.advance()
            elif isinstance(event, Notice):
                progress.say(f"{image.name}: {event.message}")
            elif isinstance(event, Finished):
                spacing = source.spacing_of("".join(a for a in event.axes if a in "zyx"))
                write_labels(
                    labels,
                    event.labels,
                    event.axes,
                    spacing,
                    source.units,
                    description=event.provenance,
                    overwrite=overwrite,
                )
                if event.maps is not None:
                    maps_path = labels.with_name(
                        labels.name.removesuffix("_labels.ome.tif").split(".ome.tif")[0] + "_maps.ome.tif"
                    )
                    write_maps(
                        maps_path,
                        event.maps,
                        "c" + event.axes,
                        model.spec.target.channels,
                        spacing,
                        source.units,
                        description=event.provenance,
                        overwrite=True,
                    )
                result.n_objects = event.n_objects
                result.megavoxels = round(event.labels.size / 1e6, 3)
    finally:
        events.close()


class _PlainProgress:
    """Lines for a log file: one at the start of a file, and whatever is to be said."""

    def start(self, name: str, number: int, total: int) -> None:
        print(f"[{number}/{total}] {name}", file=sys.stderr, flush=True)

    def plan(self, n_tiles: int) -> None:
        pass

    def advance(self) -> None:
        pass

    def say(self, message: str) -> None:
        print(message, file=sys.stderr, flush=True)


class _TerminalProgress:
    """A bar with rate and time left."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
        from rich.progress import Progress as Bars

        self.bars = Bars(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("tiles"),
            TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
        )
        self.task = self.bars.add_task("", total=None, rate="")

    def start(self, name: str, number: int, total: int) -> None:
        self.bars.reset(self.task, description=f"[{number}/{total}] {name}", total=None, completed=0, rate="")

    def plan(self, n_tiles: int) -> None:
        self.bars.update(self.task, total=n_tiles)

    def advance(self) -> None:
        speed = self.bars.tasks[0].speed
        self.bars.update(self.task, advance=1, rate=f"{speed:.1f}/s" if speed else "")

    def say(self, message: str) -> None:
        self.bars.console.print(message, highlight=False, markup=False)


@contextmanager
def _progress() -> Iterator[Progress]:
    if not sys.stderr.isatty():
        yield _PlainProgress()
        return
    terminal = _TerminalProgress()
    with terminal.bars:
        yield terminal


def _report(results: Sequence[FileResult], seconds: float, as_json: bool) -> None:
    counts = {state: sum(r.state == state for r in results) for state in ("done", "skipped", "failed")}
    if as_json:
        print(json.dumps({"files": [asdict(r) for r in results], "seconds": round(seconds, 3), **counts}, indent=2))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("image", "state", "objects", "seconds", "MVoxel/s", "labels or reason")
    for r in results:
        rate = f"{r.megavoxels / r.seconds:.2f}" if r.state == "done" and r.seconds else ""
        table.add_row(
            Path(r.image).name,
            r.state,
            "" if r.n_objects is None else str(r.n_objects),
            f"{r.seconds:.2f}",
            rate,
            r.labels if r.state == "done" else r.error,
        )
    console = Console(width=None if sys.stdout.isatty() else 160)
    console.print(table)
    console.print(
        f"{counts['done']} done, {counts['skipped']} skipped, {counts['failed']} failed in {seconds:.1f} s",
        highlight=False,
    )
