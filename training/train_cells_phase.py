"""Train the bundled model ``cells-phase`` on usiigaci: phase contrast, T98G and NIH3T3 cells.

``python -m training.train_cells_phase --data DATA --out cells-phase.safetensors``

Fields are split by number: every sixth one (4 of 24) is for the test. Cells are 50 to 90 pixels
wide, and larger ones reach 150; the network sees them at half that size, and ``object_size``
brings other images there.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from napari_tiled_unet import Image, read_image, segment
from napari_tiled_unet.matching import Grid
from napari_tiled_unet.model import Model
from training.bundled import Course, Labels, Pair, arguments, make

# Pixels of the network per pixel of the image.
SCALE = 0.5


def fields(folder: Path) -> list[Pair]:
    """Return images and labels in the order of their numbers."""
    names = sorted((folder / "images").glob("*.tif"), key=lambda p: int("".join(re.findall(r"\d+", p.stem))))
    return [(read_image(p, axes="yx"), read_image(folder / "labels" / p.name, axes="yx")) for p in names]


def scaled(pair: Pair) -> Pair:
    """Return an image as the network is given it, with labels on that grid."""
    image, labels = pair
    frame = np.asarray(image.data, np.float32)
    grid = Grid.of(frame.shape, (SCALE, SCALE))
    rows, columns = (
        (np.arange(n) * m // n).astype(int) for n, m in zip(grid.network, frame.shape, strict=True)
    )  # the pixel that a smaller one begins at
    smaller = np.asarray(labels.data)[np.ix_(rows, columns)]
    return Image(grid.to_network(frame[None])[0], "yx", name=image.name), Image(smaller, "yx", name=labels.name)


def find(model: Model, image: Image) -> Labels:
    """Segment an image as it was recorded."""
    assert model.spec.object_size is not None
    labels: Labels = segment(image, model, object_size=model.spec.object_size / SCALE)
    return labels


def course(data: Path) -> Course:
    """Return what it is made of."""
    pairs = fields(data / "usiigaci")
    return Course(
        name="cells-phase",
        summary="Whole cells in 2D phase contrast, crowded and elongated ones too; say object_size",
        licence="MIT",
        source="Usiigaci (Tsai et al. 2019), copyright (c) 2018 OIST, MIT licence; at half its resolution",
        learn=[scaled(pair) for n, pair in enumerate(pairs) if n % 6],
        test=pairs[::6],
        held_out="every sixth field, 4 of 24",
        channel="phase contrast",
        options={"depth": 5},
        find=find,
    )


if __name__ == "__main__":
    chosen = arguments(__doc__ or "", steps=3000, minutes=11)
    make(course(chosen.data), chosen)
