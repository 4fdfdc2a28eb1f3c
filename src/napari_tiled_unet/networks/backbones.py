"""Published encoders as numbers: blocks, channels and strides. Torch is not needed to read them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Stage:
    """Blocks of the same kind, one after the other.

    Attributes
    ----------
    blocks : int
        How many; the first one changes resolution and channels.
    channels : int
        That the stage gives.
    kernel, expansion : int
        Side of its convolutions; channels inside a block over those outside.
    downsamples : bool
        Whether its first block goes to the next level.
    """

    blocks: int
    channels: int
    kernel: int = 3
    expansion: int = 1
    downsamples: bool = True


@dataclass(frozen=True)
class Backbone:
    """One row of :data:`BACKBONES`.

    Attributes
    ----------
    kind : {"resnet", "efficientnet"}
        Which blocks it is made of.
    stem : int
        Channels of the first convolution at the published width.
    stages : tuple of Stage
        After the stem.
    width, depth : float
        What multiplies channels and numbers of blocks.
    published_width : int
        ``NetworkSpec.width`` that gives the published channels.
    source : str
        Where it was published.
    """

    kind: Literal["resnet", "efficientnet"]
    stem: int
    stages: tuple[Stage, ...]
    published_width: int
    source: str
    width: float = 1.0
    depth: float = 1.0


def _resnet(blocks: tuple[int, int, int, int], expansion: int) -> Backbone:
    stages = tuple(
        Stage(count, channels * expansion, expansion=expansion)
        for count, channels in zip(blocks, (64, 128, 256, 512), strict=True)
    )
    return Backbone("resnet", 64, stages, 64, "He et al. 2015, arXiv:1512.03385")


def _efficientnet(width: float, depth: float) -> Backbone:
    stages = (
        Stage(1, 16, 3, 1, downsamples=False),
        Stage(2, 24, 3, 6),
        Stage(2, 40, 5, 6),
        Stage(3, 80, 3, 6),
        Stage(3, 112, 5, 6, downsamples=False),
        Stage(4, 192, 5, 6),
        Stage(1, 320, 3, 6, downsamples=False),
    )
    return Backbone("efficientnet", 32, stages, 32, "Tan & Le 2019, arXiv:1905.11946", width, depth)


BACKBONES: dict[str, Backbone] = {
    "resnet18": _resnet((2, 2, 2, 2), 1),
    "resnet34": _resnet((3, 4, 6, 3), 1),
    "resnet50": _resnet((3, 4, 6, 3), 4),
    "efficientnet-b0": _efficientnet(1.0, 1.0),
    "efficientnet-b1": _efficientnet(1.0, 1.1),
    "efficientnet-b2": _efficientnet(1.1, 1.2),
    "efficientnet-b3": _efficientnet(1.2, 1.4),
    "efficientnet-b4": _efficientnet(1.4, 1.8),
}


def scaled_channels(backbone: Backbone, channels: int, width: int) -> int:
    """Return channels at ``width``; those of an EfficientNet are rounded to multiples of 8."""
    wanted = channels * backbone.width * width / backbone.published_width
    if backbone.kind == "resnet":
        return max(1, round(wanted))
    rounded = max(8, int(wanted + 4) // 8 * 8)
    # Never lose more than a tenth by rounding.
    return rounded + 8 if rounded < 0.9 * wanted else rounded


def scaled_blocks(backbone: Backbone, blocks: int) -> int:
    """Return the number of blocks of a stage."""
    return math.ceil(blocks * backbone.depth)


def backbone_channels(name: str, width: int, depth: int) -> tuple[int, ...]:
    """Return the channels per level, finest first.

    The finest level has the resolution of the image, which no published encoder keeps; it
    is a block of its own with half of ``width`` channels.
    """
    backbone = BACKBONES[name]
    levels = [max(1, width // 2), scaled_channels(backbone, backbone.stem, width)]
    for stage in backbone.stages:
        channels = scaled_channels(backbone, stage.channels, width)
        if stage.downsamples:
            levels.append(channels)
        else:
            levels[-1] = channels
    return tuple(levels[: depth + 1])
