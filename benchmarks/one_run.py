"""One run of the bundled model in this process: ``python -m benchmarks.one_run 2048 2048 [--tile 512]``.

Prints one line of JSON: seconds from image to labels, of the first run on the image (one before it warms up
on a small part) and the median of all, and the peak of the memory. Used by ``benchmarks/scaling.py`` and
``benchmarks/stardist.py``.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import time
from typing import Any

import numpy as np


def main() -> None:
    """Run and print."""
    from napari_tiled_unet import load_model, segment
    from napari_tiled_unet.demo import read_sample

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("shape", type=int, nargs=2)
    parser.add_argument("--model", default="nuclei")
    parser.add_argument("--tile", type=int)
    parser.add_argument("--repeats", type=int, default=1)
    arguments = parser.parse_args()
    model, sample = load_model(arguments.model), np.asarray(read_sample().data)
    image = np.tile(sample, [-(-n // s) for n, s in zip(arguments.shape, sample.shape, strict=True)])
    image = np.ascontiguousarray(image[tuple(slice(n) for n in arguments.shape)])
    options: dict[str, Any] = {"tile": arguments.tile} if arguments.tile else {}
    segment(sample[:128, :128], model)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    seconds = []
    for _ in range(arguments.repeats):
        started = time.perf_counter()
        labels = segment(image, model, **options)
        seconds.append(time.perf_counter() - started)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    answer = {
        "seconds": round(statistics.median(seconds), 3),
        "first": round(seconds[0], 3),
        "megavoxels": image.size / 1e6,
        "peak_gib": round(peak, 3),
        "small_image_gib": round(before, 3),
        "objects": int(labels.max()),
    }
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
