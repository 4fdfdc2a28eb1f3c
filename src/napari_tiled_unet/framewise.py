"""A frame to labels: normalised, tiled, blended, certified, decoded; with less memory if it must be.

Out of memory is a slowdown: batches are halved by :mod:`napari_tiled_unet.predict`, then tiles
here, and maps that fit no memory go to disk. The labels are the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_tiled_unet.errors import MemoryBudgetError
from napari_tiled_unet.events import Event, Notice, Planned, TileDone
from napari_tiled_unet.frame_plan import first_choice
from napari_tiled_unet.half_precision import to_half
from napari_tiled_unet.memory import free_memory
from napari_tiled_unet.normalise import Normalisation, Statistics, measure
from napari_tiled_unet.planning import Choice, choose_tiles
from napari_tiled_unet.predict import Empty, Manner, SmallerBatches, TileShortageError, iter_predict
from napari_tiled_unet.seams import SeamError, certify
from napari_tiled_unet.shortage import is_on_disk, is_shortage, zeros_or_disk

if TYPE_CHECKING:
    from napari_tiled_unet.focus import Focus
    from napari_tiled_unet.image import Frame
    from napari_tiled_unet.matching import Grid
    from napari_tiled_unet.model import Model, ModelSpec
    from napari_tiled_unet.options import SegmentOptions
    from napari_tiled_unet.runtime import Runner

# Maps may take this part of the memory that is free; decoding needs the rest.
_MAPS_PART = 0.5
# As many times are tiles halved before it is no use.
_MOST_HALVINGS = 12


@dataclass(frozen=True)
class Wishes:
    """What the caller wants beside the labels, and first."""

    keep_maps: bool | Callable[[tuple[int, ...]], npt.NDArray[np.float32] | None] = False
    live: bool = False
    focus: Focus | None = None


class _OtherFormatError(Exception):
    """The network runs in another number format than was planned, for which the tiles are too large."""

    def __init__(self, choice: Choice) -> None:
        super().__init__("the tiles are too large for the number format that runs")
        self.choice = choice


@dataclass
class Framewise:
    """What is the same for every frame of a run, and what a run learns on its way.

    Attributes
    ----------
    model, options, wishes
        What to do.
    runner : Runner
        The network.
    grid : Grid
        Voxels of a frame in the image and for the network.
    channels : tuple of int or None
        Channels that the model sees.
    planned : Planned
        What was told of the plan.
    choice : Choice
        The plan of a frame; replaced by one of smaller tiles when memory runs out.
    measured : callable
        Where the intensities of a frame are measured: itself, or what it is a part of.
    tiles_done, tiles_empty : int
        Tiles so far, and those of them that were not computed.
    seam_error : SeamError or None
        Of the first frame.
    """

    model: Model
    options: SegmentOptions
    wishes: Wishes
    runner: Runner
    grid: Grid
    channels: tuple[int, ...] | None
    planned: Planned
    choice: Choice
    measured: Callable[[Frame], Frame]
    tiles_done: int = 0
    tiles_empty: int = 0
    seam_error: SeamError | None = None
    _certified: bool = field(default=False, repr=False)
    _halvings: int = field(default=0, repr=False)

    def iter_frame(
        self, frame: Frame, frames_left: int
    ) -> Generator[Event, None, tuple[npt.NDArray[Any], npt.NDArray[Any]]]:
        """Yield the events of a frame; return its labels and :attr:`n_results` maps, on the image's grid."""
        options = self.options
        data = frame.read(self.channels)
        normalisation = self.model.spec.normalisation
        if options.normalisation is not None:
            normalisation = Normalisation(options.normalisation)
        measured = self.measured(frame)
        statistics, cautions = measure(data if measured is frame else measured.read(self.channels), normalisation)
        where = f" (frame {frame.position})" if frame.position else ""
        for message in cautions:
            yield Notice(message + where, caution=True)
        if self.grid.differs:
            # Rescaling would spread what is not finite, normalising replaces it; so that comes first.
            data = self.grid.to_network(statistics.apply(data))
            statistics = Statistics((0.0,) * len(data), (1.0,) * len(data))
        maps = yield from self._maps(data, statistics, frame, frames_left)
        yield from self.runner.take_notices()
        if not self._certified:
            self._certified = True
            self.seam_error = self._certificate(data, statistics, maps[: self.n_maps])
        del data
        maps = self.grid.to_image(maps, np.float32 if self.wishes.keep_maps else np.float16, _allocate)
        return self._decoded(maps[: self.n_maps]), maps

    def _decoded(self, maps: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return the labels of maps.

        Raises
        ------
        MemoryBudgetError
            If there is no memory for it, also with what was kept for tiles given back.
        """
        for last in (False, True):
            try:
                return self.model.spec.target.decode(_half(maps), self.options)
            except Exception as error:
                if not is_shortage(error):
                    raise
                if last:
                    raise MemoryBudgetError(
                        f"memory ran out while labels were made of the maps of {maps.shape[1:]} voxels; "
                        "close other programs, or segment the image in parts with region"
                    ) from error
            self.runner.give_back_memory()
        raise AssertionError("the second time returns or raises")

    @property
    def n_maps(self) -> int:
        """Maps that the network gives."""
        return len(self.model.spec.target.channels)

    @property
    def n_results(self) -> int:
        """Those, and the spread over flips where it is kept."""
        return self.n_maps + self.runner.gives_spread

    def _maps(
        self, data: npt.NDArray[Any], statistics: Statistics, frame: Frame, frames_left: int
    ) -> Generator[Event, None, npt.NDArray[Any]]:
        """Yield the events of the tiles; return the maps, with tiles as small as memory wants them."""
        while True:
            short: str | None = None
            fitted: Choice | None = None
            before = self.tiles_done, self.tiles_empty
            events = iter_predict(
                data,
                statistics,
                self.runner,
                self.choice.plan,
                n_maps=self.n_results,
                manner=self._manner(),
                index=frame.index,
                position=frame.position,
            )
            try:
                maps = yield from self._counted(events)
            except TileShortageError as error:
                short = str(error)
            except _OtherFormatError as error:
                fitted = error.choice
            if short is None and fitted is None:
                break
            # Here, and not where it was caught: there the error still holds what filled the memory.
            self.tiles_done, self.tiles_empty = before
            if fitted is not None:
                why = f"the network runs in {self.runner.precision}, whose numbers are larger"
                yield from self._replanned(fitted, why, frames_left)
            elif short is not None:
                yield from self._smaller_tiles(short, frames_left)
        if is_on_disk(maps):
            yield Notice(f"maps of {maps.nbytes / 2**30:.2f} GiB do not fit the memory and lie in a temporary file")
        return maps

    def _counted(self, events: Generator[Event, None, npt.NDArray[Any]]) -> Generator[Event, None, npt.NDArray[Any]]:
        try:
            while True:
                event = next(events)
                if isinstance(event, TileDone):
                    self.tiles_done += 1
                    self.tiles_empty += event.empty
                    if event.maps is not None:
                        event = replace(event, maps=event.maps[: self.n_maps])
                elif isinstance(event, SmallerBatches):
                    self.choice = replace(self.choice, batch=event.batch)
                yield event
                if isinstance(event, TileDone) and not event.empty and (fitted := self._fitted()) is not None:
                    raise _OtherFormatError(fitted)
        except StopIteration as end:
            maps: npt.NDArray[Any] = end.value
            return maps
        finally:
            events.close()

    def _fitted(self) -> Choice | None:
        """Return a plan of smaller tiles if the first tile settled on a number format that needs them."""
        import torch

        runner, told = self.runner, self.planned
        if runner.precision == told.precision:
            return None
        self.planned = replace(told, precision=runner.precision)
        dtype = getattr(torch, runner.precision)
        budget, kind = self.choice.costs.budget, runner.device.type
        try:
            # By the backend that is settled by now: strips are torch's alone.
            options = self.options.changed(backend=runner.backend)
            fitted = first_choice(
                self.choice.plan.shape, self.model, options, dtype, budget, kind, live=self.wishes.live
            )
        except MemoryBudgetError:
            # No tile fits by the estimate: the one that was planned is tried, as long as memory lasts.
            return None
        smaller = math.prod(fitted.plan.tile) < math.prod(self.choice.plan.tile)
        return fitted if smaller else None

    def _smaller_tiles(self, reason: str, frames_left: int) -> Generator[Event, None, None]:
        """Plan again with tiles of half the voxels, and say so.

        Raises
        ------
        MemoryBudgetError
            If there are none.
        """
        before = self.choice.plan
        self._halvings += 1
        try:
            if self._halvings > _MOST_HALVINGS:
                raise MemoryBudgetError(reason)
            choice = choose_tiles(
                before.shape,
                self.options.tile,
                # Not chosen again: the labels must stay those of the first plan.
                before.overlap,
                self.model.network,
                costs=self.choice.costs,
                trained_overlap=self.model.spec.earned_overlap if self.options.overlap == "auto" else None,
                at_most=math.prod(before.tile) // 2,
            )
        except MemoryBudgetError as error:
            raise MemoryBudgetError(f"{reason}; no smaller tile is possible: {error}") from None
        yield from self._replanned(choice, "memory ran out", frames_left)

    def _replanned(self, choice: Choice, reason: str, frames_left: int) -> Generator[Event, None, None]:
        """Take another plan, and say so."""
        before, plan, cautioned = self.choice.plan, choice.plan, self.choice.caution is not None
        self.choice = choice
        self.runner.give_back_memory()
        yield Notice(f"{reason}: tiles of {plan.tile} voxels instead of {before.tile}; the frame is started again")
        if choice.caution and not cautioned:
            yield Notice(choice.caution, caution=True)
        n_tiles = self.tiles_done + frames_left * len(plan)
        told = self.planned
        yield Planned(
            told.n_frames,
            n_tiles,
            told.shape,
            told.axes,
            plan,
            told.device,
            told.precision,
            tuple(self.choice.explain()),
            told.views,
        )

    def _manner(self) -> Manner:
        wishes, spec = self.wishes, self.model.spec
        # Rescaled from half precision whatever is kept, so that labels do not depend on it.
        exact = wishes.keep_maps and not self.grid.differs
        return Manner(
            blend=self.options.blend,
            # One by one under a focus, so that a move counts at once.
            batch=self.choice.batch if wishes.focus is None else 1,
            dtype=np.float32 if exact else np.float16,
            allocate=_allocate,
            empty=_empty(spec, self.n_results) if self.options.overlap != "exact" else None,
            live=wishes.live,
            focus=wishes.focus,
            scale=tuple(n / i for n, i in zip(self.grid.network, self.grid.image, strict=True)),
        )

    def _certificate(self, data: npt.NDArray[Any], statistics: Statistics, maps: npt.NDArray[Any]) -> SeamError | None:
        network = self.model.network
        if not network.exact_tiling or self.options.seam_windows == 0:
            return None
        try:
            return certify(
                data,
                statistics,
                self.runner,
                self.choice.plan,
                maps,
                reach=network.receptive_field,
                windows=self.options.seam_windows,
            )
        except Exception as error:
            # A window needs the context that tiles may have had to do without.
            if is_shortage(error):
                return None
            raise


def _allocate(shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    return zeros_or_disk(shape, dtype, _MAPS_PART * free_memory())


def _half(maps: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return maps in half precision, as labels are decoded from them whatever is kept."""
    if maps.dtype == np.float16:
        return maps
    return to_half(maps, _allocate(maps.shape, np.float16))


def _empty(spec: ModelSpec, n_maps: int) -> Empty | None:
    """Return which tiles need no network, and their maps."""
    if spec.empty_below is None:
        return None
    maps = [0.0] * n_maps
    if spec.target.kind == "classes":
        maps[0] = 1.0
    return Empty(spec.empty_below, tuple(maps))
