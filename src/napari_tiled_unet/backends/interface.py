"""What a backend is, and the table of runtimes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from napari_tiled_unet.errors import OptionsError

if TYPE_CHECKING:
    import torch

    from napari_tiled_unet.networks.zoo import Network

Tiles = npt.NDArray[np.float32]


class Backend(Protocol):
    """A network made ready to run.

    Attributes
    ----------
    name : str
        A key of :data:`RUNTIMES`.
    precision : str
        Number format that the network is computed in.
    """

    name: str
    precision: str

    def run(self, tiles: Tiles) -> Tiles:
        """Return the maps, ``(n, k, *spatial)``, of tiles ``(n, c, *spatial)``."""
        ...

    def release(self) -> None:
        """Give memory back that is kept between tiles; weights stay."""
        ...


class Stream(Protocol):
    """A network in the middle of a column of strips."""

    def push(self, strip: Tiles, stop: int) -> Tiles:
        """Return the next maps, ``(1, k, *spatial)`` up to row ``stop``, given the next strip, ``(1, c, *spatial)``."""
        ...


@runtime_checkable
class Streaming(Protocol):
    """What a backend is that takes strips too."""

    def stream(self, axis: int, length: int, rows: int) -> Stream:
        """Return the network at the start of ``length`` rows along an axis, in strips of ``rows``."""
        ...


@dataclass(frozen=True)
class Prepared:
    """What every backend is built from.

    Attributes
    ----------
    network : Network
        In evaluation mode, on the CPU, float32; never changed.
    activate : callable
        Logits to maps, as tensors.
    device : torch.device
        Where it runs.
    """

    network: Network
    activate: Callable[[torch.Tensor], torch.Tensor]
    device: torch.device


@dataclass(frozen=True)
class Runtime:
    """One row of :data:`RUNTIMES`.

    Attributes
    ----------
    requires : tuple of str
        Distributions that must be installed.
    precisions : tuple of str
        Number formats it can compute in.
    home : str
        ``module:class`` of the backend.
    """

    requires: tuple[str, ...]
    precisions: tuple[str, ...]
    home: str

    def available(self) -> bool:
        """Return whether everything it requires is installed; nothing is imported."""
        return all(_installed(name) for name in self.requires)

    def build(self, prepared: Prepared, precision: str) -> Backend:
        """Make the network ready to run."""
        module, _, name = self.home.partition(":")
        backend: Backend = getattr(import_module(module), name)(prepared, precision)
        return backend


RUNTIMES: dict[str, Runtime] = {
    "torch": Runtime(("torch",), ("float32", "bfloat16", "float16"), "napari_tiled_unet.backends.pytorch:TorchBackend"),
    "openvino": Runtime(("openvino",), ("float32", "bfloat16"), "napari_tiled_unet.backends.openvino:OpenvinoBackend"),
    "onnx": Runtime(("onnxruntime", "onnx"), ("float32",), "napari_tiled_unet.backends.onnx:OnnxBackend"),
}


def only_torch(name: str) -> bool:
    """Return whether a run by this name (``auto`` too) can but be torch's."""
    return name == "torch" or (
        name == "auto" and not any(row.available() for key, row in RUNTIMES.items() if key != "torch")
    )


def require_available(name: str, device: torch.device) -> Runtime:
    """Return the runtime of a name.

    Raises
    ------
    OptionsError
        If it is not installed, or does not run on the device.
    """
    runtime = RUNTIMES[name]
    if not runtime.available():
        missing = " and ".join(r for r in runtime.requires if not _installed(r))
        raise OptionsError(
            f"backend {name!r} needs {missing}, not installed here; "
            f"pip install \"napari-tiled-unet[{name}]\", or use backend='auto' or 'torch'"
        )
    if name != "torch" and device.type != "cpu":
        raise OptionsError(f"backend {name!r} runs on the CPU, the device is {device}; use device='cpu' or 'auto'")
    return runtime


def versions(names: tuple[str, ...]) -> dict[str, str]:
    """Return the version of each distribution that is installed."""
    return {name: version(name) for name in names if _installed(name)}


def _installed(name: str) -> bool:
    try:
        version(name)
    except PackageNotFoundError:
        return False
    return True


@dataclass(frozen=True)
class Sides:
    """The sides that a network computes on; without the network, which a backend must not keep alive."""

    stride: tuple[int, ...]
    least: int

    @classmethod
    def of(cls, network: Network) -> Sides:
        """Return those of a network."""
        return cls(network.stride, network.least_strides)

    def __call__(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return what is computed for a tile of ``shape``."""
        return tuple(max(math.ceil(n / s), self.least) * s for n, s in zip(shape, self.stride, strict=True))


def reflected(tiles: Tiles, sides: tuple[int, ...]) -> Tiles:
    """Return tiles extended to ``sides`` by reflection at their far ends."""
    from napari_tiled_unet.networks.resampling import reflected_indices

    for axis, (n, side) in enumerate(zip(tiles.shape[2:], sides, strict=True), start=2):
        if n != side:
            tiles = np.take(tiles, reflected_indices(n, side).numpy(), axis=axis)
    return np.ascontiguousarray(tiles)
