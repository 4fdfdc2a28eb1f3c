"""Side outputs, pruning, classification guidance, and looks inside."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from napari_tiled_unet.errors import ModelError, OptionsError
from napari_tiled_unet.networks.footprint import count_inference, flops_per_voxel, kept_values_per_voxel
from napari_tiled_unet.networks.inside import look_inside, parts_of
from napari_tiled_unet.networks.pruning import pruned
from napari_tiled_unet.networks.zoo import ARCHITECTURES, Network, build_network, network_spec


def small(architecture: str, **choices: object) -> Network:
    torch.manual_seed(0)
    return build_network(network_spec(architecture, **{"width": 4, "depth": 3, "out_channels": 2, **choices})).eval()


@pytest.mark.parametrize(("architecture", "count"), [("unet", 1), ("unetpp", 3), ("unet3p", 4)])
def test_training_outputs_start_with_the_answer(architecture: str, count: int) -> None:
    network = small(architecture)
    x = torch.rand(1, 1, 21, 16)
    outputs = network.training_outputs(x)
    assert len(outputs) == count
    assert all(y.shape == (1, 2, 21, 16) for y in outputs)
    torch.testing.assert_close(outputs[0], network(x))
    assert all(not torch.allclose(outputs[0], y) for y in outputs[1:])


@pytest.mark.parametrize("encoder", ["unet", "resnet18"])
def test_a_pruned_unetpp_gives_the_side_output_of_its_depth(encoder: str) -> None:
    network = small("unetpp", encoder=encoder)
    x = torch.rand(1, 1, 24, 24)
    outputs = network.training_outputs(x)
    for depth in (1, 2):
        shallow = pruned(network, depth)
        torch.testing.assert_close(shallow(x), outputs[3 - depth])
        for ours, theirs in zip(shallow.training_outputs(x), outputs[3 - depth :], strict=True):
            torch.testing.assert_close(ours, theirs)
        assert shallow.receptive_field < network.receptive_field
        assert flops_per_voxel(shallow) < flops_per_voxel(network)


def test_only_what_was_trained_can_be_pruned_to() -> None:
    with pytest.raises(ModelError, match=r"'unet' has no trained shallower outputs; only unetpp"):
        pruned(small("unet"), 1)
    with pytest.raises(ModelError, match=r"depth=3 is not inside a network of depth 3; take 1 to 2"):
        pruned(small("unetpp"), 3)


def test_guidance_lowers_a_map_that_the_bottleneck_misses() -> None:
    network = small("unet3p", classification_guided=True)
    assert not network.exact_tiling
    assert network.looks_at_whole == "classification guidance"
    x = torch.rand(1, 1, 16, 16)
    with torch.no_grad():
        network.guide[1].weight.zero_()
        network.guide[1].bias.copy_(torch.tensor([-30.0, 30.0]))
        plain = network.head(network.decoder(network.features(x)))
        torch.testing.assert_close(network(x) - plain, torch.tensor([-30.0, 0.0]).reshape(1, 2, 1, 1).expand_as(plain))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("ndim", [2, 3])
def test_every_part_can_be_looked_at(architecture: str, ndim: int) -> None:
    network = small(architecture, ndim=ndim, depth=2)
    frame = np.random.default_rng(0).random((1, *(13,) * ndim), dtype=np.float32)
    for part, levels in parts_of(network).items():
        for level in levels:
            inside = look_inside(network, frame, part, level)
            assert inside.stride == (2**level,) * ndim
            assert inside.maps.shape[1:] == (-(-13 // 2**level),) * ndim
            assert inside.maps.dtype == np.float32


def test_parts_are_what_they_say() -> None:
    network = small("attention-unet", depth=3)
    assert parts_of(network) == {"encoder": (0, 1, 2, 3), "skip": (0, 1, 2), "attention": (1, 2), "decoder": (0, 1, 2)}
    frame = np.random.default_rng(0).random((1, 16, 16), dtype=np.float32)
    encoded = look_inside(network, frame, "encoder", 1).maps
    weights = look_inside(network, frame, "attention", 1).maps
    np.testing.assert_allclose(look_inside(network, frame, "skip", 1).maps, encoded * weights, rtol=1e-5)
    assert weights.shape == (1, 8, 8)
    assert 0 < weights.min() < weights.max() < 1
    decoded = torch.from_numpy(look_inside(network, frame, "decoder", 0).maps)
    with torch.no_grad():
        torch.testing.assert_close(network.head(decoded[None]), network(torch.from_numpy(frame)[None]))


def test_a_part_that_is_not_there_is_named() -> None:
    frame = np.zeros((1, 8, 8), np.float32)
    with pytest.raises(OptionsError, match=r"'unet' has no part 'attention' at level 0; levels that it has: encoder 0"):
        look_inside(small("unet"), frame, "attention", 0)
    with pytest.raises(OptionsError, match=r"has no part 'brain' .*parts are encoder, skip"):
        look_inside(small("unet"), frame, "brain", 0)  # type: ignore[arg-type]


def test_work_is_that_of_the_convolutions() -> None:
    network = small("unet", width=2, depth=1, convs_per_block=1)
    # Per voxel: 1 to 2 (3x3); down 2 to 4 (3x3) on a quarter; up 4 to 2 (each output once); 4 to 2 (3x3); head 2 to 2.
    multiplications = 18 + 72 / 4 + 8 + 72 + 4
    assert flops_per_voxel(network) == pytest.approx(2 * multiplications)
    assert count_inference(network).multiply_adds == pytest.approx(multiplications)


def test_memory_is_what_is_alive() -> None:
    network = small("unet", width=8, depth=1, convs_per_block=1, norm="none")
    # The last convolution holds the skip (8), what came up (8, with 16 / 4 it came from), both joined (16), its
    # result (8), and the image (1).
    assert count_inference(network).peak_values == pytest.approx(8 + 8 + 16 + 8 + 1 + 16 / 4, abs=8.1)
    assert kept_values_per_voxel(network) > 32
    assert network.inference == count_inference(network)


def test_folding_norms_changes_nothing() -> None:
    from napari_tiled_unet.backends.fusing import fold_norms

    for encoder in ("resnet18", "resnet50", "efficientnet-b0"):
        network = small("unet", encoder=encoder, gates="same-scale")
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.uniform_(-0.2, 0.2)
                module.running_var.uniform_(0.5, 1.5)
        x = torch.rand(1, 1, 16, 16)
        expected = network(x)
        norms = sum(isinstance(m, nn.BatchNorm2d) for m in network.modules())
        fold_norms(network)
        torch.testing.assert_close(network(x), expected, rtol=1e-4, atol=1e-4)
        # What is left are the shortcuts of the ResNets.
        assert sum(isinstance(m, nn.BatchNorm2d) for m in network.modules()) < norms / 5
