"""Time how maps become objects, on one thread and on all, on frames drawn with a fixed seed.

    python -m benchmarks.decode [--case nuclei embryo tissue] [--repeats 3] [--reference]

============  ================  ========  =================================================
case          shape             objects   what
============  ================  ========  =================================================
nuclei        4096 x 4096        10,000   round objects, half of them touch others
embryo        128 x 512 x 512     2,048   the same in 3D, flat in z
tissue        4096 x 4096        10,000   cells without gaps between them: the worst case
============  ================  ========  =================================================

The maps are the true ones, blurred and with noise, in half precision as runs keep them. Seconds are
medians of the repeats, both in turns, and are written to ``results/decode.csv``. ``--reference`` also
times h-maxima and one watershed of the whole frame, and counts the voxels that it labels otherwise.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage
from skimage.morphology import h_maxima
from skimage.segmentation import watershed

from benchmarks.cases import write_rows
from napari_tiled_unet import labelling
from napari_tiled_unet.centre import centre_map
from napari_tiled_unet.half_precision import to_half
from napari_tiled_unet.metrics import overlapping_pairs

Maps = npt.NDArray[np.float32]
Halves = npt.NDArray[np.float16]
Result = TypeVar("Result")

FOREGROUND, SEED, PROMINENCE, MIN_SIZE = 0.5, 0.3, 0.1, 20


def jittered_grid(shape: tuple[int, ...], counts: tuple[int, ...], seed: int) -> npt.NDArray[np.float64]:
    """Return one random point in the middle of each box of a grid."""
    boxes = np.stack(np.meshgrid(*map(np.arange, counts), indexing="ij"), axis=-1).reshape(-1, len(shape))
    jitter = np.random.default_rng(seed).uniform(0.15, 0.85, boxes.shape)
    points: npt.NDArray[np.float64] = (boxes + jitter) * (np.array(shape) / counts)
    return points


def round_objects(
    shape: tuple[int, ...], counts: tuple[int, ...], radii: tuple[tuple[float, float], ...], seed: int = 0
) -> npt.NDArray[np.uint32]:
    """Return ellipses or ellipsoids; later ones cut into earlier ones."""
    low, high = np.transpose(radii)
    points = jittered_grid(shape, counts, seed)
    sizes = np.random.default_rng(seed).uniform(low, high, points.shape)
    labels = np.zeros(shape, np.uint32)
    for number, (centre, radius) in enumerate(zip(points, sizes, strict=True), start=1):
        start, stop = np.maximum(centre - radius, 0).astype(int), (centre + radius + 2).astype(int)
        box = labels[tuple(map(slice, start, stop))]
        grid = np.ogrid[tuple(map(slice, start, start + box.shape))]
        inside = sum(((g - c) / r) ** 2 for g, c, r in zip(grid, centre, radius, strict=True)) <= 1
        box[inside] = number
    return labels


def cells_without_gaps(shape: tuple[int, ...], counts: tuple[int, ...], seed: int = 0) -> npt.NDArray[np.uint32]:
    """Return each voxel's nearest of some random points."""
    points = tuple(jittered_grid(shape, counts, seed).astype(int).T)
    numbers = np.zeros(shape, np.uint32)
    numbers[points] = np.arange(1, len(points[0]) + 1)
    nearest = ndimage.distance_transform_edt(numbers == 0, return_distances=False, return_indices=True)
    labels: npt.NDArray[np.uint32] = numbers[tuple(nearest)]
    return labels


CASES: dict[str, Callable[[], npt.NDArray[np.uint32]]] = {
    "nuclei": lambda: round_objects((4096, 4096), (100, 100), ((10, 18), (10, 18))),
    "embryo": lambda: round_objects((128, 512, 512), (8, 16, 16), ((5, 8), (10, 16), (10, 16))),
    "tissue": lambda: cells_without_gaps((4096, 4096), (100, 100)),
}


def maps_of(labels: npt.NDArray[np.uint32], seed: int = 0) -> Maps:
    """Return the maps that a good network would give for these labels."""
    rng = np.random.default_rng(seed)
    maps = np.stack([(labels > 0).astype(np.float32), centre_map(labels)])
    for channel in maps:
        ndimage.gaussian_filter(channel, 1.0, output=channel)
        channel += 0.01 * rng.standard_normal(channel.shape, dtype=np.float32)
    return maps.clip(0, 1, out=maps)


def seconds_of(function: Callable[[], Result]) -> tuple[float, Result]:
    """Run a function; return how long it took, and its result."""
    start = time.perf_counter()
    result = function()
    return time.perf_counter() - start, result


def decode(maps: Halves, threads: int) -> npt.NDArray[np.uint32]:
    """Return objects as runs do, on so many threads."""
    return labelling.objects_from_maps(
        maps,
        foreground_threshold=FOREGROUND,
        seed_threshold=SEED,
        seed_prominence=PROMINENCE,
        min_size=MIN_SIZE,
        threads=threads,
    )


def one_watershed(maps: Maps) -> npt.NDArray[np.uint32]:
    """Return objects from the h-maxima and a watershed of the whole frame, by scikit-image."""
    mask = maps[0] > FOREGROUND
    centre = ndimage.gaussian_filter(maps[1], 0.7, truncate=3)
    seeds, _ = ndimage.label(h_maxima(centre, PROMINENCE) & mask)
    labels = labelling.remove_small(watershed(-centre, seeds, mask=mask).astype(np.uint32), MIN_SIZE)
    return labelling.fill_object_holes(labels)


def run(case: str, repeats: int, reference: bool) -> None:
    """Print and write the seconds of one case."""
    truth = CASES[case]()
    maps = maps_of(truth)
    halves = to_half(maps)
    threads = torch.get_num_threads()
    taken: dict[int, list[float]] = {1: [], threads: []}
    # In turns, so that both know the same machine.
    for _ in range(repeats):
        for count, seconds in taken.items():
            spent, found = seconds_of(partial(decode, halves, count))
            seconds.append(spent)
    alone, together = float(np.median(taken[1])), float(np.median(taken[threads]))
    row = {
        "case": case,
        "shape": "x".join(map(str, found.shape)),
        "objects": int(found.max()),
        "one_thread": round(alone, 3),
        "seconds": round(together, 3),
        "s_per_megavoxel": round(together / found.size * 1e6, 4),
    }
    write_rows("decode", [row], keys=("case",))
    print(f"{case}: {row['shape']}, {int(found.max())} objects of {len(np.unique(truth[truth > 0]))}")
    print(f"  one thread                  {alone:8.2f} s")
    print(f"  {threads} threads                   {together:8.2f} s   ratio {alone / together:.2f}")
    print(f"                              {row['s_per_megavoxel']:8.3f} s per megavoxel")
    if reference:
        spent, expected = seconds_of(lambda: one_watershed(maps))
        pairs = overlapping_pairs(found, expected)
        same = np.zeros(pairs.n_first + 1, np.int64)
        same[pairs.first[pairs.iou > 0.5] + 1] = pairs.second[pairs.iou > 0.5] + 1
        otherwise = np.count_nonzero(same[found] != expected)
        print(f"  one watershed of the frame  {spent:8.2f} s   {spent / alone:.1f} times one thread")
        print(f"  voxels labelled otherwise   {otherwise:8d}")


def main() -> None:
    """Read the arguments and run the cases."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--reference", action="store_true", help="compare with one watershed of the frame")
    arguments = parser.parse_args()
    for case in arguments.case:
        run(case, arguments.repeats, arguments.reference)


if __name__ == "__main__":
    main()
