"""Measure the peak memory of image to labels against the size of the image.

    python benchmarks/memory.py [--model nuclei] [--sides 512 1024 2048 4096] [--blend crop] [--precision auto]

Each size runs in a process of its own, on the bundled sample mirrored to the size (uint8). The
peak is that of the process's resident memory, Python, torch and the network included.

==================  ==============================================================
column              what
==================  ==============================================================
image, labels       their size
imports             resident memory once torch and the package are imported
peak                the most that was resident
beyond              peak less image and labels: what the run itself takes
==================  ==============================================================
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from typing import Any

MIB = 2**20


def peak_bytes() -> int:
    """Return the most memory that was resident so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def measure(side: int, model: str, blend: str, precision: str) -> dict[str, Any]:
    """Segment one image in this process and return what it took."""
    import numpy as np
    import torch  # noqa: F401 - what it takes is not the run's

    from napari_tiled_unet import iter_segment
    from napari_tiled_unet.demo import read_sample
    from napari_tiled_unet.events import Finished

    imports = peak_bytes()
    sample = np.asarray(read_sample().data)
    image = np.pad(sample, [(0, max(0, side - n)) for n in sample.shape], mode="symmetric")[:side, :side].copy()
    del sample
    started = time.perf_counter()
    for event in iter_segment(image, model, blend=blend, precision=precision):
        if isinstance(event, Finished):
            labels, provenance = event.labels, event.provenance
    return {
        "side": side,
        "image": image.nbytes,
        "labels": labels.nbytes,
        "objects": int(labels.max()),
        "imports": imports,
        "peak": peak_bytes(),
        "seconds": time.perf_counter() - started,
        "tile": "x".join(map(str, provenance["tile"])),
    }


def main() -> None:
    """Run every size in a process of its own and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="nuclei")
    parser.add_argument("--sides", type=int, nargs="+", default=[512, 1024, 2048, 4096])
    parser.add_argument("--blend", choices=["crop", "gaussian"], default="crop")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one is not None:
        print(json.dumps(measure(arguments.one, arguments.model, arguments.blend, arguments.precision)))
        return
    print(
        f"{'side':>6} {'tile':>11} {'image':>7} {'labels':>7} {'imports':>8} {'peak':>7} {'beyond':>7}  MiB   seconds"
    )
    for side in arguments.sides:
        command = [sys.executable, __file__, "--one", str(side), "--model", arguments.model]
        command += ["--blend", arguments.blend, "--precision", arguments.precision]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        row = json.loads(done.stdout.splitlines()[-1])
        beyond = row["peak"] - row["image"] - row["labels"]
        print(
            f"{side:>6} {row['tile']:>11} {row['image'] / MIB:>7.0f} {row['labels'] / MIB:>7.0f} "
            f"{row['imports'] / MIB:>8.0f} {row['peak'] / MIB:>7.0f} {beyond / MIB:>7.0f}       {row['seconds']:>7.1f}"
        )


if __name__ == "__main__":
    main()
