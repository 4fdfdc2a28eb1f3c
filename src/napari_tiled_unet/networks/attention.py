"""Attention on a skip: where the level below says that it matters."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from napari_tiled_unet.networks.blocks import CONV, ConvUnit, Span
from napari_tiled_unet.networks.resampling import Interpolate
from napari_tiled_unet.networks.spec import NetworkSpec, PerAxis


class AttentionGate(nn.Module):
    """Additive attention: one weight of 0 to 1 per voxel of the skip.

    Parameters
    ----------
    spec : NetworkSpec
        Norm and dimensions.
    skip, gate : int
        Channels of the skip and of what steers it.
    factor : tuple of int
        How much coarser, per axis, the steering features are: above 1 the skip is compared at
        their resolution and the weights are interpolated back [1]_; 1 compares at the skip's own.

    References
    ----------
    .. [1] O. Oktay et al., "Attention U-Net: Learning Where to Look for the Pancreas", MIDL 2018,
           arXiv:1804.03999
    """

    def __init__(self, spec: NetworkSpec, skip: int, gate: int, factor: PerAxis) -> None:
        super().__init__()
        spec = spec.model_copy(update={"dropout": 0.0})
        inner, self.factor, one = max(1, skip // 2), factor, (1,) * spec.ndim
        self.from_skip = ConvUnit(spec, skip, inner, one, activate=False)
        if factor != one:
            self.from_skip.conv = CONV[spec.ndim](skip, inner, factor, stride=factor, bias=spec.norm == "none")
        self.from_gate = ConvUnit(spec, gate, inner, one, activate=False)
        self.weigh = CONV[spec.ndim](inner, 1, 1)
        self.spread = Interpolate(spec.ndim, factor, linear=True)

    def forward(self, skip: Tensor, gate: Tensor) -> Tensor:
        """Return the weights, ``(n, 1, *spatial)`` of the skip's size."""
        joined = torch.relu(self.from_skip(skip) + self.from_gate(gate))
        return self.spread(torch.sigmoid(self.weigh(joined)))  # type: ignore[no-any-return]

    def sources(self, span: Span, axis: int) -> tuple[Span, Span]:
        """Return the indices of the skip and of the steering features that the weights in ``span`` depend on."""
        coarse, factor = self.spread.sources(span, axis), self.factor[axis]
        fine = coarse[0] * factor, coarse[1] * factor + factor - 1
        return (min(span[0], fine[0]), max(span[1], fine[1])), coarse
