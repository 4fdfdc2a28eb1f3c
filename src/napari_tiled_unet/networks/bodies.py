"""The published encoders: ResNet and EfficientNet, in 2D and 3D.

Their tensors have the names and shapes of MONAI's (and, for ResNets, torchvision's)
implementations, so that pretrained weights map one to one
(:mod:`napari_tiled_unet.networks.pretrained`). Only the stages that ``depth`` asks for are
built. Blocks that can be folded at inference say so in ``folds``.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from napari_tiled_unet.networks.backbones import BACKBONES, Stage, scaled_blocks, scaled_channels
from napari_tiled_unet.networks.blocks import ACTIVATIONS, CONV, MAX_POOL, NORMS, Piece, Span
from napari_tiled_unet.networks.spec import NetworkSpec, PerAxis


class Recentre(Piece):
    """Move features by a part of a voxel, by linear interpolation; the border voxel is repeated."""

    def __init__(self, parts: tuple[float, ...]) -> None:
        super().__init__()
        self.parts = parts

    def forward(self, x: Tensor) -> Tensor:
        for axis, part in enumerate(self.parts, start=2):
            if part == 0:
                continue
            shifted, border = (slice(1, None), slice(-1, None)) if part > 0 else (slice(None, -1), slice(None, 1))
            # Sliced by constants, which every converter knows, and not by the size.
            before = (slice(None),) * axis
            pieces = [x[(*before, shifted)], x[(*before, border)]]
            beside = torch.cat(pieces if part > 0 else pieces[::-1], dim=axis)
            x = x + abs(part) * (beside - x)
        return x

    def sources(self, span: Span, axis: int) -> Span:
        part = self.parts[axis]
        return span[0] - (part < 0), span[1] + (part > 0)


def _window(span: Span, kernel: int, stride: int, before: int) -> Span:
    return span[0] * stride - before, span[1] * stride - before + kernel - 1


class Body(nn.Module):
    """The coarser levels of a published encoder.

    Attributes
    ----------
    whole : str
        What in it looks at the whole image.
    """

    whole = ""

    def __init__(self, spec: NetworkSpec) -> None:
        super().__init__()
        self.backbone = BACKBONES[spec.encoder]
        self._centres: list[tuple[float, ...]] = []

    @property
    def centres(self) -> tuple[tuple[float, ...], ...]:
        """Per level from 1 and axis, where in the image its first voxel is centred."""
        return tuple(self._centres)

    def _centred(self, factors: tuple[PerAxis, ...], offset: Callable[[int, int], float]) -> None:
        """Note where each level lies; ``offset`` is that of a step against the finer level, by level and factor."""
        centre, stride = (0.0,) * len(factors[0]), (1,) * len(factors[0])
        for level, factor in enumerate(factors):
            centre = tuple(c + s * offset(level, f) for c, s, f in zip(centre, stride, factor, strict=True))
            stride = tuple(s * f for s, f in zip(stride, factor, strict=True))
            self._centres.append(centre)

    def sources(self, level: int, span: Span, axis: int) -> Span:
        """Return the image indices that the outputs of a level in ``span`` depend on."""
        raise NotImplementedError


class ResNetBlock(Piece):
    """Two convolutions of 3, or 1-3-1 where the stage expands, beside a shortcut."""

    def __init__(self, spec: NetworkSpec, inputs: int, outputs: int, expansion: int, factor: PerAxis) -> None:
        super().__init__()
        ndim, bias, inner = spec.ndim, spec.norm == "none", max(1, outputs // expansion)
        self.factor, one = factor, (1,) * ndim
        kernels = (3, 3) if expansion == 1 else (1, 3, 1)
        strided = kernels.index(3)
        channels = (inputs, *(inner,) * (len(kernels) - 1), outputs)
        self.folds = tuple((f"conv{i}", f"bn{i}") for i in range(1, len(kernels) + 1))
        self.spread = [(k, factor if i == strided else one) for i, k in enumerate(kernels)]
        for i, (kernel, stride) in enumerate(self.spread):
            conv = CONV[ndim](channels[i], channels[i + 1], kernel, stride=stride, padding=kernel // 2, bias=bias)
            self.add_module(f"conv{i + 1}", conv)
            self.add_module(f"bn{i + 1}", NORMS[spec.norm](ndim, channels[i + 1]))
        self.act = ACTIVATIONS[spec.activation]()
        self.downsample = None
        if factor != one or inputs != outputs:
            self.downsample = nn.Sequential(
                CONV[ndim](inputs, outputs, 1, stride=factor, bias=bias), NORMS[spec.norm](ndim, outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for i, (conv, norm) in enumerate(self.folds):
            y = getattr(self, norm)(getattr(self, conv)(y))
            if i < len(self.folds) - 1:
                y = self.act(y)
        return self.act(y + (x if self.downsample is None else self.downsample(x)))  # type: ignore[no-any-return]

    def sources(self, span: Span, axis: int) -> Span:
        for kernel, stride in reversed(self.spread):
            span = _window(span, kernel, stride[axis], kernel // 2)
        return span


class ResNetBody(Body):
    """Convolution of 7, max-pool of 3, then stages of residual blocks (He et al. 2015, arXiv:1512.03385)."""

    folds = (("conv1", "bn1"),)

    def __init__(self, spec: NetworkSpec) -> None:
        super().__init__(spec)
        backbone, ndim = self.backbone, spec.ndim
        channels = scaled_channels(backbone, backbone.stem, spec.width)
        self.factors = spec.downsampling
        self.conv1 = CONV[ndim](
            spec.in_channels, channels, 7, stride=self.factors[0], padding=3, bias=spec.norm == "none"
        )
        self.bn1 = NORMS[spec.norm](ndim, channels)
        self.act = ACTIVATIONS[spec.activation]()
        if spec.depth > 1:
            self.maxpool = MAX_POOL[ndim](3, stride=self.factors[1], padding=1)
        self.n_stages = spec.depth - 1
        for i, stage in enumerate(backbone.stages[: self.n_stages]):
            outputs = scaled_channels(backbone, stage.channels, spec.width)
            factor = (1,) * ndim if i == 0 else self.factors[i + 1]
            blocks = [
                ResNetBlock(
                    spec, channels if k == 0 else outputs, outputs, stage.expansion, factor if k == 0 else (1,) * ndim
                )
                for k in range(stage.blocks)
            ]
            self.add_module(f"layer{i + 1}", nn.Sequential(*blocks))
            channels = outputs
        # Every kernel is odd and centred on the first of its voxels.
        self._centred(self.factors, lambda _level, _factor: 0.0)

    def forward(self, x: Tensor) -> list[Tensor]:
        features = [self.act(self.bn1(self.conv1(x)))]
        for i in range(self.n_stages):
            x = self.maxpool(features[0]) if i == 0 else features[-1]
            features.append(getattr(self, f"layer{i + 1}")(x))
        return features

    def sources(self, level: int, span: Span, axis: int) -> Span:
        for i in reversed(range(level - 1)):
            for block in reversed(getattr(self, f"layer{i + 1}")):
                span = block.sources(span, axis)
        if level > 1:
            span = _window(span, 3, self.factors[1][axis], 1)
        return _window(span, 7, self.factors[0][axis], 3)


class MBConvBlock(Piece):
    """Inverted bottleneck with a depthwise convolution and squeeze-and-excitation.

    Even strides pad as TensorFlow does, one voxel less before than after, for weights were
    trained so.
    """

    def __init__(self, spec: NetworkSpec, inputs: int, outputs: int, stage: Stage, factor: PerAxis) -> None:
        super().__init__()
        ndim, bias = spec.ndim, spec.norm == "none"
        inner = inputs * stage.expansion
        self.kernel, self.factor = stage.kernel, factor
        self.before = tuple(_before(stage.kernel, f) for f in factor)
        self.expands, self.adds = stage.expansion != 1, factor == (1,) * ndim and inputs == outputs
        if self.expands:
            self._expand_conv = CONV[ndim](inputs, inner, 1, bias=bias)
            self._bn0 = _norm(spec, inner)
        self._depthwise_conv = CONV[ndim](inner, inner, stage.kernel, stride=factor, groups=inner, bias=bias)
        self._bn1 = _norm(spec, inner)
        squeezed = max(1, inputs // 4)
        self._se_reduce = CONV[ndim](inner, squeezed, 1)
        self._se_expand = CONV[ndim](squeezed, inner, 1)
        self._project_conv = CONV[ndim](inner, outputs, 1, bias=bias)
        self._bn2 = _norm(spec, outputs)
        self.act = ACTIVATIONS[spec.activation]()
        self.folds: tuple[tuple[str, str], ...] = (("_depthwise_conv", "_bn1"), ("_project_conv", "_bn2"))
        if self.expands:
            self.folds = (("_expand_conv", "_bn0"), *self.folds)

    def forward(self, x: Tensor) -> Tensor:
        y = self.act(self._bn0(self._expand_conv(x))) if self.expands else x
        y = self.act(self._bn1(self._depthwise_conv(_padded(y, self.kernel, self.factor))))
        # The mean of the whole image: what makes tiles of this encoder inexact.
        mean = y.mean(tuple(range(2, y.ndim)), keepdim=True)
        y = y * torch.sigmoid(self._se_expand(self.act(self._se_reduce(mean))))
        y = self._bn2(self._project_conv(y))
        return y + x if self.adds else y  # type: ignore[no-any-return]

    def sources(self, span: Span, axis: int) -> Span:
        return _window(span, self.kernel, self.factor[axis], self.before[axis])


class EfficientNetBody(Body):
    """Stages of inverted bottlenecks (Tan & Le 2019, arXiv:1905.11946); without stochastic depth."""

    folds = (("_conv_stem", "_bn0"),)
    whole = "squeeze-and-excitation"

    def __init__(self, spec: NetworkSpec) -> None:
        super().__init__(spec)
        backbone, ndim = self.backbone, spec.ndim
        channels = scaled_channels(backbone, backbone.stem, spec.width)
        self.factors, one = spec.downsampling, (1,) * ndim
        self._conv_stem = CONV[ndim](spec.in_channels, channels, 3, stride=self.factors[0], bias=spec.norm == "none")
        self._bn0 = _norm(spec, channels)
        self.act = ACTIVATIONS[spec.activation]()
        self._blocks = nn.Sequential()
        self.block_levels: list[int] = []
        kernels, level = [3], 1
        for stage in backbone.stages:
            level += stage.downsamples
            if level > spec.depth:
                break
            if stage.downsamples:
                kernels.append(stage.kernel)
            outputs = scaled_channels(backbone, stage.channels, spec.width)
            for k in range(scaled_blocks(backbone, stage.blocks)):
                factor = self.factors[level - 1] if k == 0 and stage.downsamples else one
                self._blocks.append(MBConvBlock(spec, channels if k == 0 else outputs, outputs, stage, factor))
                self.block_levels.append(level)
            channels = outputs
        self._centred(self.factors, lambda level, f: (kernels[level] - 1) / 2 - _before(kernels[level], f))

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.act(self._bn0(self._conv_stem(_padded(x, 3, self.factors[0]))))
        features: dict[int, Tensor] = {1: x}
        for block, level in zip(self._blocks, self.block_levels, strict=True):
            x = block(x)
            features[level] = x
        return list(features.values())

    def sources(self, level: int, span: Span, axis: int) -> Span:
        for block, its in reversed(list(zip(self._blocks, self.block_levels, strict=True))):
            if its <= level:
                span = block.sources(span, axis)  # type: ignore[operator]
        return _window(span, 3, self.factors[0][axis], _before(3, self.factors[0][axis]))


def _norm(spec: NetworkSpec, channels: int) -> nn.Module:
    norm = NORMS[spec.norm](spec.ndim, channels)
    if isinstance(norm, nn.BatchNorm2d | nn.BatchNorm3d):
        norm.eps, norm.momentum = 1e-3, 0.01
    return norm


def _before(kernel: int, factor: int) -> int:
    return max(kernel - factor, 0) // 2


def _padded(x: Tensor, kernel: int, factor: PerAxis) -> Tensor:
    padding: list[int] = []
    for f in reversed(factor):
        before = _before(kernel, f)
        padding += [before, max(kernel - f, 0) - before]
    return nn.functional.pad(x, padding)


BODIES: dict[str, Callable[[NetworkSpec], Body]] = {"resnet": ResNetBody, "efficientnet": EfficientNetBody}
