"""Targets: encoding, loss and decoding belong together."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from scipy import ndimage
from skimage.draw import disk
from skimage.morphology import ball

from napari_tiled_unet.losses import soft_dice_loss, weighted_mean
from napari_tiled_unet.options import SegmentOptions
from napari_tiled_unet.targets import OUTSIDE, Classes, Objects, Target


def touching_discs() -> np.ndarray:
    labels = np.zeros((64, 80), np.int64)
    for number, centre in enumerate([(30, 25), (30, 46), (12, 66)], start=1):
        labels[disk(centre, 11 if number < 3 else 5, shape=labels.shape)] = number
    return labels


def touching_balls() -> np.ndarray:
    labels = np.zeros((24, 32, 48), np.int64)
    sphere = ball(9)
    labels[2:21, 6:25, 3:22][sphere > 0] = 1
    labels[2:21, 6:25, 20:39][sphere > 0] = 2
    return labels


@pytest.mark.parametrize("labels", [touching_discs(), touching_balls()], ids=["2D", "3D"])
def test_objects_come_back_from_their_own_encoding(labels: np.ndarray) -> None:
    target = Objects()
    decoded = target.decode(target.encode(labels).maps, SegmentOptions())
    assert decoded.max() == labels.max()
    for number in range(1, labels.max() + 1):
        found = np.bincount(decoded[labels == number]).argmax()
        both = np.count_nonzero((decoded == found) & (labels == number))
        either = np.count_nonzero((decoded == found) | (labels == number))
        assert both / either > 0.9


def test_small_objects_weigh_more_per_voxel() -> None:
    labels = touching_discs()
    weight = Objects().encode(labels).weight[0]
    far = ndimage.distance_transform_edt(labels == 0) > 6
    assert weight[far].max() == weight[far].min() == 1
    # Border voxels are as dear on the outside as on the inside.
    ring = ndimage.binary_dilation(labels == 3, iterations=2) & (labels == 0)
    assert np.unique(weight[ring]).tolist() == np.unique(weight[labels == 3]).tolist()
    assert 1 < weight[labels == 1].max() < weight[labels == 3].min() <= 4


@pytest.mark.parametrize("dtype", [np.int32, np.uint64])
def test_large_numbers_are_encoded_as_small_ones(dtype: type) -> None:
    small = touching_discs()
    large = np.array([0, 3_000_000, 2_000_000, 7])[small].astype(dtype)
    expected = Objects().encode(small)
    tracemalloc.start()
    encoded = Objects().encode(large)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    np.testing.assert_array_equal(encoded.maps, expected.maps)
    np.testing.assert_array_equal(encoded.weight, expected.weight)
    assert peak < 8e6


def test_what_is_not_labelled_has_no_weight() -> None:
    labels = touching_discs()
    labels[:, 70:] = -1
    encoded = Objects().encode(labels)
    assert encoded.weight[0][labels == -1].max() == 0
    assert encoded.weight[0][labels >= 0].min() == 1


@pytest.mark.parametrize("background", [True, False])
def test_classes_come_back_from_their_own_encoding(background: bool) -> None:
    target = Classes(classes=("a", "b", "c"), background=background)
    labels = np.random.default_rng(0).integers(0, 3, (12, 13)) + (0 if background else 1)
    encoded = target.encode(labels)
    assert encoded.maps.shape == (3, 12, 13)
    assert encoded.weight.min() == 1
    np.testing.assert_array_equal(target.decode(encoded.maps, SegmentOptions()), labels)


def test_unknown_class_values_are_ignored() -> None:
    encoded = Classes(classes=("a", "b")).encode(np.array([[0, 1, 7]]))
    assert encoded.weight[0].tolist() == [[1, 1, 0]]


@pytest.mark.parametrize(
    ("target", "labels"),
    [(Objects(), touching_discs()), (Classes(classes=("background", "cell")), (touching_discs() > 0).astype(int))],
    ids=["objects", "classes"],
)
def test_the_loss_falls_towards_the_truth_and_ignores_weight_zero(target: Target, labels: np.ndarray) -> None:
    encoded = target.encode(labels)
    maps, weight = torch.from_numpy(encoded.maps)[None], torch.from_numpy(encoded.weight)[None].clone()
    right = maps.clamp(1e-3, 1 - 1e-3).logit() * (1 if target.kind == "objects" else 2)
    wrong = -right
    assert (
        target.loss(right, maps, weight)
        < target.loss(torch.zeros_like(maps), maps, weight)
        < target.loss(wrong, maps, weight)
    )
    weight[..., :20] = 0
    changed = maps.clone()
    changed[..., :20] = 1 - changed[..., :20]
    assert torch.equal(target.loss(right, maps, weight), target.loss(right, changed, weight))


def test_maps_are_probabilities() -> None:
    logits = torch.randn(2, 3, 5, 5)
    assert torch.allclose(Classes(classes=("a", "b", "c")).activate(logits).sum(1), torch.ones(2, 5, 5))
    maps = Objects().activate(logits[:, :2])
    assert ((maps > 0) & (maps < 1)).all()


def test_options_replace_the_targets_own_thresholds() -> None:
    labels = touching_discs()
    target = Objects(min_size=0)
    maps = target.encode(labels).maps
    assert target.decode(maps, SegmentOptions.of(min_size=200)).max() == 2
    assert Objects(min_size=200).decode(maps, SegmentOptions()).max() == 2
    assert Objects(min_size=200).decode(maps, SegmentOptions.of(min_size=0)).max() == 3
    ring = maps.copy()
    ring[0, 30, 25] = 0
    assert target.decode(ring, SegmentOptions.of(fill_holes=True))[30, 25] > 0
    assert target.decode(ring, SegmentOptions.of(fill_holes=False))[30, 25] == 0


def test_a_target_is_stored_by_its_kind() -> None:
    stored: TypeAdapter[Target] = TypeAdapter(Target)
    for target in (Objects(seed_threshold=0.3), Classes(classes=("a", "b"), background=False)):
        assert stored.validate_json(stored.dump_json(target)) == target
    with pytest.raises(ValidationError, match="affinities"):
        stored.validate_python({"kind": "affinities"})


def test_weighted_mean_and_dice() -> None:
    assert weighted_mean(torch.tensor([1.0, 3.0]), torch.tensor([1.0, 0.0])) == 1
    assert weighted_mean(torch.tensor([1.0]), torch.tensor([0.0])) == 0
    truth = torch.zeros(1, 1, 4, 4)
    truth[..., :2] = 1
    assert soft_dice_loss(truth, truth, torch.ones_like(truth)) == 0
    assert soft_dice_loss(1 - truth, truth, torch.ones_like(truth)) == pytest.approx(16 / 17)


def test_an_object_cut_by_the_image_has_one_centre_however_far_a_patch_reaches() -> None:
    labels = np.zeros((32, 32), np.int32)
    labels[10:22, :9] = 1
    reaching = np.pad(labels, [(0, 0), (8, 0)], constant_values=OUTSIDE)[:, :32]
    alone, beyond = Objects().encode(labels), Objects().encode(reaching)
    np.testing.assert_allclose(beyond.maps[:, :, 8:], alone.maps[:, :, :24], atol=0.03)
    assert not beyond.weight[..., :8].any()
    assert beyond.weight[..., 8:].all()
