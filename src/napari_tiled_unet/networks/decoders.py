"""Decoders: the features of an encoder in, one full-resolution feature map out.

A decoder knows its encoder only by the contract: ``channels``, ``factors``,
``sources``.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from napari_tiled_unet.networks.blocks import BLOCKS, UPSAMPLES, Span
from napari_tiled_unet.networks.encoders import Encoder
from napari_tiled_unet.networks.spec import NetworkSpec


class UNetDecoder(nn.Module):
    """Upsample, concatenate the skip of the same resolution, convolve; level by level.

    Attributes
    ----------
    channels : int
        Channels of the full-resolution output.

    References
    ----------
    .. [1] O. Ronneberger, P. Fischer, T. Brox, "U-Net: Convolutional Networks for
           Biomedical Image Segmentation", MICCAI 2015, arXiv:1505.04597
    """

    def __init__(self, spec: NetworkSpec, encoder: Encoder) -> None:
        super().__init__()
        self.channels = encoder.channels[0]
        levels = range(len(encoder.factors))
        self.ups = nn.ModuleList(
            UPSAMPLES[spec.upsample](spec, encoder.channels[i + 1], encoder.channels[i], encoder.factors[i])
            for i in levels
        )
        self.blocks = nn.ModuleList(
            BLOCKS[spec.block](spec, 2 * encoder.channels[i], encoder.channels[i], spec.kernels[i]) for i in levels
        )

    def forward(self, features: list[Tensor]) -> Tensor:
        """Return the finest feature map, ``(n, channels, *image)``."""
        x = features[-1]
        for level in reversed(range(len(self.blocks))):
            x = self.blocks[level](torch.cat([features[level], self.ups[level](x)], dim=1))
        return x

    def sources(self, encoder: Encoder, span: Span, axis: int) -> Span:
        """Return the image indices that the outputs in ``span`` depend on."""
        first, last = [], []
        for level in range(len(self.blocks)):
            span = self.blocks[level].sources(span, axis)  # type: ignore[operator]
            skip = encoder.sources(level, span, axis)
            first.append(skip[0])
            last.append(skip[1])
            span = self.ups[level].sources(span, axis)  # type: ignore[operator]
        deepest = encoder.sources(len(self.blocks), span, axis)
        return min(*first, deepest[0]), max(*last, deepest[1])


DECODERS = {"unet": UNetDecoder}
