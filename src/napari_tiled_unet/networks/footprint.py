"""What a network costs, counted on the built module without computing anything.

Torch's ``meta`` device has shapes but no numbers: a run on it tells the work and the memory
of a run on any size, in milliseconds.
"""

from __future__ import annotations

import copy
import math
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

if TYPE_CHECKING:
    from napari_tiled_unet.networks.zoo import Network

# What a run takes of what is alive, the blocked layouts and copies of the convolution library
# included: measured by benchmarks/footprint.py.
_LIBRARY_COPIES = 1.33


def flops_per_voxel(network: Network) -> float:
    """Return the floating-point operations of convolutions per voxel; a multiplication and an addition are two."""
    from torch.utils.flop_counter import FlopCounterMode

    on_meta, x = _on_meta(network)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        on_meta.eval()(x)
    return float(counter.get_total_flops()) / math.prod(x.shape[2:])


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
    """Return what a network needs to run in a number format.

    Any architecture is counted as it is built. The second time it is looked up.

    Parameters
    ----------
    network : Network
        Not changed. Batch norms count as folded into their convolutions.
    dtype : torch.dtype
        Number format of the activations; maps are float32.
    """
    inference = network.inference
    voxel_bytes = held_bytes(inference.peak_values, dtype) + 4.0 * network.spec.out_channels
    return Footprint(voxel_bytes, inference.multiply_adds, inference.operations)


def held_bytes(values: float, dtype: torch.dtype) -> float:
    """Return the memory that so many numbers take while a network runs."""
    return values * dtype.itemsize * _LIBRARY_COPIES


class Inference(NamedTuple):
    """A run of a network, per input voxel: numbers alive at the peak, multiply-adds; and calls of the tensor library.

    Folded norms are assumed, as :class:`~napari_tiled_unet.runtime.Runner` folds them; what
    convolution libraries take for themselves is not counted.
    """

    peak_values: float
    multiply_adds: float
    operations: int


def count_inference(network: Network, shape: tuple[int, ...] | None = None) -> Inference:
    """Return what a run of a network on a tile (by default a small one) does and holds, its input included."""
    on_meta, x = _on_meta(network, shape)
    held = _held(on_meta, x, lambda network: network(x))
    voxels = math.prod(x.shape[2:])
    return Inference(held.most / x.element_size() / voxels, held.multiply_adds / voxels, held.operations)


def count_calls(network: Network, shape: tuple[int, ...], run: Callable[[Network, Tensor], Any]) -> Inference:
    """Return what calls of a network do and hold at the most, in numbers and not per voxel.

    Parameters
    ----------
    network : Network
        It is copied.
    shape : tuple of int
        Spatial shape of the tensor without numbers that ``run`` is given.
    run : callable
        What is counted, given the copy and the tensor.
    """
    on_meta, x = _on_meta(network, shape)
    held = _held(on_meta, x, lambda network: run(network, x))
    return Inference(held.most / x.element_size(), held.multiply_adds, held.operations)


def _held(on_meta: Network, x: Tensor, run: Callable[[Network], Any]) -> _Held:
    held = _Held()
    _without_batch_norms(on_meta.eval())
    # Not inference mode, which hides the convolutions inside other calls.
    with held, torch.no_grad():
        held.note(x)
        run(on_meta)
    return held


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


def _on_meta(network: Network, shape: tuple[int, ...] | None = None) -> tuple[Network, Tensor]:
    # Large enough that a side is many strides, so that nothing is counted that only a border needs.
    shape = shape or tuple(4 * s for s in network.stride)
    on_meta = copy.deepcopy(network).to("meta")
    return on_meta, torch.empty(1, network.spec.in_channels, *shape, device="meta")


def _without_batch_norms(module: torch.nn.Module) -> None:
    for name, child in module.named_children():
        if isinstance(child, torch.nn.BatchNorm2d | torch.nn.BatchNorm3d):
            setattr(module, name, torch.nn.Identity())
        else:
            _without_batch_norms(child)


def _multiply_adds(args: tuple[Any, ...], result: Tensor) -> int:
    """Return the multiply-adds of one convolution: each weight is used once per voxel of the smaller side."""
    given, weight, transposed = args[0], args[1], args[6]
    voxels = math.prod((given if transposed else result).shape[2:])
    return int(result.shape[0] * voxels * weight.numel())


def _joined(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """Return what ``torch.cat`` gives, without numbers."""
    shape = list(tensors[0].shape)
    shape[dim] = sum(tensor.shape[dim] for tensor in tensors)
    return tensors[0].new_empty(shape)


def _convolved(x: Tensor, weight: Tensor, _: Tensor | None, *where: Any) -> Tensor:
    """Return what a convolution gives, without numbers."""
    stride, padding, dilation, transposed, output_padding, groups = where
    spans = [d * (k - 1) for d, k in zip(dilation, weight.shape[2:], strict=True)]
    given = zip(x.shape[2:], spans, stride, padding, output_padding, strict=True)
    if transposed:
        sides = [(n - 1) * s - 2 * p + span + more + 1 for n, span, s, p, more in given]
        return x.new_empty([len(x), weight.shape[1] * groups, *sides])
    return x.new_empty([len(x), len(weight), *((n + 2 * p - span - 1) // s + 1 for n, span, s, p, _ in given)])


def _pooled(
    x: Tensor,
    kernel: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0,),
    dilation: Sequence[int] = (1,),
    ceil_mode: bool = False,
) -> tuple[Tensor, Tensor]:
    """Return what pooling by the maximum gives, and where it lies, without numbers."""
    shape = list(x.shape[:2])
    windows = (
        list(given) * x.ndim if len(given) == 1 else given for given in (kernel, stride or kernel, padding, dilation)
    )
    for n, k, s, p, d in zip(x.shape[2:], *windows, strict=False):
        room = n + 2 * p - d * (k - 1) - 1
        side = (-(-room // s) if ceil_mode else room // s) + 1
        # The last window must not start beyond the input.
        shape.append(side - 1 if ceil_mode and (side - 1) * s >= n + p else side)
    return x.new_empty(shape), x.new_empty(shape, dtype=torch.int64)


def _copied(x: Tensor, **_: Any) -> Tensor:
    """Return what a copy is, without numbers."""
    return x.new_empty(x.shape)


# Torch's own ways to these shapes import its compiler and sympy, for more than a second.
_SHAPES: dict[Any, Callable[..., Any]] = {
    torch.ops.aten.cat.default: _joined,
    torch.ops.aten.clone.default: _copied,
    torch.ops.aten.convolution.default: _convolved,
    torch.ops.aten.max_pool2d_with_indices.default: _pooled,
    torch.ops.aten.max_pool3d_with_indices.default: _pooled,
}


class _Held(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of all results that are alive, the most there were, and the work."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # Skipping the compiler would first import all of it, which takes seconds.
        return False

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.most = self.operations = self.multiply_adds = 0
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
        result = _SHAPES.get(func, func)(*args, **(kwargs or {}))
        self.operations += 1
        if func is torch.ops.aten.convolution.default:
            self.multiply_adds += _multiply_adds(args, result)
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self.note(leaf)
        return result
