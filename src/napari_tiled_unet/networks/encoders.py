"""Encoders: an image in, one feature map per level out, finest first.

The contract that decoders rely on: ``channels`` and ``strides`` per level,
``forward`` giving the list of features, ``sources`` giving where a level's outputs
come from.
"""

from __future__ import annotations

from torch import Tensor, nn

from napari_tiled_unet.networks.blocks import BLOCKS, DOWNSAMPLES, Span
from napari_tiled_unet.networks.spec import NetworkSpec, PerAxis


class Encoder(nn.Module):
    """Blocks with a downsampling between them; the last level is the bottleneck.

    Attributes
    ----------
    channels : tuple of int
        Channels per level, finest first.
    strides : tuple of tuple of int
        Downsampling of each level against the image, per axis.
    factors : tuple of tuple of int
        Downsampling from each level to the next, per axis.
    """

    def __init__(self, spec: NetworkSpec) -> None:
        super().__init__()
        self.channels = spec.channels
        self.factors: tuple[PerAxis, ...] = spec.downsampling
        strides: list[PerAxis] = [(1,) * spec.ndim]
        for factor in self.factors:
            strides.append(tuple(s * f for s, f in zip(strides[-1], factor, strict=True)))
        self.strides = tuple(strides)
        inputs = (spec.in_channels, *self.channels[:-1])
        self.blocks = nn.ModuleList(
            BLOCKS[spec.block](spec, i, o, kernel)
            for i, o, kernel in zip(inputs, self.channels, spec.kernels, strict=True)
        )
        self.downs = nn.ModuleList(
            DOWNSAMPLES[spec.downsample](spec, channels, factor)
            for channels, factor in zip(self.channels, self.factors, strict=False)
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the features of every level, finest first."""
        features = [self.blocks[0](x)]
        for down, block in zip(self.downs, list(self.blocks)[1:], strict=True):
            features.append(block(down(features[-1])))
        return features

    def sources(self, level: int, span: Span, axis: int) -> Span:
        """Return the image indices that the outputs of a level in ``span`` depend on."""
        span = self.blocks[level].sources(span, axis)  # type: ignore[operator]
        for k in reversed(range(level)):
            span = self.downs[k].sources(span, axis)  # type: ignore[operator]
            span = self.blocks[k].sources(span, axis)  # type: ignore[operator]
        return span


ENCODERS = {"unet": Encoder}
