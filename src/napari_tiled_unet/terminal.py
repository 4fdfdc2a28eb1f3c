"""What the command line shows: progress while it works, a table or JSON when it is done."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, Protocol


@dataclass
class FileResult:
    """What became of one file.

    Attributes
    ----------
    image, labels : str
        Paths of what was read and what was written (or would have been).
    state : {"done", "skipped", "failed"}
        Skipped: the result was there and ``overwrite`` was not asked for.
    n_objects : int or None
        Number of objects, or of classes present.
    seconds : float
        Time from reading to written.
    megavoxels : float
        Size of the labels.
    error : str
        Why it failed or was skipped.
    removed : tuple of str
        Paths of maps of an earlier run that did not belong to the new labels any more.
    """

    image: str
    labels: str
    state: Literal["done", "skipped", "failed"] = "failed"
    n_objects: int | None = None
    seconds: float = 0.0
    megavoxels: float = 0.0
    error: str = ""
    removed: tuple[str, ...] = ()


class Progress(Protocol):
    """Where progress is told."""

    def start(self, name: str, number: int, total: int) -> None:
        """Begin a file."""

    def plan(self, n_tiles: int) -> None:
        """Learn how many tiles the file has."""

    def advance(self) -> None:
        """Count a tile."""

    def say(self, message: str) -> None:
        """Tell a sentence."""


class _PlainProgress:
    """Lines for a log file: one at the start of a file, and whatever is to be said."""

    def start(self, name: str, number: int, total: int) -> None:
        print(f"[{number}/{total}] {name}", file=sys.stderr, flush=True)

    def plan(self, n_tiles: int) -> None:
        pass

    def advance(self) -> None:
        pass

    def say(self, message: str) -> None:
        print(message, file=sys.stderr, flush=True)


class _TerminalProgress:
    """A bar with rate and time left."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
        from rich.progress import Progress as Bars

        self.bars = Bars(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("tiles"),
            TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
        )
        self.task = self.bars.add_task("", total=None, rate="")

    def start(self, name: str, number: int, total: int) -> None:
        self.bars.reset(self.task, description=f"[{number}/{total}] {name}", total=None, completed=0, rate="")

    def plan(self, n_tiles: int) -> None:
        self.bars.update(self.task, total=n_tiles)

    def advance(self) -> None:
        speed = self.bars.tasks[0].speed
        self.bars.update(self.task, advance=1, rate=f"{speed:.1f}/s" if speed else "")

    def say(self, message: str) -> None:
        self.bars.console.print(message, highlight=False, markup=False)


@contextmanager
def shown_progress() -> Iterator[Progress]:
    """Show progress on standard error: a bar on a terminal, lines otherwise."""
    if not sys.stderr.isatty():
        yield _PlainProgress()
        return
    terminal = _TerminalProgress()
    with terminal.bars:
        yield terminal


def report(results: Sequence[FileResult], seconds: float, *, as_json: bool) -> None:
    """Print what became of the files on standard output."""
    counts = {state: sum(r.state == state for r in results) for state in ("done", "skipped", "failed")}
    if as_json:
        print(json.dumps({"files": [asdict(r) for r in results], "seconds": round(seconds, 3), **counts}, indent=2))
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table("image", "state", "objects", "seconds", "MVoxel/s", "labels or reason")
    for r in results:
        rate = f"{r.megavoxels / r.seconds:.2f}" if r.state == "done" and r.seconds else ""
        table.add_row(
            escape(Path(r.image).name),
            r.state,
            "" if r.n_objects is None else str(r.n_objects),
            f"{r.seconds:.2f}",
            rate,
            escape(r.labels if r.state == "done" else r.error),
        )
    console = Console(width=None if sys.stdout.isatty() else 160)
    console.print(table)
    console.print(
        f"{counts['done']} done, {counts['skipped']} skipped, {counts['failed']} failed in {seconds:.1f} s",
        highlight=False,
    )
