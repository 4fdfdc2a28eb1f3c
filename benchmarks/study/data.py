"""The three sets, read and normalised, split the same for every cell."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile

from benchmarks.study.cells import Cell
from napari_tiled_unet.normalise import Normalisation, measure
from napari_tiled_unet.targets import Classes, Objects

FOLDS = 5


@dataclass(frozen=True)
class Sample:
    """A normalised frame ``(1, [z,] y, x)`` float32 and its truth ``([z,] y, x)``."""

    frame: npt.NDArray[np.float32]
    truth: npt.NDArray[Any]


def target_of(data: str) -> Objects | Classes:
    """Return what is to be predicted on a set."""
    return Classes(classes=("membrane", "inside")) if data == "isbi2012" else Objects()


def read(cell: Cell, folder: Path, limit: int | None = None) -> tuple[list[Sample], list[Sample]]:
    """Return the samples to train on and those to score.

    Parameters
    ----------
    cell : Cell
        Says set, fold and number of images.
    folder : Path
        Holds the sets.
    limit : int, optional
        Most samples of each, for a try.
    """
    readers = {"dsb2018": _dsb2018, "isbi2012": _isbi2012, "plantseg_3d": _plantseg_3d}
    train, test = readers[cell.data](folder / cell.data, cell)
    if cell.images:
        # The same images for every row, other ones for every seed.
        order = np.random.default_rng(cell.seed).permutation(len(train))
        train = [train[int(i)] for i in order[: cell.images]]
    return train[:limit], test[:limit]


def _sample(frame: npt.NDArray[Any], truth: npt.NDArray[Any]) -> Sample:
    statistics, _ = measure(frame[None], Normalisation())
    return Sample(statistics.apply(frame[None]), truth)


def _dsb2018(folder: Path, cell: Cell) -> tuple[list[Sample], list[Sample]]:  # noqa: ARG001 - as the others
    split: dict[str, list[Sample]] = {"train": [], "test": []}
    with (folder / "index.csv").open() as index:
        for row in csv.DictReader(index):
            if row["split"] in split and row["kind"].startswith("fluorescence"):
                name = f"{row['id']}.tif"
                truth = tifffile.imread(folder / "labels" / name).astype(np.int32)
                split[row["split"]].append(_sample(tifffile.imread(folder / "images" / name), truth))
    return split["train"], split["test"]


def _isbi2012(folder: Path, cell: Cell) -> tuple[list[Sample], list[Sample]]:
    volume, truth = (tifffile.imread(folder / f"train-{name}.tif") for name in ("volume", "labels"))
    samples = [_sample(image, (label > 0).astype(np.int32)) for image, label in zip(volume, truth, strict=True)]
    # Neighbouring slices look alike, so a fold is a block of them.
    held = np.array_split(np.arange(len(samples)), FOLDS)[cell.fold]
    return [s for i, s in enumerate(samples) if i not in held], [samples[i] for i in held]


def _plantseg_3d(folder: Path, cell: Cell) -> tuple[list[Sample], list[Sample]]:  # noqa: ARG001 - as the others
    train, test = (
        _sample(
            tifffile.imread(folder / f"{name}_raw.tif"), tifffile.imread(folder / f"{name}_labels.tif").astype(np.int32)
        )
        for name in ("1135_mini", "1136_mini")
    )
    return [train], [test]
