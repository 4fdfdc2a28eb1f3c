"""Every backend gives what torch gives in float32."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch

from napari_tiled_unet import segment
from napari_tiled_unet.backends.choice import MAP_TOLERANCE
from napari_tiled_unet.backends.fusing import FusedConv, can_fuse, fold_norms, fuse_layers
from napari_tiled_unet.backends.interface import RUNTIMES, Prepared
from napari_tiled_unet.networks.zoo import ARCHITECTURES, Network, build_network, network_spec
from napari_tiled_unet.targets import Classes
from tests.models import blob_model, blobs

pytestmark = pytest.mark.usefixtures("two_threads")

CPU = torch.device("cpu")
IMAGES = {
    2: blobs((96, 120), [(20, 20), (22, 44), (60, 30), (70, 90)]),
    3: blobs((24, 40, 48), [(12, 12, 12), (12, 28, 30)], radius=4),
}
OTHERS = [name for name in RUNTIMES if name != "torch"]
FORMS = [(name, form) for name, row in RUNTIMES.items() for form in row.precisions if form != "float16"]


def network(architecture: str = "unet", ndim: int = 2, **choices: Any) -> Network:
    """Return a seeded network whose norms have seen something."""
    torch.manual_seed(3)
    built = build_network(network_spec(architecture, ndim=ndim, out_channels=2, width=8, depth=2, **choices))
    with torch.no_grad():
        built.train()(torch.randn((2, 1, *(16,) * ndim)))
    return built.eval()


def plain(built: Network, tiles: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        return built(torch.from_numpy(tiles)).sigmoid().numpy()


def tiles_of(shape: tuple[int, ...], n: int = 1) -> np.ndarray:
    return np.random.default_rng(1).standard_normal((n, 1, *shape)).astype(np.float32)


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize(("backend", "precision"), FORMS)
def test_labels_are_those_of_torch_in_float32(backend: str, precision: str, ndim: int) -> None:
    model = blob_model(ndim=ndim)
    image, axes = IMAGES[ndim], "zyx"[-ndim:]
    expected = segment(image, model, axes=axes, backend="torch", precision="float32")
    labels = segment(image, model, axes=axes, backend=backend, precision=precision)
    assert expected.max() == {2: 4, 3: 2}[ndim]
    assert labels.max() == expected.max()
    # Only voxels on the threshold may differ, where a map is a hair from one half.
    assert np.count_nonzero(labels != expected) <= (0 if precision == "float32" else 0.002 * image.size)


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("backend", list(RUNTIMES))
def test_maps_of_every_architecture_agree(backend: str, architecture: str, ndim: int) -> None:
    built = network(architecture, ndim)
    running = RUNTIMES[backend].build(Prepared(built, torch.sigmoid, CPU), "float32")
    # Not multiples of the stride, two tiles at once, and then another size.
    for tiles in (tiles_of((20, 30, 18)[:ndim], n=2), tiles_of((32, 16, 24)[:ndim])):
        maps = running.run(tiles)
        assert maps.dtype == np.float32
        assert maps.flags.c_contiguous
        np.testing.assert_allclose(maps, plain(built, tiles), atol=MAP_TOLERANCE["float32"])


@pytest.mark.parametrize("backend", OTHERS)
def test_probabilities_of_classes_go_along(backend: str) -> None:
    built, target = network(), Classes(classes=("background", "cell"))
    tiles = tiles_of((16, 16))
    expected = RUNTIMES["torch"].build(Prepared(built, target.activate, CPU), "float32").run(tiles)
    maps = RUNTIMES[backend].build(Prepared(built, target.activate, CPU), "float32").run(tiles)
    np.testing.assert_allclose(maps, expected, atol=1e-4)
    np.testing.assert_allclose(maps.sum(axis=1), 1, atol=1e-4)


@pytest.mark.skipif(not can_fuse(2, torch.float32), reason="this torch has no fused convolutions")
@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("activation", ["relu", "leaky-relu", "gelu"])
@pytest.mark.parametrize("norm", ["batch", "instance", "none"])
def test_fused_convolutions_change_nothing(norm: str, activation: str, ndim: int) -> None:
    built = network(ndim=ndim, norm=norm, activation=activation, kernels=(1, *(3,) * (ndim - 1)))
    fused = copy.deepcopy(built)
    fold_norms(fused)
    fuse_layers(fused)
    assert any(isinstance(module, FusedConv) for module in fused.modules())
    assert not any(isinstance(module, torch.nn.Conv2d | torch.nn.Conv3d) for module in fused.modules())
    tiles = tiles_of((16, 24, 20)[:ndim])
    np.testing.assert_allclose(plain(fused, tiles), plain(built, tiles), atol=1e-5)


def test_without_fused_convolutions_the_maps_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    built, tiles = network(), tiles_of((16, 16))
    monkeypatch.setattr("napari_tiled_unet.backends.pytorch.can_fuse", lambda *_: False)
    maps = RUNTIMES["torch"].build(Prepared(built, torch.sigmoid, CPU), "float32").run(tiles)
    np.testing.assert_allclose(maps, plain(built, tiles), atol=1e-5)


def test_operators_that_are_gone_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_: object) -> None:
        raise AttributeError("no such operator")

    monkeypatch.setattr(FusedConv, "forward", gone)
    can_fuse.cache_clear()
    assert not can_fuse(2, torch.float32)
    can_fuse.cache_clear()
