"""The files of an image's result: where labels, maps and spread lie, whose they are, and writing them as one."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_tiled_unet.errors import FileError, OptionsError
from napari_tiled_unet.events import Finished, Notice
from napari_tiled_unet.pairing import stem_of

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

# Formats of images, which somebody may take for those of labels.
_NO_LABELS = (".png", ".jpg", ".jpeg", ".bmp", ".npy", ".lsm", ".zarr")
_LABELS, _MAPS, _SPREAD = "_labels.ome.tif", "_maps.ome.tif", "_spread.ome.tif"


def rivals_of(images: Sequence[Path], targets: Sequence[Path]) -> list[list[Path]]:
    """Return, for each image, the others whose labels would go into the same file."""
    from napari_tiled_unet.io import is_result

    places = [place_of(target) for target in targets]
    claims: dict[str, list[Path]] = {}
    for image, place in zip(images, places, strict=True):
        if not is_result(image):
            claims.setdefault(place, []).append(image)
    return [
        [other for other in claims.get(place, []) if other != image]
        for image, place in zip(images, places, strict=True)
    ]


def place_of(path: Path) -> str:
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
    if out is not None and out.name.lower().endswith((".tif", ".tiff")) and not out.is_dir():
        if len(images) > 1:
            raise OptionsError(f"--out {str(out)!r} names one file, there are {len(images)} images; give a folder")
        return [out]
    return [(image.parent if out is None else out) / f"{stem_of(image)}{_LABELS}" for image in images]


def maps_path(labels: Path, *, spread: bool = False) -> Path:
    """Return where the maps go that belong to a label file, or their spread over flips."""
    stem = labels.name.removesuffix(_LABELS)
    return labels.with_name(f"{stem_of(Path(stem)) if stem == labels.name else stem}{_SPREAD if spread else _MAPS}")


@dataclass(frozen=True)
class ResultFiles:
    """Labels of an image, and the maps that go with them.

    Attributes
    ----------
    image, labels : Path
        What is read, and where its labels go.
    save_maps, spread : bool
        Whether maps are written, and their spread over flips.
    overwrite : bool
        Whether files may be replaced that no interrupted run on this image left.
    """

    image: Path
    labels: Path
    save_maps: bool
    spread: bool
    overwrite: bool

    def require_free(self, rivals: Sequence[Path]) -> None:
        """Refuse a place that other images or the image itself have.

        Parameters
        ----------
        rivals : sequence of Path
            Other images whose labels would go into the same file.

        Raises
        ------
        FileError
            If there are any, or the labels would replace the image.
        """
        if rivals:
            raise FileError(
                f"{str(self.image)!r} and {' and '.join(repr(str(rival)) for rival in rivals)} would write the "
                f"same file, {str(self.labels)!r}; segment them into different folders, or rename one"
            )
        if place_of(self.labels) == place_of(self.image):
            raise FileError(f"the labels would replace the image {str(self.image)!r}; name another file or folder")

    def are_done(self) -> bool:
        """Return whether the labels are there and are to stay; refuse what may not be replaced without a word.

        Raises
        ------
        FileError
            If they are of another image, or maps are there that no run on this image left.
        """
        from napari_tiled_unet.io import is_ours

        if self.overwrite:
            return False
        if self.labels.exists():
            _require_of(self.image, self.labels)
            return True
        for path, wanted in self._maps.items():
            if path.exists() and is_ours(path):
                # Labels come last: what a run left that was interrupted before them is replaced.
                _require_of(self.image, path)
            elif path.exists() and wanted:
                raise FileError(f"{str(path)!r} exists and its labels do not; --overwrite replaces it")
        return False

    @property
    def _maps(self) -> dict[Path, bool]:
        """The files of maps and their spread, and whether a run writes them."""
        return {
            maps_path(self.labels): self.save_maps,
            maps_path(self.labels, spread=True): self.save_maps and self.spread,
        }

    def write(self, done: Finished, channels: Sequence[str]) -> list[Path]:
        """Write what a run found; if something of it cannot be written, all stays as it was.

        Parameters
        ----------
        done : Finished
            The end of the run.
        channels : sequence of str
            Names of its maps.

        Returns
        -------
        list of Path
            Maps of an earlier run that did not belong to the new labels, and were removed.

        Raises
        ------
        FileError
            If a file cannot be written, replaced or removed.
        """
        from napari_tiled_unet.io import AsOne, Place, is_ours, write_labels, write_maps

        place = Place(dict(zip(done.axes, done.offset, strict=True)), done.origin, done.time_step)
        known: dict[str, Any] = {"spacing": done.spacing, "units": done.units, "place": place}
        maps: dict[Path, tuple[npt.NDArray[np.float32] | None, Sequence[str]]] = {
            maps_path(self.labels): (done.maps, channels),
            maps_path(self.labels, spread=True): (None if done.spread is None else done.spread[None], ("spread",)),
        }
        stale = [path for path, wanted in self._maps.items() if not wanted and path.exists() and is_ours(path)]
        with AsOne() as group:
            known |= {"description": done.provenance, "group": group}
            for path, (data, names) in maps.items():
                if data is not None:
                    replaced = self.overwrite or is_ours(path)
                    write_maps(path, data, f"c{done.axes}", names, overwrite=replaced, **known)
            # Last, so that labels that exist mean that all of the image is done.
            write_labels(self.labels, done.labels, done.axes, overwrite=self.overwrite, **known)
        for path in stale:
            _remove(path)
        return stale


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


def _remove(path: Path) -> None:
    """Remove the maps of an earlier run.

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


def removal_of(path: Path) -> Notice:
    """Return what is told of maps that were removed."""
    return Notice(
        f"{path.name!r} of an earlier run is removed, it does not belong to the new labels; "
        f"--save-maps{' with --flips' * path.name.endswith(_SPREAD)} writes them anew"
    )
