"""The forecast before the click."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests.viewer.test_segment_widget import PLANE, STACK

if TYPE_CHECKING:
    from napari.viewer import Viewer

    from napari_tiled_unet.viewer.segment_widget import SegmentWidget

pytestmark = pytest.mark.filterwarnings("ignore:Conversion from CIE-LAB:UserWarning")  # napari's label colours


@pytest.fixture
def settled(docked: SegmentWidget, qtbot: Any) -> Any:
    """Return a function that waits for the forecast and returns its text."""

    def wait() -> str:
        qtbot.waitUntil(lambda: not docked._outlook.busy, timeout=20_000)
        return docked._outlook.text

    return wait


def test_it_follows_the_form(viewer: Viewer, docked: SegmentWidget, settled: Any) -> None:
    assert settled() == ""
    viewer.add_image(np.tile(PLANE, (2, 2)))
    assert settled().startswith("1 tile, ")
    assert settled().endswith("about 1 s")
    docked.control("tile").value, docked.control("overlap").value = "32", "4"
    assert settled().startswith("30 tiles, ")
    docked.control("run_on").value = "range ..."
    docked.control("region").value = "y=:28,x=:28"
    assert settled().startswith("1 tile, ")


def test_it_waits_for_a_form_that_is_complete(viewer: Viewer, docked: SegmentWidget, settled: Any) -> None:
    viewer.add_image(STACK)
    assert settled() == ""
    docked.control("axes").value = "tyx"
    assert settled().startswith("3 tiles, ")
    docked.control("min_size").value = "many"
    assert settled() == ""


def test_what_does_not_fit_is_red_and_says_the_remedy(viewer: Viewer, docked: SegmentWidget, settled: Any) -> None:
    viewer.add_image(PLANE)
    docked.control("tile").value, docked.control("memory").value = "512", "0.00001"
    assert "take a smaller tile" in settled()
    assert "color" in docked._outlook.widget.native.styleSheet()
    docked.control("memory").value = ""
    assert "1 tile" in settled()
    assert docked._outlook.widget.native.styleSheet() == ""


def test_it_follows_the_view(viewer: Viewer, docked: SegmentWidget, settled: Any, qtbot: Any) -> None:
    viewer.add_image(np.tile(PLANE, (20, 20)))
    docked.control("tile").value, docked.control("overlap").value = "32", "4"
    docked.control("run_on").value = "current view"
    settled()
    viewer.scene.camera.zoom, viewer.scene.camera.center = 40.0, (0.0, 300.0, 300.0)
    qtbot.wait(400)
    few = settled()
    viewer.scene.camera.zoom = 4.0
    qtbot.wait(400)
    many = settled()
    assert int(few.split()[0]) < int(many.split()[0].replace(",", ""))
