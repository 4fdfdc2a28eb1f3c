"""Run one contender once: ``python -m benchmarks.contender NAME --case 2d [--shape 2048 2048] [--repeats 1]``.

Prints one line of JSON: seconds per run (median), the peak of the memory, the largest
difference of its maps, in a window, from those of the whole image in float32, and from those of the whole image as it
computes them itself: what its seams do, without its rounding. Used by
``benchmarks/compare.py``, which runs each contender in a process of its own.

All have the same weights and the same image in float32, and their seconds end with maps in memory. Ours go on
to labels, with the certificate of the seams: that time is told too.

==================  =================================================================================
peer                what it does
==================  =================================================================================
monai               MONAI's ``sliding_window_inference`` at its defaults: overlap 0.25, constant weights
nnunet-settings     the same function with nnU-Net's settings: step 0.5 on every axis, Gaussian weights
                    (sigma an eighth of the window); without nnU-Net's mirroring, four to eight times more
blocks-with-halo    bioimageio.core's blocking, rewritten from its description: reflected halo of 32 voxels
                    (8 x 16 x 16 in 3D), hard crop, blocks kept in a list
panseg-algorithm    PanSeg's algorithm, rewritten from its description: step 0.75 of the window, reflected
                    halo of the receptive field (rounded up to the stride), uniform mean in float32 accumulators
==================  =================================================================================
"""

from __future__ import annotations

import argparse
import itertools
import json
import resource
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.cases import Case, case, image_of, model_of

Maps = npt.NDArray[np.float32]

OURS: dict[str, dict[str, Any]] = {
    "torch float32": {"backend": "torch", "precision": "float32"},
    "torch": {"backend": "torch"},
    "openvino float32": {"backend": "openvino", "precision": "float32"},
    "openvino": {"backend": "openvino"},
    "onnx float32": {"backend": "onnx", "precision": "float32"},
    "auto": {},
}


def ours(name: str, this: Case, model: Any, image: npt.NDArray[Any], **more: Any) -> tuple[Maps, float, dict[str, Any]]:
    """Return our maps, when they were there, and how they were made, through the public interface."""
    from napari_tiled_unet import iter_segment
    from napari_tiled_unet.events import Finished, TileDone

    started = there = time.perf_counter()
    for event in iter_segment(
        image, model, axes="yx" if this.ndim == 2 else "zyx", keep_maps=True, **{**OURS[name], **more}
    ):
        if isinstance(event, TileDone):
            there = time.perf_counter()
        elif isinstance(event, Finished):
            assert event.maps is not None
            told = {key: event.provenance.get(key) for key in ("backend", "precision", "tile", "overlap")}
            return event.maps, there - started, told
    raise AssertionError("a run ends with Finished")


def predictor(model: Any) -> Callable[[Any], Any]:
    """Return the network as everyone runs it: norms apart, default layout, float32."""
    return lambda x: model.spec.target.activate(model.network(x))


def monai(model: Any, x: Any, roi: tuple[int, ...], **settings: Any) -> Maps:
    """Return the maps of MONAI's sliding window."""
    from monai.inferers import sliding_window_inference

    maps: Maps = sliding_window_inference(x, roi, 1, predictor(model), **settings)[0].numpy()
    return maps


def blocks_with_halo(model: Any, x: Any, roi: tuple[int, ...]) -> Maps:
    """Return maps by blocks with a reflected halo, cropped hard."""
    import torch

    halo = (32, 32) if len(roi) == 2 else (8, 16, 16)
    shape = x.shape[2:]
    pads = [(0, 0), (0, 0), *((h, h + -n % r) for h, n, r in zip(halo, shape, roi, strict=True))]
    padded: Any = np.pad(x.numpy(), pads, mode="reflect")
    run, blocks = predictor(model), []
    for corner in itertools.product(*(range(0, n, r) for n, r in zip(shape, roi, strict=True))):
        read = tuple(slice(c, c + r + 2 * h) for c, r, h in zip(corner, roi, halo, strict=True))
        maps = run(torch.from_numpy(np.ascontiguousarray(padded[(0, 0, *read)])[None, None])).numpy()[0]
        inner = tuple(slice(h, h + r) for r, h in zip(roi, halo, strict=True))
        blocks.append((corner, maps[(slice(None), *inner)]))
    out = np.zeros((blocks[0][1].shape[0], *(-(-n // r) * r for n, r in zip(shape, roi, strict=True))), np.float32)
    for corner, maps in blocks:
        out[(slice(None), *(slice(c, c + r) for c, r in zip(corner, roi, strict=True)))] = maps
    return out[(slice(None), *(slice(n) for n in shape))]


def panseg_algorithm(model: Any, x: Any, roi: tuple[int, ...]) -> Maps:
    """Return the mean of windows a step of 0.75 apart, each with a halo that is thrown away."""
    import torch

    # Theirs need not be a multiple of the stride; random weights would suffer from that more than trained ones.
    halo = tuple(-(-r // s) * s for r, s in zip(model.network.receptive_field, model.network.stride, strict=True))
    shape = x.shape[2:]
    padded: Any = np.pad(x.numpy(), [(0, 0), (0, 0), *((h, h) for h in halo)], mode="symmetric")
    starts = [
        sorted({min(s, n - r) for s in range(0, n - r + int(0.75 * r), int(0.75 * r))})
        for n, r in zip(shape, roi, strict=True)
    ]
    run, total, count = predictor(model), np.zeros((2, *shape), np.float32), np.zeros(shape, np.uint8)
    for corner in itertools.product(*starts):
        read = tuple(slice(c, c + r + 2 * h) for c, r, h in zip(corner, roi, halo, strict=True))
        maps = run(torch.from_numpy(np.ascontiguousarray(padded[(0, 0, *read)])[None, None])).numpy()[0]
        write = tuple(slice(c, c + r) for c, r in zip(corner, roi, strict=True))
        inner = tuple(slice(h, h + r) for r, h in zip(roi, halo, strict=True))
        total[(slice(None), *write)] += maps[(slice(None), *inner)]
        count[write] += 1
    total /= count
    return total


PEERS: dict[str, Callable[[Any, Any, tuple[int, ...]], Maps]] = {
    "monai": monai,
    "nnunet-settings": lambda model, x, roi: monai(model, x, roi, overlap=0.5, mode="gaussian", sigma_scale=0.125),
    "blocks-with-halo": blocks_with_halo,
    "panseg-algorithm": panseg_algorithm,
}


def seen_from(this: Case, model: Any) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Return the box that the window of a case sees, on the stride, and the window in it."""
    read, inner = [], []
    reaches = zip(this.window(), this.shape, model.network.receptive_field, model.network.stride, strict=True)
    for side, n, reach, stride in reaches:
        first = max(0, (side.start - reach) // stride * stride)
        last = min(n, -(-(side.stop + reach) // stride) * stride)
        read.append(slice(first, last))
        inner.append(slice(side.start - first, side.stop - first))
    return tuple(read), tuple(inner)


def whole_maps(model: Any, this: Case, image: npt.NDArray[Any]) -> Maps:
    """Return what the whole image gives in the window: the plain network on the window and all that it sees."""
    import torch

    read, inner = seen_from(this, model)
    with torch.inference_mode():
        x = torch.from_numpy(np.ascontiguousarray(image[read], np.float32))[None, None]
        maps: Maps = predictor(model)(x)[0].numpy()
    return maps[(slice(None), *inner)]


def untiled_maps(name: str, model: Any, this: Case, image: npt.NDArray[Any], backend: str) -> Maps:
    """Return what ours gives in the window in one tile, by the backend that ran: it rounds in the same way."""
    read, inner = seen_from(this, model)
    part = np.ascontiguousarray(image[read])
    return ours(name, this, model, part, tile=part.shape, backend=backend)[0][(slice(None), *inner)]


def kept_whole_maps(path: Path | None, model: Any, this: Case, image: npt.NDArray[Any]) -> Maps:
    """Return what the whole image gives in the window, from a file where it is kept for the other contenders."""
    if path is None:
        return whole_maps(model, this, image)
    if not path.exists():
        np.save(path, whole_maps(model, this, image))
    kept: Maps = np.load(path)
    return kept


def main() -> None:
    """Run and print."""
    import torch

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=[*OURS, *PEERS])
    parser.add_argument("--case", default="2d")
    parser.add_argument("--shape", type=int, nargs="+")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=30, help="no further repeat after this time")
    parser.add_argument("--reference", type=Path, help="file of the whole image's maps; written if it is not there")
    arguments = parser.parse_args()
    this = case(arguments.case, arguments.shape)
    model, image = model_of(this), image_of(this)
    x = torch.from_numpy(image)[None, None]
    seconds: list[float] = []
    whole: list[float] = []
    detail: dict[str, Any] = {}
    while len(seconds) < arguments.repeats and sum(whole) < arguments.seconds:
        started = time.perf_counter()
        if arguments.name in OURS:
            maps, spent, detail = ours(arguments.name, this, model, image)
            seconds.append(spent)
        else:
            with torch.inference_mode():
                maps = PEERS[arguments.name](model, x, this.roi)
            seconds.append(time.perf_counter() - started)
        whole.append(time.perf_counter() - started)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    window = maps[(slice(None), *this.window())]
    error = np.abs(window - kept_whole_maps(arguments.reference, model, this, image))
    # Peers compute in float32, where all of their error comes from their windows.
    seam = np.abs(window - untiled_maps(arguments.name, model, this, image, detail["backend"])) if detail else error
    answer = {
        "seconds": statistics.median(seconds),
        "seconds_to_labels": statistics.median(whole) if detail else "",
        "runs": len(seconds),
        "peak_gib": round(peak, 3),
        "largest_error": float(error.max()),
        "largest_seam_error": float(seam.max()),
        "mean_error": float(error.mean()),
        **detail,
    }
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
