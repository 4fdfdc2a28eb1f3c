"""Time rounding to half precision, by NumPy and by torch: alone, and in a run from image to labels.

    python -m benchmarks.half [--side 2048] [--repeats 5]

The image is the bundled sample, mirrored to the size, the model ``nuclei``. Both ways take turns in one
process; medians are printed, and the ratio of NumPy to torch. Writes ``results/half.csv``.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

import napari_tiled_unet.framewise
import napari_tiled_unet.predict
from benchmarks.cases import write_rows
from benchmarks.throughput import mirrored
from napari_tiled_unet import iter_segment, load_model
from napari_tiled_unet.events import Finished
from napari_tiled_unet.half_precision import to_half

Round = Callable[..., npt.NDArray[Any]]


def by_numpy(values: npt.NDArray[Any], out: npt.NDArray[Any] | None = None) -> npt.NDArray[Any]:
    """Round as :func:`to_half`, without torch."""
    if out is None:
        out = np.empty(values.shape, np.float16)
    np.copyto(out, values, casting="same_kind")
    return out


def seconds_of(work: Callable[[Round], object], round_: Round) -> float:
    """Return how long something takes that is given a way to round."""
    started = time.perf_counter()
    work(round_)
    return time.perf_counter() - started


def labels_and_maps(image: npt.NDArray[Any], model: Any, round_: Round, *, keep_maps: bool = False) -> Finished:
    """Return the end of a run that rounds its maps in a given way."""
    for module in (napari_tiled_unet.predict, napari_tiled_unet.framewise):
        module.to_half = round_  # type: ignore[attr-defined]
    events = list(iter_segment(image, model, keep_maps=keep_maps))
    finished = events[-1]
    assert isinstance(finished, Finished)
    return finished


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=2048)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    model, image = load_model("nuclei"), mirrored(arguments.side)
    ways: dict[str, Round] = {"numpy": by_numpy, "torch": to_half}
    maps = labels_and_maps(image, model, to_half, keep_maps=True).maps
    assert maps is not None
    same = np.array_equal(by_numpy(maps), to_half(maps))
    print(f"{(maps < 2**-14).mean():.0%} of the maps lie below 2**-14; rounded the same: {same}")
    rows = []
    works: list[tuple[str, float, str, Callable[[Round], object]]] = [
        ("rounding", maps.size / 1e9, "ns per value", lambda round_: round_(maps)),
        ("image to labels", image.size / 1e6, "s per megapixel", lambda round_: labels_and_maps(image, model, round_)),
    ]
    for what, count, unit, work in works:
        times: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(arguments.repeats):
            for name, round_ in ways.items():
                times[name].append(seconds_of(work, round_) / count)
        medians = {name: statistics.median(values) for name, values in times.items()}
        ratio = medians["numpy"] / medians["torch"]
        print(f"{what}: NumPy {medians['numpy']:.3f}, torch {medians['torch']:.3f} {unit}, ratio {ratio:.2f}")
        rounded = {name: round(value, 4) for name, value in medians.items()}
        rows.append({"what": what, "unit": unit, **rounded, "ratio": round(ratio, 3)})
    write_rows("half", rows, keys=("what",))


if __name__ == "__main__":
    main()
