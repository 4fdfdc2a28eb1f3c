"""Score the bundled models besides ``nuclei`` on what their trainings held out, and show what they find.

    python -m benchmarks.accuracy_models --data DATA [--models axons ...] [--figures docs/images]

DATA is the folder of the data sets that the scripts in ``training/`` take; each script says which
part is held out. Every test image goes through :func:`napari_tiled_unet.segment` whole, by default
options (``cells-phase`` is told the object size; neurons are made of the maps of ``membranes-3d``
as its script says).
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt

from napari_tiled_unet import Image, load_model
from napari_tiled_unet.demo import overlay
from training import train_axons, train_cells_phase, train_membranes_3d, train_nuclei_3d
from training.bundled import Course, Labels

COURSES = {
    "axons": train_axons.course,
    "cells-phase": train_cells_phase.course,
    "nuclei-3d": train_nuclei_3d.course,
    "membranes-3d": train_membranes_3d.course,
}
# Which test image is shown, and at most how many pixels of it along an axis.
SHOWN = {"axons": 1, "cells-phase": 1, "nuclei-3d": 0, "membranes-3d": 0}
MOST = 420


def main() -> None:
    """Segment, score, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    parser.add_argument("--models", nargs="*", default=list(COURSES), choices=list(COURSES))
    parser.add_argument("--weights", type=Path, help="folder of the model files; default: the bundled ones")
    parser.add_argument("--figures", type=Path, help="write a picture per model to this folder")
    chosen = parser.parse_args()
    for name in chosen.models:
        course = COURSES[name](chosen.data)
        model = load_model(name if chosen.weights is None else chosen.weights / f"{name}.safetensors")
        started = time.perf_counter()
        found = [course.find(model, image) for image, _ in course.test]
        seconds = time.perf_counter() - started
        voxels = sum(labels.size for labels in found)
        print(f"{name}, {course.held_out}: {len(found)} images, {voxels / 1e6:.1f} million voxels in {seconds:.1f} s")
        for score, value in course.scores(model, found).items():
            print(f"  {score:<20} {value:.3f}")
        if len(found) > 1:
            for (image, truth), labels in zip(course.test, found, strict=True):
                print(f"  {image.name}: {one_line(course, labels, truth)}")
        if chosen.figures is not None:
            write_picture(course, found, chosen.figures)


def one_line(course: Course, labels: Labels, truth: Image) -> str:
    """Return the scores of one image."""
    from napari_tiled_unet import evaluate

    names = course.options.get("classes", ()) if course.judged_as == "classes" else ()
    scores = evaluate(labels, np.asarray(truth.data), target=course.judged_as, classes=names).scores
    return ", ".join(f"{name} {scores[name]:.3f}" for name in course.told)


def write_picture(course: Course, found: list[Labels], folder: Path) -> None:
    """Write the image, what was found, and the truth, side by side; the middle slice of a stack."""
    from skimage.io import imsave

    which = SHOWN[course.name]
    image, truth = (np.asarray(part.data) for part in course.test[which])
    parts = [plane(values) for values in (image, found[which], truth)]
    raw, labels, true = (part[:MOST, :MOST] for part in parts)
    side_by_side = overlay(raw, labels)
    picture = np.concatenate([side_by_side, overlay(raw, true)[:, raw.shape[1] :]], axis=1)
    # Small stacks are shown large.
    times = max(1, MOST // max(raw.shape))
    folder.mkdir(parents=True, exist_ok=True)
    imsave(folder / f"{course.name}.png", picture.repeat(times, 0).repeat(times, 1), check_contrast=False)


def plane(values: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
    """Return a plane of an image or stack."""
    return values if values.ndim == 2 else values[len(values) // 2]


if __name__ == "__main__":
    main()
