"""Bytes per voxel that the planner reckons with, beside what a run of the network really takes.

    python -m benchmarks.footprint [--models 2d 3d nuclei] [--precisions float32 bfloat16]

Each in a process of its own: a small tile warms up, the peak of the resident memory is reset, a large tile
runs in the torch backend. Linux only. Writes ``results/footprint.csv``.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from benchmarks.cases import case, in_a_process, model_of, write_rows

SIDES = {2: (768, 768), 3: (48, 112, 112)}


def resident(what: str) -> int:
    """Return a line of the kernel's account of this process, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(what))


def measure(name: str, precision: str) -> dict[str, object]:
    """Run one network in this process."""
    import torch

    from napari_tiled_unet import load_model
    from napari_tiled_unet.networks.footprint import footprint
    from napari_tiled_unet.runtime import Runner

    model = load_model(name) if name == "nuclei" else model_of(case(name, (64,) * int(name[0])))
    network, dtype = model.network, getattr(torch, precision)
    runner = Runner(network, model.spec.target.activate, torch.device("cpu"), dtype)
    ndim = network.spec.ndim
    tile = np.random.default_rng(0).random((1, network.spec.in_channels, *SIDES[ndim]), np.float32)
    small = (slice(None), slice(None), *(slice(4 * s) for s in network.stride))
    runner.run(np.ascontiguousarray(tile[small]))
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    runner.run(tile)
    taken = (resident("VmHWM") - before) / np.prod(SIDES[ndim])
    counted = footprint(network, dtype).voxel_bytes
    return {
        "model": name,
        "precision": precision,
        "planned": round(counted, 1),
        "taken": round(float(taken), 1),
        "taken_of_planned": round(float(taken) / counted, 3),
    }


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["2d", "3d", "nuclei"])
    parser.add_argument("--precisions", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(*arguments.one)))
        return
    for name in arguments.models:
        for precision in arguments.precisions:
            row = in_a_process("footprint", "--one", name, precision)
            print(row, flush=True)
            if "error" not in row:
                write_rows("footprint", [row], keys=("model", "precision"))


if __name__ == "__main__":
    main()
