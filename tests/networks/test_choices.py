"""Every choice changes what it says, and wrong choices are refused with the remedy."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

from napari_tiled_unet.errors import ModelError
from napari_tiled_unet.networks.attention import AttentionGate
from napari_tiled_unet.networks.resampling import BlurPool, PixelShuffle, reflected_indices
from napari_tiled_unet.networks.spec import NetworkSpec
from napari_tiled_unet.networks.zoo import build_network, network_spec


def parameters(**choices: object) -> int:
    architecture = str(choices.pop("architecture", "unet"))
    return sum(p.numel() for p in build_network(network_spec(architecture, **choices)).parameters())


def modules_of(kind: type[nn.Module], **choices: object) -> int:
    network = build_network(network_spec("unet", width=4, depth=2, **choices))
    return sum(isinstance(module, kind) for module in network.modules())


@pytest.mark.parametrize(
    ("choices", "kind", "count"),
    [
        ({"norm": "batch"}, nn.BatchNorm2d, 10),
        ({"norm": "instance"}, nn.InstanceNorm2d, 10),
        ({"norm": "group"}, nn.GroupNorm, 10),
        ({"norm": "layer"}, nn.LayerNorm, 10),
        ({"norm": "none"}, nn.BatchNorm2d, 0),
        ({"activation": "relu"}, nn.ReLU, 10),
        ({"activation": "leaky-relu"}, nn.LeakyReLU, 10),
        ({"activation": "gelu"}, nn.GELU, 10),
        ({"activation": "silu"}, nn.SiLU, 10),
        ({"downsample": "max-pool"}, nn.MaxPool2d, 2),
        ({"downsample": "strided-conv"}, nn.MaxPool2d, 0),
        ({"downsample": "blur-pool"}, BlurPool, 2),
        ({"upsample": "pixel-shuffle"}, PixelShuffle, 2),
        ({"gates": "same-scale"}, AttentionGate, 2),
        ({"gates": "coarse"}, AttentionGate, 1),
        ({"upsample": "transposed"}, nn.ConvTranspose2d, 2),
        ({"upsample": "nearest"}, nn.Upsample, 2),
        ({"upsample": "linear"}, nn.Upsample, 2),
        ({"dropout": 0.1}, nn.Dropout2d, 10),
        ({"convs_per_block": 3}, nn.BatchNorm2d, 15),
    ],
)
def test_a_choice_is_in_the_network(choices: dict[str, object], kind: type[nn.Module], count: int) -> None:
    assert modules_of(kind, **choices) == count


def test_width_and_depth_grow_the_network() -> None:
    assert parameters(width=8, depth=2) < parameters(width=16, depth=2) < parameters(width=16, depth=3)
    assert network_spec("unet", width=16, depth=4, max_width=100).channels == (16, 32, 64, 100, 100)


@pytest.mark.parametrize(
    ("norm", "activation", "downsample", "upsample", "block"),
    list(
        itertools.product(
            ["batch", "instance", "group", "layer", "none"],
            ["relu", "leaky-relu", "gelu", "silu"],
            ["max-pool", "strided-conv", "blur-pool"],
            ["transposed", "nearest", "linear", "pixel-shuffle"],
            ["plain", "residual"],
        )
    )[::17],
)
def test_choices_combine(norm: str, activation: str, downsample: str, upsample: str, block: str) -> None:
    spec = network_spec(
        "unet",
        width=4,
        depth=2,
        norm=norm,
        activation=activation,
        downsample=downsample,
        upsample=upsample,
        block=block,
    )
    network = build_network(spec).eval()
    assert network(torch.rand(1, 1, 11, 12)).shape == (1, 1, 11, 12)
    assert network.exact_tiling == (norm in ("batch", "layer", "none"))


def test_a_spec_survives_json() -> None:
    spec = network_spec("residual-unet", ndim=3, depth=2, kernels=((1, 3, 3), 3, 5), downsampling=((1, 2, 2), 2))
    assert NetworkSpec.model_validate_json(spec.model_dump_json()) == spec
    assert spec.kernels == ((1, 3, 3), (3, 3, 3), (5, 5, 5))
    assert spec.downsampling == ((1, 2, 2), (2, 2, 2))


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"architecture": "vnet"}, r"architecture 'vnet' is unknown; the known ones are unet, .*newer version"),
        ({"kernels": 2}, r"kernels must be odd"),
        ({"kernels": (3, 3, 3)}, r"kernels must have 5 entries of 2 numbers for depth 4"),
        ({"downsampling": 5}, r"downsampling factors must be 1 to 4"),
        ({"norm": "layer-2"}, r"norm='layer-2'"),
        ({"depth": 0}, r"depth=0"),
        ({"dropout": 1.0}, r"dropout=1.0"),
        ({"widht": 8}, r"widht"),
        ({"encoder": "vgg16"}, r"encoder 'vgg16' is unknown; the known ones are unet, resnet18"),
        ({"encoder": "resnet18", "depth": 6}, r"resnet18 halves 5 times at most, got depth 6; take depth 1 to 5"),
        ({"encoder": "resnet18", "channels": (8,) * 5}, r"channels of resnet18 are \(16, 32, .*leave channels out"),
        ({"encoder": "resnet18", "downsample": "blur-pool"}, r"downsample='blur-pool' means nothing .*leave it out"),
        ({"architecture": "fcn", "upsample": "nearest"}, r"upsample='nearest' means nothing to architecture 'fcn'"),
        ({"deep_supervision": True}, r"deep_supervision=True means nothing to architecture 'unet'"),
        ({"gates": "coarse", "skips": "add"}, r"gates='coarse' weigh skips that are concatenated, got skips='add'"),
        ({"gates": "coarse", "depth": 1}, r"take depth 2, or gates='same-scale'"),
    ],
)
def test_wrong_choices_name_the_rule(choices: dict[str, object], message: str) -> None:
    choices = dict(choices)
    with pytest.raises(ModelError, match=message):
        network_spec(str(choices.pop("architecture", "unet")), **choices)


@pytest.mark.parametrize(("size", "padded"), [(1, 4), (2, 7), (3, 8), (5, 6), (4, 4)])
def test_reflection_is_that_of_numpy(size: int, padded: int) -> None:
    import numpy as np

    expected = np.pad(np.arange(size), (0, padded - size), mode="reflect" if size > 1 else "edge")
    assert reflected_indices(size, padded).tolist() == expected.tolist()
