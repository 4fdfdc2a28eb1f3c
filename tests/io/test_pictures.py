"""PNG, JPEG and the like, and NumPy files in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Picture

from napari_tiled_unet.errors import FileError, ImageError
from napari_tiled_unet.io import (
    read_image,
)
from tests.io.scenes import PLANE, colours, noise


def test_png_and_npy(tmp_path: Path) -> None:
    grey = PLANE.astype(np.uint8)
    Picture.fromarray(grey).save(tmp_path / "g.png")
    np.testing.assert_array_equal(read_image(tmp_path / "g.png").data, grey)
    Picture.fromarray(noise(20, 30, 3).astype(np.uint8)).save(tmp_path / "c.png")
    image = read_image(tmp_path / "c.png")
    assert (image.axes, image.is_rgb) == ("yxc", True)
    Picture.fromarray(grey).convert("P").save(tmp_path / "p.png")
    assert read_image(tmp_path / "p.png").is_rgb
    np.save(tmp_path / "n.npy", noise(3, 20, 30))
    assert read_image(tmp_path / "n.npy", axes="tyx").axes == "tyx"
    with pytest.raises(ImageError, match="ambiguous"):
        read_image(tmp_path / "n.npy")


@pytest.mark.parametrize(
    ("mode", "suffix", "axes", "dtype", "rgb"),
    [
        ("1", "png", "yx", "bool", False),
        ("L", "bmp", "yx", "uint8", False),
        ("L", "jpg", "yx", "uint8", False),
        ("I;16", "png", "yx", "uint16", False),
        ("LA", "png", "yx", "uint8", False),
        ("RGB", "bmp", "yxc", "uint8", True),
        ("RGBA", "png", "yxc", "uint8", True),
        ("P", "png", "yxc", "uint8", True),
        ("CMYK", "jpg", "yxc", "uint8", True),
    ],
)
def test_pictures_of_every_kind(tmp_path: Path, mode: str, suffix: str, axes: str, dtype: str, rgb: bool) -> None:
    Picture.fromarray(colours(20, 30)).convert(mode).save(tmp_path / f"a.{suffix}")
    image = read_image(tmp_path / f"a.{suffix}")
    assert (image.axes, image.data.dtype, image.is_rgb) == (axes, np.dtype(dtype), rgb)
    assert image.shape[:2] == (20, 30)


def test_of_an_animated_picture_the_first_is_read(tmp_path: Path) -> None:
    first = colours(20, 30)
    more = [Picture.fromarray(colours(20, 30))]
    Picture.fromarray(first).save(tmp_path / "a.png", save_all=True, append_images=more)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png").data, first)


def test_large_pictures_are_no_attack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Picture, "MAX_IMAGE_PIXELS", 100)
    Picture.fromarray(colours(20, 30)).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png").shape == (20, 30)
    assert Picture.MAX_IMAGE_PIXELS == 100


def test_an_npy_of_objects_is_never_unpickled(tmp_path: Path) -> None:
    np.save(tmp_path / "o.npy", np.array([[{}]], object), allow_pickle=True)
    with pytest.raises(FileError, match=r"o.npy.* is damaged or not a .npy file"):
        read_image(tmp_path / "o.npy")


@pytest.mark.parametrize(("channels", "axes"), [(2, "yx"), (3, "yxc"), (4, "yxc")])
def test_pngs_of_16_bits_keep_them(tmp_path: Path, channels: int, axes: str) -> None:
    import imagecodecs

    values = np.random.default_rng(0).integers(0, 2**16, (24, 20, channels), np.uint16)
    path = tmp_path / "deep.png"
    path.write_bytes(imagecodecs.png_encode(values))
    image = read_image(path)
    assert (image.axes, image.is_rgb) == (axes, channels > 2)
    np.testing.assert_array_equal(image.data, values if channels > 2 else values[..., 0])
