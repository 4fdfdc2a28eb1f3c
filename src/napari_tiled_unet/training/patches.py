"""The patches of a training: which, from where, and how they are varied.

A patch depends on the seed and its number alone, not on what was drawn before; so that a
training that goes on from a checkpoint sees the patches that it would have seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from napari_tiled_unet.targets import OUTSIDE
from napari_tiled_unet.training.augmentation import Augmenter
from napari_tiled_unet.training.grounds import Ground
from napari_tiled_unet.training.survey import meaning

if TYPE_CHECKING:
    import torch

    from napari_tiled_unet.targets import Encoded, Target

# Share of the patches that lie around an object, or a class chosen by its frequency; the rest lie anywhere.
AROUND_LABELS = 0.75


@dataclass(frozen=True)
class Patch:
    """A piece of an image with its labels.

    Attributes
    ----------
    image : numpy.ndarray
        ``(c, [z,] y, x)`` float32, normalised.
    labels : numpy.ndarray
        ``([z,] y, x)`` int32: -2 is past the image, -1 not labelled, 0 background, objects or classes from 1.
    """

    image: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int32]


class Patches:
    """Augmented, encoded patches, by number; a map-style dataset of torch.

    Parameters
    ----------
    grounds : sequence of Ground
        Where they may lie.
    target : Classes or Objects
        Encodes the labels.
    augment : Augmenter
        Varies them, and says their shape.
    count, seed : int
        How many there are; what they depend on.
    sparse : bool
        Whether labels are partial: then every patch lies around labels.
    channels : sequence of int or None
        Channels that are read.
    spacing : tuple of float or None
        Voxel size, in which distances inside an object are measured.
    """

    def __init__(
        self,
        grounds: Sequence[Ground],
        target: Target,
        augment: Augmenter,
        *,
        count: int,
        seed: int,
        sparse: bool = False,
        channels: Sequence[int] | None = None,
        spacing: tuple[float, ...] | None = None,
    ) -> None:
        self.spacing = spacing
        self.grounds, self.target, self.augment = list(grounds), target, augment
        self.count, self.seed, self.sparse, self.channels = count, seed, sparse, channels
        self.by_class = target.kind == "classes"
        self.probability = ground_probabilities(grounds, by_class=self.by_class)
        self.classes = class_probabilities(grounds) if self.by_class else {}

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return image, maps and weight of a patch."""
        import torch

        patch = self.patch(index)
        encoded = encode(self.target, patch.labels, self.spacing)
        return torch.from_numpy(patch.image), torch.from_numpy(encoded.maps), torch.from_numpy(encoded.weight)

    def patch(self, index: int) -> Patch:
        """Return a patch before it is encoded."""
        rng = np.random.default_rng((self.seed, index))
        ground = self.grounds[int(rng.choice(len(self.grounds), p=self.probability))]
        start = self._start(ground, rng)
        region = read_region(ground, start, self.augment.patch, self.augment.margin, self.sparse, self.channels)
        if not self.by_class:
            region = Patch(region.image, parted(region.labels, ground))
        image, labels = self.augment(region.image, region.labels, int(rng.integers(2**31)))
        return Patch(image, labels)

    def _start(self, ground: Ground, rng: np.random.Generator) -> tuple[int, ...]:
        """Choose where a patch begins, in the frame."""
        place = self._place(ground, rng)
        start = []
        for axis, (patch, box) in enumerate(zip(self.augment.patch, ground.box, strict=True)):
            room = box.stop - patch
            if place is None:
                first = int(rng.integers(box.start, max(box.start, room) + 1))
            else:
                first = int(place[axis] - patch // 2 + rng.integers(-(patch * 2 // 5), patch * 2 // 5 + 1))
            # A patch larger than the ground lies in its middle.
            start.append(int(np.clip(first, box.start, room)) if room >= box.start else (box.start + room) // 2)
        return tuple(start)

    def _place(self, ground: Ground, rng: np.random.Generator) -> npt.NDArray[np.int64] | None:
        """Choose a labelled voxel, or None for anywhere."""
        around = rng.random() < AROUND_LABELS
        if self.by_class:
            values = [v for v in ground.survey.places if v in self.classes]
            weights = np.array([self.classes[v] for v in values])
        else:
            values = ground.survey.objects
            if self.sparse and 0 in ground.survey.places and (not around or not values):
                values = [0]
            weights = np.ones(len(values))
        if not values or not (around or self.sparse):
            return None
        value = values[int(rng.choice(len(values), p=weights / weights.sum()))]
        places = ground.survey.places[value]
        chosen: npt.NDArray[np.int64] = places[int(rng.integers(len(places)))]
        return chosen


def encode(target: Target, labels: npt.NDArray[np.int32], spacing: tuple[float, ...] | None) -> Encoded:
    """Return labels as the target wants them, objects in their true proportions."""
    return target.encode(labels, spacing) if target.kind == "objects" else target.encode(labels)


def ground_probabilities(grounds: Sequence[Ground], *, by_class: bool) -> npt.NDArray[np.float64]:
    """Return how often each ground is drawn: by the root of its objects, or of its labelled voxels.

    Scores pool objects, so crowded images count for more, but not in proportion.
    """
    if by_class:
        amount = np.array([max(1, g.survey.labelled) for g in grounds], float)
    else:
        amount = np.array([np.clip(len(g.survey.objects), 6, 150) for g in grounds], float)
    root: npt.NDArray[np.float64] = np.sqrt(amount)
    shares: npt.NDArray[np.float64] = root / root.sum()
    return shares


def class_probabilities(grounds: Sequence[Ground]) -> dict[int, float]:
    """Return how often patches are drawn around each class: by the root of its frequency."""
    total: dict[int, int] = {}
    for ground in grounds:
        for value, n in ground.survey.voxels.items():
            if value >= 0:
                total[value] = total.get(value, 0) + n
    root = {value: float(np.sqrt(n)) for value, n in sorted(total.items())}
    return {value: r / sum(root.values()) for value, r in root.items()}


def read_region(
    ground: Ground,
    start: Sequence[int],
    patch: Sequence[int],
    margin: Sequence[int],
    sparse: bool,
    channels: Sequence[int] | None = None,
) -> Patch:
    """Read a patch with its margin; past the ground the image is reflected and the labels say so."""
    wanted = [(s - m, s + p + m) for s, p, m in zip(start, patch, margin, strict=True)]
    box = tuple(slice(max(low, b.start), min(high, b.stop)) for (low, high), b in zip(wanted, ground.box, strict=True))
    image = ground.statistics.apply(ground.image.read(channels, box))
    labels = meaning(ground.labels.read(box=box)[0], sparse=sparse)
    pad = [(b.start - low, high - b.stop) for (low, high), b in zip(wanted, box, strict=True)]
    if any(n for pair in pad for n in pair):
        image = np.pad(image, [(0, 0), *pad], mode="reflect" if min(labels.shape) > 1 else "edge")
        labels = np.pad(labels, pad, constant_values=OUTSIDE)
    return Patch(image, labels)


def parted(labels: npt.NDArray[np.int32], ground: Ground) -> npt.NDArray[np.int32]:
    """Return labels of a slice of a stack with a number per piece: it may cut a bent object into several.

    Those of other grounds are returned as they are, and what is not labelled stays so.
    """
    if "z" in ground.image.spatial or "z" not in ground.image.image.axes:
        return labels
    import cc3d

    parts = cc3d.connected_components(np.maximum(labels, 0), connectivity=4, out_dtype=np.uint32)
    return np.where(labels < 0, labels, parts.astype(np.int32))
