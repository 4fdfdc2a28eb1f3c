"""The network in ONNX Runtime, on processors."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch

from napari_tiled_unet.backends.conversion import converted, forget, quiet_tracing
from napari_tiled_unet.backends.interface import Prepared, Sides, Tiles, reflected
from napari_tiled_unet.errors import MemoryBudgetError

_FILE = "model.onnx"


class OnnxBackend:
    """A network converted once, with free spatial sides.

    Parameters
    ----------
    prepared : Prepared
        The network.
    precision : {"float32"}
        Others gain nothing on a processor here.
    """

    name = "onnx"

    def __init__(self, prepared: Prepared, precision: str) -> None:
        self.precision = precision
        self._sides, self._channels = Sides.of(prepared.network), prepared.network.spec.in_channels
        kind = f"onnx-torch-{torch.__version__.partition('+')[0]}"
        folder = converted(prepared, kind, _write)
        try:
            self._session = _session(folder)
        except Exception:  # noqa: BLE001 - ONNX Runtime's own exceptions share no ancestor
            forget(folder)
            self._session = _session(converted(prepared, kind, _write))

    def run(self, tiles: Tiles) -> Tiles:
        """Return the maps, ``(n, k, *spatial)``, of tiles ``(n, c, *spatial)``."""
        shape = tiles.shape[2:]
        x = reflected(tiles, self._sides(shape))
        try:
            maps = self._session.run(None, {"tiles": x})[0]
        except Exception as error:
            if not isinstance(error, MemoryError) and "alloc" not in str(error).lower():
                raise
            raise MemoryBudgetError(
                f"tiles of {shape} voxels ran out of memory in ONNX Runtime; "
                "take a smaller tile or set memory to what is free"
            ) from error
        return np.ascontiguousarray(maps[(..., *(slice(n) for n in shape))], dtype=np.float32)

    def release(self) -> None:
        """Give memory back that is kept between tiles; weights stay."""
        import onnxruntime

        # The arena shrinks only at the end of a run, so the smallest one is made.
        options = onnxruntime.RunOptions()
        options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
        sides = self._sides((1,) * len(self._sides.stride))
        # Where even that does not fit, nothing can be given back.
        with suppress(Exception):
            self._session.run(None, {"tiles": np.zeros((1, self._channels, *sides), np.float32)}, options)


def _session(folder: Path) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(folder / _FILE), options, providers=["CPUExecutionProvider"])


def _write(network: torch.nn.Module, example: torch.Tensor, folder: Path) -> None:
    free = {0: "n", **{axis: f"side{axis}" for axis in range(2, example.ndim)}}
    # The exporter that traces is five to thirty times quicker than the one that compiles, with the same result.
    with quiet_tracing(), torch.inference_mode():
        torch.onnx.export(
            network,
            (example,),
            str(folder / _FILE),
            dynamo=False,
            input_names=["tiles"],
            output_names=["maps"],
            dynamic_axes={"tiles": free, "maps": free},
        )
