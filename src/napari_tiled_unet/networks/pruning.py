"""A trained U-Net++ made shallower: less work for a little less accuracy."""

from __future__ import annotations

from napari_tiled_unet.errors import ModelError
from napari_tiled_unet.networks.spec import NetworkSpec
from napari_tiled_unet.networks.zoo import Network, build_network


def pruned(network: Network, depth: int) -> Network:
    """Return the U-Net++ of less depth that lies inside a trained one, with its weights.

    Deep supervision has trained an output for every depth; the shallower network is an
    ordinary one, which can be saved and tiled (with a smaller receptive field).

    Parameters
    ----------
    network : Network
        A ``unetpp`` with ``deep_supervision``.
    depth : int
        Number of downsamplings that stay, from 1 to one less than the network's.

    Raises
    ------
    ModelError
        If the network has no shallower outputs, or not that one.

    References
    ----------
    .. [1] Z. Zhou et al., "UNet++", 2018, arXiv:1807.10165, section 3.3
    """
    spec = network.spec
    if spec.architecture != "unetpp" or not spec.deep_supervision:
        raise ModelError(
            f"architecture {spec.architecture!r} has no trained shallower outputs; "
            "only unetpp with deep_supervision=True can be pruned"
        )
    if not 1 <= depth < spec.depth:
        raise ModelError(f"depth={depth} is not inside a network of depth {spec.depth}; take 1 to {spec.depth - 1}")
    cut = {
        "depth": depth,
        "channels": spec.channels[: depth + 1],
        "kernels": spec.kernels[: depth + 1],
        "downsampling": spec.downsampling[:depth],
    }
    shallow = build_network(NetworkSpec.of(**{**spec.model_dump(), **cut}))
    weights = network.state_dict()
    # Outputs run from the deepest to the shallowest, so heads move up by as many as were cut.
    removed = spec.depth - depth
    heads = ["head", *(f"side_heads.{i}" for i in range(spec.depth - 1))]
    taken = {}
    for name in shallow.state_dict():
        part, _, leaf = name.rpartition(".")
        source = f"{heads[heads.index(part) + removed]}.{leaf}" if part in heads else name
        taken[name] = weights[source]
    shallow.load_state_dict(taken)
    return shallow.train(network.training)
