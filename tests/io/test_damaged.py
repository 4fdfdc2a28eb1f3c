"""Damaged files, and those that hold no image, end in an error that names them."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image as Picture

from napari_tiled_unet.errors import FileError, ImageError
from napari_tiled_unet.io import (
    read_image,
    tiff,
)
from tests.io.scenes import PLANE, colours, noise

KINDS: dict[str, dict[str, Any]] = {
    "ome": {"metadata": {"axes": "ZYX"}, "ome": True},
    "ome tiled": {"metadata": {"axes": "ZYX"}, "ome": True, "compression": "zlib", "tile": (32, 32)},
    "imagej": {"metadata": {"axes": "ZYX"}, "imagej": True},
    "plain": {"metadata": None},
    "plain lzw": {"metadata": None, "compression": "lzw"},
    "shaped": {"metadata": {"axes": "ZYX"}},
}


def volume_unless_damaged(path: Path) -> np.ndarray | None:
    try:
        return next(read_image(path, axes="zyx").frames("zyx")).read()[0]
    except FileError as error:
        if path.name not in str(error):
            raise
        return None


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("lazy_bytes", [0, 2**20])
def test_a_truncated_tiff_is_an_error_wherever_it_is_cut(
    tmp_path: Path, kind: str, lazy_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiff, "LAZY_BYTES", lazy_bytes)
    path, data = tmp_path / "cut.tif", noise(5, 40, 50)
    tifffile.imwrite(path, data, photometric="minisblack", **KINDS[kind])
    content = path.read_bytes()
    for left_out in [8, 40, 150, 400, *range(1000, len(content), len(content) // 12), len(content) - 1]:
        path.write_bytes(content[:-left_out])
        volume = volume_unless_damaged(path)
        if left_out >= 1000:
            assert volume is None
        elif volume is not None:
            # Behind the voxels may stand what the image does not need.
            np.testing.assert_array_equal(volume, data)


@pytest.mark.usefixtures("_lazily")
@pytest.mark.parametrize("damage", ["truncated", "overwritten"])
def test_damage_that_shows_up_late_is_an_error_of_that_frame(tmp_path: Path, damage: str) -> None:
    path, data = tmp_path / "late.ome.tif", noise(4, 60, 70)
    tifffile.imwrite(path, data, metadata={"axes": "ZYX"}, compression="zlib")
    content = path.read_bytes()
    frames = list(read_image(path).frames("yx"))
    half = len(content) // 2
    path.write_bytes(content[:half] + (b"" if damage == "truncated" else b"\0" * half))
    np.testing.assert_array_equal(frames[0].read()[0], data[0])
    with pytest.raises(FileError, match=r"frame \(3,\) of 'late.ome.tif' cannot be read: .*; the file may be damaged"):
        frames[3].read()


def test_a_private_tag_that_is_lost_does_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, PLANE, extratags=[(65001, "s", 0, "private" * 5, True)])
    content = path.read_bytes()
    entry = content.index(struct.pack("<HH", 65001, 2))
    path.write_bytes(content[: entry + 8] + struct.pack("<I", 2**30) + content[entry + 12 :])
    np.testing.assert_array_equal(read_image(path).data, PLANE)


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.bmp", "a.npy"])
def test_other_truncated_files_are_refused(tmp_path: Path, name: str) -> None:
    if name == "a.npy":
        np.save(tmp_path / name, PLANE)
    else:
        Picture.fromarray(colours(60, 70)).save(tmp_path / name)
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(FileError, match=rf"{name}.* is damaged or not a \{name[1:]} file .*get it again"):
        read_image(tmp_path / name)


def test_files_of_no_image_are_image_errors(tmp_path: Path) -> None:
    np.save(tmp_path / "c.npy", np.zeros((4, 4), complex))
    with pytest.raises(ImageError, match=r"'c.npy' has data type complex128"):
        read_image(tmp_path / "c.npy")
    np.save(tmp_path / "e.npy", np.zeros((0, 4)))
    with pytest.raises(ImageError, match=r"'e.npy' of shape \(0, 4\) is empty"):
        read_image(tmp_path / "e.npy")
    tifffile.imwrite(tmp_path / "c.tif", np.zeros((4, 4), np.complex64))
    with pytest.raises(ImageError, match=r"'c.tif' has data type complex64"):
        read_image(tmp_path / "c.tif")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (PermissionError(13, "Permission denied"), r"a.npy' cannot be read: Permission denied; check its permissions"),
        (ModuleNotFoundError("no", name="codec"), r"a.npy' needs the package 'codec'; install it with pip"),
        (KeyError("word"), r"a.npy' is damaged or not a .npy file \('word'\)"),
    ],
)
def test_what_libraries_raise_is_a_file_error(
    tmp_path: Path, error: Exception, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    np.save(tmp_path / "a.npy", PLANE)
    monkeypatch.setattr(np, "load", fail)
    with pytest.raises(FileError, match=message):
        read_image(tmp_path / "a.npy")


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="does not exist; check the path"):
        read_image(tmp_path / "no.tif")
    with pytest.raises(FileError, match=r"is a folder"):
        read_image(tmp_path)
    (tmp_path / "a.docx").touch()
    with pytest.raises(FileError, match=r"unknown format; the known ones are .tif, .*convert it to OME-TIFF"):
        read_image(tmp_path / "a.docx")
    for name in ("a.tif", "a.png", "a.npy"):
        (tmp_path / name).write_bytes(b"not an image")
        with pytest.raises(FileError, match=f"{name}.* is damaged or not"):
            read_image(tmp_path / name)
