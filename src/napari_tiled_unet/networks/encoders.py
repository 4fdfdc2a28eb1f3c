"""Encoders: an image in, one feature map per level out, finest first.

The contract that decoders rely on: ``channels``, ``strides``, ``factors`` and ``mirror``
per level, ``forward`` giving the list of features, ``sources`` giving where a level's
outputs come from. ``uses`` names the choices of a spec that the encoder reads; ``whole``
names what in it looks at the whole image, if anything does.
"""

from __future__ import annotations

from torch import Tensor, nn

from napari_tiled_unet.networks.backbones import BACKBONES
from napari_tiled_unet.networks.blocks import BLOCKS, Span
from napari_tiled_unet.networks.bodies import BODIES, Recentre
from napari_tiled_unet.networks.resampling import DOWNSAMPLES
from napari_tiled_unet.networks.spec import NetworkSpec, PerAxis


class Encoder(nn.Module):
    """Levels of an image, each at its stride.

    Attributes
    ----------
    channels : tuple of int
        Channels per level, finest first.
    strides : tuple of tuple of int
        Downsampling of each level against the image, per axis.
    factors : tuple of tuple of int
        Downsampling from each level to the next, per axis.
    mirror : tuple of int
        Channels that a decoder takes at each level.
    whole : str
        What in it looks at the whole image; empty if nothing does.
    """

    uses: frozenset[str] = frozenset()
    whole = ""

    def __init__(self, spec: NetworkSpec) -> None:
        super().__init__()
        self.channels = spec.channels
        self.mirror = spec.channels
        self.factors: tuple[PerAxis, ...] = spec.downsampling
        strides: list[PerAxis] = [(1,) * spec.ndim]
        for factor in self.factors:
            strides.append(tuple(s * f for s, f in zip(strides[-1], factor, strict=True)))
        self.strides = tuple(strides)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the features of every level, finest first."""
        raise NotImplementedError

    def sources(self, level: int, span: Span, axis: int) -> Span:
        """Return the image indices that the outputs of a level in ``span`` depend on."""
        raise NotImplementedError


class BlockEncoder(Encoder):
    """Blocks with a downsampling between them; the last level is the bottleneck."""

    uses = frozenset({"kernels", "convs_per_block", "block", "downsample", "max_width"})

    def __init__(self, spec: NetworkSpec) -> None:
        super().__init__(spec)
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
        features = [self.blocks[0](x)]
        for down, block in zip(self.downs, list(self.blocks)[1:], strict=True):
            features.append(block(down(features[-1])))
        return features

    def sources(self, level: int, span: Span, axis: int) -> Span:
        span = self.blocks[level].sources(span, axis)  # type: ignore[operator]
        for k in reversed(range(level)):
            span = self.downs[k].sources(span, axis)  # type: ignore[operator]
            span = self.blocks[k].sources(span, axis)  # type: ignore[operator]
        return span


class BackboneEncoder(Encoder):
    """A published encoder, with a block of its own at the resolution of the image.

    Published encoders start by halving the image, with kernels of odd size: the features of
    stride s lie (s - 1) / 2 voxels beside the voxels that they stand for. Each level is moved
    back by interpolation, so that what a decoder joins lies one on the other.
    """

    uses = frozenset({"kernels", "convs_per_block", "block"})

    def __init__(self, spec: NetworkSpec) -> None:
        super().__init__(spec)
        # A decoder as wide as its encoder would be larger than it.
        self.mirror = tuple(min(c, self.channels[0] << level) for level, c in enumerate(self.channels))
        self.finest = BLOCKS[spec.block](spec, spec.in_channels, self.channels[0], spec.kernels[0])
        self.body = BODIES[BACKBONES[spec.encoder].kind](spec)
        self.whole = self.body.whole
        self.recentre = nn.ModuleList(
            Recentre(tuple(((s - 1) / 2 - c) / s for s, c in zip(stride, centre, strict=True)))
            for stride, centre in zip(self.strides[1:], self.body.centres, strict=True)
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        coarser = self.body(x)
        return [self.finest(x), *(move(f) for move, f in zip(self.recentre, coarser, strict=True))]

    def sources(self, level: int, span: Span, axis: int) -> Span:
        if level == 0:
            return self.finest.sources(span, axis)
        span = self.recentre[level - 1].sources(span, axis)  # type: ignore[operator]
        return self.body.sources(level, span, axis)


ENCODERS: dict[str, type[Encoder]] = {
    "unet": BlockEncoder,
    **dict.fromkeys(BACKBONES, BackboneEncoder),
}
