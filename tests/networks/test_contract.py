"""One contract for every row of ARCHITECTURES and every encoder, in 2D and 3D."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from napari_tiled_unet.networks.backbones import BACKBONES
from napari_tiled_unet.networks.zoo import ARCHITECTURES, Network, build_network, network_spec

DIMENSIONS = (2, 3)
# A row, or a row on another encoder.
ROWS = (*ARCHITECTURES, *(f"unet on {encoder}" for encoder in BACKBONES))
# What an encoder is made of does not depend on its size: three stand for the rest where a run is long.
FEWER = (*ARCHITECTURES, "unet on resnet50", "unetpp on resnet18", "unet3p on efficientnet-b0")
EVERY_ROW = pytest.mark.parametrize("row", ROWS)
SOME_ROWS = pytest.mark.parametrize("row", FEWER)
EVERY_DIMENSION = pytest.mark.parametrize("ndim", DIMENSIONS)
# z halves later than y and x, as anisotropic stacks want it.
ANISOTROPIC = {"kernels": ((1, 3, 3), (3, 3, 3), (3, 3, 3)), "downsampling": ((1, 2, 2), (2, 2, 2))}


def small(row: str, ndim: int, **choices: object) -> Network:
    torch.manual_seed(0)
    architecture, _, encoder = row.partition(" on ")
    given: dict[str, object] = {"width": 4, "depth": 2, "in_channels": 2, "out_channels": 3, **choices}
    if encoder:
        given["encoder"] = encoder
        given.setdefault("activation", "silu" if "efficientnet" in encoder else "relu")
    return build_network(network_spec(architecture, ndim=ndim, **given)).eval()


def image(network: Network, *shape: int) -> torch.Tensor:
    return torch.rand(1, network.spec.in_channels, *shape, generator=torch.Generator().manual_seed(1))


@EVERY_ROW
@EVERY_DIMENSION
@pytest.mark.parametrize("side", [1, 13])
def test_any_size_goes_in(row: str, ndim: int, side: int) -> None:
    network = small(row, ndim)
    shape = (side, *(9,) * (ndim - 1))
    output = network(image(network, *shape))
    assert output.shape == (1, 3, *shape)
    assert torch.isfinite(output).all()


@EVERY_ROW
@EVERY_DIMENSION
def test_gradients_reach_every_parameter(row: str, ndim: int) -> None:
    network = small(row, ndim).train()
    x = torch.rand(2, 2, *(16,) * ndim, generator=torch.Generator().manual_seed(1))
    outputs = network.training_outputs(x)
    assert all(y.shape == (2, 3, *x.shape[2:]) for y in outputs)
    sum(y.square().mean() for y in outputs).backward()
    # A channel whose ReLU is off everywhere has no gradient; a whole tensor without one is not connected.
    dead = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert dead == []


@SOME_ROWS
@EVERY_DIMENSION
def test_weights_survive_a_save_and_load(row: str, ndim: int) -> None:
    network = small(row, ndim)
    torch.manual_seed(99)
    other = build_network(network.spec).eval()
    x = image(network, *(16,) * ndim)
    assert not torch.equal(other(x), network(x))
    other.load_state_dict(network.state_dict())
    assert torch.equal(other(x), network(x))


@SOME_ROWS
@EVERY_DIMENSION
def test_torch_export_gives_the_same_outputs(row: str, ndim: int) -> None:
    network = small(row, ndim)
    x = image(network, *(8,) * ndim)
    exported = torch.export.export(network, (x,)).module()
    torch.testing.assert_close(exported(x), network(x))


def _monotone(network: Network) -> None:
    """Make every weight positive, so that features rise where the image rises and no gradient cancels."""
    generator = torch.Generator().manual_seed(2)
    for module in network.modules():
        weight = getattr(module, "weight", None)
        if isinstance(weight, torch.Tensor) and weight.ndim > 1:
            fan_in = weight[0].numel()
            weight.data = (torch.rand(weight.shape, generator=generator) + 0.5) / fan_in
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    _blind(network)


def _blind(network: Network) -> None:
    """Silence what looks at the whole image, which would connect everything with everything."""
    for name, module in network.named_modules():
        if name.endswith("_se_expand"):
            nn.init.zeros_(module.weight)


def _measured_reach(network: Network, axis: int) -> int:
    """Return how far along an axis outputs have a gradient, over all phases of the stride."""
    stride, stated = network.stride[axis], network.receptive_field[axis]
    margin = -(-(stated + 2) // stride) * stride
    shape = [network.stride[a] * 2 for a in range(network.spec.ndim)]
    shape[axis] = 2 * margin + stride
    # Rising and falling ramps make max-pooling choose its last and its first voxel.
    ramp = torch.linspace(1, 2, shape[axis]).reshape([-1 if a == axis else 1 for a in range(len(shape))])
    reach = 0
    for values in (ramp, ramp.flip(axis)):
        x = values.expand(1, network.spec.in_channels, *shape).clone().requires_grad_()
        output = network(x)
        for phase in range(stride):
            place = margin + phase
            (gradient,) = torch.autograd.grad(output.select(axis + 2, place).sum(), x, retain_graph=True)
            others = [a for a in range(gradient.ndim) if a != axis + 2]
            seen = torch.nonzero(gradient.abs().sum(others)).flatten()
            reach = max(reach, place - int(seen.min()), int(seen.max()) - place)
    return reach


# Statistics over the whole input would connect everything with everything: measured without them.
@pytest.mark.parametrize(("row", "ndim"), [*((row, 2) for row in ROWS), *((row, 3) for row in FEWER)])
def test_receptive_field_and_stride_are_the_true_ones(row: str, ndim: int) -> None:
    network = small(row, ndim, norm="none", width=2)
    _monotone(network)
    assert network.stride == (4,) * ndim
    assert len(set(network.receptive_field)) == 1
    # All axes are alike, so one is measured.
    assert network.receptive_field[0] == _measured_reach(network, 0)


@pytest.mark.parametrize("downsample", ["max-pool", "strided-conv", "blur-pool"])
@pytest.mark.parametrize("upsample", ["transposed", "nearest", "linear", "pixel-shuffle"])
def test_receptive_field_is_true_for_every_way_down_and_up(downsample: str, upsample: str) -> None:
    for factor, depth in ((2, 2), (3, 1)):
        choices = {"downsample": downsample, "upsample": upsample, "downsampling": factor, "depth": depth}
        network = small("unet", 2, norm="none", width=2, **choices)
        _monotone(network)
        assert network.receptive_field == tuple(_measured_reach(network, axis) for axis in range(2))


@pytest.mark.parametrize("row", ["unet", "attention-unet", "unetpp", "unet3p", "fpn", "fcn", "unet on resnet18"])
def test_anisotropic_levels_have_their_own_stride_and_reach(row: str) -> None:
    network = small(row, 3, norm="none", width=2, **ANISOTROPIC)
    _monotone(network)
    assert network.stride == (2, 4, 4)
    assert network.receptive_field[:2] == tuple(_measured_reach(network, axis) for axis in range(2))
    assert network.receptive_field[0] < network.receptive_field[1]


@EVERY_ROW
def test_stride_is_where_the_output_repeats_under_a_shift(row: str) -> None:
    """Moving the image by the stride moves the output; moving it by one voxel does not."""
    network = small(row, 2, norm="none")
    _blind(network)
    reach, stride = network.receptive_field[0], network.stride[0]
    size = 2 * -(-(reach + 2 * stride) // stride) * stride + 4 * stride
    x = image(network, size, 8)
    inner = slice(reach + stride, size - reach - stride)
    output = network(x)

    def moved(by: int) -> torch.Tensor:
        return network(x.roll(by, 2)).roll(-by, 2)

    torch.testing.assert_close(moved(stride)[:, :, inner], output[:, :, inner], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(moved(1)[:, :, inner], output[:, :, inner], rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize(("row", "norm"), [*((row, "batch") for row in ROWS), *((row, "layer") for row in FEWER)])
def test_tiles_give_what_the_whole_image_gives(row: str, norm: str) -> None:
    network = small(row, 2, norm=norm)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.1, 0.1)
    assert network.exact_tiling == ("efficientnet" not in row)
    _blind(network)
    reach, stride = network.receptive_field[0], network.stride[0]
    overlap = -(-reach // stride) * stride
    x = image(network, 2 * overlap + 8 * stride, 8)
    whole = network(x)
    kept = slice(overlap + 2 * stride, overlap + 4 * stride)
    tile = network(x[:, :, kept.start - overlap : kept.stop + overlap])[:, :, overlap : overlap + 2 * stride]
    torch.testing.assert_close(tile, whole[:, :, kept], rtol=1e-4, atol=1e-5)


def _linear_and_symmetric(network: Network) -> Network:
    """Make every kernel positive and symmetric and every pool a mean: what is left is where things lie."""
    _monotone(network)
    for parent in list(network.modules()):
        for name, module in parent.named_children():
            if isinstance(module, nn.MaxPool2d):
                setattr(parent, name, nn.AvgPool2d(module.kernel_size, module.stride, module.padding))
    for module in network.modules():
        weight = getattr(module, "weight", None)
        if isinstance(weight, torch.Tensor) and weight.ndim == 4:
            weight.data = weight.data.mean((2, 3), keepdim=True).expand_as(weight).clone()
        if hasattr(module, "initialise"):
            module.initialise()
    return network.double()


def _shift(network: Network) -> float:
    """Return how far, in voxels, the centre of what outputs see lies beside them, over a stride."""
    stride = network.stride[0]
    margin = -(-(network.receptive_field[0] + 2) // stride) * stride
    x = torch.ones(1, network.spec.in_channels, 2 * margin + stride, 2 * stride, dtype=torch.double).requires_grad_()
    output = network(x)
    places = torch.arange(x.shape[2], dtype=torch.double)
    total = 0.0
    for phase in range(stride):
        (gradient,) = torch.autograd.grad(output[:, :, margin + phase].sum(), x, retain_graph=True)
        profile = gradient.sum((0, 1, 3))
        total += float((profile * places).sum() / profile.sum()) - (margin + phase)
    return total / stride


@EVERY_ROW
def test_no_row_moves_the_image_by_a_part_of_a_voxel(row: str) -> None:
    network = _linear_and_symmetric(small(row, 2, norm="none", width=2, depth=3))
    assert _shift(network) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("downsample", ["max-pool", "strided-conv", "blur-pool"])
@pytest.mark.parametrize("upsample", ["transposed", "nearest", "linear", "pixel-shuffle"])
def test_no_way_down_and_up_moves_the_image(downsample: str, upsample: str) -> None:
    for factor in (2, 3, 4):
        choices = {"downsample": downsample, "upsample": upsample, "downsampling": factor, "depth": 1, "width": 2}
        network = _linear_and_symmetric(small("unet", 2, norm="none", **choices))
        assert _shift(network) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(("encoder", "sign"), [("resnet18", -1), ("efficientnet-b0", 1)])
def test_without_recentring_a_published_encoder_moves_it(encoder: str, sign: int) -> None:
    """What other libraries leave in: the features of stride 4 lie 1.5 voxels off. So the test above can fail."""
    network = small(f"unet on {encoder}", 2, norm="none", skips="none")
    network.encoder.recentre = nn.ModuleList(nn.Identity() for _ in network.encoder.recentre)
    assert _shift(_linear_and_symmetric(network)) == pytest.approx(sign * 1.5, abs=1e-9)


FLIPS: list[Callable[[torch.Tensor], torch.Tensor]] = [lambda x: x.flip(2), lambda x: x.flip(3)]


@pytest.mark.parametrize("row", [row for row in ARCHITECTURES if row not in ("unet-resnet34", "unet-efficientnet-b0")])
def test_a_mirrored_image_gives_mirrored_maps(row: str) -> None:
    """With symmetric kernels, and to the last voxel of the border: nothing is aligned to one side."""
    network = small(row, 2).double()
    for module in network.modules():
        weight = getattr(module, "weight", None)
        if isinstance(weight, torch.Tensor) and weight.ndim == 4:
            weight.data = (weight + weight.flip(2) + weight.flip(3) + weight.flip(2, 3)) / 4
    x = image(network, 24, 16).double()
    for flip in FLIPS:
        torch.testing.assert_close(network(flip(x)), flip(network(x)))
