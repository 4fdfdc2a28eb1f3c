"""Images of every kind to labels, through the public functions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from napari_tiled_unet import ImageError, OptionsError, iter_segment, segment
from napari_tiled_unet.errors import FileError, MemoryBudgetError, ModelError
from napari_tiled_unet.events import Finished, FrameDone, Notice, Planned, TileDone
from napari_tiled_unet.image import Image
from napari_tiled_unet.options import SegmentOptions
from tests.models import blob_model, blobs

CENTRES = [(15, 20), (15, 50), (40, 30)]
PLANE = blobs((56, 72), CENTRES)
STACK = np.stack([PLANE, np.zeros_like(PLANE), blobs((56, 72), CENTRES[:1])])


def test_an_array_becomes_labels() -> None:
    labels = segment(PLANE, "blobs")
    assert labels.shape == PLANE.shape
    assert labels.dtype == np.uint8
    assert len({int(labels[c]) for c in CENTRES}) == 3
    assert labels[0, 0] == 0
    assert labels.max() == 3


def test_a_path_becomes_labels(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", PLANE)
    np.testing.assert_array_equal(segment(tmp_path / "a.tif", "blobs"), segment(PLANE, "blobs"))
    np.testing.assert_array_equal(segment(str(tmp_path / "a.tif"), "blobs"), segment(PLANE, "blobs"))


def test_a_level_of_a_multiscale_file(tmp_path: Path) -> None:
    fine = PLANE.repeat(2, axis=0).repeat(2, axis=1)
    with tifffile.TiffWriter(tmp_path / "a.ome.tif") as tiff:
        tiff.write(fine, subifds=1, tile=(16, 16), metadata={"axes": "YX"})
        tiff.write(PLANE, subfiletype=1, tile=(16, 16))
    coarse = segment(tmp_path / "a.ome.tif", "blobs", level=1)
    np.testing.assert_array_equal(coarse, segment(PLANE, "blobs"))
    assert segment(tmp_path / "a.ome.tif", "blobs").shape == fine.shape
    with pytest.raises(ImageError, match="level=1: 'image' is one array, not a multiscale file; leave level out"):
        segment(PLANE, "blobs", level=1)


@pytest.mark.parametrize("kind", ["dask", "zarr", "list", "image", "float64", "bool", "uint8", "big-endian"])
def test_every_kind_of_array_goes_in(kind: str) -> None:
    given: object
    if kind == "dask":
        da = pytest.importorskip("dask.array")
        given = da.from_array(PLANE, chunks=(20, 20))
    elif kind == "zarr":
        zarr = pytest.importorskip("zarr")
        given = zarr.array(PLANE)
    elif kind == "image":
        given = Image(PLANE, "yx")
    elif kind == "list":
        given = PLANE.tolist()
    elif kind == "bool":
        given = PLANE >= 750
    elif kind == "uint8":
        given = (PLANE / 4).astype(np.uint8)
    else:
        given = PLANE.astype(">u2" if kind == "big-endian" else kind)
    labels = segment(given, "blobs")
    assert labels.max() == 3
    if kind not in ("bool", "uint8"):
        np.testing.assert_array_equal(labels, segment(PLANE, "blobs"))


@pytest.mark.parametrize("axes", ["zyx", "tyx"])
def test_a_2d_model_goes_through_frames_and_numbers_stay_unique(axes: str) -> None:
    events = list(iter_segment(STACK, "blobs", axes=axes))
    labels = events[-1].labels
    assert labels.shape == STACK.shape
    assert events[-1].axes == axes
    assert [e.n_objects for e in events if isinstance(e, FrameDone)] == [3, 0, 1]
    assert sorted(np.unique(labels)) == [0, 1, 2, 3, 4]


def test_slices_are_linked_into_3d_objects() -> None:
    stack = np.stack([PLANE] * 4)
    assert segment(stack, "blobs", axes="zyx").max() == 12
    linked = segment(stack, "blobs", axes="zyx", link_slices=True)
    assert linked.max() == 3
    assert (linked == linked[0]).all()
    series = segment(np.stack([stack, stack]), "blobs", axes="tzyx", link_slices=True)
    assert series.max() == 6, "objects of different time points stay apart"


def test_a_3d_model_takes_volumes_and_series_of_them() -> None:
    volume = blobs((20, 30, 34), [(9, 9, 9), (9, 20, 25)])
    labels = segment(volume, "blobs-3d", axes="zyx")
    assert labels.max() == 2
    series = segment(np.stack([volume, volume]), "blobs-3d", axes="tzyx")
    assert series.shape == (2, 20, 30, 34)
    assert series.max() == 4


def test_axes_may_stand_in_any_order() -> None:
    stack = np.stack([PLANE, PLANE[::-1]])
    events = list(iter_segment(np.moveaxis(stack, 0, -1), "blobs", axes="yxz"))
    assert events[-1].axes == "zyx"
    np.testing.assert_array_equal(events[-1].labels, segment(stack, "blobs", axes="zyx"))


def test_axes_that_disagree_with_an_images_own_are_refused() -> None:
    image = Image(np.stack([PLANE, PLANE]), "tyx", name="series")
    wrong = "axes='zyx': 'series' has axes 'tyx' already; leave axes out, or make the Image with those that it has"
    with pytest.raises(OptionsError, match=wrong):
        iter_segment(image, "blobs", axes="zyx")
    np.testing.assert_array_equal(segment(image, "blobs", axes="tyx"), segment(image, "blobs"))


def test_one_channel_is_chosen() -> None:
    two = np.stack([np.zeros_like(PLANE), PLANE])
    assert segment(two, "blobs", axes="cyx", channel=1).max() == 3
    with pytest.raises(
        OptionsError, match=r"has 2 channels, model 'blobs' takes one .*; say which with channel=0 to 1"
    ):
        segment(two, "blobs", axes="cyx")
    with pytest.raises(OptionsError, match=r"channel=2, the image has 2, counted from 0; take 0 to 1"):
        segment(two, "blobs", axes="cyx", channel=2)
    with pytest.warns(UserWarning, match="every finite voxel is"):
        assert segment(two, "blobs", axes="cyx", channel=0).max() == 0


def test_a_model_of_two_channels_takes_exactly_two() -> None:
    model = blob_model(in_channels=2)
    assert segment(np.stack([PLANE, PLANE[::-1]]), model, axes="cyx").max() == 3
    with pytest.raises(
        ImageError, match=r"has 1 channels, model 'blobs' needs 2 \(channel 0, channel 1\); give exactly those"
    ):
        segment(PLANE, model)
    with pytest.raises(OptionsError, match=r"channel chooses one channel, model 'blobs' needs 2"):
        segment(np.stack([PLANE, PLANE]), model, axes="cyx", channel=1)


def test_rgb_is_converted_for_a_grey_model_and_said(tmp_path: Path) -> None:
    grey = (PLANE / 4).astype(np.uint8)
    tifffile.imwrite(tmp_path / "rgb.tif", np.stack([grey] * 3, axis=-1), photometric="rgb")
    events = list(iter_segment(tmp_path / "rgb.tif", "blobs"))
    assert events[-1].labels.max() == 3
    assert events[-1].labels.shape == PLANE.shape
    assert any("RGB converted to grey" in e.message for e in events if isinstance(e, Notice))


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_object_size_rescales_to_the_model_and_back(factor: float) -> None:
    shape, centres = (56 * 2, 72 * 2), [(30, 40), (30, 100), (80, 60)]
    image = blobs(shape, centres, radius=5 * factor)
    events = list(iter_segment(image, "blobs", object_size=10 * factor))
    labels = events[-1].labels
    assert labels.shape == image.shape
    assert labels.max() == 3
    plan = next(e for e in events if isinstance(e, Planned)).plan
    assert plan.shape == tuple(round(n / factor) for n in shape)
    unscaled = segment(image, "blobs")
    overlap = np.count_nonzero((labels > 0) & (unscaled > 0)) / np.count_nonzero((labels > 0) | (unscaled > 0))
    assert overlap > 0.8


def test_spacing_rescales_to_the_models_spacing() -> None:
    model = blob_model(spacing=(0.5, 0.5))
    plan = next(e for e in iter_segment(PLANE, model, spacing=1.0) if isinstance(e, Planned)).plan
    assert plan.shape == (112, 144)
    plan = next(e for e in iter_segment(Image(PLANE, "yx", spacing=(0.25, 0.5)), model) if isinstance(e, Planned)).plan
    assert plan.shape == (28, 72)
    assert segment(Image(PLANE, "yx", spacing=(0.25, 0.5)), model).shape == PLANE.shape


def test_spacing_without_a_models_spacing_is_said_to_change_nothing() -> None:
    events = list(iter_segment(PLANE, "blobs", spacing=1.0))
    assert any("trained on images of unknown voxel size" in e.message for e in events if isinstance(e, Notice))


def test_object_size_needs_a_model_that_states_one() -> None:
    with pytest.raises(OptionsError, match="object_size needs a model that states its own"):
        segment(PLANE, blob_model(object_size=None), object_size=20)


@pytest.mark.parametrize("blend", ["crop", "gaussian"])
def test_tiles_give_the_labels_of_the_whole(blend: str) -> None:
    whole = segment(PLANE, "blobs", precision="float32")
    tiled = segment(PLANE, "blobs", precision="float32", tile=24, overlap=9, blend=blend)
    np.testing.assert_array_equal(tiled, whole)


def test_classes_are_argmax() -> None:
    labels = segment(PLANE, blob_model(classes=True))
    np.testing.assert_array_equal(labels, PLANE > 500)


def test_events_come_in_order_and_tell_the_plan() -> None:
    events = list(iter_segment(STACK, "blobs", axes="zyx", tile=32, overlap=4, keep_maps=True))
    planned = next(e for e in events if isinstance(e, Planned))
    tiles = [e for e in events if isinstance(e, TileDone)]
    assert planned.n_frames == 3
    assert planned.n_tiles == len(tiles) == 3 * len(planned.plan)
    assert planned.shape == STACK.shape
    finished = events[-1]
    assert isinstance(finished, Finished)
    assert finished.maps is not None
    assert finished.maps.shape == (2, *STACK.shape)
    assert finished.n_objects == 4
    assert finished.provenance["model"] == "blobs"
    assert finished.provenance["options"]["tile"] == (32,)
    assert finished.provenance["tile"] == [32, 32]


def test_maps_are_not_kept_unless_asked_for() -> None:
    finished = list(iter_segment(PLANE, "blobs"))[-1]
    assert isinstance(finished, Finished)
    assert finished.maps is None


def test_closing_cancels() -> None:
    events = iter_segment(STACK, "blobs", axes="zyx", tile=16, overlap=4)
    for event in events:
        if isinstance(event, TileDone):
            break
    events.close()
    assert list(events) == []


def test_constant_and_non_finite_images_are_segmented_with_a_word() -> None:
    with pytest.warns(UserWarning, match="every finite voxel is"):
        assert segment(np.full((30, 30), 7, np.uint8), "blobs").max() == 0
    broken = PLANE.astype(np.float32)
    broken[0, :5] = np.nan
    broken[1, 0] = np.inf
    with pytest.warns(UserWarning, match=r"(?i)nan|finite"):
        labels = segment(broken, "blobs")
    np.testing.assert_array_equal(labels[5:], segment(PLANE, "blobs")[5:])
    with pytest.warns(UserWarning, match=r"(?i)nan|finite"):
        rescaled = segment(broken, "blobs", object_size=20)
    assert rescaled.max() == segment(PLANE, "blobs", object_size=20).max() > 0


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (3, 5), (17, 33)])
def test_small_and_odd_images(shape: tuple[int, int]) -> None:
    image = np.arange(np.prod(shape)).reshape(shape).astype(np.uint16)
    if image.size == 1:
        with pytest.warns(UserWarning, match="every finite voxel is"):
            assert segment(image, "blobs").shape == shape
    else:
        assert segment(image, "blobs").shape == shape


@pytest.mark.parametrize(
    ("array", "keywords", "error", "message"),
    [
        (np.zeros((8, 8), complex), {}, ImageError, r"complex"),
        (np.array([["a", "b"]]), {}, ImageError, r"<U1|str"),
        (np.zeros((0, 8)), {}, ImageError, r"empty|no voxels"),
        (np.zeros(8), {}, ImageError, r"(1 axis|1-D|1D|1 axes|one axis)"),
        (np.zeros((2, 2, 2, 2, 8, 8)), {}, ImageError, r"6"),
        (np.zeros((4, 8, 8)), {}, ImageError, r"ambiguous; say with axes whether it is .zyx."),
        (np.zeros((4, 8, 8)), {"axes": "yx"}, ImageError, r"axes"),
        (np.zeros((8, 8)), {"spacing": float("nan")}, OptionsError, r"spacing"),
        (np.zeros((8, 8)), {"spacing": (1, 1, 1)}, (ImageError, OptionsError), r"spacing"),
        (np.zeros((8, 8)), {"tile": 16, "overlap": 8}, OptionsError, r"overlap"),
        (np.zeros((8, 8)), {"link_slices": True}, OptionsError, r"link_slices joins the 2D objects of a z-stack"),
        (np.zeros((8, 8)), {"model": "nope"}, ModelError, r"model 'nope' is unknown"),
        (np.zeros((8, 8)), {"model": "blobs-3d"}, ImageError, r"needs axes 'zyx', the image .* has 'yx'"),
        (PLANE, {"tile": 48, "memory": 1e-6}, MemoryBudgetError, r"a tile of \(48, 48\) voxels needs"),
    ],
)
def test_bad_input_gets_a_clear_error(array: np.ndarray, keywords: dict, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        segment(array, **{"model": "blobs", **keywords})


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"missing.tif"):
        segment(tmp_path / "missing.tif", "blobs")
    with pytest.raises(FileError, match=r"folder|directory"):
        segment(tmp_path, "blobs")
    tifffile.imwrite(tmp_path / "cut.tif", PLANE)
    (tmp_path / "cut.tif").write_bytes((tmp_path / "cut.tif").read_bytes()[:-3000])
    with pytest.raises(FileError, match=r"cut.tif"):
        segment(tmp_path / "cut.tif", "blobs")


def test_bad_options_raise_at_the_call_and_not_at_the_first_event() -> None:
    with pytest.raises(OptionsError):
        iter_segment(PLANE, "blobs", channel=3)


def test_options_and_keywords_combine() -> None:
    options = SegmentOptions.of(model="blobs", min_size=10_000)
    assert segment(PLANE, options=options).max() == 0
    assert segment(PLANE, options=options, min_size=0).max() == 3


def test_a_result_that_does_not_fit_memory_is_refused_before_the_work() -> None:
    da = pytest.importorskip("dask.array")
    huge = da.zeros((10**6, 2000, 2000), dtype=np.uint8)
    with pytest.raises(MemoryBudgetError, match=r"the result of shape .* needs"):
        for _ in iter_segment(huge, "blobs", axes="tyx"):
            pass


def test_a_models_spacing_may_have_other_units() -> None:
    image = Image(PLANE, "yx", spacing=(0.25, 0.25))
    model = blob_model(spacing=(250.0, 250.0), units="nanometer")
    assert not [e for e in iter_segment(image, model) if isinstance(e, Notice) and "rescaled" in e.message]
    np.testing.assert_array_equal(segment(image, model), segment(image, blob_model()))
    half = segment(PLANE, model, spacing=0.5)
    np.testing.assert_array_equal(half, segment(PLANE, blob_model(spacing=(0.25, 0.25)), spacing=0.5))
    with pytest.raises(ValueError, match="units 'parsec' of the spacing are no length"):
        blob_model(spacing=(1.0, 1.0), units="parsec")


def test_kept_maps_may_be_a_part_of_something_larger() -> None:
    stack = np.stack([PLANE, PLANE[::-1]])
    room = np.zeros((2, 2, PLANE.shape[0], PLANE.shape[1] + 3), np.float32)
    events = iter_segment(stack, "blobs", axes="tyx", keep_maps=lambda shape: room[..., : shape[-1]])
    maps = list(events)[-1].maps
    assert np.shares_memory(maps, room)
    np.testing.assert_array_equal(maps[:, 1], list(iter_segment(PLANE[::-1], "blobs", keep_maps=True))[-1].maps)


def test_a_rescaled_frame_that_does_not_fit_is_refused_at_once() -> None:
    wrong = r"become \(56000, 72000\) and need .* GiB may be used; is the voxel size of .* right"
    with pytest.raises(MemoryBudgetError, match=wrong):
        segment(PLANE, "blobs", object_size=0.01, memory=1)


@pytest.mark.parametrize(
    "idle",
    [
        {"foreground_threshold": 0.9},
        {"seed_threshold": 0.2},
        {"seed_prominence": 0.2},
        {"min_size": 100, "fill_holes": False},
    ],
)
def test_what_makes_objects_is_refused_by_classes(idle: dict[str, Any]) -> None:
    names = " and ".join(idle)
    with pytest.raises(OptionsError, match=f"{names}: model 'blobs' predicts classes.*leave them out"):
        segment(np.zeros((20, 20), np.uint8), blob_model(classes=True), **idle)
