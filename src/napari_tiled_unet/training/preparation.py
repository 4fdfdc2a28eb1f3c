"""Everything that is decided before the first step; what cannot work is refused here."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_tiled_unet.errors import FileError, ImageError, OptionsError
from napari_tiled_unet.io import require_writable
from napari_tiled_unet.lazy import reads_an_open_file
from napari_tiled_unet.memory import memory_budget
from napari_tiled_unet.model import Model
from napari_tiled_unet.model_files import load_model
from napari_tiled_unet.runtime import amx_in_use, choose_device, choose_precision
from napari_tiled_unet.train_options import TrainOptions
from napari_tiled_unet.training.augmentation import Augmenter
from napari_tiled_unet.training.choices import choose_dimensions, choose_normalisation, make_plan
from napari_tiled_unet.training.examination import Examiner, examined
from napari_tiled_unet.training.grounds import Ground, Split, split, survey_pairs
from napari_tiled_unet.training.pairs import Pair, grey, open_pairs
from napari_tiled_unet.training.patches import Patches
from napari_tiled_unet.training.plan import Plan
from napari_tiled_unet.training.state import Checkpoint, State, checkpoint_path, read_checkpoint, require_room

if TYPE_CHECKING:
    import torch

    from napari_tiled_unet.networks.zoo import Network

_SMALLEST = 8


@dataclass
class Session:
    """A training that is ready to begin, or to go on.

    Attributes
    ----------
    options, plan, split : TrainOptions, Plan, Split
        What was asked for and what was chosen.
    state : State
        Network and optimiser.
    patches, examiner : Patches, Examiner
        What is learned from, what it is scored on.
    device, dtype : torch.device, torch.dtype
        Where and in what format steps are computed.
    data : list of str
        What the images are, to know them again.
    told, cautions : list of str
        For the user to read.
    out : Path or None
        The model file.
    best : Model or None
        The best model so far.
    """

    options: TrainOptions
    plan: Plan
    split: Split
    state: State
    patches: Patches
    examiner: Examiner
    device: torch.device
    dtype: torch.dtype
    data: list[str]
    told: list[str]
    cautions: list[str]
    out: Path | None
    best: Model | None = None


def prepare(
    images: Any, labels: Any, options: TrainOptions, *, out: Path | None, resume: bool, overwrite: bool
) -> Session:
    """Open the data, make the plan, build or restore the network.

    Raises
    ------
    OptionsError, ImageError, FileError, ModelError, MemoryBudgetError
        Whatever cannot work.
    """
    saved = _saved(out, resume=resume, overwrite=overwrite)
    start = load_model(options.start) if options.start is not None else None
    pairs, told = open_pairs(images, labels, options)
    if start is not None:
        pairs = _for_start(pairs, start, options, told)
    axes, dimensions = choose_dimensions(pairs, options, start.spec if start else None)
    _check_sizes(pairs, axes)
    channels = (options.channel,) if options.channel is not None else None
    normalisation = choose_normalisation(options, start.spec if start else None)
    grounds = survey_pairs(pairs, axes, normalisation, sparse=options.sparse, channels=channels, told=told)
    if options.workers and any(reads_an_open_file(i.data) for p in pairs for i in (p.image, p.labels)):
        # Each of the processes would move the place in the file that the others read at.
        told.append(f"workers={options.workers} is left out: large compressed or tiled TIFFs are read by one process")
        options = options.changed(workers=0)
    data = [f"{_printable(p.name)} {p.image.shape}" for p in pairs]

    device = choose_device(options.device)
    dtype = _training_dtype(options, device, axes, told)
    budget = memory_budget(options.memory, device)
    cautions: list[str] = []
    if saved is None:
        plan, cautions = make_plan(
            pairs,
            [g for frames in grounds for g in frames],
            options,
            dimensions=dimensions,
            axes=axes,
            start=start.spec if start else None,
            device=str(device),
            precision=str(dtype).removeprefix("torch."),
            budget=budget,
        )
    else:
        saved.check(options, data)
        plan = saved.plan
    parts = split(grounds, options.validation, _gap(plan), options.seed)
    if parts.caution:
        cautions.append(parts.caution)
    _check_teaches(parts)
    state = State.fresh(_network(plan, start, options.seed), options, device)
    if out is not None:
        require_room(out, state.network)
    if saved is not None:
        state.restore(saved)
    patches = _patches(parts.training, plan, options, channels)
    examiner = Examiner(examined(parts.validation, plan.patch), plan, options.sparse, channels, device, dtype, budget)
    # A run that ended before its first validation left a model that was never judged.
    judged = saved is not None and state.best_step > 0
    best = _best_so_far(out, data, plan, options.seed) if judged and out is not None else None
    return Session(
        options, plan, parts, state, patches, examiner, device, dtype, data, told, cautions, out, best
    )  # fmt: skip


def _best_so_far(out: Path, data: list[str], plan: Plan, seed: int) -> Model:
    """Return the best model of a training that is resumed.

    Raises
    ------
    FileError
        If it is not there any more, or another one is.
    """
    if not out.exists():
        raise FileError(
            f"the best model of the training is not at {str(out)!r} any more; put it back there to resume, "
            "or train without resume"
        )
    best = load_model(out)
    told = best.spec.training
    same = told.get("images") == named_images(data) and told.get("seed") == seed and best.spec.network == plan.network
    if not same:
        raise FileError(
            f"{str(out)!r} is not of this training (its images, seed or network are others); put its own model back "
            "there to resume, or train without resume"
        )
    return best


def named_images(data: list[str]) -> list[str]:
    """Return of the images of a training those that its model names: not more than 50."""
    return data[:50]


def _printable(name: str) -> str:
    """Return a name of a file system, whose bytes may be no text, as text that a model file can hold."""
    return name.encode("utf-8", "backslashreplace").decode()


def _saved(out: Path | None, *, resume: bool, overwrite: bool) -> Checkpoint | None:
    if out is None:
        if resume:
            raise OptionsError("resume goes on from the checkpoint beside a model file; say which with out")
        return None
    if out.suffix != ".safetensors":
        raise FileError(f"model file {str(out)!r} must end in .safetensors")
    require_writable(out.parent)
    if resume:
        return read_checkpoint(checkpoint_path(out))
    if out.exists() and not overwrite:
        raise FileError(f"model file {str(out)!r} exists; choose another name, resume, or allow overwriting")
    if checkpoint_path(out).exists() and not overwrite:
        raise FileError(
            f"checkpoint {str(checkpoint_path(out))!r} of another training exists; "
            "choose another name, resume, or allow overwriting"
        )
    return None


def _for_start(pairs: list[Pair], start: Model, options: TrainOptions, told: list[str]) -> list[Pair]:
    """Bring the images to the channels of the start model."""
    wanted = len(start.spec.channels)
    if wanted == 1 and options.channel is None and any(p.image.is_rgb for p in pairs):
        told.append(f"RGB images are converted to grey, since {start.spec.name!r} takes one channel")
        pairs = grey(pairs)
    found = 1 if options.channel is not None else pairs[0].image.n_channels
    if found != wanted:
        raise ImageError(
            f"the images have {found} channels, the start model {start.spec.name!r} takes {wanted} "
            f"({', '.join(start.spec.channels)}); choose one with channel, or another start model"
        )
    return pairs


def _check_sizes(pairs: Iterable[Pair], axes: str) -> None:
    for pair in pairs:
        shape = pair.image.frame_shape(axes)
        if min(shape[-2:]) < _SMALLEST:
            raise ImageError(
                f"{pair.name!r} has frames of {shape} voxels, too small to learn from; "
                f"give images of at least {_SMALLEST} x {_SMALLEST}"
            )


def _check_teaches(parts: Split) -> None:
    if not any(g.survey.objects for g in parts.training):
        raise ImageError(
            "nothing that is learned from has labels above the background; label objects or classes in more images"
        )


def _training_dtype(options: TrainOptions, device: torch.device, axes: str, told: list[str]) -> torch.dtype:
    """Return the format of a step; float16 would need its losses scaled, so float32 is taken for it.

    Notes
    -----
    In the AMX kernels of oneDNN the gradient of some 3D convolutions in bfloat16 (inputs of few slices, and of many
    channels) ends the process or never ends (torch 2.13): so it is not used there.
    """
    import torch

    if options.precision == "float16":
        raise OptionsError("precision='float16' is too narrow to train in; take 'bfloat16', 'float32' or 'auto'")
    dtype = choose_precision(options.precision, device)
    if dtype == torch.bfloat16 and device.type == "cpu" and len(axes) == 3 and amx_in_use():
        if options.precision != "auto":
            raise OptionsError(
                "precision='bfloat16' may end the process in 3D on this processor, by a fault of its AMX kernels; take "
                "'float32' or 'auto', or start Python with ONEDNN_MAX_CPU_ISA=AVX512_CORE_BF16 in the environment"
            )
        told.append(
            "3D is trained in float32: bfloat16 fails in the AMX kernels of this processor; "
            "ONEDNN_MAX_CPU_ISA=AVX512_CORE_BF16 in the environment allows it without them"
        )
        return torch.float32
    return torch.float32 if dtype == torch.float16 else dtype


def _gap(plan: Plan) -> tuple[int, ...]:
    """Return the unused voxels between training and validation: an object's width, eight at least."""
    wide = max(8.0, plan.object_size or 0.0)
    if plan.network.ndim == 2:
        return (round(wide),) * 2
    return (max(2, round(wide / plan.anisotropy)), round(wide), round(wide))


def _network(plan: Plan, start: Model | None, seed: int) -> Network:
    """Return the start model's network, or a fresh one that depends on the seed alone."""
    if start is not None:
        return start.network
    import torch

    from napari_tiled_unet.networks.zoo import build_network

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return build_network(plan.network)


def _patches(
    grounds: tuple[Ground, ...], plan: Plan, options: TrainOptions, channels: tuple[int, ...] | None
) -> Patches:
    spacing = None
    if plan.network.ndim == 3:
        spacing = (plan.anisotropy, 1.0, 1.0)
    return Patches(
        grounds,
        plan.target,
        Augmenter(options.augmentation, plan.patch, plan.anisotropy),
        count=int(np.iinfo(np.int32).max),
        seed=options.seed,
        sparse=options.sparse,
        channels=channels,
        spacing=spacing,
    )
