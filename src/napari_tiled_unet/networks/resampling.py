"""The ways between levels: down, up, and the border that makes any size fit."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_tiled_unet.networks.blocks import (
    ACTIVATIONS,
    CONV,
    CONV_TRANSPOSED,
    MAX_POOL,
    NORMS,
    ConvUnit,
    Piece,
    Span,
)
from napari_tiled_unet.networks.spec import NetworkSpec, PerAxis

LINEAR_MODE: dict[int, str] = {2: "bilinear", 3: "trilinear"}
CONVOLVE: dict[int, Callable[..., Any]] = {2: functional.conv2d, 3: functional.conv3d}


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
    """A learned way down: convolution with stride, then norm and activation.

    The kernel reaches one voxel past its ``factor`` voxels on either side, so that it is
    centred on them; the usual kernel of 3 would move the features by half a voxel.
    """

    def __init__(self, spec: NetworkSpec, channels: int, factor: PerAxis) -> None:
        super().__init__()
        self.factor = factor
        self.reach = tuple(int(f > 1) for f in factor)
        self.conv = CONV[spec.ndim](
            channels,
            channels,
            tuple(f + 2 * r for f, r in zip(factor, self.reach, strict=True)),
            stride=factor,
            padding=self.reach,
            bias=spec.norm == "none",
        )
        self.norm = NORMS[spec.norm](spec.ndim, channels)
        self.activation = ACTIVATIONS[spec.activation]()

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.norm(self.conv(x)))  # type: ignore[no-any-return]

    def sources(self, span: Span, axis: int) -> Span:
        factor, reach = self.factor[axis], self.reach[axis]
        return span[0] * factor - reach, span[1] * factor + factor - 1 + reach


class BlurPool(Piece):
    """Max-pool that shifts less: the maximum at every voxel, blurred before it is subsampled (Zhang 2019).

    References
    ----------
    .. [1] R. Zhang, "Making Convolutional Networks Shift-Invariant Again", ICML 2019, arXiv:1904.11486
    """

    kernel: Tensor

    def __init__(self, spec: NetworkSpec, channels: int, factor: PerAxis) -> None:
        super().__init__()
        self.factor, self.channels = factor, channels
        self.reach = tuple(f // 2 for f in factor)
        self.pool = MAX_POOL[spec.ndim](factor, stride=1)
        self.convolve = CONVOLVE[spec.ndim]
        kernel = torch.ones(())
        for reach in self.reach:
            row = torch.tensor([float(math.comb(2 * reach, k)) for k in range(2 * reach + 1)]) / 4**reach
            kernel = kernel[..., None] * row
        # It follows from the factor, so it is not stored with the weights.
        self.register_buffer("kernel", kernel.expand(channels, 1, *kernel.shape).clone(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        padding = [r for reach in reversed(self.reach) for r in (reach, reach)]
        x = self.pool(functional.pad(x, padding, mode="replicate"))
        return self.convolve(x, self.kernel.to(x.dtype), stride=self.factor, groups=self.channels)  # type: ignore[no-any-return]

    def sources(self, span: Span, axis: int) -> Span:
        factor, reach = self.factor[axis], self.reach[axis]
        return span[0] * factor - reach, span[1] * factor + factor - 1 + reach


DOWNSAMPLES: dict[str, Callable[[NetworkSpec, int, PerAxis], Piece]] = {
    "max-pool": MaxPool,
    "strided-conv": StridedConv,
    "blur-pool": BlurPool,
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


class Interpolate(Piece):
    """Nearest or linear interpolation with half-pixel centres; no weights."""

    def __init__(self, ndim: int, factor: PerAxis, *, linear: bool) -> None:
        super().__init__()
        self.factor, self.linear = factor, linear
        self.interpolation = nn.Upsample(
            scale_factor=tuple(float(f) for f in factor),
            mode=LINEAR_MODE[ndim] if linear else "nearest",
            align_corners=False if linear else None,
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.interpolation(x)  # type: ignore[no-any-return]

    def sources(self, span: Span, axis: int) -> Span:
        (first, last), factor = span, self.factor[axis]
        if not self.linear or factor == 1:
            return first // factor, last // factor
        # Output i lies at (i + 0.5) / factor - 0.5 of the input.
        return math.floor((first + 0.5) / factor - 0.5), math.ceil((last + 0.5) / factor - 0.5)


class InterpolatedConv(Piece):
    """Nearest or linear interpolation, then a convolution unit (Odena et al. 2016)."""

    def __init__(self, spec: NetworkSpec, inputs: int, outputs: int, factor: PerAxis) -> None:
        super().__init__()
        self.interpolation = Interpolate(spec.ndim, factor, linear=spec.upsample == "linear")
        kernel = tuple(3 if f > 1 else 1 for f in factor)
        self.unit = ConvUnit(spec.model_copy(update={"dropout": 0.0}), inputs, outputs, kernel)

    def forward(self, x: Tensor) -> Tensor:
        return self.unit(self.interpolation(x))  # type: ignore[no-any-return]

    def sources(self, span: Span, axis: int) -> Span:
        return self.interpolation.sources(self.unit.sources(span, axis), axis)


class PixelShuffle(Piece):
    """A convolution that gives every finer voxel channels of its own, which are then sorted into place.

    Starts as nearest interpolation, so that no grid is there to begin with.

    References
    ----------
    .. [1] W. Shi et al., "Real-time single image and video super-resolution using an efficient
           sub-pixel convolutional neural network", CVPR 2016, arXiv:1609.05158
    .. [2] A. Aitken et al., "Checkerboard artifact free sub-pixel convolution", 2017, arXiv:1707.02937
    """

    def __init__(self, spec: NetworkSpec, inputs: int, outputs: int, factor: PerAxis) -> None:
        super().__init__()
        self.factor, self.outputs = factor, outputs
        self.kernel = tuple(3 if f > 1 else 1 for f in factor)
        padding = tuple(k // 2 for k in self.kernel)
        self.conv = CONV[spec.ndim](inputs, outputs * math.prod(factor), self.kernel, padding=padding)

    def initialise(self) -> None:
        """Give the finer voxels of a coarse one the same weights (ICNR)."""
        parts = math.prod(self.factor)
        with torch.no_grad():
            self.conv.weight.copy_(self.conv.weight[::parts].repeat_interleave(parts, 0))

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        n, ndim, sides = y.shape[0], len(self.factor), y.shape[2:]
        y = y.reshape(n, self.outputs, *self.factor, *sides)
        order = [0, 1, *(a for k in range(ndim) for a in (2 + ndim + k, 2 + k))]
        return y.permute(order).reshape(n, self.outputs, *(s * f for s, f in zip(sides, self.factor, strict=True)))  # type: ignore[no-any-return]

    def sources(self, span: Span, axis: int) -> Span:
        factor, reach = self.factor[axis], self.kernel[axis] // 2
        return span[0] // factor - reach, span[1] // factor + reach


UPSAMPLES: dict[str, Callable[[NetworkSpec, int, int, PerAxis], Piece]] = {
    "transposed": TransposedConv,
    "nearest": InterpolatedConv,
    "linear": InterpolatedConv,
    "pixel-shuffle": PixelShuffle,
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
