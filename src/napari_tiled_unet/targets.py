"""Targets: what a network is taught to predict, and how a prediction becomes labels.

A target marries training and use: its channel count, the encoding of labels, the loss
and the decoding live in one class, so they cannot drift apart. A target is data (it is
stored in the model file); torch is imported only where tensors are touched.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from napari_tiled_unet import labelling
from napari_tiled_unet.centre import centre_map
from napari_tiled_unet.metrics import consecutive

if TYPE_CHECKING:
    from torch import Tensor

    from napari_tiled_unet.options import SegmentOptions
    from napari_tiled_unet.train_options import Loss

Labels = npt.NDArray[Any]

# Labels that are none: what nobody labelled, and what lies past the image.
UNLABELLED, OUTSIDE = -1, -2
# Voxels of background around an object that weigh as much as it does.
_RIM = 6


@dataclass(frozen=True)
class Encoded:
    """A label image as a training target.

    Attributes
    ----------
    maps : numpy.ndarray
        ``(k, [z,] y, x)`` float32, what the network should give after ``activate``.
    weight : numpy.ndarray
        ``(1, [z,] y, x)`` float32, how much each voxel counts in the loss; 0 is ignored.
    """

    maps: npt.NDArray[np.float32]
    weight: npt.NDArray[np.float32]


class Classes(BaseModel):
    """Every voxel belongs to one class; softmax, cross-entropy and Dice, argmax.

    Attributes
    ----------
    classes : tuple of str
        Names, in the order of label values.
    background : bool
        Whether class 0 is background: label 0, not counted as an object. Without a
        background, label values start at 1 for the first class.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["classes"] = "classes"
    classes: tuple[str, ...] = Field(min_length=2)
    background: bool = True

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the maps."""
        return self.classes

    def encode(self, labels: Labels) -> Encoded:
        """Return one-hot maps; label values outside the classes, such as -1 and -2, get weight 0."""
        values = labels.astype(np.int64) - (0 if self.background else 1)
        index = np.arange(len(self.classes)).reshape(-1, *(1,) * labels.ndim)
        maps = (values[None] == index).astype(np.float32)
        return Encoded(maps, maps.sum(axis=0, keepdims=True))

    def loss(self, logits: Tensor, maps: Tensor, weight: Tensor, kind: Loss = "dice") -> Tensor:
        """Weighted cross-entropy plus soft Dice averaged over the classes.

        Parameters
        ----------
        logits, maps : torch.Tensor
            ``(n, k, *spatial)``.
        weight : torch.Tensor
            ``(n, 1, *spatial)``.
        kind : {"dice", "focal", "tversky"}
            A row of the table in :mod:`napari_tiled_unet.losses`.
        """
        from napari_tiled_unet.losses import overlap_loss, voxel_loss

        log_probability = logits.log_softmax(dim=1)
        entropy = -(maps * log_probability).sum(dim=1, keepdim=True)
        return voxel_loss(entropy, weight, kind) + overlap_loss(log_probability.exp(), maps, weight, kind)

    def activate(self, logits: Tensor) -> Tensor:
        """Return class probabilities."""
        return logits.softmax(dim=1)

    def decode(self, maps: npt.NDArray[np.float32], options: SegmentOptions) -> Labels:  # noqa: ARG002 - as the others
        """Return the most probable class of every voxel, on torch's threads."""
        import torch

        return labelling.classes_from_maps(
            maps, background=0 if self.background else None, threads=torch.get_num_threads()
        )


class Objects(BaseModel):
    """Every voxel is background or part of one object; foreground and centre map.

    The centre map of an object voxel is ``d_border / (d_border + d_centre)``: 1 at the
    centre, falling to 0 at the border. It has one summit per object however elongated,
    so that a watershed from the summits takes touching objects apart.

    Attributes
    ----------
    foreground_threshold, seed_threshold, seed_prominence : float
        Probability above which a voxel is object; least centre value of an object's summit;
        how far the centre map must fall between two objects.
    min_size : int
        Smallest object kept, in voxels.
    fill_holes : bool
        Whether holes inside an object become object.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["objects"] = "objects"
    foreground_threshold: float = Field(default=0.5, gt=0, lt=1)
    seed_threshold: float = Field(default=0.3, gt=0, lt=1)
    seed_prominence: float = Field(default=0.1, gt=0, lt=1)
    min_size: int = Field(default=0, ge=0)
    fill_holes: bool = True

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the maps."""
        return ("foreground", "centre")

    def encode(self, labels: Labels, spacing: tuple[float, ...] | None = None) -> Encoded:
        """Return foreground and centre map; small objects weigh more per voxel.

        The weight of an object's voxel is ``sqrt(reference / size)`` within 1 to 4, the
        reference being a disc (ball) of diameter 30 voxels, so that missing a small
        object costs something: scores count objects, not voxels. The background around an
        object weighs as much as the object, or its border would be pushed outwards. Labels -1,
        not labelled, and -2, past the image, get weight 0; past the image there is no border of
        the objects that it cuts.
        """
        from skimage.segmentation import expand_labels

        foreground = (labels > 0).astype(np.float32)
        # Numbers may be large and far apart: tables are of the objects that are there.
        flat, sizes = consecutive(np.maximum(labels, 0))
        numbers = flat.reshape(labels.shape)
        centre = centre_map(numbers, spacing=spacing, outside=labels == OUTSIDE)
        radius = 15.0
        reference = (np.pi * radius**2) if labels.ndim == 2 else (4 / 3 * np.pi * radius**3)
        with np.errstate(divide="ignore"):
            per_object = np.clip(np.sqrt(reference / sizes), 1.0, 4.0)
        per_object[0] = 1.0
        weight = np.where(labels < 0, 0, per_object[expand_labels(numbers, _RIM)]).astype(np.float32)
        return Encoded(np.stack([foreground, centre]), weight[None])

    def loss(self, logits: Tensor, maps: Tensor, weight: Tensor, kind: Loss = "dice") -> Tensor:
        """Cross-entropy and soft Dice (or another kind) of the foreground, cross-entropy of the centre map."""
        from torch.nn.functional import binary_cross_entropy_with_logits as cross_entropy

        from napari_tiled_unet.losses import overlap_loss, voxel_loss, weighted_mean

        foreground = voxel_loss(cross_entropy(logits[:, :1], maps[:, :1], reduction="none"), weight, kind)
        overlap = overlap_loss(logits[:, :1].sigmoid(), maps[:, :1], weight, kind)
        centre = weighted_mean(cross_entropy(logits[:, 1:], maps[:, 1:], reduction="none"), weight)
        return foreground + overlap + 2.0 * centre

    def activate(self, logits: Tensor) -> Tensor:
        """Return the foreground probability and the centre map, both within 0 to 1."""
        return logits.sigmoid()

    def decode(self, maps: npt.NDArray[np.float32], options: SegmentOptions) -> Labels:
        """Return objects numbered from 1, by watershed from the summits of the centre map, on torch's threads."""
        import torch

        def chosen(name: str) -> Any:
            value = getattr(options, name)
            return getattr(self, name) if value is None else value

        return labelling.objects_from_maps(
            maps,
            foreground_threshold=chosen("foreground_threshold"),
            seed_threshold=chosen("seed_threshold"),
            seed_prominence=chosen("seed_prominence"),
            min_size=chosen("min_size"),
            fill_holes=chosen("fill_holes"),
            threads=torch.get_num_threads(),
        )


Target = Annotated[Classes | Objects, Field(discriminator="kind")]
"""Any target, as it stands in a model file."""
