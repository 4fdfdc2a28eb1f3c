"""Score the model ``nuclei`` on held-out images of the DSB 2018 set, and show the worst.

    python benchmarks/accuracy_nuclei.py --data DATA/dsb2018 [--figures docs/images]

Every image of the split goes through :func:`napari_tiled_unet.segment` as a user's image
would: whole frame, default options. Average precision is TP / (TP + FP + FN), pooled
over all objects of the split and as the mean over images.
"""

from __future__ import annotations

import argparse
import csv
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile

from napari_tiled_unet import load_model, segment
from napari_tiled_unet.demo import overlay
from napari_tiled_unet.metrics import average_precision
from napari_tiled_unet.model import Model
from napari_tiled_unet.model_files import find_model, save_model, stored_half


@dataclass
class Scored:
    """One image with its truth and its labels."""

    name: str
    image: npt.NDArray[Any]
    truth: npt.NDArray[Any]
    labels: npt.NDArray[Any]


def read_split(folder: Path, split: str, kind: str) -> list[tuple[str, npt.NDArray[Any], npt.NDArray[Any]]]:
    """Return name, image and truth of every image of a split."""
    rows = []
    with (folder / "index.csv").open() as index:
        for row in csv.DictReader(index):
            if row["split"] == split and row["kind"].startswith(kind):
                image = tifffile.imread(folder / "images" / f"{row['id']}.tif")
                truth = tifffile.imread(folder / "labels" / f"{row['id']}.tif")
                rows.append((row["id"], image, truth))
    return rows


def main() -> None:
    """Segment, score, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the dsb2018 folder")
    parser.add_argument("--split", default="test", choices=["train", "val", "test"])
    parser.add_argument("--kind", default="fluorescence", help="images whose kind starts with this")
    parser.add_argument("--model", default="nuclei", help="name or path of a model")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--flips", action="store_true", help="average over mirrored views")
    parser.add_argument("--record", action="store_true", help="write the scores into the model file")
    parser.add_argument("--figures", type=Path, help="write the six worst images to this folder")
    arguments = parser.parse_args()

    model = load_model(arguments.model)
    scored, seconds, megapixels = [], 0.0, 0.0
    for name, image, truth in read_split(arguments.data, arguments.split, arguments.kind):
        axes = "yx" if image.ndim == 2 else "yxc"
        started = time.perf_counter()
        plane = image if image.ndim == 2 else grey(image)
        labels = segment(plane, model, axes=axes[:2], precision=arguments.precision, flips=arguments.flips)
        seconds += time.perf_counter() - started
        megapixels += truth.size / 1e6
        scored.append(Scored(name, image, truth, labels))

    result = average_precision([s.labels for s in scored], [s.truth for s in scored])
    objects = sum(len(np.unique(s.truth)) - 1 for s in scored)
    print(f"{model.spec.name}, {arguments.kind} {arguments.split}: {len(scored)} images, {objects} objects")
    print("IoU      " + "  ".join(f"{t:.2f}" for t in result.thresholds) + "  mean")
    for title, values in (("pooled", result.pooled), ("per image", result.per_image_mean)):
        print(
            f"{title:<9}"
            + "  ".join(f".{round(v * 1000):03d}" for v in values)
            + f"  .{round(float(np.mean(values)) * 1000):03d}"
        )
    print(f"{seconds / megapixels:.2f} s per megapixel, image to labels, {megapixels:.1f} megapixels")
    if arguments.record:
        record(arguments.model, arguments.split, result.pooled)
    if arguments.figures:
        show_worst(scored, arguments.figures)


def record(name: str, split: str, pooled: npt.NDArray[np.float64]) -> None:
    """Write pooled scores into the model's card."""
    path = find_model(name)
    model = load_model(path)
    values = {"ap50": pooled[0], "ap75": pooled[5], "ap90": pooled[8], "mean": np.mean(pooled)}
    scores = {**model.spec.scores, **{f"{split}_{key}": round(float(value), 4) for key, value in values.items()}}
    changed = Model(model.spec.model_copy(update={"scores": scores}), model.network)
    save_model(changed, path, overwrite=True, half=stored_half(path))


def grey(image: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Return the luminance of an RGB image, inverted where the background is bright."""
    values = image[..., :3].astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)
    return 255 - values if np.median(values) > 127 else values


def show_worst(scored: list[Scored], folder: Path, count: int = 6) -> None:
    """Write a picture per image: raw, found, truth."""
    from skimage.io import imsave

    folder.mkdir(parents=True, exist_ok=True)
    means = [float(np.mean(average_precision([s.labels], [s.truth]).pooled)) for s in scored]
    for rank, k in enumerate(np.argsort(means)[:count], start=1):
        s = scored[k]
        image = s.image if s.image.ndim == 2 else grey(s.image)
        found, truth = overlay(image, s.labels), overlay(image, s.truth)
        picture = np.concatenate([found, truth[:, image.shape[1] :]], axis=1)
        imsave(folder / f"nuclei-worst-{rank}.png", picture, check_contrast=False)
        print(f"worst {rank}: {s.name[:12]} mean AP {means[k]:.3f}, {s.truth.max()} objects, {s.labels.max()} found")


if __name__ == "__main__":
    main()
