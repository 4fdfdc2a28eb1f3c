"""One contract for every row of ARCHITECTURES, in 2D and 3D."""

from __future__ import annotations

import pytest
import torch

from napari_tiled_unet.networks.zoo import ARCHITECTURES, Network, build_network, network_spec

DIMENSIONS = (2, 3)
EVERY_ROW = pytest.mark.parametrize("architecture", ARCHITECTURES)
EVERY_DIMENSION = pytest.mark.parametrize("ndim", DIMENSIONS)
# z halves later than y and x, as anisotropic stacks want it.
ANISOTROPIC = {"kernels": ((1, 3, 3), (3, 3, 3), (3, 3, 3)), "downsampling": ((1, 2, 2), (2, 2, 2))}


def small(architecture: str, ndim: int, **choices: object) -> Network:
    torch.manual_seed(0)
    given = {"width": 4, "depth": 2, "in_channels": 2, "out_channels": 3, **choices}
    return build_network(network_spec(architecture, ndim=ndim, **given)).eval()


def image(network: Network, *shape: int) -> torch.Tensor:
    return torch.rand(1, network.spec.in_channels, *shape, generator=torch.Generator().manual_seed(1))


@EVERY_ROW
@EVERY_DIMENSION
def test_output_has_the_shape_of_the_input(architecture: str, ndim: int) -> None:
    network = small(architecture, ndim)
    assert network(image(network, *(16,) * ndim)).shape == (1, 3, *(16,) * ndim)


@EVERY_ROW
@EVERY_DIMENSION
@pytest.mark.parametrize("side", [1, 3, 13, 17])
def test_any_size_goes_in(architecture: str, ndim: int, side: int) -> None:
    network = small(architecture, ndim)
    shape = (side, *(9,) * (ndim - 1))
    output = network(image(network, *shape))
    assert output.shape == (1, 3, *shape)
    assert torch.isfinite(output).all()


@EVERY_ROW
@EVERY_DIMENSION
def test_gradients_reach_every_parameter(architecture: str, ndim: int) -> None:
    network = small(architecture, ndim).train()
    x = torch.rand(2, 2, *(16,) * ndim, generator=torch.Generator().manual_seed(1))
    network(x).square().mean().backward()
    # A channel whose ReLU is off everywhere has no gradient; a whole tensor without one is not connected.
    dead = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert dead == []


@EVERY_ROW
@EVERY_DIMENSION
def test_weights_survive_a_save_and_load(architecture: str, ndim: int) -> None:
    network = small(architecture, ndim)
    torch.manual_seed(99)
    other = build_network(network.spec).eval()
    x = image(network, *(16,) * ndim)
    assert not torch.equal(other(x), network(x))
    other.load_state_dict(network.state_dict())
    assert torch.equal(other(x), network(x))


@EVERY_ROW
@EVERY_DIMENSION
def test_torch_export_gives_the_same_outputs(architecture: str, ndim: int) -> None:
    network = small(architecture, ndim)
    x = image(network, *(16,) * ndim)
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
@EVERY_ROW
@EVERY_DIMENSION
def test_receptive_field_and_stride_are_the_true_ones(architecture: str, ndim: int) -> None:
    network = small(architecture, ndim, norm="none", width=2)
    _monotone(network)
    assert network.receptive_field == tuple(_measured_reach(network, axis) for axis in range(ndim))
    assert network.stride == (4,) * ndim


@pytest.mark.parametrize("downsample", ["max-pool", "strided-conv"])
@pytest.mark.parametrize("upsample", ["transposed", "nearest", "linear"])
@pytest.mark.parametrize("block", ["plain", "residual"])
def test_receptive_field_is_true_for_every_way_down_and_up(downsample: str, upsample: str, block: str) -> None:
    network = small("unet", 2, norm="none", width=2, downsample=downsample, upsample=upsample, block=block)
    _monotone(network)
    assert network.receptive_field == tuple(_measured_reach(network, axis) for axis in range(2))


@pytest.mark.parametrize("upsample", ["transposed", "nearest", "linear"])
def test_anisotropic_levels_have_their_own_stride_and_reach(upsample: str) -> None:
    network = small("unet", 3, norm="none", width=2, upsample=upsample, **ANISOTROPIC)
    _monotone(network)
    assert network.stride == (2, 4, 4)
    assert network.receptive_field == tuple(_measured_reach(network, axis) for axis in range(3))
    assert network.receptive_field[0] < network.receptive_field[1]


@EVERY_ROW
def test_stride_is_where_the_output_repeats_under_a_shift(architecture: str) -> None:
    """Moving the image by the stride moves the output; moving it by one voxel does not."""
    network = small(architecture, 2, norm="none")
    reach, stride = network.receptive_field[0], network.stride[0]
    size = 2 * -(-(reach + 2 * stride) // stride) * stride + 4 * stride
    x = image(network, size, 8)
    inner = slice(reach + stride, size - reach - stride)
    output = network(x)

    def moved(by: int) -> torch.Tensor:
        return network(x.roll(by, 2)).roll(-by, 2)

    torch.testing.assert_close(moved(stride)[:, :, inner], output[:, :, inner], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(moved(1)[:, :, inner], output[:, :, inner], rtol=1e-2, atol=1e-3)
