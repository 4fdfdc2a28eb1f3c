"""Maps to labels and back, in 2D and 3D."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from napari_tiled_unet.centre import centre_map
from napari_tiled_unet.errors import ImageError, OptionsError
from napari_tiled_unet.labelling import (
    _quiet_centre,
    classes_from_maps,
    fill_object_holes,
    link_slices,
    objects_from_maps,
    remove_small,
)
from napari_tiled_unet.metrics import intersection_over_union


def ellipsoids(ndim: int, seed: int, count: int = 6, side: int = 48) -> np.ndarray:
    """Return random ellipsoids, later ones cutting into earlier ones: touching, never overlapping."""
    rng = np.random.default_rng(seed)
    shape = (side,) * ndim if ndim == 2 else (side // 2,) * ndim
    grid = np.indices(shape)
    labels = np.zeros(shape, np.int64)
    for number in range(1, count + 1):
        centre = [rng.uniform(0, n) for n in shape]
        radii = rng.uniform(3, 8, ndim)
        labels[sum(((g - c) / r) ** 2 for g, c, r in zip(grid, centre, radii, strict=True)) <= 1] = number
    return labels


def as_maps(labels: np.ndarray) -> np.ndarray:
    return np.stack([(labels > 0).astype(np.float32), centre_map(labels)])


def cells(ndim: int, seed: int) -> np.ndarray:
    """Return round cells that touch along straight walls, some of them cut by the image border."""
    labels, squared_distance = nearest_point(ndim, seed)
    return np.where(squared_distance <= 81, labels, 0)


def nearest_point(ndim: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return, for some random points, which is nearest to each voxel, and its squared distance."""
    rng = np.random.default_rng(seed)
    shape = (70, 60) if ndim == 2 else (30, 36, 32)
    points: list[np.ndarray] = []
    for point in rng.uniform(0, shape, (60, ndim)):
        if all(np.linalg.norm(point - other) > 13 for other in points):
            points.append(point)
    distance = np.stack([sum((g - c) ** 2 for g, c in zip(np.indices(shape), p, strict=True)) for p in points])
    return distance.argmin(axis=0) + 1, distance.min(axis=0)


def same_objects(found: np.ndarray, expected: np.ndarray) -> bool:
    """Return whether two label images differ in nothing but the numbers, which have no gaps."""
    pairs = np.unique(np.stack([found.ravel(), expected.ravel()]), axis=1)
    return len(set(pairs[0])) == len(set(pairs[1])) == pairs.shape[1] == max(found.max(), expected.max()) + (0 in found)


def random_maps(ndim: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    noise = rng.random((2, *(24,) * ndim) if ndim == 2 else (2, 12, 14, 16))
    smooth = np.stack([ndimage.gaussian_filter(n, 1.5) for n in noise])
    return ((smooth - smooth.min()) / np.ptp(smooth)).astype(np.float32)


BOTH = pytest.mark.parametrize("ndim", [2, 3])
SEEDS = st.integers(0, 10_000)


@BOTH
@given(seed=SEEDS)
@settings(max_examples=20, deadline=None)
def test_labels_are_consecutive_connected_and_inside_the_foreground(ndim: int, seed: int) -> None:
    maps = random_maps(ndim, seed)
    labels = objects_from_maps(maps, fill_holes=False, min_size=3)
    values, sizes = np.unique(labels[labels > 0], return_counts=True)
    assert values.tolist() == list(range(1, len(values) + 1))
    assert (sizes >= 3).all()
    assert not labels[maps[0] <= 0.5].any()
    for value in values:
        assert ndimage.label(labels == value)[1] == 1


@BOTH
@given(seed=SEEDS)
@settings(max_examples=20, deadline=None)
def test_without_a_size_filter_all_the_foreground_is_labelled(ndim: int, seed: int) -> None:
    maps = random_maps(ndim, seed)
    labels = objects_from_maps(maps, fill_holes=False, min_size=0, seed_threshold=0.0)
    np.testing.assert_array_equal(labels > 0, maps[0] > 0.5)


def two_summits(valley: float, second: float = 0.9) -> np.ndarray:
    """Return the maps of a bar whose centre map has two summits with a valley between them."""
    centre = np.interp(np.arange(41), [0, 10, 20, 30, 40], [0.1, 0.9, valley, second, 0.1]).astype(np.float32)
    return np.stack([np.ones((9, 41), np.float32), np.repeat(centre[None], 9, axis=0)])


@pytest.mark.parametrize(
    ("valley", "prominence", "count"), [(0.5, 0.1, 2), (0.85, 0.1, 1), (0.85, 0.02, 2), (0.5, 0.5, 1)]
)
def test_a_valley_parts_objects_if_it_is_deep_enough(valley: float, prominence: float, count: int) -> None:
    labels = objects_from_maps(two_summits(valley), seed_prominence=prominence)
    assert labels.max() == count
    assert (labels[:, :20] == labels[0, 0]).all()


@pytest.mark.parametrize(("threshold", "count"), [(0.3, 2), (0.6, 1)])
def test_a_low_summit_joins_its_neighbour(threshold: float, count: int) -> None:
    assert objects_from_maps(two_summits(0.2, second=0.5), seed_threshold=threshold).max() == count


@BOTH
def test_touching_objects_come_apart(ndim: int) -> None:
    shape = (40, 60) if ndim == 2 else (26, 26, 44)
    grid = np.indices(shape)
    middle = [n // 2 for n in shape[:-1]]
    labels = np.zeros(shape, int)
    for number, x in ((1, shape[-1] // 2 - 9), (2, shape[-1] // 2 + 8)):
        centre = [*middle, x]
        labels[sum((g - c) ** 2 for g, c in zip(grid, centre, strict=True)) <= 81] = number
    assert ndimage.label(labels)[1] == 1, "they must touch for this test to mean something"
    found = objects_from_maps(as_maps(labels))
    assert found.max() == 2
    assert np.mean(found == labels) > 0.99


@BOTH
@given(seed=SEEDS)
@settings(max_examples=15, deadline=None)
def test_touching_objects_survive_encoding_and_decoding(ndim: int, seed: int) -> None:
    labels = cells(ndim, seed)
    found = objects_from_maps(as_maps(labels))
    assert found.max() == labels.max()
    overlap = intersection_over_union(found, labels).max(axis=0)
    assert overlap.min() > 0.85
    assert overlap.mean() > 0.97


@BOTH
@given(seed=SEEDS)
@settings(max_examples=15, deadline=None)
def test_a_higher_foreground_threshold_labels_less(ndim: int, seed: int) -> None:
    maps = random_maps(ndim, seed)
    low, high = (
        objects_from_maps(maps, foreground_threshold=threshold, fill_holes=False) > 0 for threshold in (0.4, 0.6)
    )
    assert not (high & ~low).any()
    assert low.sum() > high.sum()


@BOTH
@given(seed=SEEDS)
@settings(max_examples=15, deadline=None)
def test_no_object_keeps_a_hole_of_its_own(ndim: int, seed: int) -> None:
    labels = objects_from_maps(random_maps(ndim, seed), min_size=5)
    for value in range(1, int(labels.max()) + 1):
        inside = ndimage.binary_fill_holes(labels == value) & (labels == 0)
        gaps, _ = ndimage.label(labels == 0)
        for gap in np.unique(gaps[inside]):
            ring = ndimage.binary_dilation(gaps == gap) & (gaps != gap)
            assert set(labels[ring]) != {value}


@BOTH
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), band_voxels=st.integers(1, 700), threads=st.integers(1, 3))
def test_objects_do_not_depend_on_bands_and_threads(ndim: int, seed: int, band_voxels: int, threads: int) -> None:
    maps = random_maps(ndim, seed)
    whole = objects_from_maps(maps, min_size=4, band_voxels=10**9)
    banded = objects_from_maps(maps, min_size=4, band_voxels=band_voxels, threads=threads)
    np.testing.assert_array_equal(banded, whole)


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (3, 2), (40, 31), (1, 1, 9), (5, 2, 12)])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, ">f2", np.float64])
def test_the_centre_map_is_quieted_by_a_gaussian(shape: tuple[int, ...], dtype: npt.DTypeLike) -> None:
    maps = np.random.default_rng(4).random((2, *shape)).astype(dtype)
    land = _quiet_centre(maps, 0.5, band_voxels=20, threads=2)
    blurred = ndimage.gaussian_filter(maps[1].astype(np.float64), 0.7, radius=2, mode="reflect")
    expected = np.where(maps[0] > 0.5, blurred, -np.inf)
    np.testing.assert_allclose(land, expected, atol=1e-6)


@BOTH
@pytest.mark.parametrize("seed", range(3))
def test_half_precision_maps_give_the_same_objects(ndim: int, seed: int) -> None:
    maps = random_maps(ndim, seed)
    found, expected = objects_from_maps(maps.astype(np.float16)), objects_from_maps(maps)
    assert np.mean((found > 0) != (expected > 0)) < 0.002
    assert abs(int(found.max()) - int(expected.max())) <= 1


@pytest.mark.parametrize("shape", [(7, 0), (0, 7), (0, 0), (2, 0, 3)])
@pytest.mark.parametrize("fill_holes", [True, False])
def test_nothing_at_all_holds_no_object(shape: tuple[int, ...], fill_holes: bool) -> None:
    assert objects_from_maps(np.zeros((2, *shape), np.float16), fill_holes=fill_holes).shape == shape


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_what_is_not_a_number_is_no_object(dtype: npt.DTypeLike) -> None:
    maps = np.ones((2, 9, 30), dtype)
    maps[0, :, 20:] = np.nan
    maps[1, 4, 4] = np.nan
    labels = objects_from_maps(maps, foreground_threshold=0.5, seed_threshold=0.3, fill_holes=False)
    assert labels.max() == 1
    assert not labels[:, 20:].any()
    assert labels[4, 4] == 0


def test_no_foreground_is_no_object() -> None:
    assert objects_from_maps(np.zeros((2, 5, 5), np.float32)).max() == 0
    assert objects_from_maps(np.ones((2, 5, 5), np.float32)).tolist() == np.ones((5, 5)).tolist()


@BOTH
def test_the_centre_map_is_one_at_the_centre_and_falls(ndim: int) -> None:
    labels = np.zeros((21,) * ndim, int)
    labels[(slice(3, 18),) * ndim] = 1
    centre = centre_map(labels)
    assert centre[(10,) * ndim] == centre.max() == 1
    line = centre[(10,) * (ndim - 1)]
    assert (np.diff(line[3:11]) > 0).all()
    assert (np.diff(line[10:18]) < 0).all()
    assert centre[labels == 0].max() == 0
    assert centre[labels > 0].min() > 0


def test_the_centre_of_a_bent_object_lies_in_it() -> None:
    labels = np.zeros((30, 30), int)
    labels[2:28, 2:6] = labels[24:28, 2:28] = 1
    centre = centre_map(labels)
    assert centre.max() == 1
    assert labels[np.unravel_index(centre.argmax(), labels.shape)] == 1


def centre_map_by_definition(labels: np.ndarray, spacing: tuple[float, ...]) -> np.ndarray:
    out = np.zeros(labels.shape)
    for value in np.unique(labels[labels > 0]):
        voxels = np.argwhere(labels == value) * spacing
        others = np.argwhere(labels != value) * spacing
        centre = voxels.mean(axis=0)
        if labels[tuple(np.rint(centre / spacing).astype(int))] != value:
            centre = voxels[np.linalg.norm(voxels - centre, axis=1).argmin()]
        border = np.linalg.norm(voxels[:, None] - others[None], axis=2).min(axis=1)
        out[labels == value] = border / (border + np.linalg.norm(voxels - centre, axis=1))
    return out


@pytest.mark.parametrize("spacing", [(1.0, 1.0), (2.5, 0.4)])
def test_the_centre_map_is_its_definition(spacing: tuple[float, ...]) -> None:
    labels = ellipsoids(2, 11, count=8, side=32)
    labels[:, 30:] = labels[3:29, 28] = 40  # a bent object: its centroid lies outside
    labels[28, 28:] = 40
    expected = centre_map_by_definition(labels, spacing)
    np.testing.assert_allclose(centre_map(labels, spacing=spacing), expected, atol=1e-4)


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.uint32, np.int64, np.uint64])
def test_the_centre_map_takes_any_integers_in_any_layout(dtype: type) -> None:
    labels = ellipsoids(3, 3)
    np.testing.assert_array_equal(centre_map(np.asfortranarray(labels.astype(dtype))), centre_map(labels))
    assert not centre_map(np.zeros((4, 5), dtype)).any()


def test_a_single_voxel_is_its_own_centre() -> None:
    labels = np.zeros((5, 5), np.uint8)
    labels[2, 2] = 9
    assert centre_map(labels)[2, 2] == 1


def test_the_image_border_is_no_object_border() -> None:
    labels = np.zeros((20, 20), int)
    labels[:, :10] = 1
    centre = centre_map(labels)
    assert centre[10, 0] > centre[10, 9]
    assert np.isfinite(centre_map(np.ones((8, 8), int))).all()


@BOTH
def test_past_the_image_objects_run_on(ndim: int) -> None:
    labels = ellipsoids(ndim, 5, count=6, side=24)
    assert len(np.unique(labels[0])) > 1  # something is cut
    beyond = np.pad(labels, 7)
    outside = np.pad(np.zeros(labels.shape, bool), 7, constant_values=True)
    inside = (slice(7, -7),) * ndim
    here, there = centre_map(labels), centre_map(beyond, outside=outside)
    # What lies past the image stands nearer to a slanting object than the image's end does, by a little.
    assert np.abs(there[inside] - here).max() < 0.12
    assert np.abs(centre_map(beyond)[inside] - here).max() > 0.3
    assert not there[outside].any()
    with pytest.raises(ImageError, match="outside has shape"):
        centre_map(labels, outside=outside)


def test_where_all_is_outside_nothing_runs_on() -> None:
    assert not centre_map(np.zeros((5, 6), int), outside=np.ones((5, 6), bool)).any()


def test_spacing_makes_the_centre_map_physical() -> None:
    labels = np.zeros((11, 33), int)
    labels[1:10, 3:30] = 1
    stretched = centre_map(labels, spacing=(3, 1))
    assert stretched[5, 4] == pytest.approx(stretched[1, 16], abs=0.15)
    assert centre_map(labels)[5, 4] < centre_map(labels)[1, 16]


def test_object_numbers_may_have_gaps() -> None:
    labels = ellipsoids(2, 4)
    np.testing.assert_array_equal(centre_map(labels * 1000), centre_map(labels))


def test_small_objects_go() -> None:
    labels = np.array([[5, 5, 0, 3, 0, 9, 9, 9]])
    assert remove_small(labels, 0).tolist() == [[2, 2, 0, 1, 0, 3, 3, 3]]
    assert remove_small(labels, 2).tolist() == [[1, 1, 0, 0, 0, 2, 2, 2]]
    assert remove_small(labels, 9).max() == 0


@BOTH
def test_holes_are_filled_if_one_object_encloses_them(ndim: int) -> None:
    labels = np.zeros((9,) * ndim, int)
    labels[(slice(1, 8),) * ndim] = 3
    labels[(slice(3, 5),) * ndim] = 0
    filled = fill_object_holes(labels)
    assert (filled[(slice(1, 8),) * ndim] == 3).all()
    assert filled[(0,) * ndim] == 0
    shared = labels.copy()
    shared[(slice(1, 4), *(slice(1, 8),) * (ndim - 1))][shared[(slice(1, 4), *(slice(1, 8),) * (ndim - 1))] > 0] = 4
    np.testing.assert_array_equal(fill_object_holes(shared), shared)
    open_hole = labels.copy()
    open_hole[(slice(0, 4), *(slice(4, 5),) * (ndim - 1))] = 0
    np.testing.assert_array_equal(fill_object_holes(open_hole), open_hole)


@BOTH
def test_a_hole_that_touches_a_second_object_on_any_side_stays(ndim: int) -> None:
    labels = np.full((5,) * ndim, 3)
    middle = (2,) * ndim
    labels[middle] = 0
    assert (fill_object_holes(labels) == 3).all()
    for axis in range(ndim):
        for step in (-1, 1):
            beside = labels.copy()
            beside[tuple(2 + step * (a == axis) for a in range(ndim))] = 4
            np.testing.assert_array_equal(fill_object_holes(beside), beside)


def test_classes() -> None:
    maps = np.eye(3, dtype=np.float32)[:, None, :]
    assert classes_from_maps(maps).tolist() == [[0, 1, 2]]
    assert classes_from_maps(maps, background=1).tolist() == [[1, 0, 2]]
    assert classes_from_maps(maps, background=None).tolist() == [[1, 2, 3]]


def test_equal_probabilities_go_to_the_first_class() -> None:
    assert classes_from_maps(np.ones((3, 1, 2), np.float32), background=2).tolist() == [[1, 1]]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("threads", [1, 3])
def test_classes_are_the_most_probable_whatever_the_bands(dtype: npt.DTypeLike, threads: int) -> None:
    maps = np.random.default_rng(1).random((4, 9, 7, 5)).round(1).astype(dtype)
    before = maps.copy()
    for voxels in (1, 80, 10**6):
        found = classes_from_maps(maps, band_voxels=voxels, threads=threads)
        np.testing.assert_array_equal(found, maps.argmax(axis=0))
    np.testing.assert_array_equal(maps, before)


def test_more_classes_than_a_byte_holds() -> None:
    maps = np.zeros((300, 1, 1), np.float32)
    maps[299] = 1
    assert classes_from_maps(maps, background=None).tolist() == [[300]]


def stack_of(*rows: list[int]) -> np.ndarray:
    return np.array(rows)[:, None, :]


def test_slices_are_linked_where_objects_overlap() -> None:
    labels = stack_of([1, 1, 1, 0, 2, 2], [7, 7, 7, 0, 0, 0], [4, 4, 4, 0, 5, 5])
    assert link_slices(labels).tolist() == stack_of([1, 1, 1, 0, 2, 2], [1, 1, 1, 0, 0, 0], [1, 1, 1, 0, 3, 3]).tolist()


def test_linking_is_one_to_one_and_respects_the_overlap() -> None:
    split = stack_of([1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 2, 2])
    assert link_slices(split).tolist() == stack_of([1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 2, 2]).tolist()
    shifted = stack_of([1, 1, 1, 0, 0], [0, 0, 1, 1, 1])
    assert link_slices(shifted).tolist() == stack_of([1, 1, 1, 0, 0], [0, 0, 2, 2, 2]).tolist()
    assert link_slices(shifted, min_overlap=0.2).tolist() == stack_of([1, 1, 1, 0, 0], [0, 0, 1, 1, 1]).tolist()


def test_linking_empty_stacks() -> None:
    assert link_slices(np.zeros((3, 4, 4), int)).max() == 0
    assert link_slices(stack_of([0, 0], [1, 1], [0, 0])).max() == 1


def test_linking_needs_each_to_be_the_others_best() -> None:
    # Both halves have an IoU of one half with the whole: one of them continues it.
    assert link_slices(stack_of([1, 1, 1, 1], [1, 1, 2, 2])).tolist() == stack_of([1, 1, 1, 1], [1, 1, 2, 2]).tolist()
    chain = stack_of([1, 1, 1, 1, 2, 2], [0, 3, 3, 3, 3, 3])
    assert link_slices(chain, min_overlap=0.3).tolist() == stack_of([1, 1, 1, 1, 2, 2], [0, 1, 1, 1, 1, 1]).tolist()


def test_the_same_number_in_two_slices_means_nothing() -> None:
    assert link_slices(stack_of([5, 5, 0, 0], [0, 0, 5, 5])).tolist() == stack_of([1, 1, 0, 0], [0, 0, 2, 2]).tolist()


@given(seed=SEEDS)
@settings(max_examples=15, deadline=None)
def test_linked_objects_are_those_that_overlap_by_more_than_half(seed: int) -> None:
    rng = np.random.default_rng(seed)
    sliced = np.stack([np.r_[0, rng.permutation(200) + 1][plane] for plane in cells(3, seed)])
    linked = link_slices(sliced, min_overlap=0.51)
    assert np.unique(linked[linked > 0]).tolist() == list(range(1, int(linked.max()) + 1))
    for here, above, was_here, was_above in zip(linked[1:], linked, sliced[1:], sliced, strict=False):
        scores = intersection_over_union(was_here, was_above)
        expected = {
            (a, b)
            for i, a in enumerate(np.unique(was_here[was_here > 0]))
            for j, b in enumerate(np.unique(was_above[was_above > 0]))
            if scores[i, j] >= 0.51
        }
        joined = {
            (was_here[here == number][0], was_above[above == number][0])
            for number in np.intersect1d(here[here > 0], above)
        }
        assert joined == expected


def test_wrong_input_is_refused() -> None:
    floats, line = np.zeros((4, 4)), np.zeros(4, int)
    for wrong in (floats, line, floats > 0):
        for function in (centre_map, fill_object_holes, link_slices, lambda labels: remove_small(labels, 1)):
            with pytest.raises(ImageError, match=r"must be integers \(\[z,\] y, x\)"):
                function(wrong)
    with pytest.raises(ImageError, match=r"shape \(4, 4\); linking slices needs \(z, y, x\)"):
        link_slices(np.zeros((4, 4), int))
    with pytest.raises(ImageError, match=r"maps have shape \(3, 4, 4\); objects need \(2, "):
        objects_from_maps(np.zeros((3, 4, 4), np.float32))
    for spacing in ((1.0,), (1.0, 0.0), (1.0, float("nan")), (1.0, float("inf"))):
        with pytest.raises(OptionsError, match="must be 2 positive numbers"):
            centre_map(np.zeros((4, 4), int), spacing=spacing)
    for overlap in (-0.1, 1.1, float("nan")):
        with pytest.raises(OptionsError, match=f"min_overlap={overlap} is outside its range"):
            link_slices(np.zeros((2, 4, 4), int), min_overlap=overlap)
    for background in (-1, 2):
        with pytest.raises(OptionsError, match=f"background={background} is none of the 2 classes 0 to 1"):
            classes_from_maps(np.zeros((2, 4, 4), np.float32), background=background)
