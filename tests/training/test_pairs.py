"""Images and labels brought together, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from napari_tiled_unet import Image, iter_train, train
from napari_tiled_unet.errors import FileError, ImageError, OptionsError
from napari_tiled_unet.events import Notice
from napari_tiled_unet.model_files import save_model
from napari_tiled_unet.pairing import pair_files
from napari_tiled_unet.targets import Classes
from napari_tiled_unet.train_options import TrainOptions
from napari_tiled_unet.training import Prepared
from napari_tiled_unet.training.pairs import open_pairs
from tests.models import blob_model
from tests.training.scenes import SMALL, folders, scene, scenes


def begin(images: Any, labels: Any, **options: Any) -> list[Any]:
    """Prepare a training, and return what is said before the first step."""
    events = iter_train(images, labels, **{**SMALL, "steps": 1, **options})
    told = []
    for event in events:
        told.append(event)
        if isinstance(event, Prepared):
            break
    events.close()
    return told


def write(path: Path, data: Any, **how: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, data, **how)
    return path


def test_files_are_paired_by_name(tmp_path: Path) -> None:
    images, labels = folders(tmp_path)
    write(images / "lonely.tif", scene()[0])
    write(labels / "stray_mask.tif", scene()[1])
    pairing = pair_files(images, labels)
    assert [(i.name, t.name) for i, t in pairing.matched] == [
        (f"cells {n}.tif", f"cells {n}_labels.tif") for n in range(3)
    ]
    assert pairing.report() == (
        "3 images have labels; without labels: lonely.tif; labels without an image: stray_mask.tif"
    )
    notices = [e.message for e in begin(images, labels) if isinstance(e, Notice)]
    assert pairing.report() in notices


@pytest.mark.parametrize("name", ["a.png", "a_mask.tif", "a-labels.tif", "a_seg.tif", "a_labels.ome.tif", "A_GT.tif"])
def test_usual_names_of_labels_are_known(tmp_path: Path, name: str) -> None:
    from PIL import Image as Picture

    stem = name[0]
    write(tmp_path / "images" / f"{stem}.tif", scene()[0])
    if name.endswith(".png"):
        (tmp_path / "labels").mkdir()
        Picture.fromarray(scene()[1].astype(np.uint8)).save(tmp_path / "labels" / name)
    else:
        write(tmp_path / "labels" / name, scene()[1])
    assert pair_files(tmp_path / "images", tmp_path / "labels").matched[0][1].name == name


def test_images_and_labels_may_share_a_folder(tmp_path: Path) -> None:
    for number, (image, truth) in enumerate(zip(*scenes(2), strict=True)):
        write(tmp_path / f"{number}.tif", image)
        write(tmp_path / f"{number}_labels.ome.tif", truth)
    pairing = pair_files(tmp_path, tmp_path)
    assert [i.name for i, _ in pairing.matched] == ["0.tif", "1.tif"]
    assert pairing.report() == "2 images have labels"


def test_many_names_are_cut_short(tmp_path: Path) -> None:
    images, labels = folders(tmp_path)
    for n in range(8):
        write(images / f"x{n}.tif", scene()[0])
    assert "x4.tif and 3 more" in pair_files(images, labels).report()


def test_pairs_that_do_not_match_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "images" / "a.tif", scene()[0])
    write(tmp_path / "labels" / "b.tif", scene()[1])
    with pytest.raises(FileError, match=r"no image .* has labels .* without labels: a.tif; labels without an image: b"):
        pair_files(tmp_path / "images", tmp_path / "labels")
    with pytest.raises(FileError, match="does not exist; give a folder"):
        pair_files(tmp_path / "images", tmp_path / "nothing")


def test_two_labels_for_an_image_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "images" / "a.tif", scene()[0])
    for name in ("a_mask.tif", "a_labels.tif"):
        write(tmp_path / "labels" / name, scene()[1])
    with pytest.raises(FileError, match=r"all claim to be the labels of a\.tif; keep one"):
        pair_files(tmp_path / "images", tmp_path / "labels")


def test_single_files_are_a_pair(tmp_path: Path) -> None:
    image = write(tmp_path / "x.tif", scene()[0])
    labels = write(tmp_path / "y.tif", scene()[1])
    pairs, _ = open_pairs(image, labels, TrainOptions())
    assert pairs[0].name == "x.tif"


def test_labels_of_a_stack_take_the_axes_of_the_image(tmp_path: Path) -> None:
    image, labels = scene((8, 32, 40), count=3, radius=4)
    stack = write(tmp_path / "x.tif", image, imagej=True, metadata={"axes": "ZYX"})
    plain = write(tmp_path / "x_labels.tif", labels)
    pairs, _ = open_pairs(stack, plain, TrainOptions())
    assert pairs[0].labels.axes == "zyx"
    np.testing.assert_array_equal(pairs[0].labels.data, labels)


def test_images_with_axes_and_spacing_are_taken_as_they_are() -> None:
    image, labels = scene((8, 32, 40), count=3, radius=4)
    pairs, _ = open_pairs(Image(image, "zyx", (2.0, 0.5, 0.5)), Image(labels, "zyx"), TrainOptions())
    assert pairs[0].image.spacing == (2.0, 0.5, 0.5)
    pairs, _ = open_pairs(image, labels, TrainOptions.of(axes="zyx", spacing=(3, 1, 1)))
    assert pairs[0].image.spacing == (3, 1, 1)


def rgb(grey: np.ndarray) -> Image:
    return Image(np.stack([grey] * 3, axis=-1).astype(np.uint8), "yxc", is_rgb=True)


def test_rgb_among_grey_becomes_grey() -> None:
    images, labels = scenes(2)
    told: list[str] = []
    pairs, told = open_pairs([rgb(images[0]), images[1]], labels, TrainOptions())
    assert {pair.image.n_channels for pair in pairs} == {1}
    assert "converted to grey" in told[0]
    both, _ = open_pairs([rgb(images[0]), rgb(images[1])], labels, TrainOptions())
    assert {pair.image.n_channels for pair in both} == {3}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda i, t: (i, t[:, :-1]), r"labels of 'image' have shape \(64, 63\) .* the image has \(64, 64\)"),
        (lambda i, t: (i, t[None]), r"labels of 'image' have shape \(1, 64, 64\).* with axes 'yx'"),
        (lambda i, t: (i, t.astype(float)), r"labels of 'image' are float64.*labels.astype\('uint32'\)"),
        (lambda i, t: (i, -t.astype(int)), "labels go down to -6; number them from 0"),
        (lambda i, t: (i, t.astype(np.int64) + 2**31), "renumber them below"),
        (lambda i, t: (i, t * 0), "no labels: there is background only"),
        (lambda i, t: (i * 0, t), "every labelled frame is constant"),
        (
            lambda i, t: (i, (t > 0).astype(int)),
            "one number, 1, in 6 separate places: this is a mask; number the objects",
        ),
        (lambda i, t: (i[:6, :6], t[:6, :6] * 0 + 1), r"frames of \(6, 6\) voxels, too small to learn from"),
        (lambda i, t: ([i, i], [t]), "2 images for 1 label images; give one for each"),
        (lambda i, t: ([i], t), "images are a list and labels are not"),
        (lambda *_: ([], []), "there are 0 images"),
        (lambda i, t: ([i, np.stack([i, i], -1)], [t, t]), "ambiguous"),
    ],
)
def test_bad_input_is_refused(change: Any, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        train(*change(*scene()), **SMALL)


def test_channel_counts_that_differ_are_refused() -> None:
    images, labels = scenes(2)
    mixed = [Image(images[0], "yx"), Image(np.stack([images[1]] * 2), "cyx")]
    with pytest.raises(ImageError, match="has 1 channels, 'image' has 2; give images with the same channels"):
        train(mixed, labels, **SMALL)
    with pytest.raises(OptionsError, match="channel=1: 'image' has 1 channels"):
        train(mixed, labels, channel=1, **SMALL)
    begin(mixed, labels, channel=0)


def test_a_colour_picture_is_no_label_image() -> None:
    image, _ = scene()
    with pytest.raises(ImageError, match="have 3 channels; give one number per voxel, not a colour picture"):
        train(Image(image, "yx"), rgb(image), **SMALL)


@pytest.mark.parametrize(
    ("labels", "options", "message"),
    [
        (lambda t: t * 0 + 1, {}, "the labels hold one class only, 1"),
        (lambda t: (t > 0) * 255, {}, "class numbers 0, 255; number classes 0, 1, 2 ... without gaps"),
        (lambda t: t, {"classes": ("ground", "cell")}, "go up to class 6, there are 2 classes"),
    ],
)
def test_labels_that_are_no_classes_are_refused(labels: Any, options: dict[str, Any], message: str) -> None:
    image, truth = scene()
    with pytest.raises(ImageError, match=message):
        train(image, labels(truth.astype(int)), target="classes", **options, **SMALL)


def test_constant_and_unlabelled_images_among_others_are_left_out() -> None:
    images, labels = scenes(4)
    images[1][:] = 7
    labels[2][:] = 0
    told = [e.message for e in begin(images, [t + 1 for t in labels[:2]] + [labels[2], labels[3] + 1], sparse=True)
            if isinstance(e, Notice)]  # fmt: skip
    assert "1 constant frames are left out: image 1" in told
    assert "1 frames without labels are left out" in told


def test_objects_larger_than_the_patch_are_refused_or_told() -> None:
    image, labels = scene((96, 96), count=1, radius=40)
    with pytest.raises(
        OptionsError, match=r"objects are larger than the patch: .* \(79, 79\) voxels, a patch has \(32, 32\)"
    ):
        train(image, labels, **SMALL)


def test_a_start_model_must_suit(tmp_path: Path) -> None:
    images, labels = scenes(2)
    with pytest.raises(OptionsError, match="start model 'blobs' predicts objects, the labels are to be classes"):
        train(images, [(t > 0).astype(int) for t in labels], start="blobs", target="classes", **SMALL)
    with pytest.raises(ImageError, match="images have 2 channels, the start model 'blobs' takes 1"):
        train([np.stack([i, i]) for i in images], labels, axes="cyx", start="blobs", **SMALL)
    with pytest.raises(ImageError, match="a 3D network needs a z axis, 'image 0' has axes 'yx'"):
        train(images, labels, start="blobs-3d", **SMALL)
    told = begin([rgb(i) for i in images], labels, start="blobs")
    assert any("converted to grey, since 'blobs' takes one channel" in e.message for e in told if isinstance(e, Notice))


def test_a_start_model_without_background_is_refused(tmp_path: Path) -> None:
    model = blob_model(name="all", target=Classes(classes=("left", "right"), background=False))
    save_model(model, tmp_path / "all.safetensors")
    images, labels = scenes(2)
    with pytest.raises(OptionsError, match="'all' has no background among its classes left, right"):
        train(images, [(t > 0) + 1 for t in labels], start=str(tmp_path / "all.safetensors"), target="classes", **SMALL)


def test_only_one_labelled_image_is_too_few() -> None:
    images, labels = scenes(2)
    labels[1][:] = 0
    assert begin(images, labels)  # the other one is background, and is held out


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"patch": 4}, "patch must be 'auto', or 1 to 3 whole numbers of at least 8"),
        ({"batch": 0}, "must be 'auto' or a whole number of at least 1"),
        ({"classes": ("a", "b")}, "take target='classes'"),
        ({"target": "classes", "classes": ("a",)}, "at least 2 different names"),
        ({"freeze_encoder": True}, "start is not given; name one"),
        ({"minutes": -1}, "must be a finite number above 0"),
        ({"validation": 1.5}, "less than 1"),
        ({"stepps": 1}, "unknown option 'stepps'"),
        ({"precision": "float16"}, "too narrow to train in"),
    ],
)
def test_options_are_checked(values: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionsError, match=message):
        train(*scene(), **{**SMALL, **values})
