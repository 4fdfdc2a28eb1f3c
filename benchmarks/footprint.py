"""Bytes per voxel that the planner reckons with, beside what a pass of the network really takes; and its seconds.

    python -m benchmarks.footprint [--models 2d 3d nuclei] [--precisions float32 bfloat16]

Each in a process of its own: a small tile warms up, the peak of the resident memory is reset, a tile runs in the
torch backend. Large tiles are run twice, in bands and layer by layer. Linux only. Writes ``results/footprint.csv``.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from unittest.mock import patch

import numpy as np

from benchmarks.cases import case, in_a_process, model_of, write_rows

SIDES = {"middling": {2: (640, 640), 3: (48, 96, 96)}, "large": {2: (2048, 2048), 3: (64, 256, 256)}}
RUNS = (("middling", "as it is"), ("large", "in bands"), ("large", "layer by layer"))


def resident(what: str) -> int:
    """Return a line of the kernel's account of this process, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(what))


def measure(name: str, precision: str, size: str, manner: str) -> dict[str, object]:
    """Run one network in this process."""
    import torch

    from napari_tiled_unet import load_model
    from napari_tiled_unet.backends.bands import large_bytes
    from napari_tiled_unet.candidates import Costs, Large
    from napari_tiled_unet.networks.footprint import footprint
    from napari_tiled_unet.runtime import Runner

    model = load_model(name) if name == "nuclei" else model_of(case(name))
    network, dtype = model.network, getattr(torch, precision)
    if manner == "layer by layer":
        patch("napari_tiled_unet.backends.pytorch.compute_in_bands").start()
    runner = Runner(network, model.spec.target.activate, torch.device("cpu"), dtype)
    sides = SIDES[size][network.spec.ndim]
    tile = np.random.default_rng(0).random((1, network.spec.in_channels, *sides), np.float32)
    small = (slice(None), slice(None), *(slice(4 * s) for s in network.stride))
    runner.run(np.ascontiguousarray(tile[small]))
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    started = time.perf_counter()
    runner.run(tile)
    seconds = time.perf_counter() - started
    voxels = float(np.prod(sides))
    large = None if manner == "layer by layer" else Large(*large_bytes(network, dtype))
    planned = Costs.of(footprint(network, dtype), 2**40, "cpu", large=large).bytes(voxels) / voxels
    taken = (resident("VmHWM") - before) / voxels
    return {
        "model": name,
        "precision": precision,
        "tile": "x".join(map(str, sides)),
        "manner": manner,
        "planned": round(planned, 1),
        "taken": round(taken, 1),
        "taken_of_planned": round(taken / planned, 3),
        "seconds": round(seconds, 3),
    }


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["2d", "3d", "nuclei"])
    parser.add_argument("--precisions", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--one", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(*arguments.one)))
        return
    for name in arguments.models:
        for precision in arguments.precisions:
            for size, manner in RUNS:
                row = in_a_process("footprint", "--one", name, precision, size, manner)
                print(row, flush=True)
                if "error" not in row:
                    write_rows("footprint", [row], keys=("model", "precision", "tile", "manner"))


if __name__ == "__main__":
    main()
