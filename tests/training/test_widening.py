"""A widened network starts where the narrow one stands, and learns with all of its channels."""

from __future__ import annotations

import pytest
import torch

from napari_tiled_unet.networks.zoo import Network, build_network, network_spec
from training.widening import widen


def seeded(channels: tuple[int, ...], seed: int) -> Network:
    torch.manual_seed(seed)
    return build_network(network_spec("unet", out_channels=2, channels=channels, depth=len(channels) - 1))


def a_narrow_one() -> Network:
    narrow = seeded((4, 8, 12), 0)
    narrow.train()(torch.randn(2, 1, 32, 32))
    return narrow.eval()


@pytest.mark.parametrize("channels", [(4, 8, 12), (7, 8, 12), (4, 8, 15), (6, 9, 17)])
def test_the_maps_stay(channels: tuple[int, ...]) -> None:
    narrow, wide = a_narrow_one(), seeded(channels, 1).eval()
    widen(narrow, wide)
    x = torch.randn(1, 1, 32, 32)
    torch.testing.assert_close(wide(x), narrow(x), rtol=0, atol=1e-5)


def test_new_channels_learn() -> None:
    wide = seeded((6, 8, 12), 1).eval()
    widen(a_narrow_one(), wide)
    wide(torch.randn(1, 1, 32, 32)).square().mean().backward()
    gradient = next(p for name, p in wide.named_parameters() if name == "head.weight").grad
    assert gradient is not None
    assert (gradient[:, 4:] != 0).all()


def test_channels_only_grow() -> None:
    with pytest.raises(ValueError, match="channels can only grow"):
        widen(a_narrow_one(), seeded((3, 8, 12), 1))
    with pytest.raises(ValueError, match="in one of the networks only"):
        widen(a_narrow_one(), seeded((4, 8), 1))
