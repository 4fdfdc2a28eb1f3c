"""Labels against the truth: scores as others compute them, and faults as they were made."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.metrics import adapted_rand_error, variation_of_information

from napari_tiled_unet import Image, cli, evaluate, read_image
from napari_tiled_unet.disagreement import COLOURS, Fault, compare_objects, fault_labels
from napari_tiled_unet.errors import FileError, ImageError, OptionsError, TiledUnetError
from napari_tiled_unet.io import write_labels


def label_pair(seed: int, ndim: int) -> tuple[np.ndarray, np.ndarray]:
    """Return random boxes, and the same moved, split or left out."""
    rng = np.random.default_rng(seed)
    shape = (60, 70) if ndim == 2 else (16, 40, 40)
    true, predicted = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
    for number in range(1, 16):
        side = rng.integers(4, 14, ndim)
        corner = np.array([rng.integers(0, max(1, n - s)) for n, s in zip(shape, side, strict=True)])
        true[tuple(slice(c, c + s) for c, s in zip(corner, side, strict=True))] = number
        for part in range(1 + int(rng.random() < 0.2)):
            moved = corner + rng.integers(-2, 3, ndim) + part * side // 2
            if rng.random() < 0.85:
                box = tuple(slice(max(c, 0), max(c + s, 0)) for c, s in zip(moved, side, strict=True))
                predicted[box] = 20 * number + part
    return predicted, true


# Printed by stardist.matching.matching (stardist 0.9.2) on label_pair: accuracy at IoU 0.3, 0.5, 0.7 and 0.9,
# f1 and panoptic_quality at 0.5.
STARDIST = {
    (0, 2): ((0.55, 0.409091, 0.148148, 0.0), 0.580645, 0.393074),
    (1, 2): ((0.52381, 0.230769, 0.103448, 0.0), 0.375, 0.254735),
    (2, 2): ((0.55, 0.192308, 0.033333, 0.0), 0.322581, 0.199281),
    (3, 3): ((0.285714, 0.038462, 0.0, 0.0), 0.074074, 0.03764),
    (4, 3): ((0.333333, 0.076923, 0.0, 0.0), 0.142857, 0.076542),
}


@pytest.mark.parametrize(("seed", "ndim"), STARDIST)
def test_precision_f1_and_quality_agree_with_stardist(seed: int, ndim: int) -> None:
    accuracy, f1, quality = STARDIST[seed, ndim]
    scores = evaluate(*label_pair(seed, ndim), thresholds=(0.3, 0.5, 0.7, 0.9)).scores
    assert [scores[f"AP@{t}"] for t in (0.3, 0.5, 0.7, 0.9)] == pytest.approx(accuracy, abs=1e-6)
    assert scores["AP"] == pytest.approx(np.mean(accuracy), abs=1e-6)
    assert scores["F1"] == pytest.approx(f1, abs=1e-6)
    assert scores["PQ"] == pytest.approx(quality, abs=1e-6)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([2, 3]))
def test_rand_and_information_agree_with_scikit_image(seed: int, ndim: int) -> None:
    predicted, true = label_pair(seed, ndim)
    scores = evaluate(predicted, true).scores
    assert scores["adapted Rand error"] == pytest.approx(adapted_rand_error(true, predicted)[0])
    split, merge = variation_of_information(true, predicted, ignore_labels=(0,))
    assert (scores["VI split"], scores["VI merge"]) == pytest.approx((split, merge))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([2, 3]))
def test_every_object_is_accounted_for(seed: int, ndim: int) -> None:
    predicted, true = label_pair(seed, ndim)
    found = compare_objects(predicted, true)
    swapped = compare_objects(true, predicted)
    assert {f.true for f in found.of_kind("split")} == {f.predicted for f in swapped.of_kind("merged")}
    assert {f.true for f in found.of_kind("missed")} == {f.predicted for f in swapped.of_kind("extra")}
    told = {t for t, _ in found.matched} | {t for f in found.faults for t in f.true}
    assert told == set(np.unique(true)) - {0}
    told = {p for _, p in found.matched} | {p for f in found.faults for p in f.predicted}
    assert told == set(np.unique(predicted)) - {0}


def scene() -> tuple[np.ndarray, np.ndarray]:
    """Return one of each: matched 1, split 2, two merged 3 and 4, missed 5, and an extra one."""
    true, predicted = np.zeros((40, 60), int), np.zeros((40, 60), int)
    true[2:10, 2:10], predicted[2:10, 3:10] = 1, 11
    true[2:10, 20:32], predicted[2:10, 20:25], predicted[2:10, 25:30] = 2, 12, 13
    true[20:28, 2:8], true[20:28, 9:15], predicted[20:28, 2:15] = 3, 4, 14
    true[20:28, 30:36] = 5
    predicted[32:38, 50:58] = 15
    return predicted, true


def test_faults_are_named_and_placed() -> None:
    predicted, true = scene()
    found = compare_objects(predicted, true)
    assert found.matched == ((1, 11),)
    assert found.faults == (
        Fault("split", (2,), (12, 13), (5.5, 25.5), 96),
        Fault("merged", (3, 4), (14,), (23.5, 8.0), 104),
        Fault("missed", (5,), (), (23.5, 32.5), 48),
        Fault("extra", (), (15,), (34.5, 53.5), 48),
    )
    shown = fault_labels(predicted, true, found)
    assert [int(shown[p]) for p in ((5, 5), (5, 22), (23, 8), (23, 33), (35, 54), (0, 0))] == [
        COLOURS[name] for name in ("matched", "split", "merged", "missed", "extra")
    ] + [0]


def test_specks_are_extra_and_no_split() -> None:
    true, predicted = np.zeros((30, 30), int), np.zeros((30, 30), int)
    true[5:25, 5:25] = 1
    predicted[5:24, 5:25] = 1
    predicted[24, 5:9] = 2
    found = compare_objects(predicted, true)
    assert [f.kind for f in found.faults] == ["extra"]


def test_perfect_empty_and_missing() -> None:
    _, true = scene()
    perfect = evaluate(true, true).scores
    assert perfect["AP"] == perfect["F1"] == perfect["PQ"] == perfect["boundary F"] == 1
    assert perfect["adapted Rand error"] == perfect["VI split"] == perfect["VI merge"] == 0
    empty = evaluate(true * 0, true * 0).scores
    assert empty["AP"] == empty["F1"] == empty["precision"] == 1
    assert "adapted Rand error" not in empty
    nothing = evaluate(true * 0, true).scores
    assert nothing["AP"] == nothing["F1"] == nothing["recall"] == 0
    assert nothing["missed"] == 5
    assert evaluate(true, true * 0).scores["precision"] == 0


def test_objects_are_pooled_over_images() -> None:
    predicted, true = scene()
    both = evaluate([predicted, true], [true, true])
    assert both.scores["matched"] == 6
    assert both.scores["AP@0.5"] == pytest.approx(6 / (6 + 4 + 4))
    assert both.images[1].scores["AP@0.5"] == 1
    assert both.images[0].faults.shape == true.shape


@pytest.mark.parametrize("dtype", [np.int32, np.uint64])
def test_large_numbers_are_scored_as_small_ones(dtype: type) -> None:
    predicted, true = scene()
    expected = evaluate(predicted, true)
    far: list[np.ndarray] = [np.where(x > 0, x + 3_000_000, 0).astype(dtype) for x in (predicted, true)]
    tracemalloc.start()
    found = evaluate(*far)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found.scores == pytest.approx(expected.scores)
    assert peak < 8e6
    assert found.images[0].comparison is not None
    assert found.images[0].comparison.of_kind("merged")[0].true == (3_000_003, 3_000_004)
    np.testing.assert_array_equal(found.images[0].faults, expected.images[0].faults)


def test_classes_of_any_integer_type_are_scored() -> None:
    true = np.array([[0, 0, 1, 1], [0, 0, 2, 2]])
    predicted = np.array([[0, 0, 1, 2], [0, 1, 2, 2]])
    expected = evaluate(predicted, true, target="classes").scores
    for dtype in (np.int8, np.uint64, ">u2"):
        assert evaluate(predicted.astype(dtype), true.astype(dtype), target="classes").scores == expected
        assert evaluate(predicted.astype(dtype), true, target="classes").scores == expected


def test_one_channel_is_no_axis_of_labels(tmp_path: Path) -> None:
    predicted, true = scene()
    direct = evaluate(predicted, true).scores
    assert evaluate(Image(predicted[None], "cyx"), Image(true[..., None], "yxc")).scores == direct
    tifffile.imwrite(tmp_path / "a.ome.tif", predicted[None].astype(np.uint8), ome=True, metadata={"axes": "CYX"})
    assert evaluate(tmp_path / "a.ome.tif", true).scores == direct


def test_pictures_of_labels_are_refused(tmp_path: Path) -> None:
    from PIL import Image as Picture

    _, true = scene()
    Picture.fromarray(np.stack([true * 50] * 3, axis=-1).astype(np.uint8)).save(tmp_path / "shown.png")
    wrong = r"true labels 'shown.png' have 3 channels \(axes 'yxc'\).* one number per voxel; save the labels themselves"
    with pytest.raises(ImageError, match=wrong):
        evaluate(true, tmp_path / "shown.png")
    with pytest.raises(ImageError, match=r"predicted labels 'image' have 2 channels \(axes 'cyx'\)"):
        evaluate(Image(np.stack([true, true]), "cyx"), true)


def test_classes_are_scored_by_voxel() -> None:
    true = np.array([[0, 0, 1, 1], [0, 0, 2, 2]])
    predicted = np.array([[0, 0, 1, 2], [0, 1, 2, 2]])
    scores = evaluate(predicted, true, target="classes", classes=("ground", "a", "b")).scores
    assert scores["Dice ground"] == pytest.approx(6 / 7)
    assert scores["Dice a"] == pytest.approx(2 / 4)
    assert scores["IoU b"] == pytest.approx(2 / 3)
    assert scores["Dice"] == pytest.approx((2 / 4 + 4 / 5) / 2)
    unnamed = evaluate(predicted > 0, true > 0, target="classes").scores
    assert set(unnamed) == {
        "Dice",
        "IoU",
        "Dice background",
        "Dice class 1",
        "IoU background",
        "IoU class 1",
        "boundary F",
    }


@pytest.mark.parametrize(
    ("predicted", "true", "options", "error", "message"),
    [
        (np.zeros((4, 4)), np.zeros((4, 4), int), {}, ImageError, "predicted labels are float64, they must be whole"),
        (np.zeros((4, 4), int), np.zeros((4, 5), int), {}, ImageError, r"shape \(4, 4\), true ones \(4, 5\)"),
        (np.zeros(4, int), np.zeros(4, int), {}, ImageError, r"must be \(\[z,\] y, x\)"),
        ([np.zeros((4, 4), int)], [], {}, ImageError, "1 predictions for 0 truths"),
        ([np.zeros((4, 4), int)], np.zeros((4, 4), int), {}, ImageError, "predictions are a list and truths are not"),
        (np.zeros((4, 4), int), np.zeros((4, 4), int), {"target": "x"}, OptionsError, "target='x' is unknown"),
        (
            np.full((4, 4), -1), np.zeros((4, 4), int), {"target": "classes"},
            ImageError, "predicted labels of image 0 go down to -1; classes are counted from 0",
        ),
        (
            np.zeros((4, 4), int), np.full((4, 4), -1), {"target": "classes"},
            ImageError, "true labels of image 0 go down to -1; .* cut out what is not labelled or give it a class",
        ),
        (np.full((4, 4), 300), np.zeros((4, 4), int), {"target": "classes"}, ImageError, "too many for classes"),
        (
            np.full((4, 4), 3), np.zeros((4, 4), int), {"target": "classes", "classes": ("a", "b")},
            OptionsError, "2 classes are named, counted from 0; name them all",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_scored_is_refused(
    predicted: Any, true: Any, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        evaluate(predicted, true, **options)


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    predicted, true = scene()
    for folder, data in (("found", predicted), ("truth", true)):
        (tmp_path / folder).mkdir()
        ending = "_labels" if folder == "found" else ""
        for name in ("a", "b"):
            tifffile.imwrite(tmp_path / folder / f"{name}{ending}.tif", data.astype(np.uint16))
    return tmp_path / "found", tmp_path / "truth"


def test_files_and_images_are_read(folders: tuple[Path, Path]) -> None:
    predicted, true = scene()
    direct = evaluate(Image(predicted, "yx"), true).scores
    assert evaluate(*folders).images[0].scores == direct
    assert evaluate(folders[0] / "a_labels.tif", folders[1] / "a.tif").scores == direct


@pytest.mark.parametrize("truth", ["a_labels.ome.tif", "a.tif", "a_mask.tif"])
def test_results_are_paired_with_truths_by_the_name_of_their_image(tmp_path: Path, truth: str) -> None:
    predicted, true = scene()
    for folder, name, data in (("found", "a_labels.ome.tif", predicted), ("truth", truth, true)):
        (tmp_path / folder).mkdir()
        write_labels(tmp_path / folder / name, data, "yx")
    done = evaluate(tmp_path / "found", tmp_path / "truth")
    assert [image.name for image in done.images] == ["a_labels.ome.tif"]
    assert done.scores == evaluate(predicted, true).scores


def test_an_image_beside_its_corrected_labels_is_no_truth(tmp_path: Path) -> None:
    predicted, true = scene()
    for name, data in (("found/a_labels.ome.tif", predicted), ("truth/a_labels.ome.tif", true)):
        (tmp_path / name).parent.mkdir()
        write_labels(tmp_path / name, data, "yx")
    tifffile.imwrite(tmp_path / "truth" / "a.tif", true.astype(np.float32))
    (tmp_path / "truth" / "._a_labels.ome.tif").write_bytes(b"hidden")
    (tmp_path / "found" / "._a_labels.ome.tif").write_bytes(b"hidden")
    done = evaluate(tmp_path / "found", tmp_path / "truth")
    assert done.scores == evaluate(predicted, true).scores
    assert (done.not_predicted, done.not_true) == ((), ())


def test_two_truths_of_one_result_are_refused(tmp_path: Path) -> None:
    _, true = scene()
    for name in ("found/a_labels.ome.tif", "truth/a.tif", "truth/a_mask.tif"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write_labels(tmp_path / name, true, "yx")
    wrong = r"a\.tif, a_mask\.tif all claim to be the truth of a_labels\.ome\.tif; keep one of them there"
    with pytest.raises(FileError, match=wrong):
        evaluate(tmp_path / "found", tmp_path / "truth")


def test_a_plain_stack_has_the_axes_of_what_it_is_compared_with(tmp_path: Path) -> None:
    predicted, true = (np.stack([plane] * 3) for plane in scene())
    write_labels(tmp_path / "a_labels.ome.tif", predicted, "zyx")
    tifffile.imwrite(tmp_path / "a.tif", true, photometric="minisblack")
    expected = evaluate(Image(predicted, "zyx"), Image(true, "zyx")).scores
    assert evaluate(tmp_path / "a_labels.ome.tif", tmp_path / "a.tif").scores == expected
    assert evaluate(tmp_path / "a.tif", tmp_path / "a_labels.ome.tif").scores != {}
    tifffile.imwrite(tmp_path / "b.tif", predicted, photometric="minisblack")
    with pytest.raises(ImageError, match="say with axes"):
        evaluate(tmp_path / "b.tif", tmp_path / "a.tif")


def test_numbers_of_a_palette_are_labels(tmp_path: Path) -> None:
    from PIL import Image as Picture

    predicted, true = scene()
    for name, data in (("p.png", predicted), ("t.png", true)):
        picture = Picture.fromarray(data.astype(np.uint8)).convert("L")
        picture.putpalette(list(range(256)) * 3)
        picture.save(tmp_path / name)
    assert evaluate(tmp_path / "p.png", tmp_path / "t.png").scores == evaluate(predicted, true).scores
    assert read_image(tmp_path / "p.png").is_rgb


def test_results_and_truths_may_share_a_folder(tmp_path: Path) -> None:
    predicted, true = scene()
    write_labels(tmp_path / "a_labels.ome.tif", predicted, "yx")
    write_labels(tmp_path / "a.tif", true, "yx")
    done = evaluate(tmp_path, tmp_path)
    assert done.scores == evaluate(predicted, true).scores
    assert (done.not_predicted, done.not_true) == ((), ())


def test_files_without_a_partner_are_told(folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    found, truth = folders
    (found / "b_labels.tif").rename(found / "other_labels.tif")
    assert cli.run(["evaluate", str(found), str(truth), "--json"]) == 1
    told = capsys.readouterr()
    done = json.loads(told.out)
    assert (done["not_predicted"], done["not_true"]) == (["b.tif"], ["other_labels.tif"])
    assert "1 not scored, without predicted labels: b.tif" in told.err
    (truth / "b.tif").unlink()
    assert cli.run(["evaluate", str(found), str(truth)]) == cli.DONE
    assert "1 not scored, without true labels: other_labels.tif" in capsys.readouterr().err


@pytest.mark.parametrize("damage", ["cut", "shape", "negative"])
@pytest.mark.parametrize("target", ["objects", "classes"])
def test_a_pair_that_cannot_be_scored_costs_itself_alone(
    folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str], damage: str, target: str
) -> None:
    found, truth = folders
    whole = evaluate(found / "a_labels.tif", truth / "a.tif", target=target).scores
    bad = found / "b_labels.tif"
    if damage == "cut":
        bad.write_bytes(bad.read_bytes()[:300])
    elif damage == "shape":
        tifffile.imwrite(bad, scene()[0][:-1].astype(np.uint16))
    else:
        tifffile.imwrite(bad, scene()[0].astype(np.int16) - 1)
    reason = {"cut": "is damaged", "shape": "must be of the same image", "negative": "go down to -1"}[damage]
    done = evaluate(found, truth, target=target)
    assert done.scores == whole
    assert [image.name for image in done.images] == ["a_labels.tif"]
    ((name, why),) = done.failed
    assert name == "b_labels.tif"
    assert reason in why
    assert cli.run(["evaluate", str(found), str(truth), "--target", target, "--json"]) == cli.FAILED
    told = capsys.readouterr()
    assert json.loads(told.out)["failed"] == [{"name": name, "reason": why}]
    assert f"tiled-unet: b_labels.tif failed and is not scored: {why}" in told.err
    (found / "a_labels.tif").unlink()
    with pytest.raises(TiledUnetError, match=reason):
        evaluate(found, truth, target=target)
    assert cli.run(["evaluate", str(found), str(truth), "--target", target]) == cli.WRONG


def test_damage_of_files_that_stay_on_disk_is_of_their_pair(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    found, truth = folders
    write_labels(found / "b_labels.tif", scene()[0], "yx", overwrite=True)
    content = bytearray((found / "b_labels.tif").read_bytes())
    with tifffile.TiffFile(found / "b_labels.tif") as file:
        start = file.pages[0].dataoffsets[0]
    content[start : start + 20] = bytes(20)
    (found / "b_labels.tif").write_bytes(content)
    monkeypatch.setattr("napari_tiled_unet.io.tiff.LAZY_BYTES", 0)
    ((name, why),) = evaluate(found, truth).failed
    assert (name, "the file may be damaged" in why) == ("b_labels.tif", True)


@pytest.mark.parametrize("channels", [3, 4])
def test_bare_arrays_of_colours_are_no_volumes(channels: int) -> None:
    _, true = scene()
    shown = np.stack([true] * channels, axis=-1)
    with pytest.raises(ImageError, match=r"predicted labels have shape \(.*\), that of a picture in colours"):
        evaluate(shown, shown)
    assert evaluate(Image(shown, "zyx"), Image(shown, "zyx")).scores["AP"] == 1


def test_a_time_series_is_scored_frame_by_frame(tmp_path: Path) -> None:
    _, frame = scene()
    true = np.stack([frame, frame])
    # As a run numbers them: each object once over all frames.
    predicted = np.stack([frame, np.where(frame, frame + frame.max(), 0)])
    for name, labels in (("found", predicted), ("truth", true)):
        (tmp_path / name).mkdir()
        write_labels(tmp_path / name / "a.ome.tif", labels, "tyx")
    done = evaluate(tmp_path / "found", tmp_path / "truth")
    assert [image.name for image in done.images] == ["t=0 of a.ome.tif", "t=1 of a.ome.tif"]
    assert done.scores["AP"] == done.scores["F1"] == 1
    stacks = evaluate(Image(predicted[:, None], "tzyx"), Image(true[:, None], "tzyx"))
    assert stacks.scores["true objects"] == 2 * (len(np.unique(frame)) - 1)
    with pytest.raises(ImageError, match=r"have axes 'tyx', true ones .* 'zyx'; say which they are"):
        evaluate(Image(predicted, "tyx"), Image(true, "zyx"))
    with pytest.raises(ImageError, match=r"shape \(1, .* of the same image"):
        evaluate(Image(predicted[:1], "tyx"), Image(true, "tyx"))
    faults = tmp_path / "faults"
    cli.run(["evaluate", str(tmp_path / "found"), str(tmp_path / "truth"), "--faults", str(faults)])
    assert len(list(faults.iterdir())) == 2


def test_the_command_writes_faults_of_names_with_dots(tmp_path: Path) -> None:
    _, true = scene()
    for name in ("found/cell.t1.tif", "found/cell.t2.tif", "truth/cell.t1.tif", "truth/cell.t2.tif"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write_labels(tmp_path / name, true, "yx")
    folders = [str(tmp_path / name) for name in ("found", "truth")]
    assert cli.run(["evaluate", *folders, "--faults", str(tmp_path / "faults")]) == cli.DONE
    written = sorted(path.name for path in (tmp_path / "faults").iterdir())
    assert written == ["cell.t1_faults.ome.tif", "cell.t2_faults.ome.tif"]


def test_the_command_refuses_faults_of_classes(
    folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    faults = tmp_path / "faults"
    command = ["evaluate", *map(str, folders), "--target", "classes", "--faults", str(faults)]
    assert cli.run(command) != cli.DONE
    assert "only objects have faults; leave out --faults, or take --target objects" in " ".join(
        capsys.readouterr().err.split()
    )
    assert not faults.exists()


def test_the_command_prints_names_as_they_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, true = scene()
    for name in ("found/cell[a].tif", "found/b[:x:].tif", "truth/cell[a].tif", "truth/b[:x:].tif"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write_labels(tmp_path / name, np.where(true < 3, true, 0) * ("truth" in name), "yx")
    folders = [str(tmp_path / name) for name in ("found", "truth")]
    assert cli.run(["evaluate", *folders]) == cli.DONE
    told = capsys.readouterr().out
    for name in ("cell[a].tif", "b[:x:].tif"):
        assert f"┃ {name} " in told
        assert f"in {name}: true [1]" in told
    classes = [word for name in ("bg", "[/x]", "[red]nucleus") for word in ("--classes", name)]
    assert cli.run(["evaluate", *folders, "--target", "classes", *classes]) == cli.DONE
    told = capsys.readouterr().out
    assert "Dice [/x]" in told
    assert "IoU [red]nucleus" in told
    assert cli.run(["evaluate", *folders, "--target", "classes", "--classes", "bg, [/x],[red]nucleus"]) == cli.DONE
    assert capsys.readouterr().out == told


def test_the_command_prints_a_table_and_the_faults(
    folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["evaluate", *map(str, folders), "--faults", str(tmp_path / "faults")]) == cli.DONE
    told = capsys.readouterr().out
    assert "adapted Rand error" in told
    assert "split at (5.5, 25.5) in a_labels.tif: true [2], predicted [12, 13], 96 voxels" in told
    shown = read_image(tmp_path / "faults" / "a_labels_faults.ome.tif")
    assert set(np.unique(shown.data)) == {0, 1, 2, 3, 4, 5}


def test_the_command_prints_json(folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["evaluate", *map(str, folders), "--json"]) == cli.DONE
    told = json.loads(capsys.readouterr().out)
    assert told["scores"]["missed"] == 2
    assert told["images"][0]["faults"][0]["kind"] == "split"
    assert cli.run(["evaluate", *map(str, folders), "--target", "classes", "--json"]) == cli.DONE
    assert "Dice class 5" in json.loads(capsys.readouterr().out)["scores"]


def test_many_faults_are_cut_short(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    true = np.zeros((60, 60), np.uint8)
    true[::4, ::10] = np.arange(1, 91).reshape(15, 6)
    for name, data in (("true.tif", true), ("found.tif", true * 0)):
        tifffile.imwrite(tmp_path / name, data)
    assert cli.run(["evaluate", str(tmp_path / "found.tif"), str(tmp_path / "true.tif")]) == cli.DONE
    assert "and 70 more; --json lists them all" in capsys.readouterr().out
