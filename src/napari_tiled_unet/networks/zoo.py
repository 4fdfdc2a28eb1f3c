"""The named networks: a name is a row of choices, and every row is built the same way."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from napari_tiled_unet.errors import ModelError
from napari_tiled_unet.networks.blocks import CONV, DROPOUT
from napari_tiled_unet.networks.decoders import DECODERS
from napari_tiled_unet.networks.encoders import ENCODERS
from napari_tiled_unet.networks.resampling import LINEAR_MODE, PixelShuffle, reflected_indices
from napari_tiled_unet.networks.spec import NetworkSpec

if TYPE_CHECKING:
    from napari_tiled_unet.networks.footprint import Inference


@dataclass(frozen=True)
class Architecture:
    """One row of :data:`ARCHITECTURES`.

    Attributes
    ----------
    summary : str
        One line for people.
    source : str
        Where it was published.
    decoder : str
        Key of ``DECODERS``.
    choices : mapping
        Defaults of :class:`NetworkSpec` that this row changes, its encoder among them.
    """

    summary: str
    source: str
    decoder: str = "unet"
    choices: Mapping[str, Any] = field(default_factory=dict)


ARCHITECTURES: dict[str, Architecture] = {
    "unet": Architecture(
        summary="U-Net with batch norm: two convolutions per level, max-pool, transposed convolutions",
        source="Ronneberger et al. 2015, arXiv:1505.04597; batch norm as in Cicek et al. 2016, arXiv:1606.06650",
    ),
    "unet-2015": Architecture(
        summary="the U-Net of the 2015 paper (width 64, four halvings, no norm), convolutions padded",
        source="Ronneberger et al. 2015, arXiv:1505.04597",
        choices={"width": 64, "depth": 4, "norm": "none"},
    ),
    "unet-strided": Architecture(
        summary="U-Net that learns both ways: strided convolutions down, linear interpolation + convolution up",
        source="strided: Isensee et al. 2021, doi:10.1038/s41592-020-01008-z; "
        "interpolated: Odena et al. 2016, doi:10.23915/distill.00003",
        choices={
            "downsample": "strided-conv",
            "upsample": "linear",
            "norm": "instance",
            "activation": "leaky-relu",
            "max_width": 320,
        },
    ),
    "unet-noskip": Architecture(
        summary="U-Net without its skips, to see what they carry",
        source="the ablation of Ronneberger et al. 2015, arXiv:1505.04597",
        choices={"skips": "none"},
    ),
    "unet-add": Architecture(
        summary="U-Net whose skips are added instead of concatenated",
        source="LinkNet, Chaurasia & Culurciello 2017, arXiv:1707.03718, joins so",
        choices={"skips": "add"},
    ),
    "fcn": Architecture(
        summary="fully convolutional network: scores of three coarse levels, added and upsampled; no decoder",
        source="FCN-8s, Long et al. 2015, arXiv:1411.4038, on the encoder of the U-Net",
        decoder="fcn",
        choices={"depth": 5},
    ),
    "residual-unet": Architecture(
        summary="U-Net of residual blocks",
        source="Zhang et al. 2018, arXiv:1711.10684; blocks as in He et al. 2015, arXiv:1512.03385",
        choices={"block": "residual"},
    ),
    "attention-unet": Architecture(
        summary="U-Net whose skips are weighed by what the level below has found",
        source="Oktay et al. 2018, arXiv:1804.03999",
        choices={"gates": "coarse"},
    ),
    "unetpp": Architecture(
        summary="U-Nets of every depth in one, joined by dense skips; can be pruned to a shallower one",
        source="U-Net++, Zhou et al. 2018, arXiv:1807.10165",
        decoder="unetpp",
        choices={"deep_supervision": True},
    ),
    "unet3p": Architecture(
        summary="full-scale skips: every level of the decoder sees every level of the encoder or decoder",
        source="U-Net 3+, Huang et al. 2020, arXiv:2004.08790",
        decoder="unet3p",
        choices={"deep_supervision": True},
    ),
    "fpn": Architecture(
        summary="feature pyramid: one width at all levels, added from coarse to fine, all summed at the finest",
        source="Lin et al. 2017, arXiv:1612.03144; summed as in Kirillov et al. 2019, arXiv:1901.02446",
        decoder="fpn",
    ),
    "unet-resnet34": Architecture(
        summary="U-Net on a ResNet-34, which may bring ImageNet (2D) or MedicalNet (3D) weights",
        source="He et al. 2015, arXiv:1512.03385",
        choices={"encoder": "resnet34", "width": 64, "depth": 5},
    ),
    "unet-efficientnet-b0": Architecture(
        summary="U-Net on an EfficientNet-B0, which may bring ImageNet weights",
        source="Tan & Le 2019, arXiv:1905.11946",
        choices={"encoder": "efficientnet-b0", "width": 32, "depth": 5, "activation": "silu"},
    ),
}


def network_spec(architecture: str = "unet", **choices: Any) -> NetworkSpec:
    """Return the full spec of a named row with some choices replaced.

    Raises
    ------
    ModelError
        If the name is unknown or a choice breaks its rule.
    """
    row = _row(architecture)
    spec = NetworkSpec.of(architecture=architecture, **{**row.choices, **choices})
    _refuse_unread(spec)
    return spec


def build_network(spec: NetworkSpec) -> Network:
    """Build the network of a spec, with fresh weights.

    Raises
    ------
    ModelError
        If the spec names an unknown architecture.
    """
    return Network(spec)


def _row(name: str) -> Architecture:
    if name not in ARCHITECTURES:
        raise ModelError(
            f"architecture {name!r} is unknown; the known ones are {', '.join(ARCHITECTURES)}. "
            "A newer version of this package may know it"
        )
    return ARCHITECTURES[name]


# Choices that only some encoders and decoders know what to do with.
_OPTIONAL = (
    "convs_per_block", "block", "downsample", "upsample", "skips", "gates",
    "branch_channels", "deep_supervision", "classification_guided", "max_width",
)  # fmt: skip


def _refuse_unread(spec: NetworkSpec) -> None:
    """Refuse a choice that would change nothing, and those that contradict each other."""
    encoder, decoder = ENCODERS[spec.encoder], DECODERS[_row(spec.architecture).decoder]
    read = encoder.uses | decoder.uses
    for name in _OPTIONAL:
        value, default = getattr(spec, name), NetworkSpec.model_fields[name].default
        if name not in read and value != default:
            raise ModelError(
                f"{name}={value!r} means nothing to architecture {spec.architecture!r} with encoder "
                f"{spec.encoder!r}; leave it out"
            )
    if spec.gates != "none" and spec.skips != "concatenate":
        raise ModelError(f"gates={spec.gates!r} weigh skips that are concatenated, got skips={spec.skips!r}")
    if spec.gates == "coarse" and spec.depth == 1:
        raise ModelError(
            "gates='coarse' leave the finest skip alone, and depth 1 has no other; take depth 2, or gates='same-scale'"
        )


class Network(nn.Module):
    """Encoder, decoder and a 1x1 convolution: ``(n, c, *spatial)`` to logits ``(n, k, *spatial)``.

    Any size goes in: sides that are not multiples of the stride are reflected at their
    far end and the output is cropped back.

    Attributes
    ----------
    spec : NetworkSpec
        What it was built from.
    stride : tuple of int
        Total downsampling per axis.
    receptive_field : tuple of int
        How far, per axis, an input voxel can influence an output voxel. Instance and
        group norm also look at the mean of the whole input (``exact_tiling`` is False).
    """

    def __init__(self, spec: NetworkSpec) -> None:
        super().__init__()
        _refuse_unread(spec)
        self.spec = spec
        self.encoder = ENCODERS[spec.encoder](spec)
        self.decoder = DECODERS[_row(spec.architecture).decoder].draw(spec, self.encoder)
        conv, maps = CONV[spec.ndim], spec.out_channels
        self.head = nn.Identity() if self.decoder.scores else conv(self.decoder.channels, maps, 1)
        sides = self.decoder.outputs[1:] if spec.deep_supervision else ()
        self.side_heads = nn.ModuleList(conv(self.decoder.nodes[name].channels, maps, 1) for name in sides)
        if spec.classification_guided:
            self.guide = nn.Sequential(DROPOUT[spec.ndim](0.5), conv(self.encoder.channels[-1], maps, 1))
        self.stride: tuple[int, ...] = self.encoder.strides[-1]
        self.receptive_field: tuple[int, ...] = tuple(self._reach(axis) for axis in range(spec.ndim))
        self.apply(_initialise)

    @property
    def looks_at_whole(self) -> str:
        """What in it looks at all of its input (at inference); empty if nothing does."""
        if self.spec.norm in ("instance", "group"):
            return f"{self.spec.norm} norm"
        return "classification guidance" if self.spec.classification_guided else self.encoder.whole

    @property
    def least_strides(self) -> int:
        """Strides of the smallest input: a norm over it needs more than one voxel at the bottleneck."""
        return 2 if self.spec.norm in ("instance", "group") else 1

    @property
    def exact_tiling(self) -> bool:
        """Whether an output depends on nothing outside the receptive field (at inference)."""
        return not self.looks_at_whole

    @cached_property
    def inference(self) -> Inference:
        """What inference does and holds, counted on a run without numbers."""
        from napari_tiled_unet.networks.footprint import count_inference

        return count_inference(self)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits of the size of ``x``."""
        features = self.features(x)
        y = self.head(self.decoder(features))
        return self._finished(y, features, x)

    def features(self, x: Tensor) -> list[Tensor]:
        """Return the features of the encoder, finest first, of ``x`` padded to the stride."""
        return self.encoder(self._padded(x))  # type: ignore[no-any-return]

    def training_outputs(self, x: Tensor) -> list[Tensor]:
        """Return the logits and those of the side outputs, all of the size of ``x``.

        The first are those of :meth:`forward`; a network without deep supervision has no
        others. Coarser side outputs are interpolated, so that one target serves all.
        """
        features = self.features(x)
        size = features[0].shape[2:]
        names = self.decoder.outputs[: 1 + len(self.side_heads)]
        outputs = []
        for head, y in zip((self.head, *self.side_heads), self.decoder.run(features, names), strict=True):
            z = head(y)
            if z.shape[2:] != size:
                z = nn.functional.interpolate(z, size=size, mode=LINEAR_MODE[self.spec.ndim], align_corners=False)
            outputs.append(self._finished(z, features, x))
        return outputs

    def _padded(self, x: Tensor) -> Tensor:
        """Reflect the far end of each axis up to a multiple of the stride."""
        for axis, (n, s) in enumerate(zip(x.shape[2:], self.stride, strict=True)):
            padded = max(math.ceil(n / s), self.least_strides) * s
            if padded != n:
                x = x.index_select(axis + 2, reflected_indices(n, padded).to(x.device))
        return x

    def _finished(self, y: Tensor, features: list[Tensor], x: Tensor) -> Tensor:
        if self.spec.classification_guided:
            # A map that the bottleneck finds no trace of is lowered everywhere.
            presence = self.guide(features[-1]).amax(tuple(range(2, y.ndim)), keepdim=True)
            y = y + nn.functional.logsigmoid(presence)
        if y.shape[2:] != x.shape[2:]:
            inside: tuple[Any, ...] = (..., *(slice(n) for n in x.shape[2:]))
            y = y[inside]
        return y

    def _reach(self, axis: int) -> int:
        reach = 0
        for phase in range(self.stride[axis]):
            for level, span in self.decoder.sources((phase, phase), axis).items():
                first, last = self.encoder.sources(level, span, axis)
                reach = max(reach, phase - first, last - phase)
        return reach


def _initialise(module: nn.Module) -> None:
    """He et al. 2015 (arXiv:1502.01852) for convolutions, as the U-Net paper asks."""
    if isinstance(module, nn.Conv2d | nn.Conv3d):
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, PixelShuffle):
        module.initialise()
