"""The network in torch, on any device."""

from __future__ import annotations

import copy
import warnings
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch

from napari_tiled_unet.backends.bands import compute_in_bands
from napari_tiled_unet.backends.columns import channels_last
from napari_tiled_unet.backends.fusing import can_fuse, fold_norms, fuse_layers
from napari_tiled_unet.backends.interface import Prepared, Tiles
from napari_tiled_unet.backends.streaming import Stream
from napari_tiled_unet.errors import MemoryBudgetError
from napari_tiled_unet.networks.zoo import Network


class TorchBackend:
    """Norms folded in, channels last; on a processor large tiles in bands, and fused convolutions where it has them.

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
        # Weakly: a backend is kept for as long as its network lives, and must not be why it does.
        self._original = weakref.ref(prepared.network)
        self._dtype: torch.dtype = getattr(torch, precision)
        ndim = prepared.network.spec.ndim
        self._layout = channels_last(ndim)
        self._network = self._copy()
        self._onednn = True
        if self._device.type == "cpu" and can_fuse(ndim, self._dtype):
            fuse_layers(self._network)

    def _copy(self) -> Network:
        original = self._original()
        assert original is not None, "whoever runs a network holds it"
        network = copy.deepcopy(original).eval().requires_grad_(False)
        fold_norms(network)
        if self._device.type == "cpu":
            compute_in_bands(network)
        network = network.to(device=self._device, dtype=self._dtype)
        return network.to(memory_format=self._layout)  # type: ignore[no-any-return, call-overload]

    def run(self, tiles: Tiles) -> Tiles:
        """Return the maps, ``(n, k, *spatial)``, of tiles ``(n, c, *spatial)``.

        Raises
        ------
        MemoryBudgetError
            If the device runs out of memory.
        """
        return self._maps(tiles, self._network)

    def release(self) -> None:
        """Give memory back that torch keeps between tiles; on a processor it keeps none by itself."""
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        elif self._device.type == "mps":
            torch.mps.empty_cache()

    def stream(self, axis: int, length: int, rows: int) -> TorchStream:
        """Return the network at the start of ``length`` rows along an axis, in strips of ``rows``."""
        return TorchStream(self._maps, Stream(self._network, axis, length, rows))

    def _maps(self, tiles: Tiles, network: Callable[[torch.Tensor], torch.Tensor]) -> Tiles:
        with torch.inference_mode(), self._library():
            try:
                x = torch.from_numpy(tiles).to(device=self._device, dtype=self._dtype)
                maps = self._activate(network(x.contiguous(memory_format=self._layout)).float())
                return np.ascontiguousarray(maps.cpu().numpy())
            except (torch.OutOfMemoryError, MemoryError) as error:
                raise MemoryBudgetError(
                    f"tiles of {tiles.shape[2:]} voxels ran out of memory on {self._device}; "
                    "take a smaller tile or set memory to what is free"
                ) from error
            except RuntimeError as error:
                if self._onednn and "could not create a primitive" in str(error):
                    # Once oneDNN could not allocate its code it may fail for every size; torch's own kernels go on.
                    self._network, self._onednn = self._copy(), False
                raise

    @contextmanager
    def _library(self) -> Iterator[None]:
        if self._onednn:
            yield
            return
        with warnings.catch_warnings():
            # Setting the flags warns of another kind of hardware.
            warnings.simplefilter("ignore")
            with torch.backends.mkldnn.flags(enabled=False, allow_tf32=False):
                yield


class TorchStream:
    """A network in the middle of a column of strips; its rows are kept between them."""

    def __init__(self, maps: Callable[[Tiles, Callable[[torch.Tensor], torch.Tensor]], Tiles], stream: Stream) -> None:
        self._maps, self._stream = maps, stream

    def push(self, strip: Tiles, stop: int) -> Tiles:
        """Return the next maps up to row ``stop``, given the next strip.

        Raises
        ------
        MemoryBudgetError
            If memory runs out; the stream is at its end then.
        """
        # Its last rows are kept, and the caller may use the memory of a strip for the one after the next.
        return self._maps(strip, lambda x: self._stream.push(x.clone(), stop))
