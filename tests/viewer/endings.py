"""Ways in which a widget goes while it works."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QThreadPool

if TYPE_CHECKING:
    from napari.viewer import Viewer

ENDINGS = ("dock", "viewer")


def close(ending: str, viewer: Viewer, dock: Any) -> None:
    """Close the dock for good, or the viewer with it."""
    if ending == "dock":
        dock.destroyOnClose()
    else:
        viewer.close()


def wait_for_threads(qtbot: Any) -> None:
    """Wait until no thread works, and the events that they left are handled."""
    qtbot.waitUntil(lambda: QThreadPool.globalInstance().activeThreadCount() == 0, timeout=20_000)
    qtbot.wait(50)
