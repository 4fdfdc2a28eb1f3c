"""Which backend a run takes, and whether its answers are good enough.

All of it happens on a crop of the first frame, the one with most in it, of at most
``2**16`` voxels: reduced precision and converted networks are compared with torch in
float32, and under ``auto`` the installed runtimes are timed, once per machine and model.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import os
import platform
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from napari_tiled_unet.backends.conversion import cache_folder, fingerprint
from napari_tiled_unet.backends.interface import RUNTIMES, Backend, Prepared, Tiles, versions
from napari_tiled_unet.backends.pytorch import TorchBackend
from napari_tiled_unet.errors import MemoryBudgetError, OptionsError
from napari_tiled_unet.events import Notice

if TYPE_CHECKING:
    from napari_tiled_unet.normalise import Statistics

MAP_TOLERANCE = {"float32": 1e-3, "bfloat16": 0.05, "float16": 0.05}
"""Largest difference of a map from torch in float32 that is accepted; maps lie within 0 to 1."""

_LARGEST_CROP = 2**16
_LOOKED_AT = 2**20
_CALIBRATION_SECONDS = 2.0
# A faster backend must be this much faster than torch, or the noise of the clock decides.
_CLEARLY_FASTER = 0.9
# A machine that was too busy to time all is asked again, as many times at most: it may be as slow as that.
_PATIENCE = 3


def choose_backend(
    prepared: Prepared, name: str, precision: str, tiles: Tiles, *, checked: bool
) -> tuple[Backend, list[Notice]]:
    """Return the backend of a run, made ready, and what the user should know.

    Parameters
    ----------
    prepared : Prepared
        The network.
    name : str
        A key of ``RUNTIMES``, or ``"auto"`` for the fastest that is installed.
    precision : str
        Number format wanted.
    tiles : numpy.ndarray
        The first tiles, ``(n, c, *spatial)``, normalised.
    checked : bool
        Whether reduced precision is compared with float32, and given up where it differs
        by more than :data:`MAP_TOLERANCE`. Converted networks are always compared.
    """
    judge = _Judge(prepared, busiest_crop(tiles, prepared.network.stride))
    notices: list[Notice] = []
    name_given = name != "auto" or not checked
    if name == "auto":
        name = _fastest(prepared, precision, judge) if prepared.device.type == "cpu" else "torch"
        if name != "torch":
            notices.append(Notice(f"the network runs in {name}, the fastest backend installed here for this model"))
    for candidate, form in _preferences(name, precision, checked=checked):
        trusted = candidate == "torch" and (form == "float32" or not checked)
        backend, problem = _built(prepared, candidate, form, None if trusted else judge)
        if backend is not None:
            return backend, notices
        # Asked for by name, it is missed; chosen for its speed, it is not.
        notices.append(Notice(problem, caution=name_given))
    raise AssertionError("torch is always among the preferences")


def _preferences(name: str, precision: str, *, checked: bool) -> Iterator[tuple[str, str]]:
    """Yield what to try, the best first; the last is trusted."""
    forms = [precision, "float32"] if checked and precision != "float32" else [precision]
    for candidate in dict.fromkeys([name, "torch"]):
        for form in dict.fromkeys(f if f in RUNTIMES[candidate].precisions else "float32" for f in forms):
            yield candidate, form


def _built(prepared: Prepared, name: str, precision: str, judge: _Judge | None) -> tuple[Backend | None, str]:
    try:
        backend = RUNTIMES[name].build(prepared, precision)
        difference = 0.0 if judge is None else judge.difference(backend)
    except MemoryBudgetError:
        raise
    except NotImplementedError as error:
        if name != "torch":
            return None, f"backend {name!r} cannot run this network ({_first_line(error)}); torch runs it"
        raise OptionsError(
            f"device {str(prepared.device)!r} lacks an operation of this network ({_first_line(error)}); "
            "use device='cpu'"
        ) from error
    except Exception as error:
        # The runtimes raise what they like; whatever it is, torch still works, unless it is torch's.
        if name == "torch":
            raise
        return None, f"backend {name!r} cannot run this network ({_first_line(error)}); torch runs it"
    if difference <= MAP_TOLERANCE[precision]:
        return backend, ""
    return None, (
        f"maps computed by {name} in {precision} differ from float32 by up to {difference:.3g}, "
        f"more than {MAP_TOLERANCE[precision]:g}; the next safer way is taken"
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip() or repr(error)).splitlines()[0]


class _Judge:
    """Holds the crop and what torch in float32 makes of it."""

    def __init__(self, prepared: Prepared, crop: Tiles) -> None:
        self._prepared, self.crop = prepared, crop
        self._expected: Tiles | None = None

    def difference(self, backend: Backend) -> float:
        """Return the largest difference of a map; infinite where a map is not finite."""
        if self._expected is None:
            # Of Apple's devices some convolutions were wrong in float32 too: only the processor can tell.
            device = torch.device("cpu") if self._prepared.device.type == "mps" else self._prepared.device
            self._expected = TorchBackend(replace(self._prepared, device=device), "float32").run(self.crop)
        worst = float(np.abs(backend.run(self.crop) - self._expected).max())
        return worst if math.isfinite(worst) else math.inf


def busiest_crop(tiles: Tiles, stride: tuple[int, ...], largest: int = _LARGEST_CROP) -> Tiles:
    """Return a part ``(1, c, *sides)`` of the first tile, that with the most variation.

    The sides are multiples of the stride where the tile is as large as that, and hold at
    most ``largest`` voxels where a multiple of the stride can be as small.
    """
    tile = tiles[:1]
    boxes = _boxes(tile.shape[2:], stride, largest)
    best = max(boxes, key=lambda box: float(tile[(slice(None), slice(None), *box)].std()))
    return np.ascontiguousarray(tile[(slice(None), slice(None), *best)])


def busiest_part(frame: npt.NDArray[Any], statistics: Statistics, stride: tuple[int, ...]) -> Tiles:
    """Return a part ``(1, c, *sides)`` of a frame, normalised, that with the most variation; see :func:`busiest_crop`.

    Of a large frame a regular grid of its voxels is looked at.
    """
    step = max(1, int((frame[0].size / _LOOKED_AT) ** (1 / len(stride))))

    def variation(box: tuple[slice, ...]) -> float:
        thinned = (slice(side.start, side.stop, step) for side in box)
        return float(statistics.apply(frame[(slice(None), *thinned)]).std())

    best = max(_boxes(frame.shape[1:], stride, _LARGEST_CROP), key=variation)
    return statistics.apply(frame[(slice(None), *best)])[None]


def _boxes(shape: tuple[int, ...], stride: tuple[int, ...], largest: int) -> Iterator[tuple[slice, ...]]:
    """Yield boxes that cover a shape, as large as may be; the last ones overlap those before."""
    sides = [max(n // s, 1) * s for n, s in zip(shape, stride, strict=True)]
    while math.prod(sides) > largest:
        splittable = [axis for axis, s in enumerate(stride) if sides[axis] >= 2 * s]
        if not splittable:
            break
        axis = max(splittable, key=lambda a: sides[a] / stride[a])
        sides[axis] = sides[axis] // stride[axis] // 2 * stride[axis]
    lasts = [max(n - side, 0) for n, side in zip(shape, sides, strict=True)]
    starts = [sorted({*range(0, last, side), last}) for last, side in zip(lasts, sides, strict=True)]
    for corner in itertools.product(*starts):
        yield tuple(slice(start, start + side) for start, side in zip(corner, sides, strict=True))


def _fastest(prepared: Prepared, precision: str, judge: _Judge) -> str:
    """Return the name of the fastest runtime that passes, from the cache or by timing."""
    installed = [name for name, runtime in RUNTIMES.items() if runtime.available()]
    if installed == ["torch"]:
        return "torch"
    path = cache_folder() / "calibration" / f"{_machine(precision)}-{fingerprint_of(prepared)}.json"
    cut_short = 0
    with suppress(OSError, ValueError, KeyError, TypeError):
        known = json.loads(path.read_text())
        fastest, cut_short = str(known["fastest"]), int(known.get("cut_short", 0))
        if fastest in installed and not 0 < cut_short < _PATIENCE:
            return fastest
    seconds, complete = calibrate(prepared, precision, judge, installed)
    fastest = min(seconds, key=lambda name: seconds[name], default="torch")
    if fastest != "torch" and seconds[fastest] > _CLEARLY_FASTER * seconds.get("torch", math.inf):
        fastest = "torch"
    told = {k: round(v, 4) for k, v in seconds.items()}
    _remember(path, {"fastest": fastest, "seconds_per_megavoxel": told, "cut_short": 0 if complete else cut_short + 1})
    return fastest


def fingerprint_of(prepared: Prepared) -> str:
    """Return the digest of what is prepared."""
    return fingerprint(prepared.network, prepared.activate)


def calibrate(prepared: Prepared, precision: str, judge: _Judge, names: list[str]) -> tuple[dict[str, float], bool]:
    """Return seconds per megavoxel of each runtime that gives the right maps, and whether all were reached.

    A runtime whose maps are too far off in the precision that is wanted is timed in float32, which
    a run would fall back to. Ends after about two seconds: a runtime that is not reached in that time is left out.
    """
    started = time.perf_counter()
    megavoxels = math.prod(judge.crop.shape[2:]) / 1e6
    seconds: dict[str, float] = {}
    for name in names:
        if time.perf_counter() - started > _CALIBRATION_SECONDS:
            return seconds, False
        form = precision if precision in RUNTIMES[name].precisions else "float32"
        made = (_built(prepared, name, each, judge)[0] for each in dict.fromkeys([form, "float32"]))
        backend = next((one for one in made if one is not None), None)
        if backend is None:
            continue
        times = []
        for _ in range(3):
            start = time.perf_counter()
            backend.run(judge.crop)
            times.append(time.perf_counter() - start)
            if time.perf_counter() - started > _CALIBRATION_SECONDS:
                break
        seconds[name] = min(times) / megavoxels
    return seconds, True


def _machine(precision: str) -> str:
    """Return a digest of what the speed depends on besides the model."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        processor = sorted({line for line in lines if line.startswith(("model name", "flags"))})
    except OSError:
        processor = [platform.processor()]
    packages = versions(tuple(r for runtime in RUNTIMES.values() for r in runtime.requires))
    facts = [platform.machine(), processor, os.cpu_count(), torch.get_num_threads(), packages, precision]
    return hashlib.blake2b(json.dumps(facts).encode(), digest_size=6).hexdigest()


def _remember(path: Path, facts: dict[str, object]) -> None:
    # A cache that cannot be written costs a calibration, not the run.
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_suffix(f".{os.getpid()}.partial")
        beside.write_text(json.dumps(facts))
        beside.replace(path)
