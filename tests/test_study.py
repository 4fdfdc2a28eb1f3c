"""What the study trains, and the page that it writes."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from benchmarks.study.__main__ import COLUMNS, _append, share_trainings
from benchmarks.study.cells import Cell, all_cells, by_training
from benchmarks.study.report import write_page
from napari_tiled_unet.networks.zoo import ARCHITECTURES

CELLS = list(all_cells(seeds=1, steps=600, folds=2))


def test_what_several_questions_ask_for_is_trained_once() -> None:
    groups = by_training(CELLS)
    assert sum(map(len, groups)) == len(CELLS) == len({cell.key for cell in CELLS})
    plain = next(group for group in groups if group[0].row == "unet" and group[0].data == "dsb2018")
    assert {"skips", "upsampling", "downsampling", "equal work"} <= {cell.question for cell in plain}
    assert len({str(cell.spec) for cell in plain}) == 1


def test_every_row_is_trained() -> None:
    assert {cell.row for cell in CELLS if cell.data == "dsb2018"} == set(ARCHITECTURES)


def test_the_page_tells_what_was_trained(tmp_path: Path) -> None:
    table, page = tmp_path / "results.csv", tmp_path / "docs" / "study.md"
    first, second = by_training(CELLS)[:2]
    _append(table, first, {"Dice": 0.9, "AP 0.5": 0.6, "grid energy": 100.0}, 1_000_000, 92.0, 7200.0)
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS
    assert len(rows) == 3 * len(first)

    write_page(page, table, tmp_path / "maps", CELLS)
    text = page.read_text()
    # One training for several cells takes its hours once.
    assert "Trained so far: 2.0 h" in text
    assert f"{len(by_training(CELLS)) - 1} of {len(by_training(CELLS))} trainings are left" in text
    assert "| unet | 1.00 | 92 | 0.900 (1) | 0.600 (1) | 20.000 (1) |" in text
    assert "| unet | 0.900 | 0.600 | 1 | 1 | yes |" in text
    assert "| fcn |  |  | 0 | 0 | not trained yet |" in text

    _append(table, [c for c in second if c.row == "unet"], {"Dice": 0.5}, 1, 1.0, 0.0)
    for seed, dice in ((0, 0.7), (1, 0.85)):
        cell = Cell("other rows", "fpn", "fpn", "dsb2018", seed=seed)
        _append(table, [cell], {"Dice": dice, "AP 0.5": 0.6}, 1, 1.0, 0.0)
        write_page(page, table, tmp_path / "maps", CELLS)
        verdict = ("0.700 | 0.600 | 1 | 0 | **no** |", "0.700 to 0.850 | 0.600 | 2 | 1 | yes |")[seed]
        assert f"| fpn | {verdict}" in page.read_text()


def test_a_training_answers_every_question_that_asks_for_it(tmp_path: Path) -> None:
    table = tmp_path / "results.csv"
    share_trainings(table, CELLS)
    group = by_training(CELLS)[0]
    _append(table, group[:1], {"Dice": 0.9}, 1_000_000, 92.0, 60.0)
    for _ in range(2):
        share_trainings(table, CELLS)
        with table.open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert [row["cell"] for row in rows] == [cell.key for cell in group]
        assert {row["question"] for row in rows} == {cell.question for cell in group}
        assert {row["value"] for row in rows} == {"0.9"}


@pytest.mark.parametrize("measure", ["parameters", "work"])
def test_descendants_are_as_large_as_the_plain_one(measure: str) -> None:
    widths = {c.row: c.choices["width"] for c in CELLS if c.question == f"equal {measure}"}
    assert widths["unet"] == 16
    assert widths["unetpp"] < 16
