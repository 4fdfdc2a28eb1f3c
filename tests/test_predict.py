"""The identity that matters: tiles give what the whole image gives."""

from __future__ import annotations

import math
import threading
import time
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_tiled_unet.errors import FileError, MemoryBudgetError
from napari_tiled_unet.events import Event, Notice, TileDone
from napari_tiled_unet.networks.zoo import Network, build_network, network_spec
from napari_tiled_unet.normalise import Normalisation, Statistics, measure
from napari_tiled_unet.options import SegmentOptions
from napari_tiled_unet.predict import Empty, Manner, TileShortageError, iter_predict
from napari_tiled_unet.runtime import Runner
from napari_tiled_unet.shortage import zeros_or_disk
from napari_tiled_unet.targets import Objects
from napari_tiled_unet.tiling import TilePlan, plan_tiles

CPU = torch.device("cpu")


def trained_like(**choices: object) -> Network:
    """Return a small network whose batch norms have statistics, as after training."""
    torch.manual_seed(5)
    network = build_network(network_spec("unet", **{"width": 4, "out_channels": 2, **choices}))
    generator = torch.Generator().manual_seed(6)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d | torch.nn.BatchNorm3d):
            module.running_mean.normal_(0, 0.3, generator=generator)
            module.running_var.uniform_(0.5, 2, generator=generator)
            module.weight.data.uniform_(0.5, 1.5, generator=generator)
            module.bias.data.normal_(0, 0.3, generator=generator)
    return network.eval()


NETWORKS = {
    "2D": trained_like(ndim=2, depth=2),
    "2D-linear-strided": trained_like(ndim=2, depth=2, downsample="strided-conv", upsample="linear"),
    "2D-residual": trained_like(ndim=2, depth=1, block="residual", upsample="nearest"),
    "3D": trained_like(ndim=3, depth=1, width=2),
    "3D-anisotropic": trained_like(ndim=3, depth=2, width=2, kernels=((1, 3, 3), 3, 3), downsampling=((1, 2, 2), 2)),
}


def drain(
    network: Network, frame: np.ndarray, plan: TilePlan, blend: str = "crop", target: Objects | None = None
) -> np.ndarray:
    statistics, _ = measure(frame, Normalisation())
    runner = Runner(network, (target or Objects()).activate, CPU, torch.float32)
    events = iter_predict(frame, statistics, runner, plan, n_maps=2, manner=Manner(blend=blend))
    count = 0
    while True:
        try:
            event = next(events)
        except StopIteration as end:
            assert count == len(plan)
            return end.value
        assert event.index == count
        count += 1


def image(shape: tuple[int, ...], seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 1000, (1, *shape)).astype(np.uint16)


def whole_plan(shape: tuple[int, ...], network: Network) -> TilePlan:
    return plan_tiles(shape, shape, (0,) * len(shape), network.stride)


@pytest.mark.parametrize("name", NETWORKS)
@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_tiles_with_exact_overlap_give_the_whole_image(name: str, data: st.DataObject) -> None:
    network = NETWORKS[name]
    ndim = network.spec.ndim
    reach, stride = network.receptive_field, network.stride
    shape = tuple(data.draw(st.integers(1, 90 if ndim == 2 else 34), label="side") for _ in range(ndim))
    tile = tuple(
        data.draw(st.integers(math.ceil((2 * r + 1) / s) + 1, math.ceil((2 * r + 1) / s) + 4), label="strides") * s
        for r, s in zip(reach, stride, strict=True)
    )
    frame = image(shape, data.draw(st.integers(0, 9), label="seed"))
    whole = drain(network, frame, whole_plan(shape, network))
    tiled = drain(network, frame, plan_tiles(shape, tile, reach, stride))
    assert np.abs(whole - tiled).max() <= 1e-5
    options, target = SegmentOptions(), Objects()
    np.testing.assert_array_equal(target.decode(tiled, options), target.decode(whole, options))


@pytest.mark.parametrize("name", ["2D", "3D"])
def test_the_identity_is_about_the_overlap(name: str) -> None:
    """Less overlap than the receptive field leaves seams: the identity test can fail."""
    network = NETWORKS[name]
    shape = (70, 66) if network.spec.ndim == 2 else (20, 22, 26)
    frame = image(shape, 1)
    whole = drain(network, frame, whole_plan(shape, network))
    tile = tuple(4 * s for s in network.stride)
    tiled = drain(network, frame, plan_tiles(shape, tile, (0,) * len(shape), network.stride))
    assert np.abs(whole - tiled).max() > 1e-3


def test_the_runner_gives_the_networks_own_maps() -> None:
    """Folding the norms and the memory layout change nothing."""
    for name, network in NETWORKS.items():
        x = torch.rand(2, 1, *(16,) * network.spec.ndim, generator=torch.Generator().manual_seed(0))
        expected = network(x).sigmoid()
        given_maps = Runner(network, torch.sigmoid, CPU, torch.float32).run(x.numpy())
        np.testing.assert_allclose(given_maps, expected.detach().numpy(), atol=1e-6, err_msg=name)
        norms = [m for m in network.modules() if isinstance(m, torch.nn.BatchNorm2d | torch.nn.BatchNorm3d)]
        assert norms, "the runner must not change the network it is given"


def test_gaussian_blending_is_close_and_smooth() -> None:
    network = NETWORKS["2D"]
    frame = image((90, 80), 2)
    whole = drain(network, frame, whole_plan((90, 80), network))
    plan = plan_tiles((90, 80), (48, 48), (12, 12), network.stride)
    gaussian, crop = drain(network, frame, plan, "gaussian"), drain(network, frame, plan, "crop")
    assert gaussian.shape == whole.shape
    assert np.abs(gaussian - whole).mean() < 0.01
    assert not np.array_equal(gaussian, crop)


def test_bfloat16_is_close() -> None:
    network = NETWORKS["2D"]
    x = torch.rand(1, 1, 32, 32, generator=torch.Generator().manual_seed(0)).numpy()
    exact = Runner(network, torch.sigmoid, CPU, torch.float32).run(x)
    reduced = Runner(network, torch.sigmoid, CPU, torch.bfloat16).run(x)
    assert reduced.dtype == np.float32
    assert 0 < np.abs(exact - reduced).max() < 0.05


def test_closing_stops_after_the_tile_in_work() -> None:
    network = NETWORKS["2D"]
    frame = image((90, 80), 2)
    statistics, _ = measure(frame, Normalisation())
    calls = []

    class Counting(Runner):
        def run(self, tiles: np.ndarray) -> np.ndarray:
            calls.append(1)
            return super().run(tiles)

    plan = plan_tiles((90, 80), (16, 16), (0, 0), network.stride)
    events = iter_predict(frame, statistics, Counting(network, torch.sigmoid, CPU, torch.float32), plan, n_maps=2)
    next(events)
    next(events)
    events.close()
    assert len(calls) == 2 < len(plan)


def test_running_out_of_memory_is_said_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    runner = Runner(NETWORKS["2D"], torch.sigmoid, CPU, torch.float32)
    runner.run(np.zeros((1, 1, 8, 8), np.float32))

    def too_much(x: torch.Tensor) -> torch.Tensor:
        raise torch.OutOfMemoryError("no")

    monkeypatch.setattr(runner._held[0].backend, "_network", too_much)
    with pytest.raises(
        MemoryBudgetError, match=r"tiles of \(8, 8\) voxels ran out of memory on cpu; take a smaller tile"
    ):
        runner.run(np.zeros((1, 1, 8, 8), np.float32))


def gone_through(
    plan: TilePlan, frame: np.ndarray, runner: object, manner: Manner | None = None
) -> tuple[list[Event], np.ndarray]:
    """Return the events and the maps."""
    statistics, _ = measure(frame, Normalisation("none"))
    events = iter_predict(frame, statistics, runner, plan, n_maps=1, manner=manner)
    seen = []
    while True:
        try:
            seen.append(next(events))
        except StopIteration as end:
            return seen, end.value


class Doubling:
    """A network that doubles, and can only be given so many voxels at once."""

    def __init__(self, most: float = math.inf, error: Exception | None = None) -> None:
        self.most, self.error = most, error or MemoryBudgetError("no")
        self.sizes: list[int] = []

    def settle(self, frame: Any, statistics: Statistics) -> None:
        """There is nothing to settle."""

    def run(self, tiles: np.ndarray) -> np.ndarray:
        if tiles.size > self.most:
            raise self.error
        self.sizes.append(len(tiles))
        return 2 * tiles


PLAN = plan_tiles((64, 64), (16, 16), (2, 2), (4, 4))


@pytest.mark.parametrize("batch", [1, 3, 7, 100])
def test_batches_change_nothing(batch: int) -> None:
    frame, runner = image((64, 64), 3), Doubling()
    events, maps = gone_through(PLAN, frame, runner, Manner(batch=batch))
    np.testing.assert_array_equal(maps, 2.0 * frame)
    assert sorted(e.index for e in events) == list(range(len(PLAN)))
    assert max(runner.sizes) == min(batch, len(PLAN))


@pytest.mark.parametrize(
    "error",
    [
        MemoryBudgetError("no"),
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes"),
        RuntimeError("std::bad_alloc"),
    ],
)
def test_batches_are_halved_when_memory_runs_out(error: Exception) -> None:
    frame, runner = image((64, 64), 3), Doubling(most=3 * 256, error=error)
    events, maps = gone_through(PLAN, frame, runner, Manner(batch=8))
    np.testing.assert_array_equal(maps, 2.0 * frame)
    notices = [e.message for e in events if isinstance(e, Notice)]
    assert notices == [f"memory ran short: batches of {n} tiles from here on" for n in (4, 2)]
    assert sorted(e.index for e in events if isinstance(e, TileDone)) == list(range(len(PLAN)))
    assert max(runner.sizes) == 2


def test_a_single_tile_that_does_not_fit_is_told_apart() -> None:
    with pytest.raises(TileShortageError, match=r"a tile of \(16, 16\) voxels ran out of memory; take a smaller tile"):
        gone_through(PLAN, image((64, 64), 3), Doubling(most=200), Manner(batch=4))


def test_other_errors_are_not_taken_for_it() -> None:
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        gone_through(PLAN, image((64, 64), 3), Doubling(most=1, error=RuntimeError("mat1 and mat2")), Manner(batch=4))


def test_tiles_that_hold_nothing_are_not_computed() -> None:
    frame = np.zeros((1, 64, 64), np.float32)
    frame[0, 5, 5], frame[0, 60, 33] = 3, 3
    runner = Doubling()
    events, maps = gone_through(PLAN, frame, runner, Manner(batch=4, empty=Empty(0.5, (0.0,))))
    np.testing.assert_array_equal(maps, 2 * frame)
    holding = [t.index for t in PLAN if frame[(0, *t.read)].max() > 0]
    assert [e.index for e in events if not e.empty] == holding
    assert sum(runner.sizes) == len(holding) < len(PLAN)
    _, maps = gone_through(PLAN, np.zeros((1, 64, 64), np.float32), runner, Manner(empty=Empty(0.5, (7.0,))))
    assert (maps == 7).all()


def test_no_thread_is_left() -> None:
    def helpers() -> list[str]:
        return [t.name for t in threading.enumerate() if t.name.startswith("tiled-unet")]

    frame = image((64, 64), 3)
    statistics, _ = measure(frame, Normalisation("none"))
    for tiles in (0, 1, 5):
        events = iter_predict(frame, statistics, Doubling(), PLAN, n_maps=1)
        for _ in range(tiles):
            next(events)
        assert len(helpers()) == min(tiles, 1)
        events.close()
        assert helpers() == []
    with pytest.raises(TileShortageError):
        gone_through(PLAN, frame, Doubling(most=1))
    assert helpers() == []


def test_the_next_tile_is_read_while_one_is_computed() -> None:
    read = []
    frame = image((64, 64), 3)

    class Watched:
        shape = frame.shape

        def __len__(self) -> int:
            return 1

        def __getitem__(self, box: Any) -> np.ndarray:
            read.append(box)
            return frame[box]

    class Waiting(Doubling):
        def run(self, tiles: np.ndarray) -> np.ndarray:
            # The helper reads one tile further, while this one is in work.
            wanted = min(len(self.sizes) + 2, len(PLAN))
            for _ in range(500):
                if len(read) >= wanted:
                    break
                time.sleep(0.01)
            assert len(read) == wanted
            return super().run(tiles)

    statistics, _ = measure(frame, Normalisation("none"))
    for _ in iter_predict(Watched(), statistics, Waiting(), PLAN, n_maps=1):
        pass
    assert len(read) == len(PLAN)


def test_an_error_while_reading_ahead_reaches_the_caller() -> None:
    class Broken:
        shape = (1, 64, 64)

        def __len__(self) -> int:
            return 1

        def __getitem__(self, box: tuple[slice, ...]) -> np.ndarray:
            if box[1].start > 0:
                raise FileError("cut off")
            return np.zeros((1, 16, 16))

    with pytest.raises(FileError, match="cut off"):
        for _ in iter_predict(Broken(), Statistics((0.0,), (1.0,)), Doubling(), PLAN, n_maps=1):
            pass


def test_maps_may_lie_in_a_file() -> None:
    frame = image((64, 64), 3)
    for blend in ("crop", "gaussian"):
        _, inside = gone_through(PLAN, frame, Doubling(), Manner(blend=blend))
        manner = Manner(blend=blend, allocate=lambda shape, dtype: zeros_or_disk(shape, dtype, free=0))
        _, on_disk = gone_through(PLAN, frame, Doubling(), manner)
        assert isinstance(on_disk, np.memmap)
        np.testing.assert_array_equal(on_disk, inside)
    assert not isinstance(zeros_or_disk((4, 4), np.float16), np.memmap)


def test_an_array_that_cannot_be_allocated_goes_to_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object) -> None:
        raise MemoryError

    monkeypatch.setattr("napari_tiled_unet.shortage.np.zeros", full)
    values = zeros_or_disk((3, 5), np.uint16)
    assert isinstance(values, np.memmap)
    assert not values.any()
