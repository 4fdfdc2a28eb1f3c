"""Two Labels layers compared, and the way to what is wrong."""

from __future__ import annotations

import gc
import weakref
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from napari.layers import Labels

from napari_tiled_unet.disagreement import COLOURS
from napari_tiled_unet.errors import ImageError
from napari_tiled_unet.evaluation import evaluate
from napari_tiled_unet.viewer.layers import METADATA_KEY
from napari_tiled_unet.viewer.verdict import FAULT_COLOURS, compare_layers, frames_of, planes_in_time, score_rows

if TYPE_CHECKING:
    from napari.viewer import Viewer

    from napari_tiled_unet.viewer.evaluate_widget import EvaluateWidget

pytestmark = pytest.mark.filterwarnings("ignore:Conversion from CIE-LAB:UserWarning")  # napari's label colours

TRUTH = np.zeros((40, 60), np.int32)
TRUTH[2:10, 2:10], TRUTH[2:10, 20:36], TRUTH[20:28, 2:10], TRUTH[20:28, 14:22] = 1, 2, 3, 4
FOUND = np.zeros_like(TRUTH)
# 1 is missed, 2 is split, 3 and 4 are merged, 9 is extra.
FOUND[2:10, 20:28], FOUND[2:10, 28:36], FOUND[20:28, 2:22], FOUND[30:38, 44:52] = 5, 6, 7, 9


class TestVerdict:
    def test_each_kind_of_fault_has_its_place(self) -> None:
        verdict = compare_layers(Labels(FOUND), Labels(TRUTH), "objects", stack=True)
        found = {place.text.split()[0]: place.voxel for place in verdict.places}
        assert list(found) == ["merged", "split", "extra", "missed"]
        assert found["missed"] == (5.5, 5.5)
        assert found["split"] == (5.5, 27.5)
        assert found["extra"] == (33.5, 47.5)
        assert verdict.faults is not None
        assert verdict.faults[5, 5] == COLOURS["missed"]
        assert verdict.evaluation.scores == evaluate(FOUND, TRUTH).scores
        assert set(FAULT_COLOURS) == set(COLOURS)

    def test_planes_or_a_stack(self) -> None:
        assert frames_of((2, 3, 4, 5), stack=True) == [(0,), (1,)]
        assert len(frames_of((2, 3, 4, 5), stack=False)) == 6
        assert frames_of((4, 5), stack=True) == [()]
        planes = np.stack([TRUTH, FOUND])[:, None], np.stack([TRUTH, TRUTH])[:, None]
        for stack in (True, False):
            verdict = compare_layers(Labels(planes[0]), Labels(planes[1]), "objects", stack=stack)
            assert verdict.faults.shape == planes[1].shape
            assert {place.voxel[0] for place in verdict.places} == {1.0}
            assert all(len(place.voxel) == 4 for place in verdict.places)

    def test_classes_have_scores_only(self) -> None:
        verdict = compare_layers(
            Labels((FOUND > 0).astype(int)), Labels((TRUTH > 0).astype(int)), "classes", stack=True
        )
        assert verdict.faults is None
        assert "Dice" in verdict.evaluation.scores

    def test_other_shapes_are_refused(self) -> None:
        with pytest.raises(ImageError, match="must be of the same image"):
            compare_layers(Labels(FOUND[1:]), Labels(TRUTH), "objects", stack=True)

    def test_counts_are_whole(self) -> None:
        assert score_rows({"AP": 0.5, "missed": 2.0}) == [("AP", "0.500"), ("missed", "2")]

    @pytest.mark.parametrize(
        ("shape", "labels", "image_axes", "expected"),
        [
            ((3, 8, 8), "tyx", None, True),
            ((3, 8, 8), None, "tyx", True),
            ((3, 8, 8), None, "ctyx", True),
            ((3, 8, 8), None, "tyxc", True),  # of an RGB image
            ((3, 1, 8, 8), None, "tcyx", True),
            ((3, 4, 8, 8), "ztyx", None, True),
            # A stack per frame can be scored as objects in 3D.
            ((3, 4, 8, 8), "tzyx", "tzyx", False),
            ((3, 8, 8), "zyx", "zyx", False),
            ((3, 8, 8), None, None, False),
            ((3, 8, 8), None, "tzyx", False),
            ((8, 8), "yx", "yx", False),
        ],
    )
    def test_planes_in_time(
        self, shape: tuple[int, ...], labels: str | None, image_axes: str | None, expected: bool
    ) -> None:
        metadata = {} if image_axes is None else {METADATA_KEY: {"image_axes": image_axes}}
        layer = Labels(np.zeros(shape, np.uint8), axis_labels=labels and tuple(labels), metadata=metadata)
        assert planes_in_time(layer) is expected


def test_a_click_goes_to_the_fault(viewer: Viewer, qtbot: Any) -> None:
    from napari_tiled_unet.viewer.evaluate_widget import EvaluateWidget

    widget = EvaluateWidget(viewer)
    viewer.window.add_dock_widget(widget, name="Evaluate")
    for name in ("prediction", "truth", "target", "stack", "evaluate"):
        assert widget.control(name).tooltip
    assert not widget.control("evaluate").enabled
    planes = {"scale": (1.0, 0.5, 0.5), "translate": (0.0, 10.0, 0.0)}
    viewer.add_labels(np.stack([TRUTH, FOUND]), name="found", metadata={"tiled_unet": {}}, **planes)
    viewer.add_labels(np.stack([TRUTH, TRUTH]), name="truth", **planes)
    assert widget.control("prediction").value.name == "found"
    assert widget.control("truth").value.name == "truth"
    widget.control("stack").value = False
    widget.control("evaluate").native.click()
    qtbot.waitUntil(lambda: not widget.busy, timeout=20_000)
    assert widget.status == "4 faults; a click on one goes there"
    assert widget.table.item(0, 0).text() == "AP"
    faults = viewer.layers["faults of found"]
    np.testing.assert_allclose(faults.extent.world, viewer.layers["truth"].extent.world)
    viewer.dims.set_point(0, 0)
    widget.list.itemClicked.emit(widget.list.item(2))
    assert widget.places[2].text.startswith("extra predicted 9")
    assert viewer.dims.current_step[0] == 1
    np.testing.assert_allclose(viewer.scene.camera.center[-2:], (10 + 33.5 / 2, 47.5 / 2))
    # It takes the place of the layer before.
    widget.evaluate()
    qtbot.waitUntil(lambda: not widget.busy, timeout=20_000)
    assert len(viewer.layers) == 3


def test_a_click_goes_to_the_fault_in_a_world_of_finer_units(viewer: Viewer, qtbot: Any) -> None:
    from napari_tiled_unet.viewer.evaluate_widget import EvaluateWidget

    widget = EvaluateWidget(viewer)
    viewer.window.add_dock_widget(widget, name="Evaluate")
    place: dict[str, Any] = {"scale": (0.5, 0.5), "units": ("um", "um")}
    viewer.add_labels(FOUND, name="found", metadata={"tiled_unet": {}}, **place)
    viewer.add_labels(TRUTH, name="truth", **place)
    viewer.add_image(np.zeros((40, 60)), scale=(500, 500), units=("nm", "nm"))
    widget.evaluate()
    qtbot.waitUntil(lambda: not widget.busy, timeout=20_000)
    viewer.scene.camera.zoom = 1e-6
    widget.list.itemClicked.emit(widget.list.item(2))
    np.testing.assert_allclose(viewer.scene.camera.center[-2:], (33.5 * 500, 47.5 * 500))
    assert 1 / 500 < viewer.scene.camera.zoom < 50 / 500


@pytest.fixture
def docked_evaluate(viewer: Viewer) -> EvaluateWidget:
    """Return an evaluate widget docked in the viewer."""
    from napari_tiled_unet.viewer.evaluate_widget import EvaluateWidget

    widget = EvaluateWidget(viewer)
    viewer.window.add_dock_widget(widget, name="Evaluate")
    return widget


def compare(widget: EvaluateWidget, qtbot: Any) -> None:
    widget.evaluate()
    qtbot.waitUntil(lambda: not widget.busy, timeout=20_000)


def test_frames_of_a_time_series_are_scored_one_by_one(
    viewer: Viewer, docked_evaluate: EvaluateWidget, qtbot: Any
) -> None:
    # The same objects with other numbers in each frame, as the truth may have them.
    found = np.stack([TRUTH, np.where(TRUTH > 0, TRUTH + 4, 0), np.where(TRUTH > 0, TRUTH + 8, 0)])
    axes = ("t", "y", "x")
    viewer.add_labels(found, name="found", axis_labels=axes, metadata={"tiled_unet": {}})
    viewer.add_labels(np.stack([TRUTH] * 3), name="truth", axis_labels=axes)
    assert not docked_evaluate.control("stack").value
    compare(docked_evaluate, qtbot)
    assert docked_evaluate.status == "no object is wrong"


def test_what_the_run_wrote_down_says_what_a_frame_is(
    viewer: Viewer, docked_evaluate: EvaluateWidget, qtbot: Any
) -> None:
    stack = docked_evaluate.control("stack")
    found = viewer.add_labels(np.stack([FOUND] * 3), name="found", metadata={METADATA_KEY: {}})
    viewer.add_labels(np.stack([TRUTH] * 3), name="truth")
    assert stack.value
    # A run writes it when it ends, of which the list of layers does not tell.
    found.metadata[METADATA_KEY] = {"image_axes": "tyx"}
    compare(docked_evaluate, qtbot)
    assert not stack.value
    assert len(docked_evaluate.places) == 12


def test_the_user_says_what_a_stack_is(viewer: Viewer, docked_evaluate: EvaluateWidget, qtbot: Any) -> None:
    stack = docked_evaluate.control("stack")
    for name in ("found", "truth"):
        viewer.add_labels(np.stack([TRUTH] * 3), name=name, axis_labels=("t", "y", "x"))
    assert not stack.value
    stack.native.click()
    viewer.add_labels(np.stack([TRUTH] * 3), name="other")
    compare(docked_evaluate, qtbot)
    assert stack.value


def test_faults_that_the_user_removed_are_let_go(viewer: Viewer, docked_evaluate: EvaluateWidget, qtbot: Any) -> None:
    viewer.add_labels(FOUND, name="found", metadata={"tiled_unet": {}})
    viewer.add_labels(TRUTH, name="truth")
    compare(docked_evaluate, qtbot)
    gone = weakref.ref(viewer.layers["faults of found"])
    viewer.layers.remove("faults of found")
    # napari lets go of a layer in several steps.
    qtbot.waitUntil(lambda: gc.collect() >= 0 and gone() is None, timeout=5000)
    docked_evaluate.go_to(docked_evaluate.places[0])
    assert "was removed" in docked_evaluate.status


def test_classes_leave_no_faults_of_an_earlier_comparison(
    viewer: Viewer, docked_evaluate: EvaluateWidget, qtbot: Any
) -> None:
    viewer.add_labels(FOUND, name="found", metadata={"tiled_unet": {}})
    viewer.add_labels(TRUTH, name="truth")
    compare(docked_evaluate, qtbot)
    copy = viewer.add_labels(viewer.layers["faults of found"].data.copy(), name="faults of found, kept")
    docked_evaluate.control("target").value = "classes"
    for _ in range(2):
        compare(docked_evaluate, qtbot)
        assert docked_evaluate.status == "scores of the classes"
        assert docked_evaluate.list.count() == 0
        assert [layer.name for layer in viewer.layers] == ["found", "truth", copy.name]


def test_bad_input_is_a_sentence(viewer: Viewer, qtbot: Any, notified: list[tuple[str, str]]) -> None:
    from napari_tiled_unet.viewer.evaluate_widget import EvaluateWidget

    widget = EvaluateWidget(viewer)
    viewer.window.add_dock_widget(widget, name="Evaluate")
    viewer.add_labels(FOUND, name="found")
    viewer.add_labels(TRUTH[1:], name="other")
    widget.evaluate()
    qtbot.waitUntil(lambda: not widget.busy, timeout=20_000)
    assert "must be of the same image" in widget.status
    widget.control("truth").value = widget.control("prediction").value
    widget.evaluate()
    assert "two different" in widget.status
    assert [severity for severity, _ in notified] == ["error", "error"]


def test_layers_may_go_while_they_are_compared(viewer: Viewer, qtbot: Any, notified: list[tuple[str, str]]) -> None:
    from napari_tiled_unet.viewer.evaluate_widget import EvaluateWidget

    widget = EvaluateWidget(viewer)
    viewer.window.add_dock_widget(widget, name="Evaluate")
    viewer.add_labels(FOUND, name="found", metadata={"tiled_unet": {}})
    viewer.add_labels(TRUTH, name="truth")
    widget.evaluate()
    viewer.layers.clear()
    assert widget.control("prediction").value is None
    qtbot.waitUntil(lambda: not widget.busy, timeout=20_000)
    assert widget.status == "4 faults; a click on one goes there"
    assert [layer.name for layer in viewer.layers] == ["faults of found"]
    assert not notified
