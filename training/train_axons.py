"""Train the bundled model ``axons`` on axon_sem: background, myelin and axon in scanning EM of rat spinal cord.

``python -m training.train_axons --data DATA --out axons.safetensors``

Images are split by animal: those of rats 1 and 6 (one each of 10) are for the test.
"""

from __future__ import annotations

from pathlib import Path

from napari_tiled_unet import read_image
from training.bundled import Course, arguments, make

TEST = ("sub-rat1_", "sub-rat6_")


def course(data: Path) -> Course:
    """Return what it is made of."""
    folder = data / "axon_sem"
    files = sorted((folder / "images").glob("*.tif"))
    pairs = [(read_image(p, axes="yx"), read_image(folder / "labels" / p.name, axes="yx")) for p in files]
    return Course(
        name="axons",
        summary="Myelin and axons in scanning electron microscopy of spinal cord, as classes",
        licence="MIT",
        source="axondeepseg/data_axondeepseg_sem, doi:10.5281/zenodo.5498378, copyright (c) 2020 ivadomed, MIT licence",
        learn=[pair for pair in pairs if not pair[0].name.startswith(TEST)],
        test=[pair for pair in pairs if pair[0].name.startswith(TEST)],
        held_out="the images of rats 1 and 6",
        channel="scanning electrons",
        told=("Dice", "Dice background", "Dice myelin", "Dice axon"),
        judged_as="classes",
        # Axons are up to 200 pixels wide, and of all sizes: a deep network, and much variation of scale.
        options={
            "target": "classes",
            "classes": ("background", "myelin", "axon"),
            "depth": 5,
            "augmentation": "strong",
        },
    )


if __name__ == "__main__":
    chosen = arguments(__doc__ or "", steps=3000, minutes=11)
    make(course(chosen.data), chosen)
