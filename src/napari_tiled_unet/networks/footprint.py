"""What a network costs, counted on the built module without computing anything.

Torch's ``meta`` device has shapes but no numbers: a run on it tells the work and the memory
of a run on any size, in milliseconds.
"""

from __future__ import annotations

import copy
import math
import weakref
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

if TYPE_CHECKING:
    from napari_tiled_unet.networks.zoo import Network


def flops_per_voxel(network: Network) -> float:
    """Return the floating-point operations of convolutions per voxel; a multiplication and an addition are two."""
    from torch.utils.flop_counter import FlopCounterMode

    on_meta, x = _on_meta(network)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        on_meta.eval()(x)
    return float(counter.get_total_flops()) / math.prod(x.shape[2:])


def peak_values_per_voxel(network: Network) -> float:
    """Return the most numbers per voxel that inference holds at once, its input included.

    Folded norms are assumed, as :class:`~napari_tiled_unet.runtime.Runner` folds them; what
    convolution libraries take for themselves is not counted.
    """
    on_meta, x = _on_meta(network)
    _without_batch_norms(on_meta.eval())
    with _Held() as held, torch.no_grad():
        held.note(x)
        on_meta(x)
    return float(held.most) / x.element_size() / math.prod(x.shape[2:])


def kept_values_per_voxel(network: Network) -> float:
    """Return the numbers per voxel that training keeps for the gradients."""
    on_meta, x = _on_meta(network)
    weights = {p.untyped_storage()._cdata for p in (*on_meta.parameters(), *on_meta.buffers())}
    kept: dict[int, tuple[int, Any]] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:
            # The storage is held, or the next could come to lie in its place.
            kept[storage._cdata] = (storage.nbytes(), storage)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        outputs = on_meta.train().training_outputs(x)
    del outputs
    return sum(size for size, _ in kept.values()) / x.element_size() / math.prod(x.shape[2:])


def _on_meta(network: Network) -> tuple[Network, Tensor]:
    # Large enough that a side is many strides, so that nothing is counted that only a border needs.
    shape = [4 * s for s in network.stride]
    on_meta = copy.deepcopy(network).to("meta")
    return on_meta, torch.empty(1, network.spec.in_channels, *shape, device="meta")


def _without_batch_norms(module: torch.nn.Module) -> None:
    for name, child in module.named_children():
        if isinstance(child, torch.nn.BatchNorm2d | torch.nn.BatchNorm3d):
            setattr(module, name, torch.nn.Identity())
        else:
            _without_batch_norms(child)


class _Held(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of all results that are alive, and the most there were."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now, self.most = 0, 0
        self._known: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()

    def note(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        if storage in self._known:
            return
        size = storage.nbytes()
        self._known[storage] = size
        weakref.finalize(storage, self._gone, size)
        self.now += size
        self.most = max(self.most, self.now)

    def _gone(self, size: int) -> None:
        self.now -= size

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self.note(leaf)
        return result
