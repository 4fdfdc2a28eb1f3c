"""The numbers of a network: what it weighs, what it costs, how far it sees."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari_tiled_unet.networks.zoo import Network


@dataclass(frozen=True)
class Anatomy:
    """What :func:`measure_network` finds on a built network.

    Attributes
    ----------
    name, encoder : str
        The row, and what it is built on.
    ndim : int
        2 or 3.
    parameters : int
        Numbers that are learned.
    gflop_per_megavoxel : float
        10^9 floating-point operations of the convolutions, per 10^6 voxels; a multiplication
        and an addition are two.
    stride, receptive_field : tuple of int
        Per axis.
    inference_bytes, training_bytes : float
        Per voxel in float32: the most that inference holds at once, with norms folded, and
        what training keeps for the gradients.
    exact_tiling : bool
        Whether tiles can give exactly what the whole image would.
    """

    name: str
    encoder: str
    ndim: int
    parameters: int
    gflop_per_megavoxel: float
    stride: tuple[int, ...]
    receptive_field: tuple[int, ...]
    inference_bytes: float
    training_bytes: float
    exact_tiling: bool


def measure_network(network: Network) -> Anatomy:
    """Count a network's parameters, work and memory without running it, from the built module."""
    from napari_tiled_unet.networks.footprint import flops_per_voxel, kept_values_per_voxel

    return Anatomy(
        name=network.spec.architecture,
        encoder=network.spec.encoder,
        ndim=network.spec.ndim,
        parameters=sum(p.numel() for p in network.parameters()),
        gflop_per_megavoxel=flops_per_voxel(network) / 1e3,
        stride=network.stride,
        receptive_field=network.receptive_field,
        inference_bytes=4 * network.inference.peak_values,
        training_bytes=4 * kept_values_per_voxel(network),
        exact_tiling=network.exact_tiling,
    )


def measure_architecture(name: str, **choices: Any) -> Anatomy:
    """Return the anatomy of a row of ``ARCHITECTURES`` with some choices replaced.

    Raises
    ------
    ModelError
        If the name is unknown or a choice breaks its rule.
    """
    from napari_tiled_unet.networks.zoo import build_network, network_spec

    return measure_network(build_network(network_spec(name, **choices)))
