"""The decoders of the family, each a drawing of nodes and wires.

A decoder knows its encoder only by the contract: ``channels``, ``mirror`` and ``factors``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from napari_tiled_unet.networks.attention import AttentionGate
from napari_tiled_unet.networks.blocks import BLOCKS, CONV, Chain, ConvUnit, Piece, Span
from napari_tiled_unet.networks.encoders import Encoder
from napari_tiled_unet.networks.resampling import UPSAMPLES, Interpolate, MaxPool
from napari_tiled_unet.networks.spec import NetworkSpec, PerAxis
from napari_tiled_unet.networks.wiring import Decoder, Node, Source, Wire


class Projection(Piece):
    """A 1x1 convolution."""

    def __init__(self, ndim: int, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = CONV[ndim](inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)  # type: ignore[no-any-return]

    def sources(self, span: Span, axis: int) -> Span:  # noqa: ARG002 - as the others
        return span


def _between(encoder: Encoder, fine: int, coarse: int) -> PerAxis:
    """Return the downsampling from one level to a coarser one."""
    return tuple(math.prod(step) for step in zip(*encoder.factors[fine:coarse], strict=True))


def unet(spec: NetworkSpec, encoder: Encoder) -> Decoder:
    """Draw the decoder of the U-Net: upsample, join the skip of the same level, convolve; level by level.

    ``skips`` adds them instead, or leaves them out; ``gates`` weighs them. The finest skip
    has no coarse gate, "since it does not represent the input in a high-dimensional space" [2]_.

    References
    ----------
    .. [1] O. Ronneberger, P. Fischer, T. Brox, "U-Net: Convolutional Networks for Biomedical Image
           Segmentation", MICCAI 2015, arXiv:1505.04597
    .. [2] O. Oktay et al., "Attention U-Net", 2018, arXiv:1804.03999
    """
    mirror, nodes = encoder.mirror, []
    below: Source = len(encoder.factors)
    coming = encoder.channels[-1]
    for level in reversed(range(len(encoder.factors))):
        skip, channels = encoder.channels[level], mirror[level]
        up = Wire(below, UPSAMPLES[spec.upsample](spec, coming, channels, encoder.factors[level]))
        wires: tuple[Wire, ...] = (up,)
        if spec.skips != "none":
            gate, steered_by = None, below
            if spec.gates == "same-scale":
                gate, steered_by = AttentionGate(spec, skip, channels, (1,) * spec.ndim), "up"
            elif spec.gates == "coarse" and level > 0:
                gate = AttentionGate(spec, skip, coming, encoder.factors[level])
            # Addition needs the skip to have the decoder's channels.
            fits = spec.skips == "concatenate" or skip == channels
            path = None if fits else Projection(spec.ndim, skip, channels)
            wires = (Wire(level, path, gate, steered_by if gate else ""), up)
        joined = channels + (skip if spec.skips == "concatenate" else 0)
        block = BLOCKS[spec.block](spec, joined, channels, spec.kernels[level])
        join = "add" if spec.skips == "add" else "concatenate"
        nodes.append(Node(str(level), level, channels, wires, block, join))  # type: ignore[arg-type]
        below, coming = str(level), channels
    return Decoder(nodes, ["0"])


def fcn(spec: NetworkSpec, encoder: Encoder) -> Decoder:
    """Draw the fully convolutional network: scores per level, added from coarse to fine, then upsampled at once.

    The three coarsest levels are scored, as in FCN-8s; there is nothing else.

    References
    ----------
    .. [1] J. Long, E. Shelhamer, T. Darrell, "Fully Convolutional Networks for Semantic
           Segmentation", CVPR 2015, arXiv:1411.4038
    """
    depth, maps = len(encoder.factors), spec.out_channels
    nodes: list[Node] = []
    finest = max(1, depth - 2)
    for level in reversed(range(finest, depth + 1)):
        wires = [Wire(level, Projection(spec.ndim, encoder.channels[level], maps))]
        if nodes:
            wires.append(Wire(nodes[-1].name, Interpolate(spec.ndim, encoder.factors[level], linear=True)))
        nodes.append(Node(f"score_{level}", level, maps, tuple(wires), join="add"))
    last = Wire(nodes[-1].name, Interpolate(spec.ndim, _between(encoder, 0, finest), linear=True))
    return Decoder([*nodes, Node("map", 0, maps, (last,))], ["map"], scores=True)


def unetpp(spec: NetworkSpec, encoder: Encoder) -> Decoder:
    """Draw the nested decoder: a U-Net of every depth in one, all levels joined by dense skips.

    Node i_j lies at level i and gets all earlier nodes of its level and what comes up from
    (i+1)_(j-1). The outputs of all depths are trained under deep supervision.

    References
    ----------
    .. [1] Z. Zhou et al., "UNet++: A Nested U-Net Architecture for Medical Image Segmentation",
           DLMIA 2018, arXiv:1807.10165
    """
    depth, nodes = len(encoder.factors), []

    def name(level: int, column: int) -> Source:
        return level if column == 0 else f"{level}_{column}"

    for column in range(1, depth + 1):
        for level in range(depth + 1 - column):
            channels = encoder.mirror[level]
            coming = (encoder.channels if column == 1 else encoder.mirror)[level + 1]
            up = UPSAMPLES[spec.upsample](spec, coming, channels, encoder.factors[level])
            beside = tuple(Wire(name(level, k)) for k in range(column))
            joined = encoder.channels[level] + column * channels
            block = BLOCKS[spec.block](spec, joined, channels, spec.kernels[level])
            wires = (*beside, Wire(name(level + 1, column - 1), up))
            nodes.append(Node(f"{level}_{column}", level, channels, wires, block, column=column))
    return Decoder(nodes, [f"0_{column}" for column in reversed(range(1, depth + 1))])


def unet3p(spec: NetworkSpec, encoder: Encoder) -> Decoder:
    """Draw the full-scale decoder: every level gets all finer encoder levels and all coarser decoder levels.

    Finer ones are max-pooled, coarser ones interpolated; each is convolved to
    ``branch_channels``, then all are joined.

    References
    ----------
    .. [1] H. Huang et al., "UNet 3+: A Full-Scale Connected UNet for Medical Image Segmentation",
           ICASSP 2020, arXiv:2004.08790
    """
    depth = len(encoder.factors)
    each = spec.branch_channels or encoder.channels[0]
    linear = spec.model_copy(update={"upsample": "linear", "dropout": 0.0})
    joined = each * (depth + 1)
    nodes: list[Node] = []
    for level in reversed(range(depth)):
        wires = []
        for fine in range(level + 1):
            unit = ConvUnit(linear, encoder.channels[fine], each, spec.kernels[level])
            pool = MaxPool(spec, encoder.channels[fine], _between(encoder, fine, level)) if fine < level else None
            wires.append(Wire(fine, Chain(pool, unit) if pool else unit))
        for coarse in range(level + 1, depth + 1):
            source, inputs = (depth, encoder.channels[-1]) if coarse == depth else (str(coarse), joined)
            up = Interpolate(spec.ndim, _between(encoder, level, coarse), linear=True)
            wires.append(Wire(source, Chain(up, ConvUnit(linear, inputs, each, spec.kernels[level]))))
        block = ConvUnit(spec, joined, joined, spec.kernels[level])
        nodes.append(Node(str(level), level, joined, tuple(wires), block))
    # The bottleneck is supervised too; a node passes it on.
    nodes.append(Node("bottleneck", depth, encoder.channels[-1], (Wire(depth),)))
    return Decoder(nodes, [*map(str, range(depth)), "bottleneck"])


def fpn(spec: NetworkSpec, encoder: Encoder) -> Decoder:
    """Draw the feature pyramid: one width at all levels, added from coarse to fine, then all brought to the finest.

    References
    ----------
    .. [1] T.-Y. Lin et al., "Feature Pyramid Networks for Object Detection", CVPR 2017, arXiv:1612.03144
    .. [2] A. Kirillov et al., "Panoptic Feature Pyramid Networks", CVPR 2019, arXiv:1901.02446
    """
    depth, ndim = len(encoder.factors), spec.ndim
    each = spec.branch_channels or encoder.channels[0]
    nodes: list[Node] = []
    for level in reversed(range(depth + 1)):
        wires = [Wire(level, Projection(ndim, encoder.channels[level], each))]
        if nodes:
            wires.append(Wire(nodes[-1].name, Interpolate(ndim, encoder.factors[level], linear=False)))
        nodes.append(Node(f"pyramid_{level}", level, each, tuple(wires), join="add"))

    def to_the_finest(level: int) -> Chain:
        pieces: list[Piece] = [ConvUnit(spec, each, each, spec.kernels[level])]
        for step in reversed(range(level)):
            pieces.append(Interpolate(ndim, encoder.factors[step], linear=True))
            if step:
                pieces.append(ConvUnit(spec, each, each, spec.kernels[step]))
        return Chain(*pieces)

    wires = [Wire(f"pyramid_{level}", to_the_finest(level)) for level in range(depth + 1)]
    return Decoder([*nodes, Node("sum", 0, each, tuple(wires), join="add", column=2)], ["sum"])


@dataclass(frozen=True)
class DecoderKind:
    """A drawing and the choices of a spec that it reads."""

    draw: Callable[[NetworkSpec, Encoder], Decoder]
    uses: frozenset[str]


_BLOCKS = {"kernels", "convs_per_block", "block"}
DECODERS: dict[str, DecoderKind] = {
    "unet": DecoderKind(unet, frozenset({*_BLOCKS, "upsample", "skips", "gates"})),
    "fcn": DecoderKind(fcn, frozenset()),
    "unetpp": DecoderKind(unetpp, frozenset({*_BLOCKS, "upsample", "deep_supervision"})),
    "unet3p": DecoderKind(
        unet3p, frozenset({"kernels", "branch_channels", "deep_supervision", "classification_guided"})
    ),
    "fpn": DecoderKind(fpn, frozenset({"kernels", "branch_channels"})),
}
