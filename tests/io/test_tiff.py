"""TIFF in: axes, sizes, colours, and what stays on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr

from napari_tiled_unet.errors import ImageError
from napari_tiled_unet.io import (
    read_image,
    tiff,
)
from tests.io.scenes import PLANE, colours, noise


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


def test_imagej_units_may_differ_by_axis(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    named = {"axes": "ZYX", "spacing": 300.0, "unit": "micron", "zunit": "nm"}
    tifffile.imwrite(path, np.zeros((3, 32, 32), np.uint16), imagej=True, resolution=(2.0, 2.0), metadata=named)
    assert read_image(path).spacing == pytest.approx((0.3, 0.5, 0.5))
