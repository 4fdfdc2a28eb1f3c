"""Which files of a folder are read, and which may be looked at."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from napari_tiled_unet.errors import FileError
from napari_tiled_unet.io import (
    image_files,
    read_image,
)


def test_folders_are_their_images(tmp_path: Path) -> None:
    for name in ("b.tif", "a.png", ".hidden.tif", "b_labels.ome.tif", "b_maps.ome.tif", "notes.txt"):
        (tmp_path / name).touch()
    (tmp_path / "c.zarr").mkdir()
    (tmp_path / "deeper").mkdir()
    assert [p.name for p in image_files([tmp_path])] == ["a.png", "b.tif", "c.zarr"]
    assert image_files([tmp_path / "no.tif", tmp_path / "c.zarr"]) == [tmp_path / "no.tif", tmp_path / "c.zarr"]


@pytest.mark.parametrize("probe", ["exists", "is_dir"])
def test_what_may_not_be_looked_at_is_a_file_error(tmp_path: Path, probe: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def locked(self: Path, **named: Any) -> bool:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, probe, locked)
    tifffile.imwrite(path := tmp_path / "a.tif", np.zeros((8, 8), np.uint8))
    with pytest.raises(FileError, match=r"a\.tif' cannot be read: Permission denied; check its permissions"):
        read_image(path)


def test_of_a_folder_what_may_not_be_looked_at_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a.tif", "b.tif"):
        tifffile.imwrite(tmp_path / name, np.zeros((8, 8), np.uint8))
    is_file = Path.is_file

    def locked(self: Path) -> bool:
        if self.name == "a.tif":
            raise PermissionError(13, "Permission denied", str(self))
        return is_file(self)

    monkeypatch.setattr(Path, "is_file", locked)
    assert [p.name for p in image_files([tmp_path])] == ["a.tif", "b.tif"]

    def unlisted(self: Path) -> Any:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "iterdir", unlisted)
    assert image_files([tmp_path]) == [tmp_path]
    with pytest.raises(FileError, match="cannot be read: Permission denied"):
        read_image(tmp_path)
