"""A network with fewer channels that starts from the most useful ones of a wider, trained one.

A channel counts for what its norm makes of it times what the convolutions after it make of it, after Liu et al. 2017,
Learning Efficient Convolutional Networks through Network Slimming (arXiv:1708.06519). The maps are not those of the
wide network until the rest has learned to do without.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from napari_tiled_unet.networks.zoo import Network
from training.widening import counterparts

Weights = dict[str, torch.Tensor]


@dataclass(frozen=True)
class _Layer:
    """A convolution: what it hears, by the names of other layers, and the norm after it if it has one."""

    name: str
    hears: tuple[str, ...]
    norm: str = ""
    transposed: bool = False


@torch.no_grad()
def narrow(wide: Network, slim: Network) -> None:
    """Give a fresh network the most useful channels of a wider one.

    Parameters
    ----------
    wide : Network
        Trained; a plain U-Net with batch norm and transposed convolutions.
    slim : Network
        Of the same row and depth, with as many channels on every level or fewer. Changed.

    Raises
    ------
    ValueError
        If a parameter of ``slim`` is larger than the one of ``wide``, or has no counterpart.
    """
    old, new = counterparts(wide, slim)
    for name, weight in new.items():
        if any(a < b for a, b in zip(old[name].shape, weight.shape, strict=True)):
            shapes = f"{tuple(old[name].shape)} and is to have {tuple(weight.shape)}"
            raise ValueError(f"{name} has shape {shapes}; channels can only become fewer: give as many or fewer")
    layers = _layers(wide.spec.depth, wide.spec.convs_per_block)
    kept = {layer.name: _most_useful(layer, layers, old, _outputs(layer, new)) for layer in layers}
    taken = {name for layer in layers for name in _give(layer, layers, old, new, kept)}
    assert {name for name in new if not name.endswith("num_batches_tracked")} == taken


def _layers(depth: int, convs: int) -> list[_Layer]:
    """Return the convolutions of a U-Net from the image to the maps."""
    found: list[_Layer] = []

    def block(name: str, *hears: str) -> str:
        for unit in range(convs):
            place = f"{name}.units.{unit}"
            found.append(_Layer(f"{place}.conv", hears, f"{place}.norm"))
            hears = (f"{place}.conv",)
        return hears[0]

    skips: list[str] = []
    for level in range(depth + 1):
        skips.append(block(f"encoder.blocks.{level}", *skips[-1:]))
    below = skips.pop()
    for level in reversed(range(depth)):
        found.append(_Layer(f"decoder.ups.{level}.conv", (below,), transposed=True))
        below = block(f"decoder.blocks.{level}", skips[level], found[-1].name)
    found.append(_Layer("head", (below,)))
    return found


def _outputs(layer: _Layer, weights: Weights) -> int:
    return weights[f"{layer.name}.weight"].shape[1 if layer.transposed else 0]


def _inputs_first(layer: _Layer, weights: Weights) -> torch.Tensor:
    weight = weights[f"{layer.name}.weight"]
    return weight if layer.transposed else weight.transpose(0, 1)


def _most_useful(layer: _Layer, layers: list[_Layer], weights: Weights, count: int) -> torch.Tensor:
    """Return the numbers of the channels to keep, in order."""
    total = _outputs(layer, weights)
    if layer.name == "head":
        return torch.arange(total)
    own = _inputs_first(layer, weights).square().sum(dim=(0, 2, 3)).sqrt()
    if layer.norm:
        own = weights[f"{layer.norm}.weight"].abs()
    heard = torch.zeros(total)
    for other in layers:
        if layer.name in other.hears:
            # Those of several sources lie one after the other, as many of each.
            parts = _inputs_first(other, weights).chunk(len(other.hears))
            heard += parts[other.hears.index(layer.name)].abs().sum(dim=(1, 2, 3))
    return (own * heard).topk(count).indices.sort().values


def _give(layer: _Layer, layers: list[_Layer], old: Weights, new: Weights, kept: dict[str, torch.Tensor]) -> list[str]:
    """Copy what a layer keeps and return the names of what was copied."""
    names, outputs = [f"{layer.name}.weight"], kept[layer.name]
    totals = [_outputs(other, old) for name in layer.hears for other in layers if other.name == name]
    starts = [sum(totals[:i]) for i in range(len(totals))]
    inputs = [kept[name] + start for name, start in zip(layer.hears, starts, strict=True)]
    weight = _inputs_first(layer, old)
    weight = weight[torch.cat(inputs)] if inputs else weight
    _inputs_first(layer, new).copy_(weight[:, outputs])
    vectors = [f"{layer.norm}.{part}" for part in ("weight", "bias", "running_mean", "running_var")]
    for name in vectors if layer.norm else [f"{layer.name}.bias"]:
        new[name].copy_(old[name][outputs])
        names.append(name)
    return names
