"""Models whose weights are set by hand, so that tests know the right answer.

``blob_model`` is a real U-Net whose weights pass the image straight through: the
foreground is "brighter than half", the centre map is "brighter than three quarters".
On images of :func:`blobs` the right labels are therefore known.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from napari_tiled_unet.model import Model, ModelSpec
from napari_tiled_unet.networks.zoo import build_network, network_spec
from napari_tiled_unet.normalise import Normalisation
from napari_tiled_unet.targets import Classes, Objects


def blob_model(
    ndim: int = 2,
    name: str = "blobs",
    in_channels: int = 1,
    classes: bool = False,
    **changes: Any,
) -> Model:
    """Return a U-Net that thresholds its first channel: logits ``20 (x - 0.5)`` and ``20 (x - 0.75) + logit 0.5``."""
    network: Any = build_network(
        network_spec("unet", ndim=ndim, in_channels=in_channels, out_channels=2, width=2, depth=1)
    )
    middle = (1,) * ndim
    with torch.no_grad():
        for module in network.modules():
            if isinstance(
                module, torch.nn.Conv2d | torch.nn.Conv3d | torch.nn.ConvTranspose2d | torch.nn.ConvTranspose3d
            ):
                module.weight.zero_()
                if module.bias is not None:
                    module.bias.zero_()
        for block in (network.encoder.blocks[0], network.decoder.blocks["0"]):
            for unit in block.units:
                unit.conv.weight[(0, 0, *middle)] = 1.0
        slope = torch.tensor([-20.0, 20.0]) if classes else torch.tensor([20.0, 20.0])
        network.head.weight[:, 0] = slope.reshape(-1, *(1,) * ndim)
        network.head.bias.copy_(torch.tensor([10.0, -10.0]) if classes else torch.tensor([-10.0, -15.0]))
    values: dict[str, Any] = {
        "name": name,
        "summary": "bright blobs, by construction",
        "axes": "zyx"[-ndim:],
        "channels": tuple(f"channel {i}" for i in range(in_channels)),
        "object_size": 10.0,
        "normalisation": Normalisation("minmax"),
        "network": network.spec,
        "target": Classes(classes=("background", "blob")) if classes else Objects(),
        **changes,
    }
    return Model(ModelSpec.model_validate(values), network.eval().requires_grad_(False))


def blobs(shape: tuple[int, ...], centres: list[tuple[int, ...]], radius: float = 5.0) -> npt.NDArray[np.uint16]:
    """Return cones of light on black: 1000 at a centre, falling to 0 at ``2 radius`` from it.

    ``blob_model`` finds one object of about ``radius`` per centre.
    """
    grid = np.indices(shape)
    image = np.zeros(shape)
    for centre in centres:
        distance = np.sqrt(sum((g - c) ** 2 for g, c in zip(grid, centre, strict=True)))
        image = np.maximum(image, 1 - distance / (2 * radius))
    return np.clip(image * 1000, 0, 1000).astype(np.uint16)
