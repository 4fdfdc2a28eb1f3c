"""How many augmented patches per second the libraries make, each with the same kind of chain.

``python benchmarks/augmentation.py`` measures MONAI, which the package uses, and of
albumentations, batchgeneratorsv2 and kornia those that are installed. One process, one thread.

The chain: flip, rotation by any angle with scale, elastic (2D where the library has it), gamma, blur, noise;
image and labels alike, the probabilities of the preset ``standard``.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from napari_tiled_unet.training.augmentation import Augmenter

Chain = Callable[[np.ndarray, np.ndarray, int], Any]


def monai_chain(patch: tuple[int, ...]) -> Chain:
    """Return the package's own preset; its regions are larger than the patch by a margin."""
    augment = Augmenter("standard", patch)
    margin = [(m, m) for m in augment.margin]

    def run(image: np.ndarray, labels: np.ndarray, seed: int) -> Any:
        return augment(np.pad(image, [(0, 0), *margin], mode="reflect"), np.pad(labels, margin), seed)

    return run


def albumentations_chain(patch: tuple[int, ...]) -> Chain:
    """Return the chain of albumentations (2D)."""
    import albumentations as a

    if len(patch) != 2:
        raise ModuleNotFoundError("albumentations has no elastic and free rotation in 3D")
    chain = a.Compose(
        [
            a.HorizontalFlip(p=0.5),
            a.VerticalFlip(p=0.5),
            a.Affine(rotate=(-180, 180), scale=(0.7, 1.3), p=0.8),
            a.ElasticTransform(alpha=30, sigma=8, p=0.4),
            a.RandomGamma((50, 200), p=0.5),
            a.GaussianBlur(sigma_limit=(0.3, 1.5), p=0.25),
            a.GaussNoise(std_range=(0.0, 0.08), p=0.3),
        ],
        seed=0,
    )

    def run(image: np.ndarray, labels: np.ndarray, seed: int) -> Any:  # noqa: ARG001 - it has a state of its own
        return chain(image=np.clip(image[0], 0, 1), mask=labels)

    return run


def batchgenerators_chain(patch: tuple[int, ...]) -> Chain:
    """Return the chain of batchgeneratorsv2, nnU-Net's library."""
    from batchgeneratorsv2.transforms.intensity.gamma import GammaTransform
    from batchgeneratorsv2.transforms.intensity.gaussian_noise import GaussianNoiseTransform
    from batchgeneratorsv2.transforms.noise.gaussian_blur import GaussianBlurTransform
    from batchgeneratorsv2.transforms.spatial.mirroring import MirrorTransform
    from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
    from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
    from batchgeneratorsv2.transforms.utils.random import RandomTransform

    chain = ComposeTransforms(
        [
            SpatialTransform(
                patch,
                patch_center_dist_from_border=0,
                random_crop=False,
                p_elastic_deform=0.4,
                p_rotation=0.8,
                rotation=(-math.pi, math.pi),
                p_scaling=0.8,
                scaling=(0.7, 1.3),
            ),
            RandomTransform(GaussianNoiseTransform(noise_variance=(0, 0.08)), apply_probability=0.3),
            RandomTransform(GaussianBlurTransform(blur_sigma=(0.3, 1.5)), apply_probability=0.25),
            RandomTransform(
                GammaTransform((0.5, 2), 0, synchronize_channels=True, p_per_channel=1, p_retain_stats=1), 0.5
            ),
            MirrorTransform(tuple(range(len(patch)))),
        ]
    )

    def run(image: np.ndarray, labels: np.ndarray, seed: int) -> Any:  # noqa: ARG001 - it draws from numpy's state
        return chain(image=torch.from_numpy(image), segmentation=torch.from_numpy(labels)[None].to(torch.int16))

    return run


def kornia_chain(patch: tuple[int, ...]) -> Chain:
    """Return the chain of kornia (2D)."""
    import kornia.augmentation as k

    if len(patch) != 2:
        raise ModuleNotFoundError("kornia has no elastic in 3D")
    chain = k.AugmentationSequential(
        k.RandomHorizontalFlip(p=0.5),
        k.RandomVerticalFlip(p=0.5),
        k.RandomAffine(180.0, scale=(0.7, 1.3), padding_mode="reflection", p=0.8),
        k.RandomElasticTransform(p=0.4),
        k.RandomGamma((0.5, 2.0), p=0.5),
        k.RandomGaussianBlur((5, 5), (0.3, 1.5), p=0.25),
        k.RandomGaussianNoise(std=0.08, p=0.3),
        data_keys=["input", "mask"],
    )

    def run(image: np.ndarray, labels: np.ndarray, seed: int) -> Any:  # noqa: ARG001 - it draws from torch's state
        picture = torch.from_numpy(np.clip(image, 0, 1))[None]
        return chain(picture, torch.from_numpy(labels)[None, None].float())

    return run


def main() -> None:
    """Print a table of patches per second."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each measurement")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    chains = {
        "MONAI": monai_chain,
        "albumentations": albumentations_chain,
        "batchgeneratorsv2": batchgenerators_chain,
        "kornia": kornia_chain,
    }
    for patch in ((256, 256), (32, 96, 96)):
        image = rng.random((1, *patch), np.float32)
        labels = rng.integers(0, 30, patch).astype(np.int32)
        for name, build in chains.items():
            try:
                run = build(patch)
            except ModuleNotFoundError as error:
                print(f"{patch!s:>14} {name:<18} not measured: {error}", flush=True)
                continue
            run(image, labels, 0)
            # Time of this process, for the machine may have other work.
            started, count = time.process_time(), 0
            while time.process_time() - started < chosen.seconds:
                count += 1
                run(image, labels, count)
            rate = count / (time.process_time() - started)
            print(f"{patch!s:>14} {name:<18} {rate:7.1f} patches/s", flush=True)


if __name__ == "__main__":
    main()
