"""A part of an image: as text, as slices, and as what is segmented."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st

from napari_tiled_unet import cli, read_image, segment
from napari_tiled_unet.errors import ImageError, OptionsError
from napari_tiled_unet.image import Image, luminance
from napari_tiled_unet.io import Place, read_description, write_labels
from napari_tiled_unet.options import SegmentOptions
from napari_tiled_unet.region import Region
from napari_tiled_unet.segmentation import iter_segment
from tests.models import blob_model, blobs

CENTRES = [(20, 20), (20, 60), (60, 30), (60, 75)]
PLANE = blobs((80, 96), CENTRES)
ranges = st.tuples(st.integers(0, 20), st.integers(1, 20), st.booleans()).map(
    lambda r: (r[0], None if r[2] else r[0] + r[1])
)


class Lazy:
    """An array that counts the voxels read and fails when all of it is asked for."""

    def __init__(self, data: np.ndarray) -> None:
        self.data, self.shape, self.dtype, self.read = data, data.shape, data.dtype, 0

    def __getitem__(self, key: Any) -> np.ndarray:
        found = self.data[key]
        self.read += found.size
        return found

    def __array__(self, *args: Any, **keywords: Any) -> np.ndarray:
        raise AssertionError("all of a lazy array was read")


class TestText:
    @pytest.mark.parametrize(
        ("text", "canonical"),
        [
            ("t=3,z=2:10,y=100:400,x=50:600", "t=3,z=2:10,y=100:400,x=50:600"),
            ("x=50: , Y=:9", "y=0:9,x=50:"),
            ("z=3:4", "z=3"),
        ],
    )
    def test_it_is_read(self, text: str, canonical: str) -> None:
        assert Region.parse(text).text == canonical

    @given(st.dictionaries(st.sampled_from("tzyx"), ranges, min_size=1))
    def test_what_is_written_is_read_back(self, wanted: dict[str, tuple[int, int | None]]) -> None:
        region = Region(tuple((axis, start, stop) for axis, (start, stop) in wanted.items()))
        assert Region.parse(region.text) == region

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("y=5:5", "has no voxel along y"),
            ("y=5:2", "has no voxel along y"),
            ("y", "must be axis=start:stop"),
            ("y=", "must be axis=start:stop"),
            ("y=1:2,y=3:4", "must name different axes"),
            ("c=1", "choose channels with channel"),
            ("", "must be axis=start:stop"),
        ],
    )
    def test_what_is_none_is_refused(self, text: str, message: str) -> None:
        with pytest.raises(OptionsError, match=message):
            SegmentOptions.of(region=text)

    def test_an_option_holds_it_in_one_way_of_writing(self) -> None:
        assert SegmentOptions.of(region=" x=1:3, y=:8").region == "y=0:8,x=1:3"


class TestSlices:
    @given(st.data())
    def test_a_lazy_part_is_what_numpy_cuts(self, data: st.DataObject) -> None:
        shape = (3, 4, 7, 6)
        whole = np.arange(np.prod(shape)).reshape(shape)
        text = {}
        for axis, size in zip("tyx", (3, 7, 6), strict=True):
            start = data.draw(st.integers(0, size - 1))
            text[axis] = (start, data.draw(st.integers(start + 1, size)))
        region = Region(tuple((a, lo, hi) for a, (lo, hi) in text.items()))
        cut = tuple(slice(*text[a]) if a in text else slice(None) for a in "tcyx")
        part = Image(Lazy(whole), "tcyx").part(region)
        assert part.shape == whole[cut].shape
        for frame, expected in zip(part.frames("yx"), whole[cut], strict=True):
            np.testing.assert_array_equal(frame.read(), expected)
            np.testing.assert_array_equal(frame.read([3, 0]), expected[[3, 0]])

    def test_only_the_part_is_read(self) -> None:
        lazy = Lazy(np.zeros((10, 64, 64), np.uint8))
        part = Image(lazy, "zyx").part(Region.parse("z=4,y=8:16,x=:8"))
        assert lazy.read == 0
        for frame in part.frames("yx"):
            frame.read()
        assert lazy.read == 64

    def test_colours_become_grey_in_a_part_too(self) -> None:
        colours = np.random.default_rng(0).integers(0, 255, (8, 9, 3), np.uint8)
        region = Region.parse("y=2:5,x=3:")
        (whole,) = luminance(Image(colours, "yxc", is_rgb=True)).frames("yx")
        (part,) = luminance(Image(colours, "yxc", is_rgb=True)).part(region).frames("yx")
        np.testing.assert_allclose(part.read(), whole.read()[:, 2:5, 3:], rtol=1e-6)

    @pytest.mark.parametrize(
        ("text", "message"),
        [("z=1", "names axis 'z'"), ("y=0:81", "has 80 voxels along y; take y within 0:80"), ("x=96:", "reaches past")],
    )
    def test_what_is_not_in_the_image_is_refused(self, text: str, message: str) -> None:
        with pytest.raises(ImageError, match=message):
            iter_segment(PLANE, blob_model(), region=text)


class TestSegmented:
    def test_labels_are_those_of_the_part(self) -> None:
        labels = segment(PLANE, blob_model(), region="y=40:,x=:50")
        assert labels.shape == (40, 50)
        expected = segment(PLANE, blob_model())[40:, :50]
        np.testing.assert_array_equal(labels > 0, expected > 0)
        assert labels.max() == 1

    def test_statistics_are_those_of_the_whole_frame(self) -> None:
        dim = PLANE // 4
        dim[0, 0] = 1000
        # By its own brightness every dim blob would be found.
        assert segment(dim[5:], blob_model()).max() == 4
        assert segment(dim, blob_model(), region="y=5:").max() == 0

    def test_frames_of_a_part_are_measured_each_on_its_own_frame(self) -> None:
        series = np.stack([PLANE // 8, PLANE, PLANE // 2])
        labels = segment(series, blob_model(), axes="tyx", region="t=1:,y=40:")
        assert labels.shape == (2, 40, 96)
        assert [len(np.unique(frame)) - 1 for frame in labels] == [2, 2]

    def test_frames_outside_are_not_read(self) -> None:
        lazy = Lazy(np.stack([PLANE] * 5))
        segment(Image(lazy, "tyx"), blob_model(), region="t=2")
        assert lazy.read == PLANE.size

    def test_a_volume(self) -> None:
        volume = blobs((24, 40, 40), [(6, 12, 12), (18, 28, 28)])
        labels = segment(volume, blob_model(ndim=3), axes="zyx", region="z=12:,y=10:")
        assert labels.shape == (12, 30, 40)
        assert labels.max() == 1
        assert labels[6, 18, 28] == 1

    def test_where_it_lies_is_told(self) -> None:
        *_, finished = iter_segment(np.stack([PLANE] * 3), blob_model(), axes="zyx", region="z=1:,x=40:")
        assert finished.offset == (1, 0, 40)
        assert finished.labels.shape == (2, 80, 56)
        assert finished.provenance["options"]["region"] == "z=1:,x=40:"

    def test_linked_slices(self) -> None:
        labels = segment(np.stack([PLANE] * 3), blob_model(), axes="zyx", region="z=1:,y=40:", link_slices=True)
        np.testing.assert_array_equal(labels[0], labels[1])


class TestFiles:
    def test_the_command_line_writes_the_offset(self, tmp_path: Path) -> None:
        path = tmp_path / "stack.ome.tif"
        write_labels(path, np.stack([PLANE] * 4), "zyx", (2.0, 0.5, 0.25))
        status = cli.run(
            [
                "segment",
                str(path),
                "--model",
                "blobs",
                "--region",
                "z=1:3,y=40:,x=10:60",
                "--out",
                str(tmp_path / "out"),
            ]
        )
        assert status == cli.DONE
        written = tmp_path / "out" / "stack_labels.ome.tif"
        assert read_image(written).shape == (2, 40, 50)
        assert read_description(written)["options"]["region"] == "z=1:3,y=40:,x=10:60"
        with tifffile.TiffFile(written) as file:
            planes = tifffile.xml2dict(file.ome_metadata)["OME"]["Image"]["Pixels"]["Plane"]
        assert [(p["PositionZ"], p["PositionY"], p["PositionX"]) for p in planes] == [
            (2.0, 20.0, 2.5),
            (4.0, 20.0, 2.5),
        ]
        assert {p["PositionXUnit"] for p in planes} == {"µm"}

    def test_without_a_spacing_there_is_no_position(self, tmp_path: Path) -> None:
        write_labels(tmp_path / "a.ome.tif", PLANE, "yx", place=Place({"y": 4, "x": 5}))
        with tifffile.TiffFile(tmp_path / "a.ome.tif") as file:
            assert "PositionX" not in file.ome_metadata
