"""Files in and out: axes, sizes, provenance, and what happens to bad ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image as Picture

from napari_tiled_unet import io
from napari_tiled_unet.errors import FileError, ImageError
from napari_tiled_unet.io import (
    image_files,
    read_description,
    read_image,
    require_writable,
    smallest_label_dtype,
    write_labels,
    write_maps,
    write_png,
)

RNG = np.random.default_rng(0)
PLANE = RNG.integers(0, 1000, (20, 30)).astype(np.uint16)


def noise(*shape: int) -> np.ndarray:
    return RNG.integers(0, 1000, shape).astype(np.uint16)


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
        ImageError, match=r"do not say what the axis of 5 is: say with axes, for example 'zyx', 'tyx', 'cyx'"
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


def test_several_images_in_a_file_are_said(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "a.ome.tif") as tiff:
        tiff.write(PLANE, metadata={"axes": "YX"})
        tiff.write(noise(7, 9), metadata={"axes": "YX"})
    image = read_image(tmp_path / "a.ome.tif")
    assert image.shape == PLANE.shape
    assert image.notes == ("a.ome.tif holds 2 images, the first is taken",)


@pytest.mark.parametrize("compression", [None, "zlib", "lzw"])
def test_large_tiffs_stay_on_disk(tmp_path: Path, compression: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(io, "_LAZY_BYTES", 1000)
    data = noise(4, 20, 30)
    tifffile.imwrite(tmp_path / "a.ome.tif", data, metadata={"axes": "ZYX"}, compression=compression)
    image = read_image(tmp_path / "a.ome.tif")
    assert isinstance(image.data, np.memmap if compression is None else zarr.Array)
    for z, frame in enumerate(image.frames("yx")):
        np.testing.assert_array_equal(frame.read()[0], data[z])


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("kept", [0.02, 0.5, 0.97])
def test_truncated_tiffs_are_refused(tmp_path: Path, compression: str | None, kept: float) -> None:
    path = tmp_path / "cut.ome.tif"
    tifffile.imwrite(path, noise(4, 60, 70), metadata={"axes": "ZYX"}, compression=compression)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(FileError, match=r"cut.ome.tif.* is damaged"):
        read_image(path)


def test_a_truncated_lazy_tiff_fails_when_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(io, "_LAZY_BYTES", 1000)
    path = tmp_path / "cut.ome.tif"
    tifffile.imwrite(path, noise(4, 60, 70), metadata={"axes": "ZYX"}, compression="zlib")
    content = path.read_bytes()
    path.write_bytes(content[:-3000])
    frames = list(read_image(path).frames("yx"))
    with pytest.raises(FileError, match=r"cut.ome.tif"):
        frames[-1].read()


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


def test_an_npy_of_objects_is_never_unpickled(tmp_path: Path) -> None:
    np.save(tmp_path / "o.npy", np.array([[{}]], object), allow_pickle=True)
    with pytest.raises(FileError, match=r"o.npy.* is damaged or not a .npy file"):
        read_image(tmp_path / "o.npy")


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_ome_zarr(tmp_path: Path, version: str) -> None:
    data = noise(2, 3, 20, 30)
    group = zarr.open_group(tmp_path / "a.ome.zarr", mode="w", zarr_format=2 if version == "0.4" else 3)
    for path, level in (("0", data), ("1", data[..., ::2, ::2])):
        array = group.create_array(path, shape=level.shape, dtype=level.dtype, chunks=(1, 1, 10, 10))
        array[:] = level
    axes = [{"name": "c", "type": "channel"}, *({"name": a, "type": "space", "unit": "nanometer"} for a in "zyx")]
    scale = [{"type": "scale", "coordinateTransformations": [], "scale": [1, 2000, 500, 250]}]
    multiscales = [
        {"axes": axes, "datasets": [{"path": p, "coordinateTransformations": scale} for p in ("0", "1")]},
    ]
    group.attrs.update({"multiscales": multiscales} if version == "0.4" else {"ome": {"multiscales": multiscales}})
    image = read_image(tmp_path / "a.ome.zarr")
    assert image.axes == "czyx"
    assert image.shape == data.shape
    assert image.spacing == (2.0, 0.5, 0.25)
    assert isinstance(image.data, zarr.Array)
    np.testing.assert_array_equal(next(image.frames("zyx")).read(), data)


def test_a_bare_zarr_array_needs_axes(tmp_path: Path) -> None:
    array = zarr.create_array(tmp_path / "a.zarr", shape=(3, 4, 5), dtype="u2")
    array[:] = 1
    assert read_image(tmp_path / "a.zarr", axes="zyx").axes == "zyx"
    with pytest.raises(ImageError, match="ambiguous"):
        read_image(tmp_path / "a.zarr")
    zarr.open_group(tmp_path / "g.zarr", mode="w")
    with pytest.raises(FileError, match="without OME 'multiscales'"):
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
    with tifffile.TiffFile(tmp_path / "l.ome.tif") as tiff:
        assert tiff.is_ome
        assert tiff.pages[0].compression == tifffile.COMPRESSION.ADOBE_DEFLATE


def test_maps_survive_their_file(tmp_path: Path) -> None:
    maps = RNG.random((2, 3, 20, 30)).astype(np.float32)
    write_maps(tmp_path / "m.ome.tif", maps, "czyx", ("foreground", "centre"), (2.0, 0.5, 0.25))
    image = read_image(tmp_path / "m.ome.tif")
    assert image.axes == "zcyx"
    np.testing.assert_array_equal(next(image.frames("zyx")).read(), maps)
    with tifffile.TiffFile(tmp_path / "m.ome.tif") as tiff:
        assert tiff.ome_metadata is not None
        assert "centre" in tiff.ome_metadata


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


def test_pictures(tmp_path: Path) -> None:
    write_png(tmp_path / "p.png", noise(5, 6, 3).astype(np.uint8))
    assert read_image(tmp_path / "p.png").shape == (5, 6, 3)
