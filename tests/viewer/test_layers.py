"""Layers to images and labels to layers: napari's layers, no Qt, no viewer."""

from __future__ import annotations

from typing import Any

import dask.array as da
import numpy as np
import pytest
import zarr
from napari.components import LayerList
from napari.layers import Image, Labels, Points

from napari_tiled_unet.errors import ImageError
from napari_tiled_unet.events import Finished, Planned
from napari_tiled_unet.tiling import plan_tiles
from napari_tiled_unet.viewer.layers import (
    METADATA_KEY,
    facts_of,
    image_from_layer,
    is_image_layer,
    labels_axes,
    labels_for_layer,
    labels_placement,
    named_axes,
    shear_matrix,
)
from napari_tiled_unet.viewer.live import LiveLabels
from napari_tiled_unet.viewer.results import own_result

pytestmark = pytest.mark.filterwarnings("ignore:Conversion from CIE-LAB:UserWarning")  # napari's label colours
TURN = 30.0


def finished(labels: np.ndarray, axes: str, **provenance: Any) -> Finished:
    return Finished(labels, axes, int(labels.max()), 0.1, provenance or {"model": "blobs"})


def show_labels(layers: LayerList, source: Image, axes: str, done: Finished) -> Labels:
    """Show the labels of a run that had no tiles to show before."""
    n = min(2, len(done.axes))
    plan = plan_tiles(done.labels.shape[-n:], (16,) * n, (0,) * n, (1,) * n)
    planned = Planned(1, 1, done.labels.shape, done.axes, plan, "cpu", "float32")
    return LiveLabels(layers, source, axes, planned, {}).finish(done, {})


def corners(layer: Any, shape: tuple[int, ...]) -> np.ndarray:
    """Return where the first and the last voxel lie in the world."""
    return np.array([layer.data_to_world(np.zeros(len(shape))), layer.data_to_world(np.array(shape) - 1)])


class TestFacts:
    def test_only_images_can_be_segmented(self) -> None:
        assert is_image_layer(Image(np.zeros((4, 5))))
        assert not is_image_layer(Labels(np.zeros((4, 5), np.uint8)))
        assert not is_image_layer(Points(np.zeros((1, 2))))

    def test_of_a_plain_layer(self) -> None:
        facts = facts_of(Image(np.zeros((4, 5)), name="cells"))
        assert (facts.name, facts.shape, facts.rgb, facts.named_axes) == ("cells", (4, 5), False, None)
        assert facts.spacing == (None, None)

    def test_of_an_rgb_layer(self) -> None:
        facts = facts_of(Image(np.zeros((4, 5, 3), np.uint8), rgb=True))
        assert facts.rgb
        assert facts.shape == (4, 5, 3)
        assert len(facts.spacing) == 2

    def test_of_a_multiscale_layer(self) -> None:
        assert facts_of(Image([np.zeros((64, 80)), np.zeros((32, 40))], multiscale=True)).shape == (64, 80)

    @pytest.mark.parametrize(
        ("labels", "axes"),
        [
            (("z", "y", "x"), "zyx"),
            (("Time", "Y", "X"), "tyx"),
            (("channel", "y", "x"), "cyx"),
            (("z", "z", "x"), None),
            (("plane", "row", "column"), None),
            (("z", "y", "t"), None),
            (None, None),
        ],
    )
    def test_axis_labels_name_the_axes(self, labels: tuple[str, ...] | None, axes: str | None) -> None:
        assert named_axes(Image(np.zeros((3, 4, 5)), axis_labels=labels)) == axes

    def test_axis_labels_of_an_rgb_layer(self) -> None:
        layer = Image(np.zeros((3, 4, 5, 3), np.uint8), rgb=True, axis_labels=("t", "y", "x"))
        assert named_axes(layer) == "tyxc"

    @pytest.mark.parametrize(
        ("unit", "factor"), [("um", 1.0), ("nm", 1e-3), ("mm", 1e3), ("pixel", None), ("second", None)]
    )
    def test_a_length_becomes_micrometres(self, unit: str, factor: float | None) -> None:
        layer = Image(np.zeros((4, 5)), scale=(2.0, -3.0), units=(unit, unit))
        expected = (None, None) if factor is None else (2.0 * factor, 3.0 * factor)
        assert facts_of(layer).spacing == pytest.approx(expected) if factor else facts_of(layer).spacing == expected


class TestImage:
    @pytest.mark.parametrize("kind", ["numpy", "dask", "zarr"])
    def test_the_data_are_passed_on_as_they_are(self, kind: str) -> None:
        array = np.arange(3 * 4 * 5, dtype=np.uint16).reshape(3, 4, 5)
        data: Any = {"numpy": array, "dask": da.from_array(array), "zarr": zarr.array(array)}[kind]
        image = image_from_layer(Image(data, name="cells"), "zyx")
        assert image.data is data
        assert (image.axes, image.name, image.spacing, image.units) == ("zyx", "cells", None, "pixel")

    def test_dask_is_not_computed(self) -> None:
        def explode(block: np.ndarray) -> np.ndarray:
            raise AssertionError("computed")

        lazy = da.zeros((100, 4, 5), chunks=(1, 4, 5)).map_blocks(explode, meta=np.zeros((0, 0, 0)), dtype=float)
        layer = Image(da.zeros((100, 4, 5), chunks=(1, 4, 5)), contrast_limits=(0, 1))
        layer._data = lazy
        assert image_from_layer(layer, "tyx").shape == (100, 4, 5)

    def test_a_multiscale_layer_gives_its_full_resolution(self) -> None:
        levels = [np.zeros((64, 80)), np.zeros((32, 40))]
        assert image_from_layer(Image(levels, multiscale=True), "yx").data is levels[0]

    def test_spacing_is_that_of_the_spatial_axes(self) -> None:
        layer = Image(
            np.zeros((2, 3, 4, 5)), scale=(60.0, 2.0, 500.0, 500.0), units=("second", "um", "nm", "nm"), name="movie"
        )
        image = image_from_layer(layer, "tzyx")
        assert image.spacing == pytest.approx((2.0, 0.5, 0.5))
        assert image.units == "micrometer"

    def test_spacing_is_unknown_when_an_axis_is_in_pixels(self) -> None:
        layer = Image(np.zeros((3, 4, 5)), scale=(2.0, 0.5, 0.5), units=("pixel", "um", "um"))
        assert image_from_layer(layer, "zyx").spacing is None

    def test_a_labels_layer_is_refused(self) -> None:
        layer = Labels(np.zeros((4, 5), np.uint8), name="nuclei labels")
        with pytest.raises(ImageError, match="'nuclei labels' is a Labels layer, only Image layers can be segmented"):
            image_from_layer(layer, "yx")

    def test_other_axes_than_the_data_have_are_refused(self) -> None:
        layer = Image(np.zeros((3, 8, 9)), name="cells")
        with pytest.raises(ImageError, match=r"axes='yx': the data of layer 'cells' have 3 axes.*choose anew"):
            image_from_layer(layer, "yx")


class TestPlacement:
    @pytest.mark.parametrize(
        ("axes", "rgb", "expected"),
        [
            ("yx", False, "yx"),
            ("tzyx", False, "tzyx"),
            ("cyx", False, "yx"),
            ("czyx", False, "zyx"),
            ("tcyx", False, "tcyx"),
            ("yxc", True, "yx"),
            ("tyxc", True, "tyx"),
        ],
    )
    def test_a_leading_channel_axis_is_dropped(self, axes: str, rgb: bool, expected: str) -> None:
        assert labels_axes(axes, rgb=rgb) == expected

    def test_labels_take_the_order_of_the_layer(self) -> None:
        labels = np.zeros((2, 3, 4, 5), np.uint8)
        assert labels_for_layer(labels, "tzyx", "ztyx").shape == (3, 2, 4, 5)
        assert labels_for_layer(labels, "tzyx", "tczyx").shape == (2, 1, 3, 4, 5)

    @pytest.mark.parametrize("shear", [[0.3], np.array([[1.0, 0.0], [0.3, 1.0]])])
    def test_every_part_of_the_transform_is_carried_over(self, shear: Any) -> None:
        image = Image(
            np.zeros((40, 50)),
            scale=(2.0, 0.5),
            translate=(10.0, -5.0),
            rotate=TURN,
            shear=shear,
            affine=np.array([[0.9, 0.2, 3.0], [-0.1, 1.1, 4.0], [0.0, 0.0, 1.0]]),
            units=("um", "nm"),
            axis_labels=("y", "x"),
        )
        labels = Labels(np.zeros((40, 50), np.uint8), **labels_placement(image, "yx"))
        for name in ("scale", "translate", "rotate", "shear", "affine"):
            np.testing.assert_allclose(
                np.asarray(getattr(labels, name)), np.asarray(getattr(image, name)), err_msg=name
            )
        assert labels.units == image.units
        assert labels.axis_labels == ("y", "x")
        np.testing.assert_allclose(corners(labels, (40, 50)), corners(image, (40, 50)))

    def test_a_leading_channel_axis_leaves_every_part(self) -> None:
        turned = np.eye(3)
        turned[1:, 1:] = [[0.8, -0.6], [0.6, 0.8]]
        affine = np.eye(4)
        affine[1:3, 3] = 7.0
        image = Image(
            np.zeros((3, 40, 50)),
            scale=(1.0, 2.0, 0.5),
            translate=(0.0, 10.0, -5.0),
            rotate=turned,
            shear=(0.0, 0.0, 0.25),
            affine=affine,
            units=("pixel", "um", "nm"),
            axis_labels=("c", "y", "x"),
        )
        labels = Labels(np.zeros((40, 50), np.uint8), **labels_placement(image, "cyx"))
        np.testing.assert_allclose(corners(labels, (40, 50)), corners(image, (1, 40, 50))[:, 1:])
        np.testing.assert_allclose(labels.scale, (2.0, 0.5))
        assert [str(unit) for unit in labels.units] == ["micrometer", "nanometer"]
        assert labels.axis_labels == ("y", "x")

    def test_an_inner_channel_axis_becomes_one_voxel_that_spans_all_channels(self) -> None:
        image = Image(np.zeros((5, 4, 40, 50)), scale=(3.0, 2.0, 0.5, 0.5), translate=(1.0, 6.0, 0.0, 0.0))
        labels = Labels(np.zeros((5, 1, 40, 50), np.uint8), **labels_placement(image, "tcyx"))
        for corner in (-0.5, 3.5):
            edge = 0.5 if corner > 0 else -0.5
            np.testing.assert_allclose(labels.data_to_world((0, edge, 0, 0)), image.data_to_world((0, corner, 0, 0)))
        for channel in range(4):
            there = image.data_to_world((2, channel, 7, 9))
            np.testing.assert_array_equal(np.round(labels.world_to_data(there)), (2, 0, 7, 9))

    def test_an_rgb_layer_has_no_channel_axis_to_drop(self) -> None:
        image = Image(np.zeros((40, 50, 3), np.uint8), rgb=True, scale=(2.0, 0.5), translate=(1.0, 2.0))
        placement = labels_placement(image, "yxc")
        np.testing.assert_allclose(placement["scale"], (2.0, 0.5))
        assert np.asarray(placement["affine"]).shape == (3, 3)

    def test_shear_is_a_matrix_or_its_upper_triangle(self) -> None:
        np.testing.assert_array_equal(shear_matrix([2.0, 3.0, 4.0], 3), [[1, 2, 3], [0, 1, 4], [0, 0, 1]])
        lower = np.array([[1.0, 0.0], [0.5, 1.0]])
        np.testing.assert_array_equal(shear_matrix(lower, 2), lower)


class TestResults:
    def test_the_first_run_adds_a_layer(self) -> None:
        image = Image(np.zeros((4, 5)), name="cells", scale=(2.0, 3.0))
        layers = LayerList([image])
        labels = show_labels(layers, image, "yx", finished(np.ones((4, 5), np.uint8), "yx", model="blobs", seconds=0.1))
        assert layers[-1] is labels
        assert labels.name == "cells labels"
        assert labels.metadata[METADATA_KEY]["model"] == "blobs"
        assert labels.metadata[METADATA_KEY]["source"] == str(image.unique_id)
        np.testing.assert_allclose(labels.scale, (2.0, 3.0))

    def test_the_second_run_replaces_the_data_and_follows_the_image(self) -> None:
        image = Image(np.zeros((4, 5)))
        layers = LayerList([image])
        first = show_labels(layers, image, "yx", finished(np.ones((4, 5), np.uint8), "yx"))
        first.opacity = 0.3
        image.translate = (7.0, 8.0)
        second = show_labels(layers, image, "yx", finished(np.full((4, 5), 300, np.uint16), "yx", model="other"))
        assert second is first
        assert len(layers) == 2
        assert second.data.max() == 300
        assert second.opacity == 0.3
        assert second.metadata[METADATA_KEY]["model"] == "other"
        np.testing.assert_allclose(second.translate, (7.0, 8.0))

    def test_layers_of_the_user_are_left_alone(self) -> None:
        image = Image(np.zeros((4, 5)), name="cells")
        own = Labels(np.full((4, 5), 7, np.uint8), name="cells labels")
        layers = LayerList([image, own])
        first = show_labels(layers, image, "yx", finished(np.ones((4, 5), np.uint8), "yx"))
        copy = Labels(first.data.copy(), name="a copy", metadata=dict(first.metadata))
        layers.append(copy)
        layers.remove(first)
        second = show_labels(layers, image, "yx", finished(np.full((4, 5), 2, np.uint8), "yx"))
        assert second not in (own, copy, first)
        assert own.data.max() == 7
        assert copy.data.max() == 1

    def test_each_image_has_its_own_result(self) -> None:
        images = [Image(np.zeros((4, 5)), name=name) for name in "ab"]
        layers = LayerList(images)
        results = [show_labels(layers, image, "yx", finished(np.ones((4, 5), np.uint8), "yx")) for image in images]
        assert results[0] is not results[1]
        assert own_result(layers, images[0]) is results[0]
        assert own_result(layers, images[1]) is results[1]

    def test_another_reading_of_the_axes_gives_a_new_layer_in_place_of_the_old(self) -> None:
        image = Image(np.zeros((3, 4, 5)))
        layers = LayerList([image])
        first = show_labels(layers, image, "zyx", finished(np.ones((3, 4, 5), np.uint8), "zyx"))
        second = show_labels(layers, image, "cyx", finished(np.ones((4, 5), np.uint8), "yx"))
        assert first not in layers
        assert list(layers) == [image, second]
        assert second.ndim == 2
