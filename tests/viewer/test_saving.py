"""File > Save of a Labels layer, by the manifest's writer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from napari.layers import Labels
from npe2 import PluginManager, PluginManifest

import napari_tiled_unet
from napari_tiled_unet.errors import ImageError
from napari_tiled_unet.io import Place, read_description, read_image, write_labels
from napari_tiled_unet.viewer.layers import METADATA_KEY
from napari_tiled_unet.viewer.saving import write_labels_layer


def save(path: Path, layer: Labels) -> list[str]:
    data, attributes, _ = layer.as_layer_data_tuple()
    return write_labels_layer(str(path), data, attributes)


def positions(path: Path, axes: str = "YX") -> list[tuple[float, ...]]:
    """Return where each plane of an OME-TIFF begins."""
    with tifffile.TiffFile(path) as tiff:
        planes = tifffile.xml2dict(tiff.ome_metadata)["OME"]["Image"]["Pixels"].get("Plane", [])
    planes = planes if isinstance(planes, list | tuple) else [planes]
    return [tuple(plane[f"Position{axis}"] for axis in axes) for plane in planes]


def test_a_result_keeps_voxels_axes_and_provenance(tmp_path: Path) -> None:
    data = np.arange(12, dtype=np.uint32).reshape(2, 1, 2, 3)
    mark = {"model": "nuclei", "source": "1", "measured": {"image_axes": "zcyx"}}
    layer = Labels(data, scale=(2, 2, 0.5, 0.5), units=("um", "pixel", "um", "um"), metadata={METADATA_KEY: mark})
    path = tmp_path / "a.ome.tif"
    assert save(path, layer) == [str(path)]
    back = read_image(path)
    assert back.axes == "zyx"
    assert back.spacing == (2.0, 0.5, 0.5)
    np.testing.assert_array_equal(np.asarray(back.data), data[:, 0])
    assert read_description(path) == {"model": "nuclei"}


def test_a_part_keeps_its_place(tmp_path: Path) -> None:
    data = np.ones((2, 1, 3, 4), np.uint32)
    measured = {"image_axes": "tcyx", "axes": "tyx", "offset": [5, 32, 20], "spatial": "yx"}
    layer = Labels(data, scale=(1, 2, 0.5, 0.25), units=("pixel", "pixel", "um", "um"))
    layer.metadata[METADATA_KEY] = {"measured": measured}
    save(tmp_path / "a.ome.tif", layer)
    write_labels(tmp_path / "b.ome.tif", data[:, 0], "tyx", (0.5, 0.25), place=Place({"t": 5, "y": 32, "x": 20}))
    written, batch = (positions(tmp_path / name) for name in ("a.ome.tif", "b.ome.tif"))
    assert written == batch == [(16.0, 5.0)] * 2


def test_a_part_keeps_its_place_whatever_the_order_of_its_axes(tmp_path: Path) -> None:
    measured = {"image_axes": "yxz", "axes": "zyx", "offset": [7, 32, 20], "spatial": "zyx"}
    layer = Labels(np.ones((3, 4, 1), np.uint32), scale=(0.5, 0.25, 2), units=("um",) * 3)
    layer.metadata[METADATA_KEY] = {"measured": measured}
    save(tmp_path / "a.ome.tif", layer)
    assert positions(tmp_path / "a.ome.tif", "ZYX") == [(14.0, 16.0, 5.0)]


def test_a_painted_plane(tmp_path: Path) -> None:
    save(tmp_path / "a.ome.tif", Labels(np.eye(4, dtype=int)))
    back = read_image(tmp_path / "a.ome.tif")
    assert (back.axes, back.spacing) == ("yx", None)


def test_axes_are_never_guessed(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="name them"):
        save(tmp_path / "a.ome.tif", Labels(np.zeros((2, 3, 4), int)))
    save(tmp_path / "a.ome.tif", Labels(np.zeros((2, 3, 4), int), axis_labels=("t", "y", "x")))
    assert read_image(tmp_path / "a.ome.tif").axes == "tyx"


def test_napari_finds_the_writer() -> None:
    manager = PluginManager()
    manager.register(PluginManifest.from_file(Path(napari_tiled_unet.__file__).with_name("napari.yaml")))
    writer, path = manager.get_writer("a.ome.tif", ["labels"])
    assert writer is not None
    assert (writer.command, path) == ("napari-tiled-unet.write_labels", "a.ome.tif")
    assert manager.get_writer("a.ome.tif", ["image"])[0] is None
