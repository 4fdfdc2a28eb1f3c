"""The named networks: a name is a row of choices, and every row is built the same way."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from napari_tiled_unet.errors import ModelError
from napari_tiled_unet.networks.blocks import CONV, reflected_indices
from napari_tiled_unet.networks.decoders import DECODERS
from napari_tiled_unet.networks.encoders import ENCODERS
from napari_tiled_unet.networks.spec import NetworkSpec


@dataclass(frozen=True)
class Architecture:
    """One row of :data:`ARCHITECTURES`.

    Attributes
    ----------
    summary : str
        One line for people.
    source : str
        Where it was published.
    encoder, decoder : str
        Keys of ``ENCODERS`` and ``DECODERS``.
    choices : mapping
        Defaults of :class:`NetworkSpec` that this row changes.
    """

    summary: str
    source: str
    encoder: str = "unet"
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
    "residual-unet": Architecture(
        summary="U-Net of residual blocks",
        source="Zhang et al. 2018, arXiv:1711.10684; blocks as in He et al. 2015, arXiv:1512.03385",
        choices={"block": "residual"},
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
    return NetworkSpec.of(architecture=architecture, **{**row.choices, **choices})


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
        row = _row(spec.architecture)
        self.spec = spec
        self.encoder = ENCODERS[row.encoder](spec)
        self.decoder = DECODERS[row.decoder](spec, self.encoder)
        self.head = CONV[spec.ndim](self.decoder.channels, spec.out_channels, 1)
        self.stride: tuple[int, ...] = self.encoder.strides[-1]
        self.receptive_field: tuple[int, ...] = tuple(self._reach(axis) for axis in range(spec.ndim))
        self.apply(_initialise)

    @property
    def exact_tiling(self) -> bool:
        """Whether an output depends on nothing outside the receptive field (at inference)."""
        return self.spec.norm in ("batch", "none")

    def forward(self, x: Tensor) -> Tensor:
        """Return logits of the size of ``x``."""
        shape = tuple(x.shape[2:])
        padded = tuple(
            max(math.ceil(n / s) * s, least) for n, s, least in zip(shape, self.stride, self._least, strict=True)
        )
        for axis, (n, p) in enumerate(zip(shape, padded, strict=True)):
            if n != p:
                x = x.index_select(axis + 2, reflected_indices(n, p).to(x.device))
        y = self.head(self.decoder(self.encoder(x)))
        if padded != shape:
            y = y[(..., *(slice(n) for n in shape))]
        return y  # type: ignore[no-any-return]

    @property
    def _least(self) -> tuple[int, ...]:
        # A norm over the input needs more than one voxel at the bottleneck.
        return self.stride if self.exact_tiling else tuple(2 * s for s in self.stride)

    def _reach(self, axis: int) -> int:
        reach = 0
        for phase in range(self.stride[axis]):
            first, last = self.decoder.sources(self.encoder, (phase, phase), axis)
            reach = max(reach, phase - first, last - phase)
        return reach


def _initialise(module: nn.Module) -> None:
    """He et al. 2015 (arXiv:1502.01852) for convolutions, as the U-Net paper asks."""
    if isinstance(module, nn.Conv2d | nn.Conv3d):
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)
