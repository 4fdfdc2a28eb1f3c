"""What the benchmarks share: networks, images, and a process of its own for every measurement.

In 2D the network is a U-Net with seeded weights whose norms have seen the image, and whose
logits have a standard deviation of 0.75: maps that vary around one half, so that an error
shows. (Random weights pass on rounding more than trained ones do.) In 3D it is the bundled
``nuclei-3d`` on its sample, reflected to the size: the same U-Net with trained weights, which
bear bfloat16 and have earned a smaller overlap. Results are CSV files
in ``benchmarks/results``; ``python -m benchmarks.report`` makes ``docs/performance.md`` and
its plots of them.
"""

from __future__ import annotations

import csv
import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"


@dataclass(frozen=True)
class Case:
    """A network and an image.

    Attributes
    ----------
    choices : dict
        Of the network, if it is not a bundled one.
    bundled : str
        A bundled model whose weights are taken, on its sample; empty for seeded ones on noise.
    shape : tuple of int
        Of the image.
    full : tuple of int
        Of the image when there is time: everyone together takes about an hour then.
    roi : tuple of int
        Window of the peers.
    """

    choices: dict[str, Any]
    shape: tuple[int, ...]
    full: tuple[int, ...]
    roi: tuple[int, ...]
    bundled: str = ""

    @property
    def ndim(self) -> int:
        """Number of spatial axes."""
        return len(self.shape)

    def window(self) -> tuple[slice, ...]:
        """Return the box around the middle where maps are compared: it holds seams of every contender."""
        sides = (640, 640) if self.ndim == 2 else (self.shape[0], 160, 160)
        return tuple(
            slice(max(0, n // 2 - side // 2), min(n, n // 2 - side // 2 + side))
            for n, side in zip(self.shape, sides, strict=True)
        )


CASES = {
    "2d": Case({"ndim": 2, "width": 32, "depth": 4}, (2048, 2048), (4096, 4096), (512, 512)),
    "3d": Case({}, (64, 384, 384), (96, 512, 512), (32, 128, 128), "nuclei-3d"),
}


def case(name: str, shape: Sequence[int] | None = None) -> Case:
    """Return a case, with another image shape if one is given."""
    known = CASES[name]
    sides = tuple(shape) if shape else known.shape
    return replace(known, shape=sides, roi=tuple(min(r, n) for r, n in zip(known.roi, sides, strict=True)))


def image_of(this: Case) -> npt.NDArray[np.float32]:
    """Return the image of a case, normalised: everyone is given the same numbers."""
    if not this.bundled:
        return (noise_of(this.shape) / np.float32(255)).astype(np.float32)
    from napari_tiled_unet.demo import read_sample
    from napari_tiled_unet.normalise import Normalisation, measure

    sample = np.asarray(read_sample("nuclei_3d").data)
    pads = [(0, max(0, n - s)) for n, s in zip(this.shape, sample.shape, strict=True)]
    frame = np.pad(sample, pads, mode="reflect")[tuple(slice(n) for n in this.shape)][None]
    image: npt.NDArray[np.float32] = measure(frame, Normalisation())[0].apply(frame)[0]
    return image


def noise_of(shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    """Return seeded noise, smooth over about four voxels, as uint8."""
    from scipy import ndimage

    coarse = np.random.default_rng(0).standard_normal([-(-n // 4) + 2 for n in shape]).astype(np.float32)
    fine = ndimage.zoom(coarse, 4, order=1)[tuple(slice(n) for n in shape)]
    low, high = float(fine.min()), float(fine.max())
    image: npt.NDArray[np.uint8] = ((fine - low) / (high - low) * 255).astype(np.uint8)
    return image


def model_of(this: Case) -> Any:
    """Return the model of a case: two maps, and no normalisation, which the image has had."""
    import torch

    from napari_tiled_unet.model import Model, ModelSpec
    from napari_tiled_unet.model_files import load_model
    from napari_tiled_unet.networks.zoo import build_network, network_spec
    from napari_tiled_unet.normalise import Normalisation
    from napari_tiled_unet.targets import Classes

    if this.bundled:
        model = load_model(this.bundled)
        unread = {"normalisation": Normalisation("none"), "object_size": None}
        return Model(model.spec.model_copy(update=unread), model.network)
    torch.manual_seed(0)
    network: Any = build_network(network_spec("unet", out_channels=2, **this.choices))
    shape = tuple(min(n, 256 if this.ndim == 2 else 64) for n in this.shape)
    x = torch.from_numpy(noise_of(shape).astype(np.float32) / 255)[None, None]
    with torch.no_grad():
        network.train()
        for _ in range(20):
            network(x)
        logits = network.eval()(x)
        scale = 0.75 / logits.std(dim=(0, *range(2, logits.ndim)))
        network.head.weight.mul_(scale.reshape(-1, 1, *(1,) * this.ndim))
        network.head.bias.copy_(-logits.mean(dim=(0, *range(2, logits.ndim))) * scale)
    spec = ModelSpec(
        name="benchmark",
        axes="yx" if this.ndim == 2 else "zyx",
        channels=("any",),
        normalisation=Normalisation("none"),
        network=network.spec,
        target=Classes(classes=("a", "b")),
    )
    return Model(spec, network.requires_grad_(False))


def gigaflop(network: Any, shape: tuple[int, ...]) -> float:
    """Return the 10**9 multiplications and additions of a network on an image, counted layer by layer."""
    import torch

    counted = []

    def count(module: Any, _: Any, out: Any) -> None:
        kernel = module.weight[0].numel() if not module.transposed else module.weight[:, 0].numel()
        # A transposed convolution whose kernel is its stride reads each input once per kernel voxel.
        voxels = out[0].numel() if not module.transposed else out[0].numel() / int(np.prod(module.stride))
        counted.append(2 * kernel * voxels)

    from torch.nn.modules.conv import _ConvNd

    hooks = [m.register_forward_hook(count) for m in network.modules() if isinstance(m, _ConvNd)]
    small = tuple(4 * s for s in network.stride)
    with torch.no_grad():
        network(torch.zeros((1, network.spec.in_channels, *small)))
    for hook in hooks:
        hook.remove()
    return float(sum(counted) / np.prod(small) * np.prod(shape) / 1e9)


def in_a_process(script: str, *arguments: object, threads: int | None = None, seconds: float = 600) -> dict[str, Any]:
    """Run a script of this folder by itself; returns the JSON of its last line.

    An own process has its own memory, its own threads and nobody's warm caches.
    """
    environment = dict(os.environ)
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT / "src"), environment.get("PYTHONPATH", "")]))
    if threads:
        environment["OMP_NUM_THREADS"] = str(threads)
    command = [sys.executable, "-m", f"benchmarks.{script}", *map(str, arguments)]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=seconds, env=environment, cwd=ROOT, check=False
        )
    except subprocess.TimeoutExpired:
        return {"error": f"more than {seconds:.0f} s"}
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        return {"error": lines[-1]}
    answer: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return answer


def write_rows(
    name: str, rows: list[dict[str, Any]], keys: Sequence[str] = (), kept: list[dict[str, str]] | None = None
) -> Path:
    """Write rows to ``results/NAME.csv``; rows that are there and agree in ``keys`` with none of these stay.

    So a benchmark can be run piece by piece. ``kept`` are those that may stay, all by default.
    """
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.csv"
    stamped = [{**row, "processor": processor(), "threads": row.get("threads", cores())} for row in rows]
    fresh = {tuple(str(row[k]) for k in keys) for row in stamped}
    there = read_rows(name) if kept is None else kept
    stay = [row for row in there if keys and tuple(row.get(k, "") for k in keys) not in fresh]
    everything = [*stay, *stamped]
    columns = list(dict.fromkeys(column for row in everything for column in row))
    beside = path.with_suffix(".partial")
    with beside.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(everything)
    beside.replace(path)
    return path


def read_rows(name: str) -> list[dict[str, str]]:
    """Return the rows of ``results/NAME.csv``; none if it is not there."""
    path = RESULTS / f"{name}.csv"
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def cores() -> int:
    """Return how many processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processor() -> str:
    """Return the name of the processor, and what it multiplies short numbers with."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")
    flags = next((line.split() for line in lines if line.startswith("flags")), [])
    short = [word for flag, word in (("amx_bf16", "AMX"), ("avx512_bf16", "AVX512-BF16")) if flag in flags]
    return f"{name} ({', '.join(short)})" if short else name


def median_of(run: Callable[[], object], repeats: int) -> float:
    """Return the median seconds of some runs."""
    import time

    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)
