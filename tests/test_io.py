"""Files in and out: axes, sizes, provenance, and what happens to bad ones."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pytest
import tifffile
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image as Picture

from napari_tiled_unet.errors import FileError, ImageError
from napari_tiled_unet.io import (
    image_files,
    read,
    read_description,
    read_image,
    require_writable,
    smallest_label_dtype,
    tiff,
    write,
    write_labels,
    write_maps,
    write_png,
)

RNG = np.random.default_rng(0)
PLANE = RNG.integers(0, 1000, (20, 30)).astype(np.uint16)


def noise(*shape: int) -> np.ndarray:
    return RNG.integers(0, 1000, shape).astype(np.uint16)


def colours(*shape: int) -> np.ndarray:
    return RNG.integers(0, 255, shape).astype(np.uint8)


@pytest.fixture
def _lazily(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take every image for a large one."""
    monkeypatch.setattr(tiff, "LAZY_BYTES", 0)
    monkeypatch.setattr(read, "LAZY_BYTES", 0)


# ---------------------------------------------------------------------------- TIFF


@pytest.mark.parametrize("axes", ["YX", "ZYX", "TYX", "CYX", "TZYX", "ZCYX", "TZCYX", "TCZYX"])
def test_ome_tiff_tells_axes_and_sizes(tmp_path: Path, axes: str) -> None:
    data = noise(*range(2, len(axes)), 20, 30)
    sizes = {"PhysicalSizeX": 250.0, "PhysicalSizeXUnit": "nm", "PhysicalSizeY": 0.5, "PhysicalSizeZ": 2.0}
    tifffile.imwrite(tmp_path / "a.ome.tif", data, metadata={"axes": axes, **sizes})
    image = read_image(tmp_path / "a.ome.tif")
    assert image.axes == axes.lower()
    np.testing.assert_array_equal(np.asarray(image.data), data)
    assert image.spacing == tuple({"z": 2.0, "y": 0.5, "x": 0.25}[a] for a in axes.lower() if a in "zyx")
    assert image.units == "micrometer"


def test_ome_tiff_without_sizes_has_none(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.ome.tif", PLANE, metadata={"axes": "YX"})
    assert read_image(tmp_path / "a.ome.tif").spacing is None


@pytest.mark.parametrize("axes", ["YX", "ZYX", "TYX", "CYX", "TZCYX"])
def test_imagej_tiff_tells_axes_and_sizes(tmp_path: Path, axes: str) -> None:
    data = noise(*range(2, len(axes)), 20, 30)
    tifffile.imwrite(
        tmp_path / "a.tif",
        data,
        imagej=True,
        resolution=(4.0, 2.0),
        metadata={"axes": axes, "spacing": 2.0, "unit": "um"},
    )
    image = read_image(tmp_path / "a.tif")
    assert image.axes == axes.lower()
    assert image.spacing == tuple({"z": 2.0, "y": 0.5, "x": 0.25}[a] for a in axes.lower() if a in "zyx")


def test_imagej_tiff_in_pixels_has_no_sizes(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", PLANE, imagej=True, resolution=(1.0, 1.0), metadata={"unit": "pixel"})
    assert read_image(tmp_path / "a.tif").spacing is None


def test_a_plain_page_is_yx_and_pages_are_ambiguous(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "page.tif", PLANE, metadata=None)
    assert read_image(tmp_path / "page.tif").axes == "yx"
    tifffile.imwrite(tmp_path / "pages.tif", noise(5, 20, 30), metadata=None)
    with pytest.raises(
        ImageError,
        match=r"what the axis of 5 voxels is: say .* 'zyx' \(z-stack\), 'tyx' \(time series\), 'cyx' \(channels\)$",
    ):
        read_image(tmp_path / "pages.tif")
    assert read_image(tmp_path / "pages.tif", axes="zyx").axes == "zyx"
    with pytest.raises(ImageError, match="axes 'tzyx' name 4 axes"):
        read_image(tmp_path / "pages.tif", axes="tzyx")


def test_rgb_tiff_is_rgb_and_three_channels_are_not(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "rgb.tif", noise(20, 30, 3).astype(np.uint8), photometric="rgb")
    image = read_image(tmp_path / "rgb.tif")
    assert (image.axes, image.is_rgb) == ("yxc", True)
    tifffile.imwrite(tmp_path / "c.ome.tif", noise(3, 20, 30), metadata={"axes": "CYX"}, photometric="minisblack")
    image = read_image(tmp_path / "c.ome.tif")
    assert (image.axes, image.is_rgb) == ("cyx", False)


@pytest.mark.parametrize(
    ("shape", "options", "axes"),
    [
        ((20, 30, 4), {"extrasamples": ["unassalpha"]}, "yxc"),
        ((3, 20, 30), {"planarconfig": "separate"}, "cyx"),
        ((20, 30, 3), {"ome": True, "metadata": {"axes": "YXS"}}, "yxc"),
        ((5, 20, 30, 3), {"ome": True, "metadata": {"axes": "ZYXS"}}, "zyxc"),
        ((5, 20, 30, 3), {"imagej": True, "metadata": {"axes": "TYXS"}}, "tyxc"),
        # Stored as luma and chroma.
        ((32, 32, 3), {"compression": "jpeg"}, "yxc"),
    ],
)
def test_every_kind_of_rgb_tiff_is_rgb(
    tmp_path: Path, shape: tuple[int, ...], options: dict[str, Any], axes: str
) -> None:
    data = np.full(shape, 200, np.uint8)
    tifffile.imwrite(tmp_path / "rgb.tif", data, photometric="rgb", **options)
    image = read_image(tmp_path / "rgb.tif")
    assert (image.axes, image.is_rgb) == (axes, True)
    np.testing.assert_allclose(image.data, data, atol=2)


def test_the_stack_of_rgb_pages_is_ambiguous(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "rgb.tif", colours(5, 20, 30, 3), photometric="rgb")
    with pytest.raises(ImageError, match=r"for example 'zyxc' \(z-stack\), 'tyxc' \(time series\)$"):
        read_image(tmp_path / "rgb.tif")
    image = read_image(tmp_path / "rgb.tif", axes="tyxc")
    assert image.is_rgb


def test_samples_without_a_meaning_are_channels_and_no_colours(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", colours(20, 30, 3), photometric="minisblack", planarconfig="contig")
    image = read_image(tmp_path / "a.tif")
    assert (image.axes, image.is_rgb) == ("yxc", False)


def test_axes_of_one_voxel_are_dropped(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", noise(5, 1, 1, 20, 30), metadata={"axes": "ZCQYX"})
    image = read_image(tmp_path / "a.tif")
    assert (image.axes, image.shape) == ("zyx", (5, 20, 30))


@pytest.mark.usefixtures("_lazily")
def test_axes_of_one_voxel_are_dropped_without_reading(tmp_path: Path) -> None:
    data = noise(5, 1, 1, 20, 30)
    tifffile.imwrite(tmp_path / "a.tif", data, metadata={"axes": "ZCQYX"}, compression="zlib")
    image = read_image(tmp_path / "a.tif")
    assert (image.axes, type(image.data)) == ("zyx", zarr.Array)
    np.testing.assert_array_equal(next(image.frames("zyx")).read(), data[:, 0, 0][None])


@pytest.mark.parametrize(
    ("photometric", "note"),
    [("palette", "holds the numbers of palette colours"), ("miniswhite", "says that 0 is white")],
)
def test_unusual_intensities_are_said(tmp_path: Path, photometric: str, note: str) -> None:
    colormap = np.zeros((3, 256), np.uint16) if photometric == "palette" else None
    tifffile.imwrite(tmp_path / "a.tif", colours(20, 30), photometric=photometric, colormap=colormap)
    assert [note in said for said in read_image(tmp_path / "a.tif").notes] == [True]


def test_masks_are_read_as_they_are(tmp_path: Path) -> None:
    mask = colours(20, 30) > 100
    tifffile.imwrite(tmp_path / "a.tif", mask)
    image = read_image(tmp_path / "a.tif")
    assert image.notes == ()
    np.testing.assert_array_equal(next(image.frames("yx")).read()[0], mask.astype(np.uint8))


@pytest.mark.parametrize("lazy_bytes", [0, 2**20])
def test_of_a_pyramid_the_full_resolution_is_read(
    tmp_path: Path, lazy_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiff, "LAZY_BYTES", lazy_bytes)
    with tifffile.TiffWriter(tmp_path / "a.ome.tif") as file:
        file.write(PLANE, subifds=1, metadata={"axes": "YX"}, compression="zlib")
        file.write(PLANE[::2, ::2], subfiletype=1, compression="zlib")
    image = read_image(tmp_path / "a.ome.tif")
    np.testing.assert_array_equal(next(image.frames("yx")).read()[0], PLANE)
    assert image.notes == ("a.ome.tif holds 2 resolutions, the full one is taken",)


def test_planes_that_were_never_written_are_said(tmp_path: Path) -> None:
    planes = "".join(f'<TiffData FirstZ="{z}" IFD="{z}" PlaneCount="1"/>' for z in range(2))
    ome = (
        '<?xml version="1.0" encoding="UTF-8"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">'
        '<Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint16" '
        f'SizeX="30" SizeY="20" SizeZ="3" SizeC="1" SizeT="1">{planes}</Pixels></Image></OME>'
    )
    with tifffile.TiffWriter(tmp_path / "a.ome.tif") as file:
        for page, description in ((PLANE, ome), (PLANE + 1, None)):
            file.write(page, description=description, metadata=None, contiguous=False)
    image = read_image(tmp_path / "a.ome.tif")
    assert image.shape == (3, 20, 30)
    assert image.notes == ("a.ome.tif: 1 of 3 planes are not in the file and taken as 0",)


def test_an_imagej_stack_without_a_distance_has_its_default(tmp_path: Path) -> None:
    tifffile.imwrite(
        tmp_path / "a.tif", noise(3, 20, 30), imagej=True, resolution=(2, 2), metadata={"axes": "ZYX", "unit": "micron"}
    )
    image = read_image(tmp_path / "a.tif")
    assert image.spacing == (1.0, 0.5, 0.5)
    assert image.notes == ("a.tif: the distance of its slices is not stated, which in an ImageJ file means 1 micron",)


@pytest.mark.parametrize(
    ("unit", "spacing"),
    [
        ("nm", (0.002, 0.0005)),
        ("mm", (2000, 500)),
        ("\\u00B5m", (2, 0.5)),
        ("micron", (2, 0.5)),
        ("inch", (50800, 12700)),
    ],
)
def test_imagej_units(tmp_path: Path, unit: str, spacing: tuple[float, float]) -> None:
    metadata = {"axes": "ZYX", "spacing": -2.0, "unit": unit}
    tifffile.imwrite(tmp_path / "a.tif", noise(3, 20, 30), imagej=True, resolution=(2, 2), metadata=metadata)
    assert read_image(tmp_path / "a.tif").spacing == pytest.approx((spacing[0], spacing[1], spacing[1]))


@pytest.mark.parametrize("unit", ["pixel", "", "reference frame"])
def test_units_that_are_no_length_are_no_spacing(tmp_path: Path, unit: str) -> None:
    sizes = {f"PhysicalSize{a}{more}": value for a in "XY" for more, value in (("", 0.5), ("Unit", unit))}
    tifffile.imwrite(tmp_path / "a.ome.tif", PLANE, metadata={"axes": "YX", **sizes})
    image = read_image(tmp_path / "a.ome.tif")
    assert (image.spacing, image.units) == (None, "pixel")


def test_own_axes_keep_the_sizes_of_the_file(tmp_path: Path) -> None:
    metadata = {"axes": "ZYX", "PhysicalSizeX": 0.25, "PhysicalSizeY": 0.5, "PhysicalSizeZ": 2.0}
    tifffile.imwrite(tmp_path / "a.ome.tif", noise(3, 20, 30), metadata=metadata)
    assert read_image(tmp_path / "a.ome.tif", axes="tyx").spacing == (0.5, 0.25)
    turned = read_image(tmp_path / "a.ome.tif", axes="xyz")
    assert turned.spacing == (2.0, 0.5, 0.25)
    assert turned.spacing_of("zyx") == (0.25, 0.5, 2.0)


def test_several_images_in_a_file_are_said(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "a.ome.tif") as file:
        file.write(PLANE, metadata={"axes": "YX"})
        file.write(noise(7, 9), metadata={"axes": "YX"})
    image = read_image(tmp_path / "a.ome.tif")
    assert image.shape == PLANE.shape
    assert image.notes == ("a.ome.tif holds 2 images, the first is taken",)


@pytest.mark.parametrize("compression", [None, "zlib", "lzw"])
def test_large_tiffs_stay_on_disk(tmp_path: Path, compression: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiff, "LAZY_BYTES", 1000)
    data = noise(4, 20, 30)
    tifffile.imwrite(tmp_path / "a.ome.tif", data, metadata={"axes": "ZYX"}, compression=compression)
    image = read_image(tmp_path / "a.ome.tif")
    assert isinstance(image.data, np.memmap if compression is None else zarr.Array)
    for z, frame in enumerate(image.frames("yx")):
        np.testing.assert_array_equal(frame.read()[0], data[z])


@pytest.mark.usefixtures("_lazily")
def test_large_files_of_other_byte_order_and_format_stay_on_disk(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", PLANE, byteorder=">")
    np.save(tmp_path / "a.npy", PLANE)
    for name in ("a.tif", "a.npy"):
        image = read_image(tmp_path / name)
        assert isinstance(image.data, np.memmap)
        frame = next(image.frames("yx")).read()
        assert frame.dtype == np.dtype("=u2")
        np.testing.assert_array_equal(frame[0], PLANE)


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


# ---------------------------------------------------------------------------- other formats


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


def test_an_npy_of_objects_is_never_unpickled(tmp_path: Path) -> None:
    np.save(tmp_path / "o.npy", np.array([[{}]], object), allow_pickle=True)
    with pytest.raises(FileError, match=r"o.npy.* is damaged or not a .npy file"):
        read_image(tmp_path / "o.npy")


def ome_zarr(path: Path, version: str, data: np.ndarray, **multiscale: Any) -> zarr.Group:
    """Write an OME-Zarr with two levels."""
    group = zarr.open_group(path, mode="w", zarr_format=3 if version == "0.5" else 2)
    for name, level in (("0", data), ("1", data[..., ::2, ::2])):
        array = group.create_array(
            name, shape=level.shape, dtype=level.dtype, chunks=(*(1,) * (data.ndim - 2), 10, 10), fill_value=0
        )
        array[:] = level
    multiscales = [{"datasets": [{"path": "0"}, {"path": "1"}], **multiscale}]
    group.attrs.update({"ome": {"multiscales": multiscales}} if version == "0.5" else {"multiscales": multiscales})
    return group


def scaled(*scale: float) -> list[dict[str, Any]]:
    return [{"type": "scale", "scale": list(scale)}]


SPACE = [{"name": a, "type": "space", "unit": "nanometer"} for a in "zyx"]


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_ome_zarr(tmp_path: Path, version: str) -> None:
    data = noise(2, 3, 20, 30)
    ome_zarr(
        tmp_path / "a.ome.zarr",
        version,
        data,
        axes=[{"name": "c", "type": "channel"}, *SPACE],
        datasets=[
            {"path": "0", "coordinateTransformations": [*scaled(1, 1000, 500, 250), {"type": "translation"}]},
            {"path": "1", "coordinateTransformations": scaled(1, 1000, 1000, 500)},
        ],
        coordinateTransformations=scaled(1, 2, 1, 1),
    )
    image = read_image(tmp_path / "a.ome.zarr")
    assert image.axes == "czyx"
    assert image.shape == data.shape
    assert image.spacing == (2.0, 0.5, 0.25)
    assert image.units == "micrometer"
    assert isinstance(image.data, zarr.Array)
    np.testing.assert_array_equal(next(image.frames("zyx")).read(), data)
    half = read_image(tmp_path / "a.ome.zarr", level=1)
    assert (half.level, half.shape, half.spacing) == (1, (2, 3, 10, 15), (2.0, 1.0, 0.5))
    with pytest.raises(ImageError, match=r"level=2: 'a.ome.zarr' has 2 resolutions, 0 to 1; take one of those"):
        read_image(tmp_path / "a.ome.zarr", level=2)


def test_the_axes_of_old_ome_zarr(tmp_path: Path) -> None:
    ome_zarr(tmp_path / "3.zarr", "0.3", noise(3, 20, 30), axes=["t", "y", "x"])
    assert read_image(tmp_path / "3.zarr").axes == "tyx"
    ome_zarr(tmp_path / "1.zarr", "0.1", noise(1, 2, 3, 20, 30))
    image = read_image(tmp_path / "1.zarr")
    assert (image.axes, image.spacing) == ("tczyx", None)
    ome_zarr(tmp_path / "bad.zarr", "0.1", noise(3, 20, 30))
    with pytest.raises(FileError, match=r"bad.zarr' is damaged: its metadata name 5 axes, the array has shape"):
        read_image(tmp_path / "bad.zarr")


def test_axes_of_ome_zarr_by_their_type(tmp_path: Path) -> None:
    axes = [{"name": "frame", "type": "time"}, {"name": "stain", "type": "channel"}, *SPACE[1:]]
    ome_zarr(tmp_path / "a.zarr", "0.5", noise(2, 3, 20, 30), axes=axes)
    assert read_image(tmp_path / "a.zarr").axes == "tcyx"


def test_unknown_axes_of_ome_zarr_are_not_guessed(tmp_path: Path) -> None:
    axes = [{"name": "angle"}, {"name": "phase"}, *SPACE[1:]]
    ome_zarr(tmp_path / "a.zarr", "0.5", noise(2, 3, 20, 30), axes=axes)
    with pytest.raises(ImageError, match=r"the axes of 2 and 3 voxels are: say with axes, for example 'ztyx', 'zcyx'"):
        read_image(tmp_path / "a.zarr")
    assert read_image(tmp_path / "a.zarr", axes="ctyx").axes == "ctyx"
    ome_zarr(tmp_path / "b.zarr", "0.5", noise(2, 3), axes=[{"name": "row"}, {"name": "column"}])
    with pytest.raises(ImageError, match=r"the axes that its metadata name are no image's \('\?\?'\); say with axes"):
        read_image(tmp_path / "b.zarr")


def test_the_first_image_of_a_converted_file_is_read(tmp_path: Path) -> None:
    data = noise(20, 30)
    root = zarr.open_group(tmp_path / "a.zarr", mode="w", attributes={"ome": {"bioformats2raw.layout": 3}})
    ome_zarr(tmp_path / "a.zarr" / "0", "0.5", data, axes=SPACE[1:])
    assert read_image(tmp_path / "a.zarr").notes == ()
    root.create_group("1")
    image = read_image(tmp_path / "a.zarr")
    np.testing.assert_array_equal(next(image.frames("yx")).read()[0], data)
    assert image.notes == ("a.zarr: the first image of the file is taken",)


@pytest.mark.parametrize("kind", ["plate", "well"])
def test_plates_are_no_images(tmp_path: Path, kind: str) -> None:
    zarr.open_group(tmp_path / "a.zarr", mode="w", attributes={"ome": {kind: {}}})
    with pytest.raises(FileError, match="is a plate or a well, not an image; give the path of a field in it"):
        read_image(tmp_path / "a.zarr")


def test_an_array_in_a_zarr_is_read_by_its_path(tmp_path: Path) -> None:
    group = ome_zarr(tmp_path / "a.zarr", "0.5", noise(3, 20, 30), axes=SPACE)
    assert read_image(tmp_path / "a.zarr" / "1", axes="tyx").shape == (3, 10, 15)
    group.create_array("named", shape=(4, 5, 6), dtype="u1", dimension_names=["t", "y", "x"])
    assert read_image(tmp_path / "a.zarr" / "named").axes == "tyx"
    assert image_files([tmp_path / "a.zarr" / "named"]) == [tmp_path / "a.zarr" / "named"]


def test_a_damaged_chunk_is_an_error_of_its_frame(tmp_path: Path) -> None:
    ome_zarr(tmp_path / "a.zarr", "0.5", noise(3, 20, 30), axes=SPACE)
    chunk = tmp_path / "a.zarr" / "0" / "c" / "2" / "0" / "0"
    chunk.write_bytes(chunk.read_bytes()[:9])
    frames = list(read_image(tmp_path / "a.zarr").frames("yx"))
    assert frames[1].read().shape == (1, 20, 30)
    with pytest.raises(FileError, match=r"frame \(2,\) of 'a.zarr' cannot be read"):
        frames[2].read()
    (tmp_path / "a.zarr" / "zarr.json").write_text("{")
    with pytest.raises(FileError, match=r"a.zarr' is damaged or not a .zarr file"):
        read_image(tmp_path / "a.zarr")


def test_a_bare_zarr_array_needs_axes(tmp_path: Path) -> None:
    array = zarr.create_array(tmp_path / "a.zarr", shape=(3, 4, 5), dtype="u2")
    array[:] = 1
    assert read_image(tmp_path / "a.zarr", axes="zyx").axes == "zyx"
    with pytest.raises(ImageError, match="ambiguous"):
        read_image(tmp_path / "a.zarr")
    zarr.open_group(tmp_path / "g.zarr", mode="w")
    with pytest.raises(FileError, match="without OME 'multiscales'; give the path of an array in it"):
        read_image(tmp_path / "g.zarr")


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


def test_folders_are_their_images(tmp_path: Path) -> None:
    for name in ("b.tif", "a.png", ".hidden.tif", "b_labels.ome.tif", "b_maps.ome.tif", "notes.txt"):
        (tmp_path / name).touch()
    (tmp_path / "c.zarr").mkdir()
    (tmp_path / "deeper").mkdir()
    assert [p.name for p in image_files([tmp_path])] == ["a.png", "b.tif", "c.zarr"]
    assert image_files([tmp_path / "no.tif", tmp_path / "c.zarr"]) == [tmp_path / "no.tif", tmp_path / "c.zarr"]


# ---------------------------------------------------------------------------- writing


@pytest.mark.parametrize("axes", ["yx", "zyx", "tyx", "tzyx"])
@pytest.mark.parametrize(("maximum", "dtype"), [(0, np.uint8), (255, np.uint8), (256, np.uint16), (65536, np.uint32)])
def test_labels_survive_their_file(tmp_path: Path, axes: str, maximum: int, dtype: type) -> None:
    labels = np.zeros([{"t": 2, "z": 3, "y": 20, "x": 30}[a] for a in axes], np.uint32)
    labels[..., 4, 5] = maximum
    spacing = tuple({"z": 2.0, "y": 0.5, "x": 0.25}[a] for a in axes if a in "zyx")
    write_labels(tmp_path / "l.ome.tif", labels, axes, spacing, description={"model": "nuclei", "n": 3, "µ": "<&>"})
    image = read_image(tmp_path / "l.ome.tif")
    assert image.axes == axes
    assert image.data.dtype == dtype == smallest_label_dtype(maximum)
    np.testing.assert_array_equal(image.data, labels)
    assert image.spacing == spacing
    assert read_description(tmp_path / "l.ome.tif") == {"model": "nuclei", "n": 3, "µ": "<&>"}
    with tifffile.TiffFile(tmp_path / "l.ome.tif") as file:
        assert file.is_ome
        assert file.pages[0].compression == tifffile.COMPRESSION.ADOBE_DEFLATE


SIZES = {"t": 2, "c": 4, "z": 3, "y": 20, "x": 30}
ORDERS = st.sets(st.sampled_from("tcz")).flatmap(lambda more: st.permutations(sorted({*more, "y", "x"}))).map("".join)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(axes=ORDERS, size=st.floats(1e-3, 1e3), dtype=st.sampled_from(["u1", "i4", ">u2", "?", "u8"]))
def test_labels_of_any_order_come_back_in_one(tmp_path: Path, axes: str, size: float, dtype: str) -> None:
    labels = RNG.integers(0, 200, [SIZES[a] for a in axes]).astype(dtype)
    spatial = [a for a in axes if a in "zyx"]
    spacing = {a: size * (1 + i) for i, a in enumerate(spatial)}
    write_labels(tmp_path / "l.ome.tif", labels, axes, tuple(spacing.values()), overwrite=True)
    image = read_image(tmp_path / "l.ome.tif")
    assert image.axes == "".join(a for a in "tzcyx" if a in axes)
    np.testing.assert_array_equal(image.data, labels.transpose([axes.index(a) for a in image.axes]))
    assert image.spacing == pytest.approx(tuple(spacing[a] for a in image.spatial_axes))


@pytest.mark.parametrize(("units", "expected"), [("nm", (0.5, 0.25)), ("mm", (5e5, 2.5e5)), ("pixel", None)])
def test_sizes_are_written_in_micrometres(tmp_path: Path, units: str, expected: tuple[float, ...] | None) -> None:
    write_labels(tmp_path / "l.ome.tif", PLANE, "yx", (500, 250), units)
    spacing = read_image(tmp_path / "l.ome.tif").spacing
    assert spacing == (None if expected is None else pytest.approx(expected))


def test_the_description_is_an_element_of_the_image(tmp_path: Path) -> None:
    provenance = {"model": "nuclei", "text": ']]> & "µ" \x01 </Image>', "n": [1, 2.5, None]}
    write_labels(tmp_path / "l.ome.tif", noise(3, 20, 30), "zyx", (2, 0.5, 0.25), description=provenance)
    with tifffile.TiffFile(tmp_path / "l.ome.tif") as file:
        assert file.ome_metadata is not None
        root = ET.fromstring(file.ome_metadata)
    schema = "{http://www.openmicroscopy.org/Schemas/OME/2016-06}"
    (image,) = root.findall(f"{schema}Image")
    described = image.find(f"{schema}Description")
    assert described is not None
    assert json.loads(described.text or "") == provenance == read_description(tmp_path / "l.ome.tif")
    pixels = image.find(f"{schema}Pixels")
    assert pixels is not None
    assert {a: pixels.get(f"PhysicalSize{a}Unit") for a in "XYZ"} == dict.fromkeys("XYZ", "µm")
    # The order that the schema wants.
    assert list(image).index(described) < list(image).index(pixels)


def test_files_above_four_gigabytes_are_bigtiff(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert 4e9 < write._BIGTIFF_BYTES < 2**32
    for limit, big in ((PLANE.nbytes, False), (PLANE.nbytes - 1, True)):
        monkeypatch.setattr(write, "_BIGTIFF_BYTES", limit)
        write_labels(tmp_path / "l.ome.tif", PLANE + 1000, "yx", overwrite=True)
        with tifffile.TiffFile(tmp_path / "l.ome.tif") as file:
            assert file.is_bigtiff is big
            assert file.pages[0].is_tiled


@pytest.mark.parametrize(
    ("labels", "axes", "spacing", "message"),
    [
        (np.full((4, 4), 0.7), "yx", None, "labels are of type float64, a label is a whole number; convert"),
        (np.full((4, 4), -1), "yx", None, "the lowest label is -1, labels count from 0"),
        (np.full((4, 4), 2**40), "yx", None, "label 1099511627776 is above 4294967295, the highest that fits"),
        (np.zeros((4, 4), int), "zyx", None, r"axes 'zyx' do not suit an array of shape \(4, 4\); give"),
        (np.zeros((4, 4), int), "yq", None, "axes 'yq' do not suit"),
        (np.zeros((4, 4), int), "zx", None, "axes 'zx' do not suit"),
        (np.zeros((4, 4, 4), int), "yyx", None, "axes 'yyx' do not suit"),
        (np.zeros((0, 4), int), "yx", None, "at least one voxel along each"),
        (np.zeros((4, 4), int), "yx", (1.0,) * 3, r"spacing \(1.0, 1.0, 1.0\) must be .* \(yx\); give 2, or None"),
        (np.zeros((4, 4), int), "yx", (1.0, float("nan")), r"spacing \(1.0, nan\) must be one positive number"),
    ],
)
def test_what_is_no_label_image_is_not_written(
    tmp_path: Path, labels: np.ndarray, axes: str, spacing: tuple[float, ...] | None, message: str
) -> None:
    with pytest.raises(ImageError, match=message):
        write_labels(tmp_path / "l.ome.tif", labels, axes, spacing)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("names", [("one",), ("one", "two", "three")])
def test_every_map_has_a_name(tmp_path: Path, names: tuple[str, ...]) -> None:
    with pytest.raises(ImageError, match=rf"^{len(names)} channel names .*; give one for each voxel of the axis 'c'"):
        write_maps(tmp_path / "m.ome.tif", np.zeros((2, 4, 4), np.float32), "cyx", names)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["l.png", "l", "l.tif.gz"])
def test_labels_are_tiff(tmp_path: Path, name: str) -> None:
    with pytest.raises(FileError, match=r"is to be an OME-TIFF; end its name in .ome.tif"):
        write_labels(tmp_path / name, PLANE, "yx")
    assert list(tmp_path.iterdir()) == []


def test_names_may_be_as_long_as_the_disk_takes(tmp_path: Path) -> None:
    path = tmp_path / ("l" * 247 + ".ome.tif")
    write_labels(path, PLANE, "yx")
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "l.ome.tif").mkdir()
    with pytest.raises(FileError, match=r"l.ome.tif' cannot be written: .*directory; choose another folder"):
        write_labels(tmp_path / "l.ome.tif", PLANE, "yx", overwrite=True)
    assert [p.name for p in tmp_path.iterdir()] == ["l.ome.tif"]


def test_maps_survive_their_file(tmp_path: Path) -> None:
    maps = RNG.random((2, 3, 20, 30)).astype(np.float32)
    write_maps(tmp_path / "m.ome.tif", maps, "czyx", ("foreground", "centre"), (2.0, 0.5, 0.25))
    image = read_image(tmp_path / "m.ome.tif")
    assert image.axes == "zcyx"
    np.testing.assert_array_equal(next(image.frames("zyx")).read(), maps)
    with tifffile.TiffFile(tmp_path / "m.ome.tif") as file:
        assert file.ome_metadata is not None
        assert "centre" in file.ome_metadata


def test_nothing_is_replaced_by_accident(tmp_path: Path) -> None:
    path = tmp_path / "l.ome.tif"
    write_labels(path, PLANE, "yx")
    with pytest.raises(FileError, match="exists; choose another name or allow overwriting"):
        write_labels(path, PLANE, "yx")
    write_labels(path, PLANE[:5], "yx", overwrite=True)
    assert read_image(path).shape == (5, 30)


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, error: type | Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "l.ome.tif"
    write_labels(path, PLANE, "yx")

    def half(file: Path, *_: object, **__: object) -> None:
        Path(file).write_bytes(b"half")
        raise error

    monkeypatch.setattr(tifffile, "imwrite", half)
    with pytest.raises((KeyboardInterrupt, FileError)):
        write_labels(path, PLANE[:5], "yx", overwrite=True)
    assert [p.name for p in tmp_path.iterdir()] == ["l.ome.tif"]
    assert read_image(path).shape == PLANE.shape


def test_folders_are_made_or_refused_before_the_work(tmp_path: Path) -> None:
    require_writable(tmp_path / "new" / "deep")
    assert (tmp_path / "new" / "deep").is_dir()
    assert list((tmp_path / "new" / "deep").iterdir()) == []
    (tmp_path / "file").touch()
    with pytest.raises(FileError, match=r"cannot be written to: .*choose another one"):
        require_writable(tmp_path / "file" / "sub")
    with pytest.raises(FileError, match="cannot be written"):
        write_labels(tmp_path / "file" / "l.ome.tif", PLANE, "yx")


def test_descriptions_of_other_files(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "plain.tif", PLANE)
    with pytest.raises(FileError, match="is not an OME-TIFF"):
        read_description(tmp_path / "plain.tif")
    tifffile.imwrite(tmp_path / "a.ome.tif", PLANE, metadata={"axes": "YX", "Description": "free text"})
    assert read_description(tmp_path / "a.ome.tif") == {}
    (tmp_path / "no.tif").write_bytes(b"no")
    with pytest.raises(FileError, match="cannot be read"):
        read_description(tmp_path / "no.tif")


@pytest.mark.parametrize("text", ["7", "true", "[1]", "{broken"])
def test_descriptions_that_are_not_ours_are_empty(tmp_path: Path, text: str) -> None:
    tifffile.imwrite(tmp_path / "a.ome.tif", PLANE, metadata={"axes": "YX", "Description": text})
    assert read_description(tmp_path / "a.ome.tif") == {}


def test_pictures(tmp_path: Path) -> None:
    write_png(tmp_path / "p.png", noise(5, 6, 3).astype(np.uint8))
    assert read_image(tmp_path / "p.png").shape == (5, 6, 3)


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("stored", [{}, {"compression": "zlib"}], ids=["plain", "compressed"])
def test_a_level_of_a_pyramid(
    tmp_path: Path, lazy: bool, stored: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    if lazy:
        monkeypatch.setattr("napari_tiled_unet.io.tiff.LAZY_BYTES", 0)
    data = noise(3, 64, 80)
    sizes = {"PhysicalSizeX": 0.25, "PhysicalSizeY": 0.5, "PhysicalSizeZ": 2.0}
    with tifffile.TiffWriter(tmp_path / "a.ome.tif") as tiff:
        tiff.write(data, subifds=1, tile=(16, 16), metadata={"axes": "ZYX", **sizes}, **stored)
        tiff.write(data[:, ::2, ::4], subfiletype=1, tile=(16, 16), **stored)
    image = read_image(tmp_path / "a.ome.tif", level=1)
    assert (image.level, image.axes, image.shape) == (1, "zyx", (3, 32, 20))
    assert image.spacing == (2.0, 1.0, 1.0)
    assert image.notes == ("a.ome.tif holds 2 resolutions, number 1 is taken",)
    np.testing.assert_array_equal(next(image.frames("zyx")).read(), data[None, :, ::2, ::4])
    np.testing.assert_array_equal(next(read_image(tmp_path / "a.ome.tif").frames("zyx")).read(), data[None])


def test_one_resolution_has_no_other_level(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", noise(8, 8))
    with pytest.raises(ImageError, match=r"level=1: 'a.npy' has one resolution; take one of those, 0 is the full one"):
        read_image(tmp_path / "a.npy", level=1)


def ome_of_files(own: str, pixels: list[str]) -> str:
    """Return the OME-XML that every file of a set carries."""
    images = "".join(
        f'<Image ID="Image:{i}" Name="p{i}"><Pixels ID="Pixels:{i}" DimensionOrder="XYZCT" Type="uint8" SizeX="32" '
        f'SizeY="32" SizeC="1" SizeT="1" {inside}</Pixels></Image>'
        for i, inside in enumerate(pixels)
    )
    name = "http://www.openmicroscopy.org/Schemas/OME/2016-06"
    return f'<?xml version="1.0" encoding="UTF-8"?><OME xmlns="{name}" UUID="urn:uuid:{own}">{images}</OME>'


def plane_in(file: str, uuid: str, z: int = 0) -> str:
    return f'<TiffData IFD="0" FirstZ="{z}" PlaneCount="1"><UUID FileName="{file}">urn:uuid:{uuid}</UUID></TiffData>'


UUIDS = [f"{n}1111111-1111-1111-1111-111111111111" for n in range(3)]
CHANNEL = '<Channel ID="Channel:0" SamplesPerPixel="1"/>'


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("lazy_bytes", [0, 2**20])
def test_of_a_set_of_ome_tiffs_each_file_is_its_own_image(
    tmp_path: Path, compression: str | None, lazy_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("napari_tiled_unet.io.tiff.LAZY_BYTES", lazy_bytes)
    files = [f"pos{n}.ome.tif" for n in range(3)]
    pixels = [
        f'SizeZ="1" PhysicalSizeX="{n + 1}" PhysicalSizeY="{n + 1}">{CHANNEL}{plane_in(file, UUIDS[n])}'
        for n, file in enumerate(files)
    ]
    for n, file in enumerate(files):
        plane = np.full((32, 32), 10 + n, np.uint8)
        xml = ome_of_files(UUIDS[n], pixels)
        tifffile.imwrite(tmp_path / file, plane, description=xml, metadata=None, compression=compression)
    for n, file in enumerate(files):
        image = read_image(tmp_path / file)
        assert np.unique(image.data[:]) == 10 + n
        assert image.spacing == pytest.approx((n + 1, n + 1))
        assert image.notes == (f"{file} tells of 2 more images, which lie in other files and are left out",)


def test_a_stack_over_several_ome_tiffs_is_said(tmp_path: Path) -> None:
    files = [f"z{n}.ome.tif" for n in range(3)]
    pixels = 'SizeZ="3">' + CHANNEL + "".join(plane_in(file, UUIDS[n], n) for n, file in enumerate(files))
    for n, file in enumerate(files):
        plane, xml = np.full((32, 32), 10 + n, np.uint8), ome_of_files(UUIDS[n], [pixels])
        tifffile.imwrite(tmp_path / file, plane, description=xml, metadata=None, compression="zlib")
    image = read_image(tmp_path / "z1.ome.tif")
    np.testing.assert_array_equal(np.asarray(image.data).max((1, 2)), [10, 11, 12])
    assert image.notes == ("z1.ome.tif is one of 3 files that together hold one image; all of it is read",)


def test_imagej_units_may_differ_by_axis(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    named = {"axes": "ZYX", "spacing": 300.0, "unit": "micron", "zunit": "nm"}
    tifffile.imwrite(path, np.zeros((3, 32, 32), np.uint16), imagej=True, resolution=(2.0, 2.0), metadata=named)
    assert read_image(path).spacing == pytest.approx((0.3, 0.5, 0.5))


@pytest.mark.parametrize(("channels", "axes"), [(2, "yx"), (3, "yxc"), (4, "yxc")])
def test_pngs_of_16_bits_keep_them(tmp_path: Path, channels: int, axes: str) -> None:
    import imagecodecs

    values = np.random.default_rng(0).integers(0, 2**16, (24, 20, channels), np.uint16)
    path = tmp_path / "deep.png"
    path.write_bytes(imagecodecs.png_encode(values))
    image = read_image(path)
    assert (image.axes, image.is_rgb) == (axes, channels > 2)
    np.testing.assert_array_equal(image.data, values if channels > 2 else values[..., 0])


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
