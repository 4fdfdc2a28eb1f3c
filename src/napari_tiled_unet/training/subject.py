"""What the labels are to be: objects or classes; and whether they can be that."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from napari_tiled_unet.errors import ImageError, OptionsError
from napari_tiled_unet.targets import Classes, Objects, Target
from napari_tiled_unet.train_options import TrainOptions
from napari_tiled_unet.training.plan import Choice

if TYPE_CHECKING:
    from napari_tiled_unet.model import ModelSpec
    from napari_tiled_unet.training.grounds import Ground

_MOST_CLASSES = 32


def choose_target(grounds: Sequence[Ground], options: TrainOptions, start: ModelSpec | None) -> tuple[Target, Choice]:
    """Return the target asked for.

    Raises
    ------
    ImageError, OptionsError
        If the labels cannot be that, or the start model predicts something else.
    """
    kind = options.target
    if start is not None and start.target.kind != kind:
        raise OptionsError(
            f"the start model {start.name!r} predicts {start.target.kind}, the labels are to be {kind}; "
            f"take target={start.target.kind!r}, or another start model"
        )
    if start is not None and isinstance(start.target, Classes) and not start.target.background:
        raise OptionsError(
            f"the start model {start.name!r} has no background among its classes {', '.join(start.target.classes)}, "
            "training counts classes from a background, 0; take a start model with one, or fresh weights"
        )
    values = sorted({v for g in grounds for v in g.survey.voxels if v >= 0})
    if kind == "objects":
        _check_objects(grounds, values)
        sizes = [g.survey.voxels[v] for g in grounds for v in g.survey.objects]
        least = int(np.percentile(sizes, 5) / 4)
        given = start.target if start is not None and isinstance(start.target, Objects) else Objects()
        target: Target = given.model_copy(update={"min_size": least})
        return target, Choice(
            name="target",
            value=f"objects of at least {least} voxels",
            reason=f"as asked for; {len(sizes)} objects are labelled, and 95 % are four times as large",
        )
    named = start.target.classes if start is not None and isinstance(start.target, Classes) else options.classes
    count = len(named) or values[-1] + 1
    if len(values) < 2:
        raise ImageError(
            f"the labels hold one class only, {values[0]}; at least 2 are needed, background being one: label another"
        )
    if values[-1] >= count:
        raise ImageError(
            f"label values go up to class {values[-1]}, there are {count} classes ({', '.join(named)}), "
            "counted from 0; name as many classes as there are, or correct the labels"
        )
    if count > _MOST_CLASSES or (not named and len(values) < count):
        raise ImageError(
            f"the labels hold the class numbers {_shown(values)}; number classes 0, 1, 2 ... without gaps, "
            "or take target='objects' if every object has a number of its own"
        )
    names = named or ("background", *(f"class {i}" for i in range(1, count)))
    return Classes(classes=names), Choice(name="target", value=f"classes {', '.join(names)}", reason="as asked for")


def _shown(values: Sequence[int]) -> str:
    return ", ".join(map(str, values[:6])) + (" ..." if len(values) > 6 else "")


def _check_objects(grounds: Sequence[Ground], values: Sequence[int]) -> None:
    found = [v for v in values if v > 0]
    if not found:
        raise ImageError(
            "no labels: there is background only, not one object; label some objects from 1 (from 2 if sparse)"
        )
    if len(found) == 1:
        # In any of the images: one of them may show a single object.
        parts = max(_count_parts(ground, found[0]) for ground in grounds if ground.survey.objects)
        if parts > 1:
            raise ImageError(
                f"the labels hold one number, {found[0]}, in {parts} separate places: this is a mask; number the "
                "objects (for example with skimage.measure.label), or take target='classes'"
            )


def _count_parts(ground: Ground, value: int) -> int:
    """Return in how many parts a label falls, as far as its first block of places shows."""
    import cc3d

    low, high = ground.survey.low[value], ground.survey.high[value]
    if math.prod((high - low + 1).tolist()) > 2**26:
        return 1
    box = tuple(slice(int(a), int(b) + 1) for a, b in zip(low, high, strict=True))
    labels = ground.labels.read(box=box)[0]
    mask = labels == labels.max()
    return int(cc3d.connected_components(mask, connectivity=26 if mask.ndim == 3 else 8, return_N=True)[1])
