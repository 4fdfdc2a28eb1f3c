"""How the answers of tiles meet: cut and put side by side, or averaged where they overlap."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt

from napari_tiled_unet.errors import ModelError, OptionsError, TiledUnetError

if TYPE_CHECKING:
    from napari_tiled_unet.options import BlendMode
    from napari_tiled_unet.tiling import Tile, TilePlan

# Gaussian weights: sides span eight standard deviations, and no voxel weighs less than the floor.
_SIDE_PER_SIGMA = 8.0
_WEIGHT_FLOOR = 1e-3


class Blend:
    """Join the network's outputs of all tiles into the maps of the frame, in place.

    ``crop`` copies the kept part of each output to where it goes. ``gaussian`` takes the
    mean of all tiles that cover a voxel, weighted with a Gaussian that falls from the
    middle of a tile to its sides. Tiles form a grid, so the sum of the weights at a voxel
    is a product over the axes; weights are divided by it beforehand, and one accumulator
    is enough.

    Parameters
    ----------
    plan : TilePlan
        The tiles of the frame.
    channels : int
        Number of maps that the network gives.
    mode : {"crop", "gaussian"}
        How tiles meet.
    dtype : dtype, default float32
        Of the result; outputs are cast to it as NumPy assigns. Gaussian sums are float32
        at least.
    out : array, ``(channels, *plan.shape)``, optional
        Where ``crop`` writes: anything with a shape that takes ``out[box] = values``, for
        example a ``numpy.memmap`` when the maps are larger than memory. It has its own dtype.
    allocate : callable, default numpy.zeros
        Makes the array that tiles are joined in, from shape and dtype: where it should not be memory.
    convert : callable, optional
        Writes the sums of ``gaussian`` into an array of the dtype asked for; by default NumPy does.

    Raises
    ------
    OptionsError
        If the mode is unknown, ``out`` is given to ``gaussian`` or has another shape, or
        ``dtype`` cannot hold a mean.

    Examples
    --------
    >>> from napari_tiled_unet.tiling import plan_tiles
    >>> plan = plan_tiles((5, 70), tile=(8, 32), overlap=(0, 4), stride=(4, 4))
    >>> blend = Blend(plan, channels=2, mode="gaussian")
    >>> for tile in plan:
    ...     blend.add(tile, np.ones((2, *plan.tile), np.float32))
    >>> blend.finish().shape
    (2, 5, 70)
    """

    def __init__(
        self,
        plan: TilePlan,
        channels: int,
        mode: BlendMode = "crop",
        dtype: npt.DTypeLike = np.float32,
        out: Any = None,
        allocate: Callable[..., npt.NDArray[Any]] = np.zeros,
        convert: Callable[[npt.NDArray[Any], npt.NDArray[Any]], object] | None = None,
    ) -> None:
        if mode not in ("crop", "gaussian"):
            raise OptionsError(f"blend={mode!r} is unknown; it must be 'crop' or 'gaussian'")
        if channels < 1:
            raise OptionsError(f"channels={channels} maps cannot be blended; a network gives at least 1")
        shape = (channels, *plan.shape)
        if out is not None and mode != "crop":
            raise OptionsError(
                f"blend={mode!r} sums in memory and cannot write into out; leave out away or take 'crop'"
            )
        if out is not None and tuple(out.shape) != shape:
            raise OptionsError(f"out has shape {tuple(out.shape)}, the maps have {shape}; give an array of that shape")
        self._plan, self._channels, self._mode, self._dtype = plan, channels, mode, np.dtype(dtype)
        self._missing = set(range(len(plan)))
        self._out: Any = out
        self._allocate, self._convert = allocate, convert or _convert
        if mode == "gaussian":
            if self._dtype.kind != "f":
                raise OptionsError(f"dtype={self._dtype} cannot hold a weighted mean; take a float, or blend='crop'")
            self._out = allocate(shape, np.promote_types(self._dtype, np.float32))
            self._shares = tuple(
                _axis_shares(s, t, n) for s, t, n in zip(plan.starts, plan.tile, plan.shape, strict=True)
            )
        elif out is None:
            self._out = allocate(shape, self._dtype)

    def add(self, tile: Tile, maps: npt.ArrayLike) -> None:
        """Take the network's output of one tile.

        Parameters
        ----------
        tile : Tile
            A tile of the plan that was not added before; the order is free.
        maps : array, ``(channels, *plan.output_shape(tile))``
            The output for ``tile.read``; not kept.

        Raises
        ------
        ModelError
            If the output has another shape.
        TiledUnetError
            If the tile was added before or is not of the plan.
        """
        maps = np.asarray(maps)
        expected = (self._channels, *self._plan.output_shape(tile))
        if maps.shape != expected:
            raise ModelError(
                f"the network gave maps of shape {maps.shape} for tile {tile.index}, {expected} is needed; "
                "it must give as many voxels as it is given, and the channels of its target"
            )
        if tile.index not in self._missing or self._plan.tiles[tile.index] != tile:
            raise TiledUnetError(
                f"tile {tile.index} was added before or is not of this plan; add each of its tiles once"
            )
        if self._mode == "crop":
            self._out[(slice(None), *tile.write)] = maps[(slice(None), *tile.crop)]
        else:
            self._add_weighted(tile, maps)
        self._missing.remove(tile.index)

    @property
    def missing(self) -> frozenset[int]:
        """Indices of the tiles that were not added yet."""
        return frozenset(self._missing)

    def weights(self, tile: Tile) -> npt.NDArray[np.float32]:
        """Return the share that a tile has in each voxel of the frame that it reads.

        Shares are above 0, and those of all tiles add up to 1 at every voxel.

        Parameters
        ----------
        tile : Tile
            A tile of the plan, blended as ``gaussian``.

        Returns
        -------
        numpy.ndarray
            float32, of the shape of ``tile.read`` clipped to the frame.

        Raises
        ------
        OptionsError
            If the mode is ``crop``, which has no weights.
        """
        if self._mode == "crop":
            raise OptionsError("blend='crop' has no weights, each voxel is written by one tile; take 'gaussian'")
        share = np.ones((), np.float32)
        for read, shares in zip(tile.read, self._shares, strict=True):
            share = np.multiply.outer(share, shares[read.start])
        return share

    def finish(self) -> npt.NDArray[Any]:
        """Return the maps of the whole frame.

        Returns
        -------
        numpy.ndarray
            ``(channels, *plan.shape)`` of the dtype asked for; ``out`` itself if it was given.

        Raises
        ------
        TiledUnetError
            If a tile was not added, so that part of the maps would be made up.
        """
        if self._missing:
            raise TiledUnetError(
                f"{len(self._missing)} of {len(self._plan)} tiles were not added (the first is {min(self._missing)}); "
                "add every tile of the plan before finishing"
            )
        if self._mode == "gaussian" and self._out.dtype != self._dtype:
            sums, self._out = self._out, self._allocate(self._out.shape, self._dtype)
            self._convert(sums, self._out)
        return cast("npt.NDArray[Any]", self._out)

    def _add_weighted(self, tile: Tile, maps: npt.NDArray[Any]) -> None:
        weights = self.weights(tile)
        inside = tuple(slice(0, n) for n in weights.shape)
        covered = tuple(slice(read.start, read.start + n) for read, n in zip(tile.read, weights.shape, strict=True))
        weighted = np.empty(weights.shape, self._out.dtype)
        # Channel by channel, so that the product needs the room of one map only.
        for total, channel in zip(self._out, maps, strict=True):
            np.multiply(channel[inside], weights, out=weighted, casting="same_kind")
            total[covered] += weighted


def _convert(values: npt.NDArray[Any], out: npt.NDArray[Any]) -> None:
    np.copyto(out, values, casting="same_kind")


def _axis_shares(starts: tuple[int, ...], tile: int, side: int) -> dict[int, npt.NDArray[np.float32]]:
    """Return, for each start, the weights along one axis divided by the sum over all starts."""
    from_middle = (np.arange(tile) - (tile - 1) / 2) / (tile / _SIDE_PER_SIGMA)
    bell = np.maximum(np.exp(-0.5 * from_middle**2), _WEIGHT_FLOOR)
    total = np.zeros(side)
    for start in starts:
        total[start : start + tile] += bell[: side - start]
    return {start: (bell[: side - start] / total[start : start + tile]).astype(np.float32) for start in starts}
