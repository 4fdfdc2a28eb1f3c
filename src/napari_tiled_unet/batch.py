"""Many files, one after the other: what the command line's ``segment`` does.

A bad file costs that file alone; what is written is written whole or not at all.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from napari_tiled_unet.errors import FileError, OptionsError, TiledUnetError
from napari_tiled_unet.events import Finished, Notice, Planned, TileDone
from napari_tiled_unet.terminal import FileResult, Progress, report, shown_progress

if TYPE_CHECKING:
    from napari_tiled_unet.model import Model
    from napari_tiled_unet.options import SegmentOptions

_LABELS, _MAPS = "_labels.ome.tif", "_maps.ome.tif"


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

    batch = _Batch(load_model(options.model), options, save_maps, overwrite, explain_plan)
    results: list[FileResult] = []
    started = time.perf_counter()
    with shown_progress() as progress:
        for number, (image, labels) in enumerate(zip(images, targets, strict=True), start=1):
            progress.start(image.name, number, len(images))
            results.append(batch.segment(image, labels, progress, taken=labels in targets[: number - 1]))
    report(results, time.perf_counter() - started, as_json=as_json)
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
    return [(image.parent if out is None else out) / f"{_stem(image)}{_LABELS}" for image in images]


def maps_path(labels: Path) -> Path:
    """Return where the maps go that belong to a label file."""
    stem = labels.name.removesuffix(_LABELS)
    return labels.with_name(f"{_stem(Path(stem)) if stem == labels.name else stem}{_MAPS}")


def _stem(path: Path) -> str:
    name = path.name
    for suffix in (".ome.tiff", ".ome.tif", ".ome.zarr"):
        if name.lower().endswith(suffix):
            return name[: -len(suffix)]
    return path.stem


@dataclass(frozen=True)
class _Batch:
    """What is the same for every file of a run."""

    model: Model
    options: SegmentOptions
    save_maps: bool
    overwrite: bool
    explain_plan: bool = False

    def segment(self, image: Path, labels: Path, progress: Progress, *, taken: bool) -> FileResult:
        """Segment one file; whatever is wrong with it ends up in the result."""
        result = FileResult(str(image), str(labels))
        started = time.perf_counter()
        try:
            if taken:
                raise FileError(
                    f"another image of this run also writes {str(labels)!r}; segment them into different folders"
                )
            if labels.exists() and not self.overwrite:
                result.state, result.error = "skipped", "result exists; --overwrite replaces it"
                return result
            self._work(image, labels, progress, result)
            result.state = "done"
        except (TiledUnetError, MemoryError) as error:
            result.error = str(error) or "out of memory; take a smaller tile"
            progress.say(f"{image.name}: {result.error}")
        finally:
            result.seconds = round(time.perf_counter() - started, 3)
        return result

    def _work(self, image: Path, labels: Path, progress: Progress, result: FileResult) -> None:
        from napari_tiled_unet.io import require_writable
        from napari_tiled_unet.segmentation import iter_segment

        # Minutes of work must not end at a folder that cannot be written.
        require_writable(labels.parent)
        events = iter_segment(image, self.model, options=self.options, keep_maps=self.save_maps)
        try:
            for event in events:
                if isinstance(event, Planned):
                    progress.plan(event.n_tiles)
                    if self.explain_plan:
                        progress.say("\n".join(event.explanation))
                elif isinstance(event, TileDone):
                    progress.advance()
                elif isinstance(event, Notice):
                    progress.say(f"{image.name}: {event.message}")
                elif isinstance(event, Finished):
                    self._write(event, labels)
                    result.n_objects = event.n_objects
                    result.megavoxels = round(event.labels.size / 1e6, 3)
        finally:
            events.close()

    def _write(self, done: Finished, labels: Path) -> None:
        from napari_tiled_unet.io import write_labels, write_maps

        size, provenance = (done.spacing, done.units), done.provenance
        if done.maps is not None:
            names = self.model.spec.target.channels
            axes = f"c{done.axes}"
            write_maps(maps_path(labels), done.maps, axes, names, *size, description=provenance, overwrite=True)
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
