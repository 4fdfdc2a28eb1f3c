"""Patches are varied, images and labels alike."""

from __future__ import annotations

import sys

import cc3d
import numpy as np
import pytest

from napari_tiled_unet.errors import OptionsError
from napari_tiled_unet.targets import OUTSIDE
from napari_tiled_unet.training.augmentation import Augmenter

PRESETS = ("none", "light", "standard", "strong")


def region(augment: Augmenter) -> tuple[np.ndarray, np.ndarray]:
    """Return an image that shows its labels: bright where they are high."""
    shape = tuple(p + 2 * m for p, m in zip(augment.patch, augment.margin, strict=True))
    labels = np.zeros(shape, np.int32)
    middle = tuple(slice(n // 4, n - n // 4) for n in shape)
    labels[middle] = 70_000
    labels[..., :2] = -1
    return (labels > 0).astype(np.float32)[None], labels


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize(("patch", "anisotropy"), [((32, 48), 1.0), ((16, 16, 24), 1.0), ((8, 32, 32), 4.0)])
def test_shape_values_and_place_are_kept(preset: str, patch: tuple[int, ...], anisotropy: float) -> None:
    augment = Augmenter(preset, patch, anisotropy)  # type: ignore[arg-type]
    image, labels = region(augment)
    for seed in range(4):
        varied, moved = augment(image, labels, seed)
        assert varied.shape == (1, *patch)
        assert moved.shape == patch
        assert varied.dtype == np.float32
        assert set(np.unique(moved)) <= {OUTSIDE, -1, 0, 70_000}
        # What was bright is still what is labelled, but for interpolated borders and noise.
        inside, outside = varied[0][moved == 70_000], varied[0][moved == 0]
        assert inside.mean() > outside.mean() + 0.3


@pytest.mark.parametrize("preset", PRESETS[1:])
def test_the_seed_decides(preset: str) -> None:
    augment = Augmenter(preset, (32, 32))  # type: ignore[arg-type]
    image, labels = region(augment)
    one, again, other = (augment(image, labels, seed)[0] for seed in (3, 3, 4))
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)


@pytest.mark.parametrize("preset", PRESETS[1:])
def test_numbers_beyond_float32_survive(preset: str) -> None:
    augment = Augmenter(preset, (32, 32))  # type: ignore[arg-type]
    image, labels = region(augment)
    _, moved = augment(image, labels, 5)
    _, large = augment(image, np.where(labels > 0, 2**30 + 1, labels).astype(np.int32), 5)
    assert np.array_equal(large, np.where(moved > 0, 2**30 + 1, moved))


def test_monai_is_left_as_it_was() -> None:
    from monai.data import get_track_meta, set_track_meta

    augment = Augmenter("light", (32, 32))
    for records in (False, True):
        set_track_meta(records)
        augment(*region(augment), 0)
        assert get_track_meta() is records


def test_none_changes_nothing_and_strong_more_than_light() -> None:
    image, labels = region(Augmenter("none", (32, 32)))
    varied, moved = Augmenter("none", (32, 32))(image, labels, 0)
    assert np.array_equal(varied, image)
    assert np.array_equal(moved, labels)
    assert Augmenter("light", (32, 32)).margin == (0, 0)
    assert Augmenter("strong", (32, 32)).margin == (8, 8)


@pytest.mark.parametrize("preset", PRESETS[1:])
def test_thick_slices_are_never_mixed(preset: str) -> None:
    augment = Augmenter(preset, (8, 32, 32), anisotropy=4)  # type: ignore[arg-type]
    shape = tuple(p + 2 * m for p, m in zip(augment.patch, augment.margin, strict=True))
    labels = np.broadcast_to(np.arange(1, shape[0] + 1, dtype=np.int32)[:, None, None], shape).copy()
    for seed in range(6):
        _, moved = augment(np.zeros((1, *shape), np.float32), labels, seed)
        assert all(len(np.unique(plane[plane > 0])) == 1 for plane in moved)
        assert (np.diff(moved[:, 0, 0]) >= 0).all()


def test_without_monai_the_remedy_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "monai.transforms", None)
    with pytest.raises(OptionsError, match=r"pip install 'napari-tiled-unet\[train\]', or take augmentation='none'"):
        Augmenter("light", (32, 32))
    Augmenter("none", (32, 32))


@pytest.mark.parametrize("preset", ["standard", "strong"])
@pytest.mark.parametrize("first", [1, 2**30])
def test_no_mirror_image_of_an_object_is_labelled(preset: str, first: int) -> None:
    augment = Augmenter(preset, (48, 48))
    side = 48 + 2 * augment.margin[0]
    labels = np.zeros((side, side), np.int32)
    labels[4:16, 4:16], labels[-16:-4, -16:-4] = first, first + 1
    image = (labels[None] > 0).astype(np.float32)
    filled = 0
    for seed in range(40):
        _, varied = augment(image, labels, seed)
        assert set(np.unique(varied)) <= {OUTSIDE, 0, first, first + 1}
        filled += int((varied == OUTSIDE).sum())
        for number in (first, first + 1):
            _, pieces = cc3d.connected_components((varied == number).astype(np.uint8), connectivity=8, return_N=True)
            assert pieces <= 1
    assert filled > 0
