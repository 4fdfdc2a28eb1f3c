"""The curves of a training on disk: a table as CSV, a picture as PNG."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Sequence
from pathlib import Path

from napari_tiled_unet.errors import FileError
from napari_tiled_unet.training.happenings import Row


def curve_paths(model_file: Path) -> tuple[Path, Path]:
    """Return where the table and the picture of a model file's training lie."""
    return model_file.with_suffix(".curves.csv"), model_file.with_suffix(".curves.png")


def write_table(path: Path, history: Sequence[Row]) -> None:
    """Write one line per validation, beside first and then renamed."""
    names = list(history[-1].scores) if history else []
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["step", "seconds", "loss", "learning_rate", "score", *names])
    for row in history:
        scores = [round(row.scores[name], 5) for name in names]
        rate = float(f"{row.learning_rate:.3g}")
        table.writerow([row.step, round(row.seconds, 1), round(row.loss, 5), rate, round(row.score, 5), *scores])
    _write(path, text.getvalue().encode())


def write_picture(path: Path, history: Sequence[Row]) -> None:
    """Draw loss and scores over the steps.

    Raises
    ------
    ModuleNotFoundError
        If matplotlib is not installed; it comes with the extra ``train``.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    steps = [row.step for row in history]
    left.plot(steps, [row.loss for row in history], marker=".", color="tab:red")
    left.set(xlabel="step", ylabel="training loss")
    for name in history[-1].scores if history else []:
        right.plot(steps, [row.scores[name] for row in history], marker=".", label=name)
    right.set(xlabel="step", ylabel="validation score", ylim=(0, 1))
    if history:
        best = max(history, key=lambda row: row.score)
        right.axvline(best.step, color="grey", linestyle=":", label=f"best, step {best.step}")
        right.legend(fontsize="small")
    picture = io.BytesIO()
    figure.savefig(picture, format="png")
    _write(path, picture.getvalue())


def _write(path: Path, content: bytes) -> None:
    beside = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        beside.write_bytes(content)
        beside.replace(path)
    except OSError as error:
        raise FileError(f"{str(path)!r} cannot be written: {error.strerror or error}") from None
    finally:
        beside.unlink(missing_ok=True)
