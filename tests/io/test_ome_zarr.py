"""OME-Zarr and Zarr in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import zarr

from napari_tiled_unet.errors import FileError, ImageError
from napari_tiled_unet.io import (
    image_files,
    read_image,
)
from tests.io.scenes import SPACE, noise, ome_zarr, scaled


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
