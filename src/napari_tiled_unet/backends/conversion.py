"""A network traced for other runtimes, and where conversions and measurements are kept.

Everything stays on this machine: ``TILED_UNET_CACHE`` in the environment, else the
platform's cache folder, holds conversions (one folder each, the oldest go) and the
calibrations of :mod:`~napari_tiled_unet.backends.choice`. A cache that cannot be written
costs time, never a run.
"""

from __future__ import annotations

import atexit
import copy
import hashlib
import os
import shutil
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from napari_tiled_unet.backends.fusing import fold_norms
from napari_tiled_unet.backends.interface import Prepared, Sides

if TYPE_CHECKING:
    from napari_tiled_unet.networks.zoo import Network

# Each is about as large as the model file.
_KEPT = 16
# The exporters keep what they are at in globals of the process.
_exporting = threading.Lock()


def cache_folder() -> Path:
    """Return the folder of conversions and calibrations; it may not exist."""
    chosen = os.environ.get("TILED_UNET_CACHE")
    if chosen:
        return Path(chosen)
    from platformdirs import user_cache_path

    return user_cache_path("napari-tiled-unet", appauthor=False)


def fingerprint(network: Network, activate: Callable[..., Any]) -> str:
    """Return a digest of the architecture, the weights and the activation."""
    kind = type(getattr(activate, "__self__", activate)).__qualname__
    name = getattr(activate, "__qualname__", "")
    digest = hashlib.blake2b(f"{network.spec.model_dump_json()} {kind} {name}".encode(), digest_size=12)
    for key, value in network.state_dict().items():
        digest.update(key.encode())
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def converted(prepared: Prepared, kind: str, write: Callable[[torch.nn.Module, torch.Tensor, Path], None]) -> Path:
    """Return the folder of a conversion, made now if it is not cached.

    Parameters
    ----------
    prepared : Prepared
        The network.
    kind : str
        Format and version of the runtime; part of the folder's name.
    write : callable
        Takes a network that gives maps, an example of its input and the folder, and
        writes the conversion there.
    """
    folder = cache_folder() / "converted" / f"{kind}-{fingerprint(prepared.network, prepared.activate)}"
    with _exporting:
        if folder.is_dir():
            with suppress(OSError):
                os.utime(folder)
            return folder
        return _convert(prepared, folder, write)


def _convert(prepared: Prepared, folder: Path, write: Callable[[torch.nn.Module, torch.Tensor, Path], None]) -> Path:
    """Make a conversion, and return the folder where it lies, which is another if the cache cannot be written."""
    beside = _scratch(folder)
    network = WithMaps(prepared)
    spec = prepared.network.spec
    # Two tiles of unlike sides, so that no side is taken for a constant or for another.
    sides = Sides.of(prepared.network)(tuple(s * (2 + i) for i, s in enumerate(prepared.network.stride)))
    try:
        write(network, torch.zeros((2, spec.in_channels, *sides)), beside)
    except BaseException:
        forget(beside)
        raise
    try:
        beside.rename(folder)
    except OSError:
        # Another process was first, or the cache cannot be written.
        if not folder.is_dir():
            atexit.register(forget, beside)
            return beside
        forget(beside)
    _forget_oldest(folder.parent)
    return folder


def forget(folder: Path) -> None:
    """Remove a conversion that turned out to be damaged."""
    shutil.rmtree(folder, ignore_errors=True)


def _scratch(folder: Path) -> Path:
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(dir=folder.parent, prefix=".partial-"))
    except OSError:
        return Path(tempfile.mkdtemp(prefix="tiled-unet-"))


def _forget_oldest(parent: Path) -> None:
    with suppress(OSError):
        folders = sorted(parent.iterdir(), key=lambda f: f.stat().st_mtime, reverse=True)
        for folder in folders[_KEPT:]:
            forget(folder)


class WithMaps(nn.Module):
    """A network with its activation behind it, norms folded in; a copy."""

    def __init__(self, prepared: Prepared) -> None:
        super().__init__()
        self._network = copy.deepcopy(prepared.network).eval().requires_grad_(False)
        fold_norms(self._network)
        self._activate = prepared.activate

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the maps."""
        return self._activate(self._network(x))


@contextmanager
def quiet_tracing() -> Iterator[None]:
    """Silence what tracing says about sides that are Python numbers; tiles are padded before."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
