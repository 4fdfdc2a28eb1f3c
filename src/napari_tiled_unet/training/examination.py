"""The held-out part predicted and scored, as a user would segment it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from napari_tiled_unet.candidates import Costs
from napari_tiled_unet.metrics import THRESHOLDS, AveragePrecision, Matches, match_objects
from napari_tiled_unet.networks.footprint import footprint
from napari_tiled_unet.options import SegmentOptions
from napari_tiled_unet.planning import choose_tiles
from napari_tiled_unet.predict import iter_predict
from napari_tiled_unet.runtime import Runner
from napari_tiled_unet.training.grounds import Ground
from napari_tiled_unet.training.patches import parted
from napari_tiled_unet.training.survey import Box, meaning

if TYPE_CHECKING:
    import torch

    from napari_tiled_unet.networks.zoo import Network
    from napari_tiled_unet.training.plan import Plan

# A ground of more voxels is examined at some places only, each of this many patches along an axis.
_LARGE = 2**23
_PLACES, _PATCHES = 8, 2


@dataclass(frozen=True)
class Examiner:
    """Scores a network on the held-out grounds.

    Attributes
    ----------
    grounds : tuple of Ground
        What is held out; large ones are cut to their labelled places.
    plan : Plan
        Target and patch.
    sparse : bool
        Whether labels are partial: then only what is labelled is scored.
    channels : tuple of int or None
        Channels that are read.
    device, dtype
        Where and in what format it is predicted.
    budget : int
        Bytes that a tile may take.
    """

    grounds: tuple[Ground, ...]
    plan: Plan
    sparse: bool
    channels: tuple[int, ...] | None
    device: torch.device
    dtype: torch.dtype
    budget: int

    def score(self, network: Network) -> tuple[float, dict[str, float]]:
        """Return the score that models are chosen by, and all scores by name."""
        runner = Runner(network, self.plan.target.activate, self.device, self.dtype)
        answers = ((self.labels(runner, network, ground), self._truth(ground)) for ground in self.grounds)
        if self.plan.target.kind == "objects":
            return object_scores(answers)
        return class_scores(answers, self.plan.target.channels)

    def labels(self, runner: Runner, network: Network, ground: Ground) -> npt.NDArray[np.integer]:
        """Return the predicted labels of a ground."""
        costs = Costs(footprint(network, self.dtype).voxel_bytes, self.budget, device=self.device.type)
        tiling = choose_tiles(ground.shape, "auto", "auto", network, costs=costs).plan
        data = ground.image.read(self.channels, ground.box)
        tiles = iter_predict(data, ground.statistics, runner, tiling, n_maps=len(self.plan.target.channels))
        while True:
            try:
                next(tiles)
            except StopIteration as done:
                return self.plan.target.decode(done.value, SegmentOptions())

    def _truth(self, ground: Ground) -> npt.NDArray[np.int32]:
        truth = meaning(ground.labels.read(box=ground.box)[0], sparse=self.sparse)
        # As it is taught.
        return parted(truth, ground) if self.plan.target.kind == "objects" else truth


def object_scores(
    answers: Iterator[tuple[npt.NDArray[np.integer], npt.NDArray[np.int32]]],
) -> tuple[float, dict[str, float]]:
    """Return mean pooled AP and AP at single thresholds; what is not labelled is left out.

    A predicted object counts only if at least half of it is labelled.
    """
    images: list[Matches] = []
    for predicted, truth in answers:
        unlabelled = truth < 0
        if unlabelled.any():
            total = np.bincount(predicted.ravel())
            known = np.bincount(predicted[~unlabelled], minlength=total.size)
            predicted = np.where((2 * known >= total)[predicted] & ~unlabelled, predicted, 0)
        images.append(match_objects(predicted, np.maximum(truth, 0)))
    pooled = AveragePrecision(THRESHOLDS, tuple(images)).pooled
    mean = float(pooled.mean())
    scores = {"ap": mean, "ap50": float(pooled[0]), "ap75": float(pooled[5]), "ap90": float(pooled[8])}
    return mean, scores


def class_scores(
    answers: Iterator[tuple[npt.NDArray[np.integer], npt.NDArray[np.int32]]], names: Sequence[str]
) -> tuple[float, dict[str, float]]:
    """Return the mean Dice of the classes past the background, and that of each, over labelled voxels."""
    both, one = np.zeros(len(names)), np.zeros(len(names))
    for predicted, truth in answers:
        known = truth >= 0
        p, t = predicted[known], truth[known]
        both += np.bincount(t[p == t], minlength=len(names))[: len(names)]
        one += np.bincount(p, minlength=len(names))[: len(names)] + np.bincount(t, minlength=len(names))[: len(names)]
    dice = np.where(one > 0, 2 * both / np.maximum(one, 1), 1.0)
    scores = {f"dice {name}": float(d) for name, d in zip(names, dice, strict=True)}
    mean = float(dice[1:].mean())
    return mean, {"dice": mean, **scores}


def examined(grounds: Sequence[Ground], patch: Sequence[int]) -> tuple[Ground, ...]:
    """Return grounds small enough to be predicted at every validation: large ones as boxes around labels."""
    kept: list[Ground] = []
    for ground in grounds:
        if int(np.prod(ground.shape)) <= _LARGE:
            kept.append(ground)
            continue
        kept += [replace(ground, box=box, survey=ground.survey.within(box)) for box in _boxes(ground, patch)]
    return tuple(kept)


def _boxes(ground: Ground, patch: Sequence[int]) -> list[Box]:
    """Return boxes of a grid that hold labels, those with most objects first; without objects some from end to end."""
    sides = [min(n, _PATCHES * p) for n, p in zip(ground.shape, patch, strict=True)]
    counts: dict[tuple[int, ...], int] = {}
    for value in ground.survey.objects:
        for place in ground.survey.places.get(value, ()):
            cell = tuple(int(p - b.start) // s for p, b, s in zip(place, ground.box, sides, strict=True))
            counts[cell] = counts.get(cell, 0) + 1
    cells = sorted(counts, key=lambda c: (-counts[c], c))[:_PLACES]
    if not cells:
        # Nothing is to be found here, and what is found is wrong.
        grid = list(np.ndindex(*(-(-n // s) for n, s in zip(ground.shape, sides, strict=True))))
        cells = [grid[i] for i in np.linspace(0, len(grid) - 1, min(_PLACES, len(grid))).astype(int)]
    boxes = []
    for cell in cells:
        starts = [b.start + c * s for b, c, s in zip(ground.box, cell, sides, strict=True)]
        boxes.append(tuple(slice(a, min(a + s, b.stop)) for a, s, b in zip(starts, sides, ground.box, strict=True)))
    return boxes
