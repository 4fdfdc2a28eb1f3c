"""How a network is taught: the one home of every default of training."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from napari_tiled_unet.options import NormalisationMethod, Options, Precision

Loss = Literal["dice", "focal", "tversky"]
Augmentation = Literal["none", "light", "standard", "strong"]

_ADVANCED = {"advanced": True}


class TrainOptions(Options):
    """How labelled images become a model.

    What is ``auto`` or left out is chosen from the data; the plan says what and why.
    Build one with :meth:`of`.
    """

    target: Annotated[
        Literal["objects", "classes"],
        Field(description="objects: every object has a number of its own; classes: every label value is a class"),
    ] = "objects"
    classes: Annotated[
        tuple[str, ...],
        Field(description="names of the classes in the order of their label values, background first"),
    ] = ()
    sparse: Annotated[
        bool,
        Field(
            description="labels are partial: 0 is not labelled and ignored, 1 is background, objects or classes from 2"
        ),
    ] = False
    start: Annotated[
        str | None,
        Field(description="model to start from, a name or the path of a .safetensors file; default: fresh weights"),
    ] = None
    freeze_encoder: Annotated[
        bool, Field(description="keep the encoder of the start model as it is", json_schema_extra=_ADVANCED)
    ] = False
    axes: Annotated[
        str | None,
        Field(description="axes of the images, letters of tczyx in array order; default: from their metadata"),
    ] = None
    channel: Annotated[
        int | None, Field(ge=0, description="train on this channel alone, counted from 0; default: all channels")
    ] = None
    spacing: Annotated[
        tuple[float, ...] | None,
        Field(description="physical size of a voxel per spatial axis, in micrometres; default: from the metadata"),
    ] = None
    dimensions: Annotated[
        Literal["auto", "2D", "3D"],
        Field(description="network of 2 or 3 dimensions; a 2D network learns from the slices of a stack"),
    ] = "auto"
    validation: Annotated[
        float,
        Field(gt=0, lt=1, description="share of the images, or of each of a few, that is held out to choose by"),
    ] = 0.2
    steps: Annotated[int, Field(ge=1, description="most training steps")] = 2000
    minutes: Annotated[float | None, Field(description="most minutes of training; default: no limit")] = None
    validate_every: Annotated[int, Field(ge=1, description="steps between two validations, each with a checkpoint")] = (
        100
    )
    patience: Annotated[
        int, Field(ge=0, description="stop after this many validations without a better score; 0 never stops early")
    ] = 10
    augmentation: Annotated[Augmentation, Field(description="how strongly patches are varied")] = "standard"
    loss: Annotated[
        Loss,
        Field(
            description="cross-entropy with Dice; focal for hard voxels, tversky for rare classes",
            json_schema_extra=_ADVANCED,
        ),
    ] = "dice"
    architecture: Annotated[
        str, Field(description="name of the network's architecture", json_schema_extra=_ADVANCED)
    ] = "unet"
    patch: Annotated[
        tuple[int, ...] | Literal["auto"],
        Field(description="patch size in voxels, one number or one per spatial axis", json_schema_extra=_ADVANCED),
    ] = "auto"
    batch: Annotated[int | Literal["auto"], Field(description="patches per step", json_schema_extra=_ADVANCED)] = "auto"
    depth: Annotated[
        int | Literal["auto"], Field(description="number of downsamplings", json_schema_extra=_ADVANCED)
    ] = "auto"
    width: Annotated[
        int | Literal["auto"], Field(description="channels of the finest level", json_schema_extra=_ADVANCED)
    ] = "auto"
    learning_rate: Annotated[
        float | None,
        Field(
            gt=0,
            description="highest learning rate; default: 0.002, or 0.0005 from a model",
            json_schema_extra=_ADVANCED,
        ),
    ] = None
    schedule: Annotated[
        Literal["cosine", "plateau"],
        Field(
            description="how the rate falls: along a cosine, or halved when the score stands still",
            json_schema_extra=_ADVANCED,
        ),
    ] = "cosine"
    weight_decay: Annotated[float, Field(ge=0, description="of AdamW", json_schema_extra=_ADVANCED)] = 0.01
    clip: Annotated[float, Field(gt=0, description="largest norm of a gradient", json_schema_extra=_ADVANCED)] = 5.0
    averaging: Annotated[
        float,
        Field(
            ge=0,
            lt=1,
            description="decay of the running mean of the weights; 0 keeps none",
            json_schema_extra=_ADVANCED,
        ),
    ] = 0.998
    seed: Annotated[int, Field(ge=0, description="same seed and device, same weights", json_schema_extra=_ADVANCED)] = 1
    workers: Annotated[
        int, Field(ge=0, description="processes that prepare patches; 0 is none beside", json_schema_extra=_ADVANCED)
    ] = 0
    device: Annotated[str, Field(description="auto, cpu, cuda, cuda:N or mps", json_schema_extra=_ADVANCED)] = "auto"
    precision: Annotated[
        Precision,
        Field(
            description="number format of the network; auto is bfloat16 where the device has it in hardware",
            json_schema_extra=_ADVANCED,
        ),
    ] = "auto"
    memory: Annotated[
        float | None,
        Field(
            description="memory that training may use, in GiB; default: most of what is free",
            json_schema_extra=_ADVANCED,
        ),
    ] = None
    normalisation: Annotated[
        NormalisationMethod | None,
        Field(
            description="intensity normalisation of whole frames; default: percentile, or the start model's",
            json_schema_extra=_ADVANCED,
        ),
    ] = None

    @field_validator("patch")
    @classmethod
    def _positive_patch(cls, value: tuple[int, ...] | str) -> tuple[int, ...] | str:
        if isinstance(value, tuple) and not (1 <= len(value) <= 3 and all(v >= 8 for v in value)):
            raise ValueError(
                "patch must be 'auto', or 1 to 3 whole numbers of at least 8, for example 256 or (32, 96, 96)"
            )
        return value

    @field_validator("batch", "depth", "width")
    @classmethod
    def _at_least_one(cls, value: int | str) -> int | str:
        if isinstance(value, int) and value < 1:
            raise ValueError("must be 'auto' or a whole number of at least 1")
        return value

    @model_validator(mode="after")
    def _parts_agree(self) -> Self:
        if self.classes and self.target != "classes":
            raise ValueError(f"classes={self.classes} name classes, the target is 'objects'; take target='classes'")
        if len(self.classes) == 1 or len(set(self.classes)) != len(self.classes):
            raise ValueError(f"classes={self.classes} must be at least 2 different names, background first")
        if self.freeze_encoder and self.start is None:
            raise ValueError("freeze_encoder keeps the encoder of a start model, and start is not given; name one")
        return self
