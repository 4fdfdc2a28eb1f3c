"""Maps to labels and back, in 2D and 3D."""

from __future__ import annotations

import cc3d
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from napari_tiled_unet.labelling import (
    centre_map,
    classes_from_maps,
    fill_object_holes,
    link_slices,
    objects_from_maps,
    remove_small,
)


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
    labels = objects_from_maps(maps, fill_holes=False, min_size=0)
    np.testing.assert_array_equal(labels > 0, maps[0] > 0.5)


@BOTH
@given(seed=SEEDS)
@settings(max_examples=15, deadline=None)
def test_each_seed_is_one_object(ndim: int, seed: int) -> None:
    maps = random_maps(ndim, seed)
    mask, central = maps[0] > 0.5, maps[1] > 0.6
    seeds, n_seeds = ndimage.label(mask & central)
    parts, n_parts = ndimage.label(mask)
    unseeded = n_parts - len(np.unique(parts[seeds > 0]))
    labels = objects_from_maps(maps, seed_threshold=0.6, fill_holes=False)
    assert labels.max() == n_seeds + unseeded


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
def test_compact_objects_survive_encoding_and_decoding(ndim: int, seed: int) -> None:
    labels = ellipsoids(ndim, seed)
    # Cut objects may fall apart or hold several summits: keep those that are whole.
    whole = cc3d.connected_components(labels.astype(np.uint32), connectivity=4 if ndim == 2 else 6)
    sizes = np.bincount(whole.ravel())
    labels = np.where(sizes[whole] >= 40, whole, 0)
    found = objects_from_maps(as_maps(labels), seed_threshold=0.6)
    for value in np.unique(labels[labels > 0]):
        inside = found[labels == value]
        best = np.bincount(inside).argmax()
        both = np.count_nonzero(inside == best)
        # The centre of every object lies in an object of its own.
        assert both / inside.size > 0.5


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


def test_classes() -> None:
    maps = np.eye(3, dtype=np.float32)[:, None, :]
    assert classes_from_maps(maps).tolist() == [[0, 1, 2]]
    assert classes_from_maps(maps, background=1).tolist() == [[1, 0, 2]]
    assert classes_from_maps(maps, background=None).tolist() == [[1, 2, 3]]


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
