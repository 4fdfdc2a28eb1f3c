"""The pieces of a U-Net: convolution units, norms, activations and blocks.

Every piece is an :class:`torch.nn.Module` that can also say which of its inputs an
output depends on (``sources``). Put end to end, these answers give a network's exact
receptive field without running it; the contract test checks it against gradients.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

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


class ChannelNorm(nn.Module):
    """Layer norm over the channels of each voxel (Ba et al. 2016, as in ConvNeXt): it looks at no other voxel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x.movedim(1, -1)).movedim(-1, 1)  # type: ignore[no-any-return]


def _group_norm(channels: int) -> nn.Module:
    groups = max(g for g in range(1, 9) if channels % g == 0)
    return nn.GroupNorm(groups, channels)


NORMS: dict[str, Callable[[int, int], nn.Module]] = {
    "batch": lambda ndim, channels: BATCH_NORM[ndim](channels),
    "instance": lambda ndim, channels: INSTANCE_NORM[ndim](channels, affine=True),
    "group": lambda _, channels: _group_norm(channels),
    "layer": lambda _, channels: ChannelNorm(channels),
    "none": lambda _, __: nn.Identity(),
}
ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": lambda: nn.ReLU(inplace=True),
    "leaky-relu": lambda: nn.LeakyReLU(0.01, inplace=True),
    "gelu": nn.GELU,
    "silu": lambda: nn.SiLU(inplace=True),
}


class Piece(nn.Module):
    """A module that knows where its outputs come from."""

    @property
    def takes_parts(self) -> bool:
        """Whether it takes a tuple of features as if they were concatenated along the channels."""
        return False

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


class Chain(Piece):
    """Pieces one after the other."""

    def __init__(self, *pieces: Piece) -> None:
        super().__init__()
        self.pieces = nn.ModuleList(pieces)

    def forward(self, x: Tensor) -> Tensor:
        for piece in self.pieces:
            x = piece(x)
        return x

    def sources(self, span: Span, axis: int) -> Span:
        for piece in reversed(self.pieces):
            span = piece.sources(span, axis)  # type: ignore[operator]
        return span


class ConvUnit(Piece):
    """Convolution, norm, activation, dropout; keeps the size.

    Attributes
    ----------
    voxel_work : int
        Multiply-adds per number that it gives.
    """

    def __init__(self, spec: NetworkSpec, inputs: int, outputs: int, kernel: PerAxis, *, activate: bool = True) -> None:
        super().__init__()
        self.kernel, self.voxel_work = kernel, inputs * math.prod(kernel)
        # A norm with its own offset makes the convolution's bias redundant.
        self.conv = CONV[spec.ndim](
            inputs, outputs, kernel, padding=tuple(k // 2 for k in kernel), bias=spec.norm == "none"
        )
        self.norm = NORMS[spec.norm](spec.ndim, outputs)
        self.activation = ACTIVATIONS[spec.activation]() if activate else nn.Identity()
        self.dropout = DROPOUT[spec.ndim](spec.dropout) if spec.dropout else nn.Identity()

    @property
    def takes_parts(self) -> bool:
        return bool(getattr(self.conv, "takes_parts", False))

    def forward(self, x: Tensor | tuple[Tensor, ...]) -> Tensor:
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

    @property
    def takes_parts(self) -> bool:
        return self.units[0].takes_parts  # type: ignore[return-value]

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
