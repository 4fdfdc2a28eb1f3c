"""How long until something happens, each in a new process, after one that warms the disk.

    python -m benchmarks.startup [--repeats 5]

===================  ===============================================================
what                 seconds from the start of the process
===================  ===============================================================
help                 until ``tiled-unet --help`` has ended
plugin discovery     until the package is imported and the manifest read; torch must not be loaded
model load           of ``load_model("nuclei")`` alone, torch loaded before
first tile           until the first tile of the bundled image has been through the network
command              until ``tiled-unet segment`` on the bundled image has ended
===================  ===============================================================

Writes ``results/startup.csv``.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.cases import ROOT, write_rows

DISCOVERY = """
import sys
import napari_tiled_unet
from pathlib import Path
Path(napari_tiled_unet.__file__).with_name("napari.yaml").read_text()
assert "torch" not in sys.modules
"""
LOAD = """
import time, torch, safetensors.torch
from napari_tiled_unet import load_model
from napari_tiled_unet.networks import zoo
started = time.perf_counter()
load_model("nuclei")
print(time.perf_counter() - started)
"""
FIRST_TILE = """
from napari_tiled_unet import iter_segment
from napari_tiled_unet.demo import read_sample
from napari_tiled_unet.events import TileDone
next(event for event in iter_segment(read_sample(), backend="torch") if isinstance(event, TileDone))
"""
LIMITS = {"help": 0.3, "plugin discovery": None, "model load": 0.3, "first tile": 3.0, "command": None}


def seconds_of(command: list[str], *, printed: bool = False) -> float:
    """Return how long a command takes, or the number that it prints."""
    environment = dict(os.environ)
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT / "src"), environment.get("PYTHONPATH", "")]))
    started = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    return float(done.stdout.strip().splitlines()[-1]) if printed else time.perf_counter() - started


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    sample = ROOT / "src" / "napari_tiled_unet" / "samples" / "nuclei_2d.tif"
    with tempfile.TemporaryDirectory() as folder:
        module = [sys.executable, "-m", "napari_tiled_unet"]
        segment = [*module, "segment", str(sample), "--out", str(Path(folder) / "labels"), "--overwrite"]
        commands = {
            "help": ([*module, "--help"], False),
            "plugin discovery": ([sys.executable, "-c", DISCOVERY], False),
            "model load": ([sys.executable, "-c", LOAD], True),
            "first tile": ([sys.executable, "-c", FIRST_TILE], False),
            "command": (segment, False),
        }
        rows = []
        for what, (command, printed) in commands.items():
            seconds_of(command, printed=printed)
            times = [seconds_of(command, printed=printed) for _ in range(arguments.repeats)]
            row = {
                "what": what,
                "seconds": round(statistics.median(times), 3),
                "least": round(min(times), 3),
                "limit": LIMITS[what] or "",
            }
            print(row, flush=True)
            rows.append(row)
    write_rows("startup", rows, keys=("what",))


if __name__ == "__main__":
    main()
