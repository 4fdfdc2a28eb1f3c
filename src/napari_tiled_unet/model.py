"""A model: a network with its weights and everything needed to use it right on a new image."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from napari_tiled_unet.networks.spec import NetworkSpec
from napari_tiled_unet.normalise import Normalisation
from napari_tiled_unet.targets import Target
from napari_tiled_unet.units import micrometres_per

if TYPE_CHECKING:
    from napari_tiled_unet.networks.zoo import Network

FORMAT_VERSION = 1

# What auto calls the same result as that of the whole frame: no object changes, and no map by more
# than this. Thresholds on maps lie at tenths, and bfloat16 itself moves maps by as much.
SEAM_TOLERANCE = 0.02


class SeamPoint(BaseModel):
    """What tiles change at one overlap, against the whole frame.

    Attributes
    ----------
    overlap : tuple of int
        Voxels per axis.
    max_map : float
        Largest difference of a map.
    voxels, objects : float
        Fractions of voxels whose label, and of objects whose shape, changes.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    overlap: tuple[int, ...]
    max_map: float = Field(ge=0)
    voxels: float = Field(ge=0)
    objects: float = Field(ge=0)


class ModelSpec(BaseModel):
    """What a model file says about itself.

    Attributes
    ----------
    name, summary : str
        What to call it; one line on what it finds in what kind of image.
    axes : {"yx", "zyx"}
        Spatial axes of the network.
    channels : tuple of str
        What each input channel shows.
    spacing : tuple of float or None
        Voxel size, per axis, of the images it was trained on; None when unknown.
    units : str
        Unit of ``spacing``, a length by its name or symbol.
    object_size : float or None
        Typical diameter, in voxels of the x axis, of the objects it was trained on.
    normalisation : Normalisation
        How frames are normalised before the network sees them.
    network : NetworkSpec
        The architecture.
    target : Classes or Objects
        What the maps mean and how they become labels.
    overlap : tuple of int or None
        Overlap that ``overlap="auto"`` takes; None leaves it to ``seams``.
    seams : tuple of SeamPoint
        Seam error against overlap, ascending, as measured; ``overlap="auto"`` takes the smallest
        overlap from which on it is within the tolerance. Empty when not measured.
    empty_below : float or None
        Tiles whose normalised intensities all lie below this hold nothing and are not computed;
        None computes every tile.
    licence : str
        SPDX licence of the weights.
    training, scores : dict
        Data, its licence, steps; scores by name. Shown on the card.
    package_version : str
        Version of this package that wrote the file.
    format_version : int
        Version of this layout.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    summary: str = ""
    axes: Literal["yx", "zyx"]
    channels: tuple[str, ...] = Field(min_length=1)
    spacing: tuple[float, ...] | None = None
    units: str = "micrometer"
    object_size: float | None = Field(default=None, gt=0)
    normalisation: Normalisation = Normalisation()
    network: NetworkSpec
    target: Target
    overlap: tuple[int, ...] | None = None
    seams: tuple[SeamPoint, ...] = ()
    empty_below: float | None = None
    licence: str = ""
    training: dict[str, Any] = Field(default_factory=dict)
    scores: dict[str, float] = Field(default_factory=dict)
    package_version: str = ""
    format_version: int = FORMAT_VERSION

    @model_validator(mode="after")
    def _parts_agree(self) -> ModelSpec:
        if self.network.ndim != len(self.axes):
            raise ValueError(f"a {self.network.ndim}D network cannot have axes {self.axes!r}")
        if self.network.in_channels != len(self.channels):
            raise ValueError(f"the network takes {self.network.in_channels} channels, {len(self.channels)} are named")
        if self.network.out_channels != len(self.target.channels):
            raise ValueError(
                f"the network gives {self.network.out_channels} maps, "
                f"the target {self.target.kind!r} needs {len(self.target.channels)}"
            )
        if self.spacing is not None and len(self.spacing) != len(self.axes):
            raise ValueError(f"spacing {self.spacing} must have one number per axis of {self.axes!r}")
        if self.spacing is not None and micrometres_per(self.units) is None:
            raise ValueError(f"units {self.units!r} of the spacing are no length that is known, such as 'micrometer'")
        if any(len(point.overlap) != len(self.axes) for point in self.seams):
            raise ValueError(f"the overlaps of seams must have one number per axis of {self.axes!r}")
        if self.empty_below is not None and self.target.kind == "classes" and not self.target.background:
            raise ValueError("empty_below needs a target with a background: what is empty belongs to it")
        return self

    @property
    def earned_overlap(self) -> tuple[int, ...] | None:
        """The overlap that ``auto`` takes; None when nothing was stated or measured."""
        if self.overlap is not None:
            return self.overlap
        earned = None
        for point in sorted(self.seams, key=lambda p: p.overlap, reverse=True):
            if point.objects > 0 or point.max_map > SEAM_TOLERANCE:
                break
            earned = point.overlap
        return earned


@dataclass(frozen=True)
class Model:
    """A spec and the network that it describes, on the CPU, in evaluation mode.

    Attributes
    ----------
    spec, network
        What it says about itself, and what that describes, with its weights.
    path, sha256 : Path and str, or None
        The file that it was loaded from, and its digest then; None of one that was made in memory.
    """

    spec: ModelSpec
    network: Network
    path: Path | None = None
    sha256: str | None = None
