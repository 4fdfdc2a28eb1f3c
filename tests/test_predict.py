"""The identity that matters: tiles give what the whole image gives."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_tiled_unet.errors import MemoryBudgetError
from napari_tiled_unet.networks.zoo import Network, build_network, network_spec
from napari_tiled_unet.normalise import Normalisation, measure
from napari_tiled_unet.options import SegmentOptions
from napari_tiled_unet.predict import iter_predict
from napari_tiled_unet.runtime import Runner
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
    events = iter_predict(frame, statistics, runner, plan, n_maps=2, blend=blend)
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

    monkeypatch.setattr(runner._running, "_network", too_much)
    with pytest.raises(
        MemoryBudgetError, match=r"tiles of \(8, 8\) voxels ran out of memory on cpu; take a smaller tile"
    ):
        runner.run(np.zeros((1, 1, 8, 8), np.float32))
