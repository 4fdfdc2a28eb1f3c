"""The best rates of this machine: matrix products and convolutions, in both number formats.

    python -m benchmarks.roofline

Large matrices and many channels: what the processor can do when memory is not in the way. Convolutions are
run by torch, channels last, weights packed, as in our torch backend. Writes ``results/roofline.csv``.
"""

from __future__ import annotations

import time
from typing import Any

import torch

from benchmarks.cases import write_rows
from napari_tiled_unet.backends.fusing import FusedConv, can_fuse


def best_rate(run: Any, gigaflop: float, seconds: float = 1.5) -> float:
    """Return the highest GFLOP/s seen in some seconds."""
    run()
    run()
    best, until = 1e9, time.perf_counter() + seconds
    while time.perf_counter() < until:
        started = time.perf_counter()
        run()
        best = min(best, time.perf_counter() - started)
    return gigaflop / best


def convolution(ndim: int, channels: int, side: int, dtype: torch.dtype) -> tuple[Any, float]:
    """Return a convolution to run and its work."""
    layout = torch.channels_last if ndim == 2 else torch.channels_last_3d
    kind: Any = torch.nn.Conv2d if ndim == 2 else torch.nn.Conv3d
    conv = kind(channels, channels, 3, padding=1).to(dtype).to(memory_format=layout)
    if can_fuse(ndim, dtype):
        conv = FusedConv(conv, "relu")
    x = torch.randn((1, channels, *(side,) * ndim)).to(dtype).contiguous(memory_format=layout)
    return lambda: conv(x), 2 * 3**ndim * channels**2 * side**ndim / 1e9


def convolutions(ndim: int, dtype: torch.dtype) -> dict[str, tuple[Any, float]]:
    """Return convolutions of many channels, each with its work, by what they are."""
    sizes = {2: ((128, 128), (256, 64), (512, 64)), 3: ((64, 32), (128, 32), (256, 16))}[ndim]
    return {
        f"convolution {ndim}D, {channels} channels": convolution(ndim, channels, side, dtype)
        for channels, side in sizes
    }


class Pace:
    """The rate that the best convolution reaches in the moments between the parts of other work.

    Parameters
    ----------
    ndim, dtype : int, torch.dtype
        Of the convolutions among which the best is chosen, by its highest rate in a second.
    """

    # Long enough for the caches to be its own, short beside a tile.
    _MOMENT = 0.15

    def __init__(self, ndim: int, dtype: torch.dtype) -> None:
        with torch.inference_mode():
            kinds = convolutions(ndim, dtype).values()
            self._run, self._work = max(kinds, key=lambda kind: best_rate(kind[0], kind[1], seconds=1.0))
        self.start_again()

    def start_again(self) -> None:
        """Forget what was measured."""
        self._done, self._seconds = 0.0, 0.0

    def take(self) -> None:
        """Run the convolution for a moment."""
        with torch.inference_mode():
            started = time.perf_counter()
            until = started + self._MOMENT
            while time.perf_counter() < until:
                self._run()
                self._done += self._work
            self._seconds += time.perf_counter() - started

    @property
    def gigaflop_per_second(self) -> float:
        """All its work in all its time."""
        return self._done / self._seconds


def main() -> None:
    """Run and print."""
    rows = []
    with torch.inference_mode():
        for precision in ("float32", "bfloat16"):
            dtype = getattr(torch, precision)
            a = torch.randn(2048, 2048).to(dtype)
            kinds: dict[str, tuple[Any, float]] = {"matrix product": (lambda a=a: a @ a, 2 * 2048**3 / 1e9)}
            for ndim in (2, 3):
                kinds |= convolutions(ndim, dtype)
            for kind, (run, work) in kinds.items():
                rate = best_rate(run, work)
                print(f"{precision:<10}{kind:<32}{rate:>10.0f} GFLOP/s", flush=True)
                rows.append({"precision": precision, "kind": kind, "gflop_per_s": round(rate, 1)})
    write_rows("roofline", rows, keys=("precision", "kind"))


if __name__ == "__main__":
    main()
