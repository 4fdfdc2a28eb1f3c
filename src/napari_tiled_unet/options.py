"""The options of every verb: frozen, validated, the one home of every default.

Keyword arguments of :func:`napari_tiled_unet.segment`, flags of the command line
and rows of the napari widget are all derived from the fields below; the
``description`` of a field is its help text everywhere, and ``json_schema_extra``
says how a face shows it (``advanced`` rows are folded away in the widget).
"""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from napari_tiled_unet.errors import OptionsError
from napari_tiled_unet.region import Region

BlendMode = Literal["crop", "gaussian"]
Precision = Literal["auto", "float32", "bfloat16", "float16"]
BackendName = Literal["auto", "torch", "openvino", "onnx"]
NormalisationMethod = Literal["percentile", "minmax", "zscore", "none"]

_Verb = TypeVar("_Verb", bound=Callable[..., Any])
_ADVANCED = {"advanced": True}


class Options(BaseModel):
    """What the options of every verb have in common: built with :meth:`of`, frozen, checked.

    The checks below hold for whichever of their fields a verb has.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=False)

    @classmethod
    def of(cls, **values: Any) -> Self:
        """Build options from keyword arguments.

        Raises
        ------
        OptionsError
            If a name is unknown or a value breaks its rule.
        """
        try:
            return cls(**values)
        except ValidationError as error:
            raise OptionsError(readable_problems(error, cls)) from None

    def changed(self, **values: Any) -> Self:
        """Return a validated copy with some values replaced."""
        return type(self).of(**{**self.model_dump(), **values})

    @field_validator("tile", "overlap", "spacing", "patch", mode="before", check_fields=False)
    @classmethod
    def _one_number_is_enough(cls, value: Any) -> Any:
        """Read ``512``, ``"512"``, ``"32,256,256"`` and lists of those as tuples."""
        if isinstance(value, int | float) and not isinstance(value, bool):
            return (value,)
        if isinstance(value, str) and value and set(value) <= set("0123456789.,-+e "):
            return tuple(value.replace(",", " ").split())
        if isinstance(value, list | tuple):
            return tuple(part for item in value for part in (item.split(",") if isinstance(item, str) else (item,)))
        return value

    @field_validator("classes", mode="before", check_fields=False)
    @classmethod
    def _commas_part(cls, value: Any) -> Any:
        """Read ``"background,nucleus"`` as two names."""
        if isinstance(value, str):
            value = (value,)
        if isinstance(value, list | tuple) and all(isinstance(name, str) for name in value):
            return tuple(part.strip() for name in value for part in name.split(","))
        return value

    @field_validator("axes", check_fields=False)
    @classmethod
    def _known_axes(cls, value: str | None) -> str | None:
        if value is None:
            return None
        if set(value) - set("tczyx") or len(set(value)) != len(value) or not {"y", "x"} <= set(value):
            raise ValueError(
                "axes must be different letters of 'tczyx' and hold both y and x, for example 'zyx' or 'tcyx'"
            )
        return value

    @field_validator("spacing", check_fields=False)
    @classmethod
    def _positive_spacing(cls, value: tuple[float, ...] | str | None) -> tuple[float, ...] | str | None:
        if isinstance(value, str):
            return value
        if value is not None and not all(math.isfinite(v) and v > 0 for v in value):
            raise ValueError("spacing must be finite and positive on every axis, for example 0.5 or (2.0, 0.5, 0.5)")
        if value is not None and len(value) not in (1, 2, 3):
            raise ValueError("spacing must have one number, or one per spatial axis (2 or 3)")
        return value

    @field_validator("object_size", "memory", "minutes", check_fields=False)
    @classmethod
    def _positive(cls, value: float | None) -> float | None:
        if value is not None and not (math.isfinite(value) and value > 0):
            raise ValueError("must be a finite number above 0; leave it out for the automatic choice")
        return value

    @field_validator("device", check_fields=False)
    @classmethod
    def _known_device(cls, value: str) -> str:
        # torch keeps the number in one byte with a sign.
        if not re.fullmatch(r"auto|cpu|cuda|mps|cuda:(\d|[1-9]\d|1[01]\d|12[0-7])", value, re.ASCII):
            raise ValueError("device must be auto, cpu, cuda, cuda:N or mps")
        return value


# What decodes the maps of objects; without meaning for classes.
OF_OBJECTS = ("foreground_threshold", "seed_threshold", "seed_prominence", "min_size", "fill_holes")


class SegmentOptions(Options):
    """How an image becomes labels.

    Values are checked when the object is made; :class:`OptionsError` names the
    value, the rule and the remedy. Build one with :meth:`of`.
    """

    model: Annotated[str, Field(description="name of a bundled or user model, or the path of a .safetensors file")] = (
        "nuclei"
    )
    axes: Annotated[
        str | None,
        Field(description="axes of the image, letters of tczyx in array order; default: from its metadata"),
    ] = None
    channel: Annotated[
        int | None,
        Field(ge=0, description="channel to segment, counted from 0, when the image has more than the model"),
    ] = None
    region: Annotated[
        str | None,
        Field(
            description="part of the image to segment, start:stop in voxels per axis, such as t=3,y=100:400,x=50:600; "
            "default: all of it"
        ),
    ] = None
    level: Annotated[
        int,
        Field(
            ge=0,
            description="resolution of a multiscale image, 0 is the full one; region and labels are in its voxels",
        ),
    ] = 0
    spacing: Annotated[
        tuple[float, ...] | Literal["none"] | None,
        Field(
            description="physical size of a voxel per spatial axis of the image, in the unit of the model "
            "(micrometre); none ignores the image's own"
        ),
    ] = None
    object_size: Annotated[
        float | None,
        Field(description="typical diameter of an object in the image, in voxels of its x axis; rescales to the model"),
    ] = None
    tile: Annotated[
        tuple[int, ...] | Literal["auto"],
        Field(
            description="tile size in voxels, one number or one per spatial axis; auto fits memory",
            json_schema_extra=_ADVANCED,
        ),
    ] = "auto"
    overlap: Annotated[
        tuple[int, ...] | Literal["auto", "exact"],
        Field(
            description="voxels a tile sees past what it writes, per side; exact is the network's receptive field",
            json_schema_extra=_ADVANCED,
        ),
    ] = "auto"
    blend: Annotated[
        BlendMode,
        Field(
            description="how tiles meet: crop writes each voxel once, gaussian averages", json_schema_extra=_ADVANCED
        ),
    ] = "crop"
    flips: Annotated[
        bool,
        Field(
            description="the network also sees each tile mirrored along y, x and both, and its maps are averaged: "
            "4 times the time",
            json_schema_extra=_ADVANCED,
        ),
    ] = False
    device: Annotated[str, Field(description="auto, cpu, cuda, cuda:N or mps", json_schema_extra=_ADVANCED)] = "auto"
    precision: Annotated[
        Precision,
        Field(
            description="number format of the network; auto is the fastest the device has in hardware",
            json_schema_extra=_ADVANCED,
        ),
    ] = "auto"
    backend: Annotated[
        BackendName,
        Field(
            description="what runs the network; auto is the fastest that is installed (the others run on the CPU)",
            json_schema_extra=_ADVANCED,
        ),
    ] = "auto"
    memory: Annotated[
        float | None,
        Field(
            description="memory that a run may use, in GiB; default: most of what is free", json_schema_extra=_ADVANCED
        ),
    ] = None
    normalisation: Annotated[
        NormalisationMethod | None,
        Field(
            description="intensity normalisation of the whole frame; default: the model's own",
            json_schema_extra=_ADVANCED,
        ),
    ] = None
    foreground_threshold: Annotated[
        float | None,
        Field(gt=0, lt=1, description="probability above which a voxel is object; default: the model's own"),
    ] = None
    seed_threshold: Annotated[
        float | None,
        Field(
            gt=0,
            lt=1,
            description="least centre value of an object; lower ones join a neighbour or are dropped; "
            "default: the model's own",
        ),
    ] = None
    seed_prominence: Annotated[
        float | None,
        Field(
            gt=0,
            lt=1,
            description="how far the centre map falls between objects; higher merges more; default: the model's own",
        ),
    ] = None
    min_size: Annotated[
        int | None, Field(ge=0, description="smallest object kept, in voxels; default: the model's own")
    ] = None
    fill_holes: Annotated[
        bool | None,
        Field(description="fill holes inside objects; default: the model's own", json_schema_extra=_ADVANCED),
    ] = None
    seam_windows: Annotated[
        int | None,
        Field(
            ge=0,
            description="windows across seams that are recomputed without tiles, for the error in the provenance; "
            "default: up to 4, within 3 % of the work",
            json_schema_extra=_ADVANCED,
        ),
    ] = None
    link_slices: Annotated[
        bool,
        Field(
            description="join the 2D objects of a z-stack into 3D objects where they overlap",
            json_schema_extra=_ADVANCED,
        ),
    ] = False

    @field_validator("region")
    @classmethod
    def _canonical_region(cls, value: str | None) -> str | None:
        try:
            return Region.parse(value).text if value is not None else None
        except OptionsError as error:
            raise ValueError(str(error)) from None

    @field_validator("tile")
    @classmethod
    def _positive_tile(cls, value: tuple[int, ...] | str) -> tuple[int, ...] | str:
        if isinstance(value, tuple) and not (1 <= len(value) <= 3 and all(v >= 1 for v in value)):
            raise ValueError(
                "tile must be 'auto', or 1 to 3 whole numbers of at least 1, for example 512 or (32, 256, 256)"
            )
        return value

    @field_validator("overlap")
    @classmethod
    def _overlap_not_negative(cls, value: tuple[int, ...] | str) -> tuple[int, ...] | str:
        if isinstance(value, tuple) and not (1 <= len(value) <= 3 and all(v >= 0 for v in value)):
            raise ValueError("overlap must be 'auto', 'exact', or 1 to 3 whole numbers of at least 0, for example 32")
        return value

    @model_validator(mode="after")
    def _overlap_fits_tile(self) -> Self:
        if isinstance(self.tile, tuple) and isinstance(self.overlap, tuple):
            n = max(len(self.tile), len(self.overlap))
            tile = self.tile * n if len(self.tile) == 1 else self.tile
            overlap = self.overlap * n if len(self.overlap) == 1 else self.overlap
            if len(tile) == len(overlap) and any(2 * o >= t for t, o in zip(tile, overlap, strict=True)):
                raise ValueError(
                    f"overlap {self.overlap} on both sides leaves nothing of tile {self.tile}; "
                    "take an overlap below half the tile, or a larger tile"
                )
        return self


def readable_problems(error: ValidationError, options: type[BaseModel]) -> str:
    """Return one sentence per broken rule, naming the option and what was got."""
    sentences = []
    for problem in error.errors():
        name = str(problem["loc"][0]) if problem["loc"] else ""
        if problem["type"] == "extra_forbidden":
            sentences.append(f"unknown option {name!r}; the options are {', '.join(options.model_fields)}")
            continue
        rule = problem["msg"].removeprefix("Value error, ")
        subject = f"{name}={problem['input']!r}: " if name else ""
        sentence = f"{subject}{rule}"
        if sentence not in sentences:
            sentences.append(sentence)
    return "; ".join(sentences)


def with_option_keywords(verb: _Verb) -> _Verb:
    """Show every segmentation option as a keyword of a verb that takes ``**keywords``, for help and completion.

    What the verb names itself (``model``, ``options``) stays as it is.
    """
    return with_keywords_of(SegmentOptions, verb)


def with_keywords_of(options: type[Options], verb: _Verb) -> _Verb:
    """Show the fields of an options class as keywords of a verb that takes ``**keywords``."""
    shown = inspect.signature(verb)
    own = [p for p in shown.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
    named = {p.name for p in own}
    derived = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=field.annotation)
        for name, field in options.model_fields.items()
        if name not in named
    ]
    verb.__signature__ = shown.replace(parameters=[*own, *derived])  # type: ignore[attr-defined]
    return verb
