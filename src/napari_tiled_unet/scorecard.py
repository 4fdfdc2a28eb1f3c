"""What the command line's ``evaluate`` does: a table of scores, and where it went wrong."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from napari_tiled_unet.evaluation import Evaluation

_SHOWN_FAULTS = 20
_SHOWN_FILES = 5


def run_evaluation(
    predicted: Path,
    true: Path,
    *,
    target: Literal["objects", "classes"],
    classes: Sequence[str],
    tolerance: float,
    faults: Path | None,
    as_json: bool,
) -> int:
    """Score label files and report; return the exit status.

    Parameters
    ----------
    predicted, true : Path
        Folders, or a file each.
    target, classes, tolerance
        As for :func:`napari_tiled_unet.evaluate`.
    faults : Path or None
        Folder for label images that show the faults.
    as_json : bool
        Whether to report for machines.

    Returns
    -------
    int
        0, or 1 if a true file has no prediction, or a pair of files cannot be scored.

    Raises
    ------
    TiledUnetError
        If labels do not suit, or faults of classes are asked for.
    """
    from napari_tiled_unet.errors import OptionsError
    from napari_tiled_unet.evaluation import evaluate

    if faults is not None and target == "classes":
        raise OptionsError(
            f"--faults {str(faults)!r} goes with --target classes, and only objects have faults; "
            "leave out --faults, or take --target objects"
        )
    done = evaluate(predicted, true, target=target, classes=classes, tolerance=tolerance)
    if faults is not None:
        _write_faults(done, faults)
    if as_json:
        print(json.dumps(done.to_dict(), indent=2))
    else:
        _print_table(done)
    for names, lack in ((done.not_predicted, "predicted labels"), (done.not_true, "true labels")):
        if names:
            shown = ", ".join(names[:_SHOWN_FILES]) + (", ..." if len(names) > _SHOWN_FILES else "")
            print(f"tiled-unet: {len(names)} not scored, without {lack}: {shown}", file=sys.stderr)
    for name, reason in done.failed:
        print(f"tiled-unet: {name} failed and is not scored: {reason}", file=sys.stderr)
    return 1 if done.not_predicted or done.failed else 0


def _write_faults(done: Evaluation, folder: Path) -> None:
    from napari_tiled_unet.io import require_writable, write_labels
    from napari_tiled_unet.pairing import stem_of

    require_writable(folder)
    for image in done.images:
        if image.faults is not None:
            axes = "zyx"[-image.faults.ndim :]
            write_labels(folder / f"{stem_of(Path(image.name))}_faults.ome.tif", image.faults, axes, overwrite=True)


def _print_table(done: Evaluation) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(width=120)
    table = Table("score", "all")
    shown_images = done.images if 1 < len(done.images) <= 4 else ()
    for image in shown_images:
        # As text, since rich would take brackets in names for styles.
        table.add_column(Text(image.name))
    for name, value in done.scores.items():
        shown = [f"{value:.0f}" if _is_count(name) else f"{value:.3f}"]
        own = [i.scores.get(name) for i in shown_images]
        shown += ["" if v is None else f"{v:.0f}" if _is_count(name) else f"{v:.3f}" for v in own]
        table.add_row(Text(name), *shown)
    console.print(table)
    faults = [(image.name, f) for image in done.images if image.comparison for f in image.comparison.faults]
    for name, fault in faults[:_SHOWN_FAULTS]:
        where = ", ".join(f"{c:g}" for c in fault.centre)
        labels = f"true {list(fault.true)}, predicted {list(fault.predicted)}"
        console.print(
            f"{fault.kind} at ({where}) in {name}: {labels}, {fault.voxels} voxels",
            highlight=False, markup=False, emoji=False,
        )  # fmt: skip
    if len(faults) > _SHOWN_FAULTS:
        console.print(f"and {len(faults) - _SHOWN_FAULTS} more; --json lists them all", highlight=False)


def _is_count(name: str) -> bool:
    return name in ("true objects", "predicted objects", "matched", "split", "merged", "missed", "extra")
