"""A network with more channels that starts where a narrower, trained one stands.

After Chen et al. 2016, Net2Net (arXiv:1511.05641), but for how the new channels begin: random, and heard by nobody,
so that they differ from each other at once and the maps are those of the narrow network until the first step.
"""

from __future__ import annotations

import torch

from napari_tiled_unet.networks.zoo import Network


@torch.no_grad()
def widen(narrow: Network, wide: Network) -> None:
    """Give a fresh network the weights of a narrower one, so that both give the same maps.

    Parameters
    ----------
    narrow : Network
        Trained.
    wide : Network
        Of the same row and depth, with as many channels on every level or more. Changed.

    Raises
    ------
    ValueError
        If a parameter of ``narrow`` is larger than the one of ``wide``, or has no counterpart.
    """
    old, new = counterparts(narrow, wide)
    for name, weight in new.items():
        weight.copy_(_widened(name, old[name], weight))


def counterparts(trained: Network, fresh: Network) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Return the weights of both, by names that they share.

    Raises
    ------
    ValueError
        If a parameter has no counterpart.
    """
    old, new = trained.state_dict(), fresh.state_dict()
    if old.keys() != new.keys():
        odd = sorted(old.keys() ^ new.keys())[0]
        raise ValueError(f"{odd} is in one of the networks only; take networks that differ in channels alone")
    return old, new


def _widened(name: str, old: torch.Tensor, fresh: torch.Tensor) -> torch.Tensor:
    if old.shape == fresh.shape:
        return old
    if any(a > b for a, b in zip(old.shape, fresh.shape, strict=True)):
        shapes = f"{tuple(old.shape)} and is to have {tuple(fresh.shape)}"
        raise ValueError(f"{name} has shape {shapes}; channels can only grow: give as many per level or more")
    result = fresh.clone()
    if old.ndim == 1:
        result[: len(old)] = old
        return result
    # A transposed convolution holds its inputs first.
    heard, heard_new, spoken = (0, fresh.shape[0], 1) if ".ups." in name else (1, fresh.shape[1], 0)
    wide, kept = result.movedim(heard, 0), old.movedim(heard, 0)
    outputs = slice(0, old.shape[spoken])
    wide[:, outputs] = 0
    for source, place in _parts(name, len(kept), heard_new):
        wide[place, outputs] = kept[source]
    return result


def _parts(name: str, narrow: int, wide: int) -> list[tuple[slice, slice]]:
    """Return where inputs of a narrow convolution stand among those of the wide one."""
    # A block of the decoder hears the skip, then what came up; each half has grown at its end.
    halves = 2 if name.startswith("decoder.blocks") and ".units.0." in name else 1
    step, stride = narrow // halves, wide // halves
    return [(slice(i * step, (i + 1) * step), slice(i * stride, i * stride + step)) for i in range(halves)]
