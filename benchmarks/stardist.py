"""StarDist's 2D network beside ours, image to labels: seconds per megapixel.

    python -m benchmarks.stardist [--side 2048] [--tiles 1 4] [--venv .venv-stardist]

StarDist runs in a virtual environment that this script makes (TensorFlow for processors and StarDist, from
PyPI). Its network is the one it builds by default for one channel: 32 rays, grid 2, U-Net of width 32 and three
halvings. Its weights are random, so that nothing is downloaded; the time does not depend on them.
Only the network is timed, whole and in 4 x 4 tiles, without its non-maximum suppression, after a run on the same image.
Ours is timed from image to labels, in the first run on the image and as the median of five. They take turns. Writes
``results/stardist.csv``.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

from benchmarks.cases import ROOT, in_a_process, write_rows

NETWORK = """
import json, os, sys, time, tempfile
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import numpy as np
from stardist.models import Config2D, StarDist2D
side, tiles, repeats = map(int, sys.argv[1:])
with tempfile.TemporaryDirectory() as folder:
    model = StarDist2D(Config2D(n_rays=32, grid=(2, 2), n_channel_in=1), name="random", basedir=folder)
image = np.random.default_rng(0).random((side, side), np.float32)
run = lambda: model.predict(image, n_tiles=(tiles, tiles), show_tile_progress=False)
model.predict(image[:256, :256])
run()
seconds = []
for _ in range(repeats):
    started = time.perf_counter()
    run()
    seconds.append(time.perf_counter() - started)
print(json.dumps({"seconds": sorted(seconds)[len(seconds) // 2]}))
"""


def python_of(folder: Path) -> Path:
    """Return the Python of an environment with StarDist, made now if it is not there."""
    python = folder / "bin" / "python"
    if not (folder / ".installed").exists():
        print(f"stardist: installing TensorFlow and StarDist into {folder}", flush=True)
        venv.create(folder, with_pip=True, clear=True, symlinks=sys.platform != "win32")
        packages = ["tensorflow-cpu>=2.17", "stardist>=0.9.1"]
        subprocess.run([python, "-m", "pip", "install", "--quiet", *packages], check=True)
        (folder / ".installed").touch()
    return python


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=2048)
    parser.add_argument("--tiles", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--venv", type=Path, default=ROOT / ".venv-stardist")
    arguments = parser.parse_args()
    try:
        python = python_of(arguments.venv)
    except (subprocess.CalledProcessError, OSError) as error:
        print(f"stardist: skipped, its environment cannot be made: {error}")
        return
    seconds: dict[str, list[float]] = {}
    for _ in range(arguments.rounds):
        for tiles in arguments.tiles:
            command: list[Any] = [python, "-c", NETWORK, arguments.side, tiles, 1]
            done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
            if done.returncode:
                sys.exit(f"stardist: {done.stderr.strip().splitlines()[-1]}")
            name = f"StarDist's network, {tiles} x {tiles} tiles"
            seconds.setdefault(name, []).append(json.loads(done.stdout.strip().splitlines()[-1])["seconds"])
        answer = in_a_process("one_run", arguments.side, arguments.side, "--repeats", 5)
        if "error" in answer:
            sys.exit(f"stardist: {answer['error']}")
        seconds.setdefault("ours, image to labels", []).append(answer["seconds"])
        seconds.setdefault("ours, first image of its size", []).append(answer["first"])
    rows = []
    for contender, times in seconds.items():
        per_megapixel = statistics.median(times) / arguments.side**2 * 1e6
        rows.append({"contender": contender, "side": arguments.side, "s_per_megapixel": round(per_megapixel, 4)})
        print(rows[-1], flush=True)
    write_rows("stardist", rows, keys=("contender",))


if __name__ == "__main__":
    main()
