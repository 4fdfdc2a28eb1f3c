"""What a network sees inside: features, skips and attention of a level, to be shown beside the image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import numpy.typing as npt
import torch

from napari_tiled_unet.errors import OptionsError

if TYPE_CHECKING:
    from napari_tiled_unet.networks.zoo import Network

Part = Literal["encoder", "skip", "attention", "decoder"]


@dataclass(frozen=True)
class Inside:
    """Maps from inside a network.

    Attributes
    ----------
    part, level : str, int
        What they are; level 0 is the finest.
    maps : numpy.ndarray
        ``(channels, [z,] y, x)`` float32.
    stride : tuple of int
        Voxels of the image, per axis, that a voxel of the maps stands for: voxel ``i``
        covers ``i * stride`` to ``(i + 1) * stride``.
    """

    part: Part
    level: int
    maps: npt.NDArray[np.float32]
    stride: tuple[int, ...]


def parts_of(network: Network) -> dict[Part, tuple[int, ...]]:
    """Return what :func:`look_inside` can show of a network: levels by part."""
    decoder = network.decoder
    last = {node.level: node for node in decoder.needed(decoder.outputs[:1])}
    return {
        "encoder": tuple(range(len(network.encoder.channels))),
        "skip": tuple(sorted(k for k, n in last.items() if any(not decoder.rises(n, w) for w in n.wires))),
        "attention": tuple(sorted(k for k, n in last.items() if any(w.gate is not None for w in n.wires))),
        "decoder": tuple(sorted(last)),
    }


def look_inside(network: Network, frame: npt.NDArray[np.float32], part: Part, level: int) -> Inside:
    """Run a network over a tile and return what one of its parts gives.

    Parameters
    ----------
    network : Network
        On any device.
    frame : numpy.ndarray
        ``(c, [z,] y, x)``, normalised as the model asks.
    part : {"encoder", "skip", "attention", "decoder"}
        Features that the encoder gives; what the skip brings to the decoder, weighed if there
        are gates; the weights of the gate; features that the decoder gives.
    level : int
        0 is the finest.

    Raises
    ------
    OptionsError
        If the network has no such part at that level.
    """
    possible = parts_of(network)
    if level not in possible.get(part, ()):
        there = "; ".join(f"{name} {', '.join(map(str, levels))}" for name, levels in possible.items() if levels)
        known = "" if part in get_args(Part) else f"; parts are {', '.join(get_args(Part))}"
        raise OptionsError(
            f"{network.spec.architecture!r} has no part {part!r} at level {level}; levels that it has: {there}{known}"
        )
    training = network.training
    device = next(network.parameters()).device
    seen: dict[str, torch.Tensor] = {}
    with torch.inference_mode():
        network.eval()
        try:
            features = network.features(torch.from_numpy(frame)[None].to(device))
            decoder = network.decoder
            decoder.run(list(features), decoder.outputs[:1], seen)
        finally:
            network.train(training)
    node = [n for n in decoder.nodes.values() if n.level == level and f"node {n.name}" in seen][-1:]
    if part == "encoder":
        maps = features[level]
    elif part == "decoder":
        maps = seen[f"node {node[0].name}"]
    elif part == "attention":
        maps = seen[f"gate {node[0].name}"]
    else:
        beside = [w for w in node[0].wires if not decoder.rises(node[0], w)]
        maps = torch.cat([seen[f"wire {node[0].name} {w.source}"] for w in beside], dim=1)
    stride = network.encoder.strides[level]
    covered = tuple(slice(-(-n // s)) for n, s in zip(frame.shape[1:], stride, strict=True))
    return Inside(part, level, maps[0][(slice(None), *covered)].float().cpu().numpy().copy(), stride)
