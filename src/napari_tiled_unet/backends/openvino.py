"""The network in OpenVINO, on processors."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import torch

from napari_tiled_unet.backends.conversion import converted, forget, quiet_tracing
from napari_tiled_unet.backends.interface import Prepared, Sides, Tiles, reflected, versions
from napari_tiled_unet.errors import MemoryBudgetError

_FILE = "model.xml"


class OpenvinoBackend:
    """A network converted once, with free spatial sides.

    Parameters
    ----------
    prepared : Prepared
        The network.
    precision : {"float32", "bfloat16"}
        What OpenVINO computes in.
    """

    name = "openvino"

    def __init__(self, prepared: Prepared, precision: str) -> None:
        self.precision = precision
        self._sides = Sides.of(prepared.network)
        kind = f"openvino-{versions(('openvino',))['openvino']}-torch-{torch.__version__.partition('+')[0]}"
        core = _core()
        folder = converted(prepared, kind, _write)
        try:
            model = core.read_model(str(folder / _FILE))
        except RuntimeError:
            forget(folder)
            model = core.read_model(str(converted(prepared, kind, _write) / _FILE))
        self._compiled = core.compile_model(
            model,
            "CPU",
            {
                "PERFORMANCE_HINT": "LATENCY",
                "INFERENCE_PRECISION_HINT": {"float32": "f32", "bfloat16": "bf16"}[precision],
                "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            },
        )

    def run(self, tiles: Tiles) -> Tiles:
        """Return the maps, ``(n, k, *spatial)``, of tiles ``(n, c, *spatial)``."""
        shape = tiles.shape[2:]
        x = reflected(tiles, self._sides(shape))
        try:
            maps = self._compiled(x, share_inputs=True)[0]
        except (MemoryError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and "alloc" not in str(error):
                raise
            raise MemoryBudgetError(
                f"tiles of {shape} voxels ran out of memory in OpenVINO; "
                "take a smaller tile or set memory to what is free"
            ) from error
        return np.ascontiguousarray(maps[(..., *(slice(n) for n in shape))], dtype=np.float32)

    def release(self) -> None:
        """Give memory back that is kept between tiles; weights stay."""
        # Not in releases before 2025.
        if hasattr(self._compiled, "release_memory"):
            self._compiled.release_memory()


@functools.cache
def _core() -> Any:
    """Return the one core of the process, which is never given back.

    Its processor plugin puts a signal stack of its own in place and, when it goes, restores the
    one before: with several, a stack that is already freed, and the next signal kills the process.
    """
    import openvino

    return openvino.Core()


def _write(network: torch.nn.Module, example: torch.Tensor, folder: Path) -> None:
    import openvino
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    # The front end itself: the converter around it would report its use over the network.
    with quiet_tracing(), torch.inference_mode():
        traced: Any = torch.jit.trace(network, example, check_trace=False)  # type: ignore[no-untyped-call]
        frontend = FrontEndManager().load_by_framework("pytorch")
        decoder = TorchScriptPythonDecoder(traced)
        loaded = frontend.load(decoder)
        model = frontend.convert(loaded)
    model.reshape(openvino.PartialShape([-1, example.shape[1], *[-1] * (example.ndim - 2)]))
    openvino.save_model(model, str(folder / _FILE), compress_to_fp16=False)
