"""Every kind of layer is segmented: axes, colours, levels, laziness, data types, spacing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np
import pytest
import zarr

from napari_tiled_unet.segmentation import segment
from tests.models import blobs
from tests.viewer.test_segment_widget import PLANE, result

if TYPE_CHECKING:
    from napari.viewer import Viewer

    from napari_tiled_unet.viewer.segment_widget import SegmentWidget

pytestmark = pytest.mark.filterwarnings("ignore:Conversion from CIE-LAB:UserWarning")  # napari's label colours

Finish = Callable[["SegmentWidget"], None]
EIGHT = (PLANE // 4).astype(np.uint8)
VOLUME = blobs((16, 40, 40), [(8, 12, 12), (8, 28, 28)])


class NeverWhole:
    """An array that gives its frames, and fails when more than one is asked for."""

    def __init__(self, data: np.ndarray) -> None:
        self._data, self.shape, self.dtype, self.ndim = data, data.shape, data.dtype, data.ndim

    def __getitem__(self, key: Any) -> np.ndarray:
        found = self._data[key]
        assert found.size <= PLANE.size, f"{found.shape} was read at once"
        return found

    def __array__(self, *args: Any, **keywords: Any) -> np.ndarray:
        raise AssertionError("the whole array was read")


def in_zarr(data: np.ndarray) -> Any:
    return zarr.create_array({}, data=data, chunks=(*(1,) * (data.ndim - 2), *data.shape[-2:]))


def stack(*leading: int) -> np.ndarray:
    """Return the plane repeated along leading axes."""
    return np.broadcast_to(PLANE, (*leading, *PLANE.shape)).copy()


@dataclass
class Case:
    """A layer, and the shape and count of the labels that it must give."""

    data: Any
    axes: str
    shape: tuple[int, ...] = PLANE.shape
    count: int = 3
    layer: dict[str, Any] = field(default_factory=dict)
    rows: dict[str, Any] = field(default_factory=dict)


CASES = {
    "yx": Case(PLANE, "yx"),
    "zyx": Case(stack(2), "zyx", (2, 56, 72), 6),
    "zyx, 3D model": Case(VOLUME, "zyx", VOLUME.shape, 2, rows={"model": "blobs-3d"}),
    "tyx": Case(stack(3), "tyx", (3, 56, 72), 9),
    "tzyx": Case(stack(2, 3), "tzyx", (2, 3, 56, 72), 18),
    "tzyx, 3D model": Case(np.stack([VOLUME] * 2), "tzyx", (2, *VOLUME.shape), 4, rows={"model": "blobs-3d"}),
    "tczyx": Case(stack(2, 2, 2), "tczyx", (2, 1, 2, 56, 72), 12, rows={"channel": 1}),
    "cyx": Case(stack(2), "cyx", rows={"channel": 0}),
    "RGB": Case(np.stack([EIGHT] * 3, -1), "yxc", layer={"rgb": True}),
    "RGBA series": Case(np.stack([np.stack([EIGHT] * 4, -1)] * 2), "tyxc", (2, 56, 72), 6, {"rgb": True}),
    "multiscale": Case([PLANE, PLANE[::2, ::2]], "yx", layer={"multiscale": True}),
    "multiscale series": Case([stack(2), stack(2)[:, ::2, ::2]], "tyx", (2, 56, 72), 6, {"multiscale": True}),
    "second level": Case([np.tile(PLANE, (2, 2)), PLANE], "yx", layer={"multiscale": True}, rows={"level": 1}),
    "second level of a series": Case(
        [np.tile(stack(2), (1, 2, 2)), stack(2)], "tyx", (2, 56, 72), 6, {"multiscale": True}, {"level": 1}
    ),
    "dask": Case(da.from_array(stack(3), chunks=(1, 56, 72)), "tyx", (3, 56, 72), 9),
    "zarr": Case(in_zarr(stack(3)), "tyx", (3, 56, 72), 9),
    "never whole": Case(NeverWhole(stack(2, 3)), "tzyx", (2, 3, 56, 72), 18),
    "non-uniform spacing": Case(
        stack(2), "zyx", (2, 56, 72), 6, {"scale": (3.0, 0.5, 0.25), "units": ("um", "um", "um")}
    ),
    "bool": Case(PLANE > 600, "yx"),
    **{
        name: Case(PLANE.astype(name), "yx")
        for name in ("uint16", "int16", "uint32", "int32", "uint64", "int64", "float16", "float32", "float64")
    },
    "uint8": Case(EIGHT, "yx"),
    "int8": Case((PLANE // 8).astype(np.int8), "yx"),
}


@pytest.mark.parametrize("name", CASES)
def test_a_layer_of_every_kind(viewer: Viewer, docked: SegmentWidget, finish: Finish, name: str) -> None:
    case = CASES[name]
    own = case.axes.removesuffix("c") if case.layer.get("rgb") else case.axes
    contrast = {} if case.layer.get("rgb") else {"contrast_limits": (0, 1000)}
    image = viewer.add_image(case.data, axis_labels=tuple(own), **contrast, **case.layer)
    for row, value in case.rows.items():
        docked.control(row).value = value
    docked.segment()
    finish(docked)
    labels = result(viewer)
    assert labels.data.shape == case.shape, docked.status
    assert len(np.unique(labels.data)) - 1 == case.count
    larger = 2 if case.rows.get("level") else 1
    np.testing.assert_allclose(labels.scale[-2:], image.scale[-2:] * larger)
    assert labels.units[-2:] == image.units[-2:]


def test_lazy_layers_give_what_arrays_give(viewer: Viewer, docked: SegmentWidget, finish: Finish) -> None:
    viewer.add_image(NeverWhole(stack(2)), axis_labels=("t", "y", "x"), contrast_limits=(0, 1000))
    docked.segment()
    finish(docked)
    np.testing.assert_array_equal(result(viewer).data, segment(stack(2), "blobs", axes="tyx"))
