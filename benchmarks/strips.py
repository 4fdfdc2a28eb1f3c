"""Strips beside tiles: the same maps, the seconds and the memory of both.

    python -m benchmarks.strips [--cases 2d 3d nuclei] [--precision float32] [--rounds 3]

Both are chosen by the planner, with the overlap that the model has earned for tiles, and take turns in one process,
in the torch backend. ``work`` is what is computed per voxel of the image; the ratio is that of the median seconds.
Memory is the rise of the resident memory above what the process held before, the maps included. Linux only. Writes
``results/strips.csv``.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.cases import case, image_of, in_a_process, model_of, write_rows
from benchmarks.footprint import resident

SHAPES = {"2d": (4096, 2048), "3d": (96, 384, 384), "nuclei": (4096, 4096)}


def frame_of(name: str) -> tuple[Any, Any]:
    """Return the model of a case and a frame of its size, normalised."""
    if name != "nuclei":
        this = case(name, SHAPES[name])
        return model_of(this), image_of(this)[None]
    from napari_tiled_unet import load_model
    from napari_tiled_unet.demo import read_sample
    from napari_tiled_unet.normalise import measure

    model, sample = load_model(name), np.asarray(read_sample("nuclei_2d").data)
    pads = [(0, max(0, n - s)) for n, s in zip(SHAPES[name], sample.shape, strict=True)]
    frame = np.pad(sample, pads, mode="reflect")[None]
    return model, measure(frame, model.spec.normalisation)[0].apply(frame)


def measure_both(name: str, precision: str, rounds: int) -> list[dict[str, object]]:
    """Let strips and tiles take turns in this process."""
    import torch

    from napari_tiled_unet.framewise import first_choice
    from napari_tiled_unet.normalise import Statistics
    from napari_tiled_unet.options import SegmentOptions
    from napari_tiled_unet.planning import choose_tiles
    from napari_tiled_unet.predict import iter_predict
    from napari_tiled_unet.runtime import Runner, memory_budget
    from napari_tiled_unet.strips import StripPlan

    model, frame = frame_of(name)
    network, spec, cpu, dtype = model.network, model.spec, torch.device("cpu"), getattr(torch, precision)
    chosen = first_choice(
        frame.shape[1:], model, SegmentOptions(backend="torch"), dtype, memory_budget(None, cpu), "cpu"
    )
    tiled = choose_tiles(
        frame.shape[1:], "auto", "auto", network, costs=chosen.costs, trained_overlap=spec.earned_overlap
    )
    if not isinstance(chosen.plan, StripPlan):
        raise SystemExit(f"{name}: the planner takes tiles, {chosen.plan.tile}")
    statistics_of = Statistics((0.0,) * len(frame), (1.0,) * len(frame))
    runner = Runner(network, spec.target.activate, cpu, dtype)
    seconds: dict[str, list[float]] = {"strips": [], "tiles": []}
    rise: dict[str, float] = {}
    maps: dict[str, Any] = {}
    for _ in range(rounds):
        for manner, choice in (("strips", chosen), ("tiles", tiled)):
            runner.give_back_memory()
            before = resident("VmRSS")
            Path("/proc/self/clear_refs").write_text("5")
            started = time.perf_counter()
            events = iter_predict(frame, statistics_of, runner, choice.plan, n_maps=len(spec.target.channels))
            try:
                while True:
                    next(events)
            except StopIteration as end:
                maps[manner] = end.value
            seconds[manner].append(time.perf_counter() - started)
            rise[manner] = max(rise.get(manner, 0.0), (resident("VmHWM") - before) / 2**30)
    medians = {manner: statistics.median(times) for manner, times in seconds.items()}
    largest = float(np.abs(maps["strips"] - maps["tiles"]).max())
    return [
        {
            "case": name,
            "precision": precision,
            "manner": manner,
            "shape": "x".join(map(str, frame.shape[1:])),
            "tile": "x".join(map(str, choice.plan.tile)),
            "overlap": "x".join(map(str, choice.plan.overlap)),
            "work": round(choice.considered[0].work_ratio, 3),
            "seconds": round(medians[manner], 2),
            "ratio": round(medians["tiles"] / medians[manner], 2),
            "gib": round(rise[manner], 2),
            "difference": f"{largest:.2g}",
        }
        for manner, choice in (("strips", chosen), ("tiles", tiled))
    ]


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps({"rows": measure_both(arguments.one, arguments.precision, arguments.rounds)}))
        return
    for name in arguments.cases:
        options = ["--one", name, "--precision", arguments.precision, "--rounds", arguments.rounds]
        answer = in_a_process("strips", *options, seconds=1800)
        if "error" in answer:
            print(f"{name} is left out: {answer['error']}")
            continue
        rows = answer["rows"]
        for row in rows:
            print(row, flush=True)
        write_rows("strips", rows, keys=("case", "precision", "manner"))


if __name__ == "__main__":
    main()
