"""Device, number format and memory."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from napari_tiled_unet import runtime
from napari_tiled_unet.errors import OptionsError
from napari_tiled_unet.runtime import GIB, choose_device, choose_precision, memory_budget

CPU = torch.device("cpu")


def test_the_cpu_is_always_there() -> None:
    assert choose_device("cpu") == CPU
    assert choose_device("auto").type in ("cpu", "cuda", "mps")


def test_a_device_that_is_not_there_is_refused() -> None:
    with pytest.raises(
        OptionsError, match=r"device 'cuda:99' is not there: torch sees \d+ CUDA devices; use 'cpu' or 'auto'"
    ):
        choose_device("cuda:99")
    if not torch.backends.mps.is_available():
        with pytest.raises(OptionsError, match="device 'mps' is not there"):
            choose_device("mps")


def test_precision_follows_the_hardware(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "_cpu_has_bfloat16", lambda: True)
    assert choose_precision("auto", CPU) == torch.bfloat16
    monkeypatch.setattr(runtime, "_cpu_has_bfloat16", lambda: False)
    assert choose_precision("auto", CPU) == torch.float32
    assert choose_precision("bfloat16", CPU) == torch.bfloat16
    assert choose_precision("auto", torch.device("mps")) == torch.float16
    with pytest.raises(OptionsError, match="precision 'float16' is slow and inexact on a CPU"):
        choose_precision("float16", CPU)


def test_the_memory_asked_for_is_the_budget() -> None:
    assert memory_budget(1.5, CPU) == int(1.5 * GIB)


def test_free_memory_respects_the_control_group(monkeypatch: pytest.MonkeyPatch) -> None:
    files = {"/sys/fs/cgroup/memory.max": "3000000", "/sys/fs/cgroup/memory.current": "1000000"}

    def read_text(path: Path) -> str:
        if str(path) in files:
            return files[str(path)]
        raise FileNotFoundError(path)

    monkeypatch.setattr(runtime.Path, "read_text", read_text)
    assert runtime.free_memory() == 2_000_000
    assert memory_budget(None, CPU) == 1_200_000
    files["/sys/fs/cgroup/memory.max"] = "max"
    assert runtime.free_memory() > 2_000_000
