"""The patch and the batch of a step: as large as helps, as the memory holds."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from napari_tiled_unet.errors import MemoryBudgetError, OptionsError
from napari_tiled_unet.networks.spec import NetworkSpec
from napari_tiled_unet.train_options import TrainOptions
from napari_tiled_unet.training.plan import Choice

_GIB = 2**30
# What a step takes of what its backward pass needs again: gradients, copies of the convolution library.
# Measured on four architectures in both number formats, 1.3 to 2.1, the latter on small patches.
_PER_KEPT = 1.8


@dataclass(frozen=True)
class Scale:
    """Sizes that the choices depend on, per spatial axis.

    Attributes
    ----------
    shape : tuple of int
        Median shape of a frame, in voxels.
    spacing : tuple of float or None
        Median voxel size in micrometres, if every image says it.
    relative : tuple of float
        Voxel size relative to the finest.
    extents, largest : tuple of float or None
        Sides of the objects in voxels: the median, and what 95 % are below.
    """

    shape: tuple[int, ...]
    spacing: tuple[float, ...] | None
    relative: tuple[float, ...]
    extents: tuple[float, ...] | None
    largest: tuple[float, ...] | None


def choose_patch(
    scale: Scale, options: TrainOptions, stride: tuple[int, ...], device: str
) -> tuple[tuple[int, ...], Choice]:
    """Return the patch size asked for, or one in which objects are seen whole.

    Raises
    ------
    OptionsError
        If a patch is asked for in other dimensions.
    """
    ndim = len(scale.shape)
    if isinstance(options.patch, tuple):
        if len(options.patch) not in (1, ndim):
            raise OptionsError(f"patch={options.patch} has {len(options.patch)} numbers, give 1 or {ndim}")
        patch = options.patch * ndim if len(options.patch) == 1 else options.patch
        rounded = tuple(math.ceil(p / s) * s for p, s in zip(patch, stride, strict=True))
        reason = "as asked for" + ("" if rounded == patch else f", rounded up to the network's stride {stride}")
        return rounded, Choice(name="patch", value="x".join(map(str, rounded)), reason=reason)
    voxels = 2**20 if device.startswith("cuda") else 2**18 if ndim == 3 else 2**16
    reason = f"about {voxels} voxels on {device}"
    if scale.largest is not None:
        wanted = math.prod(2 * n for n in scale.largest)
        if wanted > voxels:
            voxels = min(math.ceil(wanted), 2**22 if device.startswith("cuda") else 2**20)
            reason = "twice the largest objects (95 %) along each axis, as far as it stays affordable"
    # A cube in space; what an image is too short for goes to its other axes.
    sides = [0.0] * ndim
    free = list(range(ndim))
    left = float(voxels)
    while free:
        unit = (left * math.prod(scale.relative[a] for a in free)) ** (1 / len(free))
        full = [a for a in free if unit / scale.relative[a] >= scale.shape[a]]
        for a in full or free:
            sides[a] = float(scale.shape[a] if full else unit / scale.relative[a])
        left /= math.prod(scale.shape[a] for a in full)
        free = [a for a in free if a not in full] if full else []
    patch = tuple(max(s, math.ceil(side / s - 0.5) * s) for side, s in zip(sides, stride, strict=True))
    return patch, Choice(
        name="patch", value="x".join(map(str, patch)), reason=f"{reason}; a multiple of the stride {stride}"
    )


def check_objects_fit(scale: Scale, patch: tuple[int, ...], options: TrainOptions, cautions: list[str]) -> None:
    """Add a caution if most objects are larger than the patch.

    Raises
    ------
    OptionsError
        If that patch was asked for.
    """
    if scale.extents is None:
        return
    if any(e > p for e, p in zip(scale.extents, patch, strict=True)):
        sizes = tuple(round(e) for e in scale.extents)
        message = (
            f"objects are larger than the patch: half of them have more than {sizes} voxels, a patch has {patch}; "
            "take a larger patch, or scale the images down"
        )
        if isinstance(options.patch, tuple):
            raise OptionsError(message)
        cautions.append(message)


def training_bytes_per_voxel(network: NetworkSpec, itemsize: int) -> float:
    """Estimate the bytes that a step takes per voxel of a patch.

    Parameters
    ----------
    network : NetworkSpec
        It is built without numbers, and what its backward pass needs again is counted.
    itemsize : int
        Bytes of a number of its features.
    """
    import torch

    from napari_tiled_unet.networks.footprint import kept_values_per_voxel
    from napari_tiled_unet.networks.zoo import build_network

    with torch.device("meta"):
        built = build_network(network)
    return _PER_KEPT * kept_values_per_voxel(built) * itemsize + 4.0 * 6 * network.out_channels


def choose_batch(
    network: NetworkSpec, patch: tuple[int, ...], options: TrainOptions, device: str, precision: str, budget: int
) -> tuple[int, Choice]:
    """Return the patches per step asked for, or as many as help and fit.

    Raises
    ------
    MemoryBudgetError
        If they do not fit the budget, in bytes.
    """
    per_patch = math.prod(patch) * training_bytes_per_voxel(network, 4 if precision == "float32" else 2)
    possible = int(budget // per_patch)
    need = f"a patch needs about {per_patch / _GIB:.2f} GiB, {budget / _GIB:.1f} GiB may be used"
    if options.batch != "auto":
        if options.batch > possible:
            raise MemoryBudgetError(f"batch={options.batch} does not fit: {need}; take a smaller batch or patch")
        return options.batch, Choice(name="batch", value=str(options.batch), reason="as asked for")
    if possible < 1:
        raise MemoryBudgetError(f"not even one patch of {patch} voxels fits: {need}; take a smaller patch or width")
    wanted = 2**22 if device.startswith("cuda") else 2**19
    batch = int(np.clip(round(wanted / math.prod(patch)), 2, 16))
    if batch > possible:
        return possible, Choice(name="batch", value=str(possible), reason=need)
    return batch, Choice(
        name="batch", value=str(batch), reason=f"about {wanted} voxels per step on {device}, 2 to 16 patches; {need}"
    )
