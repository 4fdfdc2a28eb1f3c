"""Run the study, as far as the time allows, and write its page.

    python -m benchmarks.study --data DATA --budget 60

A cell that is in the table is not run again, so the command is repeated until it says that
nothing is left. Cells of different questions that are the same training are trained once.
``--share 1/2`` and ``--share 2/2`` go side by side, on ``OMP_NUM_THREADS=1`` a core each.
``--report`` writes the page from the table without training anything.
"""

from __future__ import annotations

import argparse
import csv
import io
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.study.cells import Cell, all_cells, by_training
from benchmarks.study.data import FOLDS, Sample, read, target_of
from benchmarks.study.report import write_page
from benchmarks.study.scores import grid_energy, score
from benchmarks.study.training import predict, train
from napari_tiled_unet.networks.footprint import flops_per_voxel
from napari_tiled_unet.networks.zoo import build_network, network_spec

COLUMNS = (
    "question", "variant", "data", "seed", "fold", "images", "steps", "metric", "value",
    "parameters", "gflop_per_mv", "seconds", "commit", "cell",
)  # fmt: skip


def main() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with dsb2018, isbi2012 and plantseg_3d")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="folder for results.csv and pictures")
    parser.add_argument("--page", type=Path, help="default: docs/study.md for the default --out, else OUT/study.md")
    parser.add_argument("--budget", type=float, default=60.0, help="minutes after which no cell is started")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--folds", type=int, default=FOLDS, help="of isbi2012")
    parser.add_argument("--steps", type=int, default=600, help="per cell")
    parser.add_argument("--questions", nargs="*", default=[], help="only these")
    parser.add_argument("--share", type=_share, default=(1, 1), metavar="K/N", help="only the K-th of N shares")
    parser.add_argument("--limit", type=int, help="most samples to train on and to score, to try the command")
    parser.add_argument("--cells", type=int, help="most trainings of this run, to try the command")
    parser.add_argument("--report", action="store_true", help="only write the page")
    arguments = parser.parse_args()
    if not arguments.report and arguments.data is None:
        parser.error("--data is needed to train; --report only writes the page")
    arguments.out.mkdir(parents=True, exist_ok=True)
    table = arguments.out / "results.csv"
    measure_fresh_networks(table, arguments.seeds)
    wanted = list(all_cells(arguments.seeds, arguments.steps, arguments.folds))
    share_trainings(table, wanted)
    if not arguments.report:
        run(arguments, table)
    docs = Path(__file__).parents[2] / "docs"
    standard = arguments.out.resolve() == Path(__file__).parent.resolve()
    page = arguments.page or (docs / "study.md" if standard else arguments.out / "study.md")
    write_page(page, table, arguments.out / "maps", wanted)


def _share(text: str) -> tuple[int, int]:
    part, _, parts = text.partition("/")
    return int(part), int(parts)


def run(arguments: argparse.Namespace, table: Path) -> None:
    """Train and score the cells that are not in the table yet."""
    started, done = time.monotonic(), _known(table)
    part, parts = arguments.share
    # Shares are cut from all trainings, not from those left, so that two commands never take the same one.
    groups = by_training(all_cells(arguments.seeds, arguments.steps, arguments.folds))[part - 1 :: parts]
    asked = [g for g in groups if not arguments.questions or any(c.question in arguments.questions for c in g)]
    left = [cells for group in asked if (cells := [c for c in group if c.key not in done])]
    for number, cells in enumerate(left[: arguments.cells]):
        if time.monotonic() - started > 60 * arguments.budget:
            print(f"the budget is spent; {len(left) - number} trainings are left, run the command again", flush=True)
            return
        cell = cells[0]
        training, test = read(cell, arguments.data, arguments.limit)
        # Of the processor, so that what else goes on does not count.
        begun = time.process_time()
        network = train(cell, training)
        seconds = time.process_time() - begun
        found = score(network, test, cell.data)
        parameters, work = sum(p.numel() for p in network.parameters()), flops_per_voxel(network) / 1e3
        _append(table, cells, found, parameters, work, seconds)
        if cell.seed == 0 and cell.fold == 0:
            maps = predict(network, _piece(test[0]), target_of(cell.data))
            for each in cells:
                _keep(arguments.out / "maps", each, test[0], maps)
        names = ", ".join(f"{c.question}: {c.variant}" for c in cells)
        print(f"[{number + 1}/{len(left)}] {names} on {cell.data}, {seconds:.0f} s, {found}", flush=True)
    print("nothing is left" if len(left) <= (arguments.cells or len(left)) else "stopped after --cells", flush=True)


def measure_fresh_networks(table: Path, seeds: int) -> None:
    """Measure what needs no training: the grid that each way up leaves at initialisation."""
    done = _known(table)
    for seed in range(seeds):
        for up in ("transposed", "nearest", "linear", "pixel-shuffle"):
            cell = Cell("upsampling, untrained", up, "unet", "noise", {"width": 16, "upsample": up}, seed=seed, steps=0)
            if cell.key in done:
                continue
            torch.manual_seed(seed)
            network = build_network(network_spec("unet", out_channels=2, **cell.choices)).eval()
            parameters, work = sum(p.numel() for p in network.parameters()), flops_per_voxel(network) / 1e3
            _append(table, [cell], {"grid energy": grid_energy(network)}, parameters, work, 0.0)


def _piece(sample: Sample) -> np.ndarray:
    return sample.frame[(slice(None), *(slice(0, 192) for _ in sample.truth.shape))]


def _keep(folder: Path, cell: Cell, sample: Sample, maps: np.ndarray) -> None:
    """Keep a plane of the map of the same piece, for the pictures side by side."""
    folder.mkdir(exist_ok=True)

    def plane(x: np.ndarray) -> np.ndarray:
        return x if x.ndim == 2 else x[x.shape[0] // 2]

    channel = 1 if cell.data == "isbi2012" else 0
    name = f"{cell.question}-{cell.data}-{cell.variant}".replace(" ", "_").replace(",", "")
    np.savez_compressed(
        folder / name, map=plane(maps[channel]).astype(np.float16), image=plane(_piece(sample)[0]).astype(np.float16)
    )


def share_trainings(table: Path, wanted: Sequence[Cell]) -> None:
    """Add the cells whose training is in the table for the sake of another question."""
    if not table.exists():
        return
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    of: dict[str, list[dict[str, str]]] = {}
    for row in rows:
        of.setdefault(row["cell"], []).append(row)
    for group in by_training(wanted):
        there = next((of[cell.key] for cell in group if cell.key in of), [])
        for cell in group:
            if there and cell.key not in of:
                own = {"question": cell.question, "variant": cell.variant, "cell": cell.key}
                _write(table, [[{**row, **own}[column] for column in COLUMNS] for row in there])


def _known(table: Path) -> set[str]:
    if not table.exists():
        return set()
    with table.open(newline="") as file:
        return {row["cell"] for row in csv.DictReader(file)}


def _append(
    table: Path, cells: list[Cell], found: dict[str, float], parameters: int, work: float, seconds: float
) -> None:
    """Add the rows of a training in one write, so that it is in the table whole or not at all."""
    commit, rows = _commit(), []
    for cell in cells:
        about = (cell.question, cell.variant, cell.data, cell.seed, cell.fold, cell.images, cell.steps)
        cost = (parameters, f"{work:.4g}", f"{seconds:.0f}", commit, cell.key)
        rows += [(*about, metric, f"{value:.5g}", *cost) for metric, value in found.items()]
    _write(table, rows)


def _write(table: Path, rows: Sequence[Sequence[Any]]) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows if table.exists() else [COLUMNS, *rows])
    # Without a buffer, so that rows of commands side by side do not mix.
    with table.open("ab", buffering=0) as file:
        file.write(text.getvalue().encode())


def _commit() -> str:
    answer = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False, cwd=Path(__file__).parent
    )
    return answer.stdout.strip() or "unknown"


if __name__ == "__main__":
    main()
