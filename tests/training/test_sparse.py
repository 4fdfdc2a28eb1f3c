"""Few and partial labels: what is not labelled teaches nothing; huge images stay on the disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_tiled_unet import Image, iter_train
from napari_tiled_unet.errors import ImageError
from napari_tiled_unet.normalise import Normalisation
from napari_tiled_unet.targets import Classes, Objects, Target
from napari_tiled_unet.training import Prepared, Trained
from napari_tiled_unet.training.augmentation import Augmenter
from napari_tiled_unet.training.examination import examined, object_scores
from napari_tiled_unet.training.grounds import survey_pairs
from napari_tiled_unet.training.pairs import Pair
from napari_tiled_unet.training.patches import Patches, parted
from napari_tiled_unet.training.survey import blocks, meaning, survey
from tests.training.scenes import SMALL, scene, scenes


def painted(labels: np.ndarray, keep: int = 3) -> np.ndarray:
    """Return partial labels: a few objects from 2, some background as 1, the rest 0."""
    sparse = np.zeros_like(labels)
    for number in range(1, keep + 1):
        sparse[labels == number] = number + 1
    sparse[:6][labels[:6] == 0] = 1
    return sparse


def test_one_meaning_for_whole_and_partial_labels() -> None:
    given_labels = np.array([[0, 1, 2, 5]], np.uint16)
    assert meaning(given_labels, sparse=False).tolist() == [[0, 1, 2, 5]]
    assert meaning(given_labels, sparse=True).tolist() == [[-1, 0, 1, 4]]


@pytest.mark.parametrize("target", [Objects(), Classes(classes=("background", "a", "b", "c"))])
def test_what_is_not_labelled_changes_no_loss(target: Target) -> None:
    labels = meaning(painted(scene()[1]), sparse=True)
    encoded = target.encode(labels)
    assert ((encoded.weight[0] > 0) == (labels >= 0)).all()
    logits = torch.randn(1, len(target.channels), *labels.shape, generator=torch.Generator().manual_seed(0))
    changed_maps = encoded.maps.copy()
    changed_maps[:, labels < 0] = 1 - changed_maps[:, labels < 0]
    changed_logits = torch.where(torch.from_numpy(labels < 0), logits + 5, logits)
    weight = torch.from_numpy(encoded.weight)[None]
    for kind in ("dice", "focal", "tversky"):
        losses = [
            target.loss(x, torch.from_numpy(maps)[None], weight, kind)
            for x, maps in ((logits, encoded.maps), (logits, changed_maps), (changed_logits, encoded.maps))
        ]
        assert losses[0] == losses[1] == losses[2]
        assert torch.isfinite(losses[0])
        assert target.loss(-logits, torch.from_numpy(encoded.maps)[None], weight, kind) != losses[0]


def test_partial_labels_train() -> None:
    images, labels = scenes(3)
    done = list(iter_train(images, [painted(t) for t in labels], sparse=True, **{**SMALL, "steps": 4}))[-1]
    assert isinstance(done, Trained)
    assert done.model.spec.training["options"]["sparse"] is True


def test_partial_labels_without_a_label_are_refused() -> None:
    image, labels = scene()
    with pytest.raises(ImageError, match=r"no voxel is labelled: .* paint background as 1"):
        iter_train(image, labels * 0, sparse=True, **SMALL)
    with pytest.raises(ImageError, match="no labels: there is background only"):
        iter_train(image, labels * 0 + 1, sparse=True, **SMALL)


def test_patches_lie_around_partial_labels() -> None:
    image, labels = np.random.default_rng(0).integers(0, 99, (400, 300)), np.zeros((400, 300), int)
    labels[200:210, 40:50] = 2
    labels[300:305, 250:260] = 1
    ground = survey_pairs(
        [Pair(Image(image, "yx"), Image(labels, "yx"))], "yx", Normalisation(), sparse=True, channels=None, told=[]
    )[0]
    patches = Patches(ground, Objects(), Augmenter("none", (32, 32)), count=99, seed=0, sparse=True)
    drawn = [patches.patch(i).labels for i in range(40)]
    assert all((patch >= 0).any() for patch in drawn)
    assert sum((patch > 0).any() for patch in drawn) > 20
    assert sum((patch == 0).any() for patch in drawn) > 2


class Counting:
    """A huge array that lives nowhere: zeros with a few painted places; counts what is read."""

    dtype = np.dtype(np.uint16)

    def __init__(self, shape: tuple[int, ...], places: dict[tuple[int, ...], int], noise: bool = False) -> None:
        self.shape, self.places, self.noise, self.largest = shape, places, noise, 0

    def __getitem__(self, key: Any) -> np.ndarray:
        box = [range(n)[k] for k, n in zip(key, self.shape, strict=True)]
        size = int(np.prod([len(b) for b in box]))
        self.largest = max(self.largest, size)
        if self.noise:
            rows = np.add.outer(np.arange(box[0].start, box[0].stop) * 7, np.arange(box[1].start, box[1].stop))
            return (np.add.outer(rows * 13, np.arange(box[2].start, box[2].stop)) % 251).astype(np.uint16)
        out = np.zeros([len(b) for b in box], np.uint16)
        for place, value in self.places.items():
            where = tuple(slice(max(0, p - b.start), max(0, p + 8 - b.start)) for p, b in zip(place, box, strict=True))
            out[where] = value
        return out


def test_a_volume_larger_than_memory_trains_from_a_few_spots() -> None:
    shape = (64, 2048, 2048)  # half a gigabyte, never read at once
    spots = {(8 * k, 200 * k + 50, 150 * k + 90): k + 2 for k in range(6)} | {(20, 30, 30): 1, (40, 1500, 1500): 1}
    image, labels = Counting(shape, {}, noise=True), Counting(shape, spots)
    options = {**SMALL, "axes": "zyx", "patch": (8, 16, 16), "steps": 2, "validate_every": 2, "sparse": True}
    events = iter_train(image, labels, **options)
    prepared = next(e for e in events if isinstance(e, Prepared))
    assert all((patch.labels >= 0).any() for patch in prepared.patches)
    assert isinstance(list(events)[-1], Trained)
    assert image.largest <= 2**22
    assert labels.largest <= 2**22


def test_a_memory_mapped_tiff_is_read_box_by_box(tmp_path: Path) -> None:
    import tifffile

    image, labels = scene((300, 400), count=8)
    for name, data in (("a.tif", image), ("a_labels.tif", labels)):
        tifffile.imwrite(tmp_path / name, data)
    mapped = [Image(tifffile.memmap(tmp_path / name, mode="r"), "yx") for name in ("a.tif", "a_labels.tif")]
    assert isinstance(list(iter_train(*mapped, **{**SMALL, "steps": 1}))[-1], Trained)


def test_zarr_arrays_train(tmp_path: Path) -> None:
    import zarr

    image, labels = scene((96, 80), count=6)
    arrays = []
    for name, data in (("i", image), ("t", labels)):
        array = zarr.create_array(tmp_path / name, shape=data.shape, chunks=(32, 32), dtype=data.dtype)
        array[:] = data
        arrays.append(array)
    assert isinstance(list(iter_train(*arrays, **{**SMALL, "steps": 1}))[-1], Trained)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 40), min_size=2, max_size=3), st.integers(20, 500))
def test_blocks_cover_a_frame_once(shape: list[int], most: int) -> None:
    seen = np.zeros(shape, int)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("napari_tiled_unet.training.survey._BLOCK", most)
        for box in blocks(shape):
            seen[box] += 1
            assert seen[box].size <= most
    assert (seen == 1).all()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.sampled_from([50, 300, 10**6]), st.booleans())
def test_a_survey_counts_what_is_there(seed: int, block: int, sparse: bool) -> None:
    labels = np.random.default_rng(seed).integers(0, 5, (13, 17)).astype(np.uint8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("napari_tiled_unet.training.survey._BLOCK", block)
        frame = next(Image(labels, "yx").frames("yx"))
        found = survey(frame, labels.shape, sparse=sparse)
    truth = meaning(labels, sparse=sparse)
    values, counts = np.unique(truth, return_counts=True)
    assert found.voxels == dict(zip(values.tolist(), counts.tolist(), strict=True))
    assert found.objects == [v for v in values.tolist() if v > 0]
    assert found.labelled == np.count_nonzero(truth >= 0)
    for value, places in found.places.items():
        assert (truth[tuple(places.T)] == value).all()
    for value, extent in zip(found.objects, found.extents(), strict=True):
        where = np.argwhere(truth == value)
        assert (where.max(0) - where.min(0) + 1 == extent).all()


def test_only_labelled_objects_are_scored() -> None:
    truth = np.full((20, 20), -1)
    truth[:10] = 0
    truth[2:6, 2:6] = 1
    predicted = np.zeros((20, 20), int)
    predicted[2:6, 2:6] = 1
    predicted[14:18, 14:18] = 2  # where nothing is labelled
    assert object_scores(iter([(predicted, truth)]))[0] == 1
    predicted[8, 14:18] = 3  # on painted background
    assert object_scores(iter([(predicted, truth)]))[1]["ap50"] == 0.5


def test_large_grounds_are_examined_around_their_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    image, labels = scene((200, 160), count=1, radius=8, seed=3)
    ground = survey_pairs(
        [Pair(Image(image, "yx"), Image(labels, "yx"))], "yx", Normalisation(), sparse=False, channels=None, told=[]
    )[0]
    assert examined(ground, (16, 16)) == tuple(ground)
    monkeypatch.setattr("napari_tiled_unet.training.examination._LARGE", 1000)
    parts = examined(ground, (16, 16))
    assert 1 <= len(parts) <= 4
    assert all((labels[part.box] > 0).any() for part in parts)


def test_a_large_ground_without_objects_is_examined_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("napari_tiled_unet.training.examination._LARGE", 1000)
    noise = np.random.default_rng(0).random((200, 160), np.float32)
    blank = Pair(Image(noise, "yx"), Image(np.zeros((200, 160), np.uint8), "yx"))
    image, labels = scene((64, 64), count=1, radius=8, seed=3)
    pairs = [Pair(Image(image, "yx"), Image(labels, "yx")), blank]
    grounds = [
        g for all_of in survey_pairs(pairs, "yx", Normalisation(), sparse=False, channels=None, told=[]) for g in all_of
    ]
    parts = examined([g for g in grounds if not g.survey.objects], (16, 16))
    assert len(parts) == 8
    assert (parts[0].box[0].start, parts[-1].box[0].stop) == (0, 200)


def test_slices_are_examined_as_they_are_taught() -> None:
    bent = np.zeros((3, 20, 20), np.uint8)
    bent[:, 4:16, 4:7] = bent[:, 4:16, 12:15] = 1
    ground = survey_pairs(
        [Pair(Image(bent, "zyx"), Image(bent, "zyx"))], "yx", Normalisation(), sparse=False, channels=None, told=[]
    )[0][0]
    labels = ground.labels.read(box=ground.box)[0].astype(np.int32)
    assert set(np.unique(parted(labels, ground))) == {0, 1, 2}
