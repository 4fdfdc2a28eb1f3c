"""Objects in numbers, against shapes whose numbers are known."""

from __future__ import annotations

import csv
import tracemalloc
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from napari_tiled_unet.errors import FileError, ImageError
from napari_tiled_unet.features import measure_objects, write_features
from napari_tiled_unet.image import Image


def box(shape: tuple[int, ...], *corners: tuple[tuple[int, ...], tuple[int, ...]]) -> np.ndarray:
    labels = np.zeros(shape, np.uint16)
    for number, (start, stop) in enumerate(corners, start=1):
        labels[tuple(slice(a, b) for a, b in zip(start, stop, strict=True))] = number
    return labels


class TestOneFrame:
    LABELS = box((20, 30), ((2, 3), (6, 13)), ((10, 20), (14, 24)))

    def test_without_spacing_it_counts_voxels(self) -> None:
        table = measure_objects(self.LABELS, "yx", Image(self.LABELS * 10.0, "yx"))
        assert table["index"].tolist() == [1, 2]
        assert table["area_px2"].tolist() == [40, 16]
        np.testing.assert_allclose(table["centroid_y"], (3.5, 11.5))
        np.testing.assert_allclose(table["centroid_x"], (7.5, 21.5))
        np.testing.assert_allclose(table["diameter_px"], np.sqrt(4 * np.array([40, 16]) / np.pi))
        assert table["intensity_mean"].tolist() == [10, 20]
        assert table["solidity"].tolist() == [1, 1]
        assert table["eccentricity"][0] > 0.9
        assert table["eccentricity"][1] == pytest.approx(0, abs=1e-6)

    def test_lengths_are_in_micrometres_and_places_in_voxels(self) -> None:
        table = measure_objects(self.LABELS, "yx", Image(self.LABELS, "yx", spacing=(2.0, 0.5)))
        assert table["area_um2"].tolist() == [40, 16]  # a voxel is 1 square micrometre
        np.testing.assert_allclose(table["centroid_y"], (3.5, 11.5))
        np.testing.assert_allclose(table["centroid_x"], (7.5, 21.5))
        # A bar of 4 voxels of 2 um and 10 of 0.5 um; the centres of n voxels have the variance (n^2 - 1) / 12.
        assert table["major_axis_um"][0] == pytest.approx(4 * 2 * np.sqrt(15 / 12), rel=1e-6)
        assert table["minor_axis_um"][0] == pytest.approx(4 * 0.5 * np.sqrt(99 / 12), rel=1e-6)

    def test_each_channel_has_its_intensities(self) -> None:
        channels = np.stack([self.LABELS * 1.0, self.LABELS * 3.0])
        channels[1, 2, 3] = 50
        table = measure_objects(self.LABELS, "yx", Image(channels, "cyx"))
        assert table["intensity_mean_c0"].tolist() == [1, 2]
        assert table["intensity_max_c1"].tolist() == [50, 6]
        assert table["intensity_min_c1"].tolist() == [3, 6]

    def test_a_part_is_placed_in_the_whole(self) -> None:
        table = measure_objects(self.LABELS, "yx", Image(self.LABELS, "yx"), offset=(100, 200))
        np.testing.assert_allclose(table["centroid_y"], (103.5, 111.5))
        np.testing.assert_allclose(table["centroid_x"], (207.5, 221.5))

    @pytest.mark.parametrize("dtype", [np.int64, np.uint64])
    def test_large_numbers_keep_their_name_and_cost_nothing(self, dtype: type) -> None:
        large = np.array([0, 3_000_000, 7])[self.LABELS].astype(dtype)
        image = Image(self.LABELS, "yx")
        expected = measure_objects(self.LABELS, "yx", image)
        tracemalloc.start()
        table = measure_objects(large, "yx", image)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert table.pop("index").tolist() == [7, 3_000_000]
        for name, column in table.items():
            np.testing.assert_array_equal(column, expected[name][::-1])
        assert peak < 8e6

    def test_a_mask_is_one_object_and_numbers_below_0_are_none(self) -> None:
        image = Image(self.LABELS, "yx")
        mask = measure_objects(self.LABELS > 0, "yx", image)
        assert (mask["index"].tolist(), mask["area_px2"].tolist()) == ([1], [56])
        unlabelled = np.where(self.LABELS == 1, -1, self.LABELS.astype(np.int16))
        assert measure_objects(unlabelled, "yx", image)["index"].tolist() == [2]

    def test_an_image_full_of_objects_has_no_background(self) -> None:
        full = np.full((4, 6), 9)
        full[2:] = 4
        table = measure_objects(full, "yx", Image(full, "yx"))
        assert (table["index"].tolist(), table["intensity_mean"].tolist()) == ([4, 9], [4, 9])

    def test_nothing_there_is_a_table_without_rows(self) -> None:
        empty = np.zeros((8, 8), np.uint8)
        table = measure_objects(empty, "yx", Image(empty, "yx"))
        assert {len(column) for column in table.values()} == {0}
        assert list(table) == list(measure_objects(self.LABELS, "yx", Image(self.LABELS, "yx")))


class TestFrames:
    STACK = box((4, 12, 12), ((0, 2, 2), (4, 6, 6)), ((1, 8, 8), (2, 10, 10)))

    def test_a_volume(self) -> None:
        table = measure_objects(self.STACK, "zyx", Image(self.STACK, "zyx", spacing=(2.0, 1.0, 1.0)))
        assert table["volume_um3"].tolist() == [128, 8]
        np.testing.assert_allclose(table["centroid_z"], (1.5, 1.0))
        assert table["extent"].tolist() == [1, 1]
        assert table["major_axis_um"][0] == pytest.approx(2 * np.sqrt(5 * 2**2 * 15 / 12), rel=1e-6)
        assert "solidity" not in table

    def test_a_thin_object_in_3d_has_axes(self) -> None:
        line = box((3, 5, 5), ((1, 2, 0), (2, 3, 5)))
        table = measure_objects(line, "zyx", Image(line, "zyx"))
        assert table["major_axis_px"][0] > table["minor_axis_px"][0] >= 0

    def test_slices_with_objects_of_their_own(self) -> None:
        table = measure_objects(self.STACK, "zyx", Image(self.STACK, "zyx"), spatial="yx", offset=(5, 0, 0))
        assert table["index"].tolist() == [1, 1, 2, 1, 1]
        assert table["z"].tolist() == [5, 6, 6, 7, 8]
        assert table["area_px2"].tolist() == [16, 16, 4, 16, 16]

    def test_time_points_of_a_lazy_image_with_channels_behind(self) -> None:
        import dask.array as da

        image = Image(da.stack([self.STACK, self.STACK * 2.0], axis=1), "tcyx")
        table = measure_objects(self.STACK, "tyx", image)
        assert table["t"].tolist() == [0, 1, 1, 2, 3]
        assert table["intensity_mean_c1"].tolist() == [2, 2, 4, 2, 2]


@pytest.mark.parametrize(
    ("labels", "axes", "message"),
    [
        (np.zeros((4, 4)), "yx", "of type float64"),
        (np.zeros((4, 5), int), "yx", r"labels of shape \(4, 5\)"),
        (np.zeros((2, 4, 4), int), "zyx", "labels with axes 'zyx'"),
    ],
)
def test_what_does_not_agree_is_refused(labels: np.ndarray, axes: str, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        measure_objects(labels, axes, Image(np.zeros((4, 4)), "yx"))


class TestFile:
    TABLE: ClassVar = {"index": np.array([1, 2]), "area_px2": np.array([40.0, 16.5])}

    def test_it_reads_back(self, tmp_path: Path) -> None:
        write_features(tmp_path / "a.csv", self.TABLE)
        with (tmp_path / "a.csv").open(newline="") as file:
            assert list(csv.reader(file)) == [["index", "area_px2"], ["1", "40.0"], ["2", "16.5"]]
        assert [path.name for path in tmp_path.iterdir()] == ["a.csv"]

    def test_a_file_is_not_replaced_unasked(self, tmp_path: Path) -> None:
        (tmp_path / "a.csv").write_text("mine")
        with pytest.raises(FileError, match="exists"):
            write_features(tmp_path / "a.csv", self.TABLE, overwrite=False)
        assert (tmp_path / "a.csv").read_text() == "mine"

    def test_a_folder_that_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(FileError, match="cannot be written"):
            write_features(tmp_path / "missing" / "a.csv", self.TABLE)
