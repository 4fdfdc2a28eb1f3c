"""Axes to frames and back, for every order, kind and laziness of array."""

from __future__ import annotations

import itertools
import zlib
from dataclasses import replace
from typing import Any

import dask.array as da
import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st

from napari_tiled_unet.axes import AXES
from napari_tiled_unet.errors import FileError, ImageError
from napari_tiled_unet.image import Image, image_from_array, luminance

SIZES = {"t": 2, "c": 3, "z": 4, "y": 5, "x": 6}


def image_of(axes: str, dtype: str = "uint16") -> Image:
    """Return an image whose voxels are all different."""
    shape = tuple(SIZES[a] for a in axes)
    return Image(np.arange(np.prod(shape)).reshape(shape).astype(dtype), axes)


ORDERS = st.sets(st.sampled_from("tcz")).flatmap(lambda more: st.permutations(sorted({*more, "y", "x"}))).map("".join)


@given(ORDERS, st.sampled_from(["yx", "zyx"]))
def test_frames_are_the_image_again(axes: str, spatial: str) -> None:
    image = image_of(axes)
    if not set(spatial) <= set(axes):
        with pytest.raises(ImageError, match=f"frames of 'zyx' need axis 'z', the image 'image' has '{axes}'"):
            list(image.frames(spatial))
        return
    frames = list(image.frames(spatial))
    canonical = image.data.transpose(
        [axes.index(a) for a in sorted(axes, key=(image.frame_axes(spatial) + "czyx").index)]
    )
    if "c" not in axes:
        canonical = np.expand_dims(canonical, len(image.frame_axes(spatial)))
    assert [f.index for f in frames] == list(range(len(frames)))
    for frame in frames:
        np.testing.assert_array_equal(frame.read(), canonical[frame.position])
    assert image.label_axes(spatial) == "".join(a for a in "tzyx" if a in axes)
    assert image.label_shape(spatial) == tuple(SIZES[a] for a in image.label_axes(spatial))
    assert len(frames) == np.prod([SIZES[a] for a in image.frame_axes(spatial)], dtype=int)


@pytest.mark.parametrize("kind", ["dask", "zarr"])
def test_lazy_images_read_one_frame_at_a_time(kind: str) -> None:
    plain = image_of("tczyx")
    read: list[object] = []

    class Watched:
        shape, dtype = plain.data.shape, plain.data.dtype
        source = da.from_array(plain.data, chunks=2) if kind == "dask" else zarr.array(plain.data, chunks=2)

        def __getitem__(self, key: Any) -> object:
            part = self.source[key]
            read.append(part.shape)
            return part

    lazy = Image(Watched(), "tczyx")
    for mine, theirs in zip(lazy.frames("yx"), plain.frames("yx"), strict=True):
        np.testing.assert_array_equal(mine.read([1]), theirs.read()[1:2])
    # One frame of one channel.
    assert set(read) == {(1, 1, 1, 5, 6)}


@given(ORDERS, st.lists(st.integers(0, 2), min_size=1, max_size=4), st.sampled_from(["numpy", "dask", "zarr"]))
def test_channels_are_picked_in_any_order_from_any_array(axes: str, channels: list[int], kind: str) -> None:
    plain = image_of(axes)
    if "c" not in axes:
        channels = [0]
    make: dict[str, Any] = {"numpy": np.asarray, "dask": da.from_array, "zarr": zarr.array}
    image = Image(make[kind](plain.data), axes)
    for frame, whole in zip(image.frames("yx"), plain.frames("yx"), strict=True):
        np.testing.assert_array_equal(frame.read(channels), whole.read()[channels])


@pytest.mark.parametrize(("axes", "channels"), [("cyx", [3]), ("cyx", [0, -1]), ("cyx", []), ("yx", [1])])
def test_channels_that_are_not_there_are_refused(axes: str, channels: list[int]) -> None:
    highest = image_of(axes).n_channels - 1
    with pytest.raises(ImageError, match=rf"channels \[.*\] of 'image' must be .* take 0 to {highest}$"):
        next(image_of(axes).frames("yx")).read(channels)


def test_arrays_in_memory_are_not_copied() -> None:
    image = image_of("tzyxc")
    assert all(np.shares_memory(frame.read(), image.data) for frame in image.frames("zyx"))


@pytest.mark.parametrize("dtype", [">u2", "<u2", ">f4", "f2", "i8"])
def test_frames_have_the_byte_order_of_the_machine(dtype: str) -> None:
    frame = next(image_of("yx", dtype).frames("yx")).read()
    assert frame.dtype.isnative
    assert frame.dtype == np.dtype(dtype).newbyteorder("=")
    np.testing.assert_array_equal(frame[0], np.arange(30).reshape(5, 6))


def test_missing_values_are_allowed() -> None:
    data = np.array([[np.nan, 1.0], [np.inf, 2.0]])
    np.testing.assert_array_equal(next(Image(data, "yx").frames("yx")).read()[0], data)


def test_bool_becomes_numbers() -> None:
    frame = next(Image(np.eye(4, dtype=bool), "yx").frames("yx"))
    assert frame.read().dtype == np.uint8
    assert frame.read().sum() == 4


class Broken:
    """A lazy array whose data cannot be read."""

    shape, dtype = (2, 4, 4), np.dtype("u1")

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __getitem__(self, key: object) -> object:
        raise self.error


@pytest.mark.parametrize("kind", [OSError, ValueError, RuntimeError, KeyError, EOFError, IndexError, zlib.error])
def test_damage_in_lazy_data_is_a_file_error(kind: type[Exception]) -> None:
    frames = list(Image(Broken(kind("short read")), "tyx", name="a.tif").frames("yx"))
    with pytest.raises(
        FileError, match=r"frame \(1,\) of 'a.tif' cannot be read: .?short read.?; the file may be damaged"
    ):
        frames[1].read()


@pytest.mark.parametrize("error", [MemoryError("full"), KeyboardInterrupt(), FileError("ours"), ImageError("ours")])
def test_what_is_no_damage_is_passed_on(error: BaseException) -> None:
    with pytest.raises(type(error)) as caught:
        next(Image(Broken(error), "tyx").frames("yx")).read()
    assert caught.value is error


def test_spacing_belongs_to_axes() -> None:
    image = Image(np.zeros((4, 5, 6)), "zyx", (2.0, 0.5, 0.25))
    assert image.spacing_of("yx") == (0.5, 0.25)
    assert image.spacing_of("xz") == (0.25, 2.0)
    assert image.spacing_of("tyx") is None
    assert image.with_spacing((3,)).spacing == (3.0, 3.0, 3.0)
    assert image_of("zyx").spacing_of("yx") is None
    assert image_of("zyx").units == "pixel"


def test_spacing_of_some_axes_is_used_where_it_suffices() -> None:
    image = Image(np.zeros((4, 5, 6)), "zyx", partial_spacing={"y": 0.5, "x": 0.25})
    assert (image.spacing, image.spacing_of("yx"), image.spacing_of("zyx")) == (None, (0.5, 0.25), None)
    assert replace(image, spacing=(1, 1, 1)).partial_spacing == {}
    assert Image(np.zeros((5, 6)), "yx", partial_spacing={"y": 0.5, "x": 0.25}).spacing == (0.5, 0.25)
    with pytest.raises(ImageError, match=r"partial_spacing .*'y': 0.* of 'image' must be positive numbers of axes"):
        Image(np.zeros((4, 5, 6)), "zyx", partial_spacing={"y": 0.0})


@pytest.mark.parametrize(
    "spacing",
    [(1.0,), (1.0, -1.0, 1.0), (1, float("nan"), 1), (1, float("inf"), 1), (0, 1, 1), (1, 1, 1, 1), "abc", 2.0],
)
def test_wrong_spacing_is_refused(spacing: Any) -> None:
    with pytest.raises(ImageError, match=r"must be one positive number per spatial axis \(zyx\); give 3, or one"):
        Image(np.zeros((4, 5, 6)), "zyx", spacing)


@pytest.mark.parametrize(
    ("units", "expected"),
    [("nm", 0.002), ("nanometers", 0.002), ("µm", 2.0), ("Micron", 2.0), ("mm", 2000.0), ("meter", 2e6), ("cm", 2e4)],
)
def test_lengths_become_micrometres(units: str, expected: float) -> None:
    image = Image(np.zeros((4, 5)), "yx", (2.0, 2.0), units)
    assert image.spacing == pytest.approx((expected, expected))
    assert image.units == "micrometer"
    again = image_from_array(np.zeros((4, 5)), spacing=[2.0], units=units)
    assert again.spacing == image.spacing


def test_spacing_in_pixels_is_none() -> None:
    image = Image(np.zeros((4, 5)), "yx", (1.0, 1.0), "pixel")
    assert (image.spacing, image.units) == (None, "pixel")


def test_unknown_units_are_refused() -> None:
    with pytest.raises(ImageError, match="units 'furlong' of 'image' are no length that is known; give the spacing in"):
        Image(np.zeros((4, 5)), "yx", (1.0, 1.0), "furlong")


def test_two_axes_need_no_name() -> None:
    assert image_from_array(np.zeros((4, 5))).axes == "yx"
    assert image_from_array([[1, 2], [3, 4]]).shape == (2, 2)


@pytest.mark.parametrize(("ndim", "choices"), [(3, "'zyx'.*'tyx'.*'cyx'.*'yxc'"), (4, "'tzyx'"), (5, "'tczyx'")])
def test_more_axes_are_never_guessed(ndim: int, choices: str) -> None:
    with pytest.raises(ImageError, match=f"are ambiguous; say with axes whether it is {choices}"):
        image_from_array(np.zeros((3,) * ndim))
    axes = AXES[-ndim:]
    assert image_from_array(np.zeros((3,) * ndim), axes).axes == axes


def test_arrays_that_name_their_axes_are_believed() -> None:
    class Named:
        shape, dtype, dims = (2, 3, 4), np.dtype("u1"), ("T", "Y", "X")

        def __getitem__(self, key: Any) -> np.ndarray:
            return np.zeros(self.shape, "u1")[key]

    assert image_from_array(Named()).axes == "tyx"
    assert image_from_array(Named(), spacing=[0.5]).spacing == (0.5, 0.5)


@pytest.mark.parametrize(
    ("data", "axes", "message"),
    [
        (np.zeros((4, 4), complex), "yx", "data type complex128, an image must be bool, integer or float"),
        (np.array([["a"]]), "yx", "data type <U1"),
        (np.array([[None]]), "yx", "data type object"),
        (np.zeros((2, 2), "datetime64[s]"), "yx", "data type datetime64"),
        (np.zeros((2, 2), [("red", "u1"), ("green", "u1")]), "yx", r"data type \[\('red'.*take for example"),
        (np.array(3), "", r"has 0 axes \(shape \(\)\)"),
        (np.zeros((2,) * 5), "zzzyx", "axes 'zzzyx' of 'image' must be different letters"),
        ([[1, 2]], "yx", "a list is not an array; give an array, an Image or a path"),
        (np.zeros(4), "x", r"has 1 axes \(shape \(4,\)\), an image has 2 to 5"),
        (np.zeros((1,) * 6), "tczyx", "has 6 axes"),
        (np.zeros((0, 4)), "yx", r"of shape \(0, 4\) is empty"),
        (np.zeros((4, 4)), "zyx", "axes 'zyx' name 3 axes, 'image' has 2"),
        (np.zeros((4, 4)), "zy", "must be different letters of 'tczyx', y and x among them"),
        (np.zeros((4, 4, 4)), "xyx", "must be different letters"),
        (np.zeros((4, 4, 4)), "qyx", "must be different letters"),
    ],
)
def test_what_is_no_image_is_refused(data: np.ndarray, axes: str, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        Image(data, axes)


def test_layers_are_not_arrays() -> None:
    class Labels:
        data = np.zeros((4, 4), int)

    with pytest.raises(
        ImageError, match=r"a Labels is not an array; give an array, an Image or a path .*labels cannot be segmented"
    ):
        image_from_array(Labels())


def test_arrays_of_another_library_are_named() -> None:
    class Tensor:
        shape, dtype = (4, 4), "tensor.float32"

        def __getitem__(self, key: object) -> object:
            raise NotImplementedError

    with pytest.raises(ImageError, match=r"a Tensor of data type tensor.float32, which NumPy does not have; convert"):
        image_from_array(Tensor())


def test_arrays_of_unknown_size_are_refused() -> None:
    data = da.from_array(np.arange(16).reshape(4, 4))
    with pytest.raises(ImageError, match=r"shape \(nan, 4\), whose sizes must be known; call compute_chunk_sizes"):
        Image(data[data.sum(axis=1) > 20], "yx")


def test_colours_are_never_guessed() -> None:
    assert not image_from_array(np.zeros((5, 6, 3), np.uint8), "yxc").is_rgb


@pytest.mark.parametrize("axes", ["".join(p) for p in itertools.permutations("cyx")] + ["tcyx", "zyxc"])
@pytest.mark.parametrize("n_channels", [3, 4])
def test_luminance_is_the_weighted_sum_of_the_colours(axes: str, n_channels: int) -> None:
    sizes = {**SIZES, "c": n_channels}
    data = np.random.default_rng(0).integers(0, 255, [sizes[a] for a in axes]).astype(np.uint8)
    grey = luminance(Image(data, axes, is_rgb=True))
    assert grey.axes == axes.replace("c", "")
    assert not grey.is_rgb
    colours = np.moveaxis(data, axes.index("c"), -1)[..., :3].astype(float)
    expected = colours @ [0.299, 0.587, 0.114]
    for frame in grey.frames("yx"):
        order = [a for a in grey.axes if a not in grey.frame_axes("yx")]
        plane = expected[
            tuple(dict(zip(grey.frame_axes("yx"), frame.position, strict=True)).get(a, slice(None)) for a in grey.axes)
        ]
        np.testing.assert_allclose(frame.read()[0], plane if order == ["y", "x"] else plane.T, rtol=1e-5)


def test_luminance_needs_colours() -> None:
    with pytest.raises(ImageError, match="has 2 channels, RGB has 3 or 4"):
        luminance(Image(np.zeros((2, 4, 4)), "cyx"))


def test_luminance_reads_a_frame_at_a_time() -> None:
    read: list[tuple[int, ...]] = []

    def noted(block: np.ndarray) -> np.ndarray:
        read.append(block.shape)
        return block

    data = da.from_array(np.full((6, 5, 4, 3), 200, np.uint16), chunks=(1, 5, 4, 3))
    lazy = data.map_blocks(noted, dtype=data.dtype, meta=np.empty((0, 0, 0, 0), np.uint16))
    frames = list(luminance(Image(lazy, "tyxc", is_rgb=True)).frames("yx"))
    assert read == []
    grey = frames[3].read()
    assert read == [(1, 5, 4, 3)]
    assert grey.dtype == np.float32
    np.testing.assert_allclose(grey, np.full((1, 5, 4), 200.0), rtol=1e-6)
    row = luminance(Image(np.full((5, 4, 3), 7, np.uint8), "yxc")).data[2]
    np.testing.assert_allclose(row, [7.0] * 4, rtol=1e-6)
