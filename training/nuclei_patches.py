"""Patches of the DSB 2018 set, varied as they are drawn, for the bundled model ``nuclei``."""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from pathlib import Path

import cc3d
import numpy as np
import numpy.typing as npt
import tifffile
import torch
from monai.transforms import (
    Compose,
    Rand2DElasticd,
    RandAdjustContrastd,
    RandBiasFieldd,
    RandFlipd,
    RandGaussianNoised,
    RandGaussianSmoothd,
    RandRotate90d,
    RandScaleIntensityd,
    RandShiftIntensityd,
)
from torch.utils.data import Dataset

from napari_tiled_unet.normalise import Normalisation, measure
from napari_tiled_unet.targets import Objects

PATCH = 256
# Wide enough that a rotated or shrunken patch still finds real image around it.
REGION = 384


@dataclass(frozen=True)
class Sample:
    """One normalised image ``(1, y, x)`` float32 and its labels ``(y, x)``."""

    image: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int32]


def read_split(folder: Path, split: str, kinds: tuple[str, ...]) -> list[Sample]:
    """Read and normalise every image of a split whose kind starts with one of ``kinds``."""
    normalisation = Normalisation()
    samples = []
    with (folder / "index.csv").open() as index:
        for row in csv.DictReader(index):
            if row["split"] != split or not row["kind"].startswith(kinds):
                continue
            frame = tifffile.imread(folder / "images" / f"{row['id']}.tif")[None]
            statistics, _ = measure(frame, normalisation)
            labels = tifffile.imread(folder / "labels" / f"{row['id']}.tif").astype(np.int32)
            samples.append(Sample(statistics.apply(frame), labels))
    return samples


def augmentation() -> Compose:
    """Return flips, rotations, scale, elastic, gamma, illumination, blur, noise and intensity (MONAI)."""
    both, image = ("image", "labels"), ("image",)
    return Compose(
        [
            RandFlipd(both, prob=0.5, spatial_axis=0),
            RandRotate90d(both, prob=0.75),
            Rand2DElasticd(
                both,
                spacing=(32, 32),
                magnitude_range=(0.0, 2.5),
                prob=0.8,
                rotate_range=(math.pi,),
                shear_range=(0.15, 0.15),
                scale_range=(-0.35, 0.35),
                spatial_size=(PATCH, PATCH),
                mode=("bilinear", "nearest"),
                padding_mode="reflection",
            ),
            RandAdjustContrastd(image, prob=0.5, gamma=(0.5, 2.0)),
            RandGaussianSmoothd(image, prob=0.25, sigma_x=(0.3, 1.5), sigma_y=(0.3, 1.5)),
            RandBiasFieldd(image, degree=2, coeff_range=(-0.4, 0.4), prob=0.25),
            RandGaussianNoised(image, prob=0.4, std=0.15),
            RandScaleIntensityd(image, prob=0.5, factors=0.4),
            RandShiftIntensityd(image, prob=0.3, offsets=0.1),
        ]
    )


def plain_augmentation() -> Compose:
    """Return flips, quarter turns and mild intensities: no voxel is interpolated, so borders are those of the truth."""
    both, image = ("image", "labels"), ("image",)
    return Compose(
        [
            RandFlipd(both, prob=0.5, spatial_axis=0),
            RandRotate90d(both, prob=0.75),
            RandAdjustContrastd(image, prob=0.3, gamma=(0.7, 1.4)),
            RandGaussianNoised(image, prob=0.2, std=0.05),
            RandScaleIntensityd(image, prob=0.3, factors=0.2),
        ]
    )


class Patches(Dataset[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]):
    """Augmented patches; the patch of an index depends on the seed and the index alone.

    A share ``plain`` of them is not interpolated. An image is drawn in proportion to its number of objects to the
    power of ``crowd``: scores pool objects, so crowded images count for more.
    """

    def __init__(
        self, samples: list[Sample], target: Objects, count: int, seed: int, plain: float, crowd: float
    ) -> None:
        self.samples, self.target, self.count, self.seed, self.plain = samples, target, count, seed, plain
        self.full, self.mild = augmentation(), plain_augmentation()
        # The bound keeps one image of a thousand nuclei from being a tenth of all patches.
        objects = np.array([np.clip(s.labels.max(), 6, 150) for s in samples], dtype=float) ** crowd
        self.probability = objects / objects.sum()

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        rng = np.random.default_rng((self.seed, index))
        sample = self.samples[int(rng.choice(len(self.samples), p=self.probability))]
        augment, region = (self.mild, PATCH) if rng.random() < self.plain else (self.full, REGION)
        box = self._box(sample, rng, region)
        augment.set_random_state(seed=int(rng.integers(2**31)))
        patch = augment(
            {"image": sample.image[(slice(None), *box)], "labels": sample.labels[box][None].astype(np.float32)}
        )
        # Past the image it is mirrored: a nucleus and its mirror image are one only where they touch.
        labels = cc3d.connected_components(np.asarray(patch["labels"])[0].astype(np.uint32), connectivity=8)
        encoded = self.target.encode(labels.astype(np.int64))
        image = torch.as_tensor(np.asarray(patch["image"], dtype=np.float32))
        return image, torch.from_numpy(encoded.maps), torch.from_numpy(encoded.weight)

    def _box(self, sample: Sample, rng: np.random.Generator, side: int) -> tuple[slice, slice]:
        """Choose a region, mostly one around an object."""
        shape = sample.labels.shape
        centre = [int(rng.integers(n)) for n in shape]
        if rng.random() < 0.7 and sample.labels.any():
            voxels = np.flatnonzero(sample.labels == rng.choice(np.unique(sample.labels)[1:]))
            jitter = rng.integers(-PATCH // 2, PATCH // 2, size=2)
            place = np.unravel_index(int(rng.choice(voxels)), shape)
            centre = [int(p + j) for p, j in zip(place, jitter, strict=True)]
        starts = [int(np.clip(c - side // 2, 0, max(0, n - side))) for c, n in zip(centre, shape, strict=True)]
        return slice(starts[0], starts[0] + side), slice(starts[1], starts[1] + side)
