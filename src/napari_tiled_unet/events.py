"""What a verb says while it works.

Verbs are generators of these events: the viewer turns them into progress and live
layers, the command line into a bar, the Python function drains them. Closing the
generator is the cancel.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    import numpy.typing as npt

    from napari_tiled_unet.tiling import Tile, TilePlan


@dataclass(frozen=True)
class Event:
    """Anything a verb can say."""


@dataclass(frozen=True)
class Notice(Event):
    """A decision or a caution that the user should read; never an error.

    Attributes
    ----------
    message : str
        One sentence.
    caution : bool
        Whether the labels may not be what the user expects (a warning), or it is for
        information only.
    """

    message: str
    caution: bool = False


@dataclass(frozen=True)
class Planned(Event):
    """The work is known, before any of it is done; told again if memory ran out and tiles became smaller.

    Attributes
    ----------
    n_frames : int
        Number of frames of the image.
    n_tiles : int
        Number of tiles of the whole run, all frames together, those that are done included.
    shape : tuple of int
        Shape of the labels that will come.
    axes : str
        Axes of the labels, letters of ``tzyx``.
    plan : TilePlan
        The tiles of each frame, on the grid of the network.
    device, precision : str
        What the network runs on, and in which number format.
    explanation : tuple of str
        Why these tiles, in lines for people.
    views : int
        How many times the network sees each tile: 4 with flips.
    """

    n_frames: int
    n_tiles: int
    shape: tuple[int, ...]
    axes: str
    plan: TilePlan
    device: str
    precision: str
    explanation: tuple[str, ...] = ()
    views: int = 1

    @property
    def voxels(self) -> int:
        """Voxels that the network computes in the whole run: overlap, padding and every view included."""
        return self.n_frames * self.plan.voxels_computed * self.views


@dataclass(frozen=True)
class TileDone(Event):
    """One tile has been through the network.

    Attributes
    ----------
    frame : int
        Index of the frame, counted from 0.
    index : int
        Index of the tile in its frame, counted from 0.
    tile : Tile
        Where it lies, on the grid of the network.
    position : tuple of int
        Index of the frame along the leading axes of the labels (empty for one frame).
    maps : numpy.ndarray or None
        ``(k, *shape of tile.crop)`` float32, what the tile adds to the maps, if ``live`` was
        asked for; the listener's own. Under ``blend="gaussian"`` the maps of the frame will be
        close to it, not the same.
    empty : bool
        Whether it held nothing by the model's spec and was not computed.
    """

    frame: int
    index: int
    tile: Tile
    position: tuple[int, ...] = ()
    maps: npt.NDArray[np.float32] | None = None
    empty: bool = False


@dataclass(frozen=True)
class FrameDone(Event):
    """One frame has its labels.

    Where a focus changes the order of frames, numbers of objects are those of
    ``Finished`` only there: in the end they follow the order of the image.

    Attributes
    ----------
    frame : int
        Index of the frame, counted from 0.
    position : tuple of int
        Index of the frame along the leading axes of the labels (empty for one frame).
    labels : numpy.ndarray
        Labels of the frame, ``([z,] y, x)``, unsigned integer, on the image's grid.
    n_objects : int
        Highest label, before any linking over frames.
    maps : numpy.ndarray or None
        ``(k, [z,] y, x)`` float32 on the image's grid, if maps were asked for.
    """

    frame: int
    position: tuple[int, ...]
    labels: npt.NDArray[Any]
    n_objects: int
    maps: npt.NDArray[np.float32] | None = None


@dataclass(frozen=True)
class Finished(Event):
    """The run is complete.

    Attributes
    ----------
    labels : numpy.ndarray
        The labels of the whole image.
    axes : str
        Axes of the labels, letters of ``tzyx``.
    n_objects : int
        Number of objects (or of classes present, background left out).
    seconds : float
        Wall-clock time of the run.
    provenance : dict
        What was run: package version, model, options, device, precision, tiles.
    maps : numpy.ndarray or None
        ``(k, ...)`` float32 maps of the whole image if they were asked for.
    spacing : tuple of (float or None), or None
        Voxel size along each spatial axis of ``axes``, None along one for which it is not known; None when it is
        known along none.
    units : str
        Unit of ``spacing`` and ``origin``.
    offset : tuple of int
        Where the labels begin in the image, in voxels along each of ``axes``: not 0 where a
        region was asked for.
    spread : numpy.ndarray or None
        How much the maps differ over the flips, float32 of the shape of the labels, if the options
        have flips and maps were asked for: the standard deviation of the foreground map, or the
        mean over the classes of theirs; from 0 to 0.5.
    origin : mapping of str to float
        Where the first voxel of the image lies, by spatial axis, as far as that is known; ``offset`` counts from there.
    time_step : float or None
        Seconds from one frame of a time series to the next; None when unknown.
    """

    labels: npt.NDArray[Any]
    axes: str
    n_objects: int
    seconds: float
    provenance: dict[str, Any] = field(default_factory=dict)
    maps: npt.NDArray[np.float32] | None = None
    spacing: tuple[float | None, ...] | None = None
    units: str = "pixel"
    offset: tuple[int, ...] = ()
    spread: npt.NDArray[np.float32] | None = None
    origin: Mapping[str, float] = field(default_factory=dict)
    time_step: float | None = None
