"""A narrowed network keeps the channels that matter."""

from __future__ import annotations

import pytest
import torch

from napari_tiled_unet.networks.zoo import Network, build_network, network_spec
from training.narrowing import narrow
from training.train_nuclei import begin_from
from training.widening import widen


def seeded(channels: tuple[int, ...], seed: int, convs: int = 2) -> Network:
    torch.manual_seed(seed)
    choices = {"out_channels": 2, "channels": channels, "depth": len(channels) - 1, "convs_per_block": convs}
    return build_network(network_spec("unet", **choices))


def a_trained_one(channels: tuple[int, ...], convs: int = 2) -> Network:
    network = seeded(channels, 0, convs)
    network.train()(torch.randn(2, 1, 32, 32))
    return network.eval()


@pytest.mark.parametrize("convs", [1, 2, 3])
def test_as_many_channels_give_the_same_maps(convs: int) -> None:
    wide, slim = a_trained_one((4, 6, 8), convs), seeded((4, 6, 8), 1, convs).eval()
    narrow(wide, slim)
    x = torch.randn(1, 1, 32, 32)
    torch.testing.assert_close(slim(x), wide(x), rtol=0, atol=0)


@pytest.mark.parametrize("channels", [(7, 8, 12), (4, 8, 15), (6, 9, 17)])
def test_channels_that_nobody_hears_go_first(channels: tuple[int, ...]) -> None:
    trained, wide, slim = a_trained_one((4, 8, 12)), seeded(channels, 1).eval(), seeded((4, 8, 12), 2).eval()
    widen(trained, wide)
    narrow(wide, slim)
    x = torch.randn(1, 1, 32, 32)
    torch.testing.assert_close(slim(x), trained(x), rtol=0, atol=1e-5)


def test_a_channel_that_its_norm_turns_off_goes_first() -> None:
    wide, slim = a_trained_one((4, 8)), seeded((3, 8), 1).eval()
    with torch.no_grad():
        for name, weight in wide.state_dict().items():
            if ".blocks.0." in name and name.endswith(("norm.weight", "norm.bias")):
                weight[1] = 0
            if ".ups.0.conv.weight" in name:
                weight[:, 1] = 0
            if ".ups.0.conv.bias" in name:
                weight[1] = 0
    narrow(wide, slim)
    x = torch.randn(1, 1, 32, 32)
    torch.testing.assert_close(slim(x), wide(x), rtol=0, atol=1e-5)


def test_channels_only_become_fewer() -> None:
    with pytest.raises(ValueError, match="channels can only become fewer"):
        narrow(a_trained_one((4, 8)), seeded((5, 8), 1))
    with pytest.raises(ValueError, match="in one of the networks only"):
        narrow(a_trained_one((4, 8, 12)), seeded((4, 8), 1))


@pytest.mark.parametrize("channels", [(4, 6, 8), (3, 5, 8), (5, 6, 9)])
def test_a_training_begins_from_more_channels_or_fewer(channels: tuple[int, ...]) -> None:
    trained, fresh = a_trained_one((4, 6, 8)), seeded(channels, 1).eval()
    begin_from(trained, fresh)
    x = torch.randn(1, 1, 32, 32)
    same = torch.allclose(fresh(x), trained(x), rtol=0, atol=1e-5)
    assert same == (channels != (3, 5, 8))


@pytest.mark.parametrize(
    ("channels", "problem"), [((4, 6), "in one of the networks only"), ((5, 5, 8), "become fewer")]
)
def test_a_training_begins_from_nothing_else(channels: tuple[int, ...], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        begin_from(a_trained_one((4, 6, 8)), seeded(channels, 1))
