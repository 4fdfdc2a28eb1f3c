"""Two Labels layers compared, and the way to what is wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from napari.layers import Labels

from napari_tiled_unet.disagreement import COLOURS
from napari_tiled_unet.errors import ImageError
from napari_tiled_unet.evaluation import evaluate
from napari_tiled_unet.viewer.verdict import FAULT_COLOURS, compare_layers, frames_of, score_rows

if TYPE_CHECKING:
    from napari.viewer import Viewer

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
