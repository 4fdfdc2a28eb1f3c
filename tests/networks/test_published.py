"""Published configurations have their published sizes; other libraries' weights give their outputs."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from napari_tiled_unet.errors import ModelError
from napari_tiled_unet.networks.pretrained import download_encoder_weights, load_encoder_weights
from napari_tiled_unet.networks.zoo import Network, build_network, network_spec


def count(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def parameters(architecture: str, **choices: object) -> int:
    return count(build_network(network_spec(architecture, **choices)))


def test_the_unet_of_2015() -> None:
    # 31.0 M: one grey channel in, two classes out, four halvings from 64 to 1024 channels.
    assert parameters("unet-2015", in_channels=1, out_channels=2) == 31_030_658


def test_unetpp() -> None:
    # 9.04 M: table 2 of arXiv:1807.10165, filters 32 to 512, no norm, deep supervision.
    assert parameters("unetpp", width=32, norm="none") == pytest.approx(9.04e6, abs=5e3)


def test_attention_unet() -> None:
    # 34,878,573: AttU_Net of LeeJunHyun/Image_Segmentation, three channels in, gates beside the skip.
    # Ours lacks its biases before batch norms, which change nothing, and the norm of the one weight per voxel.
    chosen = {"width": 64, "gates": "same-scale", "upsample": "nearest", "in_channels": 3}
    levels = [64, 128, 256, 512]
    biases = 2 * sum([*levels, 1024]) + 3 * sum(levels) + 2 * sum(c // 2 for c in levels)
    norms_of_weights = 2 * len(levels)
    assert parameters("attention-unet", **chosen) == 34_878_573 - biases - norms_of_weights


def test_unet3p() -> None:
    # 26.97 M: table 1 of arXiv:2004.08790, filters 64 to 1024, 64 channels per branch.
    assert parameters("unet3p", width=64, in_channels=3, deep_supervision=False) == pytest.approx(26.97e6, abs=1e4)


@pytest.mark.parametrize(
    ("encoder", "width", "published"),
    [
        # torchvision's counts without the classifier, 1000 (features + 1).
        ("resnet18", 64, 11_689_512 - 513_000),
        ("resnet34", 64, 21_797_672 - 513_000),
        ("resnet50", 64, 25_557_032 - 2_049_000),
        # lukemelas' counts without head convolution, its norm and the classifier.
        ("efficientnet-b0", 32, 5_288_548 - 320 * 1280 - 2 * 1280 - 1_281_000),
        ("efficientnet-b4", 32, 19_341_616 - 448 * 1792 - 2 * 1792 - 1_793_000),
    ],
)
def test_encoders(encoder: str, width: int, published: int) -> None:
    network = build_network(network_spec("fcn", encoder=encoder, width=width, depth=5, in_channels=3))
    assert count(network.encoder.body) == published


def _resnet(encoder: str, ndim: int, channels: int = 1) -> Network:
    torch.manual_seed(1)
    spec = network_spec("fcn", ndim=ndim, encoder=encoder, width=64, depth=5, in_channels=channels)
    return build_network(spec).eval()


def _features(monai: Any, x: torch.Tensor) -> torch.Tensor:
    x = monai.maxpool(monai.act(monai.bn1(monai.conv1(x))))
    return monai.layer4(monai.layer3(monai.layer2(monai.layer1(x))))


def _trained_like(module: torch.nn.Module) -> None:
    """Give norms statistics of their own."""
    generator = torch.Generator().manual_seed(3)
    for name, buffer in module.named_buffers():
        if name.endswith(("mean", "var")):
            middle = 1.0 if name.endswith("var") else 0.0
            buffer.copy_(middle + 0.5 * (torch.rand(buffer.shape, generator=generator) - 0.5))


@pytest.mark.parametrize(
    ("encoder", "ndim", "shortcut", "side"),
    [("resnet18", 2, "B", 64), ("resnet34", 2, "B", 64), ("resnet50", 2, "B", 64), ("resnet18", 3, "A", 32)],
)
def test_weights_of_monai_resnets_give_their_outputs(
    encoder: str, ndim: int, shortcut: str, side: int, tmp_path: Path
) -> None:
    nets = pytest.importorskip("monai.networks.nets")
    torch.manual_seed(0)
    monai = getattr(nets, encoder)(
        spatial_dims=ndim, n_input_channels=1, conv1_t_stride=2, feed_forward=False, shortcut_type=shortcut
    ).eval()
    _trained_like(monai)
    # As MedicalNet's checkpoints are: wrapped, in a state_dict.
    torch.save({"state_dict": {f"module.{k}": v for k, v in monai.state_dict().items()}}, tmp_path / "weights.pth")
    network = _resnet(encoder, ndim)
    load_encoder_weights(network, tmp_path / "weights.pth")
    x = torch.rand(1, 1, *(side,) * ndim)
    expected = _features(monai, x)
    error = (network.encoder.body(x)[-1] - expected).abs().max() / expected.abs().max()
    assert float(error.detach()) < 1e-5


def test_weights_of_a_monai_efficientnet_give_its_outputs(tmp_path: Path) -> None:
    nets = pytest.importorskip("monai.networks.nets")
    torch.manual_seed(0)
    monai = nets.EfficientNetBN("efficientnet-b0", pretrained=False, in_channels=3).eval()
    _trained_like(monai)
    save_file(monai.state_dict(), tmp_path / "weights.safetensors")
    spec = network_spec("fcn", encoder="efficientnet-b0", width=32, depth=5, in_channels=3, activation="silu")
    network = build_network(spec).eval()
    load_encoder_weights(network, tmp_path / "weights.safetensors")
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        stem = monai._swish(monai._bn0(monai._conv_stem(monai._conv_stem_padding(x))))
        expected = monai._blocks(stem)
        error = (network.encoder.body(x)[-1] - expected).abs().max() / expected.abs().max()
    assert float(error.detach()) < 1e-5


def test_a_grey_image_gives_what_grey_in_every_channel_would(tmp_path: Path) -> None:
    colour, grey = _resnet("resnet18", 2, channels=3), _resnet("resnet18", 2, channels=1)
    save_file(colour.encoder.body.state_dict(), tmp_path / "weights.safetensors")
    load_encoder_weights(grey, tmp_path / "weights.safetensors")
    x = torch.rand(1, 1, 32, 32)
    expected = colour.encoder.body(x.expand(1, 3, 32, 32))[-1]
    torch.testing.assert_close(grey.encoder.body(x)[-1], expected, rtol=1e-4, atol=1e-5)


def test_weights_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    network = _resnet("resnet18", 2)
    with pytest.raises(ModelError, match=r"cannot be read as tensors .*get the file again"):
        load_encoder_weights(network, tmp_path / "missing.pth")
    save_file({"conv1.weight": torch.zeros(64, 3, 7, 7)}, tmp_path / "half.safetensors")
    with pytest.raises(ModelError, match=r"has no tensor 'bn1.weight'; it is not a file of resnet18 weights"):
        load_encoder_weights(network, tmp_path / "half.safetensors")
    save_file(_resnet("resnet18", 3).encoder.body.state_dict(), tmp_path / "volume.safetensors")
    with pytest.raises(ModelError, match=r"conv1.weight has shape .* resnet18 in 2D at width 64 needs"):
        load_encoder_weights(network, tmp_path / "volume.safetensors")
    with pytest.raises(ModelError, match=r"encoder 'unet' with batch norm has no pretrained weights; take one of"):
        load_encoder_weights(build_network(network_spec("unet", width=2)), tmp_path / "half.safetensors")


def test_a_download_is_verified(tmp_path: Path) -> None:
    content = b"weights"
    digest = hashlib.sha256(content).hexdigest()
    for stated in (digest[:8], "0" * 8):
        (tmp_path / f"net-{stated}.pth").write_bytes(content)
    right = download_encoder_weights("resnet18", tmp_path / "got", (tmp_path / f"net-{digest[:8]}.pth").as_uri())
    assert right.read_bytes() == content
    with pytest.raises(ModelError, match=r"cannot be had .*give the file to load_encoder_weights"):
        download_encoder_weights("resnet18", tmp_path / "got", (tmp_path / "net-00000000.pth").as_uri())
    assert not (tmp_path / "got" / "net-00000000.pth").exists()
    with pytest.raises(ModelError, match=r"does not end in its SHA-256"):
        download_encoder_weights("resnet18", tmp_path, "https://example.org/net.pth")
    with pytest.raises(ModelError, match=r"no weights to download for 'vgg'; there are for resnet18"):
        download_encoder_weights("vgg", tmp_path)


def test_monai_relatives_have_their_sizes_and_shapes() -> None:
    """The numbers that docs/anatomy.md compares with."""
    nets = pytest.importorskip("monai.networks.nets")
    x = torch.rand(1, 1, 32, 32)
    attention = nets.AttentionUnet(2, 1, 2, channels=(64, 128, 256, 512, 1024), strides=(2, 2, 2, 2)).eval()
    nested = nets.BasicUNetPlusPlus(2, 1, 2, features=(32, 64, 128, 256, 512, 32)).eval()
    attention_ours = build_network(network_spec("attention-unet", width=64, out_channels=2)).eval()
    nested_ours = build_network(network_spec("unetpp", width=32, out_channels=2)).eval()
    with torch.no_grad():
        assert attention(x).shape == attention_ours(x).shape == (1, 2, 32, 32)
        assert nested(x)[0].shape == nested_ours(x).shape == (1, 2, 32, 32)
    counts = [count(m) for m in (attention, attention_ours, nested, nested_ours)]
    assert counts == [31_739_250, 32_070_981, 9_118_888, 9_045_480]
