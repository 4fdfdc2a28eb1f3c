"""Statistics come from the whole frame, survive bad voxels, and make intensities comparable."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_tiled_unet.blending import Blend
from napari_tiled_unet.errors import ImageError, OptionsError
from napari_tiled_unet.normalise import Normalisation, Statistics, measure
from napari_tiled_unet.tiling import plan_tiles, read_tile

Array = npt.NDArray[Any]
SCALED = ("percentile", "minmax", "zscore")
METHODS = (*SCALED, "none")
# A busy machine is no failure.
in_any_time = settings(deadline=None)


def nuclei(shape: tuple[int, ...] = (1, 61, 83), seed: int = 5) -> Array:
    """Return a dim, noisy background with bright spots: 20 to about 180, float64."""
    rng = np.random.default_rng(seed)
    return rng.gamma(4.0, 5.0, shape) + 120.0 * (rng.random(shape) > 0.9)


def normalised(frame: Array, method: Any, **keywords: Any) -> Array:
    return measure(frame, Normalisation(method), **keywords)[0].apply(frame)


# --- the four methods -------------------------------------------------------------------


@pytest.mark.parametrize("percentiles", [(1.0, 99.8), (0.0, 100.0), (25.0, 62.5)])
def test_percentiles_become_0_and_1_and_nothing_is_clipped(percentiles: tuple[float, float]) -> None:
    frame = nuclei((2, 5, 40, 30))
    statistics, warnings = measure(frame, Normalisation("percentile", *percentiles))
    low, high = np.percentile(frame, percentiles, axis=(1, 2, 3))
    np.testing.assert_allclose(statistics.offset, low)
    np.testing.assert_allclose(statistics.scale, 1 / (high - low))
    result = statistics.apply(frame)
    np.testing.assert_allclose(np.percentile(result[0], percentiles), (0, 1), atol=1e-5)
    assert bool(result.max() > 1) is (percentiles[1] < 100)
    assert warnings == []


def test_minmax_spans_0_to_1() -> None:
    result = normalised(nuclei(), "minmax")
    assert (result.min(), result.max()) == (0, pytest.approx(1))


def test_zscore_has_mean_0_and_deviation_1() -> None:
    result = normalised(nuclei(), "zscore")
    assert (result.mean(), result.std()) == (pytest.approx(0, abs=1e-5), pytest.approx(1, abs=1e-5))


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.uint16, np.int32, np.float16, np.float32, np.float64])
def test_none_keeps_raw_values_as_float32(dtype: Any) -> None:
    frame = nuclei().astype(dtype)
    result = normalised(frame, "none")
    assert result.dtype == np.float32
    np.testing.assert_array_equal(result, frame.astype(np.float32))


def test_the_default_is_percentiles_1_and_99_8() -> None:
    frame = nuclei()
    assert measure(frame) == measure(frame, Normalisation("percentile", 1.0, 99.8))
    assert measure(frame) != measure(frame, Normalisation("percentile", 2.0, 99.8))


def test_each_channel_has_its_own_scale() -> None:
    frame = np.concatenate([nuclei(), 1000 * nuclei(seed=6)])
    statistics, _ = measure(frame)
    apart = [measure(frame[i : i + 1])[0] for i in range(2)]
    assert statistics == Statistics(apart[0].offset + apart[1].offset, apart[0].scale + apart[1].scale)
    np.testing.assert_array_equal(statistics.apply(frame)[1:], apart[1].apply(frame[1:]))


# --- types ------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", [bool, np.int8, np.uint8, np.uint16, np.int64, np.float16, np.float32, np.float64])
def test_any_real_type_gives_what_float64_gives(dtype: Any, method: Any) -> None:
    values = nuclei() - 50 if dtype == np.int8 else nuclei()
    frame = (values > 100) if dtype is bool else values.clip(-128, 120).astype(dtype)
    result = normalised(frame, method)
    assert result.dtype == np.float32
    assert result.flags.c_contiguous
    np.testing.assert_allclose(result, normalised(frame.astype(np.float64), method), rtol=1e-5, atol=1e-5)


def test_percentiles_far_apart_do_not_overflow_their_type() -> None:
    frame = np.array([[[-120, -120, 120, 120]]], np.int8)
    statistics, _ = measure(frame, Normalisation("percentile", 0, 50))
    assert statistics == Statistics((-120.0,), (1 / 120.0,))


def test_a_large_offset_does_not_eat_the_digits() -> None:
    frame = nuclei()
    np.testing.assert_allclose(normalised(frame + 1e9, "percentile"), normalised(frame, "percentile"), atol=1e-5)


@pytest.mark.parametrize("frame", [np.zeros((1, 4, 4), complex), np.full((1, 4, 4), "a")])
def test_types_that_are_no_intensity_are_refused(frame: Array) -> None:
    with pytest.raises(ImageError, match=r"a frame of type (complex128|<U1) cannot be normalised"):
        measure(frame)


@pytest.mark.parametrize("shape", [(5,), (1, 0, 4), (0, 4, 4)])
def test_frames_without_voxels_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ImageError, match="has no voxels to measure"):
        measure(np.zeros(shape))


# --- invariances ------------------------------------------------------------------------


@in_any_time
@given(st.sampled_from(SCALED), st.floats(1e-6, 1e6), st.floats(-1e6, 1e6), st.integers(0, 99))
def test_gain_and_offset_of_the_camera_do_not_matter(method: Any, gain: float, offset: float, seed: int) -> None:
    frame = nuclei((1, 17, 23), seed)
    # What float64 keeps of the frame beside the offset bounds what can be compared.
    lost = np.spacing(abs(offset) + 200 * gain) / gain
    np.testing.assert_allclose(
        normalised(frame * gain + offset, method), normalised(frame, method), atol=1e-5 + 10 * lost, rtol=1e-5
    )


@in_any_time
@given(st.sampled_from(SCALED), st.integers(1, 250), st.integers(0, 1000))
def test_bit_depth_does_not_matter(method: Any, gain: int, offset: int) -> None:
    frame = nuclei((1, 17, 23)).clip(0, 255).astype(np.uint8)
    deeper = frame.astype(np.uint16) * gain + offset
    np.testing.assert_allclose(normalised(deeper, method), normalised(frame, method), atol=1e-5)


def test_none_is_not_invariant() -> None:
    assert (normalised(nuclei() * 2, "none") != normalised(nuclei(), "none")).all()


@in_any_time
@given(st.sampled_from(METHODS), st.tuples(st.integers(1, 70), st.integers(1, 90)))
def test_the_tile_size_does_not_matter(method: Any, tile: tuple[int, int]) -> None:
    frame = nuclei()
    statistics, _ = measure(frame, Normalisation(method))
    plan = plan_tiles(frame.shape[1:], tile, (0, 0), (4, 4))
    blend = Blend(plan, 1)
    for part in plan:
        blend.add(part, statistics.apply(read_tile(frame, part, plan)))
    np.testing.assert_array_equal(blend.finish(), statistics.apply(frame))


# --- large frames -----------------------------------------------------------------------


@in_any_time
@given(st.sampled_from(SCALED), st.integers(1, 5000), st.sampled_from([(2500,), (50, 50), (2, 25, 50), (3, 4, 5, 6)]))
def test_a_subsample_is_the_same_each_time_and_spans_no_more_than_the_frame(
    method: Any, max_voxels: int, shape: tuple[int, ...]
) -> None:
    frame = nuclei((1, *shape))
    first = measure(frame, Normalisation(method), max_voxels=max_voxels)
    assert first == measure(frame.copy(), Normalisation(method), max_voxels=max_voxels)
    assert frame.min() <= first[0].offset[0] <= frame.max()
    if max_voxels >= frame.size or method == "minmax":
        assert first == measure(frame, Normalisation(method))


def test_a_subsample_comes_close_and_is_not_the_whole() -> None:
    frame = nuclei((1, 700, 900))
    all_of_it, _ = measure(frame)
    part, _ = measure(frame, max_voxels=20_000)
    assert part != all_of_it
    np.testing.assert_allclose(part.apply(frame), all_of_it.apply(frame), atol=0.05)


def test_a_subsample_keeps_every_plane_of_a_flat_stack() -> None:
    frame = np.broadcast_to(np.arange(5.0)[None, :, None, None], (1, 5, 200, 200))
    statistics, _ = measure(frame, Normalisation("percentile", 0, 100), max_voxels=2000)
    assert statistics == Statistics((0.0,), (0.25,))


def test_a_subsample_of_none_is_refused() -> None:
    with pytest.raises(OptionsError, match="max_voxels=0 leaves nothing to measure"):
        measure(nuclei(), max_voxels=0)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("shape", [(1, 64, 256, 256), (1, 1, 2048, 2048)])
def test_no_copy_of_a_large_frame_is_made(shape: tuple[int, ...], method: Any) -> None:
    frame = np.random.default_rng(0).random(shape, np.float32)
    tracemalloc.start()
    try:
        statistics, _ = measure(frame, Normalisation(method), max_voxels=2**16)
        measured = tracemalloc.get_traced_memory()[1]
        tracemalloc.reset_peak()
        statistics.apply(frame)
        applied = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert measured < 0.25 * frame.nbytes
    assert applied < 1.1 * frame.nbytes


# --- bad voxels and empty scales --------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_nan_and_infinity_are_left_out_and_told(dtype: Any, method: Any) -> None:
    clean = nuclei((2, 40, 30)).astype(dtype)
    frame = clean.copy()
    frame[1, 0, :7], frame[1, 3, :2], frame[1, 4, 0] = np.nan, np.inf, -np.inf
    statistics, warnings = measure(frame, Normalisation(method))
    assert warnings == [
        "channel 1: 7 NaN and 3 infinite of 1200 voxels are left out of the intensity statistics and become 0"
    ]
    bad = ~np.isfinite(frame)
    good = measure(clean[1][~bad[1]].reshape(1, -1), Normalisation(method))[0]
    assert statistics.offset[1] == pytest.approx(good.offset[0])
    assert statistics.scale[1] == pytest.approx(good.scale[0])
    result = statistics.apply(frame)
    assert (result[bad] == 0).all()
    np.testing.assert_array_equal(result[~bad], statistics.apply(clean)[~bad])


@pytest.mark.parametrize(("bad", "words"), [(np.nan, "2 NaN of"), (-np.inf, "2 infinite of")])
def test_only_what_is_there_is_counted(bad: float, words: str) -> None:
    frame = nuclei()
    frame[0, 0, :2] = bad
    (warning,) = measure(frame)[1]
    assert words in warning


def test_bad_voxels_in_any_block_are_counted() -> None:
    frame = np.zeros((1, 2100, 1024), np.float16)
    frame[0, ::700, 0] = np.nan
    assert measure(frame, Normalisation("none"))[1][0].startswith("channel 0: 3 NaN of 2150400 voxels")


@pytest.mark.parametrize("method", SCALED)
@pytest.mark.parametrize("value", [0, 7, True, 0.1, np.float32(-3.3e38), np.float16(0.1)])
def test_a_constant_channel_becomes_zeros_with_a_warning(value: Any, method: Any) -> None:
    frame = np.full((1, 37, 41), value)
    statistics, warnings = measure(frame, Normalisation(method))
    assert (statistics.apply(frame) == 0).all()
    assert statistics.scale == (0.0,)
    expected = f"every finite voxel is {float(value):g}, so the channel becomes zeros; check that it is the right one"
    assert warnings == [f"channel 0: {expected}"]


@pytest.mark.parametrize("method", SCALED)
def test_a_channel_without_a_finite_voxel_becomes_zeros_with_a_warning(method: Any) -> None:
    frame = np.full((1, 4, 5), np.nan)
    frame[0, 0, 0] = np.inf
    statistics, warnings = measure(frame, Normalisation(method))
    assert (statistics.apply(frame) == 0).all()
    assert "19 NaN and 1 infinite of 20" in warnings[0]
    assert "no voxel is finite" in warnings[1]


@pytest.mark.parametrize("method", SCALED)
def test_a_range_that_no_float_can_scale_becomes_zeros_with_a_warning(method: Any) -> None:
    limit = np.finfo(np.float64).max
    frame = np.array([[[-limit, 0.0, limit, limit]]])
    statistics, (warning,) = measure(frame, Normalisation(method))
    assert (statistics.apply(frame) == 0).all()
    assert "have no usable range" in warning


def test_few_bright_objects_on_a_clipped_background_are_not_lost() -> None:
    frame = np.zeros((1, 200, 200), np.uint16)
    frame[0, 50:54, 60:64] = 4000
    statistics, warnings = measure(frame)
    assert statistics == Statistics((0.0,), (1 / 4000,))
    assert warnings == [
        "channel 0: percentiles 1 and 99.8 span no range, so its minimum and maximum, 0 and 4000, are used instead"
    ]


def test_a_deviation_that_the_subsample_missed_is_found() -> None:
    frame = np.zeros((1, 100, 100), np.uint8)
    frame[0, 0, 0] = 9
    statistics, (warning,) = measure(frame, Normalisation("zscore"), max_voxels=16)
    assert statistics == Statistics((0.0,), (1 / 9,))
    assert "mean and standard deviation of the voxels sampled span no range" in warning


# --- applying and storing ---------------------------------------------------------------


def test_apply_leaves_the_tile_as_it_was() -> None:
    frame = nuclei().astype(np.float32)
    frame[0, 0, 0] = np.nan
    before = frame.copy()
    measure(frame)[0].apply(frame)
    np.testing.assert_array_equal(frame, before)


def test_apply_is_finite_beyond_float32() -> None:
    result = Statistics((0.0,), (1.0,)).apply(np.array([[1e300, -1e300, 2.0, 3e38, 3e38]]))
    np.testing.assert_array_equal(result, np.array([[0, 0, 2, 3e38, 3e38]], np.float32))


@pytest.mark.parametrize("shape", [(), (1, 4), (3, 4)])
def test_apply_refuses_other_channels(shape: tuple[int, ...]) -> None:
    with pytest.raises(ImageError, match="does not have the 2 channels that were measured"):
        Statistics((0.0, 0.0), (1.0, 1.0)).apply(np.zeros(shape))


@in_any_time
@given(st.sampled_from(METHODS), st.floats(0, 49), st.floats(51, 100))
def test_a_normalisation_survives_json(method: Any, low: float, high: float) -> None:
    normalisation = Normalisation(method, low, high)
    assert Normalisation.from_dict(json.loads(json.dumps(normalisation.to_dict()))) == normalisation


def test_fields_left_out_take_their_defaults() -> None:
    assert Normalisation.from_dict({"method": "zscore"}) == Normalisation("zscore", 1.0, 99.8)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"method": "histogram"}, r"normalisation 'histogram' is unknown; it must be one of percentile, minmax"),
        ({"low": 60, "high": 40}, r"low=60, high=40 must satisfy 0 <= low < high <= 100"),
        ({"low": 5, "high": 5}, r"low=5, high=5 must satisfy"),
        ({"low": -1}, r"low=-1, high=99.8 must satisfy"),
        ({"high": float("nan")}, r"high=nan must satisfy"),
        ({"gamma": 2}, r"normalisation has no field 'gamma'; the fields are method, low, high"),
    ],
)
def test_a_normalisation_that_cannot_be_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionsError, match=message):
        Normalisation.from_dict(values)


@pytest.mark.parametrize(
    ("value", "dtype", "far"),
    [
        (-9999, np.float32, True),
        (65535, np.uint16, True),
        (float(np.finfo(np.float32).min), np.float32, True),
        (1000, np.uint16, False),
        (255, np.uint8, False),
        (np.nan, np.float32, False),
    ],
)
@pytest.mark.parametrize("method", ["percentile", "zscore", "minmax", "none"])
def test_values_far_off_are_told(value: float, dtype: Any, far: bool, method: Any) -> None:
    frame = np.random.default_rng(0).integers(10, 210, (1, 300, 300)).astype(dtype)
    frame[0, 150, 150] = value
    _, said = measure(frame, Normalisation(method))
    told = [message for message in said if "reach beyond 50 times the range that was measured" in message]
    assert len(told) == (far and method in ("percentile", "zscore"))
    assert all("make them NaN" in message for message in told)
