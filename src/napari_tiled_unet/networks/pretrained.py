"""Pretrained weights for the published encoders, from a file or a verified download.

Read are ``.safetensors`` and torch checkpoints (tensors only, nothing is executed) of
torchvision's and MONAI's ResNets, MedicalNet's 3D ResNets and the EfficientNets of MONAI
and lukemelas.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from napari_tiled_unet.errors import ModelError
from napari_tiled_unet.networks.backbones import BACKBONES
from napari_tiled_unet.networks.zoo import Network

_TORCH = "https://download.pytorch.org/models/"
_LUKEMELAS = "https://github.com/lukemelas/EfficientNet-PyTorch/releases/download/1.0/"
IMAGENET: dict[str, str] = {
    "resnet18": f"{_TORCH}resnet18-f37072fd.pth",
    "resnet34": f"{_TORCH}resnet34-b627a593.pth",
    "resnet50": f"{_TORCH}resnet50-0676ba61.pth",
    "efficientnet-b0": f"{_LUKEMELAS}efficientnet-b0-355c32eb.pth",
    "efficientnet-b1": f"{_LUKEMELAS}efficientnet-b1-f1951068.pth",
    "efficientnet-b2": f"{_LUKEMELAS}efficientnet-b2-8bb594d6.pth",
    "efficientnet-b3": f"{_LUKEMELAS}efficientnet-b3-5fb5a3c3.pth",
    "efficientnet-b4": f"{_LUKEMELAS}efficientnet-b4-6ed6700e.pth",
}
"""ImageNet weights by encoder; the end of each name is the start of the file's SHA-256."""

# Wrappers that training frameworks leave in front of names, and a classifier that is not needed.
_PREFIX = re.compile(r"^(module\.|model\.|encoder\.|backbone\.|net\.|body\.)+")
_CLASSIFIER = re.compile(r"^(fc|_fc|_conv_head|_bn1|conv_seg|classifier)\.")


def download_encoder_weights(encoder: str, folder: str | Path, url: str | None = None) -> Path:
    """Download ImageNet weights with a progress bar, verify their SHA-256, and return the file.

    Parameters
    ----------
    encoder : str
        A key of ``IMAGENET``.
    folder : str or Path
        Where the file goes; one that is there already is not fetched again.
    url : str, optional
        Another place, whose file name must end in the first 8 or more digits of its SHA-256.

    Raises
    ------
    ModelError
        If there are no weights for the encoder, or the file cannot be had or is not the right one.
    """
    if url is None:
        if encoder not in IMAGENET:
            raise ModelError(f"there are no weights to download for {encoder!r}; there are for {', '.join(IMAGENET)}")
        url = IMAGENET[encoder]
    name = url.rpartition("/")[2]
    stated = re.search(r"-([0-9a-f]{8,64})\.", name)
    if stated is None:
        raise ModelError(f"{name!r} does not end in its SHA-256, so it cannot be verified; download it yourself")
    path = Path(folder) / name
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(url, str(path), hash_prefix=stated[1], progress=True)
        except (OSError, RuntimeError) as error:
            raise ModelError(
                f"{url} cannot be had ({error}); download it elsewhere and give the file to load_encoder_weights"
            ) from None
    return path


def load_encoder_weights(network: Network, path: str | Path) -> None:
    """Put pretrained weights from a local file into a network's encoder, in place.

    A first convolution for other channels than the network's is adapted: its weights are
    averaged over the file's channels and shared out, so that a grey image gives what the same
    grey in every channel would. Biases before a batch norm are moved into it; shortcuts
    without weights (type A of MedicalNet) become the convolutions that do the same.

    Parameters
    ----------
    network : Network
        With a published encoder at its published width, and batch norm.
    path : str or Path
        ``.safetensors``, or a torch checkpoint.

    Raises
    ------
    ModelError
        If the network has no such encoder, or the file does not hold its weights.
    """
    spec = network.spec
    if spec.encoder not in BACKBONES or spec.norm != "batch":
        raise ModelError(
            f"encoder {spec.encoder!r} with {spec.norm} norm has no pretrained weights; "
            f"take one of {', '.join(BACKBONES)} with norm='batch'"
        )
    found = _renamed(_read(Path(path)), spec.encoder)
    body: Any = network.encoder.body
    expected = body.state_dict()
    taken: dict[str, Tensor] = {}
    for name, wanted in expected.items():
        if ".downsample." in name and not any(
            k.startswith(name.rpartition(".downsample.")[0] + ".downsample.") for k in found
        ):
            continue
        if name not in found:
            if name.endswith("num_batches_tracked"):
                taken[name] = wanted
                continue
            raise ModelError(f"{str(path)!r} has no tensor {name!r}; it is not a file of {spec.encoder} weights")
        value = found[name].to(wanted.dtype)
        if name in ("conv1.weight", "_conv_stem.weight") and value.shape[1] != wanted.shape[1]:
            value = value.mean(1, keepdim=True).expand_as(wanted) * (value.shape[1] / wanted.shape[1])
        if value.shape != wanted.shape:
            raise ModelError(
                f"{str(path)!r}: {name} has shape {tuple(value.shape)}, {spec.encoder} in {spec.ndim}D at width "
                f"{spec.width} needs {tuple(wanted.shape)}; build the network with the published width "
                f"{BACKBONES[spec.encoder].published_width} and the dimensions of the file"
            )
        taken[name] = value
    _move_biases(found, taken)
    body.load_state_dict(taken, strict=False)
    for name in expected:
        if name.endswith("downsample.0.weight") and name not in taken:
            _plain_shortcut(body.get_submodule(name.removesuffix(".0.weight")))


def _read(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(str(path))
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # noqa: BLE001 - readers of damaged files raise anything
        raise ModelError(f"weights {str(path)!r} cannot be read as tensors ({error}); get the file again") from None
    content = content.get("state_dict", content) if isinstance(content, dict) else {}
    return {name: value for name, value in content.items() if isinstance(value, Tensor)}


def _renamed(found: dict[str, Tensor], encoder: str) -> dict[str, Tensor]:
    named = {_PREFIX.sub("", name): value for name, value in found.items()}
    if encoder.startswith("efficientnet"):
        # MONAI nests blocks in stages, lukemelas numbers them through: the last number is the block's.
        named = {re.sub(r"^_blocks\.(?:\d+\.)?(\d+)\.(?=_)", r"_blocks.\1.", k): v for k, v in named.items()}
        return {k: v for k, v in named.items() if not _CLASSIFIER.match(k)}
    return named


def _move_biases(found: dict[str, Tensor], taken: dict[str, Tensor]) -> None:
    """Let biases before a batch norm move its mean."""
    for name, bias in found.items():
        mean = name.replace("downsample.0.bias", "downsample.1.running_mean")
        if mean != name and mean in taken:
            taken[mean] = taken[mean] - bias


def _plain_shortcut(downsample: torch.nn.Module) -> None:
    """Make a convolution and its norm pass the channels on, with zeros for those that are new."""
    conv, norm = downsample.get_submodule("0"), downsample.get_submodule("1")
    assert isinstance(norm, torch.nn.BatchNorm2d | torch.nn.BatchNorm3d)
    with torch.no_grad():
        torch.nn.init.dirac_(conv.weight)  # type: ignore[arg-type]
        norm.reset_parameters()
        norm.reset_running_stats()
        norm.weight.fill_((1 + norm.eps) ** 0.5)
