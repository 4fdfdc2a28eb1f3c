"""Time the bundled model from image to labels, beside the network alone.

    python -m benchmarks.throughput [--model nuclei] [--sides 512 1024 2048] [--repeats 3]

The image is the bundled sample, mirrored to the size. All runs of a size take turns in one
process, so that a noisy machine is noisy for all of them; medians are printed, and the
ratio of each to the first. Writes ``results/throughput.csv``.

==================  ==============================================================
run                 what
==================  ==============================================================
image to labels     ``segment`` with its defaults
in float32          the same with ``precision="float32"``
network alone       the network's time of the first run, without decoding
==================  ==============================================================
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from benchmarks.cases import write_rows
from napari_tiled_unet import load_model, segment
from napari_tiled_unet.demo import read_sample
from napari_tiled_unet.model import Model
from napari_tiled_unet.runtime import Runner, choose_device, choose_precision


def mirrored(side: int) -> npt.NDArray[Any]:
    """Return the sample mirrored to ``(side, side)``."""
    image = np.asarray(read_sample().data)
    return np.pad(image, [(0, max(0, side - n)) for n in image.shape], mode="symmetric")[:side, :side]


def network_alone(model: Model, image: npt.NDArray[Any]) -> float:
    """Return the seconds of the network on the whole image, in the automatic precision."""
    device = choose_device("auto")
    runner = Runner(model.network, model.spec.target.activate, device, choose_precision("auto", device))
    tile = (image[None, None] / 255).astype(np.float32)
    started = time.perf_counter()
    runner.run(tile)
    return time.perf_counter() - started


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="nuclei")
    parser.add_argument("--sides", type=int, nargs="+", default=[512, 1024, 2048])
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    model = load_model(arguments.model)
    print(f"{model.spec.name}, torch {torch.__version__}, {torch.get_num_threads()} threads")
    print(f"{'side':>6}  {'run':<16}{'s per megapixel':>16}{'ratio':>8}")
    for side in arguments.sides:
        image = mirrored(side)
        seconds: dict[str, list[float]] = {"image to labels": [], "in float32": [], "network alone": []}
        for _ in range(arguments.repeats):
            for run, precision in (("image to labels", "auto"), ("in float32", "float32")):
                started = time.perf_counter()
                segment(image, model, precision=precision)
                seconds[run].append(time.perf_counter() - started)
            seconds["network alone"].append(network_alone(model, image))
        medians = {run: statistics.median(times) / image.size * 1e6 for run, times in seconds.items()}
        for run, median in medians.items():
            print(f"{side:>6}  {run:<16}{median:>16.3f}{median / medians['image to labels']:>8.2f}", flush=True)
        rows = [{"side": side, "run": run, "s_per_megapixel": round(median, 4)} for run, median in medians.items()]
        write_rows("throughput", rows, keys=("side", "run"))


if __name__ == "__main__":
    main()
