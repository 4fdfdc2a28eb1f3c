"""What the tests of files share."""

from __future__ import annotations

import pytest

from napari_tiled_unet.io import read, tiff


@pytest.fixture
def _lazily(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take every image for a large one."""
    monkeypatch.setattr(tiff, "LAZY_BYTES", 0)
    monkeypatch.setattr(read, "LAZY_BYTES", 0)
