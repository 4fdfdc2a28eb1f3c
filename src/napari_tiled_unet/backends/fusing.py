"""A network rewritten for speed on a processor: fewer passes over memory, same outputs.

Batch norms go into the convolution before them; an activation is applied while the
convolution still holds its results in registers; weights are reordered once, for the
tiles that come, and not at every call. The operators are those that torch's own compiler
emits for x86 processors; called directly they need no compiler and no warm-up.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from napari_tiled_unet.networks.blocks import ConvUnit
from napari_tiled_unet.networks.resampling import StridedConv

_Conv = nn.Conv2d | nn.Conv3d
_Transposed = nn.ConvTranspose2d | nn.ConvTranspose3d


def fold_norms(network: nn.Module) -> None:
    """Fold every batch norm into the convolution before it, in place; same outputs."""
    for module in network.modules():
        # A module with several pairs names them.
        for conv_name, norm_name in getattr(module, "folds", (("conv", "norm"),)):
            conv, norm = getattr(module, conv_name, None), getattr(module, norm_name, None)
            if isinstance(norm, nn.BatchNorm2d | nn.BatchNorm3d) and isinstance(conv, _Conv):
                setattr(module, conv_name, fuse_conv_bn_eval(conv, norm))
                setattr(module, norm_name, nn.Identity())


def fuse_convolutions(network: nn.Module) -> None:
    """Replace convolutions by fused ones, in place; batch norms must have been folded."""
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


class _Packed(nn.Module):
    """A convolution whose weights are reordered at its first call, for that size of input."""

    def __init__(self, conv: Any) -> None:
        super().__init__()
        self.weight: Tensor = conv.weight.detach()
        self.bias: Tensor | None = None if conv.bias is None else conv.bias.detach()
        self.packed = False

    def _pack(self, size: list[int]) -> None:
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """Return the convolved features."""
        if not self.packed:
            self._pack(list(x.shape))
            self.packed = True
        return self._convolve(x)

    def _convolve(self, x: Tensor) -> Tensor:
        raise NotImplementedError


# Activations that the library applies to a sum of convolutions, and how it calls them there.
_AFTER_A_SUM: dict[str, str | None] = {"none": None, "relu": "relu"}
# Number formats of sums; in bfloat16 the sum so far is rounded once more, as all features are.
_SUMMED = (torch.float32, torch.bfloat16)


def _can_sum(conv: Any, dtype: torch.dtype, activation: str) -> bool:
    return conv.groups == 1 and dtype in _SUMMED and activation in _AFTER_A_SUM


class FusedConv(_Packed):
    """Convolution and activation in one pass; of several tensors as if they were concatenated along the channels.

    A convolution of joined channels is the sum of those of the parts, each added to what is there while it is still in
    registers, so that nothing is copied.
    """

    def __init__(self, conv: Any, activation: str = "none", numbers: list[float] | None = None, form: str = "") -> None:
        super().__init__(conv)
        # Not among the rest: where rows beside a band are there, it is computed without.
        self.padding = tuple(conv.padding)
        self._geometry = (list(conv.stride), list(conv.dilation), conv.groups)
        self._activation = (activation, numbers or [], form)
        self.takes_parts = _can_sum(conv, self.weight.dtype, activation)
        self._outputs, self._parts = len(self.weight), list[Tensor]()

    def forward(self, x: Tensor | tuple[Tensor, ...]) -> Tensor:
        """Return the convolved features of a tensor, or of the parts of one."""
        if not isinstance(x, tuple):
            return super().forward(x)
        return self._sum(x) if is_summed(x, self._outputs) else super().forward(torch.cat(x, dim=1))

    def _sum(self, parts: tuple[Tensor, ...]) -> Tensor:
        if not self._parts:
            layout = torch.channels_last if self.weight.ndim == 4 else torch.channels_last_3d
            weights = torch.split(self.weight, [part.shape[1] for part in parts], dim=1)
            self._parts = [
                self._reordered(weight.contiguous(memory_format=layout), list(part.shape))
                for weight, part in zip(weights, parts, strict=True)
            ]
            # A node always joins in the same way, so the whole is not asked for again.
            self.weight = self.weight.new_empty(0)
        where, fused = (list(self.padding), *self._geometry), torch.ops.mkldnn
        result: Tensor = fused._convolution_pointwise(parts[0], self._parts[0], self.bias, *where, "none", [], "")
        for i, (part, weight) in enumerate(zip(parts[1:], self._parts[1:], strict=True)):
            activation = self._activation[0] if i == len(parts) - 2 else "none"
            fused._convolution_pointwise_.binary(
                result, part, weight, None, *where, "add", 1.0, _AFTER_A_SUM[activation], [], ""
            )
        return result

    def _pack(self, size: list[int]) -> None:
        self.weight = self._reordered(self.weight, size)

    def _reordered(self, weight: Tensor, size: list[int]) -> Tensor:
        found: Tensor = torch.ops.mkldnn._reorder_convolution_weight(weight, list(self.padding), *self._geometry, size)
        return found

    def _convolve(self, x: Tensor) -> Tensor:
        result: Tensor = torch.ops.mkldnn._convolution_pointwise(
            x, self.weight, self.bias, list(self.padding), *self._geometry, *self._activation
        )
        return result


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


class FusedTransposedConv(_Packed):
    """Transposed convolution with weights reordered once."""

    def __init__(self, conv: Any) -> None:
        super().__init__(conv)
        self._geometry = (
            list(conv.padding),
            list(conv.output_padding),
            list(conv.stride),
            list(conv.dilation),
            conv.groups,
        )

    def _pack(self, size: list[int]) -> None:
        self.weight = torch.ops.mkldnn._reorder_convolution_transpose_weight(self.weight, *self._geometry, size)

    def _convolve(self, x: Tensor) -> Tensor:
        result: Tensor = torch.ops.mkldnn._convolution_transpose_pointwise(
            x, self.weight, self.bias, *self._geometry, "none", [], ""
        )
        return result


@functools.cache
def can_fuse(ndim: int, dtype: torch.dtype) -> bool:
    """Return whether this torch on this processor has the fused operators, and they are right.

    They are not part of torch's public interface, so they are tried on a small example of
    each kind before they are used.
    """
    kinds: tuple[Any, ...] = (nn.Conv2d, nn.ConvTranspose2d) if ndim == 2 else (nn.Conv3d, nn.ConvTranspose3d)
    generator = torch.Generator().manual_seed(0)
    x = torch.rand((1, 8, *(8,) * ndim), generator=generator).to(dtype)
    layout = torch.channels_last if ndim == 2 else torch.channels_last_3d
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
