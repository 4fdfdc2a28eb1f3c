"""How much tiles differ at their seams: measured for a model, certified for a run."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from pydantic import ValidationError

from napari_tiled_unet import OptionsError, iter_segment, load_model
from napari_tiled_unet.cards import card_lines, seam_lines
from napari_tiled_unet.cli import run
from napari_tiled_unet.events import Finished, Notice, Planned
from napari_tiled_unet.model import SEAM_TOLERANCE, Model, ModelSpec, SeamPoint
from napari_tiled_unet.model_files import save_model, stored_half
from napari_tiled_unet.networks.zoo import build_network, network_spec
from napari_tiled_unet.normalise import measure
from napari_tiled_unet.predict import iter_predict
from napari_tiled_unet.runtime import Runner
from napari_tiled_unet.seams import certify, measure_seams
from napari_tiled_unet.targets import Classes, Objects
from napari_tiled_unet.tiling import TilePlan, plan_tiles
from tests.models import blob_model, blobs
from tests.test_predict import NETWORKS, drain, image

NETWORK = NETWORKS["2D"]
SPEC = ModelSpec(name="random", axes="yx", channels=("c",), network=NETWORK.spec, target=Objects())
MODEL = Model(SPEC, NETWORK)
SHAPE = (72, 66)
POINTS = [((0, 0), 0.9, 0.5), ((4, 4), 0.01, 0.2), ((8, 8), 0.05, 0.0), ((12, 12), 0.02, 0.0), ((16, 16), 0.0, 0.0)]


def with_points(*points: tuple[tuple[int, ...], float, float], **changes: object) -> ModelSpec:
    seams = [SeamPoint(overlap=o, max_map=m, voxels=0, objects=x) for o, m, x in points]
    return ModelSpec.model_validate({**SPEC.model_dump(), "seams": seams, **changes})


def test_the_smallest_overlap_within_the_tolerance_is_earned() -> None:
    assert SEAM_TOLERANCE == 0.02
    assert with_points(*POINTS).earned_overlap == (12, 12)
    assert with_points(*POINTS[::-1]).earned_overlap == (12, 12)
    # (4, 4) is followed by one that is not good enough: luck does not count.
    assert with_points(*POINTS[:2]).earned_overlap is None
    assert with_points(((4, 4), 0.01, 0.0), ((8, 8), 0.0, 0.0)).earned_overlap == (4, 4)
    assert with_points().earned_overlap is None
    assert with_points(*POINTS, overlap=(6, 6)).earned_overlap == (6, 6), "what is stated goes before"


def test_seams_have_one_number_per_axis() -> None:
    with pytest.raises(ValidationError, match="overlaps of seams must have one number per axis"):
        with_points(((4,), 0.0, 0.0))


def test_the_curve_falls_to_nothing_at_the_receptive_field() -> None:
    frames = [image(SHAPE, 1), image((40, 72), 2)]
    points = measure_seams(MODEL, frames, parts=[0, 0.5, 1])
    assert [p.overlap for p in points] == sorted(p.overlap for p in points)
    assert points[0].overlap == (0, 0)
    assert points[0].max_map > 0.05
    assert points[0].voxels > 0
    assert points[-1].max_map < 1e-3
    assert (points[-1].voxels, points[-1].objects) == (0, 0)
    assert points[-1].overlap <= NETWORK.receptive_field


def test_the_curve_is_the_difference_to_the_whole() -> None:
    frame = image(SHAPE, 1)
    (point,) = measure_seams(MODEL, [frame], parts=[0.25])
    overlap = point.overlap
    tile = tuple(2 * -(-o // s) * s + max(4 * s, o // s * s) for o, s in zip(overlap, NETWORK.stride, strict=True))
    whole = drain(NETWORK, frame, plan_tiles(SHAPE, SHAPE, (0, 0), NETWORK.stride))
    tiled = drain(NETWORK, frame, plan_tiles(SHAPE, tile, overlap, NETWORK.stride))
    assert point.max_map == pytest.approx(np.abs(whole - tiled).max(), abs=1e-6)


def test_all_frames_count_at_every_overlap() -> None:
    network = copy.deepcopy(NETWORK)
    for name, values in network.state_dict().items():
        if name.endswith(("bias", "running_mean")):
            # Nothing becomes nothing, beside what is padded too.
            values.zero_()
    model, parts = Model(SPEC, network), [0, 0.25, 1]
    calm, busy = np.zeros((1, 96, 90), np.float32), image(SHAPE, 1)
    both = measure_seams(model, [calm, busy], parts=parts)
    apart = [measure_seams(model, [frame], parts=parts) for frame in (calm, busy)]
    assert len(both) == len(apart[0]) == len(apart[1]) == len(parts)
    # One of the frames is done with at the first overlap.
    assert apart[0][0].max_map == 0 < apart[1][1].voxels
    for point, one, other in zip(both, *apart, strict=True):
        changed = one.voxels * calm.size + other.voxels * busy.size
        assert point.voxels == pytest.approx(changed / (calm.size + busy.size))


def test_classes_have_a_curve_too() -> None:
    network = NETWORK
    spec = ModelSpec(
        name="random", axes="yx", channels=("c",), network=network.spec, target=Classes(classes=("nothing", "thing"))
    )
    points = measure_seams(Model(spec, network), [image(SHAPE, 1)], parts=[0, 1])
    assert points[0].voxels > 0
    assert points[-1].voxels == 0


def test_a_frame_without_a_seam_is_refused() -> None:
    with pytest.raises(OptionsError, match="no frame has a seam to measure; give frames of more than"):
        measure_seams(MODEL, [image((8, 8), 0)])


def test_auto_takes_what_was_measured() -> None:
    picture = blobs((400, 400), [(20, 20), (300, 310)])
    spec = blob_model().spec
    measured = spec.model_copy(update={"seams": (SeamPoint(overlap=(4, 4), max_map=0.01, voxels=0, objects=0),)})
    model = Model(measured, blob_model().network)
    for overlap, expected in (("auto", (4, 4)), ("exact", model.network.receptive_field)):
        events = list(iter_segment(picture, model, overlap=overlap, tile=64))
        planned = next(e for e in events if isinstance(e, Planned))
        assert planned.plan.overlap == expected
    assert "measured for this model" in "\n".join(
        next(e for e in iter_segment(picture, model, tile=64) if isinstance(e, Planned)).explanation
    )


def certificate(overlap: tuple[int, ...], plan_of: TilePlan | None = None, **keywords: object) -> object:
    frame = image((200, 180), 5)
    plan = plan_of or plan_tiles((200, 180), (64, 64), overlap, NETWORK.stride)
    maps = drain(NETWORK, frame, plan)
    statistics, _ = measure(frame, SPEC.normalisation)
    runner = Runner(NETWORK, Objects().activate, torch.device("cpu"), torch.float32)
    return certify(frame, statistics, runner, plan, maps, reach=NETWORK.receptive_field, **keywords)


def test_the_certificate_finds_what_tiles_do_at_seams() -> None:
    exact, loose = certificate(NETWORK.receptive_field, windows=4), certificate((0, 0), windows=4)
    assert exact.max < 1e-5
    assert loose.max > 1e-3
    assert 0 < loose.mean < loose.max
    assert loose.windows == 4
    assert loose.voxels == 4 * 16 * 16
    assert certificate((0, 0), windows=4) == loose, "the windows are chosen by a seed"
    assert certificate((0, 0), windows=4, seed=1) != loose


def test_without_a_seam_there_is_no_certificate() -> None:
    assert certificate((0, 0), plan_tiles((200, 180), (200, 180), (0, 0), NETWORK.stride)) is None
    assert certificate((0, 0), windows=0) is None


def test_a_certificate_is_cheap() -> None:
    small = image((60, 56), 5)
    plan = plan_tiles((60, 56), (32, 32), (0, 0), NETWORK.stride)
    calls = []

    class Counting(Runner):
        def run(self, tiles: np.ndarray) -> np.ndarray:
            calls.append(tiles.size)
            return super().run(tiles)

    runner = Counting(NETWORK, Objects().activate, torch.device("cpu"), torch.float32)
    statistics, _ = measure(small, SPEC.normalisation)
    for _ in iter_predict(small, statistics, runner, plan, n_maps=2):
        pass
    calls.clear()
    maps = np.zeros((2, 60, 56), np.float32)
    assert certify(small, statistics, runner, plan, maps, reach=NETWORK.receptive_field) is None
    assert calls == [], "no window of so small a frame is cheap enough"


def test_a_run_tells_its_seam_error() -> None:
    picture = blobs((400, 400), [(20, 20), (300, 310)])

    def provenance(**options: object) -> dict:
        events = list(iter_segment(picture, "blobs", precision="float32", **options))
        return next(e.provenance for e in events if isinstance(e, Finished))

    told = provenance(tile=64, overlap="exact")["seam_error"]
    # Maps are kept in half precision until they are labels.
    assert told["max"] < 1e-3
    assert told["windows"] > 0
    assert provenance(tile=64, overlap="exact", seam_windows=7)["seam_error"]["windows"] == 7
    assert provenance(tile=64, overlap="exact", seam_windows=0)["seam_error"] is None
    assert provenance()["seam_error"] is None, "one tile has no seam"


def test_windows_that_would_be_no_truth_are_left_out_and_told() -> None:
    network = build_network(network_spec("unet", width=2, depth=1, norm="instance", out_channels=2)).eval()
    model = blob_model()
    model = Model(model.spec.model_copy(update={"network": network.spec}), network)

    def told(**options: object) -> list[str]:
        events = list(iter_segment(blobs((120, 100), [(20, 20)]), model, **options))
        assert events[-1].provenance["seam_error"] is None
        return [event.message for event in events if isinstance(event, Notice)]

    assert [m for m in told(tile=64, seam_windows=3) if m.startswith("seam_windows=3 is left out: 'blobs' looks at")]
    for quiet in ({"tile": 64}, {"tile": 64, "seam_windows": 0}, {"seam_windows": 3}):
        assert not [message for message in told(**quiet) if "seam_windows" in message]


def test_empty_tiles_are_left_out_if_the_spec_allows_it() -> None:
    picture = np.zeros((400, 400), np.uint16)
    picture[250:330, 300:380] = blobs((80, 80), [(30, 30), (50, 60)])
    expected = list(iter_segment(picture, "blobs", tile=64))[-1].labels
    model = blob_model()
    model = Model(model.spec.model_copy(update={"empty_below": 0.1}), model.network)
    done = list(iter_segment(picture, model, tile=64))[-1]
    np.testing.assert_array_equal(done.labels, expected)
    assert done.provenance["tiles_empty"] > 0.5 * done.provenance["tiles_per_frame"]
    exact = list(iter_segment(picture, model, tile=64, overlap="exact"))[-1]
    assert "tiles_empty" not in exact.provenance
    assert (exact.provenance["backend"], exact.provenance["precision"]) != (None, None)
    nothing = list(iter_segment(np.zeros((400, 400), np.uint16), model, tile=64, seam_windows=0))[-1]
    assert nothing.provenance["tiles_empty"] == nothing.provenance["tiles_per_frame"]
    assert (nothing.provenance["backend"], nothing.provenance["precision"]) == (None, None), "no network ran"
    with pytest.raises(ValidationError, match="empty_below needs a target with a background"):
        with_points(target=Classes(classes=("a", "b"), background=False), empty_below=0.1)
    classes = blob_model(classes=True)
    classes = Model(classes.spec.model_copy(update={"empty_below": 0.1}), classes.network)
    np.testing.assert_array_equal(list(iter_segment(picture, classes, tile=64))[-1].labels, picture > 500)


@pytest.mark.parametrize("half", [False, True])
def test_the_command_measures_and_stores(tmp_path: Path, capsys: pytest.CaptureFixture[str], half: bool) -> None:
    path = tmp_path / "random.safetensors"
    save_model(MODEL, path, half=half)
    tifffile.imwrite(tmp_path / "a.tif", image(SHAPE, 1)[0])
    assert run(["seams", str(path), str(tmp_path / "a.tif")]) == 0
    shown = capsys.readouterr().out
    assert "overlap=auto takes" in shown
    assert load_model(path).spec.seams == ()
    assert run(["seams", str(path), str(tmp_path / "a.tif"), "--axes", "yx"]) == 0
    assert capsys.readouterr().out == shown
    assert run(["seams", str(path), str(tmp_path / "a.tif"), "--axes", "zyx"]) == 2
    assert run(["seams", str(path), str(tmp_path / "a.tif"), "--save"]) == 0
    spec = load_model(path).spec
    assert len(spec.seams) > 1
    assert stored_half(path) == half
    assert "\n".join(seam_lines(spec)) + "\n" == shown
    assert any("maps within" in line for line in card_lines(spec))
    assert run(["seams", str(path), str(tmp_path / "nothing-here")]) == 2


def test_nothing_earned_is_said() -> None:
    assert "none is within the tolerance" in seam_lines(with_points(*POINTS[:2]))[-1]
    assert any("not measured" in line for line in card_lines(SPEC))
    assert any("6 x 6" in line for line in card_lines(with_points(overlap=(6, 6))))


def test_the_plan_explains_itself_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tifffile.imwrite(tmp_path / "a.tif", blobs((80, 80), [(30, 30), (50, 60)]))
    assert run(["segment", str(tmp_path / "a.tif"), "--model", "blobs", "--explain-plan", "--out", str(tmp_path)]) == 0
    told = capsys.readouterr().err
    assert "voxels computed" in told
    assert "chosen" in told
