"""Where and how a network runs: device, number format, memory, and the run itself."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from napari_tiled_unet.errors import MemoryBudgetError, OptionsError

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

    from napari_tiled_unet.networks.zoo import Network
    from napari_tiled_unet.options import Precision

GIB = 2**30


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
        for conv_name, norm_name in getattr(module, "folds", (("conv", "norm"),)):
            conv, norm = getattr(module, conv_name, None), getattr(module, norm_name, None)
            if isinstance(norm, nn.BatchNorm2d | nn.BatchNorm3d) and isinstance(conv, nn.Conv2d | nn.Conv3d):
                setattr(module, conv_name, fuse_conv_bn_eval(conv, norm))
                setattr(module, norm_name, nn.Identity())
