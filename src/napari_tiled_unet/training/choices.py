"""What is chosen from the data: dimensions, network, patch, batch; each with its reason.

The idea is nnU-Net's (Isensee et al. 2021, doi:10.1038/s41592-020-01008-z), the rules are fewer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_tiled_unet.errors import ImageError
from napari_tiled_unet.networks.spec import NetworkSpec
from napari_tiled_unet.normalise import Normalisation
from napari_tiled_unet.targets import Target
from napari_tiled_unet.train_options import TrainOptions
from napari_tiled_unet.training.batches import Scale, check_objects_fit, choose_batch, choose_patch
from napari_tiled_unet.training.pairs import Pair
from napari_tiled_unet.training.plan import Choice, Plan
from napari_tiled_unet.training.subject import choose_target

if TYPE_CHECKING:
    from napari_tiled_unet.model import ModelSpec
    from napari_tiled_unet.training.grounds import Ground

# Axes whose voxels are this much longer are not convolved or halved until the others have caught up.
_THICK = 2.0
# Fewer slices than this teach a 3D network nothing that slices do not.
_FEW_SLICES = 8


def choose_dimensions(pairs: Sequence[Pair], options: TrainOptions, start: ModelSpec | None) -> tuple[str, Choice]:
    """Return the axes of the network.

    Raises
    ------
    ImageError
        If a 3D network is asked for and there is no z axis.
    """
    stacks = [p for p in pairs if "z" in p.image.axes]
    if start is not None:
        axes, reason = start.axes, f"as the start model {start.name!r}"
    elif options.dimensions != "auto":
        axes, reason = ("zyx" if options.dimensions == "3D" else "yx"), "as asked for"
    elif len(stacks) < len(pairs):
        axes, reason = "yx", "images have no z axis" if not stacks else "some images have no z axis"
    elif (few := min(p.image.size_of("z") for p in stacks)) < _FEW_SLICES:
        axes, reason = "yx", f"{few} slices are too few for a 3D network; it learns slice by slice"
    else:
        axes, reason = "zyx", f"every image is a stack of at least {few} slices"
    if axes == "zyx" and len(stacks) < len(pairs):
        lacking = next(p for p in pairs if "z" not in p.image.axes)
        raise ImageError(
            f"a 3D network needs a z axis, {lacking.name!r} has axes {lacking.image.axes!r}; "
            "take dimensions='2D', or say with axes what its axes are"
        )
    return axes, Choice(name="dimensions", value=f"{len(axes)}D", reason=reason)


def _without_effect(start: ModelSpec, options: TrainOptions) -> list[str]:
    """Return a caution for each thing that was asked for and that a start model has otherwise."""
    network = start.network
    has: dict[str, Any] = {
        "architecture": network.architecture,
        "depth": network.depth,
        "width": network.width,
        "dimensions": f"{network.ndim}D",
        "classes": start.target.classes if start.target.kind == "classes" else (),
    }
    fields = type(options).model_fields
    return [
        f"{name}={asked!r} has no effect: the start model {start.name!r} has {value!r} and keeps it"
        for name, value in has.items()
        if (asked := getattr(options, name)) not in (fields[name].default, value)
    ]


def make_plan(
    pairs: Sequence[Pair],
    grounds: Sequence[Ground],
    options: TrainOptions,
    *,
    dimensions: Choice,
    axes: str,
    start: ModelSpec | None,
    device: str,
    precision: str,
    budget: int,
) -> tuple[Plan, list[str]]:
    """Choose what is not asked for.

    Parameters
    ----------
    pairs, grounds
        All images with labels, and all that can be learned from.
    options : TrainOptions
        What is asked for.
    dimensions, axes
        From :func:`choose_dimensions`.
    start : ModelSpec or None
        Of the model to start from; its network, target and normalisation stay.
    device, precision : str
        What the network runs on, and its number format.
    budget : int
        Bytes that a step may take.

    Returns
    -------
    plan : Plan
        With all reasons.
    cautions : list of str
        What the user should know.

    Raises
    ------
    ImageError, OptionsError, MemoryBudgetError
        If labels do not suit the target, objects do not fit a patch that was asked for, or
        a step does not fit the memory.
    """
    cautions = _without_effect(start, options) if start is not None else []
    scale = _measure_scale(pairs, grounds, axes, options, cautions)
    target, told = choose_target(grounds, options, start)
    choices = [dimensions, told]
    n_channels = 1 if options.channel is not None else pairs[0].image.n_channels
    normalisation = choose_normalisation(options, start)
    if start is not None:
        network = start.network
        choices.append(Choice(name="network", value=network.architecture, reason=f"as the start model {start.name!r}"))
        _compare_spacing(scale, start, cautions)
    else:
        network, more = _choose_network(scale, options, n_channels, len(target.channels), device)
        choices += more
    total = _stride(network)
    patch, told = choose_patch(scale, options, total, device)
    choices.append(told)
    check_objects_fit(scale, patch, options, cautions)
    batch, told = choose_batch(network, patch, options, device, precision, budget)
    choices += [
        told,
        _spacing_choice(scale),
        _sampling_choice(grounds, target),
        Choice(
            name="device", value=f"{device}, {precision}", reason="asked for" if options.device != "auto" else "found"
        ),
    ]
    size = None if scale.extents is None or target.kind != "objects" else round(float(np.mean(scale.extents[-2:])), 1)
    channels = start.channels if start is not None else tuple(f"channel {i}" for i in range(n_channels))
    plan = Plan(
        network=network,
        target=target,
        normalisation=normalisation,
        patch=patch,
        batch=batch,
        spacing=scale.spacing,
        object_size=size,
        anisotropy=scale.relative[0] / scale.relative[-1] if len(axes) == 3 else 1.0,
        channels=channels,
        choices=tuple(choices),
    )
    return plan, cautions


def _measure_scale(
    pairs: Sequence[Pair], grounds: Sequence[Ground], axes: str, options: TrainOptions, cautions: list[str]
) -> Scale:
    shapes = np.array([p.image.frame_shape(axes) for p in pairs])
    spacings = [p.image.spacing_of(axes) for p in pairs]
    known = [s for s in spacings if s is not None]
    spacing = None
    if len(known) == len(pairs):
        spacing = tuple(float(v) for v in np.median(np.array(known), axis=0))
        spread = np.max(np.array(known), axis=0) / np.min(np.array(known), axis=0)
        if spread.max() > 1.1:
            cautions.append(
                f"voxel sizes differ by a factor of {spread.max():.2g} between images; nothing is rescaled: "
                "bring the images to one voxel size for a sharper model"
            )
    extents = largest = None
    if options.target == "objects":
        sides = np.concatenate([g.survey.extents() for g in grounds])
        if len(sides):
            extents = tuple(float(v) for v in np.median(sides, axis=0))
            largest = tuple(float(v) for v in np.percentile(sides, 95, axis=0))
    if spacing is not None:
        relative = tuple(s / min(spacing) for s in spacing)
    elif extents is not None and len(axes) == 3:
        # Objects are as deep as wide, more or less: thick slices show them flat.
        wide = float(np.mean(extents[1:]))
        relative = (max(1.0, round(wide / extents[0], 1)), 1.0, 1.0)
    else:
        relative = (1.0,) * len(axes)
    return Scale(tuple(int(n) for n in np.median(shapes, axis=0)), spacing, relative, extents, largest)


def choose_normalisation(options: TrainOptions, start: ModelSpec | None) -> Normalisation:
    """Return the normalisation asked for, else the start model's, else the usual one."""
    if options.normalisation is not None:
        return Normalisation(options.normalisation)
    return start.normalisation if start is not None else Normalisation()


def _choose_network(
    scale: Scale, options: TrainOptions, n_channels: int, n_maps: int, device: str
) -> tuple[NetworkSpec, list[Choice]]:
    from napari_tiled_unet.networks.zoo import network_spec

    size = float(np.mean(scale.extents[-2:])) if scale.extents else None
    if options.depth != "auto":
        depth, reason = options.depth, "as asked for"
    elif size is None:
        depth, reason = 4, "the size of what is sought is not known"
    else:
        depth = int(np.clip(round(math.log2(max(size, 2.0))), 2, 5))
        reason = f"objects are about {size:.0f} voxels wide: as many halvings as bring one down to a voxel, 2 to 5"
    smallest = min(scale.shape[-2:])
    most = max(1, int(math.log2(max(2, smallest / 4))))
    if options.depth == "auto" and depth > most:
        depth, reason = most, f"images are {smallest} voxels wide, so that 4 are left at the bottom"
    factors, kernels = _anisotropic(scale, depth)
    width: int = options.width if options.width != "auto" else (32 if device.startswith("cuda") else 16)
    network = network_spec(
        options.architecture,
        ndim=len(scale.shape),
        in_channels=n_channels,
        out_channels=n_maps,
        depth=depth,
        width=width,
        max_width=max(width, 320 if device.startswith("cuda") else 256),
        downsampling=factors,
        kernels=kernels,
    )
    told = [
        Choice(name="network", value=options.architecture, reason="as asked for"),
        Choice(name="depth", value=str(depth), reason=reason),
        Choice(
            name="width",
            value=str(width),
            reason="as asked for" if options.width != "auto" else f"what trains in reasonable time on {device}",
        ),
    ]
    if len(set(scale.relative)) > 1:
        thick = max(scale.relative)
        told.append(
            Choice(
                name="strides",
                value=" ".join("x".join(map(str, f)) for f in factors),
                reason=f"voxels are {thick:.1f} times longer along one axis; it is not halved or convolved "
                f"before the others are within a factor of {_THICK:g}",
            )
        )
    return network, told


def _anisotropic(scale: Scale, depth: int) -> tuple[list[tuple[int, ...]], list[tuple[int, ...]]]:
    """Return factors per downsampling and kernels per level, so that voxels become even."""
    spacing, sizes = list(scale.relative), list(scale.shape)
    factors: list[tuple[int, ...]] = []
    kernels: list[tuple[int, ...]] = []
    for level in range(depth + 1):
        finest = min(spacing)
        even = [s / finest < _THICK for s in spacing]
        kernels.append(tuple(3 if e else 1 for e in even))
        if level == depth:
            break
        step = tuple(2 if e and n >= 8 else 1 for e, n in zip(even, sizes, strict=True))
        if 2 not in step:
            step = tuple(2 if n == max(sizes) else 1 for n in sizes)
        factors.append(step)
        spacing = [s * f for s, f in zip(spacing, step, strict=True)]
        sizes = [n // f for n, f in zip(sizes, step, strict=True)]
    return factors, kernels


def _stride(network: NetworkSpec) -> tuple[int, ...]:
    return tuple(math.prod(row[axis] for row in network.downsampling) for axis in range(network.ndim))


def _spacing_choice(scale: Scale) -> Choice:
    if scale.spacing is None:
        return Choice(name="voxel size", value="unknown", reason="not every image says it")
    return Choice(
        name="voxel size", value=" x ".join(f"{s:g}" for s in scale.spacing) + " um", reason="median of the images"
    )


def _sampling_choice(grounds: Sequence[Ground], target: Target) -> Choice:
    from napari_tiled_unet.training.patches import AROUND_LABELS, class_probabilities

    if target.kind == "objects":
        return Choice(
            name="sampling",
            value=f"{AROUND_LABELS:.0%} of the patches around an object",
            reason="objects are what the score counts; images are drawn by the root of their number of objects",
        )
    shares = class_probabilities(grounds)
    named = ", ".join(f"{target.channels[v]} {p:.0%}" for v, p in shares.items())
    return Choice(
        name="sampling",
        value=f"{AROUND_LABELS:.0%} of the patches around a class: {named}",
        reason="the root of its frequency, so that rare classes are seen",
    )


def _compare_spacing(scale: Scale, start: ModelSpec, cautions: list[str]) -> None:
    if scale.spacing is None or start.spacing is None:
        return
    ratio = max(max(a / b, b / a) for a, b in zip(scale.spacing, start.spacing, strict=True))
    if ratio > 1.25:
        cautions.append(
            f"the start model {start.name!r} learned at voxels of {start.spacing} um, the images have {scale.spacing}; "
            "it is taught the new size"
        )
