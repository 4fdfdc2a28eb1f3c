"""What every test may use: a small model that is right by construction."""

from __future__ import annotations

import os

if "PYTEST_XDIST_WORKER" in os.environ:
    # Read as torch is imported: workers share the cores, and threads that wait actively would take them all.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.models import blob_model


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the models ``blobs`` (2D) and ``blobs-3d``."""
    from napari_tiled_unet.model_files import save_model

    folder = tmp_path_factory.mktemp("models")
    for name, ndim in (("blobs", 2), ("blobs-3d", 3)):
        save_model(blob_model(ndim=ndim, name=name), folder / f"{name}.safetensors")
    return folder


@pytest.fixture(autouse=True)
def user_models(model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make those models the user's."""
    monkeypatch.setenv("TILED_UNET_MODELS", str(model_folder))
    return model_folder


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep conversions and calibrations of the tests to the tests, one folder for the session."""
    folder = tmp_path_factory.getbasetemp() / "cache"
    monkeypatch.setenv("TILED_UNET_CACHE", str(folder))
    return folder


@pytest.fixture
def rng() -> np.random.Generator:
    """Return a seeded generator."""
    return np.random.default_rng(7)


@pytest.fixture
def two_threads() -> Iterator[None]:
    """Let torch, and the backends that ask it, compute in two threads."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)
