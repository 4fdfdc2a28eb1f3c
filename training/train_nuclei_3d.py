"""Train the bundled model ``nuclei-3d`` on plantseg_3d, qcanet_embryo and drawn stacks.

``python -m training.train_nuclei_3d --data DATA --out nuclei-3d.safetensors``

Of each volume the last quarter along x is for the test, 8 voxels before it are not used. The rest
is learned from, with stacks that :mod:`training.synthetic` draws; the engine holds out a part of each
to choose by, as there are few. The volumes are taken at their own voxels; the sizes of QCANet's are
not known.
"""

from __future__ import annotations

from pathlib import Path

from napari_tiled_unet import Image, read_image
from training.bundled import Course, Pair, arguments, cut, make
from training.synthetic import drawn_nuclei

VOLUMES = (
    "plantseg_3d/1135_mini",
    "plantseg_3d/1136_mini",
    "plantseg_3d/train_3D_3D",
    "qcanet_embryo/8_cell_stage",
    "qcanet_embryo/16_cell_stage",
)
DRAWN = 2


def volumes(data: Path) -> list[tuple[Pair, Pair]]:
    """Return what is to learn from and what is for the test, volume by volume."""
    parts = []
    for name in VOLUMES:
        image, labels = (read_image(data / f"{name}_{kind}.tif", axes="zyx") for kind in ("raw", "labels"))
        # Not every set says its voxel size, and a model has one or none.
        image = Image(image.data, "zyx", name=image.name)
        parts.append(cut(image, Image(labels.data, "zyx"), "x", share=0.25, gap=8))
    return parts


def course(data: Path) -> Course:
    """Return what it is made of."""
    parts = volumes(data)
    return Course(
        name="nuclei-3d",
        summary="Nuclei in 3D fluorescence stacks, 15 to 30 voxels wide: plant tissue and mouse embryos",
        licence="MIT",
        source="plant-seg test resources, copyright (c) 2024 EMBL; QCANet, copyright (c) 2018 Funahashi Lab; both MIT; "
        f"{DRAWN} drawn stacks",
        learn=[learn for learn, _ in parts] + [drawn_nuclei(number) for number in range(DRAWN)],
        test=[test for _, test in parts],
        held_out="the last quarter of each volume along x, after a gap of 8 voxels",
        channel="nuclei",
        options={"depth": 3},
    )


if __name__ == "__main__":
    chosen = arguments(__doc__ or "", steps=3000, minutes=11, validate_every=100)
    make(course(chosen.data), chosen)
