"""A frame to maps: read tiles, run the network, blend; a generator of events.

While the network computes one batch of tiles, a thread of its own reads and normalises the
next and blends the last::

    helper     read 0  read 1          blend 0  read 2     blend 1  read 3    ...
    caller             compute 0 ----  compute 1 --------  compute 2 -------  ...

One batch is ahead and one behind, never more; the two input buffers take turns. Strips
(:mod:`~napari_tiled_unet.strips`) go the same way, one at a time and in their order.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_tiled_unet.blending import Blend
from napari_tiled_unet.errors import MemoryBudgetError
from napari_tiled_unet.events import Event, Notice, TileDone
from napari_tiled_unet.half_precision import to_half
from napari_tiled_unet.shortage import is_shortage
from napari_tiled_unet.strips import StripPlan
from napari_tiled_unet.tiling import Tile, TilePlan, read_tile

if TYPE_CHECKING:
    from napari_tiled_unet.backends.interface import Stream
    from napari_tiled_unet.focus import Focus
    from napari_tiled_unet.normalise import Statistics
    from napari_tiled_unet.options import BlendMode
    from napari_tiled_unet.runtime import Runner


class TileShortageError(MemoryBudgetError):
    """Not even one tile of the plan fits the memory; smaller ones may."""


@dataclass(frozen=True)
class SmallerBatches(Notice):
    """Memory ran short; ``batch`` tiles are computed at once from here on."""

    batch: int = 1


@dataclass(frozen=True)
class Empty:
    """When a tile holds nothing, and what its maps are then.

    Attributes
    ----------
    below : float
        A tile whose normalised intensities all lie below this is empty.
    maps : tuple of float
        The value of each map there.
    """

    below: float
    maps: tuple[float, ...]


@dataclass(frozen=True)
class Manner:
    """How a frame is gone through; what changes the maps' storage, order and telling, not their values.

    Attributes
    ----------
    blend : {"crop", "gaussian"}
        How tiles meet.
    batch : int
        Tiles that the network is given at once; halved where memory runs short.
    dtype : numpy.dtype
        Of the maps.
    allocate : callable
        Makes the array of the maps, from shape and dtype.
    empty : Empty, optional
        Which tiles are not computed; all are by default.
    live : bool
        Whether the events carry a copy of what each tile adds to the maps.
    focus : Focus, optional
        What comes first; the order of the plan otherwise.
    scale : tuple of float, optional
        Voxels of the frame per voxel of the labels, in which the focus is given; 1 by default.
    """

    blend: BlendMode = "crop"
    batch: int = 1
    dtype: npt.DTypeLike = np.float32
    allocate: Callable[..., npt.NDArray[Any]] = np.zeros
    empty: Empty | None = None
    live: bool = False
    focus: Focus | None = None
    scale: tuple[float, ...] | None = None


def iter_predict(
    frame: npt.NDArray[Any],
    statistics: Statistics,
    runner: Runner,
    plan: TilePlan,
    *,
    n_maps: int,
    manner: Manner | None = None,
    index: int = 0,
    position: tuple[int, ...] = (),
) -> Generator[Event, None, npt.NDArray[Any]]:
    """Run a network over a frame tile by tile.

    Parameters
    ----------
    frame : numpy.ndarray
        ``(c, [z,] y, x)``, raw intensities; no copy of it is made, only of tiles.
    statistics : Statistics
        Of the whole frame; each tile is normalised with them.
    runner : Runner
        The network.
    plan : TilePlan
        The tiles of the frame.
    n_maps : int
        Number of maps that the network gives.
    manner : Manner, optional
        How to go through it.
    index, position : int, tuple of int
        Index and position of the frame, repeated in the events.

    Yields
    ------
    TileDone
        After each tile.
    Notice
        If batches had to be made smaller.

    Returns
    -------
    numpy.ndarray
        ``(k, [z,] y, x)`` maps of the frame.

    Raises
    ------
    TileShortageError
        If memory runs out on a single tile.
    """
    manner = manner or Manner()
    half = np.dtype(manner.dtype) == np.float16
    blended = Blend(
        plan, n_maps, manner.blend, manner.dtype, allocate=manner.allocate, convert=to_half if half else None
    )
    work = _Work(frame, statistics, runner, plan, manner)
    try:
        # Before the first tile, and by all of the frame: a tile may have nothing in it.
        runner.settle(frame, statistics)
        yield from _through(work, blended, half=half, index=index, position=position)
    except Exception as error:
        # Reading, converting and blending tiles need memory as well; smaller ones need less.
        if isinstance(error, TileShortageError) or not is_shortage(error):
            raise
        raise work.shortage() from error
    return blended.finish()


def _through(
    work: _Work, blended: Blend, *, half: bool, index: int, position: tuple[int, ...]
) -> Generator[Event, None, None]:
    """Yield the events of the tiles, whose maps are blended meanwhile."""
    manner = work.manner
    with _one_helper() as helper:
        blending: Future[None] | None = None
        while work.waiting or work.reading:
            batch = work.next_batch(helper)
            maps = work.run(batch)
            if maps is None:
                yield SmallerBatches(f"memory ran short: batches of {work.batch} tiles from here on", batch=work.batch)
                continue
            # The maps of the last batch are let go before those of the next are there.
            if blending is not None:
                blending.result()
            # Here and not in the helper, whose threads would be more than there are cores.
            added = to_half(maps) if half and manner.blend == "crop" else maps
            blending = helper.submit(_blend, blended, batch, added)
            del added
            for place, (tile, tile_maps) in enumerate(zip(batch.tiles, maps, strict=True)):
                kept = tile_maps[(slice(None), *tile.crop)].copy() if manner.live else None
                yield TileDone(index, tile.index, tile, position, kept, place not in batch.computed)
        if blending is not None:
            blending.result()


@dataclass(frozen=True)
class _Batch:
    """Tiles that were read: normalised, ``(n, c, *tile)``; ``computed`` are those that are not empty."""

    tiles: list[Tile]
    voxels: npt.NDArray[np.float32]
    computed: list[int]


class _Work:
    """What is still to do of a frame."""

    def __init__(
        self, frame: npt.NDArray[Any], statistics: Statistics, runner: Runner, plan: TilePlan, manner: Manner
    ) -> None:
        self.frame, self.statistics, self.runner, self.plan, self.manner = frame, statistics, runner, plan, manner
        self.waiting = {tile.index: tile for tile in plan}
        self.strips = plan if isinstance(plan, StripPlan) else None
        self.batch = 1 if self.strips else max(1, min(manner.batch, len(plan)))
        self.reading: Future[_Batch] | None = None
        self._buffers: list[npt.NDArray[np.float32]] = []
        self._turn = 0
        self._stream: Stream | None = None

    def shortage(self) -> TileShortageError:
        """Return the error that says that the tiles are too large."""
        return TileShortageError(
            f"a tile of {self.plan.tile} voxels ran out of memory; "
            "take a smaller tile or overlap, or set memory to what is free"
        )

    def next_batch(self, helper: ThreadPoolExecutor) -> _Batch:
        """Return the batch that was read ahead, and have the next one read."""
        if self.reading is None:
            self.reading = self._read_ahead(helper)
        batch = self.reading.result()
        self.reading = self._read_ahead(helper) if self.waiting else None
        return batch

    def _read_ahead(self, helper: ThreadPoolExecutor) -> Future[_Batch]:
        tiles = [self._next_tile() for _ in range(min(self.batch, len(self.waiting)))]
        self._turn = 1 - self._turn
        return helper.submit(self._read, tiles, self._turn)

    def _next_tile(self) -> Tile:
        # A strip continues the one before, wherever somebody looks.
        tiles, focus = self.waiting.values(), None if self.strips else self.manner.focus
        scale = self.manner.scale or (1.0,) * len(self.plan.shape)
        tile = next(iter(tiles)) if focus is None else focus.nearest_tile(tiles, scale)
        return self.waiting.pop(tile.index)

    def _read(self, tiles: list[Tile], turn: int) -> _Batch:
        """Read and normalise tiles; runs in the helper."""
        while len(self._buffers) <= turn:
            self._buffers.append(np.empty((self.batch, len(self.frame), *self.plan.tile), np.float32))
        # Strips but for the first are shorter.
        sides = (slice(read.stop - read.start) for read in tiles[0].read)
        voxels = self._buffers[turn][(slice(len(tiles)), slice(None), *sides)]
        computed = []
        for place, tile in enumerate(tiles):
            self.statistics.apply(read_tile(self.frame, tile, self.plan), out=voxels[place])
            if self.strips or self.manner.empty is None or voxels[place].max() >= self.manner.empty.below:
                computed.append(place)
        return _Batch(tiles, voxels, computed)

    def run(self, batch: _Batch) -> npt.NDArray[np.float32] | None:
        """Return the maps of a batch, ``(n, k, *tile)``; None if it was put back, to come in smaller ones."""
        given = batch.voxels if len(batch.computed) == len(batch.tiles) else batch.voxels[batch.computed]
        try:
            maps = self._maps(batch, given) if batch.computed else None
        except Exception as error:
            if not is_shortage(error):
                raise
            if len(batch.tiles) == 1:
                raise self.shortage() from error
            self._put_back(batch)
            return None
        return maps if given is batch.voxels and maps is not None else self._with_empty(batch, maps)

    def _maps(self, batch: _Batch, given: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        if self.strips is None:
            return self.runner.run(given)
        axis = self.strips.axis
        (tile,) = batch.tiles
        if tile.read[axis].start == 0:
            self._stream = None
            self._stream = self.runner.stream(given, axis, self.plan.padded[axis], self.strips.rows)
        assert self._stream is not None
        return self._stream.push(given, tile.write[axis].stop)

    def _with_empty(self, batch: _Batch, maps: npt.NDArray[np.float32] | None) -> npt.NDArray[np.float32]:
        empty = self.manner.empty
        assert empty is not None
        values = np.array(empty.maps, np.float32).reshape(-1, *(1,) * len(self.plan.tile))
        every = np.empty((len(batch.tiles), len(empty.maps), *self.plan.tile), np.float32)
        every[:] = values
        if maps is not None:
            every[batch.computed] = maps
        return every

    def _put_back(self, batch: _Batch) -> None:
        """Let the tiles of a batch and of the one read ahead wait again, for batches of half the size."""
        tiles = list(batch.tiles)
        if self.reading is not None:
            tiles += self.reading.result().tiles
            self.reading = None
        self.waiting = {tile.index: tile for tile in (*tiles, *self.waiting.values())}
        self.batch = max(1, self.batch // 2)
        self._buffers.clear()


def _blend(blended: Blend, batch: _Batch, maps: npt.NDArray[Any]) -> None:
    """Add the maps of a batch; runs in the helper."""
    for tile, tile_maps in zip(batch.tiles, maps, strict=True):
        blended.add(tile, tile_maps)


@contextmanager
def _one_helper() -> Iterator[ThreadPoolExecutor]:
    """Give a thread for the work beside the network; it has ended when the context is left."""
    helper = ThreadPoolExecutor(1, thread_name_prefix="tiled-unet")
    try:
        yield helper
    finally:
        helper.shutdown(wait=True, cancel_futures=True)
