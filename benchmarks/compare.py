"""Ours beside the peers: same weights, same image, one process after the other, taking turns.

    python -m benchmarks.compare [--cases 2d 3d] [--contenders NAME ...] [--rounds 1]
                                 [--shape-2d 4096 4096] [--shape-3d 96 512 512]

What each does: ``benchmarks/contender.py``. Writes ``results/compare.csv``; rows of other cases and
contenders stay, so that it can be run piece by piece.
"""

from __future__ import annotations

import argparse
import statistics
from typing import Any

from benchmarks.cases import case, gigaflop, in_a_process, model_of, write_rows
from benchmarks.contender import OURS, PEERS


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", default=["2d", "3d"])
    parser.add_argument("--contenders", nargs="+", default=[*PEERS, *OURS])
    parser.add_argument("--rounds", type=int, default=1, help="how often everyone has a turn")
    parser.add_argument("--repeats", type=int, default=3, help="runs per turn, as long as they take 30 s at most")
    parser.add_argument("--shape-2d", type=int, nargs=2)
    parser.add_argument("--shape-3d", type=int, nargs=3)
    parser.add_argument("--threads", type=int)
    arguments = parser.parse_args()
    for name in arguments.cases:
        shape = arguments.shape_2d if name == "2d" else arguments.shape_3d
        this = case(name, shape)
        megavoxels, work = 1.0, gigaflop(model_of(this).network, this.shape)
        for side in this.shape:
            megavoxels *= side
        megavoxels /= 1e6
        answers: dict[str, list[dict[str, Any]]] = {contender: [] for contender in arguments.contenders}
        for _ in range(arguments.rounds):
            for contender in arguments.contenders:
                command = [contender, "--case", name, "--repeats", arguments.repeats, "--shape", *this.shape]
                answer = in_a_process("contender", *command, threads=arguments.threads)
                answers[contender].append(answer)
                print(f"{name} {contender}: {answer}", flush=True)
        for contender, turns in answers.items():
            done = [turn for turn in turns if "error" not in turn]
            if not done:
                print(f"{name} {contender} is left out: {turns[-1]['error']}")
                continue
            seconds = statistics.median(turn["seconds"] for turn in done)
            row = {
                "case": name,
                "shape": "x".join(map(str, this.shape)),
                "contender": contender,
                "seconds": round(seconds, 3),
                "megavoxels_per_s": round(megavoxels / seconds, 4),
                "useful_gflop_per_s": round(work / seconds, 1),
                "largest_error": f"{done[-1]['largest_error']:.3g}",
                "mean_error": f"{done[-1]['mean_error']:.3g}",
                "peak_gib": done[-1]["peak_gib"],
                "runs": sum(turn["runs"] for turn in done),
                "backend": done[-1].get("backend", ""),
                "precision": done[-1].get("precision", "float32"),
                "tile": done[-1].get("tile", ""),
                "overlap": done[-1].get("overlap", ""),
            }
            if arguments.threads:
                row["threads"] = arguments.threads
            write_rows("compare", [row], keys=("case", "contender"))


if __name__ == "__main__":
    main()
