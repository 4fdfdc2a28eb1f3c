"""Strips: the geometry, the choice, and runs that give what tiles give."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_tiled_unet import candidates, frame_plan, iter_segment, strips
from napari_tiled_unet.backends.pytorch import TorchStream
from napari_tiled_unet.blending import Blend
from napari_tiled_unet.errors import OptionsError, TiledUnetError
from napari_tiled_unet.events import Finished, Notice, Planned, TileDone
from napari_tiled_unet.flips import Flips
from napari_tiled_unet.runtime import Runner
from napari_tiled_unet.strips import StripPlan, choose_strips, plan_strips
from tests.models import blob_model

AXES = st.integers(0, 1)


@settings(max_examples=60, deadline=None)
@given(
    st.tuples(st.integers(1, 90), st.integers(1, 40)), st.integers(4, 40), st.integers(0, 12), st.integers(1, 20), AXES
)
def test_every_voxel_is_read_once_and_written_once(
    shape: tuple[int, int], column: int, overlap: int, rows: int, axis: int
) -> None:
    stride = 4
    try:
        plan = plan_strips(shape, (column, column), (overlap, overlap), (stride, stride), axis, rows)
    except OptionsError:
        # The column has no room for its overlap.
        return
    written = np.zeros(plan.shape, int)
    for tile in plan:
        written[tile.write] += 1
        assert all(box.stop > box.start for box in (*tile.read, *tile.write))
        assert all(read.start % stride == 0 for read in tile.read)
        assert all(c.stop - c.start == w.stop - w.start for c, w in zip(tile.crop, tile.write, strict=True))
        read, write = tile.read[axis], tile.write[axis]
        assert write.stop <= read.stop - overlap or read.stop == plan.padded[axis]
        assert plan.output_shape(tile)[axis] == write.stop - write.start
        assert all(n <= t for n, t in zip((r.stop - r.start for r in tile.read), plan.tile, strict=True))
    assert (written == 1).all()
    for _, of_column in itertools.groupby(plan, key=lambda tile: tile.read[1 - axis]):
        reads = [tile.read[axis] for tile in of_column]
        assert reads[0].start == 0
        assert reads[-1].stop == plan.padded[axis]
        assert all(a.stop == b.start for a, b in itertools.pairwise(reads))
    sides = [p if a == axis else t for a, (p, t) in enumerate(zip(plan.padded, plan.tile, strict=True))]
    assert plan.voxels_computed == plan.n_columns * math.prod(sides)


def test_blend_takes_what_strips_give() -> None:
    plan = plan_strips((40, 8), (40, 8), (10, 10), (4, 4), 0, 8)
    blend = Blend(plan, channels=1)
    image = np.arange(320, dtype=np.float32).reshape(1, 40, 8)
    for tile in plan:
        blend.add(tile, image[(slice(None), *tile.write)])
    np.testing.assert_array_equal(blend.finish(), image)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let small images be worth strips."""
    monkeypatch.setattr(strips, "_STRIP_VOXELS", (2**12, 2**10))
    monkeypatch.setattr(candidates, "_UTMOST_TILE", 2**12)
    monkeypatch.setattr(candidates, "_COMFORT", 6e5)
    # Of a network as small as this calls are all that would count.
    monkeypatch.setattr(candidates, "_CALL_WORK", 0.0)


def image(*shape: int) -> Any:
    return np.random.default_rng(3).normal(100, 30, shape).clip(0).astype(np.float32)


def run(data: Any, **options: Any) -> tuple[Planned, Finished, list[TileDone], list[Notice]]:
    options = {"backend": "torch", "precision": "float32", **options}
    events = list(iter_segment(data, blob_model(), keep_maps=True, **options))
    (finished,) = [e for e in events if isinstance(e, Finished)]
    planned = [e for e in events if isinstance(e, Planned)][-1]
    return planned, finished, [e for e in events if isinstance(e, TileDone)], [e for e in events if type(e) is Notice]


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("shape", [(300, 64), (64, 300), (301, 37)])
def test_a_run_in_strips_is_that_of_the_whole_frame(shape: tuple[int, int]) -> None:
    planned, found, tiles, _ = run(image(*shape), overlap="exact", seam_windows=3)
    assert isinstance(planned.plan, StripPlan)
    assert len(tiles) == len(planned.plan) > 2
    assert "strips" in "\n".join(planned.explanation)
    _, whole, _, _ = run(image(*shape), tile=shape, overlap=(0,))
    assert found.maps is not None
    np.testing.assert_allclose(found.maps, whole.maps, atol=1e-5)
    np.testing.assert_array_equal(found.labels, whole.labels)
    assert found.provenance["seam_error"]["max"] < 1e-5


@pytest.mark.usefixtures("small")
def test_under_auto_where_overlap_costs_more_than_another_runtime_gains(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = image(300, 64)
    monkeypatch.setattr(frame_plan, "_WORTH_TORCH", 0.5)
    planned, found, _, _ = run(data, backend="auto")
    assert isinstance(planned.plan, StripPlan)
    assert found.provenance["backend"] == "torch"
    np.testing.assert_array_equal(found.labels, run(data)[1].labels)
    assert isinstance(run(data, backend="auto", precision="bfloat16")[0].plan, StripPlan)
    assert not isinstance(run(data, backend="openvino")[0].plan, StripPlan)
    monkeypatch.setattr(frame_plan, "_WORTH_TORCH", 100.0)
    assert not isinstance(run(data, backend="auto")[0].plan, StripPlan)


@pytest.mark.usefixtures("small")
def test_tiles_where_they_were_asked_for_or_strips_would_not_do() -> None:
    data = image(300, 64)
    for options in ({"tile": (64,)}, {"overlap": (8,)}, {"blend": "gaussian"}, {"flips": True}):
        assert not isinstance(run(data, **options)[0].plan, StripPlan)


@pytest.mark.usefixtures("small")
def test_memory_that_runs_out_in_a_strip_is_a_slowdown(monkeypatch: pytest.MonkeyPatch) -> None:
    push, pushed = TorchStream.push, []

    def short(self: TorchStream, strip: Any, stop: int) -> Any:
        pushed.append(stop)
        if len(pushed) == 2:
            raise MemoryError
        return push(self, strip, stop)

    data = image(300, 64)
    _, expected, _, _ = run(data, overlap="exact")
    monkeypatch.setattr(TorchStream, "push", short)
    planned, found, _, notices = run(data, overlap="exact")
    assert any("memory ran out" in notice.message for notice in notices)
    assert not isinstance(planned.plan, StripPlan)
    np.testing.assert_array_equal(found.labels, expected.labels)


def test_a_backend_of_whole_tiles_refuses_strips() -> None:
    model = blob_model()
    activate, cpu = model.spec.target.activate, torch.device("cpu")
    runner = Runner(model.network, activate, cpu, torch.float32, flips=Flips(0))
    with pytest.raises(TiledUnetError, match=r"strips cannot be computed by backend 'torch' with flips=True"):
        runner.stream(np.zeros((1, 1, 16, 16), np.float32), 0, 64, 16)


def test_long_rows_are_cut_into_columns_and_few_are_tried() -> None:
    tried: list[int] = []

    def count(sides: tuple[int, ...], axis: int, rows: int) -> tuple[float, float]:
        row = math.prod(sides) // sides[axis]
        tried.append(row)
        return 2e5 * row + 100.0 * row * rows, 1.02

    found = choose_strips((16000, 16000), (81, 81), (107, 107), (16, 16), candidates.Costs(300.0, 2**33), count)
    assert found is not None
    plan, told = found
    assert plan.n_columns > 1
    assert told.bytes <= candidates._COMFORT
    assert plan.overlap == (107, 81)
    assert len(tried) < 12


def test_no_strips_where_none_fit() -> None:
    tight = candidates.Costs(300.0, 2**20)
    assert choose_strips((600, 600), (81, 81), (107, 107), (16, 16), tight, lambda *_: (2.0**30, 1.0)) is None
