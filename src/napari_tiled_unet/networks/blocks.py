"""The pieces of a U-Net: convolution blocks, and the ways down and up.

Every piece is an :class:`torch.nn.Module` that can also say which of its inputs an
output depends on (``sources``). Put end to end, these answers give a network's exact
receptive field without running it; the contract test checks it against gradients.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from napari_tiled_unet.networks.spec import NetworkSpec, PerAxis

Span = tuple[int, int]
"""First and last index along one axis, both included."""

CONV: dict[int, type[Any]] = {2: nn.Conv2d, 3: nn.Conv3d}
CONV_TRANSPOSED: dict[int, type[Any]] = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
MAX_POOL: dict[int, type[Any]] = {2: nn.MaxPool2d, 3: nn.MaxPool3d}
BATCH_NORM: dict[int, type[Any]] = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
INSTANCE_NORM: dict[int, type[Any]] = {2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}
DROPOUT: dict[int, type[Any]] = {2: nn.Dropout2d, 3: nn.Dropout3d}
LINEAR_MODE: dict[int, str] = {2: "bilinear", 3: "trilinear"}


def _group_norm(channels: int) -> nn.Module:
    groups = max(g for g in range(1, 9) if channels % g == 0)
    return nn.GroupNorm(groups, channels)


NORMS: dict[str, Callable[[int, int], nn.Module]] = {
    "batch": lambda ndim, channels: BATCH_NORM[ndim](channels),
    "instance": lambda ndim, channels: INSTANCE_NORM[ndim](channels, affine=True),
    "group": lambda _, channels: _group_norm(channels),
    "none": lambda _, __: nn.Identity(),
}
ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": lambda: nn.ReLU(inplace=True),
    "leaky-relu": lambda: nn.LeakyReLU(0.01, inplace=True),
    "gelu": nn.GELU,
}


class Piece(nn.Module):
    """A module that knows where its outputs come from."""

    def sources(self, span: Span, axis: int) -> Span:
        """Return the input indices that the outputs in ``span`` depend on.

        Parameters
        ----------
        span : tuple of int
            First and last output index along ``axis``.
        axis : int
            Spatial axis, counted from 0.
        """
        raise NotImplementedError


class ConvUnit(Piece):
    """Convolution, norm, activation, dropout; keeps the size."""

    def __init__(self, spec: NetworkSpec, inputs: int, outputs: int, kernel: PerAxis, *, activate: bool = True) -> None:
        super().__init__()
        self.kernel = kernel
        # A norm with its own offset makes the convolution's bias redundant.
        self.conv = CONV[spec.ndim](
            inputs, outputs, kernel, padding=tuple(k // 2 for k in kernel), bias=spec.norm == "none"
        )
        self.norm = NORMS[spec.norm](spec.ndim, outputs)
        self.activation = ACTIVATIONS[spec.activation]() if activate else nn.Identity()
        self.dropout = DROPOUT[spec.ndim](spec.dropout) if spec.dropout else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(self.activation(self.norm(self.conv(x))))  # type: ignore[no-any-return]

    def sources(self, span: Span, axis: int) -> Span:
        reach = self.kernel[axis] // 2
        return span[0] - reach, span[1] + reach


class PlainBlock(Piece):
    """Convolution units one after the other (Ronneberger et al. 2015)."""

    def __init__(self, spec: NetworkSpec, inputs: int, outputs: int, kernel: PerAxis) -> None:
        super().__init__()
        self.units = nn.ModuleList(
            ConvUnit(spec, inputs if i == 0 else outputs, outputs, kernel) for i in range(spec.convs_per_block)
        )

    def forward(self, x: Tensor) -> Tensor:
        for unit in self.units:
            x = unit(x)
        return x

    def sources(self, span: Span, axis: int) -> Span:
        for unit in reversed(self.units):
            span = unit.sources(span, axis)  # type: ignore[operator]
        return span


class ResidualBlock(Piece):
    """Convolution units beside a shortcut, summed, then activated (He et al. 2015)."""

    def __init__(self, spec: NetworkSpec, inputs: int, outputs: int, kernel: PerAxis) -> None:
        super().__init__()
        last = spec.convs_per_block - 1
        self.units = nn.ModuleList(
            ConvUnit(spec, inputs if i == 0 else outputs, outputs, kernel, activate=i < last) for i in range(last + 1)
        )
        self.shortcut = (
            nn.Identity()
            if inputs == outputs
            else ConvUnit(spec.model_copy(update={"dropout": 0.0}), inputs, outputs, (1,) * spec.ndim, activate=False)
        )
        self.activation = ACTIVATIONS[spec.activation]()

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for unit in self.units:
            y = unit(y)
        return self.activation(y + self.shortcut(x))  # type: ignore[no-any-return]

    def sources(self, span: Span, axis: int) -> Span:
        for unit in reversed(self.units):
            span = unit.sources(span, axis)  # type: ignore[operator]
        return span


BLOCKS: dict[str, Callable[[NetworkSpec, int, int, PerAxis], Piece]] = {
    "plain": PlainBlock,
    "residual": ResidualBlock,
}


class MaxPool(Piece):
    """The strongest of each ``factor`` voxels; nothing is mixed."""

    def __init__(self, spec: NetworkSpec, channels: int, factor: PerAxis) -> None:  # noqa: ARG002 - as the others
        super().__init__()
        self.factor = factor
        self.pool = MAX_POOL[spec.ndim](factor)

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(x)  # type: ignore[no-any-return]

    def sources(self, span: Span, axis: int) -> Span:
        factor = self.factor[axis]
        return span[0] * factor, span[1] * factor + factor - 1


class StridedConv(Piece):
    """A learned way down: convolution with stride, then norm and activation."""

    def __init__(self, spec: NetworkSpec, channels: int, factor: PerAxis) -> None:
        super().__init__()
        self.factor = factor
        self.kernel = tuple(2 * (f // 2) + 1 for f in factor)
        self.conv = CONV[spec.ndim](
            channels,
            channels,
            self.kernel,
            stride=factor,
            padding=tuple(k // 2 for k in self.kernel),
            bias=spec.norm == "none",
        )
        self.norm = NORMS[spec.norm](spec.ndim, channels)
        self.activation = ACTIVATIONS[spec.activation]()

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.norm(self.conv(x)))  # type: ignore[no-any-return]

    def sources(self, span: Span, axis: int) -> Span:
        factor, reach = self.factor[axis], self.kernel[axis] // 2
        return span[0] * factor - reach, span[1] * factor + reach


DOWNSAMPLES: dict[str, Callable[[NetworkSpec, int, PerAxis], Piece]] = {
    "max-pool": MaxPool,
    "strided-conv": StridedConv,
}


class TransposedConv(Piece):
    """A learned way up; kernel equals stride, so every output is covered once."""

    def __init__(self, spec: NetworkSpec, inputs: int, outputs: int, factor: PerAxis) -> None:
        super().__init__()
        self.factor = factor
        self.conv = CONV_TRANSPOSED[spec.ndim](inputs, outputs, factor, stride=factor)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)  # type: ignore[no-any-return]

    def sources(self, span: Span, axis: int) -> Span:
        factor = self.factor[axis]
        return span[0] // factor, span[1] // factor


class InterpolatedConv(Piece):
    """Nearest or linear interpolation, then a convolution unit."""

    def __init__(self, spec: NetworkSpec, inputs: int, outputs: int, factor: PerAxis) -> None:
        super().__init__()
        self.factor = factor
        self.linear = spec.upsample == "linear"
        mode = LINEAR_MODE[spec.ndim] if self.linear else "nearest"
        self.interpolation = nn.Upsample(
            scale_factor=tuple(float(f) for f in factor), mode=mode, align_corners=False if self.linear else None
        )
        self.unit = ConvUnit(
            spec.model_copy(update={"dropout": 0.0}), inputs, outputs, tuple(3 if f > 1 else 1 for f in factor)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.unit(self.interpolation(x))  # type: ignore[no-any-return]

    def sources(self, span: Span, axis: int) -> Span:
        first, last = self.unit.sources(span, axis)
        factor = self.factor[axis]
        if not self.linear or factor == 1:
            return first // factor, last // factor
        # Half-pixel centres: output i lies at (i + 0.5) / factor - 0.5 of the input.
        return (
            math.floor((first + 0.5) / factor - 0.5),
            math.ceil((last + 0.5) / factor - 0.5),
        )


UPSAMPLES: dict[str, Callable[[NetworkSpec, int, int, PerAxis], Piece]] = {
    "transposed": TransposedConv,
    "nearest": InterpolatedConv,
    "linear": InterpolatedConv,
}


def reflected_indices(size: int, padded: int) -> Tensor:
    """Return the indices that extend an axis to ``padded`` by reflection at its far end.

    The border voxel is not repeated (``numpy.pad`` mode ``reflect``), however often the
    reflection has to turn; an axis of one voxel repeats it.
    """
    positions = torch.arange(padded)
    if size == 1:
        return torch.zeros_like(positions)
    positions = positions % (2 * (size - 1))
    return torch.where(positions < size, positions, 2 * (size - 1) - positions)
