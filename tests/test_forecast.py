"""What is foretold is what happens."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from napari_tiled_unet import forecast as module
from napari_tiled_unet.errors import OptionsError
from napari_tiled_unet.events import Notice, Planned
from napari_tiled_unet.forecast import Forecast, calibrate, duration, forecast, learn
from napari_tiled_unet.image import Image
from napari_tiled_unet.options import SegmentOptions
from napari_tiled_unet.segmentation import iter_segment
from tests.models import blob_model


class Unread:
    """An array that must not be read."""

    dtype = np.dtype(np.uint16)

    def __init__(self, *shape: int) -> None:
        self.shape = shape

    def __getitem__(self, key: Any) -> Any:
        raise AssertionError("the image was read")


@pytest.fixture(autouse=True)
def nothing_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_rates", {})


@pytest.mark.parametrize(
    ("shape", "axes", "options"),
    [
        ((200, 300), "yx", {"tile": 64, "overlap": 8}),
        ((4, 100, 90), "tyx", {"tile": 64, "overlap": 8, "region": "t=1:,x=10:80"}),
        ((100, 90), "yx", {"tile": 64, "overlap": 8, "object_size": 5}),
        ((3, 2, 50, 60), "tcyx", {"channel": 1}),
        ((60, 50, 3), "yxc", {}),
    ],
)
def test_the_tiles_are_those_of_the_run(shape: tuple[int, ...], axes: str, options: dict[str, Any]) -> None:
    image = Image(np.zeros(shape, np.uint8), axes, is_rgb=axes == "yxc")
    wanted = SegmentOptions.of(**options)
    (planned,) = [e for e in iter_segment(image, blob_model(), options=wanted) if isinstance(e, Planned)]
    found = forecast(image, blob_model(), wanted)
    assert (found.n_frames, found.n_tiles) == (planned.n_frames, planned.n_tiles)
    assert found.voxels == planned.plan.voxels_computed * planned.n_frames
    assert found.problem is None


def test_nothing_is_read() -> None:
    found = forecast(
        Image(Unread(1000, 50_000, 50_000), "tyx"), blob_model(), SegmentOptions.of(region="t=0:1000,x=:64")
    )
    assert found.n_frames == 1000


def test_what_does_not_fit_says_the_remedy() -> None:
    image = Image(Unread(500, 500), "yx")
    found = forecast(image, blob_model(), SegmentOptions.of(tile=512, memory=1e-5))
    assert "take a smaller tile" in found.text
    vast = forecast(Image(Unread(100_000, 50_000, 50_000), "tyx"), blob_model(), SegmentOptions())
    assert "segment a part of the image" in vast.text


def test_what_the_run_refuses_is_refused() -> None:
    with pytest.raises(OptionsError, match="say which with channel"):
        forecast(Image(Unread(2, 50, 60), "cyx"), blob_model(), SegmentOptions())


def test_time_is_told_once_a_rate_is_measured() -> None:
    image, model = Image(Unread(2000, 2000), "yx"), blob_model()
    options = SegmentOptions.of(device="cpu", precision="float32")
    assert forecast(image, model, options).seconds is None
    calibrate(model, options)
    first = forecast(image, model, options).seconds
    assert first > 0
    calibrate(model, options)
    assert forecast(image, model, options).seconds == first
    learn(model, "cpu", "float32", forecast(image, model, options).voxels, 42.0)
    assert forecast(image, model, options).seconds == pytest.approx(42.0)
    learn(model, "cpu", "float32", 0, 1.0)
    assert forecast(image, model, options).seconds == pytest.approx(42.0)


def test_the_rescaled_frame_is_counted() -> None:
    model = blob_model(spacing=(1.0, 1.0))
    image = Image(Unread(500, 500), "yx", spacing=(2.0, 2.0), units="micrometer")
    as_it_is = forecast(image, model, SegmentOptions.of(spacing="none", tile=64)).memory
    rescaled = forecast(image, model, SegmentOptions.of(tile=64)).memory
    maps, frame = 2 * 4 * 1000**2, 4 * 1000**2
    assert rescaled - as_it_is == pytest.approx(maps + frame, rel=0.02)


def test_a_small_run_says_little_of_a_large_one() -> None:
    image, model = Image(Unread(2000, 2000), "yx"), blob_model()
    options = SegmentOptions.of(device="cpu", precision="float32")
    voxels = forecast(image, model, options).voxels
    learn(model, "cpu", "float32", voxels, 40.0)
    # A thousandth of it, which takes a second to begin.
    for _ in range(10):
        learn(model, "cpu", "float32", voxels // 1000, 1.0)
    assert forecast(image, model, options).seconds == pytest.approx(40)
    # A quarter of it counts as a quarter.
    learn(model, "cpu", "float32", voxels // 4, 20.0)
    assert forecast(image, model, options).seconds == pytest.approx(50)
    # What is as large says how it is now.
    learn(model, "cpu", "float32", voxels, 20.0)
    assert forecast(image, model, options).seconds == pytest.approx(20)


def test_a_first_run_that_is_small_leaves_the_rate_of_a_tile() -> None:
    image, model = Image(Unread(2000, 2000), "yx"), blob_model()
    options = SegmentOptions.of(device="cpu", precision="float32")
    calibrate(model, options)
    before = forecast(image, model, options).seconds
    learn(model, "cpu", "float32", 1, 60.0)
    assert forecast(image, model, options).seconds == before
    # 512 x 512, most of which is its start.
    learn(model, "cpu", "float32", 2**18, 4 * before / 16)
    assert forecast(image, model, options).seconds < 2 * before


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.2, "1 s"), (2.1, "3 s"), (89.5, "90 s"), (720, "12 min"), (9000, "2.5 h")]
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_text() -> None:
    assert Forecast(1, 1, 10, 3 * 2**20).text == "1 tile, 3 MiB"
    assert Forecast(4, 1200, 10, 2**30, 3.0).text == "1,200 tiles, 1.0 GiB, about 3 s"


def test_a_measured_rate_leaves_the_check_to_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is good enough for a tile of nothing may not be for the image."""
    monkeypatch.setattr("napari_tiled_unet.runtime._cpu_has_bfloat16", lambda: True)
    steep = blob_model()
    with torch.no_grad():
        steep.network.head.weight.mul_(40)
        steep.network.head.bias.mul_(40)
    options = SegmentOptions.of(device="cpu", backend="torch")
    calibrate(steep, options)
    ramp = np.tile(np.linspace(0, 1, 96, dtype=np.float32), (64, 1))
    events = list(iter_segment(ramp, steep, options=options))
    assert any("differ from float32" in event.message for event in events if isinstance(event, Notice))
    assert events[-1].provenance["precision"] == "float32"
