"""Planes of noise, from one seed, and OME-Zarr files of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import zarr

RNG = np.random.default_rng(0)
PLANE = RNG.integers(0, 1000, (20, 30)).astype(np.uint16)


def noise(*shape: int) -> np.ndarray:
    return RNG.integers(0, 1000, shape).astype(np.uint16)


def colours(*shape: int) -> np.ndarray:
    return RNG.integers(0, 255, shape).astype(np.uint8)


def ome_zarr(path: Path, version: str, data: np.ndarray, **multiscale: Any) -> zarr.Group:
    """Write an OME-Zarr with two levels."""
    group = zarr.open_group(path, mode="w", zarr_format=3 if version == "0.5" else 2)
    for name, level in (("0", data), ("1", data[..., ::2, ::2])):
        array = group.create_array(
            name, shape=level.shape, dtype=level.dtype, chunks=(*(1,) * (data.ndim - 2), 10, 10), fill_value=0
        )
        array[:] = level
    multiscales = [{"datasets": [{"path": "0"}, {"path": "1"}], **multiscale}]
    group.attrs.update({"ome": {"multiscales": multiscales}} if version == "0.5" else {"multiscales": multiscales})
    return group


def scaled(*scale: float) -> list[dict[str, Any]]:
    return [{"type": "scale", "scale": list(scale)}]


SPACE = [{"name": a, "type": "space", "unit": "nanometer"} for a in "zyx"]
