"""The plan follows from the data, and says why."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from napari_tiled_unet import Image, iter_train
from napari_tiled_unet.errors import MemoryBudgetError, OptionsError
from napari_tiled_unet.events import Notice
from napari_tiled_unet.networks.zoo import network_spec
from napari_tiled_unet.training import Prepared
from napari_tiled_unet.training.batches import training_bytes_per_voxel
from napari_tiled_unet.training.plan import Plan
from tests.training.scenes import scene, scenes


def plan(images: Any, labels: Any, **options: Any) -> Plan:
    events = iter_train(images, labels, augmentation="none", **options)
    try:
        return next(e.plan for e in events if isinstance(e, Prepared))
    finally:
        events.close()


def told(made: Plan, name: str) -> str:
    return next(f"{c.value} ({c.reason})" for c in made.choices if c.name == name)


def test_larger_objects_get_a_deeper_network_and_a_larger_patch() -> None:
    small = plan(*scenes(2, shape=(600, 600), radius=3))
    large = plan(*scenes(2, shape=(600, 600), radius=18))
    huge = plan(*scenes(2, shape=(600, 600), radius=90, count=3))
    assert [p.network.depth for p in (small, large, huge)] == [2, 5, 5]
    assert small.patch == (256, 256)
    assert huge.patch[0] > 256
    assert "twice the largest objects" in told(huge, "patch")
    assert small.object_size == pytest.approx(5, abs=1)
    assert "objects are about 5 voxels wide" in told(small, "depth")


def test_a_patch_is_no_larger_than_the_images_and_a_multiple_of_the_stride() -> None:
    made = plan(*scenes(2, shape=(64, 300), radius=5))
    stride = 2**made.network.depth
    assert made.patch[0] == 64
    assert all(p % stride == 0 for p in made.patch)
    assert made.patch[1] <= 304
    tiny = plan(*scenes(2, shape=(16, 16), count=1, radius=5))
    assert tiny.network.depth == 2
    assert "so that 4 are left at the bottom" in told(tiny, "depth")


def test_thick_slices_are_not_halved_before_the_plane_has_caught_up() -> None:
    image, labels = scene((16, 64, 64), count=6, radius=6)
    made = plan(*([Image(x, "zyx", (2.0, 0.5, 0.5)) for x in part] for part in ((image, image), (labels, labels))))
    assert made.anisotropy == 4
    assert made.network.downsampling[:3] == ((1, 2, 2), (1, 2, 2), (2, 2, 2))
    assert made.network.kernels[:3] == ((1, 3, 3), (1, 3, 3), (3, 3, 3))
    assert made.patch[0] < made.patch[1]
    assert "4.0 times longer" in told(made, "strides")
    assert "2 x 0.5 x 0.5 um" in told(made, "voxel size")


def test_even_voxels_are_treated_alike() -> None:
    image, labels = scene((32, 40, 40), count=6, radius=6)
    made = plan(image, labels, axes="zyx")
    assert set(made.network.downsampling) == {(2, 2, 2)}
    assert made.anisotropy == 1
    assert told(made, "voxel size") == "unknown (not every image says it)"


def test_flat_objects_tell_of_thick_slices_where_the_voxel_size_is_unknown() -> None:
    image, labels = scene((36, 64, 64), count=5, radius=9)
    made = plan(image[::3], labels[::3], axes="zyx")
    assert made.anisotropy == pytest.approx(3, abs=0.6)


def test_dimensions_follow_the_stack() -> None:
    image, labels = scene((10, 40, 40), count=4, radius=5)
    assert plan(image, labels, axes="zyx").axes == "zyx"
    few = plan(image[:6], labels[:6], axes="zyx")
    assert few.axes == "yx"
    assert "6 slices are too few" in told(few, "dimensions")
    assert "as asked for" in told(plan(image, labels, axes="zyx", dimensions="2D"), "dimensions")


def test_memory_decides_the_batch() -> None:
    images, labels = scenes(2, shape=(128, 128))
    assert plan(images, labels).batch > plan(images, labels, memory=0.05).batch >= 1
    assert "GiB may be used" in told(plan(images, labels, memory=0.05), "batch")
    with pytest.raises(MemoryBudgetError, match="not even one patch"):
        plan(images, labels, memory=0.0001)
    with pytest.raises(MemoryBudgetError, match=r"batch=16 does not fit: .* take a smaller batch or patch"):
        plan(images, labels, memory=0.05, batch=16)


def test_the_memory_of_a_step_grows_with_the_network() -> None:
    images, labels = scenes(2)
    narrow, wide = (plan(images, labels, width=w).network for w in (8, 16))
    assert training_bytes_per_voxel(wide, 4) > 1.9 * training_bytes_per_voxel(narrow, 4)
    assert training_bytes_per_voxel(wide, 2) < training_bytes_per_voxel(wide, 4)


def test_the_memory_of_a_step_is_that_of_its_architecture() -> None:
    # Skips from every level to every level: measured, a step of it takes four times that of a plain one.
    plain, full = (
        training_bytes_per_voxel(network_spec(name, ndim=2, in_channels=1, out_channels=2, depth=4, width=16), 4)
        for name in ("unet", "unet3p")
    )
    assert full > 3 * plain
    measured = 2118  # bytes per voxel, of the plain one with float32
    assert measured < plain < 1.3 * measured


def test_what_is_asked_for_is_taken() -> None:
    images, labels = scenes(2)
    made = plan(
        images, labels, patch=(32, 40), batch=3, depth=3, width=6, normalisation="minmax", architecture="residual-unet"
    )
    assert made.patch == (32, 40)
    assert (made.batch, made.network.depth, made.network.width) == (3, 3, 6)
    assert made.normalisation.method == "minmax"
    assert made.network.architecture == "residual-unet"
    assert plan(images, labels, depth=2, patch=33).patch == (36, 36)
    with pytest.raises(OptionsError, match="has 3 numbers, give 1 or 2"):
        plan(images, labels, patch=(32, 32, 32))


def test_specks_are_dropped_by_the_size_of_the_objects() -> None:
    made = plan(*scenes(2, radius=8))
    assert 30 < made.target.min_size < 60
    assert "objects of at least" in told(made, "target")


def test_classes_are_named_and_their_sampling_told() -> None:
    images, labels = scenes(2)
    made = plan(images, [(t > 0).astype(np.uint8) for t in labels], target="classes")
    assert made.target.classes == ("background", "class 1")
    assert "class 1" in told(made, "sampling")
    assert told(made, "depth").startswith("4 ") or "left at the bottom" in told(made, "depth")


def test_a_start_model_brings_its_network() -> None:
    images, labels = scenes(2)
    made = plan([Image(i, "yx", (0.5, 0.5)) for i in images], labels, start="blobs")
    assert made.network.width == 2
    assert made.normalisation.method == "minmax"
    assert "as the start model 'blobs'" in told(made, "network")


def test_voxel_sizes_that_differ_are_told() -> None:
    images, labels = scenes(2)
    pair = [Image(images[0], "yx", (0.5, 0.5)), Image(images[1], "yx", (0.2, 0.2))]
    events = iter_train(pair, labels, augmentation="none")
    notices = [next(events) for _ in range(2)]
    events.close()
    assert any(
        isinstance(n, Notice) and n.caution and "voxel sizes differ by a factor of 2.5" in n.message for n in notices
    )


def test_the_plan_is_text_and_data() -> None:
    made = plan(*scenes(2))
    assert Plan.model_validate_json(made.model_dump_json()) == made
    assert all("(" in line for line in made.lines())
    assert made.summary()[0] == {"name": "dimensions", "value": "2D", "reason": "images have no z axis"}
