"""The page of the study, written from its table alone."""

from __future__ import annotations

import csv
import json
import math
from collections import defaultdict
from collections.abc import Sequence
from html import escape
from pathlib import Path

import numpy as np

from benchmarks.study.cells import FLOOR, Cell, by_training
from napari_tiled_unet.networks.zoo import ARCHITECTURES

COMMAND = "python -m benchmarks.study --data DATA --budget 60"
ASKED: dict[str, str] = {
    "skips": "What do the skips carry? FCN, U-Net, U-Net without skips, skips added",
    "upsampling, untrained": "Does a way up leave a grid before training?",
    "upsampling": "Transposed or interpolated? Scores, and the grid after training",
    "downsampling": "Max-pool, strided convolution or blur-pool: do labels hold still when the image moves by a pixel?",
    "equal parameters": "The descendants against the U-Net at equal parameters",
    "equal work": "The descendants against the U-Net at equal work",
    "few images": "How many images are enough?",
    "other rows": "The other rows",
}
_Value = dict[tuple[str, str], dict[str, list[float]]]


def write_page(page: Path, table: Path, maps: Path, wanted: Sequence[Cell]) -> None:
    """Write the page and its figures beside it, in ``images``."""
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    done = {row["cell"] for row in rows}
    lines = [
        "# The study",
        "",
        "Same data, same steps, same patches and augmentation for all that are compared; the table behind this page is",
        "`benchmarks/study/results.csv`, and the page is written from it by",
        "",
        f"```\n{COMMAND}\n```",
        "",
        "which goes on where it stopped; repeat it until nothing is left. Numbers are the mean over runs, with the",
        "standard deviation, and the number of runs in brackets. A run is a seed, or a seed and a fold. Half-pixel",
        "shifts are not studied but excluded: `tests/networks/test_contract.py` measures every row's shift: it is 0.",
        "",
        "Grid is the power that maps of white noise have at multiples of 1 / stride over that beside them, in",
        "decibels: 0 is no grid. Shift agreement is the Dice of the masks of an image and of the image moved by a",
        "pixel, moved back.",
        "Maps of noise of a network that lets nothing fine through have hardly any power beside the grid.",
        "",
    ]
    # Cells of one training all tell its seconds.
    spent = {Cell(**json.loads(row["cell"])).training: float(row["seconds"]) for row in rows}
    hours = sum(spent.values()) / 3600
    groups = by_training(wanted)
    left = sum(any(cell.key not in done for cell in group) for group in groups)
    commits = ", ".join(sorted({row["commit"] for row in rows}))
    lines += [f"Trained so far: {hours:.1f} h, at {commits}; {left} of {len(groups)} trainings are left.", ""]
    empty, findings = [], _findings()
    for question, asked in ASKED.items():
        mine = [row for row in rows if row["question"] == question]
        if mine:
            lines += [f"## {asked}", "", *findings.get(question, []), *_tables(mine)]
            lines += _figures(page, question, mine, maps)
        else:
            empty.append(f"- {asked}: `{COMMAND} --questions '{question}'`")
    lines += _floor(rows)
    if empty:
        lines += [
            "## Questions without numbers yet",
            "",
            "Nothing is claimed about these until the command has run:",
            "",
            *empty,
            "",
        ]
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text("\n".join(lines), encoding="utf-8")


def _findings() -> dict[str, list[str]]:
    """Return what was found, question by question, as written in ``findings.md`` under a heading each."""
    found: dict[str, list[str]] = {}
    for part in (Path(__file__).parent / "findings.md").read_text(encoding="utf-8").split("\n## ")[1:]:
        question, _, text = part.partition("\n")
        found[question.strip()] = [text.strip(), ""]
    return found


def _floor(rows: Sequence[dict[str, str]]) -> list[str]:
    """Return a table of every row of ARCHITECTURES that was trained on all images of dsb2018, beside the floor."""
    trainings: dict[str, dict[str, dict[str, float]]] = defaultdict(lambda: defaultdict(dict))
    for row in rows:
        cell = Cell(**json.loads(row["cell"]))
        if row["data"] == "dsb2018" and not cell.images and "encoder" not in cell.choices and row["metric"] in FLOOR:
            trainings[cell.row][cell.training][row["metric"]] = float(row["value"])
    wanted = ", ".join(f"{metric} of {value:g}" for metric, value in FLOOR.items())
    lines = [
        "## Is each row trainable?",
        "",
        f"The floor is {wanted} on all images of dsb2018; a row of which no training reaches it would be taken for",
        "broken. The least and the best of all trainings of each, whatever their widths and choices:",
        "",
        f"| | {' | '.join(FLOOR)} | trainings | above the floor | reaches it |",
        "|---|" + "---|" * (len(FLOOR) + 3),
    ]
    for name in ARCHITECTURES:
        found = [scores for scores in trainings[name].values() if len(scores) == len(FLOOR)]
        if not found:
            lines.append(f"| {name} | {' | '.join('' for _ in FLOOR)} | 0 | 0 | not trained yet |")
            continue
        above = sum(all(scores[metric] >= value for metric, value in FLOOR.items()) for scores in found)
        spans = " | ".join(_span([scores[metric] for scores in found]) for metric in FLOOR)
        lines.append(f"| {name} | {spans} | {len(found)} | {above} | {'yes' if above else '**no**'} |")
    return [*lines, ""]


def _span(values: Sequence[float]) -> str:
    low, high = f"{min(values):.3f}", f"{max(values):.3f}"
    return high if low == high else f"{low} to {high}"


def _values(rows: Sequence[dict[str, str]]) -> _Value:
    found: _Value = defaultdict(lambda: defaultdict(list))
    for row in rows:
        metric, value = _shown(row)
        found[row["data"], metric][row["variant"]].append(value)
    return found


def _shown(row: dict[str, str]) -> tuple[str, float]:
    """Return a metric and its value as the page tells them: powers span decades, so their mean is one of decibels."""
    if row["metric"] == "grid energy":
        return "grid, dB", 10 * math.log10(float(row["value"]))
    return row["metric"], float(row["value"])


def _tables(rows: Sequence[dict[str, str]]) -> list[str]:
    lines = []
    for data in dict.fromkeys(row["data"] for row in rows):
        mine = [row for row in rows if row["data"] == data]
        metrics = list(dict.fromkeys(_shown(row)[0] for row in mine))
        values = _values(mine)
        steps = ", ".join(sorted({row["steps"] for row in mine}, key=int))
        lines += [f"On {data}, {steps} steps:", "", f"| | M parameters | GFLOP/MVoxel | {' | '.join(metrics)} |"]
        lines.append("|---|---|---|" + "---|" * len(metrics))
        for variant in dict.fromkeys(row["variant"] for row in mine):
            first = next(row for row in mine if row["variant"] == variant)
            cells = [_told(values[data, metric].get(variant, [])) for metric in metrics]
            cost = f"{int(first['parameters']) / 1e6:.2f} | {float(first['gflop_per_mv']):.0f}"
            lines.append(f"| {variant} | {cost} | {' | '.join(cells)} |")
        lines.append("")
    return lines


def _told(values: Sequence[float]) -> str:
    if not values:
        return ""
    spread = f" ± {np.std(values, ddof=1):.2g}" if len(values) > 1 else ""
    return f"{np.mean(values):.3f}{spread} ({len(values)})"


def _figures(page: Path, question: str, rows: Sequence[dict[str, str]], maps: Path) -> list[str]:
    folder = page.parent / "images" / "study"
    folder.mkdir(parents=True, exist_ok=True)
    name = question.replace(" ", "-").replace(",", "")
    lines = []
    for data in dict.fromkeys(row["data"] for row in rows):
        path = folder / f"{name}-{data}.svg"
        path.write_text(_dots(_values([row for row in rows if row["data"] == data]), data), encoding="utf-8")
        lines.append(f"![Each run a dot, the mean a line]({path.relative_to(page.parent).as_posix()})")
        kept = sorted(maps.glob(f"{question.replace(' ', '_').replace(',', '')}-{data}-*.npz"))
        if kept:
            picture = folder / f"{name}-{data}-maps.png"
            _side_by_side(picture, kept)
            order = ", ".join(k.stem.rpartition(f"{data}-")[2] for k in kept)
            lines.append(f"\n![The same piece: image, {order}]({picture.relative_to(page.parent).as_posix()})")
            lines.append(f"\nFrom left to right: image, {order}.")
    return [*lines, ""]


def _dots(values: _Value, data: str) -> str:
    """Return a small chart per metric: a row per variant, a dot per run, a line at the mean."""
    panels, y, width = [], 24.0, 640
    for (_, metric), variants in values.items():
        everything = [v for runs in variants.values() for v in runs]
        low, high = min(everything), max(everything)
        low, high = (low - 0.05 * (high - low), high + 0.05 * (high - low)) if high > low else (low - 1, high + 1)
        panels.append(f'<text x="8" y="{y:.0f}" font-weight="bold">{escape(metric)} on {escape(data)}</text>')
        for variant, runs in variants.items():
            y += 20

            def at(value: float, low: float = low, high: float = high) -> float:
                return 190 + (value - low) / (high - low) * 380

            panels.append(f'<text x="180" y="{y + 4:.0f}" text-anchor="end">{escape(variant)}</text>')
            panels.append(f'<path d="M190 {y:.0f}H570" stroke="#e5e7eb"/>')
            dot = f'cy="{y:.0f}" r="4" fill="#2f7d4f" fill-opacity="0.6"/>'
            panels += [f'<circle cx="{at(v):.1f}" {dot}' for v in runs]
            mean = float(np.mean(runs))
            panels.append(f'<path d="M{at(mean):.1f} {y - 7:.0f}v14" stroke="#1f2937" stroke-width="2"/>')
            panels.append(f'<text x="580" y="{y + 4:.0f}">{mean:.3f}</text>')
        y += 34
    size = f'viewBox="0 0 {width} {y:.0f}" width="{width}" height="{y:.0f}"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} '
        'font-family="sans-serif" font-size="12"><rect width="100%" height="100%" fill="white"/>'
        f"{''.join(panels)}</svg>"
    )


def _side_by_side(path: Path, kept: Sequence[Path]) -> None:
    from PIL import Image

    with np.load(kept[0]) as first:
        image = first["image"].astype(float)
    pictures = [np.clip(image, 0, 1)]
    for file in kept:
        with np.load(file) as saved:
            pictures.append(np.clip(saved["map"].astype(float), 0, 1))
    gap = np.ones((image.shape[0], 4))
    joined = np.concatenate([part for p in pictures for part in (p, gap)][:-1], axis=1)
    Image.fromarray((255 * joined).astype(np.uint8)).save(path)
