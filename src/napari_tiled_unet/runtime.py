"""Where and how a network runs: device, number format, memory, and the run itself."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from napari_tiled_unet.errors import MemoryBudgetError, OptionsError
from napari_tiled_unet.tiling import TilePlan, plan_tiles

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

    from napari_tiled_unet.networks.zoo import Network
    from napari_tiled_unet.options import Precision

GIB = 2**30
# A tile of more voxels gains little speed and makes progress, cancel and live labels coarse.
_LARGEST_TILE = 2**22
# Above this many computed voxels per voxel, auto takes a smaller overlap than the exact one.
_DEAREST_OVERLAP = 3.0


def choose_device(name: str) -> torch.device:
    """Return the device of a name; ``auto`` is CUDA, else Apple's MPS, else the CPU.

    Raises
    ------
    OptionsError
        If the named device is not there.
    """
    import torch

    mps = torch.backends.mps.is_available()
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "mps" if mps else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise OptionsError(
            f"device {name!r} is not there: torch sees {torch.cuda.device_count()} CUDA devices; "
            "use 'cpu' or 'auto', or install a CUDA build of torch"
        )
    if device.type == "mps" and not mps:
        raise OptionsError("device 'mps' is not there: it needs an Apple processor; use 'cpu' or 'auto'")
    return device


def choose_precision(name: Precision, device: torch.device) -> torch.dtype:
    """Return the number format; ``auto`` is bfloat16 or float16 where the hardware has it.

    Raises
    ------
    OptionsError
        If the format cannot be used on the device.
    """
    import torch

    if name == "auto":
        if device.type == "cuda":
            return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
        if device.type == "mps":
            return torch.float16
        return torch.bfloat16 if _cpu_has_bfloat16() else torch.float32
    if name == "float16" and device.type == "cpu":
        raise OptionsError("precision 'float16' is slow and inexact on a CPU; use 'bfloat16', 'float32' or 'auto'")
    return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[name]


def _cpu_has_bfloat16() -> bool:
    try:
        flags = Path("/proc/cpuinfo").read_text().split()
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


def memory_budget(memory: float | None, device: torch.device) -> int:
    """Return the bytes that a run may use.

    Parameters
    ----------
    memory : float or None
        What the user allows, in GiB; None takes 60 % of what is free now (80 % on a
        CUDA device), control-group limits respected.
    device : torch.device
        Where the network runs.
    """
    if memory is not None:
        return int(memory * GIB)
    if device.type == "cuda":
        import torch

        return int(0.8 * torch.cuda.mem_get_info(device)[0])
    return int(0.6 * free_memory())


def free_memory() -> int:
    """Return the bytes of host memory that are free to this process.

    The smaller of what the system has and what the control group (a container, a batch
    job) still allows.
    """
    import psutil

    free = int(psutil.virtual_memory().available)
    for limit, usage in (
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ):
        try:
            allowed = int(Path(limit).read_text()) - int(Path(usage).read_text())
        except (OSError, ValueError):
            continue
        free = min(free, max(allowed, 0))
    return free


def bytes_per_voxel(network: Network, dtype: torch.dtype) -> float:
    """Estimate the peak bytes that the network needs per input voxel at inference.

    The peak lies in the finest decoder block, which holds skip, upsampled features,
    their concatenation and two convolution results, beside the coarser skips.
    """
    encoder = network.encoder
    values = 6.0 * encoder.channels[0] + 4.0
    for channels, stride in zip(encoder.channels[1:], encoder.strides[1:], strict=True):
        values += 3.0 * channels / math.prod(stride)
    # Blocked layouts of the convolution library pad and copy; a third on top covers it.
    return values * dtype.itemsize * 1.33 + 4.0 * network.spec.out_channels


def choose_tiles(
    shape: tuple[int, ...],
    tile: tuple[int, ...] | str,
    overlap: tuple[int, ...] | str,
    network: Network,
    *,
    voxel_bytes: float,
    budget: int,
    trained_overlap: tuple[int, ...] | None = None,
) -> tuple[TilePlan, str | None]:
    """Plan the tiles of a frame, choosing what is ``auto``.

    Parameters
    ----------
    shape : tuple of int
        Spatial shape of the frame.
    tile, overlap : tuple of int, or "auto" (or "exact" for the overlap)
        What the user asked for; one number stands for every axis.
    network : Network
        Gives stride and receptive field.
    voxel_bytes : float
        Bytes that the network needs per voxel of a tile.
    budget : int
        Bytes that a tile may take.
    trained_overlap : tuple of int, optional
        Overlap that the model's spec recommends for ``auto``.

    Returns
    -------
    plan : TilePlan
        The tiles.
    caution : str or None
        A sentence when the overlap had to be smaller than the receptive field.

    Raises
    ------
    MemoryBudgetError
        If the tile asked for, or the smallest one that is possible, does not fit.
    OptionsError
        If the number of values does not match the axes, or the overlap leaves nothing.
    """
    reach = network.receptive_field
    if isinstance(tile, tuple):
        tile = _per_axis(tile, len(shape), "tile")
        _check_fits(shape, tile, network, voxel_bytes, budget)
    candidates: list[tuple[int, ...]]
    if overlap == "exact":
        candidates = [reach]
    elif overlap == "auto":
        first = trained_overlap or reach
        candidates = [first, *(tuple(math.ceil(r / part) for r in first) for part in (2, 4, 8, 16))]
    else:
        candidates = [_per_axis(overlap, len(shape), "overlap")]  # type: ignore[arg-type]
    most = min(budget / voxel_bytes, _LARGEST_TILE)
    plan: TilePlan | None = None
    refused: Exception | None = None
    for candidate in candidates:
        try:
            sides = (
                tile
                if isinstance(tile, tuple)
                else _largest_tile(shape, candidate, network.stride, most, budget / voxel_bytes)
            )
            plan = plan_tiles(shape, sides, candidate, network.stride)
        except (MemoryBudgetError, OptionsError) as error:
            refused = error
            continue
        if overlap != "auto" or plan.work_ratio <= _DEAREST_OVERLAP:
            break
    if plan is None:
        assert refused is not None
        raise refused
    if overlap == "auto" and len(plan) > 1 and any(o < r for o, r in zip(plan.overlap, reach, strict=True)):
        return plan, (
            f"tiles overlap by {plan.overlap} voxels, less than the network's receptive field {reach}: "
            "seams are close but not exact; overlap='exact' is, at more work"
        )
    return plan, None


def _per_axis(values: tuple[int, ...], ndim: int, name: str) -> tuple[int, ...]:
    if len(values) == 1:
        return values * ndim
    if len(values) != ndim:
        raise OptionsError(f"{name}={values} has {len(values)} numbers, the model has {ndim} axes; give 1 or {ndim}")
    return values


def _check_fits(
    shape: tuple[int, ...], tile: tuple[int, ...], network: Network, voxel_bytes: float, budget: int
) -> None:
    sides = tuple(
        min(math.ceil(n / s), math.ceil(t / s)) * s for n, t, s in zip(shape, tile, network.stride, strict=True)
    )
    needed = math.prod(sides) * voxel_bytes
    if needed > budget:
        raise MemoryBudgetError(
            f"a tile of {tile} voxels needs about {needed / GIB:.2f} GiB, {budget / GIB:.2f} GiB may be used; "
            "take a smaller tile, tile='auto', or allow more memory"
        )


def _largest_tile(
    shape: tuple[int, ...], overlap: tuple[int, ...], stride: tuple[int, ...], wanted: float, possible: float
) -> tuple[int, ...]:
    """Return the largest tile of at most ``wanted`` voxels that divides the frame evenly.

    Splits the axis with most tile per overlap until it is small enough; goes above
    ``wanted`` (never above ``possible``) where the overlap leaves no smaller tile.
    """
    least = tuple(
        min(math.ceil(n / s) * s, math.ceil((2 * o + 1) / s) * s + s)
        for n, o, s in zip(shape, overlap, stride, strict=True)
    )
    parts = [1] * len(shape)

    def sides() -> tuple[int, ...]:
        result = []
        for n, o, s, part, low in zip(shape, overlap, stride, parts, least, strict=True):
            core = math.ceil(n / part)
            side = math.ceil(n / s) * s if part == 1 else math.ceil((core + 2 * o) / s) * s + s
            result.append(max(low, min(side, math.ceil(n / s) * s)))
        return tuple(result)

    while math.prod(sides()) > wanted:
        now = sides()
        splittable = [axis for axis in range(len(shape)) if now[axis] > least[axis]]
        if not splittable:
            break
        axis = max(splittable, key=lambda a: (now[a] - 2 * overlap[a]) / stride[a])
        parts[axis] += 1
    result = sides()
    if math.prod(result) > possible:
        raise MemoryBudgetError(
            f"the smallest tile that overlap {overlap} allows, {result} voxels, does not fit the memory "
            f"that may be used ({possible:.0f} voxels); take a smaller overlap, or allow more memory"
        )
    return result


class Runner:
    """A network made ready to run: on its device, in its number format, norms folded in.

    Parameters
    ----------
    network : Network
        In evaluation mode; it is copied, never changed.
    activate : callable
        Logits to maps, as tensors.
    device : torch.device
        Where it runs.
    dtype : torch.dtype
        Number format of weights and activations.
    """

    def __init__(
        self,
        network: Network,
        activate: Callable[[torch.Tensor], torch.Tensor],
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        import torch

        self.device, self.dtype, self._activate = device, dtype, activate
        self._layout = torch.channels_last if network.spec.ndim == 2 else torch.channels_last_3d
        prepared = copy.deepcopy(network).eval()
        fold_norms(prepared)
        self._network = prepared.to(device=device, dtype=dtype).to(memory_format=self._layout)  # type: ignore[call-overload]

    def run(self, tiles: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return the maps, ``(n, k, *spatial)`` float32, of tiles ``(n, c, *spatial)``.

        Raises
        ------
        MemoryBudgetError
            If the device runs out of memory.
        """
        import torch

        with torch.inference_mode():
            try:
                x = torch.from_numpy(tiles).to(device=self.device, dtype=self.dtype)
                x = x.contiguous(memory_format=self._layout)
                maps = self._activate(self._network(x).float())
                return np.ascontiguousarray(maps.cpu().numpy())
            except (torch.OutOfMemoryError, MemoryError) as error:
                raise MemoryBudgetError(
                    f"tiles of {tiles.shape[2:]} voxels ran out of memory on {self.device}; "
                    "take a smaller tile or set memory to what is free"
                ) from error


def fold_norms(network: torch.nn.Module) -> None:
    """Fold every batch norm into the convolution before it, in place; same outputs."""
    from torch import nn
    from torch.nn.utils.fusion import fuse_conv_bn_eval

    for module in network.modules():
        conv, norm = getattr(module, "conv", None), getattr(module, "norm", None)
        if isinstance(norm, nn.BatchNorm2d | nn.BatchNorm3d) and isinstance(conv, nn.Conv2d | nn.Conv3d):
            module.conv = fuse_conv_bn_eval(conv, norm)
            module.norm = nn.Identity()
