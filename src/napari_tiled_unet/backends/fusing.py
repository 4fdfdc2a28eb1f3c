"""A network rewritten for speed on a processor: fewer passes over memory, same outputs.

Batch norms go into the convolution before them; an activation is applied while the
convolution still holds its results in registers; weights are reordered once for tiles of
a size, and not at every call. The operators are those that torch's own compiler
emits for x86 processors; called directly they need no compiler and no warm-up.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from napari_tiled_unet.backends.columns import (
    as_columns,
    as_pairs,
    can_pair,
    channels_last,
    paired_weight,
    pairs_pay,
    stack_pays,
    stacked_weight,
    with_margin,
)
from napari_tiled_unet.networks.blocks import ConvUnit
from napari_tiled_unet.networks.resampling import StridedConv

_Conv = nn.Conv2d | nn.Conv3d
_Transposed = nn.ConvTranspose2d | nn.ConvTranspose3d
_Pool = nn.MaxPool2d | nn.MaxPool3d


def fold_norms(network: nn.Module) -> None:
    """Fold every batch norm into the convolution before it, in place; same outputs."""
    for module in network.modules():
        # A module with several pairs names them.
        for conv_name, norm_name in getattr(module, "folds", (("conv", "norm"),)):
            conv, norm = getattr(module, conv_name, None), getattr(module, norm_name, None)
            if isinstance(norm, nn.BatchNorm2d | nn.BatchNorm3d) and isinstance(conv, _Conv):
                setattr(module, conv_name, fuse_conv_bn_eval(conv, norm))
                setattr(module, norm_name, nn.Identity())


def fuse_layers(network: nn.Module) -> None:
    """Replace convolutions by fused ones, and pooling, in place; batch norms must have been folded."""
    for module in network.modules():
        if isinstance(module, ConvUnit | StridedConv) and isinstance(module.norm, nn.Identity):
            form = _activation_form(module.activation)
            if form is not None and isinstance(module.conv, _Conv):
                module.conv = FusedConv(module.conv, *form)
                module.activation = nn.Identity()
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, _Conv) and child.padding_mode == "zeros" and not isinstance(child.padding, str):
                setattr(module, name, FusedConv(child))
            elif isinstance(child, _Transposed):
                setattr(module, name, FusedTransposedConv(child))
            elif isinstance(child, _Pool) and PairedMaxPool.fits(child):
                setattr(module, name, PairedMaxPool(child))


def _activation_form(activation: nn.Module) -> tuple[str, list[float], str] | None:
    """Return how the convolution library calls an activation; None if it does not know it."""
    if isinstance(activation, nn.Identity):
        return "none", [], ""
    if isinstance(activation, nn.ReLU):
        return "relu", [], ""
    if isinstance(activation, nn.LeakyReLU):
        return "leaky_relu", [activation.negative_slope], ""
    if isinstance(activation, nn.GELU):
        return "gelu", [], activation.approximate
    return None


class _Weight:
    """Weights in the order that the library wants for the size of the input at hand.

    In an order for another size they would be reordered at every call, out of sight, for longer than small tiles take.
    """

    def __init__(self, plain: Tensor) -> None:
        self._plain = plain
        self._packed: Tensor | None = None
        self._size = torch.Size()

    def packed(self, x: Tensor, reorder: Callable[[Tensor, list[int]], Tensor]) -> Tensor:
        """Return them for an input; ``reorder`` is given them and its size."""
        if self._packed is None or self._size != x.shape:
            self._packed, self._size = reorder(self._plain, list(x.shape)), x.shape
        return self._packed


# Activations that the library applies to a sum of convolutions, and how it calls them there.
_AFTER_A_SUM: dict[str, str | None] = {"none": None, "relu": "relu"}
# Number formats of sums; in bfloat16 the sum so far is rounded once more, as all features are.
_SUMMED = (torch.float32, torch.bfloat16)


def _can_sum(conv: Any, dtype: torch.dtype, activation: str) -> bool:
    return conv.groups == 1 and dtype in _SUMMED and activation in _AFTER_A_SUM


class FusedConv(nn.Module):
    """Convolution and activation in one pass; of several tensors as if they were concatenated along the channels.

    A convolution of joined channels is the sum of those of the parts, each added to what is there while it is still in
    registers, so that nothing is copied.
    """

    def __init__(self, conv: Any, activation: str = "none", numbers: list[float] | None = None, form: str = "") -> None:
        super().__init__()
        # Not among the rest: where rows beside a band are there, it is computed without.
        self.padding = tuple(conv.padding)
        self._geometry = (list(conv.stride), list(conv.dilation), conv.groups)
        self._activation = (activation, numbers or [], form)
        self._plain, self._bias = conv.weight.detach(), None if conv.bias is None else conv.bias.detach()
        self.takes_parts = _can_sum(conv, self._plain.dtype, activation)
        self._outputs = len(self._plain)
        # By the channels of its parts, and whether two columns are computed at once.
        self._weights: dict[tuple[tuple[int, ...], bool], list[_Weight]] = {}
        self._can_pair = can_pair(conv)

    def forward(self, x: Tensor | tuple[Tensor, ...]) -> Tensor:
        """Return the convolved features of a tensor, or of the parts of one."""
        parts = x if isinstance(x, tuple) else (x,)
        if not is_summed(parts, self._outputs):
            parts = (torch.cat(parts, dim=1),)
        padding = list(self.padding)
        paired = self._can_pair and all(pairs_pay(part) for part in parts)
        if not paired:
            return self._summed(parts, padding, self._split(parts, paired), self._bias)
        weights, bias = self._split(parts, paired), None if self._bias is None else self._bias.repeat(2)
        parts = tuple(as_pairs(with_margin(part, padding[-1])) for part in parts)
        return as_columns(self._summed(parts, [*padding[:-1], 0], weights, bias))

    def _summed(
        self, parts: tuple[Tensor, ...], padding: list[int], weights: list[_Weight], bias: Tensor | None
    ) -> Tensor:
        where, fused = (padding, *self._geometry), torch.ops.mkldnn

        def reordered(weight: Tensor, size: list[int]) -> Tensor:
            found: Tensor = fused._reorder_convolution_weight(weight, *where, size)
            return found

        packed = [weight.packed(part, reordered) for weight, part in zip(weights, parts, strict=True)]
        alone = self._activation if len(parts) == 1 else ("none", [], "")
        result: Tensor = fused._convolution_pointwise(parts[0], packed[0], bias, *where, *alone)
        for i, (part, weight) in enumerate(zip(parts[1:], packed[1:], strict=True)):
            activation = self._activation[0] if i == len(parts) - 2 else "none"
            fused._convolution_pointwise_.binary(
                result, part, weight, None, *where, "add", 1.0, _AFTER_A_SUM[activation], [], ""
            )
        return result

    def _split(self, parts: tuple[Tensor, ...], paired: bool) -> list[_Weight]:
        key = tuple(part.shape[1] for part in parts), paired
        if key not in self._weights:
            layout = channels_last(self._plain.ndim - 2)
            # Of groups, which are not split, each weight has fewer channels.
            weights = torch.split(self._plain, list(key[0]), dim=1) if len(parts) > 1 else (self._plain,)
            if paired:
                weights = tuple(paired_weight(weight) for weight in weights)
            self._weights[key] = [_Weight(weight.contiguous(memory_format=layout)) for weight in weights]
        return self._weights[key]


def is_summed(parts: tuple[Tensor, ...], outputs: int) -> bool:
    """Return whether parts are summed: each further one reads and writes the sum, a copy does that with the parts."""
    return (len(parts) - 1) * outputs <= sum(part.shape[1] for part in parts)


class CountedConv(nn.Module):
    """What a fused convolution holds and does, of tensors without numbers."""

    def __init__(self, conv: Any) -> None:
        super().__init__()
        self.conv = conv
        self.takes_parts = True

    @property
    def padding(self) -> tuple[int, ...]:
        """That of the convolution."""
        return self.conv.padding  # type: ignore[no-any-return]

    @padding.setter
    def padding(self, padding: tuple[int, ...]) -> None:
        self.conv.padding = padding

    def forward(self, x: Tensor | tuple[Tensor, ...]) -> Tensor:
        """Return features of the right shape."""
        if isinstance(x, tuple) and is_summed(x, self.conv.out_channels):
            channels = sum(part.shape[1] for part in x)
            # As large as the joined features, but of one number.
            x = x[0].new_empty(()).expand(len(x[0]), channels, *x[0].shape[2:])
        return self.conv(torch.cat(x, dim=1) if isinstance(x, tuple) else x)  # type: ignore[no-any-return]


def count_as_fused(network: nn.Module, dtype: torch.dtype) -> None:
    """Let convolutions that will take parts be counted so, in place; batch norms need not have been folded."""
    for module in network.modules():
        if isinstance(module, ConvUnit) and isinstance(module.conv, _Conv):
            normed = not isinstance(module.norm, nn.Identity | nn.BatchNorm2d | nn.BatchNorm3d)
            form = None if normed else _activation_form(module.activation)
            if _can_sum(module.conv, dtype, "none" if form is None else form[0]):
                module.conv = CountedConv(module.conv)


class FusedTransposedConv(nn.Module):
    """Transposed convolution whose weights are in the order that the library wants."""

    def __init__(self, conv: Any) -> None:
        super().__init__()
        weight, bias = conv.weight.detach(), None if conv.bias is None else conv.bias.detach()
        stride = list(conv.stride)
        self._columns = 1
        if stack_pays(conv):
            self._columns, stride[-1] = stride[-1], 1
            weight, bias = stacked_weight(weight), None if bias is None else bias.repeat(self._columns)
        self._weight, self._bias = _Weight(weight.contiguous(memory_format=channels_last(weight.ndim - 2))), bias
        self._geometry = (list(conv.padding), list(conv.output_padding), stride, list(conv.dilation), conv.groups)

    def forward(self, x: Tensor) -> Tensor:
        """Return the convolved features."""
        result: Tensor = torch.ops.mkldnn._convolution_transpose_pointwise(
            x, self._weight.packed(x, self._reordered), self._bias, *self._geometry, "none", [], ""
        )
        return result if self._columns == 1 else as_columns(result, self._columns)

    def _reordered(self, weight: Tensor, size: list[int]) -> Tensor:
        found: Tensor = torch.ops.mkldnn._reorder_convolution_transpose_weight(weight, *self._geometry, size)
        return found


class PairedMaxPool(nn.Module):
    """The maximum of pairs of neighbours, along one axis after the other.

    In bfloat16 that is twice as fast as torch's pooling, which also tells where each maximum lies; else torch pools.
    """

    def __init__(self, pool: Any) -> None:
        super().__init__()
        self.pool = pool
        self._halved = [axis for axis, k in enumerate(_each(pool.kernel_size, pool), start=2) if k == 2]

    @staticmethod
    def fits(pool: Any) -> bool:
        """Return whether a pooling does no more than to halve some axes."""
        kernel = _each(pool.kernel_size, pool)
        plain = not any(_each(pool.padding, pool)) and set(_each(pool.dilation, pool)) == {1} and not pool.ceil_mode
        return plain and set(kernel) <= {1, 2} and kernel == _each(pool.stride, pool)

    def forward(self, x: Tensor) -> Tensor:
        """Return the pooled features."""
        if x.dtype != torch.bfloat16:
            return self.pool(x)  # type: ignore[no-any-return]
        for axis in self._halved:
            before, end = (slice(None),) * axis, x.shape[axis] // 2 * 2
            x = torch.maximum(x[(*before, slice(0, end, 2))], x[(*before, slice(1, end, 2))])
        return x


def _each(number: int | tuple[int, ...], pool: Any) -> tuple[int, ...]:
    """Return a number for each axis of a pooling."""
    return number if isinstance(number, tuple) else (number,) * (2 if isinstance(pool, nn.MaxPool2d) else 3)


@functools.cache
def can_fuse(ndim: int, dtype: torch.dtype) -> bool:
    """Return whether this torch on this processor has the fused operators, and they are right.

    They are not part of torch's public interface, so they are tried on a small example of
    each kind before they are used.
    """
    kinds: tuple[Any, ...] = (nn.Conv2d, nn.ConvTranspose2d) if ndim == 2 else (nn.Conv3d, nn.ConvTranspose3d)
    generator = torch.Generator().manual_seed(0)
    x = torch.rand((1, 8, *(8,) * ndim), generator=generator).to(dtype)
    layout = channels_last(ndim)
    x = x.contiguous(memory_format=layout)
    try:
        with torch.inference_mode():
            conv, up = kinds[0](8, 8, 3, padding=1).to(dtype), kinds[1](8, 8, 2, stride=2).to(dtype)
            conv = conv.to(memory_format=layout)
            expected, found = up(conv(x).relu()), FusedTransposedConv(up)(FusedConv(conv, "relu")(x))
            right = torch.allclose(expected.float(), found.float(), rtol=0.02, atol=0.02)
            fused = FusedConv(conv, "relu")
            if fused.takes_parts:
                right &= torch.allclose(conv(x).relu(), fused((x[:, :3], x[:, 3:])), rtol=0.02, atol=0.02)
            return bool(right)
    except (AttributeError, RuntimeError, TypeError, NotImplementedError):
        return False
