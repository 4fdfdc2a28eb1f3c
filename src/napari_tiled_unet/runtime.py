"""Where and how a network runs: device, number format, and the run itself."""

from __future__ import annotations

import gc
import os
import weakref
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_tiled_unet.errors import OptionsError, TiledUnetError
from napari_tiled_unet.flips import Flips

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

    from napari_tiled_unet.backends.interface import Backend, Stream
    from napari_tiled_unet.events import Notice
    from napari_tiled_unet.networks.zoo import Network
    from napari_tiled_unet.normalise import Statistics
    from napari_tiled_unet.options import BackendName, Precision, SegmentOptions


def choose_device(name: str, backend: BackendName = "auto") -> torch.device:
    """Return the device of a name; ``auto`` is CUDA, else Apple's MPS, else the CPU.

    Backends other than torch run on the CPU.

    Raises
    ------
    OptionsError
        If the named device is not there.
    """
    import torch

    mps = torch.backends.mps.is_available()
    if name == "auto" and backend in ("openvino", "onnx"):
        return torch.device("cpu")
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "mps" if mps else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise OptionsError(
            f"device {name!r} is not there: torch sees {torch.cuda.device_count()} CUDA devices; "
            "use 'cpu' or 'auto', or install a CUDA build of torch"
        )
    if device.type == "mps" and not mps:
        raise OptionsError("device 'mps' is not there: it needs an Apple processor; use 'cpu' or 'auto'")
    return device


def choose_precision(name: Precision, device: torch.device) -> torch.dtype:
    """Return the number format; ``auto`` is bfloat16 or float16 where the hardware has it.

    Raises
    ------
    OptionsError
        If the format cannot be used on the device.
    """
    import torch

    if name == "auto":
        if device.type == "cuda":
            return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
        if device.type == "mps":
            return torch.float16
        return torch.bfloat16 if _cpu_has_bfloat16() else torch.float32
    if name == "float16" and device.type == "cpu":
        raise OptionsError("precision 'float16' is slow and inexact on a CPU; use 'bfloat16', 'float32' or 'auto'")
    return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[name]


def choose_hardware(options: SegmentOptions) -> tuple[torch.device, torch.dtype]:
    """Return the device and the number format that options ask for.

    Raises
    ------
    OptionsError
        If one of them is not there, or their backend is not installed or does not suit them: no image could be
        segmented.
    """
    device = choose_device(options.device, options.backend)
    dtype = choose_precision(options.precision, device)
    _require_suited(options.backend, device, dtype, checked=options.precision == "auto")
    return device, dtype


def _require_suited(backend: BackendName, device: torch.device, dtype: torch.dtype, *, checked: bool) -> None:
    """Refuse a backend that is not installed, or cannot run on the device or in a format that is not to be checked."""
    from napari_tiled_unet.backends.interface import require_available

    if backend == "auto":
        return
    runtime, precision = require_available(backend, device), str(dtype).removeprefix("torch.")
    if precision not in runtime.precisions and not checked:
        raise OptionsError(
            f"backend {backend!r} computes in {' or '.join(runtime.precisions)}, not in {precision}; "
            "use precision='auto', or backend='torch'"
        )


def _cpu_has_bfloat16() -> bool:
    return not {"avx512_bf16", "amx_bf16"}.isdisjoint(_cpu_flags())


def amx_in_use() -> bool:
    """Return whether oneDNN computes bfloat16 in the AMX units of the processor, which its environment may forbid."""
    allowed = os.environ.get("ONEDNN_MAX_CPU_ISA", os.environ.get("DNNL_MAX_CPU_ISA", "DEFAULT")).upper()
    return "amx_bf16" in _cpu_flags() and (allowed in ("DEFAULT", "ALL") or "AMX" in allowed)


def _cpu_flags() -> set[str]:
    try:
        return set(Path("/proc/cpuinfo").read_text().split())
    except OSError:
        return set()


@dataclass(frozen=True)
class _Settled:
    """A backend made ready, and whether what it was checked on had anything in it."""

    backend: Backend
    proven: bool


# What was settled, by network; a backend that is in use is not among them.
_SETTLED: weakref.WeakKeyDictionary[Network, dict[tuple[object, ...], list[_Settled]]] = weakref.WeakKeyDictionary()
# Standard deviation of normalised intensities below which a sample proves nothing: any number format is right there.
_CONTENT = 0.02


def _leave_for_the_next(held: list[_Settled], settled: list[_Settled]) -> None:
    for each in held:
        each.backend.release()
    # One is enough: runs of a model beside each other are rare.
    if held and not settled:
        settled.extend(held)


def _changes(tensor: torch.Tensor) -> int:
    # Those of inference mode are not counted.
    return 0 if tensor.is_inference() else tensor._version


class Runner:
    """A network made ready to run: on its device, in its number format, by its backend.

    What runs is settled on the first frame, which reduced precision and converted networks
    are checked on (:mod:`napari_tiled_unet.backends.choice`), and again on the first that has anything in it.

    Parameters
    ----------
    network : Network
        In evaluation mode; it is copied, never changed.
    activate : callable
        Logits to maps, as tensors.
    device : torch.device
        Where it runs.
    dtype : torch.dtype
        Number format of weights and activations.
    backend : str
        ``torch``, ``openvino``, ``onnx``, or ``auto`` for the fastest that is installed.
    checked : bool
        Whether reduced precision is checked against float32, and given up where it differs too much.
    flips : Flips, optional
        How tiles are seen mirrored too; only as they are by default.

    Attributes
    ----------
    backend, precision : str
        What runs, or is wanted before the first tile.
    gives_spread : bool
        Whether the last map is the spread over flips, and not the network's.

    Raises
    ------
    OptionsError
        If the backend is not installed, or cannot run on the device or in the number format.
    """

    def __init__(
        self,
        network: Network,
        activate: Callable[[torch.Tensor], torch.Tensor],
        device: torch.device,
        dtype: torch.dtype,
        *,
        backend: BackendName = "torch",
        checked: bool = False,
        flips: Flips | None = None,
    ) -> None:
        from napari_tiled_unet.backends.interface import Prepared
        from napari_tiled_unet.backends.retention import keep_freed_memory

        self.device, self.dtype = device, dtype
        self.backend, self.precision = str(backend), str(dtype).removeprefix("torch.")
        self.gives_spread = flips is not None and flips.spread_of > 0
        self._checked, self._flips = checked, flips
        self._prepared = Prepared(network, activate, device)
        self._asked = self.backend, self.precision
        self._held: list[_Settled] = []
        self._notices: list[Notice] = []
        _require_suited(backend, device, dtype, checked=checked)
        self._retention = weakref.finalize(self, keep_freed_memory()) if device.type == "cpu" else None

    @classmethod
    def of(
        cls,
        network: Network,
        activate: Callable[[torch.Tensor], torch.Tensor],
        options: SegmentOptions,
        device: torch.device,
        dtype: torch.dtype,
        *,
        spread_of: int = 0,
    ) -> Runner:
        """Return the runner that the options ask for; a precision that was not asked for is checked.

        What an earlier run of the same network settled is taken over, so that a folder of small
        images pays for it once. Under flips, ``spread_of`` is as for :class:`Flips`.
        """
        flips = Flips(spread_of) if options.flips else None
        checked = options.precision == "auto"
        runner = cls(network, activate, device, dtype, backend=options.backend, checked=checked, flips=flips)
        # In-place changes of weights count; another object is another network.
        weights = sum(_changes(t) for t in (*network.parameters(), *network.buffers()))
        # So does what is made of its logits: models of different targets may share a network.
        key = (weights, activate, str(device), runner.precision, runner.backend, runner._checked)
        settled = _SETTLED.setdefault(network, {}).setdefault(key, [])
        with suppress(IndexError):
            runner._take(settled.pop())
        # Not when the interpreter ends: there is nobody next, and runtimes may be gone.
        weakref.finalize(runner, _leave_for_the_next, runner._held, settled).atexit = False
        return runner

    def _take(self, settled: _Settled) -> None:
        self._held[:] = [settled]
        self.backend, self.precision = settled.backend.name, settled.backend.precision

    def settle(self, frame: npt.NDArray[Any], statistics: Statistics) -> None:
        """Settle what runs, by the busiest part of a frame, unless a frame with anything in it did so before.

        Parameters
        ----------
        frame : numpy.ndarray
            ``(c, [z,] y, x)``, raw intensities.
        statistics : Statistics
            Of the frame.
        """
        if self._held and self._held[0].proven:
            return
        from napari_tiled_unet.backends.choice import busiest_part

        sample = busiest_part(frame, statistics, self._prepared.network.stride)
        if not self._held or sample.std() >= _CONTENT:
            self._choose(sample)

    def _choose(self, tiles: npt.NDArray[np.float32]) -> None:
        from napari_tiled_unet.backends.choice import choose_backend

        name, precision = self._asked
        backend, notices = choose_backend(self._prepared, name, precision, tiles, checked=self._checked)
        self._notices.extend(notices)
        certain = backend.name == "torch" and (backend.precision == "float32" or not self._checked)
        self._take(_Settled(backend, certain or float(tiles[:1].std()) >= _CONTENT))

    def run(self, tiles: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return the maps, ``(n, k, *spatial)`` float32, of tiles ``(n, c, *spatial)``; the spread last, if given.

        Raises
        ------
        MemoryBudgetError
            If the device runs out of memory.
        """
        network = self._settled(tiles).run
        return network(tiles) if self._flips is None else self._flips.run(network, tiles)

    def stream(self, tiles: npt.NDArray[np.float32], axis: int, length: int, rows: int) -> Stream:
        """Return the network at the start of a column of strips.

        Parameters
        ----------
        tiles : numpy.ndarray
            The first strip, ``(1, c, *spatial)``, by which the backend is settled as by a first tile.
        axis, length, rows : int
            Axis along which strips follow each other, all rows along it, and those of a strip.

        Raises
        ------
        TiledUnetError
            Under flips, or by a backend that takes whole tiles only.
        """
        from napari_tiled_unet.backends.interface import Streaming

        backend = self._settled(tiles)
        if self._flips is not None or not isinstance(backend, Streaming):
            raise TiledUnetError(
                f"strips cannot be computed by backend {backend.name!r} with flips={self._flips is not None}; "
                "plan tiles, or use backend='torch' without flips"
            )
        return backend.stream(axis, length, rows)

    def _settled(self, tiles: npt.NDArray[np.float32]) -> Backend:
        if not self._held:
            self._choose(tiles)
        return self._held[0].backend

    def give_back_memory(self) -> None:
        """Give freed memory that is kept for later tiles back, because memory is short now."""
        # An error's traceback may hold in cycles what filled the memory.
        gc.collect()
        for settled in self._held:
            settled.backend.release()
        if self._retention is not None:
            self._retention()

    def take_notices(self) -> list[Notice]:
        """Return what the user should know about the run of the network, once."""
        notices, self._notices = self._notices, []
        return notices
