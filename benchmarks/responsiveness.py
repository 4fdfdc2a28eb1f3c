"""How the viewer answers during a run, and when its first labels are seen.

A timer on the main thread should fire every 10 ms; how late it fires is how long a click would
have waited. Run ``python -m benchmarks.responsiveness`` from the root of the repository; where
there is no display it starts Xvfb. The image is the bundled sample, repeated. Writes
``results/responsiveness.csv``.

Steps that napari does in one piece are told apart: adding the layer of the labels, and putting
the final labels in it, prepare a whole plane for the graphics card.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.cases import write_rows
from tests.viewer.display import has_display, virtual_display

if TYPE_CHECKING:
    from napari_tiled_unet.viewer.segment_widget import SegmentWidget

_EVERY = 0.010


def main() -> None:
    """Measure and print one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--side", type=int, default=4096, help="voxels along each side of the image")
    parser.add_argument("--cold", action="store_true", help="click at once, before the forecast has loaded anything")
    arguments = parser.parse_args()
    if not has_display() and shutil.which("Xvfb") is None:
        print("responsiveness: skipped, there is neither a display nor Xvfb")
        return
    if has_display():
        found = measure(arguments.side, cold=arguments.cold)
    else:
        with virtual_display(1400, 900):
            found = measure(arguments.side, cold=arguments.cold)
    print(json.dumps(found, indent=2))
    coming, setting_up = found["while_tiles_come"], found["until_the_layer_is_there"]
    row = {
        "side": arguments.side,
        "cold": arguments.cold,
        "seconds_to_first_tile": found["seconds_to_first_tile"],
        "seconds_to_finish": found["seconds_to_finish"],
        "longest_stall_ms": coming["late_ms"]["worst"],
        "own_work_ms": coming["main_thread_ms"]["worst"],
        "stall_until_layer_ms": setting_up["late_ms"]["worst"],
        "stalls_above_100_ms": coming["late_ms"]["above 100"],
    }
    write_rows("responsiveness", [row], keys=("side", "cold"))


def measure(side: int, *, cold: bool) -> dict[str, Any]:
    """Segment an image in a real viewer and return what was seen from the main thread."""
    import napari
    from qtpy.QtWidgets import QApplication

    from napari_tiled_unet.demo import read_sample
    from napari_tiled_unet.viewer.segment_widget import SegmentWidget

    viewer = napari.Viewer()
    application: Any = QApplication.instance()
    sample = np.asarray(read_sample().data)
    times = [-(-side // n) for n in sample.shape]
    viewer.add_image(np.tile(sample, times)[:side, :side], name="large")
    widget = SegmentWidget(viewer)
    viewer.window.add_dock_widget(widget, area="right")
    for _ in range(20):
        application.processEvents()
    while not cold and widget._outlook.busy:
        application.processEvents()
        time.sleep(0.005)
    found = watch(widget, application)
    found |= {"side": side, "cores": os.cpu_count(), "cold": cold, "status": widget.status.splitlines()[0]}
    viewer.close()
    return found


def watch(widget: SegmentWidget, application: Any) -> dict[str, Any]:
    """Run, and return how late the timer was, in milliseconds, and when labels were seen."""
    from qtpy.QtCore import QTimer

    late: list[tuple[float, float, float]] = []
    last, own = time.perf_counter(), time.thread_time()

    def tick() -> None:
        nonlocal last, own
        now, worked = time.perf_counter(), time.thread_time()
        late.append((last, max(0.0, now - last - _EVERY), worked - own))
        last, own = now, worked

    timer = QTimer()
    timer.setInterval(round(_EVERY * 1000))
    timer.timeout.connect(tick)
    timer.start()
    clicked = last = time.perf_counter()
    widget.segment()
    planned = first = None
    while widget.running:
        application.processEvents()
        now = time.perf_counter()
        labels = widget._run.labels if widget._run is not None else None
        if labels is not None:
            planned = planned or now
            if first is None and widget._bar._tiles > 0:
                first = now
        time.sleep(0.0005)
    ended = time.perf_counter()
    application.processEvents()
    timer.stop()
    assert planned is not None
    assert first is not None
    return {
        "seconds_to_first_tile": round(first - clicked, 2),
        "seconds_to_finish": round(ended - clicked, 2),
        "until_the_layer_is_there": _summary([tick[1:] for tick in late if tick[0] <= planned]),
        "while_tiles_come": _summary([tick[1:] for tick in late if planned < tick[0] < ended]),
    }


def _summary(ticks: list[tuple[float, float]]) -> dict[str, Any]:
    """Return how late the ticks were, and how long the main thread itself worked between two of them."""
    late, own = (sorted(1000 * tick[i] for tick in ticks) for i in (0, 1))
    found: dict[str, Any] = {"ticks": len(ticks)}
    for name, values in (("late_ms", late), ("main_thread_ms", own)):
        at = {"median": 0.5, "99 %": 0.99, "worst": 1.0}
        found[name] = {
            what: round(values[min(len(values) - 1, int(part * len(values)))], 1) for what, part in at.items()
        }
        found[name]["above 100"] = sum(value > 100 for value in values)
    return found


if __name__ == "__main__":
    main()
