"""The plan of a training as data: what was chosen, each choice with its reason."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from napari_tiled_unet.networks.spec import NetworkSpec
from napari_tiled_unet.normalise import Normalisation
from napari_tiled_unet.targets import Target


class Choice(BaseModel):
    """One thing that was chosen, and why."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    value: str
    reason: str


class Plan(BaseModel):
    """How a training will go; saved with the checkpoint, its choices with the model.

    Attributes
    ----------
    network : NetworkSpec
        What is trained.
    target : Classes or Objects
        What it is taught.
    normalisation : Normalisation
        Of whole frames.
    patch : tuple of int
        Shape of a patch.
    batch : int
        Patches per step.
    spacing : tuple of float or None
        Voxel size along the network's axes, in micrometres.
    object_size : float or None
        Typical diameter in voxels of the x axis.
    anisotropy : float
        How many times deeper than wide a voxel is.
    channels : tuple of str
        What the input channels are called.
    choices : tuple of Choice
        All of it in words.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    network: NetworkSpec
    target: Target
    normalisation: Normalisation
    patch: tuple[int, ...]
    batch: int = Field(ge=1)
    spacing: tuple[float, ...] | None = None
    object_size: float | None = None
    anisotropy: float = 1.0
    channels: tuple[str, ...]
    choices: tuple[Choice, ...] = ()

    @property
    def axes(self) -> Literal["yx", "zyx"]:
        """Axes of the network."""
        return "yx" if self.network.ndim == 2 else "zyx"

    def lines(self) -> list[str]:
        """Return the plan as text, a line for each choice."""
        wide = max((len(c.name) for c in self.choices), default=0)
        return [f"{c.name:<{wide}}  {c.value}  ({c.reason})" for c in self.choices]

    def summary(self) -> list[dict[str, Any]]:
        """Return the choices as the model file holds them."""
        return [choice.model_dump() for choice in self.choices]
