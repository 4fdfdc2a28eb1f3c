"""A model improved by what a human corrected: run again, trained on what was touched, compared."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_tiled_unet.errors import ImageError
from napari_tiled_unet.events import Event, Finished, Notice
from napari_tiled_unet.image import Image
from napari_tiled_unet.memory import free_memory
from napari_tiled_unet.options import SegmentOptions
from napari_tiled_unet.region import Region
from napari_tiled_unet.shortage import zeros_or_disk
from napari_tiled_unet.train_options import TrainOptions
from napari_tiled_unet.viewer.correction import (
    Compared,
    Touched,
    compare_models,
    for_another_image,
    require_comparable,
    require_origin,
    touched,
)
from napari_tiled_unet.viewer.glimpse import Sight, with_glimpses
from napari_tiled_unet.viewer.live import nearest_voxels
from napari_tiled_unet.viewer.worker import one_core_left

if TYPE_CHECKING:
    from pathlib import Path

    from napari_tiled_unet.model import Model
    from napari_tiled_unet.viewer.teaching import Lesson

# The part of the memory that rescaled frames may take: the training needs the rest.
_PART = 0.25
# What a training writes: the model, and what lies beside it.
_SUFFIXES = (".safetensors", ".checkpoint", ".curves.csv", ".curves.png")


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
    held_out : tuple of (Image, Image)
        Images with right labels to compare on; empty for a part of the corrections.
    asked : SegmentOptions or None
        How it was asked to be segmented, which goes for other images too; None where it is not known.
    origin : mapping or None
        By what model and image of the run are known again; None of runs of earlier versions.
    """

    image: Image
    after: Image
    ran: SegmentOptions
    held_out: tuple[tuple[Image, Image], ...] = ()
    asked: SegmentOptions | None = None
    origin: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Judged(Event):
    """Old and new model are compared."""

    compared: Compared


def improvement_options(
    ran: SegmentOptions, target: str, *, steps: int, freeze: bool, device: str = "auto", memory: float | None = None
) -> TrainOptions:
    """Return how a model is trained on what was corrected."""
    return TrainOptions.of(
        start=ran.model,
        sparse=True,
        target=target,
        channel=ran.channel,
        freeze_encoder=freeze,
        device=device,
        memory=memory,
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

    The run is repeated to know what the model had said, which no snapshot need keep. Unless it
    comes to its end no file is left of the new model.

    Parameters
    ----------
    correction : Correction
        What was corrected.
    lesson : Lesson
        How it is taught, with the file in which the new model waits; its images are left out.
    sight : Sight
        What is looked at; nothing is seen of it where the run rescaled, for the layer has other voxels.

    Raises
    ------
    ModelError, ImageError
        If model or image are not those of the run any more, nothing was corrected, or the models cannot be compared.
    """
    judged = False
    try:
        yield from _improve(correction, lesson, sight)
        judged = True
    finally:
        if not judged and lesson.out is not None:
            drop(lesson.out)


def _improve(correction: Correction, lesson: Lesson, sight: Sight) -> Generator[Event, None, None]:
    from napari_tiled_unet.model_files import load_model
    from napari_tiled_unet.training.happenings import Trained
    from napari_tiled_unet.training.loop import run_session
    from napari_tiled_unet.training.preparation import prepare

    with one_core_left():
        old = load_model(correction.ran.model)
        if correction.origin is not None:
            require_origin(correction.origin, old, correction.image, correction.ran.region)
        elsewhere = for_another_image(correction.asked or correction.ran)
        held_out = [(of, labels_of_run(truth, of.label_axes(old.spec.axes))) for of, truth in correction.held_out]
        require_comparable(old, held_out, elsewhere)
        found, image, labels = yield from _taught(correction, old)
        yield Notice(f"{found.changed} voxels were corrected, {found.objects} objects are taught")
        options, rescaled = lesson.options, at_network_scale(image, labels, old, correction.ran)
        if rescaled is not None:
            # Only the channel that the network sees was rescaled.
            (image, labels), options, sight = rescaled, options.changed(channel=None), Sight()
        session = prepare([image], [labels], options, out=lesson.out, resume=False, overwrite=True)
        new: Any = None
        for event in with_glimpses(run_session(session), session, sight):
            if isinstance(event, Trained):
                new = _used_as(old, event.model)
            yield event
        if held_out:
            compared = compare_models(old, new, held_out, elsewhere)
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


def at_network_scale(image: Image, labels: Image, model: Model, ran: SegmentOptions) -> tuple[Image, Image] | None:
    """Return what is taught with the voxels that a run gave its network; None where they were the image's.

    Parameters
    ----------
    image, labels : Image
        The part that was segmented, and its partial labels.
    model : Model
        What ran.
    ran : SegmentOptions
        How.

    Returns
    -------
    image, labels : Image
        The frames in which something is labelled, one after the other along ``t``: float32 and normalised, the
        channels that the network sees; labels by the nearest voxel.
    """
    from napari_tiled_unet.matching import Grid, match_channels, match_image, match_scale
    from napari_tiled_unet.normalise import measure

    spec = model.spec
    source, _ = match_image(image, model, ran)
    scale, _ = match_scale(source, model, ran)
    grid = Grid.of(source.frame_shape(spec.axes), scale)
    if not grid.differs:
        return None
    channels = match_channels(source, model, ran)
    frames = zip(source.frames(spec.axes), labels.frames(spec.axes), strict=True)
    taught = [(frame, numbers) for frame, truth in frames if (numbers := truth.read()[0]).any()]
    shape = (len(taught), len(spec.channels), *grid.network)
    pixels = zeros_or_disk(shape, np.float32, _PART * free_memory())
    for place, (frame, _) in zip(pixels, taught, strict=True):
        data = frame.read(channels)
        # Normalised first, as in a run: what is not finite would spread.
        place[...] = grid.to_network(measure(data, spec.normalisation)[0].apply(data))
    nearest = np.ix_(*(nearest_voxels(n, of) for n, of in zip(grid.network, grid.image, strict=True)))
    truths = np.stack([numbers[nearest] for _, numbers in taught])
    rescaled = Image(pixels, f"tc{spec.axes}", spacing=spec.spacing, units=spec.units, name=image.name)
    return rescaled, Image(truths, f"t{spec.axes}", name=labels.name)


def _used_as(old: Model, new: Model) -> Model:
    """Return the new model at the scale of the old one, at which it was taught and in whose place it will be."""
    spec = new.spec.model_copy(update={name: getattr(old.spec, name) for name in ("spacing", "units", "object_size")})
    return type(new)(spec, new.network)


def drop(candidate: Path) -> None:
    """Remove a new model that was not taken, with what its training wrote beside it; as far as that can be."""
    for suffix in _SUFFIXES:
        # Another program may hold it; the next improvement of the model writes over it.
        with contextlib.suppress(OSError):
            candidate.with_suffix(suffix).unlink(missing_ok=True)
