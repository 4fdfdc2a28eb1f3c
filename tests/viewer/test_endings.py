"""Runs that do not go straight to their end: memory runs out, or the widget goes before they do."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from napari_tiled_unet.events import Planned
from napari_tiled_unet.runtime import Runner
from napari_tiled_unet.viewer.running import Bar, Running
from tests.models import blobs
from tests.viewer.endings import ENDINGS, close, wait_for_threads

if TYPE_CHECKING:
    from napari.viewer import Viewer

    from napari_tiled_unet.viewer.segment_widget import SegmentWidget

PLANE = np.tile(blobs((64, 80), [(16, 20), (16, 60), (48, 40)]), (4, 4))


@pytest.fixture
def shrink(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Return what makes networks fail above 5000 voxels from then on, as a device does."""
    run = Runner.run

    def limited(self: Runner, tiles: np.ndarray) -> np.ndarray:
        if tiles.size > 5000:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB")
        return run(self, tiles)

    return lambda: monkeypatch.setattr(Runner, "run", limited)


def test_a_run_that_begins_anew_goes_on_in_its_layer(
    viewer: Viewer, docked: SegmentWidget, finish: Any, shrink: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[tuple[int, int]] = []
    show = Bar._show

    def seen(self: Bar) -> None:
        shown.append((self._tiles, self.widget.native.maximum()))
        show(self)

    monkeypatch.setattr(Bar, "_show", seen)
    viewer.add_image(PLANE, name="im")
    docked.control("tile").value = "60"
    docked.control("overlap").value = "10"
    docked.segment()
    finish(docked)
    expected = viewer.layers["im labels"].data.copy()
    viewer.layers.remove("im labels")
    shrink()
    docked.control("tile").value = "120"
    docked.segment()
    finish(docked)
    assert [layer.name for layer in viewer.layers] == ["im", "im labels"]
    assert viewer.layers["im labels"].editable
    np.testing.assert_array_equal(viewer.layers["im labels"].data, expected)
    done, all_tiles = shown[-1]
    assert done == all_tiles
    assert all(tiles <= of_all for tiles, of_all in shown)


def test_tiles_that_are_computed_again_are_counted_once(qtbot: Any) -> None:
    lines: list[str] = []
    bar = Bar(lines.append)
    bar.start("image")
    bar.plan(4)
    for _ in range(3):
        bar.count()
    bar.plan(9, again=2)
    assert (bar._tiles, bar.widget.native.maximum()) == (1, 9)
    bar.close()


def test_a_cancel_after_memory_ran_out_brings_the_earlier_labels_back(
    viewer: Viewer, docked: SegmentWidget, finish: Any, shrink: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    viewer.add_image(PLANE, name="im")
    docked.control("tile").value = "60"
    docked.control("overlap").value = "10"
    docked.segment()
    finish(docked)
    labels = viewer.layers["im labels"]
    before = labels.data.copy()
    shrink()
    docked.control("tile").value = "120"
    plans: list[Planned] = []
    plan = Running._plan

    def planned(self: Running, event: Planned) -> None:
        plan(self, event)
        plans.append(event)
        if len(plans) > 1:
            docked.cancel()

    monkeypatch.setattr(Running, "_plan", planned)
    docked.segment()
    finish(docked)
    assert len(plans) > 1
    assert labels.editable
    np.testing.assert_array_equal(labels.data, before)


def dock_half_tuned(viewer: Viewer, qtbot: Any) -> tuple[Any, np.ndarray]:
    """Return the dock of a widget whose slider is held, so that only what is in view was made anew; and before."""
    dock, widget = viewer.window.add_plugin_dock_widget("napari-tiled-unet", "Segment")
    viewer.add_image(PLANE, name="im")
    widget.control("model").value = "blobs"
    widget.segment()
    qtbot.waitUntil(lambda: not widget.running, timeout=60_000)
    before, tune = viewer.layers["im labels"].data, widget._tune
    tune.track("min_size").setSliderDown(True)
    tune.slider("min_size").value = 900
    qtbot.waitUntil(lambda: not tune._view_soon.isActive() and not tune._painter.busy, timeout=10_000)
    return dock, before


@pytest.mark.parametrize("ending", ENDINGS)
def test_labels_that_are_half_tuned_are_as_they_were(
    make_napari_viewer: Callable[..., Viewer], user_models: Any, qtbot: Any, ending: str
) -> None:
    viewer = make_napari_viewer()
    dock, before = dock_half_tuned(viewer, qtbot)
    labels = viewer.layers["im labels"]
    assert np.count_nonzero(labels.data) < np.count_nonzero(before)
    close(ending, viewer, dock)
    del dock
    gc.collect()
    qtbot.waitUntil(lambda: labels.data is before, timeout=20_000)
    wait_for_threads(qtbot)


def dock_in_a_second_run(viewer: Viewer, qtbot: Any) -> tuple[Any, np.ndarray]:
    """Return the dock of a widget that has run once and runs again, and its first labels."""
    dock, widget = viewer.window.add_plugin_dock_widget("napari-tiled-unet", "Segment")
    viewer.add_image(np.tile(PLANE, (4, 4)), name="large")
    widget.control("model").value = "blobs"
    widget.segment()
    qtbot.waitUntil(lambda: not widget.running, timeout=60000)
    before = viewer.layers["large labels"].data.copy()
    widget.control("tile").value = "16"
    widget.control("overlap").value = "4"
    widget.segment()
    qtbot.waitUntil(lambda: widget.status.startswith("tile 1"), timeout=60000)
    return dock, before


def test_a_dock_that_is_closed_brings_the_earlier_labels_back(viewer: Viewer, user_models: Any, qtbot: Any) -> None:
    """Nothing but the run holds its widget then, and garbage may be collected at any time."""
    dock, before = dock_in_a_second_run(viewer, qtbot)
    labels = viewer.layers["large labels"]
    assert not labels.editable
    dock.destroyOnClose()
    del dock
    gc.collect()
    qtbot.waitUntil(lambda: labels.editable, timeout=20000)
    np.testing.assert_array_equal(labels.data, before)
