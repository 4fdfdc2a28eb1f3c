"""Time and peak memory of the bundled model against image size, tile size and threads.

    python -m benchmarks.scaling [--sides 1024 2048 4096 8192] [--tiles 256 512 1024 2048] [--threads 1 2]

Each run is a process of its own (``benchmarks/one_run.py``). Writes ``results/scaling.csv``. Sides of 1024
to 8192 are 1 to 67 megavoxels.
"""

from __future__ import annotations

import argparse
from typing import Any

from benchmarks.cases import cores, in_a_process, write_rows


def measure(against: str, value: int, side: int, *more: object, threads: int | None = None) -> None:
    """Run once, print and write."""
    answer: dict[str, Any] = in_a_process("one_run", side, side, *more, threads=threads)
    print(f"{against} {value}: {answer}", flush=True)
    if "error" not in answer:
        row = {"against": against, "value": value, **answer, "threads": threads or cores()}
        write_rows("scaling", [row], keys=("against", "value"))


def main() -> None:
    """Run all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sides", type=int, nargs="*", default=[1024, 2048, 4096, 8192])
    parser.add_argument("--tiles", type=int, nargs="*", default=[256, 512, 1024, 2048])
    parser.add_argument("--threads", type=int, nargs="*", default=sorted({1, min(2, cores())}))
    parser.add_argument("--side", type=int, default=2048, help="of the image, where tiles and threads vary")
    arguments = parser.parse_args()
    for side in arguments.sides:
        measure("side", side, side)
    for tile in arguments.tiles:
        measure("tile", tile, arguments.side, "--tile", tile)
    for threads in arguments.threads:
        measure("threads", threads, arguments.side, threads=threads)


if __name__ == "__main__":
    main()
