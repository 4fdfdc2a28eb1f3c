"""What a network is made of, as data: the part of a model file that rebuilds it."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from napari_tiled_unet.errors import ModelError
from napari_tiled_unet.networks.backbones import BACKBONES, backbone_channels

Norm = Literal["batch", "instance", "group", "layer", "none"]
Activation = Literal["relu", "leaky-relu", "gelu", "silu"]
Downsample = Literal["max-pool", "strided-conv", "blur-pool"]
Upsample = Literal["transposed", "nearest", "linear", "pixel-shuffle"]
Block = Literal["plain", "residual"]
Skips = Literal["concatenate", "add", "none"]
Gates = Literal["none", "coarse", "same-scale"]
PerAxis = tuple[int, ...]


class NetworkSpec(BaseModel):
    """The choices that make one network.

    ``kernels`` and ``downsampling`` may be given as one number, one number per
    axis, or one of those per level; they are stored per level and axis. ``channels``
    follow from ``width`` (doubled per level up to ``max_width``) unless they are given;
    those of a published encoder (``resnet18`` and the like) follow from ``width`` alone,
    64 being that of the ResNets as published, 32 that of the EfficientNets.

    Raises
    ------
    ModelError
        From :meth:`of`, if a choice breaks its rule.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    architecture: str = "unet"
    encoder: str = Field(default="unet", description="unet, or a published one")
    ndim: Literal[2, 3] = 2
    in_channels: int = Field(default=1, ge=1)
    out_channels: int = Field(default=1, ge=1)
    width: int = Field(default=32, ge=1, description="channels of the finest level")
    depth: int = Field(default=4, ge=1, le=8, description="number of downsamplings")
    max_width: int = Field(default=1024, ge=1, description="channels are doubled per level up to this number")
    channels: tuple[int, ...] = Field(default=(), description="channels per level, finest first")
    convs_per_block: int = Field(default=2, ge=1)
    kernels: tuple[PerAxis, ...] = Field(default=(), description="kernel per level (finest first) and axis")
    downsampling: tuple[PerAxis, ...] = Field(default=(), description="factor per downsampling and axis")
    norm: Norm = "batch"
    activation: Activation = "relu"
    downsample: Downsample = "max-pool"
    upsample: Upsample = "transposed"
    block: Block = "plain"
    skips: Skips = Field(default="concatenate", description="how a skip joins what comes from below")
    gates: Gates = Field(default="none", description="attention on the skips, steered from the level below or beside")
    branch_channels: int = Field(default=0, ge=0, description="per branch of unet3p and fpn; 0: as the finest level")
    deep_supervision: bool = Field(default=False, description="whether side outputs are there to be trained")
    classification_guided: bool = Field(default=False, description="whether the bottleneck says what is absent")
    dropout: float = Field(default=0.0, ge=0, lt=1)

    @classmethod
    def of(cls, **choices: Any) -> Self:
        """Build a spec, with :class:`ModelError` naming whatever breaks a rule."""
        try:
            return cls(**choices)
        except ValidationError as error:
            sentences = [
                f"{'.'.join(str(p) for p in problem['loc']) or 'network'}={problem['input']!r}: "
                f"{problem['msg'].removeprefix('Value error, ')}"
                for problem in error.errors()
            ]
            raise ModelError("this network cannot be built: " + "; ".join(sentences)) from None

    @model_validator(mode="before")
    @classmethod
    def _per_level(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        values = dict(values)
        ndim, depth = values.get("ndim", 2), values.get("depth", 4)
        if isinstance(ndim, int) and isinstance(depth, int):
            values["kernels"] = _per_level_and_axis(values.get("kernels") or 3, ndim, depth + 1)
            values["downsampling"] = _per_level_and_axis(values.get("downsampling") or 2, ndim, depth)
            width, most = values.get("width", 32), values.get("max_width", 1024)
            encoder = values.get("encoder", "unet")
            if encoder in BACKBONES and isinstance(width, int):
                values["channels"] = values.get("channels") or backbone_channels(encoder, width, depth)
            elif values.get("channels"):
                values["width"] = values["channels"][0]
            elif isinstance(width, int) and isinstance(most, int):
                values["channels"] = tuple(min(width * 2**level, most) for level in range(depth + 1))
        return values

    @model_validator(mode="after")
    def _levels_agree(self) -> Self:
        self._encoder_agrees()
        for name, rows, count in (
            ("kernels", self.kernels, self.depth + 1),
            ("downsampling", self.downsampling, self.depth),
        ):
            if len(rows) != count or any(len(row) != self.ndim for row in rows):
                raise ValueError(
                    f"{name} must have {count} entries of {self.ndim} numbers "
                    f"for depth {self.depth} in {self.ndim}D, got {rows}"
                )
        if len(self.channels) != self.depth + 1 or min(self.channels) < 1:
            raise ValueError(
                f"channels must have {self.depth + 1} numbers of at least 1 for depth {self.depth}, got {self.channels}"
            )
        if any(k < 1 or k % 2 == 0 for row in self.kernels for k in row):
            raise ValueError(f"kernels must be odd so that the output keeps its place, got {self.kernels}")
        if any(f not in (1, 2, 3, 4) for row in self.downsampling for f in row):
            raise ValueError(f"downsampling factors must be 1 to 4, got {self.downsampling}")
        return self

    def _encoder_agrees(self) -> None:
        if self.encoder == "unet":
            return
        if self.encoder not in BACKBONES:
            raise ValueError(f"encoder {self.encoder!r} is unknown; the known ones are unet, {', '.join(BACKBONES)}")
        if self.depth > 5:
            raise ValueError(f"{self.encoder} halves 5 times at most, got depth {self.depth}; take depth 1 to 5")
        expected = backbone_channels(self.encoder, self.width, self.depth)
        if self.channels != expected:
            raise ValueError(
                f"channels of {self.encoder} are {expected} at width {self.width} and depth {self.depth}, "
                f"got {self.channels}; leave channels out, or choose another width"
            )


def _per_level_and_axis(value: Any, ndim: int, levels: int) -> Any:
    """Spread ``3``, ``(1, 3, 3)`` or a list of those over levels and axes."""
    if isinstance(value, int):
        return ((value,) * ndim,) * levels
    rows = tuple(value)
    if all(isinstance(row, int) for row in rows) and len(rows) == ndim:
        return (rows,) * levels
    return tuple((row,) * ndim if isinstance(row, int) else tuple(row) for row in rows)
