"""Each tile seen mirrored as well: the mean of the answers, their spread, and what it costs."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_tiled_unet import cli, read_image
from napari_tiled_unet import forecast as forecasting
from napari_tiled_unet.backends.interface import RUNTIMES
from napari_tiled_unet.backends.pytorch import TorchBackend
from napari_tiled_unet.candidates import Costs
from napari_tiled_unet.errors import MemoryBudgetError
from napari_tiled_unet.events import Finished, FrameDone, Notice, Planned, TileDone
from napari_tiled_unet.flips import VIEWS, Flips, views_of
from napari_tiled_unet.image import Image
from napari_tiled_unet.io import image_files
from napari_tiled_unet.model import Model, ModelSpec
from napari_tiled_unet.normalise import Normalisation, Statistics
from napari_tiled_unet.options import SegmentOptions
from napari_tiled_unet.planning import Choice, choose_soon, choose_tiles
from napari_tiled_unet.predict import Manner, iter_predict
from napari_tiled_unet.recipe import as_command, as_python, parse_recipe, recipe_text
from napari_tiled_unet.runtime import Runner
from napari_tiled_unet.segmentation import iter_segment
from napari_tiled_unet.targets import Classes, Objects, Target
from napari_tiled_unet.tiling import TilePlan, plan_tiles
from tests.models import blobs
from tests.test_predict import NETWORKS, image, whole_plan

CPU = torch.device("cpu")
PLANE = np.random.default_rng(3).integers(0, 1000, (64, 48)).astype(np.uint16)
FLOAT32: dict[str, Any] = {"precision": "float32", "backend": "torch"}


def random_model(name: str = "2D", target: Target | None = None) -> Model:
    """Return a model that no mirror leaves as it is: random weights, intensities as they are over 1000."""
    network = NETWORKS[name]
    spec = ModelSpec(
        name="random",
        axes="zyx"[-network.spec.ndim :],
        channels=("c",),
        network=network.spec,
        normalisation=Normalisation("minmax"),
        target=target or Objects(),
    )
    return Model(spec, network)


def finished(image: np.ndarray, model: Model, **options: Any) -> Any:
    (done,) = [e for e in iter_segment(image, model, **{**FLOAT32, **options}) if isinstance(e, Finished)]
    return done


@pytest.fixture
def sizes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return how many voxels the network was given, call by call."""
    found: list[int] = []
    plain = TorchBackend.run

    def counted(self: TorchBackend, tiles: np.ndarray) -> np.ndarray:
        found.append(tiles.size)
        return plain(self, tiles)

    monkeypatch.setattr(TorchBackend, "run", counted)
    return found


def maps_of(name: str, frame: np.ndarray, plan: TilePlan, flips: Flips, blend: str = "crop") -> np.ndarray:
    runner = Runner(NETWORKS[name], Objects().activate, CPU, torch.float32, flips=flips)
    statistics = Statistics((0.0,), (1000.0,))
    n_maps = 2 + runner.gives_spread
    events = iter_predict(frame, statistics, runner, plan, n_maps=n_maps, manner=Manner(blend=blend, batch=2))
    while True:
        try:
            next(events)
        except StopIteration as end:
            return end.value


class TestViews:
    def test_each_view_is_seen_once_and_mirrored_back(self) -> None:
        seen: list[np.ndarray] = []

        def network(tiles: np.ndarray) -> np.ndarray:
            assert tiles.flags.c_contiguous
            seen.append(tiles[0, 0].copy())
            return np.concatenate([tiles, 2 * tiles], axis=1)

        tiles = np.arange(12, dtype=np.float32).reshape(1, 1, 3, 4)
        np.testing.assert_array_equal(Flips().run(network, tiles), np.concatenate([tiles, 2 * tiles], axis=1))
        plane = tiles[0, 0]
        np.testing.assert_array_equal(seen, [plane, plane[::-1], plane[:, ::-1], plane[::-1, ::-1]])
        assert (views_of(flips=True), views_of(flips=False)) == (len(VIEWS), 1) == (4, 1)

    @pytest.mark.parametrize("name", ["2D", "3D"])
    @pytest.mark.parametrize("spread_of", [0, 1, 2])
    def test_mean_and_spread_are_those_of_the_answers(self, name: str, spread_of: int) -> None:
        ndim = NETWORKS[name].spec.ndim
        tiles = np.random.default_rng(0).random((2, 1, *(8,) * ndim), np.float32)
        plain = Runner(NETWORKS[name], Objects().activate, CPU, torch.float32)
        # Written out: y and x are the last two axes, z stays as it is.
        answers = np.stack(
            [
                plain.run(tiles),
                plain.run(tiles[..., ::-1, :].copy())[..., ::-1, :],
                plain.run(tiles[..., ::-1].copy())[..., ::-1],
                plain.run(tiles[..., ::-1, ::-1].copy())[..., ::-1, ::-1],
            ]
        )
        given_maps = Flips(spread_of).run(plain.run, tiles)
        np.testing.assert_allclose(given_maps[:, :2], answers.mean(axis=0), atol=1e-6)
        assert given_maps.shape[1] == 2 + (spread_of > 0)
        if spread_of:
            spread = answers[:, :, :spread_of].std(axis=0).mean(axis=1)
            assert spread.max() > 1e-3
            np.testing.assert_allclose(given_maps[:, 2], spread, atol=1e-6)

    def test_a_small_spread_is_not_lost_in_rounding(self) -> None:
        answers = iter([0.9, 0.9001, 0.9, 0.9001])

        def network(tiles: np.ndarray) -> np.ndarray:
            return np.full_like(tiles, next(answers))

        maps = Flips(1).run(network, np.zeros((1, 1, 2, 2), np.float32))
        np.testing.assert_allclose(maps[0, 1], 5e-5, rtol=1e-2)


@pytest.mark.parametrize("name", NETWORKS)
@settings(max_examples=6, deadline=None)
@given(data=st.data())
def test_tiles_with_exact_overlap_give_the_whole_image(name: str, data: st.DataObject) -> None:
    """Also where the frame is no multiple of the stride, and its mirrored padding lies in front."""
    network = NETWORKS[name]
    ndim, reach, stride = network.spec.ndim, network.receptive_field, network.stride
    shape = tuple(data.draw(st.integers(1, 80 if ndim == 2 else 24), label="side") for _ in range(ndim))
    tile = tuple(
        data.draw(st.integers(math.ceil((2 * r + 1) / s) + 1, math.ceil((2 * r + 1) / s) + 4), label="strides") * s
        for r, s in zip(reach, stride, strict=True)
    )
    frame, flips = image(shape, data.draw(st.integers(0, 9), label="seed")), Flips(1)
    whole = maps_of(name, frame, whole_plan(shape, network), flips)
    tiled = maps_of(name, frame, plan_tiles(shape, tile, reach, stride), flips)
    assert np.abs(whole[:2] - tiled[:2]).max() <= 1e-5
    # A root is steep at 0: differences of 1e-6 of the maps become larger ones of no spread.
    assert np.abs(whole[2] - tiled[2]).max() <= 1e-4


def test_the_identity_is_about_the_overlap_and_gaussian_blends_too() -> None:
    frame, shape = image((70, 66), 1), (70, 66)
    whole = maps_of("2D", frame, whole_plan(shape, NETWORKS["2D"]), Flips(1))
    seams = maps_of("2D", frame, plan_tiles(shape, (16, 16), (0, 0), (4, 4)), Flips(1))
    assert np.abs(whole - seams).max() > 1e-3
    gaussian = maps_of("2D", frame, plan_tiles(shape, (48, 48), (12, 12), (4, 4)), Flips(1), "gaussian")
    assert 0 < np.abs(gaussian - whole).mean() < 0.01


@pytest.mark.parametrize("axes", [(-1,), (-2,), (-2, -1)])
@pytest.mark.parametrize("name", ["2D", "3D-anisotropic"])
def test_a_mirrored_image_gives_mirrored_maps(name: str, axes: tuple[int, ...]) -> None:
    model = random_model(name)
    picture = PLANE if name == "2D" else np.random.default_rng(4).integers(0, 1000, (8, 16, 24)).astype(np.uint16)
    mirrored = np.ascontiguousarray(np.flip(picture, axes))
    more = {"axes": model.spec.axes, "keep_maps": True}
    one, other = finished(picture, model, flips=True, **more), finished(mirrored, model, flips=True, **more)
    np.testing.assert_allclose(np.flip(other.maps, axes), one.maps, atol=1e-5)
    np.testing.assert_allclose(np.flip(other.spread, axes), one.spread, atol=1e-4)
    plain, plainly = finished(picture, model, **more), finished(mirrored, model, **more)
    assert np.abs(np.flip(plainly.maps, axes) - plain.maps).max() > 1e-3, "the network alone does not"


class TestRun:
    def test_it_says_what_it_did(self) -> None:
        events = list(iter_segment(PLANE, random_model(), tile=32, overlap=4, flips=True, **FLOAT32))
        planned = next(e for e in events if isinstance(e, Planned))
        assert planned.views == 4
        assert planned.voxels == 4 * planned.plan.voxels_computed
        assert "each tile is computed 4 times, mirrored: 4 times the work below" in planned.explanation
        provenance = events[-1].provenance
        assert provenance["options"]["flips"] is True
        assert provenance["views"] == 4
        plain = finished(PLANE, random_model())
        assert plain.provenance["views"] == 1
        assert "flips" not in plain.provenance["options"]
        assert plain.maps is plain.spread is None

    def test_the_network_runs_four_times_as_often(self, sizes: list[int]) -> None:
        planned: list[Planned] = []
        for flips in (False, True):
            sizes.clear()
            events = list(
                iter_segment(PLANE, random_model(), tile=32, overlap=4, flips=flips, seam_windows=0, **FLOAT32)
            )
            planned += [e for e in events if isinstance(e, Planned)]
            assert sum(sizes) == planned[-1].voxels
        assert planned[1].voxels == 4 * planned[0].voxels

    def test_the_spread_comes_with_the_maps_and_changes_no_label(self) -> None:
        model = random_model()
        shapes: list[tuple[int, ...]] = []

        def room(shape: tuple[int, ...]) -> np.ndarray:
            shapes.append(shape)
            return np.zeros(shape, np.float32)

        stack = np.stack([PLANE, PLANE[::-1], PLANE // 2])
        options = {"axes": "tyx", "flips": True, "tile": 32, "overlap": 8, "live": True}
        events = list(iter_segment(stack, model, keep_maps=room, **options, **FLOAT32))
        done = events[-1]
        assert shapes == [(3, *stack.shape)]
        assert done.maps.shape == (2, *stack.shape)
        assert done.spread.shape == stack.shape
        assert 1e-3 < done.spread.max() <= 0.5
        assert {len(e.maps) for e in events if isinstance(e, TileDone | FrameDone)} == {2}
        without = finished(stack, model, **options)
        assert without.maps is without.spread is None
        np.testing.assert_array_equal(done.labels, without.labels)
        assert (finished(stack, model, axes="tyx").labels != done.labels).any()
        nowhere = finished(stack, model, keep_maps=lambda _: None, **options)
        assert nowhere.maps is nowhere.spread is None

    def test_of_classes_it_is_the_mean_over_them(self) -> None:
        target = Classes(classes=("nothing", "thing"))
        done = finished(PLANE, random_model(target=target), flips=True, keep_maps=True)
        plain = Runner(NETWORKS["2D"], target.activate, CPU, torch.float32)
        x = ((PLANE - PLANE.min()) / np.float32(np.ptp(PLANE)))[None, None].astype(np.float32)
        answers = np.stack([np.flip(plain.run(np.flip(x, axes).copy()), axes)[0] for axes in VIEWS])
        np.testing.assert_allclose(done.spread, answers.std(axis=0).mean(axis=0), atol=1e-4)

    def test_under_another_scale(self) -> None:
        model = random_model()
        model = Model(model.spec.model_copy(update={"object_size": 10.0}), model.network)
        done = finished(PLANE, model, object_size=5, flips=True, keep_maps=True)
        assert done.spread.shape == done.labels.shape == PLANE.shape

    def test_seams_are_certified_on_the_mean(self) -> None:
        picture = np.random.default_rng(5).integers(0, 1000, (120, 104)).astype(np.uint16)
        options = {"flips": True, "seam_windows": 4}

        def told(**more: Any) -> dict[str, float]:
            error = finished(picture, random_model(), **options, **more).provenance["seam_error"]
            assert error is not None
            return error

        assert told(tile=32, overlap=0)["max"] > 1e-3
        # In float32, and without the spread, which is no map of the network.
        assert told(tile=64, overlap="exact", keep_maps=True)["max"] < 1e-5

    def test_empty_tiles_are_left_out(self) -> None:
        picture = np.zeros((256, 256), np.uint16)
        picture[150:200, 180:230] = PLANE[:50, :48].repeat(2, axis=1)[:, :50]
        model = random_model()
        model = Model(model.spec.model_copy(update={"empty_below": 0.01}), model.network)
        done = finished(picture, model, tile=64, overlap=8, flips=True, keep_maps=True)
        assert done.provenance["tiles_empty"] > 0
        assert done.spread[:64, :64].max() == 0
        assert done.spread[150:200, 180:230].max() > 0

    def test_out_of_memory_is_a_slowdown(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Wherever among the views it happens, tiles are halved, with the same maps."""
        picture = np.random.default_rng(5).integers(0, 1000, (96, 96)).astype(np.uint16)
        options = {"flips": True, "overlap": "exact", "keep_maps": True, "seam_windows": 0, "tile": 80}
        expected = finished(picture, random_model(), **options)
        plain, calls = TorchBackend.run, []

        def narrow(self: TorchBackend, tiles: np.ndarray) -> np.ndarray:
            calls.append(tiles.size)
            if tiles.size >= 80 * 80 and len(calls) % 3 == 2:
                raise MemoryBudgetError("no")
            return plain(self, tiles)

        monkeypatch.setattr(TorchBackend, "run", narrow)
        events = list(iter_segment(picture, random_model(), **options, **FLOAT32))
        assert any(isinstance(e, Notice) and "memory ran out: tiles of" in e.message for e in events)
        assert [e.views for e in events if isinstance(e, Planned)] == [4, 4]
        assert events[-1].provenance["views"] == 4
        np.testing.assert_allclose(events[-1].maps, expected.maps, atol=1e-5)

    @pytest.mark.parametrize("backend", [name for name, runtime in RUNTIMES.items() if runtime.available()])
    def test_every_backend(self, backend: str) -> None:
        tiles = np.random.default_rng(0).random((2, 1, 16, 24), np.float32)
        network = NETWORKS["2D"]
        expected = Runner(network, torch.sigmoid, CPU, torch.float32, flips=Flips(1)).run(tiles)
        found = Runner(network, torch.sigmoid, CPU, torch.float32, backend=backend, flips=Flips(1)).run(tiles)
        np.testing.assert_allclose(found, expected, atol=1e-3)

    def test_reduced_precision_is_still_checked(self) -> None:
        runner = Runner(NETWORKS["2D"], torch.sigmoid, CPU, torch.bfloat16, checked=True, flips=Flips(1))
        tiles = np.random.default_rng(0).random((1, 1, 16, 24), np.float32)
        exact = Runner(NETWORKS["2D"], torch.sigmoid, CPU, torch.float32, flips=Flips(1)).run(tiles)
        assert runner.precision in ("bfloat16", "float32")
        assert np.abs(runner.run(tiles) - exact)[:, :2].max() < 0.05


class TestForecast:
    def test_it_is_four_times_the_work(self, monkeypatch: pytest.MonkeyPatch) -> None:
        picture, model = Image(PLANE, "yx"), random_model()
        plain = SegmentOptions.of(tile=32, overlap=8, device="cpu", **FLOAT32)
        flips = plain.changed(flips=True)
        monkeypatch.setattr(forecasting, "_rates", {})
        forecasting.learn(model, "cpu", "float32", 1000, 1.0)
        one, four = forecasting.forecast(picture, model, plain), forecasting.forecast(picture, model, flips)
        assert (four.n_tiles, four.voxels) == (one.n_tiles, 4 * one.voxels)
        assert one.seconds is not None
        assert four.seconds == pytest.approx(4 * one.seconds)
        assert four.memory == one.memory + 4 * PLANE.size
        planned = next(e for e in iter_segment(picture, model, options=flips) if isinstance(e, Planned))
        assert four.voxels == planned.voxels

    def test_the_rate_is_that_of_one_view(self, monkeypatch: pytest.MonkeyPatch, sizes: list[int]) -> None:
        monkeypatch.setattr(forecasting, "_rates", {})
        forecasting.calibrate(random_model(), SegmentOptions.of(flips=True, device="cpu", **FLOAT32))
        assert len(sizes) == 2, "once to warm up, once by the clock"

    def test_who_waits_gets_smaller_tiles(self) -> None:
        def again(costs: Costs) -> Choice:
            return choose_tiles((4096, 4096), "auto", (0,), NETWORKS["2D"], costs=costs)

        best = again(Costs(100.0, 10**9))
        four = replace(best, costs=replace(best.costs, views=4))
        sides = [choose_soon(choice, voxel_work=2e5, itemsize=4, choose=again).plan.tile for choice in (best, four)]
        assert math.prod(sides[1]) <= 1e10 / 2e5 < math.prod(sides[0]) <= 4e10 / 2e5


class TestFaces:
    def test_a_recipe_says_it(self) -> None:
        options = SegmentOptions.of(flips=True)
        assert parse_recipe(recipe_text(options)).flips
        assert "flips=True" in as_python(options, "'a.tif'")
        assert "--flips" in as_command(options, "a.tif").split()
        assert "flips" not in recipe_text(SegmentOptions())

    def test_the_command_saves_the_spread_with_the_maps(self, tmp_path: Path) -> None:
        picture = blobs((40, 48), [(12, 12), (30, 30)])
        tifffile.imwrite(tmp_path / "a.tif", picture)
        command = ["segment", str(tmp_path / "a.tif"), "--model", "blobs", "--flips", "--save-maps"]
        assert cli.run(command) == cli.DONE
        spread, maps = read_image(tmp_path / "a_spread.ome.tif"), read_image(tmp_path / "a_maps.ome.tif")
        assert (spread.axes, spread.shape, spread.data.dtype) == ("yx", (40, 48), np.float32)
        assert maps.shape == (2, 40, 48)
        assert [p.name for p in image_files([tmp_path])] == ["a.tif"], "results are no images"
        assert cli.run([*command[:-2], "--save-maps", "--out", str(tmp_path / "plain")]) == cli.DONE
        assert not (tmp_path / "plain" / "a_spread.ome.tif").exists()
