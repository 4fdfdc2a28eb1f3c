"""What the train form says, which layers belong together, curves and glimpses: without a viewer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from napari.layers import Image as ImageLayer
from napari.layers import Labels

from napari_tiled_unet.errors import ImageError, OptionsError
from napari_tiled_unet.image import image_from_array
from napari_tiled_unet.region import Region
from napari_tiled_unet.train_options import TrainOptions
from napari_tiled_unet.training.happenings import StepDone
from napari_tiled_unet.training.loop import run_session
from napari_tiled_unet.training.patches import Patch
from napari_tiled_unet.training.preparation import prepare
from napari_tiled_unet.viewer.curve import Curves, averaged
from napari_tiled_unet.viewer.form import text_of
from napari_tiled_unet.viewer.glimpse import Glimpsed, Sight, around_middle, glimpse, with_glimpses
from napari_tiled_unet.viewer.layers import METADATA_KEY
from napari_tiled_unet.viewer.mosaic import mosaic
from napari_tiled_unet.viewer.teaching import (
    cancelled_text,
    file_name,
    free_name,
    images_and_labels,
    proposed,
    train_options,
    train_rows,
)
from tests.training.scenes import SMALL, scene

PLANE, TRUTH = scene()


class TestRows:
    def test_there_is_one_for_each_option_and_the_defaults_say_the_defaults(self) -> None:
        rows = train_rows()
        assert [row.name for row in rows] == list(TrainOptions.model_fields)
        assert all(row.tooltip for row in rows)
        assert {row.name for row in rows if row.advanced} >= {"loss", "patch", "seed"}
        assert not next(row for row in rows if row.name == "steps").advanced
        shown = {row.name: text_of(row.default) if row.kind == "text" else row.default for row in rows}
        assert train_options(shown) == TrainOptions()

    def test_what_is_typed_is_read(self) -> None:
        options = train_options(
            {"patch": "32, 64", "classes": " bg, myelin,axon", "target": "classes", "steps": "7", "channel": "1"}
        )
        assert options.patch == (32, 64)
        assert options.classes == ("bg", "myelin", "axon")
        assert (options.steps, options.channel) == (7, 1)
        with pytest.raises(OptionsError, match="steps"):
            train_options({"steps": "many"})


class TestPairs:
    def test_labels_with_the_images_name_are_proposed_and_results_of_a_model_are_not(self) -> None:
        image = ImageLayer(PLANE, name="cells")
        painted = Labels(TRUTH, name="painted on Cells")
        result = Labels(TRUTH, name="cells labels", metadata={METADATA_KEY: {}})
        small = Labels(TRUTH[:40], name="cells small")
        other = Labels(TRUTH, name="more")
        assert proposed(image, [other, painted, result, small]) == ([other, painted, result], painted)
        assert proposed(image, [result])[1] is None
        assert proposed(image, [other])[1] is other
        assert proposed(image, [other, Labels(TRUTH, name="again")])[1] is None

    def test_painting_on_changes_nothing(self) -> None:
        layer = Labels(TRUTH.copy())
        (image,), (truth,) = images_and_labels([(ImageLayer(PLANE), layer)], "yx")
        layer.data[:] = 0
        assert image.axes == truth.axes == "yx"
        np.testing.assert_array_equal(truth.data, TRUTH)

    def test_labels_may_keep_the_place_of_the_channels_or_not(self) -> None:
        stack = ImageLayer(np.zeros((3, 2, 64, 64), np.uint8))
        for shape, axes in (((3, 1, 64, 64), "zcyx"), ((3, 64, 64), "zyx")):
            (_,), (truth,) = images_and_labels([(stack, Labels(np.ones(shape, int)))], "zcyx")
            assert truth.axes == axes

    def test_other_axes_are_refused(self) -> None:
        with pytest.raises(ImageError, match="2 axes, not 'zyx'"):
            images_and_labels([(ImageLayer(PLANE), Labels(TRUTH))], "zyx")
        stack = ImageLayer(np.zeros((3, 64, 64)))
        with pytest.raises(ImageError, match="one label per voxel"):
            images_and_labels([(stack, Labels(TRUTH))], "zyx")


def test_names_are_free_and_fit_every_file_system(tmp_path: Path) -> None:
    assert file_name(" my cells: plate/2 ") == "my-cells-plate-2"
    assert file_name("???") == "model"
    (tmp_path / "cells.safetensors").touch()
    (tmp_path / "cells-2.safetensors").touch()
    assert free_name("cells", tmp_path) == "cells-3"
    assert free_name("nuclei", tmp_path) == "nuclei-2", "the bundled model is not hidden"


def test_a_cancel_says_what_is_kept() -> None:
    assert "no model was made" in cancelled_text("a", 0, None, saved=False)
    assert "after step 3" in cancelled_text("a", 3, None, saved=True)


class TestCurves:
    def test_points_fill_the_rectangle(self) -> None:
        curves = Curves()
        assert curves.loss_points(10, 10) == []
        for step, loss in enumerate((4.0, 2.0, 3.0), start=1):
            curves.learn(step, loss)
        curves.score(3, 0.25)
        assert curves.loss_points(100, 50) == [(0, 0), (50, 50), (100, 25)]
        assert curves.score_points(100, 50) == [(100, 37.5)]

    @given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=2000))
    def test_means_are_few_and_within_the_values(self, values: list[float]) -> None:
        x, y = averaged(range(len(values)), values)
        assert len(x) == len(y) <= 300
        assert min(values) - 1e-6 <= y.min() <= y.max() <= max(values) + 1e-6


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(1, 3000)), min_size=2, max_size=3), st.integers(1, 10**6))
def test_the_middle_of_a_view_is_within_it(sides: list[tuple[int, int]], most: int) -> None:
    box = tuple(slice(start, start + n) for start, n in sides)
    cut = around_middle(box, most)
    assert np.prod([s.stop - s.start for s in cut], dtype=float) <= most
    for inner, outer in zip(cut, box, strict=True):
        assert outer.start <= inner.start < inner.stop <= outer.stop
        assert abs((inner.start - outer.start) - (outer.stop - inner.stop)) <= 1


def test_patches_side_by_side() -> None:
    patches = [Patch(np.full((1, 8, 8), n, np.float32), np.full((8, 8), n - 1, np.int32)) for n in range(3)]
    image, labels = mosaic(patches, sparse=True)
    assert image.shape == (1, 20, 20)
    assert (image[0, :8, 12:] == 1).all()
    assert (labels[12:, :8] == 2).all()
    assert (labels[:8, :8] == 0).all()
    assert mosaic(patches, sparse=False)[1].min() == 0


class TestGlimpse:
    def test_it_is_the_examiners_answer_where_one_looks(self) -> None:
        stack = np.stack([PLANE, PLANE[::-1]])
        truth = np.stack([TRUTH, TRUTH[::-1]])
        image = image_from_array(stack, "tyx")
        options = TrainOptions.of(steps=3, **SMALL, augmentation="none")
        session = prepare([image], [truth], options, out=None, resume=False, overwrite=False)
        sight = Sight()
        assert glimpse(session, sight) is None
        sight.look_at(image, Region.parse("t=1,y=8:40"))
        seen = glimpse(session, sight)
        assert isinstance(seen, Glimpsed)
        assert (seen.axes, seen.labels.shape) == ("tyx", (1, 32, 64))
        assert seen.offset == {"t": 1, "y": 8, "x": 0}
        sight.look_at(image_from_array(np.zeros((2, 64, 64, 5)), "tyxc"), Region())
        assert glimpse(session, sight) is None

    def test_they_come_between_steps_and_change_nothing(self) -> None:
        options = TrainOptions.of(steps=4, **SMALL, augmentation="none")
        image = image_from_array(PLANE)
        ends = []
        for every in (0.0, 1e9):
            session = prepare([image], [TRUTH], options, out=None, resume=False, overwrite=False)
            sight = Sight()
            sight.look_at(image, Region())
            events = list(with_glimpses(run_session(session), session, sight, every))
            ends.append([e.loss for e in events if isinstance(e, StepDone)])
            assert any(isinstance(e, Glimpsed) for e in events)
        assert ends[0] == ends[1]
