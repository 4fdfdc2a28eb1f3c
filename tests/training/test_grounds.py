"""Training and validation never meet."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_tiled_unet import Image
from napari_tiled_unet.normalise import Normalisation
from napari_tiled_unet.targets import OUTSIDE, Classes, Objects
from napari_tiled_unet.training.augmentation import Augmenter
from napari_tiled_unet.training.grounds import Ground, Split, split, survey_pairs
from napari_tiled_unet.training.pairs import Pair
from napari_tiled_unet.training.patches import Patches, class_probabilities, read_region
from tests.training.scenes import scene, scenes


def grounds(
    images: list[np.ndarray], labels: list[np.ndarray], axes: str = "yx", spatial: str = "yx"
) -> list[list[Ground]]:
    pairs = [
        Pair(Image(i, axes, name=str(n)), Image(t, axes)) for n, (i, t) in enumerate(zip(images, labels, strict=True))
    ]
    return survey_pairs(pairs, spatial, Normalisation(), sparse=False, channels=None, told=[])


def names(parts: tuple[Ground, ...]) -> set[str]:
    return {ground.image.image.name for ground in parts}


def test_whole_images_are_held_out() -> None:
    parts = split(grounds(*scenes(10)), 0.2, (8, 8), seed=0)
    assert len(names(parts.validation)) == 2
    assert names(parts.training) | names(parts.validation) == {str(n) for n in range(10)}
    assert not names(parts.training) & names(parts.validation)
    assert names(split(grounds(*scenes(10)), 0.2, (8, 8), seed=5).validation) != names(parts.validation)


def test_an_image_with_objects_is_held_out_first() -> None:
    images, labels = scenes(4)
    labels[0][:], labels[1][:] = 0, 0
    for seed in range(5):
        parts = split(grounds(images, labels), 0.25, (8, 8), seed)
        assert names(parts.validation) <= {"2", "3"}
    labels[2][:] = 0
    for seed in range(5):
        assert "3" in names(split(grounds(images, labels), 0.25, (8, 8), seed).training)


@pytest.mark.parametrize("seed", range(5))
def test_some_image_with_objects_is_always_learned_from(seed: int) -> None:
    images, labels = scenes(10)
    for truth in labels[2:]:
        truth[:] = 0
    parts = split(grounds(images, labels), 0.2, (8, 8), seed)
    assert len(names(parts.validation)) == 2
    assert len(names(parts.training)) == 8
    for part in (parts.training, parts.validation):
        assert len(names(part) & {"0", "1"}) == 1


def test_held_out_images_without_objects_are_told() -> None:
    images, labels = scenes(10)
    for truth in labels[1:]:
        truth[:] = 0
    parts = split(grounds(images, labels), 0.2, (8, 8), seed=0)
    assert "0" in names(parts.training)
    assert parts.caution
    assert "only one image has labels above the background" in parts.caution
    assert split(grounds(*scenes(10)), 0.2, (8, 8), seed=0).caution is None


def test_few_images_are_cut_each_with_a_gap() -> None:
    parts = split(grounds(*scenes(5)), 0.2, (9, 9), seed=0)
    assert parts.reason == "a part of 5 of 5 images is held out, after a gap: too few to hold out whole ones"
    assert [g.name for g in parts.training] == [g.name for g in parts.validation]
    for learned, held in zip(parts.training, parts.validation, strict=True):
        (axis,) = (a for a in (0, 1) if learned.box[a] != held.box[a])
        assert held.box[axis].start - learned.box[axis].stop == 9
        assert held.survey.objects
    assert "drawn with the seed" in split(grounds(*scenes(8)), 0.2, (9, 9), seed=0).reason


def test_of_few_images_those_without_objects_are_learned_whole() -> None:
    images, labels = scenes(4)
    labels[1][:] = 0
    parts = split(grounds(images, labels), 0.2, (9, 9), seed=0)
    assert parts.reason.startswith("a part of 3 of 4 images")
    assert names(parts.validation) == {"0", "2", "3"}
    (whole,) = (g for g in parts.training if g.name == "1")
    assert whole.shape == images[1].shape


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 100), st.sampled_from([(120, 80), (70, 150), (64, 64)]), st.integers(0, 16))
def test_a_single_image_is_cut_with_a_gap(seed: int, shape: tuple[int, int], gap: int) -> None:
    image, labels = scene(shape, count=10, radius=5, seed=seed)
    parts = split(grounds([image], [labels]), 0.25, (gap, gap), seed=0)
    if parts.caution:
        return
    (learned,), (held,) = parts.training, parts.validation
    axis = next(a for a in (0, 1) if learned.box[a] != held.box[a])
    assert held.box[axis].start - learned.box[axis].stop == gap
    assert labels[learned.box].any()
    assert labels[held.box].any()
    # A patch reads nothing outside its ground, wherever it is put and however wide its margin.
    marked = np.zeros(shape, np.uint16)
    marked[learned.box] = 1
    frame = next(Image(marked, "yx").frames("yx"))
    inside = Ground(frame, learned.labels, learned.box, learned.survey, learned.statistics)
    patches = Patches([inside], Objects(), Augmenter("none", (32, 32)), count=9, seed=seed)
    for index in range(5):
        start = patches._start(inside, np.random.default_rng(index))
        region = read_region(inside, start, (32, 32), (8, 8), sparse=False)
        assert len(np.unique(region.image)) == 1
        assert region.labels.shape == (48, 48)


def test_a_single_tiny_image_is_used_for_both_and_said_so() -> None:
    image, labels = scene((16, 16), count=1, radius=4)
    parts: Split = split(grounds([image], [labels]), 0.2, (8, 8), seed=0)
    assert parts.caution
    assert "say nothing about new images; label a second image" in parts.caution


def test_a_series_is_cut_along_its_frames() -> None:
    image, labels = scene((40, 32, 32), count=20, radius=5)
    parts = split(grounds([image], [labels], "zyx"), 0.2, (8, 8), seed=0)
    learned = [g.image.position[0] for g in parts.training]
    held = [g.image.position[0] for g in parts.validation]
    assert min(held) - max(learned) == 3
    assert parts.reason == "the last 8 of 40 frames are held out, with 2 unused before them"


@pytest.mark.parametrize(("times", "depths", "axis"), [(8, 6, 0), (3, 10, 1)])
def test_slices_of_a_stack_over_time_are_cut_in_time_or_in_depth(times: int, depths: int, axis: int) -> None:
    image, labels = scene(count=8, radius=5)
    stack, truth = (np.broadcast_to(a, (times, depths, *a.shape)) for a in (image, labels))
    parts = split(grounds([stack], [truth], "tzyx"), 0.25, (9, 9), seed=0)
    learned, held = ({g.image.position[axis] for g in side} for side in (parts.training, parts.validation))
    assert max(learned) + 1 < min(held)
    assert len(parts.validation) == len(held) * (times * depths // (times, depths)[axis])
    assert f"positions along {'tz'[axis]} are held out" in parts.reason


@pytest.mark.parametrize("frames", [2, 3, 4])
def test_the_frames_of_a_short_series_are_cut_at_the_same_place(frames: int) -> None:
    image, labels = scene(count=8, radius=5)
    stack, truth = np.stack([image] * frames), np.stack([labels] * frames)
    parts = split(grounds([stack], [truth], "zyx"), 0.25, (9, 9), seed=0)
    assert parts.caution is None
    assert f"of all {frames} frames are held out, after a gap of 9" in parts.reason
    positions = [(n,) for n in range(frames)]
    assert [g.image.position for g in parts.training] == [g.image.position for g in parts.validation] == positions
    learned, held = np.zeros((2, 64, 64), bool)
    for ground in parts.training:
        learned[ground.box] = True
    for ground in parts.validation:
        held[ground.box] = True
    assert not (learned & held).any()
    (axis,) = (a for a in (0, 1) if parts.training[0].box[a] != parts.validation[0].box[a])
    assert np.flatnonzero(held.any(axis=1 - axis)).min() - np.flatnonzero(learned.any(axis=1 - axis)).max() == 10


def test_a_slice_that_is_labelled_on_one_side_alone_is_used_there() -> None:
    image, labels = scene(count=8, radius=5)
    painted = np.stack([labels + 1, labels + 1])
    painted[1, 10:] = 0
    painted[1, :, 10:] = 0
    pair = Pair(Image(np.stack([image, image]), "zyx", name="stack"), Image(painted, "zyx"))
    found = survey_pairs([pair], "yx", Normalisation(), sparse=True, channels=None, told=[])
    parts = split(found, 0.25, (8, 8), seed=0)
    assert [g.image.position for g in parts.training] == [(0,), (1,)]
    assert [g.image.position for g in parts.validation] == [(0,)]


def test_patches_depend_on_their_number_alone() -> None:
    ground = [g for frames in grounds(*scenes(3)) for g in frames]
    patches = [Patches(ground, Objects(), Augmenter("standard", (32, 32)), count=99, seed=s) for s in (4, 4, 5)]
    for index in (7, 3):
        one, two, other = (p.patch(index) for p in patches)
        assert np.array_equal(one.image, two.image)
        assert np.array_equal(one.labels, two.labels)
        assert not np.array_equal(one.image, other.image)
    assert len(patches[0]) == 99


def test_rare_classes_are_drawn_more_often_than_they_occur() -> None:
    labels = np.zeros((100, 100), np.uint8)
    labels[50:, 50:] = 1
    labels[:4, :4] = 2
    image = np.random.default_rng(0).random((100, 100))
    ground = grounds([image], [labels])[0]
    shares = class_probabilities(ground)
    assert abs(sum(shares.values()) - 1) < 1e-9
    assert shares[2] > 10 * 16 / 10_000
    patches = Patches(ground, Classes(classes=("a", "b", "c")), Augmenter("none", (16, 16)), count=400, seed=0)
    seen = np.mean([(patches.patch(i).labels == 2).any() for i in range(200)])
    by_chance = (16 + 4) ** 2 / (100 + 16) ** 2
    assert seen > by_chance


def test_a_bent_object_is_two_in_a_slice() -> None:
    labels = np.zeros((6, 32, 32), np.uint8)
    labels[:, 4:10, 4:10] = 1
    labels[:, 20:26, 20:26] = 1
    image = np.random.default_rng(0).random(labels.shape)
    ground = grounds([image], [labels], "zyx")[0]
    patches = Patches(ground, Objects(), Augmenter("none", (32, 32)), count=9, seed=0)
    assert set(np.unique(patches.patch(0).labels)) == {0, 1, 2}


def test_past_the_image_nothing_is_labelled() -> None:
    image, labels = scene((20, 20), count=1, radius=4)
    region = read_region(grounds([image], [labels])[0][0], (-6, -6), (32, 32), (0, 0), sparse=False)
    assert region.labels[:6].max() == OUTSIDE
    assert np.array_equal(region.labels[6:26, 6:26], labels)
    assert np.isfinite(region.image).all()
