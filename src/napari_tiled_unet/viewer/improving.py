"""A model improved by what a human corrected: run again, trained on what was touched, compared."""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_tiled_unet.errors import ImageError
from napari_tiled_unet.events import Event, Finished, Notice
from napari_tiled_unet.image import Image
from napari_tiled_unet.options import SegmentOptions
from napari_tiled_unet.region import Region
from napari_tiled_unet.train_options import TrainOptions
from napari_tiled_unet.viewer.correction import Compared, Touched, compare_models, touched
from napari_tiled_unet.viewer.glimpse import Sight, with_glimpses
from napari_tiled_unet.viewer.worker import one_core_left

if TYPE_CHECKING:
    from pathlib import Path

    from napari_tiled_unet.viewer.teaching import Lesson


@dataclass(frozen=True)
class Correction:
    """A run, and its labels as they are now.

    Attributes
    ----------
    image : Image
        What was segmented.
    after : Image
        The labels, corrected.
    ran : SegmentOptions
        How it was segmented, with all that was chosen.
    held_out : tuple of (Image, numpy.ndarray)
        Images with right labels to compare on; empty for a part of the corrections.
    """

    image: Image
    after: Image
    ran: SegmentOptions
    held_out: tuple[tuple[Image, npt.NDArray[Any]], ...] = ()


@dataclass(frozen=True)
class Judged(Event):
    """Old and new model are compared."""

    compared: Compared


def improvement_options(ran: SegmentOptions, target: str, *, steps: int, freeze: bool) -> TrainOptions:
    """Return how a model is trained on what was corrected."""
    return TrainOptions.of(
        start=ran.model,
        sparse=True,
        target=target,
        channel=ran.channel,
        freeze_encoder=freeze,
        steps=steps,
        validate_every=max(1, steps // 8),
        patience=0,
    )


def labels_of_run(labels: Image, axes: str) -> npt.NDArray[Any]:
    """Return a layer's labels with the axes of the run that made them.

    Raises
    ------
    ImageError
        If they have others.
    """
    data, own = np.asarray(labels.data), labels.axes
    if "c" in own:
        data, own = data.take(0, axis=own.index("c")), own.replace("c", "")
    if set(own) != set(axes):
        raise ImageError(f"the labels have axes {own!r}, the run made {axes!r}; correct the layer of the run")
    return data.transpose([own.index(axis) for axis in axes])


def improve_events(correction: Correction, lesson: Lesson, sight: Sight) -> Generator[Event, None, None]:
    """Yield the events of an improvement.

    The run is repeated to know what the model had said, which no snapshot need keep.

    Parameters
    ----------
    correction : Correction
        What was corrected.
    lesson : Lesson
        How it is taught, with the file in which the new model waits; its images are left out.
    sight : Sight
        What is looked at.
    """
    from napari_tiled_unet.model import load_model
    from napari_tiled_unet.training.happenings import Trained
    from napari_tiled_unet.training.loop import run_session
    from napari_tiled_unet.training.preparation import prepare

    with one_core_left():
        old = load_model(correction.ran.model)
        found, image, labels = yield from _taught(correction, old)
        yield Notice(f"{found.changed} voxels were corrected, {found.objects} objects are taught")
        session = prepare(
            [image], [labels], lesson.options, out=lesson.out, resume=False, overwrite=True
        )  # fmt: skip
        new: Any = None
        for event in with_glimpses(run_session(session), session, sight):
            if isinstance(event, Trained):
                new = event.model
            yield event
        if correction.held_out:
            compared = compare_models(old, new, correction.held_out, lesson.options.device)
        else:
            before, after = (session.examiner.score(n.to(session.device))[1] for n in (old.network, new.network))
            new.network.cpu()
            compared = Compared(before, after, session.split.reason, new, session.split.caution)
        yield Judged(compared)


def _taught(correction: Correction, old: Any) -> Generator[Event, None, tuple[Touched, Image, Image]]:
    """Repeat the run, and return what was touched, the image and the partial labels."""
    from napari_tiled_unet.segmentation import iter_segment

    finished: Finished | None = None
    with contextlib.closing(iter_segment(correction.image, old, options=correction.ran)) as events:
        for event in events:
            if isinstance(event, Finished):
                finished = event
            else:
                yield event
    assert finished is not None
    after = labels_of_run(correction.after, finished.axes)
    found = touched(finished.labels, after, old.spec.target.kind)
    region = correction.ran.region
    image = correction.image.part(Region.parse(region)) if region else correction.image
    return found, image, Image(found.labels, finished.axes, name=f"corrections of {image.name}")


def drop(candidate: Path) -> None:
    """Remove a new model that was not taken, with all that lies beside it."""
    for path in candidate.parent.glob(f"{candidate.stem}.*"):
        path.unlink()
