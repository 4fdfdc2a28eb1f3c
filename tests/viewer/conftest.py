"""A display, a tiny model and a quiet napari for the viewer's tests."""

from __future__ import annotations

import copy
import gc
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.viewer.display import has_display, virtual_display

if TYPE_CHECKING:
    from napari.viewer import Viewer

    from napari_tiled_unet.viewer.segment_widget import SegmentWidget

ALLOW_SKIP = "TILED_UNET_ALLOW_SKIPPING_VIEWER_TESTS"


@pytest.fixture(scope="session")
def display() -> Iterator[None]:
    """Make sure that Qt finds a display with OpenGL."""
    if has_display():
        yield
        return
    try:
        with virtual_display():
            yield
    except FileNotFoundError as error:
        if os.environ.get(ALLOW_SKIP):
            pytest.skip(f"{error} (skipped because {ALLOW_SKIP} is set)")
        pytest.fail(f"{error} (or set {ALLOW_SKIP}=1 to skip the viewer tests)", pytrace=False)


@pytest.fixture(scope="session")
def qapp_args(display: None) -> list[str]:
    """Let pytest-qt make its application only after there is a display."""
    return ["tiled-unet-tests"]


@pytest.fixture(scope="session", autouse=True)
def napari_settings(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep napari's settings out of the user's own; before napari reads them."""
    os.environ["NAPARI_CONFIG"] = str(tmp_path_factory.mktemp("napari") / "settings.yaml")


@pytest.fixture(scope="session")
def frugal() -> Iterator[None]:
    """Spare each viewer what is the same for all: half a second of a second and a half."""
    import napari  # noqa: F401 - what is imported from here on is looked through by every collection of garbage
    from npe2.manifest import _bases

    read = _bases._load_yaml_no_duplicates
    known: dict[str, Any] = {}

    def read_once(stream: Any) -> Any:
        text = stream if isinstance(stream, str) else stream.read()
        if text not in known:
            known[text] = read(text)
        return copy.deepcopy(known[text])

    # napari makes three collections per viewer, of all that torch and napari have ever made.
    gc.collect()
    gc.freeze()
    with pytest.MonkeyPatch.context() as patch:
        # Every viewer reads the manifests of all plugins again.
        patch.setattr(_bases, "_load_yaml_no_duplicates", read_once)
        yield
    gc.unfreeze()


@pytest.fixture
def viewer(frugal: None, make_napari_viewer: Callable[..., Viewer]) -> Viewer:
    """Return a real viewer, with its window not shown."""
    return make_napari_viewer()


def _dock(viewer: Viewer, name: str) -> SegmentWidget:
    from napari_tiled_unet.viewer.segment_widget import SegmentWidget

    widget = SegmentWidget(viewer)
    viewer.window.add_dock_widget(widget, name=name, area="right")
    widget.control("model").value = "blobs"
    return widget


@pytest.fixture
def docked(viewer: Viewer, user_models: Path) -> SegmentWidget:
    """Return a segment widget docked in the viewer, set to the hand-made 2D model."""
    return _dock(viewer, "Segment")


@pytest.fixture
def another(viewer: Viewer, docked: SegmentWidget) -> SegmentWidget:
    """Return a second segment widget in the viewer."""
    return _dock(viewer, "another")


@pytest.fixture
def notified() -> Iterator[list[tuple[str, str]]]:
    """Return the notifications of the test: severity and message."""
    from napari.utils.notifications import notification_manager

    heard: list[tuple[str, str]] = []

    def hear(event: Any) -> None:
        heard.append((event.severity.value, event.message))

    notification_manager.notification_ready.connect(hear)
    yield heard
    notification_manager.notification_ready.disconnect(hear)


@pytest.fixture
def finish(qtbot: Any) -> Callable[[SegmentWidget], None]:
    """Return a function that waits until a widget's run has ended."""

    def wait(widget: SegmentWidget) -> None:
        qtbot.waitUntil(lambda: not widget.running, timeout=20_000)

    return wait


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    """Fail if a run is still going when a test is over."""
    yield
    from qtpy.QtCore import QThreadPool

    assert QThreadPool.globalInstance().waitForDone(10_000), "a run was still going 10 s after the test"
