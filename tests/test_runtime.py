"""Device and number format."""

from __future__ import annotations

import pytest
import torch

from napari_tiled_unet import runtime
from napari_tiled_unet.errors import OptionsError
from napari_tiled_unet.runtime import choose_device, choose_precision

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
