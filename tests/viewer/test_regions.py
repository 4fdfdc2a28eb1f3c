"""Which part of a layer is segmented, and where its labels lie."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Image, Shapes

from napari_tiled_unet.errors import OptionsError
from napari_tiled_unet.region import Region
from napari_tiled_unet.segmentation import segment
from napari_tiled_unet.viewer.layers import labels_placement
from napari_tiled_unet.viewer.regions import (
    FRAME,
    RANGE,
    VIEW,
    View,
    region_of_frame,
    region_of_shapes,
    region_of_view,
    view_of,
)
from tests.models import blobs
from tests.viewer.test_segment_widget import CENTRES, PLANE, STACK, result

if TYPE_CHECKING:
    from napari.viewer import Viewer

    from napari_tiled_unet.viewer.segment_widget import SegmentWidget

pytestmark = pytest.mark.filterwarnings("ignore:Conversion from CIE-LAB:UserWarning")  # napari's label colours

Finish = Callable[["SegmentWidget"], None]
TRANSFORMS: dict[str, dict[str, Any]] = {
    "none": {},
    "scale": {"scale": (2.0, 0.5)},
    "translate": {"translate": (100.0, -40.0)},
    "rotate": {"rotate": 90.0},
    "shear": {"shear": (0.4,)},
    "affine": {"affine": np.array([[0.0, 1.5, 3.0], [-0.7, 0.0, 4.0], [0.0, 0.0, 1.0]])},
    "all": {
        "scale": (2.0, 0.5),
        "translate": (10.0, -5.0),
        "rotate": 30.0,
        "shear": (0.3,),
        "affine": np.array([[0.9, 0.2, 3.0], [-0.1, 1.1, 4.0], [0.0, 0.0, 1.0]]),
    },
}


class TestLevels:
    def test_of_a_view_and_of_shapes(self) -> None:
        levels = [np.zeros((40, 60)), np.zeros((20, 20))]
        layer = Image(levels, multiscale=True, scale=(2.0, 0.5))
        # What lies on the edges of voxels of both resolutions.
        view = View((0.0, 0.0), (0, 1), box(layer, (3.5, 5.5), (15.5, 35.5)))
        assert region_of_view(layer, "yx", view, "yx").text == "y=4:16,x=6:36"
        assert region_of_view(layer, "yx", view, "yx", level=1).text == "y=2:8,x=2:12"
        shapes = Shapes([box(layer, (3.5, 5.5), (15.5, 35.5))[[0, 1, 3, 2]]])
        assert region_of_shapes(layer, "yx", shapes, "yx", level=1).text == "y=2:8,x=2:12"


def box(layer: Image, low: tuple[float, ...], high: tuple[float, ...]) -> np.ndarray:
    """Return the world corners of a box of the last two axes, given in voxels."""
    corners = [(*low[:-2], y, x) for y in (low[-2], high[-2]) for x in (low[-1], high[-1])]
    return np.array([layer.data_to_world(corner) for corner in corners])


class TestView:
    @pytest.mark.parametrize("name", TRANSFORMS)
    def test_voxels_on_the_screen_are_found_under_every_transform(self, name: str) -> None:
        layer = Image(PLANE, **TRANSFORMS[name])
        corners = box(layer, (9.6, 19.6), (30.4, 50.4))
        region = region_of_view(layer, "yx", View((0.0, 0.0), (0, 1), corners), "yx")
        assert region.text == "y=10:31,x=20:51"

    def test_it_is_cut_at_the_layer(self) -> None:
        corners = np.array([[-5.0, -5.0], [-5.0, 500.0], [20.2, -5.0], [20.2, 500.0]])
        assert region_of_view(Image(PLANE), "yx", View((0.0, 0.0), (0, 1), corners), "yx").text == "y=0:21"

    def test_a_view_of_everything_is_no_region(self) -> None:
        corners = np.array([[-5.0, -5.0], [500.0, 500.0], [-5, 500], [500, -5]])
        assert region_of_view(Image(PLANE), "yx", View((0.0, 0.0), (0, 1), corners), "yx") == Region()

    def test_a_view_of_nothing_is_refused(self) -> None:
        corners = np.array([[500.0, 500.0], [600.0, 600.0]])
        with pytest.raises(OptionsError, match="bring it into view"):
            region_of_view(Image(PLANE, name="cells"), "yx", View((0.0, 0.0), (0, 1), corners), "yx")

    def test_sliders_choose_frames_but_not_the_axes_of_the_model(self) -> None:
        layer = Image(np.zeros((5, 2, 6, 8, 8)), scale=(1, 1, 2.0, 1, 1))
        view = View((3.0, 1.0, 8.0, 0.0, 0.0), (3, 4), box(layer, (3, 1, 4, 1, 1), (3, 1, 4, 3, 7)))
        assert region_of_view(layer, "tczyx", view, "yx").text == "t=3,z=4,y=1:4,x=1:8"
        assert region_of_view(layer, "tczyx", view, "zyx").text == "t=3,y=1:4,x=1:8"
        assert region_of_frame(layer, "tczyx", view, "yx").text == "t=3,z=4"
        assert region_of_frame(layer, "tczyx", view, "zyx").text == "t=3"

    def test_a_layer_of_fewer_axes_than_the_viewer(self) -> None:
        view = View((7.0, 0.0, 0.0), (1, 2), np.array([[7.0, 1.0, 1.0], [7.0, 3.0, 4.0]]))
        assert region_of_view(Image(PLANE), "yx", view, "yx").text == "y=1:4,x=1:5"

    def test_a_view_in_3d_chooses_frames_alone(self) -> None:
        view = View((2.0, 0.0, 0.0, 0.0), (1, 2, 3))
        assert region_of_view(Image(np.zeros((4, 3, 8, 8))), "tzyx", view, "yx").text == "t=2"

    def test_colours_are_no_axis(self) -> None:
        layer = Image(np.zeros((8, 9, 3), np.uint8), rgb=True)
        view = View((0.0, 0.0), (0, 1), np.array([[1.0, 2.0], [3.0, 4.0]]))
        assert region_of_view(layer, "yxc", view, "yx").text == "y=1:4,x=2:5"

    def test_what_a_viewer_shows(self) -> None:
        viewer = ViewerModel()
        viewer.add_image(np.zeros((4, 100, 100)))
        viewer.dims.set_current_step(0, 3)
        viewer.canvas.size = (200, 400)
        viewer.scene.camera.zoom, viewer.scene.camera.center = 10.0, (0.0, 50.0, 40.0)
        view = view_of(viewer)
        assert view.point[0] == 3
        assert view.displayed == (1, 2)
        np.testing.assert_allclose(view.corners.min(axis=0), (3, 40, 20))
        np.testing.assert_allclose(view.corners.max(axis=0), (3, 60, 60))
        viewer.dims.ndisplay = 3
        assert view_of(viewer).corners is None


class TestUnits:
    """Layers in other units lie in one world, whose unit need not be the layer's."""

    def test_the_view_and_shapes_of_a_layer_beside_a_finer_one(self) -> None:
        viewer = ViewerModel()
        coarse = viewer.add_image(PLANE, scale=(0.5, 0.5), units=("um", "um"), name="coarse")
        fine = viewer.add_image(PLANE, scale=(100, 100), units=("nm", "nm"), name="fine")
        viewer.canvas.size = (200, 400)
        # The world is in the finer unit: 10 to 20 um, and 5 to 25.
        viewer.scene.camera.zoom, viewer.scene.camera.center = 0.02, (0.0, 15_000.0, 15_000.0)
        assert region_of_view(coarse, "yx", view_of(viewer), "yx").text == "y=20:41,x=10:51"
        viewer.scene.camera.center = (0.0, 5_000.0, 10_000.0)
        assert region_of_view(fine, "yx", view_of(viewer), "yx") == Region()
        viewer.scene.camera.zoom, viewer.scene.camera.center = 0.1, (0.0, 2_000.0, 3_000.0)
        assert region_of_view(fine, "yx", view_of(viewer), "yx").text == "y=10:31,x=10:51"
        drawn = Shapes([np.array([[1000, 1000], [2000, 3000]])], units=("nm", "nm"))
        assert region_of_shapes(coarse, "yx", drawn, "yx").text == "y=2:5,x=2:7"
        assert region_of_shapes(fine, "yx", drawn, "yx").text == "y=10:21,x=10:31"

    def test_sliders(self) -> None:
        viewer = ViewerModel()
        stack = viewer.add_image(np.zeros((5, 40, 40)), scale=(2, 1, 1), units=("um", "um", "um"))
        viewer.add_image(np.zeros((50, 40, 40)), scale=(200, 1000, 1000), units=("nm", "nm", "nm"))
        viewer.dims.set_point(0, 4_000)
        assert region_of_frame(stack, "zyx", view_of(viewer), "yx").text == "z=2"

    def test_pixels_beside_lengths_are_as_they_are(self) -> None:
        viewer = ViewerModel()
        image = viewer.add_image(PLANE, scale=(0.5, 0.5), units=("um", "um"))
        drawn = Shapes([np.array([[1, 1], [2, 3]])])
        assert region_of_shapes(image, "yx", drawn, "yx").text == "y=2:5,x=2:7"


class TestShapes:
    @pytest.mark.parametrize("name", TRANSFORMS)
    def test_a_rectangle_is_found_under_every_transform(self, name: str) -> None:
        layer = Image(PLANE, **TRANSFORMS[name])
        shapes = Shapes([box(layer, (9.6, 19.6), (30.4, 50.4))[[0, 1, 3, 2]]], shape_type="polygon")
        assert region_of_shapes(layer, "yx", shapes, "yx").text == "y=10:31,x=20:51"

    def test_the_shapes_have_transforms_too(self) -> None:
        shapes = Shapes([np.array([[1, 1], [1, 3], [2, 3], [2, 1]])], scale=(10, 10), translate=(5, 0))
        assert region_of_shapes(Image(PLANE), "yx", shapes, "yx").text == "y=15:26,x=10:31"

    def test_the_selected_ones_count(self) -> None:
        one, two = np.array([[1, 1], [5, 5]]), np.array([[20, 20], [30, 30]])
        shapes = Shapes([one, two], shape_type="rectangle")
        assert region_of_shapes(Image(PLANE), "yx", shapes, "yx").text == "y=1:31,x=1:31"
        shapes.selected_data = {1}
        assert region_of_shapes(Image(PLANE), "yx", shapes, "yx").text == "y=20:31,x=20:31"

    def test_a_flat_rectangle_in_a_stack(self) -> None:
        layer = Image(np.zeros((5, 40, 40)))
        drawn = Shapes([np.array([[2, 4, 4], [2, 4, 9], [2, 9, 9], [2, 9, 4]])], shape_type="polygon")
        assert region_of_shapes(layer, "zyx", drawn, "yx").text == "z=2,y=4:10,x=4:10"
        # A volume under a 3D model: a plane of it would be no volume.
        assert region_of_shapes(layer, "zyx", drawn, "zyx").text == "y=4:10,x=4:10"
        flat = Shapes([np.array([[4, 4], [9, 9]])])
        assert region_of_shapes(layer, "zyx", flat, "yx").text == "y=4:10,x=4:10"

    def test_no_shape_or_none_on_the_image(self) -> None:
        with pytest.raises(OptionsError, match="draw a rectangle"):
            region_of_shapes(Image(PLANE), "yx", Shapes(), "yx")
        with pytest.raises(OptionsError, match="lie outside of it"):
            region_of_shapes(Image(PLANE), "yx", Shapes([np.array([[900, 900], [950, 950]])]), "yx")


class TestPlacement:
    @pytest.mark.parametrize("name", TRANSFORMS)
    def test_a_part_lies_on_its_part(self, name: str) -> None:
        layer = Image(PLANE, **TRANSFORMS[name])
        from napari.layers import Labels

        part = Labels(np.zeros((5, 6), np.uint8), **labels_placement(layer, "yx", {"y": 12, "x": 30}))
        np.testing.assert_allclose(part.data_to_world((2, 3)), layer.data_to_world((14, 33)))

    def test_beside_a_channel_axis(self) -> None:
        layer = Image(np.zeros((4, 2, 20, 20)), scale=(3, 1, 2, 0.5), translate=(1, 2, 3, 4))
        found = labels_placement(layer, "tcyx", {"t": 2, "y": 5, "x": 6})
        np.testing.assert_allclose(found["translate"], (7, 2.5, 13, 7))


class TestRun:
    @pytest.mark.parametrize("name", TRANSFORMS)
    def test_labels_of_a_rectangle_lie_on_its_objects(
        self, viewer: Viewer, docked: SegmentWidget, finish: Finish, name: str
    ) -> None:
        image = viewer.add_image(PLANE, **TRANSFORMS[name])
        shapes = viewer.add_shapes(box(image, (26.0, 14.0), (55.0, 50.0))[[0, 1, 3, 2]], shape_type="polygon")
        docked.layer = image
        docked.control("run_on").value = shapes
        docked.segment()
        finish(docked)
        labels = result(viewer)
        np.testing.assert_array_equal(labels.data, segment(PLANE, "blobs", region="y=26:56,x=14:51"))
        assert labels.get_value(image.data_to_world(CENTRES[2]), world=True) == 1
        assert labels.get_value(image.data_to_world(CENTRES[0]), world=True) is None

    def test_the_view(self, viewer: Viewer, docked: SegmentWidget, finish: Finish, qtbot: Any) -> None:
        image = viewer.add_image(np.tile(PLANE, (4, 4)))
        viewer.scene.camera.zoom = 20 * viewer.canvas.size[0] / 600
        viewer.scene.camera.center = (0.0, 40.0, 30.0)
        docked.control("run_on").value = VIEW
        docked.segment()
        finish(docked)
        labels = result(viewer)
        assert labels.data.shape < image.data.shape
        assert labels.get_value(image.data_to_world(CENTRES[2]), world=True) > 0

    def test_the_frame_of_a_series_keeps_its_place_in_time(
        self, viewer: Viewer, docked: SegmentWidget, finish: Finish
    ) -> None:
        viewer.add_image(STACK, axis_labels=("t", "y", "x"), scale=(5.0, 1.0, 1.0))
        viewer.dims.set_current_step(0, 2)
        docked.control("run_on").value = FRAME
        docked.segment()
        finish(docked)
        labels = result(viewer)
        assert labels.data.shape == (1, *PLANE.shape)
        assert labels.data_to_world((0, 0, 0)) == (10.0, 0.0, 0.0)
        assert labels.data.max() == 1

    def test_a_range_is_written(self, viewer: Viewer, docked: SegmentWidget, finish: Finish) -> None:
        viewer.add_image(STACK, axis_labels=("z", "y", "x"))
        assert not docked.control("region").native.isVisibleTo(docked.native)
        docked.control("run_on").value = RANGE
        assert docked.control("region").native.isVisibleTo(docked.native)
        docked.control("region").value = "z=9"
        docked.segment()
        finish(docked)
        assert "take z within 0:3" in docked.status
        docked.control("region").value = "z=1:3"
        docked.segment()
        finish(docked)
        assert result(viewer).data.shape == (2, *PLANE.shape)

    def test_a_shape_that_is_drawn_moved_or_taken_away_is_followed(
        self, viewer: Viewer, docked: SegmentWidget, qtbot: Any
    ) -> None:
        image = viewer.add_image(PLANE)
        shapes = viewer.add_shapes()
        docked.layer = image
        docked.control("run_on").value = shapes
        button = docked.control("segment")
        assert not button.enabled
        assert "draw a rectangle" in docked.status
        shapes.add_rectangles(np.array([[10, 10], [10, 30], [30, 30], [30, 10]]))
        qtbot.waitUntil(lambda: button.enabled, timeout=2_000)
        assert docked.status == ""
        shapes.translate = (500, 500)
        qtbot.waitUntil(lambda: not button.enabled, timeout=2_000)
        assert "lie outside of it" in docked.status
        shapes.translate = (0, 0)
        qtbot.waitUntil(lambda: button.enabled, timeout=2_000)
        shapes.data = []
        qtbot.waitUntil(lambda: not button.enabled, timeout=2_000)
        # Another place is chosen: the shapes count no more.
        docked.control("run_on").value = "whole layer"
        assert button.enabled
        viewer.layers.remove(shapes)
        assert button.enabled

    def test_a_layer_of_shapes_that_goes_leaves_the_whole(self, viewer: Viewer, docked: SegmentWidget) -> None:
        viewer.add_image(PLANE)
        shapes = viewer.add_shapes()
        docked.control("run_on").value = shapes
        assert "draw a rectangle" in docked.status
        viewer.layers.remove(shapes)
        assert docked.control("run_on").value == "whole layer"
        assert docked.status == ""

    def test_a_part_of_a_volume_under_a_3d_model(self, viewer: Viewer, docked: SegmentWidget, finish: Finish) -> None:
        volume = blobs((16, 40, 40), [(8, 12, 12), (8, 28, 28)])
        image = viewer.add_image(volume, scale=(2.0, 1.0, 1.0))
        docked.control("model").value = "blobs-3d"
        docked.control("run_on").value = RANGE
        docked.control("region").value = "z=2:14,y=20:"
        docked.segment()
        finish(docked)
        labels = result(viewer)
        assert labels.get_value(image.data_to_world((8, 28, 28)), world=True) == 1
