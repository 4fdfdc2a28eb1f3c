"""What a few labelled images teach: score against their number and the minutes, on the DSB 2018 set.

    python -m benchmarks.few_images --data DATA/dsb2018 [--cases fluorescence-5 stained-5 ...]

``fluorescence-N``: N fluorescence images, from scratch, 9.6 minutes of one thread, so that these are
minutes of processor time, less than 10 with what comes before. ``stained-N``: the bundled ``nuclei``
taught N images of stained tissue (H&E), 4.7 minutes, less than 5 of processor time; ``inverted-N``:
the same in grey with bright nuclei, as ``nuclei`` knows them, so that it finds some from the start.
Nothing but the minutes is chosen: all else is the default of :func:`napari_tiled_unet.train`. The
images are listed below by the beginning of their names, all of the split ``train``; the first 5 of 10
are the 5. The model of each validation is scored on all images of that kind of the split ``test``,
pooled; so is the start model. Writes
``benchmarks/results/few_images.csv`` and ``docs/images/few-images.png``.
"""

from __future__ import annotations

import argparse
import csv
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from napari_tiled_unet import Image, iter_train, load_model, read_image, segment
from napari_tiled_unet.events import Notice
from napari_tiled_unet.image import luminance
from napari_tiled_unet.metrics import average_precision
from napari_tiled_unet.model import Model
from napari_tiled_unet.training import Prepared, Trained, Validated

RESULTS = Path(__file__).parent / "results" / "few_images.csv"
FIGURE = Path(__file__).parent.parent / "docs" / "images" / "few-images.png"
Pair = tuple[Image, Image]
KINDS = ("fluorescence", "stained", "inverted")

# Of the five image sizes with most nuclei in turn, the image with the median number of nuclei first.
FLUORESCENCE = (
    "b0d6dfcc95e4d087",  # 256 x 256, 22 nuclei
    "7f2b154541166210",  # 520 x 696, 102 nuclei
    "c96109cbebcf206f",  # 360 x 360, 23 nuclei
    "538b7673d507014d",  # 603 x 1272, 196 nuclei
    "20e209f6ffa120a7",  # 512 x 640, 31 nuclei
    "b1e3aeb0c56261c1",  # 256 x 256, 22 nuclei
    "351771edfc5db566",  # 520 x 696, 106 nuclei
    "d4d88391bc399a37",  # 360 x 360, 23 nuclei
    "cb4df20a83b2f38b",  # 603 x 1272, 250 nuclei
    "1400420310c90943",  # 512 x 640, 25 nuclei
    "af8621ef0db8c26b",  # 256 x 256, 22 nuclei
    "62057502c387145e",  # 520 x 696, 101 nuclei
    "b0defa611b75645c",  # 360 x 360, 23 nuclei
    "f4c4db3df4ff0de9",  # 603 x 1272, 68 nuclei
    "ad9d305cbf193d42",  # 512 x 640, 34 nuclei
    "d1ba6089cae2f90c",  # 256 x 256, 22 nuclei
    "bb8ebf465c968a5f",  # 520 x 696, 106 nuclei
    "0532c64c2fd0c4d3",  # 360 x 360, 24 nuclei
    "a102535b0e88374b",  # 603 x 1272, 375 nuclei
    "40b00d701695d8ea",  # 512 x 640, 24 nuclei
)
# Of the two stains in turn, the image with the median number of nuclei first.
STAINED = (
    "4e92129f4e8066d6",  # 256 x 320, 46 nuclei
    "33a5b0ff232b4257",  # 256 x 320, 23 nuclei
    "7773ac91af61ed04",  # 256 x 320, 45 nuclei
    "52a6b8ae4c8e0a8a",  # 256 x 320, 25 nuclei
    "420f43d21dbaba42",  # 256 x 320, 49 nuclei
    "0d3640c1f1b80f24",  # 256 x 320, 21 nuclei
    "ed5be4b63e9506ad",  # 256 x 320, 42 nuclei
    "c0152b1a260e71f9",  # 256 x 320, 25 nuclei
    "353ab00e964f71aa",  # 256 x 320, 50 nuclei
    "a90401357d50e137",  # 256 x 320, 20 nuclei
    "bb61fc17daf8bdd4",  # 256 x 320, 37 nuclei
    "f7e5dcfc9c93183c",  # 256 x 320, 26 nuclei
    "337b6eed0726f075",  # 256 x 320, 51 nuclei
    "6ab24e7e1f6c9fdd",  # 256 x 320, 20 nuclei
    "a4c44fc5f5bf213e",  # 256 x 320, 37 nuclei
    "4e23ecf65040f864",  # 256 x 320, 27 nuclei
    "c0f172831b8017c7",  # 256 x 320, 59 nuclei
    "ebc18868864ad075",  # 256 x 320, 18 nuclei
    "24a20f2a529cede5",  # 256 x 320, 34 nuclei
    "a5fe0b7412dd152c",  # 256 x 320, 29 nuclei
)


@dataclass(frozen=True)
class Case:
    """A training: which images, from which model, how long."""

    kind: str
    count: int

    @classmethod
    def of(cls, name: str) -> Case:
        """Return the case of a name such as ``stained-5``."""
        kind, _, count = name.partition("-")
        if kind not in KINDS or not count.isdigit() or not 2 <= int(count) <= 20:
            raise SystemExit(
                f"case {name!r} is unknown; it is fluorescence-N, stained-N or inverted-N with N of 2 to 20"
            )
        return cls(kind, int(count))

    @property
    def name(self) -> str:
        """What it is called."""
        return f"{self.kind}-{self.count}"

    @property
    def names(self) -> tuple[str, ...]:
        """The beginnings of its images' names."""
        return (FLUORESCENCE if self.kind == "fluorescence" else STAINED)[: self.count]

    @property
    def start(self) -> str | None:
        """The model it starts from."""
        return None if self.kind == "fluorescence" else "nuclei"

    @property
    def minutes(self) -> float:
        """How long it trains."""
        return 9.6 if self.kind == "fluorescence" else 4.7


@dataclass(frozen=True)
class Point:
    """A model on the way, with its scores on the test images."""

    case: str
    images: int
    step: int
    minutes: float
    processor_minutes: float
    chosen: bool
    ap50: float
    ap75: float
    mean: float


def row_of(folder: Path, name: str) -> dict[str, str]:
    """Return the row of the index of an image whose name begins so."""
    with (folder / "index.csv").open() as index:
        (row,) = [row for row in csv.DictReader(index) if row["id"].startswith(name)]
    return row


def read(folder: Path, name: str, kind: str) -> Pair:
    """Return an image and its labels."""
    image = read_image(folder / "images" / f"{name}.tif")
    if kind == "inverted":
        grey = next(iter(luminance(image).frames("yx"))).read()[0]
        image = Image(255 - grey, "yx", name=image.name)
    return image, read_image(folder / "labels" / f"{name}.tif")


def test_images(folder: Path, kind: str) -> list[Pair]:
    """Return the images of a kind of the split ``test``, with their truth."""
    begins = "fluorescence" if kind == "fluorescence" else "purple"
    with (folder / "index.csv").open() as index:
        names = [r["id"] for r in csv.DictReader(index) if r["split"] == "test" and r["kind"].startswith(begins)]
    return [read(folder, name, kind) for name in names]


def scores(model: Model, test: Sequence[Pair]) -> tuple[float, float, float]:
    """Return AP at 0.5, at 0.75 and its mean over 0.5 to 0.9, pooled over all images, segmented by default."""
    found = [segment(image, model) for image, _ in test]
    pooled = average_precision(found, [np.asarray(truth.data) for _, truth in test]).pooled
    return float(pooled[0]), float(pooled[5]), float(np.mean(pooled))


def teach(case: Case, folder: Path, minutes: float | None) -> list[Point]:
    """Train as a user would, then score each model that was there on the way."""
    rows = [row_of(folder, name) for name in case.names]
    assert all(row["split"] == "train" for row in rows)
    pairs = [read(folder, row["id"], case.kind) for row in rows]
    images, labels = ([pair[k] for pair in pairs] for k in (0, 1))
    clock = time.process_time()
    met: list[tuple[Validated, float]] = []
    best = 0
    for event in iter_train(images, labels, start=case.start, minutes=minutes or case.minutes):
        if isinstance(event, Notice):
            print(event.message, flush=True)
        elif isinstance(event, Prepared):
            print(*event.plan.lines(), event.split, sep="\n", flush=True)
        elif isinstance(event, Validated):
            met.append((event, (time.process_time() - clock) / 60))
            print(f"step {event.step}, {event.seconds / 60:.2f} min, {event.scores}", flush=True)
        elif isinstance(event, Trained):
            best = event.best_step
    test = test_images(folder, case.kind)
    points = []
    if case.start is not None:
        points.append(Point(case.name, 0, 0, 0.0, 0.0, False, *scores(load_model(case.start), test)))
    for event, spent in met:
        chosen = event.step == best
        told = (event.step, event.seconds / 60, spent, chosen)
        points.append(Point(case.name, case.count, *told, *scores(event.model, test)))
        print(points[-1], flush=True)
    return points


def kept(points: Sequence[Point]) -> list[Point]:
    """Return the points with those of other cases that were measured before."""
    mine = {point.case for point in points}
    before: list[Point] = []
    if RESULTS.exists():
        with RESULTS.open() as file:
            before = [parsed(row) for row in csv.DictReader(file) if row["case"] not in mine]
    return sorted([*before, *points], key=lambda p: (Case.of(p.case).kind, Case.of(p.case).count, p.step))


def parsed(row: dict[str, str]) -> Point:
    """Return a point from a row of the table."""
    whole, words = {"images", "step"}, {"case", "chosen"}
    numbers = {k: int(v) if k in whole else float(v) for k, v in row.items() if k not in words}
    return Point(case=row["case"], chosen=row["chosen"] == "True", **numbers)  # type: ignore[arg-type]


def write(points: Sequence[Point]) -> None:
    """Write the table."""
    rows = [{k: round(v, 4) if isinstance(v, float) else v for k, v in asdict(point).items()} for point in points]
    with RESULTS.open("w", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        table.writeheader()
        table.writerows(rows)


def draw(points: Sequence[Point]) -> None:
    """Draw AP at 0.5 against the minutes, a curve per case, and against the number of images."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained", sharey=True)
    names = {
        "fluorescence": "fluorescence, from scratch",
        "stained": "H&E, from nuclei",
        "inverted": "H&E inverted, from nuclei",
    }
    colours = {
        "fluorescence": plt.get_cmap("Blues"),
        "stained": plt.get_cmap("Purples"),
        "inverted": plt.get_cmap("Oranges"),
    }
    for kind, title in names.items():
        cases = sorted({p.case for p in points if p.case.startswith(kind)}, key=lambda name: Case.of(name).count)
        ends = []
        for rank, case in enumerate(cases):
            colour = colours[kind](0.4 + 0.5 * (rank + 1) / len(cases))
            curve = [p for p in points if p.case == case]
            axes[0].plot(
                [p.processor_minutes for p in curve], [p.ap50 for p in curve], "o-", color=colour, markersize=3,
                label=f"{title}, {Case.of(case).count} images",
            )  # fmt: skip
            ends += [p for p in curve if p.chosen]
        start = [p for p in points if p.case.startswith(kind) and p.images == 0][:1]
        shown = start + ends
        axes[1].plot([p.images for p in shown], [p.ap50 for p in shown], "o-", color=colours[kind](0.8), label=title)
    axes[0].set(xlabel="processor minutes", ylabel="AP at IoU 0.5, test images", ylim=(0, 1))
    axes[1].set(xlabel="images", xticks=sorted({p.images for p in points}))
    for panel in axes:
        panel.legend(fontsize=7, loc="lower right")
        panel.grid(alpha=0.3)
    figure.savefig(FIGURE, dpi=110)


def main() -> None:
    """Run the cases that are asked for and write what all of them gave."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the dsb2018 folder")
    parser.add_argument("--cases", nargs="*", default=[f"{k}-{n}" for n in (5, 10, 20) for k in KINDS])
    parser.add_argument("--minutes", type=float, help="instead of the minutes of the case, for a trial")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    for name in chosen.cases:
        print(f"== {name}", flush=True)
        points = teach(Case.of(name), chosen.data, chosen.minutes)
        best = next(p for p in points if p.chosen)
        print(f"{name}: AP@0.5 {best.ap50:.3f} after {points[-1].processor_minutes:.2f} processor minutes", flush=True)
        if chosen.minutes is None:
            write(kept(points))
    if RESULTS.exists():
        draw(kept([]))


if __name__ == "__main__":
    main()
