"""Train the bundled model ``cells-phase`` on usiigaci: phase contrast, T98G and NIH3T3 cells.

``python -m training.train_cells_phase --data DATA --out cells-phase.safetensors``

Fields are split by number: every sixth one (4 of 24) is for the test.
"""

from __future__ import annotations

import re
from pathlib import Path

from napari_tiled_unet import Image, read_image
from training.bundled import Course, arguments, make


def fields(folder: Path) -> list[tuple[Image, Image]]:
    """Return images and labels in the order of their numbers."""
    names = sorted((folder / "images").glob("*.tif"), key=lambda p: int("".join(re.findall(r"\d+", p.stem))))
    return [(read_image(p, axes="yx"), read_image(folder / "labels" / p.name, axes="yx")) for p in names]


def main() -> None:
    """Train it."""
    chosen = arguments(__doc__ or "")
    pairs = fields(chosen.data / "usiigaci")
    course = Course(
        name="cells-phase",
        summary="Whole cells in 2D phase contrast, crowded and elongated ones too",
        licence="MIT",
        source="Usiigaci (Tsai et al. 2019), copyright (c) 2018 OIST, MIT licence",
        learn=[pair for n, pair in enumerate(pairs) if n % 6],
        test=pairs[::6],
        held_out="every sixth field, 4 of 24",
    )
    make(course, chosen)


if __name__ == "__main__":
    main()
