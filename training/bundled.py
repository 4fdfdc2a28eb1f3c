"""How a bundled model is made: trained, scored on what was held out, and given its card.

Each script beside this one says what its data are and what is held out for the test; the
engine holds out part of the rest to choose the best model by.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from napari_tiled_unet import Image, TrainOptions, evaluate, iter_train, load_model, segment
from napari_tiled_unet.events import Notice
from napari_tiled_unet.model import Model
from napari_tiled_unet.model_files import save_model
from napari_tiled_unet.seams import measure_seams
from napari_tiled_unet.training import Prepared, StepDone, Trained, Validated

Pair = tuple[Image, Image]
Labels = npt.NDArray[np.integer]

# Seams are measured on a piece of at most so many voxels along an axis, 2D and 3D.
_SEAM_PIECE = {2: 800, 3: 144}


def found_by_default(model: Model, image: Image) -> Labels:
    """Segment an image as a user would."""
    labels: Labels = segment(image, model)
    return labels


@dataclass(frozen=True)
class Course:
    """What one bundled model is made of.

    Attributes
    ----------
    name, summary, licence, source : str
        For the card.
    learn, test : sequence of (Image, Image)
        Images and labels to learn from, and those that are only scored.
    held_out : str
        How the test part was chosen.
    channel : str
        What the one channel shows.
    told : tuple of str
        Which scores of :func:`evaluate` the card tells.
    options : dict
        Of :class:`TrainOptions`.
    judged_as : {"objects", "classes"}
        What the labels that are scored are.
    find : callable
        ``(model, image) -> labels``, how the test images are segmented.
    """

    name: str
    summary: str
    licence: str
    source: str
    learn: Sequence[Pair]
    test: Sequence[Pair]
    held_out: str
    channel: str
    told: tuple[str, ...] = ("AP", "AP@0.5", "AP@0.75", "F1", "PQ")
    options: dict[str, Any] = field(default_factory=dict)
    judged_as: Literal["objects", "classes"] = "objects"
    find: Callable[[Model, Image], Labels] = found_by_default

    def scores(self, model: Model, found: Sequence[Labels]) -> dict[str, float]:
        """Score what was found in the test images."""
        names = model.spec.target.channels if self.judged_as == "classes" else ()
        truth = [np.asarray(labels.data) for _, labels in self.test]
        scores = evaluate(list(found), truth, target=self.judged_as, classes=names).scores
        return {name: scores[name] for name in self.told}


def arguments(description: str, *, steps: int, minutes: float, validate_every: int = 250) -> argparse.Namespace:
    """Read the command line that every script has."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    parser.add_argument("--out", type=Path, required=True, help="model file to write")
    parser.add_argument("--steps", type=int, default=steps, help="most steps")
    parser.add_argument("--minutes", type=float, default=minutes, help="most minutes")
    parser.add_argument("--validate-every", type=int, default=validate_every)
    parser.add_argument("--width", type=int, help="default: from the plan")
    parser.add_argument("--batch", type=int, help="patches per step; default: from the plan")
    parser.add_argument("--patch", type=int, nargs="+", help="default: from the plan")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--resume", action="store_true")
    return parser.parse_args()


def make(course: Course, chosen: argparse.Namespace) -> None:
    """Train, score on the test part, measure seams, and write the model with its card."""
    asked = {"width": chosen.width, "batch": chosen.batch, "patch": tuple(chosen.patch) if chosen.patch else None}
    options = TrainOptions.of(
        **{
            "steps": chosen.steps,
            "minutes": chosen.minutes,
            "validate_every": chosen.validate_every,
            "patience": 0,
            "workers": chosen.workers,
            "seed": chosen.seed,
            **course.options,
            **{name: value for name, value in asked.items() if value is not None},
        }
    )
    trained = followed(course, options, chosen)
    model = load_model(chosen.out)
    scores = course.scores(model, [course.find(model, image) for image, _ in course.test])
    print(f"test ({course.held_out}): {scores}", flush=True)
    spec = model.spec.model_copy(
        update={
            "name": course.name,
            "summary": course.summary,
            "licence": course.licence,
            "channels": (course.channel,),
            "scores": {**model.spec.scores, **{f"test_{k}": round(v, 4) for k, v in scores.items()}},
            "seams": measure_seams(model, [seam_piece(image) for image, _ in course.learn]),
            "training": {
                **model.spec.training,
                "data": course.source,
                "held_out": course.held_out,
                "hours": round(trained.seconds / 3600, 2),
            },
        }
    )
    save_model(Model(spec, model.network), chosen.out, overwrite=True, half=True)
    print(f"{chosen.out}, overlap {spec.earned_overlap}", flush=True)


def followed(course: Course, options: TrainOptions, chosen: argparse.Namespace) -> Trained:
    """Train and print how it goes."""
    images, labels = ([pair[k] for pair in course.learn] for k in (0, 1))
    trained: Trained | None = None
    for event in iter_train(images, labels, out=chosen.out, resume=chosen.resume, overwrite=True, options=options):
        if isinstance(event, Notice):
            print(event.message, flush=True)
        elif isinstance(event, Prepared):
            print("\n".join(event.plan.lines()), event.split, sep="\n", flush=True)
            print(f"{event.n_parameters / 1e6:.2f} million parameters", flush=True)
        elif isinstance(event, StepDone) and event.step % 20 == 0:
            print(f"step {event.step} {event.seconds / 60:.1f} min loss {event.loss:.4f}", flush=True)
        elif isinstance(event, Validated):
            print(f"step {event.step} {event.seconds / 60:.1f} min val {event.scores}", flush=True)
        elif isinstance(event, Trained):
            trained = event
    assert trained is not None
    return trained


def seam_piece(image: Image) -> npt.NDArray[Any]:
    """Return the middle of an image with one channel, ``(1, [z,] y, x)``, large enough to have seams."""
    data = np.asarray(image.data)
    most = _SEAM_PIECE[data.ndim]
    return data[tuple(slice(max(0, (n - most) // 2), max(0, (n - most) // 2) + most) for n in data.shape)][None]


def cut(image: Image, labels: Image, axis: str, share: float, gap: int) -> tuple[Pair, Pair]:
    """Return the first part of a volume to learn from, and the last share of it for the test, a gap between."""
    size = image.size_of(axis)
    edge = round(size * (1 - share))

    def part(whole: Image, box: slice) -> Image:
        index = tuple(box if a == axis else slice(None) for a in whole.axes)
        return replace(whole, data=whole.data[index])

    learn, test = slice(0, edge - gap), slice(edge, size)
    return (part(image, learn), part(labels, learn)), (part(image, test), part(labels, test))
