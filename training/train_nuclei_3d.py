"""Train the bundled model ``nuclei-3d`` on plantseg_3d and qcanet_embryo.

``python -m training.train_nuclei_3d --data DATA --out nuclei-3d.safetensors``

Of each volume the last quarter along x is for the test, 8 voxels before it are not used.
The volumes are taken at their own voxels; the sizes of QCANet's are not known.
"""

from __future__ import annotations

from napari_tiled_unet import Image, read_image
from training.bundled import Course, arguments, cut, make

VOLUMES = (
    "plantseg_3d/1135_mini",
    "plantseg_3d/1136_mini",
    "plantseg_3d/train_3D_3D",
    "qcanet_embryo/8_cell_stage",
    "qcanet_embryo/16_cell_stage",
)


def main() -> None:
    """Train it."""
    chosen = arguments(__doc__ or "", steps=4000)
    parts = []
    for name in VOLUMES:
        image, labels = (read_image(chosen.data / f"{name}_{kind}.tif", axes="zyx") for kind in ("raw", "labels"))
        # Not every set says its voxel size, and a model has one or none.
        image = Image(image.data, "zyx", name=image.name)
        parts.append(cut(image, Image(labels.data, "zyx"), "x", share=0.25, gap=8))
    course = Course(
        name="nuclei-3d",
        summary="Nuclei in 3D fluorescence stacks: plant tissue and mouse embryos",
        licence="MIT",
        source="plant-seg test resources, copyright (c) 2024 EMBL; QCANet, copyright (c) 2018 Funahashi Lab; both MIT",
        learn=[learn for learn, _ in parts],
        test=[test for _, test in parts],
        held_out="the last quarter of each volume along x, after a gap of 8 voxels",
    )
    make(course, chosen)


if __name__ == "__main__":
    main()
