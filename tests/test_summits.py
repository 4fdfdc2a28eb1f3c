"""Valleys part a landscape if they are deep enough."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from skimage.morphology import h_maxima, reconstruction

from napari_tiled_unet.summits import prominent_basins


def line(*heights: float) -> np.ndarray:
    return np.array([heights], np.float32)


def everywhere(height: np.ndarray) -> np.ndarray:
    return np.ones(height.shape, bool)


def landscape(ndim: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    shape = (26, 30) if ndim == 2 else (10, 12, 14)
    height = ndimage.gaussian_filter(rng.random(shape), 1.5)
    height = ((height - height.min()) / np.ptp(height)).astype(np.float32)
    return height, ndimage.gaussian_filter(rng.random(shape), 2) > 0.48


def test_a_deep_valley_parts_and_a_shallow_one_does_not() -> None:
    height = line(0.1, 0.9, 0.6, 0.8, 0.1)
    assert prominent_basins(height, everywhere(height), prominence=0.1, least=0).tolist() == [[1, 1, 1, 2, 2]]
    assert prominent_basins(height, everywhere(height), prominence=0.3, least=0).tolist() == [[1, 1, 1, 1, 1]]


def test_joined_basins_are_as_high_as_their_highest_summit() -> None:
    # The middle summit joins the left one over a shallow pass; what counts on the right is the lower right summit.
    height = line(1.0, 0.70, 0.75, 0.4, 0.6)
    assert prominent_basins(height, everywhere(height), prominence=0.1, least=0).max() == 2
    assert prominent_basins(height, everywhere(height), prominence=0.25, least=0).max() == 1


def test_low_summits_join_their_neighbour_and_go_where_they_have_none() -> None:
    height = line(0.9, 0.1, 0.3, 0.0, 0.3)
    mask = np.array([[True, True, True, False, True]])
    assert prominent_basins(height, mask, prominence=0.05, least=0.2).tolist() == [[1, 1, 2, 0, 3]]
    assert prominent_basins(height, mask, prominence=0.05, least=0.4).tolist() == [[1, 1, 1, 0, 0]]


def test_a_plateau_is_one_summit() -> None:
    height = np.zeros((6, 6), np.float32)
    height[2:4, 1:5] = 1
    assert prominent_basins(height, everywhere(height), prominence=0.0, least=0).max() == 1
    assert prominent_basins(np.ones((3, 3, 3)), np.ones((3, 3, 3), bool), prominence=0.0, least=0).max() == 1


def test_what_is_not_a_number_is_outside() -> None:
    height = line(0.5, 0.9, np.nan, np.nan, 0.8, np.nan)
    assert prominent_basins(height, everywhere(height), prominence=0, least=0.3).tolist() == [[1, 1, 0, 0, 2, 0]]


def test_nothing_gives_nothing() -> None:
    assert prominent_basins(np.ones((4, 4)), np.zeros((4, 4), bool), prominence=0.1, least=0).max() == 0


BOTH = pytest.mark.parametrize("ndim", [2, 3])


@BOTH
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_basins_fill_the_mask_are_connected_and_numbered(ndim: int, seed: int) -> None:
    height, mask = landscape(ndim, seed)
    labels = prominent_basins(height, mask, prominence=0.1, least=0.3)
    # Left out is what hangs together without a summit that is high enough.
    parts, n_parts = ndimage.label(mask)
    highest = np.array([0.0, *ndimage.maximum(height, parts, range(1, n_parts + 1))])
    np.testing.assert_array_equal(labels > 0, mask & (highest[parts] >= 0.3))
    assert np.unique(labels[labels > 0]).tolist() == list(range(1, labels.max() + 1))
    for number in range(1, labels.max() + 1):
        assert ndimage.label(labels == number)[1] == 1


@BOTH
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_more_prominence_never_means_more_basins(ndim: int, seed: int) -> None:
    height, mask = landscape(ndim, seed)
    counts = [prominent_basins(height, mask, prominence=p, least=0).max() for p in (0, 0.05, 0.1, 0.2, 0.5, 1)]
    assert counts == sorted(counts, reverse=True)
    assert counts[-1] == ndimage.label(mask)[1]


@BOTH
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_it_is_a_watershed_from_the_h_maxima(ndim: int, seed: int) -> None:
    """As many basins as h-maxima, and from no voxel does a higher pass lead to another of them than to its own."""
    height, _ = landscape(ndim, seed)
    faces = ndimage.generate_binary_structure(ndim, 1)
    seeds, count = ndimage.label(h_maxima(height, 0.15, footprint=faces), faces)
    labels = prominent_basins(height, everywhere(height), prominence=0.15, least=0)
    assert labels.max() == count
    # How high one can stay from each voxel to each summit; where two are equal, either basin is right.
    passes = np.zeros((count + 1, *height.shape), np.float32)
    for k in range(1, count + 1):
        own = np.bincount(labels[seeds == k]).argmax()
        passes[own] = reconstruction(np.where(seeds == k, height, 0), height, footprint=faces)
    np.testing.assert_array_equal(np.take_along_axis(passes, labels[None].astype(np.intp), 0)[0], passes.max(axis=0))


@BOTH
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), band_voxels=st.integers(1, 500), threads=st.integers(1, 4))
def test_bands_and_threads_change_nothing(ndim: int, seed: int, band_voxels: int, threads: int) -> None:
    height, mask = landscape(ndim, seed)
    # Steps make many ties, at the borders of bands too.
    for land in (height, np.round(height * 8) / 8):
        whole = prominent_basins(land, mask, prominence=0.1, least=0.3, band_voxels=10**9)
        banded = prominent_basins(land, mask, prominence=0.1, least=0.3, band_voxels=band_voxels, threads=threads)
        np.testing.assert_array_equal(banded, whole)


@pytest.mark.parametrize("threads", [1, 3])
def test_a_long_climb_through_many_bands_comes_to_its_end(threads: int) -> None:
    # Each band of one row is followed before those that it leads to.
    ramp = np.repeat(np.linspace(0, 1, 3000, dtype=np.float32)[:, None], 2, axis=1)
    for land in (ramp, ramp[::-1].copy()):
        labels = prominent_basins(land, everywhere(land), prominence=0.0, least=0.5, band_voxels=1, threads=threads)
        assert (labels == 1).all()
