"""A display for Qt where there is none: Xvfb with Mesa's software OpenGL.

Qt's offscreen platform has no OpenGL, which napari needs.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

APT = (
    "apt-get install xvfb libgl1-mesa-dri libegl1 libxkbcommon-x11-0 "
    "libxcb-cursor0 libxcb-icccm4 libxcb-keysyms1 libxcb-shape0"
)


def has_display() -> bool:
    """Return whether windows can be opened as things are."""
    if not sys.platform.startswith("linux"):
        return True
    host, _, number = os.environ.get("DISPLAY", "").partition(":")
    if not number:
        return False
    if host not in ("", "unix"):
        return True
    path = f"/tmp/.X11-unix/X{number.split('.')[0]}"
    with socket.socket(socket.AF_UNIX) as probe:
        # Xvfb also listens on the abstract twin of the path, a container may see only one.
        return any(probe.connect_ex(address) == 0 for address in (path, f"\0{path}"))


@contextmanager
def virtual_display(width: int = 1600, height: int = 1000) -> Iterator[str]:
    """Start Xvfb and point Qt at it until the end of the block.

    Yields
    ------
    str
        The name of the display.

    Raises
    ------
    FileNotFoundError
        If Xvfb is not installed; the message holds the command that installs it.
    """
    if shutil.which("Xvfb") is None:
        raise FileNotFoundError(f"no display, and Xvfb is not installed: {APT}")
    reader, writer = os.pipe()
    command = ["Xvfb", "-displayfd", str(writer), "-screen", "0", f"{width}x{height}x24", "-nolisten", "tcp"]
    server = subprocess.Popen(command, pass_fds=[writer], stderr=subprocess.DEVNULL)
    os.close(writer)
    try:
        # Xvfb writes the number when it is ready, and nothing if it cannot start.
        with os.fdopen(reader) as answer:
            number = answer.readline().strip()
        if not number:
            raise RuntimeError(f"Xvfb did not start: {' '.join(command)}")
        os.environ |= {
            "DISPLAY": f":{number}",
            "QT_QPA_PLATFORM": "xcb",
            "LIBGL_ALWAYS_SOFTWARE": "1",
            "XDG_RUNTIME_DIR": os.environ.get("XDG_RUNTIME_DIR", "/tmp"),
        }
        yield f":{number}"
    finally:
        server.terminate()
        server.wait(timeout=10)
