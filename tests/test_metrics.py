"""Scores on cases whose answer is known by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.optimize import linear_sum_assignment

from napari_tiled_unet.errors import ImageError, OptionsError
from napari_tiled_unet.metrics import (
    THRESHOLDS,
    average_precision,
    boundary_f_score,
    dice,
    intersection_over_union,
    iou,
    match_objects,
)

LABELS = hnp.arrays(np.uint8, hnp.array_shapes(min_dims=2, max_dims=3, max_side=7), elements=st.integers(0, 4))


def boxes(*spans: tuple[int, int]) -> np.ndarray:
    """Return one row of 40 voxels with an object per span."""
    row = np.zeros((1, 40), np.int32)
    for number, (start, stop) in enumerate(spans, start=1):
        row[0, start:stop] = number
    return row


def test_thresholds_are_the_common_ones() -> None:
    assert THRESHOLDS == (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9)


def test_counts_by_hand() -> None:
    true = boxes((0, 10), (12, 22), (30, 34))
    # IoU 1, IoU 8/12 = 0.667, nothing for the third, one extra.
    predicted = boxes((0, 10), (14, 24), (36, 40))
    matches = match_objects(predicted, true)
    assert matches.tp.tolist() == [2, 2, 2, 2, 1, 1, 1, 1, 1]
    assert matches.fp.tolist() == [1, 1, 1, 1, 2, 2, 2, 2, 2]
    assert matches.fn.tolist() == [1, 1, 1, 1, 2, 2, 2, 2, 2]
    assert matches.average_precision[0] == 2 / 4


def test_an_iou_of_exactly_the_threshold_is_a_match() -> None:
    assert match_objects(boxes((0, 10)), boxes((0, 20))).tp[0] == 1
    assert match_objects(boxes((0, 9)), boxes((0, 10)), [0.9]).tp.tolist() == [1]


def test_a_split_object_is_matched_once() -> None:
    assert match_objects(boxes((0, 10), (10, 20)), boxes((0, 20))).tp[0] == 1
    # Below one half several partners are possible: as many one-to-one matches as there can be.
    predicted, true = boxes((0, 6), (6, 12)), boxes((0, 5), (5, 12))
    assert match_objects(predicted, true, [0.1]).tp.tolist() == [2]


@given(LABELS, st.integers(0, 2**31), st.sampled_from([0.05, 0.1, 0.2, 0.35, 0.5]))
def test_as_many_pairs_as_an_optimal_assignment(labels: np.ndarray, seed: int, threshold: float) -> None:
    other = np.random.default_rng(seed).integers(0, 6, labels.shape)
    scores = intersection_over_union(labels, other)
    expected = 0
    if scores.size:
        # Pairs above the threshold first, their IoU second: the assignment of stardist.matching.
        cost = -(scores >= threshold).astype(float) - scores / (2 * min(scores.shape))
        chosen = linear_sum_assignment(cost)
        expected = int(np.count_nonzero(scores[chosen] >= threshold))
    assert match_objects(labels, other, [threshold]).tp.tolist() == [expected]


def test_greedy_matching_would_lose_a_pair() -> None:
    # The second prediction fits the first truth best, but only then is the second truth left over.
    predicted, true = boxes((0, 4), (4, 13)), boxes((0, 10), (10, 13))
    assert intersection_over_union(predicted, true).round(2).tolist() == [[0.4, 0.0], [0.46, 0.33]]
    assert match_objects(predicted, true, [0.3]).tp.tolist() == [2]


def test_pooled_and_per_image_means_differ_as_they_should() -> None:
    good, empty = boxes((0, 5), (6, 11), (12, 17)), boxes()
    result = average_precision([good, empty], [good, boxes((0, 5))])
    assert result.pooled[0] == 3 / 4
    assert result.per_image_mean[0] == 1 / 2


def test_empty_images() -> None:
    empty, one = boxes(), boxes((0, 5))
    assert (match_objects(empty, empty).average_precision == 1).all()
    assert (match_objects(empty, one).average_precision == 0).all()
    assert (match_objects(one, empty).average_precision == 0).all()


@given(LABELS, st.permutations(range(1, 5)))
def test_numbers_do_not_matter(labels: np.ndarray, permutation: list[int]) -> None:
    renamed = np.array([0, *[10 * p for p in permutation]])[labels]
    assert (match_objects(renamed, labels).average_precision == 1).all()


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint32, np.int64, np.uint64])
def test_any_integer_type_and_any_gaps(dtype: type) -> None:
    top = np.iinfo(dtype).max
    labels: np.ndarray = np.array([[0, 3, 3, top, top]], dtype)
    assert intersection_over_union(labels, labels).tolist() == [[1, 0], [0, 1]]
    # Nothing but objects, no background in between.
    assert match_objects(labels[:, 1:], labels[:, 1:], [1.0]).tp.tolist() == [2]


def test_many_objects_need_no_table_of_all_pairs() -> None:
    labels = np.arange(1, 40_001).reshape(200, 200)
    matches = match_objects(labels, labels[:, ::-1])
    assert (matches.tp == 40_000).all()


@given(LABELS, st.integers(0, 2**31))
def test_swapping_the_images_swaps_extra_and_missed(labels: np.ndarray, seed: int) -> None:
    other = np.random.default_rng(seed).integers(0, 4, labels.shape)
    there, back = match_objects(labels, other), match_objects(other, labels)
    np.testing.assert_array_equal(there.tp, back.tp)
    np.testing.assert_array_equal(there.fp, back.fn)
    assert (np.diff(there.tp) <= 0).all()


@given(LABELS, st.integers(0, 2**31))
def test_iou_agrees_with_its_definition(labels: np.ndarray, seed: int) -> None:
    other = np.random.default_rng(seed).integers(0, 4, labels.shape)
    found = intersection_over_union(labels, other)
    for i, a in enumerate(np.unique(labels[labels > 0])):
        for j, b in enumerate(np.unique(other[other > 0])):
            assert found[i, j] == pytest.approx(iou(labels == a, other == b))


def test_masks() -> None:
    a, b = boxes((0, 10)), boxes((5, 15))
    assert dice(a, b) == 0.5
    assert iou(a, b) == 5 / 15
    assert dice(boxes(), boxes()) == iou(boxes(), boxes()) == 1


def test_boundary_score_counts_within_the_tolerance() -> None:
    a, b = np.zeros((20, 20), int), np.zeros((20, 20), int)
    a[5:15, 5:15] = 1
    b[5:15, 7:17] = 1
    assert boundary_f_score(a, a) == 1
    assert boundary_f_score(a, b, 2) == 1
    assert 0 < boundary_f_score(a, b, 1) < 1
    assert boundary_f_score(a, np.zeros_like(a)) == 0
    assert boundary_f_score(np.zeros_like(a), np.zeros_like(a)) == 1


def test_wrong_input_is_refused() -> None:
    with pytest.raises(ImageError, match=r"shape .* they must be of the same image"):
        match_objects(boxes(), boxes()[:, :5])
    with pytest.raises(ImageError, match="predicted labels are float64, they must be integers"):
        match_objects(boxes() * 1.0, boxes())
    with pytest.raises(ImageError, match="true labels go down to -2; number the objects from 1"):
        match_objects(boxes((0, 5)), -2 * boxes((0, 5)))
    for threshold in (0.0, 1.1, float("nan")):
        with pytest.raises(OptionsError, match=rf"IoU thresholds \[{threshold}\] are outside"):
            match_objects(boxes(), boxes(), [0.5, threshold])
    for tolerance in (-1.0, float("nan")):
        with pytest.raises(OptionsError, match=f"tolerance={tolerance} must be 0 or more voxels"):
            boundary_f_score(boxes(), boxes(), tolerance)
    with pytest.raises(ImageError, match="1 predictions for 2 truths"):
        average_precision([boxes()], [boxes(), boxes()])
    with pytest.raises(ImageError, match="0 images cannot be scored"):
        average_precision([], [])
    for score in (dice, iou, boundary_f_score):
        with pytest.raises(ImageError, match="shapes"):
            score(boxes(), boxes()[:, :5])


def test_borders_of_objects_with_large_numbers_are_seen() -> None:
    true = np.kron(np.array([[1, 2], [3, 4]], np.uint64), np.ones((8, 8), np.uint64))
    merged = np.where(true == 2, 1, true).astype(np.uint64)
    far = np.uint64(2**60)
    expected = boundary_f_score(merged, true)
    assert expected < 1
    assert boundary_f_score(merged + far, true + far) == expected
