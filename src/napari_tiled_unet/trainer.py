"""What the command line's ``train`` does: events become a progress line, files and a last word."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from napari_tiled_unet.errors import OptionsError
from napari_tiled_unet.events import Notice

if TYPE_CHECKING:
    from napari_tiled_unet.train_options import TrainOptions
    from napari_tiled_unet.training.happenings import Prepared, StepDone, Trained, Validated

# A log file gets a line this often, in steps.
_EVERY = 50


def run_training(
    images: Path,
    labels: Path,
    options: TrainOptions,
    *,
    out: Path,
    resume: bool,
    overwrite: bool,
    tensorboard: Path | None,
    as_json: bool,
) -> int:
    """Train and report; return the exit status.

    Parameters
    ----------
    images, labels : Path
        Folders, or a file each.
    options : TrainOptions
        How to train.
    out : Path
        The model file.
    resume, overwrite : bool
        Whether to go on from its checkpoint, or to replace it.
    tensorboard : Path or None
        Folder for TensorBoard's event files.
    as_json : bool
        Whether the last word is for machines.

    Returns
    -------
    int
        0.

    Raises
    ------
    TiledUnetError
        If something cannot work.
    """
    from napari_tiled_unet.training import Prepared, StepDone, Trained, Validated, iter_train

    board = _Board(tensorboard) if tensorboard is not None else None
    before = _stamp(out)
    scored = False
    events = iter_train(images, labels, out=out, resume=resume, overwrite=overwrite, options=options)
    try:
        with _shown_progress() as progress:
            for event in events:
                if isinstance(event, Notice):
                    progress.say(("caution: " if event.caution else "") + event.message)
                elif isinstance(event, Prepared):
                    progress.prepared(event)
                elif isinstance(event, StepDone):
                    progress.step(event)
                    if board:
                        board.step(event)
                elif isinstance(event, Validated):
                    scored = True
                    progress.validated(event)
                    if board:
                        board.validated(event)
                elif isinstance(event, Trained):
                    _report(event, out, as_json=as_json)
    except KeyboardInterrupt:
        events.close()
        # A checkpoint that was there before, and is not gone on from, is of another training.
        if out.exists() and (resume or _stamp(out) not in (None, before)):
            told = f"the {'best ' if scored else ''}model so far is {out}, --resume goes on"
            print(f"tiled-unet: interrupted; {told}", file=sys.stderr)
        else:
            print("tiled-unet: interrupted before there was anything to keep", file=sys.stderr)
        raise
    finally:
        events.close()
        if board:
            board.close()
    return 0


def _stamp(out: Path) -> int | None:
    """Return when the checkpoint of a model file was written; None if there is none."""
    from napari_tiled_unet.training.state import checkpoint_path

    path = checkpoint_path(out)
    return path.stat().st_mtime_ns if path.exists() else None


def _report(done: Trained, out: Path, *, as_json: bool) -> None:
    if as_json:
        told = {
            "model": str(out),
            "steps": done.step,
            "best_step": done.best_step,
            "scores": done.scores,
            "reason": done.reason,
            "seconds": round(done.seconds, 1),
        }
        print(json.dumps(told, indent=2))
        return
    scores = ", ".join(f"{name} {value:.3f}" for name, value in done.scores.items())
    print(
        f"{done.reason}: {done.step} steps in {done.seconds / 60:.1f} min; best after step {done.best_step}: {scores}"
    )
    print(f"model: {out}")


class _Progress(Protocol):
    """Where a training tells how it goes."""

    def say(self, message: str) -> None:
        """Tell a sentence."""

    def prepared(self, event: Prepared) -> None:
        """Tell the plan."""

    def step(self, event: StepDone) -> None:
        """Count a step."""

    def validated(self, event: Validated) -> None:
        """Tell the scores."""


class _Lines:
    """Lines for a log file."""

    def say(self, message: str) -> None:
        print(message, file=sys.stderr, flush=True)

    def prepared(self, event: Prepared) -> None:
        for line in event.plan.lines():
            self.say(line)
        self.say(
            f"{event.n_training} frames to learn from, {event.n_validation} held out ({event.split}); "
            f"{event.n_parameters / 1e6:.2f} million parameters"
        )

    def step(self, event: StepDone) -> None:
        if event.step % _EVERY == 0:
            self.say(f"step {event.step} loss {event.loss:.4f} {event.seconds / 60:.1f} min")

    def validated(self, event: Validated) -> None:
        scores = " ".join(f"{name} {value:.3f}" for name, value in event.scores.items())
        self.say(f"step {event.step} loss {event.loss:.4f} {scores}{' (best)' if event.is_best else ''}")


class _Bar(_Lines):
    """A bar on a terminal, with the lines above it."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        self.bars = Progress(
            TextColumn("step {task.fields[step]}"),
            BarColumn(),
            TextColumn("{task.fields[loss]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
        )
        self.task = self.bars.add_task("", total=1.0, step=0, loss="")

    def say(self, message: str) -> None:
        self.bars.console.print(message, highlight=False, markup=False)

    def step(self, event: StepDone) -> None:
        self.bars.update(self.task, completed=event.progress, step=event.step, loss=f"loss {event.loss:.3f}")


@contextmanager
def _shown_progress() -> Iterator[_Progress]:
    if not sys.stderr.isatty():
        yield _Lines()
        return
    bar = _Bar()
    with bar.bars:
        yield bar


class _Board:
    """The curves for TensorBoard."""

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise OptionsError(
                "tensorboard needs the package 'tensorboard'; install it with "
                "pip install 'napari-tiled-unet[tensorboard]', or leave the flag out"
            ) from None
        self.writer = SummaryWriter(str(folder))

    def step(self, event: StepDone) -> None:
        self.writer.add_scalar("loss", event.loss, event.step)
        self.writer.add_scalar("learning rate", event.learning_rate, event.step)

    def validated(self, event: Validated) -> None:
        for name, value in event.scores.items():
            self.writer.add_scalar(f"validation/{name}", value, event.step)

    def close(self) -> None:
        self.writer.close()
