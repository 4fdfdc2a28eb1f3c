"""The comparison on a CUDA card: ours against MONAI's defaults, both with the card's short numbers.

    python -m benchmarks.gpu [--cases 2d 3d] [--repeats 5]

Without a card it says so and ends. MONAI runs under autocast, in float32 weights and the default layout, the
image on the card and the maps fetched once, which is its quickest way. Writes ``results/gpu.csv``: megavoxels
per second, and the share of the card's measured matrix product rate.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

from benchmarks.cases import case, gigaflop, image_of, model_of, write_rows
from benchmarks.contender import predictor


def seconds_of(run: Callable[[], object], repeats: int) -> float:
    """Return the median of some runs, after one that warms up."""
    times = []
    for _ in range(repeats + 1):
        torch.cuda.synchronize()
        started = time.perf_counter()
        run()
        torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    return statistics.median(times[1:])


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", default=["2d", "3d"])
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        print("gpu: skipped, torch sees no CUDA card here")
        return
    from monai.inferers import sliding_window_inference

    from napari_tiled_unet import segment

    dtype = torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    square = torch.randn(8192, 8192, device="cuda", dtype=dtype)
    peak = 2 * 8192**3 / 1e9 / seconds_of(lambda: square @ square, 10)
    print(f"{torch.cuda.get_device_name()}: {peak:.0f} GFLOP/s in matrix products, {dtype}")
    for name in arguments.cases:
        this = case(name)
        model = model_of(this)
        image = image_of(this)
        card = model_of(this)
        card.network.to("cuda")

        def monai(card: Any = card, image: Any = image, roi: tuple[int, ...] = this.roi) -> Any:
            with torch.inference_mode(), torch.autocast("cuda", dtype):
                x = torch.from_numpy(image)[None, None].to("cuda")
                maps: Any = sliding_window_inference(x, roi, 4, predictor(card))
                return maps.float().cpu()

        def ours(model: Any = model, image: Any = image, axes: str = "zyx"[-this.ndim :]) -> Any:
            return segment(image, model, axes=axes, device="cuda")

        work = gigaflop(model.network, this.shape)
        rows: list[dict[str, Any]] = []
        for contender, run in (("monai, autocast", monai), ("ours", ours)):
            seconds = seconds_of(run, arguments.repeats)
            row = {
                "case": name,
                "contender": contender,
                "seconds": round(seconds, 4),
                "megavoxels_per_s": round(image.size / 1e6 / seconds, 2),
                "share_of_matrix_product": round(work / seconds / peak, 4),
                "card": torch.cuda.get_device_name(),
            }
            print(row, flush=True)
            rows.append(row)
        write_rows("gpu", rows, keys=("case", "contender"))


if __name__ == "__main__":
    main()
