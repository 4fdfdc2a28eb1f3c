"""Labels, maps and pictures out, and what a file says of its origin."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from napari_tiled_unet.errors import FileError, ImageError
from napari_tiled_unet.image import Image
from napari_tiled_unet.io import (
    Place,
    read_description,
    read_image,
    require_writable,
    smallest_label_dtype,
    write,
    write_labels,
    write_maps,
    write_png,
)
from tests.io.scenes import PLANE, RNG, noise


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


@pytest.mark.parametrize(
    ("axes", "model"),
    [("yx", "yx"), ("yxc", "yx"), ("cyx", "yx"), ("ztyx", "yx"), ("ztyx", "zyx"), ("tczyx", "yx"), ("tczyx", "zyx")],
)
def test_an_image_tells_what_its_labels_are(tmp_path: Path, axes: str, model: str) -> None:
    size = {"t": 2, "c": 4, "z": 3, "y": 20, "x": 30}
    spacing = {"z": 2.0, "y": 0.5, "x": 0.25}
    given = tuple(spacing[a] for a in axes if a in spacing)
    image = Image(noise(*(size[a] for a in axes)), axes).with_spacing(given)
    image = replace(image, origin={"y": 3.0}, time_step=1.5 if "t" in axes else None)
    labels = noise(*(size[a] for a in image.label_axes(model)))
    write_labels(tmp_path / "labels.ome.tif", labels, image)
    back = read_image(tmp_path / "labels.ome.tif")
    np.testing.assert_array_equal(back.data, labels)
    assert back.axes == image.label_axes(model) == "".join(a for a in "tzyx" if a in axes)
    assert back.spacing == tuple(spacing[a] for a in back.axes if a in spacing)
    assert back.origin.get("y") == 3.0
    assert back.time_step == image.time_step


def test_labels_that_are_not_of_the_image_are_refused(tmp_path: Path) -> None:
    image = Image(noise(20, 30), "yx")
    with pytest.raises(ImageError, match=r"shape \(20, 29\), those of the image .*\(20, 30\).*give axes"):
        write_labels(tmp_path / "labels.ome.tif", noise(20, 29), image)
    for more in ({"spacing": np.ones(2)}, {"place": Place({"y": 4})}, {"units": "nm"}):
        with pytest.raises(ImageError, match="the image tells spacing, units and place"):
            write_labels(tmp_path / "labels.ome.tif", noise(20, 30), image, **more)


@pytest.mark.parametrize("wrong", [{"offset": {"q": 1}}, {"origin": {"y": float("nan")}}, {"origin": {"": 1.0}}])
def test_a_place_is_finite_and_along_known_axes(wrong: dict[str, dict[str, float]]) -> None:
    with pytest.raises(ImageError, match=r"is no place; give a finite number for axes among 'tczyx'"):
        Place(**wrong)
