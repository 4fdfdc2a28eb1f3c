"""What files say of lengths and times: kept as far as it is known, and the rest is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from napari_tiled_unet.errors import ImageError
from napari_tiled_unet.io import Place, read_image, write_labels
from napari_tiled_unet.region import Region
from tests.io.scenes import PLANE, SPACE, noise, ome_zarr, scaled


def test_sizes_that_are_known_along_some_axes_are_kept_and_the_rest_is_said(tmp_path: Path) -> None:
    metadata = {"axes": "ZYX", "PhysicalSizeX": 0.25, "PhysicalSizeY": 0.5}
    tifffile.imwrite(tmp_path / "a.ome.tif", noise(3, 20, 30), metadata=metadata)
    image = read_image(tmp_path / "a.ome.tif")
    assert (image.spacing, image.units) == (None, "pixel")
    assert (image.spacing_of("yx"), image.spacing_of("zyx")) == ((0.5, 0.25), None)
    assert image.spacing_along("zyx") == (None, 0.5, 0.25)
    assert image.notes == (
        "a.ome.tif: the voxel size is known along y and x, not along z: a 2D model uses it, a 3D model does not; "
        "give spacing for one that does",
    )
    given = image.with_spacing((2, 1, 1))
    assert (given.spacing, given.spacing_of("yx")) == ((2, 1, 1), (1, 1))
    assert read_image(tmp_path / "a.ome.tif", axes="yzx").spacing_along("zyx") == (0.5, None, 0.25)


def test_a_missing_size_in_the_plane_is_said(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.ome.tif", noise(3, 20, 30), metadata={"axes": "ZYX", "PhysicalSizeZ": 2.0})
    image = read_image(tmp_path / "a.ome.tif")
    assert (image.spacing_of("yx"), image.spacing_along("zyx")) == (None, (2.0, None, None))
    assert image.notes == (
        "a.ome.tif: the voxel size is known along z, not along y and x, so that no model uses it; give spacing",
    )


def test_sizes_of_some_axes_survive_their_file(tmp_path: Path) -> None:
    write_labels(tmp_path / "a.ome.tif", noise(3, 20, 30), "zyx", (None, 0.5, 0.25))
    assert read_image(tmp_path / "a.ome.tif").spacing_along("zyx") == (None, 0.5, 0.25)


@pytest.mark.parametrize(
    ("unit", "note"),
    [
        (
            "reference frame",
            "a.ome.tif: the voxel size along y and x is in 'reference frame', which is no length that is known, "
            "so that it is not used; give spacing",
        ),
        ("pixel", None),
        ("\u00b5m", None),
    ],
)
def test_units_that_are_not_known_are_said(tmp_path: Path, unit: str, note: str | None) -> None:
    sizes = {f"PhysicalSize{a}{more}": value for a in "XY" for more, value in (("", 0.5), ("Unit", unit))}
    tifffile.imwrite(tmp_path / "a.ome.tif", PLANE, metadata={"axes": "YX", **sizes})
    assert read_image(tmp_path / "a.ome.tif").notes == (() if note is None else (note,))


def test_sizes_without_a_unit_are_said(tmp_path: Path) -> None:
    axes = [{"name": name, "type": "space"} for name in "yx"]
    for scale, said in ((0.5, True), (1, False)):
        datasets = [{"path": "0", "coordinateTransformations": scaled(scale, scale)}]
        ome_zarr(tmp_path / "a.zarr", "0.5", PLANE, axes=axes, datasets=datasets)
        image = read_image(tmp_path / "a.zarr")
        assert image.spacing is None
        told = "a.zarr: the voxel size along y and x is stated without a unit, so that it is not used; give spacing"
        assert image.notes == ((told,) if said else ())


@pytest.mark.parametrize(
    ("step", "unit", "expected"),
    [(0.5, "s", 0.5), (20.0, "ms", 0.02), (2.0, "min", 120.0), (2.0, "fortnight", None), (0.0, "s", None)],
)
def test_the_time_step_of_ome_tiff(tmp_path: Path, step: float, unit: str, expected: float | None) -> None:
    metadata = {"axes": "TYX", "TimeIncrement": step, "TimeIncrementUnit": unit}
    tifffile.imwrite(tmp_path / "a.ome.tif", noise(3, 20, 30), metadata=metadata)
    image = read_image(tmp_path / "a.ome.tif")
    assert image.time_step == (None if expected is None else pytest.approx(expected))
    assert ("the time step is in 'fortnight', which is no time that is known" in " ".join(image.notes)) == (
        unit == "fortnight"
    )
    assert read_image(tmp_path / "a.ome.tif", axes="zyx").time_step is None


def test_the_time_step_of_imagej(tmp_path: Path) -> None:
    for more, expected in (({"finterval": 0.5}, 0.5), ({"finterval": 2.0, "tunit": "min"}, 120.0), ({}, None)):
        tifffile.imwrite(tmp_path / "a.tif", noise(3, 20, 30), imagej=True, metadata={"axes": "TYX", **more})
        assert read_image(tmp_path / "a.tif").time_step == expected


def test_time_step_and_origin_of_ome_zarr(tmp_path: Path) -> None:
    axes = [{"name": "t", "type": "time", "unit": "millisecond"}, *SPACE]
    shift = {"type": "translation", "translation": [7, 0, 3000, 1500]}
    datasets = [
        {"path": "0", "coordinateTransformations": [*scaled(250, 2000, 500, 250), shift]},
        {"path": "1", "coordinateTransformations": scaled(250, 2000, 1000, 500)},
    ]
    more = [*scaled(2, 1, 2, 1), {"type": "translation", "translation": [0, 1000, 0, 0]}]
    data = noise(2, 3, 20, 30)
    ome_zarr(tmp_path / "a.zarr", "0.5", data, axes=axes, datasets=datasets, coordinateTransformations=more)
    image = read_image(tmp_path / "a.zarr")
    assert image.spacing == (2.0, 1.0, 0.25)
    assert image.time_step == 0.5
    # What is scaled after a shift moves it too.
    assert image.origin == {"z": 1.0, "y": 6.0, "x": 1.5}
    part = image.part(Region.parse("y=2:,x=4:8"))
    assert part.origin == {"z": 1.0, "y": 8.0, "x": 2.5}
    assert read_image(tmp_path / "a.zarr", level=1).origin == {"z": 1.0, "y": 0.0, "x": 0.0}


def planes_of(path: Path) -> list[dict[str, Any]]:
    with tifffile.TiffFile(path) as file:
        found = tifffile.xml2dict(file.ome_metadata)["OME"]["Image"]["Pixels"].get("Plane", [])
    return list(found) if isinstance(found, list | tuple) else [found]


def test_sizes_and_time_step_of_an_lsm(tmp_path: Path) -> None:
    """Zeiss' structure of numbers in metres and seconds, and every second page a thumbnail, as its files have them."""
    info = np.zeros(1, np.dtype(tifffile.TIFF.CZ_LSMINFO[:25]))
    said = {"MagicNumber": 67127628, "StructureSize": info.itemsize, "ScanType": 3, "TimeIntervall": 0.25}
    sides = {"DimensionX": 30, "DimensionY": 20, "DimensionTime": 3, "DimensionZ": 1, "DimensionChannels": 1}
    sizes = {"VoxelSizeX": 2.5e-7, "VoxelSizeY": 5e-7, "VoxelSizeZ": 1e-6}
    for name, value in {**said, **sides, **sizes}.items():
        info[name] = value
    data = noise(3, 20, 30)
    tag = (34412, 1, info.nbytes, info.tobytes(), True)
    with tifffile.TiffWriter(tmp_path / "a.lsm", byteorder="<") as file:
        for number, plane in enumerate(data):
            file.write(plane, planarconfig="separate", metadata=None, extratags=[] if number else [tag])
            file.write(plane[::4, ::4], subfiletype=1, metadata=None)
    image = read_image(tmp_path / "a.lsm")
    assert (image.axes, image.time_step) == ("tyx", 0.25)
    assert image.spacing == pytest.approx((0.5, 0.25))
    np.testing.assert_array_equal(np.asarray(image.data), data)


@pytest.mark.parametrize(("unit", "origin"), [("mm", {"y": 1500.0, "x": -2000.0}), ("reference frame", {}), (None, {})])
def test_the_place_of_the_stage_is_read(tmp_path: Path, unit: str | None, origin: dict[str, float]) -> None:
    """Of the first plane; a microscope may say a place without a length, which is OME's default."""
    units = {} if unit is None else {"PositionXUnit": [unit] * 3, "PositionYUnit": [unit] * 3}
    plane = {"PositionX": [-1.0, -1.0, -2.0], "PositionY": [0.0, 0.0, 1.5], **units}
    metadata = {"axes": "ZYX", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5, "PhysicalSizeZ": 2.0, "Plane": plane}
    tifffile.imwrite(tmp_path / "a.ome.tif", noise(3, 20, 30), ome=True, metadata=metadata)
    # Files may list planes in any order.
    said = tifffile.tiffcomment(tmp_path / "a.ome.tif")
    said = said.replace('TheZ="0"', 'TheZ="."').replace('TheZ="2"', 'TheZ="0"').replace('TheZ="."', 'TheZ="2"')
    tifffile.tiffcomment(tmp_path / "a.ome.tif", said.encode())
    assert read_image(tmp_path / "a.ome.tif", axes="zyx").origin == origin


def test_time_step_and_origin_survive_their_file(tmp_path: Path) -> None:
    write_labels(
        tmp_path / "a.ome.tif",
        noise(2, 3, 20, 30),
        "tzyx",
        (None, 0.5, 0.25),
        place=Place({"t": 1, "y": 4}, {"z": 3.0, "x": 10.0}, time_step=0.5),
    )
    assert read_image(tmp_path / "a.ome.tif").time_step == 0.5
    assert [(p["PositionY"], p["PositionX"]) for p in planes_of(tmp_path / "a.ome.tif")] == [(2.0, 10.0)] * 6
    assert read_image(tmp_path / "a.ome.tif").origin == {"y": 2.0, "x": 10.0}
    write_labels(tmp_path / "b.ome.tif", noise(2, 3, 20, 30), "tzyx", (2, 0.5, 0.25), place=Place(origin={"z": 3.0}))
    assert read_image(tmp_path / "b.ome.tif").origin == {"z": 3.0, "y": 0.0, "x": 0.0}
    assert [p["PositionZ"] for p in planes_of(tmp_path / "b.ome.tif")] == [3.0, 5.0, 7.0] * 2
    write_labels(tmp_path / "c.ome.tif", PLANE, "yx", (0.5, 0.25), place=Place(time_step=0.5))
    assert planes_of(tmp_path / "c.ome.tif") == []
    for wrong in (0, -1, np.inf):
        with pytest.raises(ImageError, match=r"time_step=.* must be a positive number of seconds"):
            write_labels(tmp_path / "d.ome.tif", noise(3, 20, 30), "tyx", place=Place(time_step=wrong))
