"""Strips beside tiles: the same maps, the seconds and the memory of both.

    python -m benchmarks.strips [--cases 2d 3d nuclei] [--precision auto] [--rounds 5]

Both are chosen by the planner, with the overlap that the model has earned for tiles, and take turns in one process,
in the torch backend. ``auto`` is the precision that runs choose on this machine. ``work`` is what is computed per
voxel of the image; the ratio is that of the median seconds. ``useful`` is the network's work on the whole image per
second against that of the best convolution, which is run for a moment after every tile, so that a noisy machine slows
both: the median over the turns. All turns but the first are as the later frames of a series, which find the memory that
the first one was given; the first is told apart (``first``, seconds).
Memory is the rise of the resident memory in the first turn above what the process held before, the maps included. Linux
only. Writes ``results/strips.csv``.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.cases import case, gigaflop, image_of, in_a_process, model_of, write_rows
from benchmarks.footprint import resident

if TYPE_CHECKING:
    from napari_tiled_unet.options import Precision

SHAPES = {"2d": (4096, 2048), "3d": (96, 512, 512), "nuclei": (4096, 4096)}


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


@dataclass
class Turns:
    """What was measured of one manner."""

    choice: Any
    seconds: list[float] = field(default_factory=list)
    useful: list[float] = field(default_factory=list)
    rises: list[float] = field(default_factory=list)
    maps: Any = None

    def take(self, frame: Any, runner: Any, n_maps: int, work: float, pace: Any) -> None:
        """Run once with a runner that nobody used before; ``work`` are GFLOP of the whole frame."""
        from napari_tiled_unet.events import TileDone
        from napari_tiled_unet.normalise import Statistics
        from napari_tiled_unet.predict import iter_predict

        as_it_is = Statistics((0.0,) * len(frame), (1.0,) * len(frame))
        before = resident("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")
        events = iter_predict(frame, as_it_is, runner, self.choice.plan, n_maps=n_maps)
        seconds = 0.0
        pace.start_again()
        try:
            while True:
                started = time.perf_counter()
                event = next(events)
                seconds += time.perf_counter() - started
                if isinstance(event, TileDone):
                    pace.take()
        except StopIteration as end:
            seconds += time.perf_counter() - started
            self.maps = end.value
        self.seconds.append(seconds)
        self.useful.append(work / seconds / pace.gigaflop_per_second)
        self.rises.append((resident("VmHWM") - before) / 2**30)


def measure_both(name: str, precision: Precision, rounds: int) -> list[dict[str, object]]:
    """Let strips and tiles take turns in this process."""
    import torch

    from benchmarks.roofline import Pace
    from napari_tiled_unet.frame_plan import first_choice
    from napari_tiled_unet.memory import memory_budget
    from napari_tiled_unet.options import SegmentOptions
    from napari_tiled_unet.planning import choose_tiles
    from napari_tiled_unet.runtime import Runner, choose_precision
    from napari_tiled_unet.strips import StripPlan

    model, frame = frame_of(name)
    network, spec, cpu = model.network, model.spec, torch.device("cpu")
    dtype = choose_precision(precision, cpu)
    shape = frame.shape[1:]
    chosen = first_choice(shape, model, SegmentOptions(backend="torch"), dtype, memory_budget(None, cpu), "cpu")
    tiled = choose_tiles(shape, "auto", "auto", network, costs=chosen.costs, trained_overlap=spec.earned_overlap)
    if not isinstance(chosen.plan, StripPlan):
        raise SystemExit(f"{name}: the planner takes tiles, {chosen.plan.tile}")
    work, pace = gigaflop(network, shape), Pace(len(shape), dtype)
    turns = {"strips": Turns(chosen), "tiles": Turns(tiled)}

    def ready() -> Runner:
        return Runner(network, spec.target.activate, cpu, dtype)

    for turn in turns.values():
        # Freed memory is kept while the runner lives, and given back when it goes.
        turn.take(frame, ready(), len(spec.target.channels), work, pace)
    runners = {manner: ready() for manner in turns}
    # The first of these is given the memory that the later ones find.
    for _ in range(1 + rounds):
        for manner, turn in turns.items():
            turn.take(frame, runners[manner], len(spec.target.channels), work, pace)
    medians = {manner: statistics.median(turn.seconds[2:]) for manner, turn in turns.items()}
    largest = float(np.abs(turns["strips"].maps - turns["tiles"].maps).max())
    return [
        {
            "case": name,
            "precision": str(dtype).removeprefix("torch."),
            "manner": manner,
            "shape": "x".join(map(str, shape)),
            "tile": "x".join(map(str, turn.choice.plan.tile)),
            "overlap": "x".join(map(str, turn.choice.plan.overlap)),
            "work": round(turn.choice.considered[0].work_ratio, 3),
            "first": round(turn.seconds[0], 2),
            "first_useful": round(turn.useful[0], 3),
            "seconds": round(medians[manner], 2),
            "ratio": round(medians["tiles"] / medians[manner], 2),
            "useful": round(statistics.median(turn.useful[2:]), 3),
            "gib": round(turn.rises[0], 2),
            "difference": f"{largest:.2g}",
        }
        for manner, turn in turns.items()
    ]


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--precision", choices=("auto", "float32", "bfloat16"), default="auto")
    parser.add_argument("--rounds", type=int, default=5)
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
