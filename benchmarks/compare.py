"""Ours beside the peers: same weights, same image, one process after the other, taking turns.

    python -m benchmarks.compare [--cases 2d 3d] [--contenders NAME ...] [--rounds 1] [--full]
                                 [--shape-2d 2048 2048] [--shape-3d 64 384 384]

What each does: ``benchmarks/contender.py``. Sizes are chosen for ten minutes on two processor cores;
``--full`` takes 4096 x 4096 and 96 x 512 x 512 and those that are too slow otherwise (``TOO_SLOW``), for about
an hour. Writes ``results/compare.csv``; rows of other cases and contenders stay, so that it can be run piece
by piece, but only those of the same image size are ever compared.
"""

from __future__ import annotations

import argparse
import math
import statistics
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.cases import CASES, Case, case, gigaflop, in_a_process, model_of, read_rows, write_rows
from benchmarks.contender import OURS, PEERS

# Left out unless asked for: in 3D the halo of the receptive field around every window is nearly all that it reads.
TOO_SLOW = {("3d", "panseg-algorithm")}


def turns_of(name: str, this: Case, contenders: list[str], arguments: argparse.Namespace) -> dict[str, list[Any]]:
    """Let everyone have a turn, ``rounds`` times; returns the answers of each."""
    answers: dict[str, list[dict[str, Any]]] = {contender: [] for contender in contenders}
    with tempfile.TemporaryDirectory() as folder:
        again = ["--repeats", arguments.repeats, "--seconds", arguments.seconds]
        more = ["--case", name, *again, "--reference", Path(folder) / "whole.npy", "--shape", *this.shape]
        for _ in range(arguments.rounds):
            for contender in contenders:
                limit = 3600 if arguments.full else 600
                answer = in_a_process("contender", contender, *more, threads=arguments.threads, seconds=limit)
                answers[contender].append(answer)
                print(f"{name} {contender}: {answer}", flush=True)
    return answers


def row_of(name: str, this: Case, work: float, contender: str, done: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the row of a contender's turns."""
    seconds = statistics.median(turn["seconds"] for turn in done)
    last = done[-1]
    return {
        "case": name,
        "shape": "x".join(map(str, this.shape)),
        "contender": contender,
        "seconds": round(seconds, 3),
        "seconds_to_labels": last["seconds_to_labels"] and round(last["seconds_to_labels"], 3),
        "megavoxels_per_s": round(math.prod(this.shape) / 1e6 / seconds, 4),
        "useful_gflop_per_s": round(work / seconds, 1),
        "largest_error": f"{last['largest_error']:.3g}",
        "largest_seam_error": f"{last['largest_seam_error']:.3g}",
        "mean_error": f"{last['mean_error']:.3g}",
        "peak_gib": last["peak_gib"],
        "runs": sum(turn["runs"] for turn in done),
        "backend": last.get("backend", ""),
        "precision": last.get("precision", "float32"),
        "tile": last.get("tile", ""),
        "overlap": last.get("overlap", ""),
    }


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=["2d", "3d"])
    parser.add_argument("--contenders", nargs="+", choices=[*PEERS, *OURS])
    parser.add_argument("--full", action="store_true", help="the large images, everyone")
    parser.add_argument("--rounds", type=int, default=1, help="how often everyone has a turn")
    parser.add_argument("--repeats", type=int, default=3, help="runs per turn at most")
    parser.add_argument("--seconds", type=float, default=12, help="no further run in a turn after this time")
    parser.add_argument("--shape-2d", type=int, nargs=2)
    parser.add_argument("--shape-3d", type=int, nargs=3)
    parser.add_argument("--threads", type=int)
    arguments = parser.parse_args()
    for name in arguments.cases:
        shape = arguments.shape_2d if name == "2d" else arguments.shape_3d
        this = case(name, shape or (CASES[name].full if arguments.full else None))
        everyone = [c for c in (*PEERS, *OURS) if arguments.full or (name, c) not in TOO_SLOW]
        work = gigaflop(model_of(this).network, this.shape)
        answers = turns_of(name, this, arguments.contenders or everyone, arguments)
        for contender, turns in answers.items():
            done = [turn for turn in turns if "error" not in turn]
            if not done:
                print(f"{name} {contender} is left out: {turns[-1]['error']}")
                continue
            row = row_of(name, this, work, contender, done)
            if arguments.threads:
                row["threads"] = arguments.threads
            # Rows of another image size would be compared with what they cannot be compared with.
            others = [r for r in read_rows("compare") if r["case"] != name or r["shape"] == row["shape"]]
            write_rows("compare", [row], keys=("case", "contender"), kept=others)


if __name__ == "__main__":
    main()
