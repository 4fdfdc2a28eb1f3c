"""The network in torch, on any device."""

from __future__ import annotations

import copy

import numpy as np
import torch

from napari_tiled_unet.backends.fusing import can_fuse, fold_norms, fuse_convolutions
from napari_tiled_unet.backends.interface import Prepared, Tiles
from napari_tiled_unet.errors import MemoryBudgetError


class TorchBackend:
    """Norms folded in, channels last, fused convolutions where the processor has them.

    Parameters
    ----------
    prepared : Prepared
        The network, which is copied, and its device.
    precision : str
        Number format of weights and activations.
    """

    name = "torch"

    def __init__(self, prepared: Prepared, precision: str) -> None:
        self.precision = precision
        self._device, self._activate = prepared.device, prepared.activate
        self._dtype: torch.dtype = getattr(torch, precision)
        ndim = prepared.network.spec.ndim
        self._layout = torch.channels_last if ndim == 2 else torch.channels_last_3d
        network = copy.deepcopy(prepared.network).eval().requires_grad_(False)
        fold_norms(network)
        network = network.to(device=self._device, dtype=self._dtype)
        self._network = network.to(memory_format=self._layout)  # type: ignore[call-overload]
        if self._device.type == "cpu" and can_fuse(ndim, self._dtype):
            fuse_convolutions(self._network)

    def run(self, tiles: Tiles) -> Tiles:
        """Return the maps, ``(n, k, *spatial)``, of tiles ``(n, c, *spatial)``.

        Raises
        ------
        MemoryBudgetError
            If the device runs out of memory.
        """
        with torch.inference_mode():
            try:
                x = torch.from_numpy(tiles).to(device=self._device, dtype=self._dtype)
                maps = self._activate(self._network(x.contiguous(memory_format=self._layout)).float())
                return np.ascontiguousarray(maps.cpu().numpy())
            except (torch.OutOfMemoryError, MemoryError) as error:
                raise MemoryBudgetError(
                    f"tiles of {tiles.shape[2:]} voxels ran out of memory on {self._device}; "
                    "take a smaller tile or set memory to what is free"
                ) from error
