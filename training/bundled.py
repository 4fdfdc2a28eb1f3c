"""How a bundled model is made: trained, scored on what was held out, and given its card.

Each script beside this one says what its data are and what is held out for the test; the
engine holds out part of the rest to choose the best model by.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from napari_tiled_unet import Image, TrainOptions, evaluate, iter_train, load_model, segment
from napari_tiled_unet.events import Notice
from napari_tiled_unet.model import Model, save_model
from napari_tiled_unet.training import Prepared, StepDone, Trained, Validated


@dataclass(frozen=True)
class Course:
    """What one bundled model is made of.

    Attributes
    ----------
    name, summary, licence, source : str
        For the card.
    learn, test : sequence of (Image, Image)
        Images and labels to learn from, and those that are only scored.
    options : dict
        Of :class:`TrainOptions`.
    held_out : str
        How the test part was chosen.
    score : callable
        ``(model, test) -> scores``; by default the usual segmentation and :func:`evaluate`.
    """

    name: str
    summary: str
    licence: str
    source: str
    learn: Sequence[tuple[Image, Image]]
    test: Sequence[tuple[Image, Image]]
    held_out: str
    options: dict[str, Any] = field(default_factory=dict)
    score: Callable[[Model, Sequence[tuple[Image, Image]]], dict[str, float]] | None = None


def arguments(description: str, **defaults: Any) -> argparse.Namespace:
    """Read the command line that every script has."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    parser.add_argument("--out", type=Path, required=True, help="model file to write")
    parser.add_argument("--steps", type=int, default=defaults.get("steps", 6000))
    parser.add_argument("--minutes", type=float, default=defaults.get("minutes"))
    parser.add_argument("--validate-every", type=int, default=250)
    parser.add_argument("--width", type=int, default=defaults.get("width", 16))
    parser.add_argument("--batch", type=int, help="patches per step; default: from the plan")
    parser.add_argument("--patch", type=int, nargs="+", help="default: from the plan")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--resume", action="store_true")
    return parser.parse_args()


def make(course: Course, chosen: argparse.Namespace) -> None:
    """Train, score on the test part, and write the model with its card."""
    options = TrainOptions.of(
        **{
            "steps": chosen.steps,
            "minutes": chosen.minutes,
            "validate_every": chosen.validate_every,
            "patience": 0,
            "width": chosen.width,
            "batch": chosen.batch or "auto",
            "patch": tuple(chosen.patch) if chosen.patch else "auto",
            "workers": chosen.workers,
            "seed": chosen.seed,
            **course.options,
        }
    )
    images, labels = ([pair[k] for pair in course.learn] for k in (0, 1))
    trained: Trained | None = None
    for event in iter_train(images, labels, out=chosen.out, resume=chosen.resume, overwrite=True, options=options):
        if isinstance(event, Notice):
            print(event.message, flush=True)
        elif isinstance(event, Prepared):
            print("\n".join(event.plan.lines()), event.split, sep="\n", flush=True)
        elif isinstance(event, StepDone) and event.step % 20 == 0:
            print(f"step {event.step} {event.seconds / 60:.1f} min loss {event.loss:.4f}", flush=True)
        elif isinstance(event, Validated):
            print(f"step {event.step} val {event.scores}", flush=True)
        elif isinstance(event, Trained):
            trained = event
    assert trained is not None
    model = load_model(chosen.out)
    scores = (course.score or usual_scores)(model, course.test)
    print(f"test ({course.held_out}): {scores}", flush=True)
    spec = model.spec.model_copy(
        update={
            "name": course.name,
            "summary": course.summary,
            "licence": course.licence,
            "scores": {**model.spec.scores, **{f"test_{k}": round(v, 4) for k, v in scores.items()}},
            "training": {
                **model.spec.training,
                "data": course.source,
                "held_out": course.held_out,
                "hours": round(trained.seconds / 3600, 2),
            },
        }
    )
    save_model(Model(spec, model.network), chosen.out, overwrite=True, half=True)


def usual_scores(model: Model, test: Sequence[tuple[Image, Image]]) -> dict[str, float]:
    """Segment the test images as a user would, and score them."""
    target = model.spec.target
    names = target.channels if target.kind == "classes" else ()
    predicted = [segment(image, model) for image, _ in test]
    truth = [np.asarray(labels.data) for _, labels in test]
    scores = evaluate(predicted, truth, target=target.kind, classes=names).scores
    told = ("AP", "AP@0.5", "AP@0.75", "F1", "PQ", "Dice", "adapted Rand error")
    return {k: v for k, v in scores.items() if k in told or k.startswith("Dice ")}


def cut(
    image: Image, labels: Image, axis: str, share: float, gap: int
) -> tuple[tuple[Image, Image], tuple[Image, Image]]:
    """Return the first part of a volume to learn from, and the last share of it for the test, a gap between."""
    from dataclasses import replace

    size = image.size_of(axis)
    edge = round(size * (1 - share))

    def part(whole: Image, box: slice) -> Image:
        index = tuple(box if a == axis else slice(None) for a in whole.axes)
        return replace(whole, data=whole.data[index])

    learn, test = slice(0, edge - gap), slice(edge, size)
    return (part(image, learn), part(labels, learn)), (part(image, test), part(labels, test))
