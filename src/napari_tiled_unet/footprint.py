"""What a network takes to run, found by running it on tensors that have a shape but no values."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from napari_tiled_unet.networks.zoo import Network

# Blocked layouts of the convolution library pad and copy; the rest is measured.
_LAYOUT_COPIES = 1.33
# Where a network keeps what was measured.
_KEPT = "_footprint"


@dataclass(frozen=True)
class Footprint:
    """What a network needs at inference.

    Attributes
    ----------
    voxel_bytes : float
        Bytes per input voxel at the peak, activations and maps; weights are not counted.
    voxel_work : float
        Multiply-adds of the convolutions per input voxel.
    operations : int
        Calls of the tensor library per run, whatever the size of the tile.
    """

    voxel_bytes: float
    voxel_work: float
    operations: int


def footprint(network: Network, dtype: torch.dtype) -> Footprint:
    """Measure the footprint of a network in a number format.

    The network runs once on tensors of the ``meta`` device, so nothing is computed. Every tensor
    that is alive after an operation is counted: any architecture is measured as it is. The
    second time it is looked up.

    Parameters
    ----------
    network : Network
        Not changed. Batch norms count as folded into their convolutions.
    dtype : torch.dtype
        Number format of the activations; maps are float32.
    """
    found: Footprint | None = getattr(network, _KEPT, None)
    if found is None:
        found = _measured(network)
        setattr(network, _KEPT, found)
    return replace(found, voxel_bytes=found.voxel_bytes * dtype.itemsize / 4 + 4 * network.spec.out_channels)


def _measured(network: Network) -> Footprint:
    """Return the footprint in float32, the maps that are handed out left out."""
    import torch
    from torch import nn

    watched = copy.deepcopy(network).to(device="meta", dtype=torch.float32).eval()
    for module in watched.modules():
        if isinstance(getattr(module, "norm", None), nn.BatchNorm2d | nn.BatchNorm3d):
            module.norm = nn.Identity()
    shape = tuple(2 * s for s in network.stride)
    tile = torch.empty((1, network.spec.in_channels, *shape), device="meta")
    # Not inference mode, which hides the convolutions inside other calls.
    with torch.no_grad(), _watch() as seen:
        watched(tile)
    voxels = math.prod(shape)
    return Footprint((seen.peak + tile.nbytes) * _LAYOUT_COPIES / voxels, seen.work / voxels, seen.operations)


def _watch() -> Any:
    """Return a context that sums up what lives and what is computed in it."""
    import torch
    from torch.multiprocessing.reductions import StorageWeakRef
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    class Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
        @classmethod
        def _should_skip_dynamo(cls) -> bool:
            # Skipping the compiler would first import all of it, which takes seconds.
            return False

        def __init__(self) -> None:
            super().__init__()  # type: ignore[no-untyped-call]
            self.peak = self.work = self.operations = 0
            self._alive: dict[int, tuple[Any, int]] = {}

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            result = func(*args, **(kwargs or {}))
            self.operations += 1
            self._alive = {key: kept for key, kept in self._alive.items() if not kept[0].expired()}
            for tensor in tree_leaves(result):
                if isinstance(tensor, torch.Tensor):
                    storage = tensor.untyped_storage()
                    self._alive[storage._cdata] = (StorageWeakRef(storage), storage.nbytes())  # type: ignore[no-untyped-call]
            self.peak = max(self.peak, sum(size for _, size in self._alive.values()))
            if func is torch.ops.aten.convolution.default:
                self.work += _multiply_adds(args, result)
            return result

    return Watch()


def _multiply_adds(args: tuple[Any, ...], result: Tensor) -> int:
    """Return the multiply-adds of one convolution: each weight is used once per voxel of the smaller side."""
    given, weight, transposed = args[0], args[1], args[6]
    voxels = math.prod((given if transposed else result).shape[2:])
    return int(result.shape[0] * voxels * weight.numel())
