"""What the form shows and says, without Qt."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from napari_tiled_unet.errors import OptionsError
from napari_tiled_unet.events import Finished
from napari_tiled_unet.options import SegmentOptions
from napari_tiled_unet.viewer.form import (
    axes_readings,
    axes_text,
    finished_text,
    form_state,
    option_rows,
    options_from_rows,
    progress_text,
    text_of,
)
from napari_tiled_unet.viewer.layers import LayerFacts
from tests.models import blob_model

SPEC = blob_model().spec
SPEC_3D = blob_model(ndim=3).spec
ROWS = {row.name: row for row in option_rows()}


def facts(*shape: int, **changes: Any) -> LayerFacts:
    return LayerFacts("cells", shape, **{"spacing": (None,) * (len(shape) - changes.get("rgb", False)), **changes})


class TestRows:
    def test_every_option_has_a_row_with_its_description(self) -> None:
        assert list(ROWS) == list(SegmentOptions.model_fields)
        for name, info in SegmentOptions.model_fields.items():
            assert ROWS[name].tooltip == info.description
            assert ROWS[name].default == info.default

    def test_advanced_options_are_those_that_say_so(self) -> None:
        advanced = {name for name, row in ROWS.items() if row.advanced}
        assert {"tile", "overlap", "blend", "flips", "device", "precision", "memory", "normalisation"} <= advanced
        assert not advanced & {"model", "axes", "channel", "object_size", "min_size"}

    @pytest.mark.parametrize(
        ("name", "kind"),
        [("link_slices", "check"), ("flips", "check"), ("fill_holes", "choice"), ("blend", "choice"), ("tile", "text")],
    )
    def test_the_kind_of_row_follows_the_type(self, name: str, kind: str) -> None:
        assert ROWS[name].kind == kind

    def test_choices_are_those_of_the_option(self) -> None:
        assert [value for _, value in ROWS["blend"].choices] == ["crop", "gaussian"]
        assert [value for _, value in ROWS["fill_holes"].choices] == ["auto", True, False]
        assert ROWS["normalisation"].choices[0] == ("auto", "auto")

    def test_untouched_rows_say_the_defaults(self) -> None:
        values = {name: text_of(row.default) for name, row in ROWS.items()}
        assert options_from_rows(values | {"link_slices": False}) == SegmentOptions()

    @pytest.mark.parametrize(
        ("name", "text", "value"),
        [
            ("tile", "512", (512,)),
            ("tile", " 32, 256 ,256", (32, 256, 256)),
            ("overlap", "exact", "exact"),
            ("object_size", "22.5", 22.5),
            ("min_size", "30", 30),
            ("fill_holes", False, False),
            ("fill_holes", "auto", None),
            ("normalisation", "minmax", "minmax"),
            ("spacing", "2, 0.5, 0.5", (2.0, 0.5, 0.5)),
            ("channel", 0, 0),
        ],
    )
    def test_what_is_typed_becomes_the_option(self, name: str, text: Any, value: Any) -> None:
        options = options_from_rows({name: text})
        assert getattr(options, name) == value
        if isinstance(text, str) and value is not None:
            assert options_from_rows({name: text_of(value)}) == options

    @pytest.mark.parametrize(("name", "text"), [("min_size", "many"), ("tile", "0"), ("foreground_threshold", "1.5")])
    def test_what_cannot_be_is_refused(self, name: str, text: str) -> None:
        with pytest.raises(OptionsError, match=name):
            options_from_rows({name: text})


class TestAxes:
    @pytest.mark.parametrize(
        ("shape", "rgb", "model", "readings"),
        [
            ((4, 5), False, "yx", ("yx",)),
            ((4, 5), False, "zyx", ()),
            ((3, 4, 5), False, "yx", ("zyx", "tyx", "cyx")),
            ((3, 4, 5), False, "zyx", ("zyx",)),
            ((4, 5, 3), True, "yx", ("yxc",)),
            ((2, 4, 5, 3), True, "yx", ("zyxc", "tyxc")),
            ((2, 3, 4, 5), False, "zyx", ("tzyx", "czyx", "zcyx", "ztyx")),
            ((2, 2, 2, 2, 4, 5), False, "yx", ()),
        ],
    )
    def test_readings(self, shape: tuple[int, ...], rgb: bool, model: str, readings: tuple[str, ...]) -> None:
        assert axes_readings(facts(*shape, rgb=rgb), model) == readings

    def test_five_axes_are_all_of_tczyx(self) -> None:
        readings = axes_readings(facts(2, 2, 2, 4, 5))
        assert readings[0] == "tczyx"
        assert len(set(readings)) == 6
        assert all(sorted(reading) == sorted("tczyx") for reading in readings)

    def test_what_the_layer_says_comes_first_and_is_taken(self) -> None:
        state = form_state(facts(3, 4, 5, named_axes="tyx"), SPEC)
        assert state.axes_taken == "tyx"
        assert [value for _, value in state.axes] == ["tyx", "zyx", "cyx"]
        assert state.problem is None

    def test_nothing_is_guessed(self) -> None:
        state = form_state(facts(3, 4, 5), SPEC)
        assert state.axes_taken is None
        assert state.axes[0] == ("choose ...", "")
        assert state.problem == "choose what the axes of 'cells' are"

    def test_the_users_choice_is_taken(self) -> None:
        assert form_state(facts(3, 4, 5, named_axes="tyx"), SPEC, chosen_axes="zyx").axes_taken == "zyx"

    def test_a_choice_that_no_longer_fits_is_forgotten(self) -> None:
        assert form_state(facts(4, 5), SPEC, chosen_axes="zyx").axes_taken == "yx"

    def test_the_only_reading_is_taken(self) -> None:
        assert form_state(facts(3, 4, 5), SPEC_3D).axes_taken == "zyx"

    def test_a_plane_under_a_3d_model(self) -> None:
        assert "needs axes zyx" in str(form_state(facts(4, 5), SPEC_3D).problem)

    def test_named_axes_that_the_model_cannot_use(self) -> None:
        state = form_state(facts(3, 4, 5, named_axes="tyx"), SPEC_3D)
        assert "needs axes zyx, the layer has tyx" in str(state.problem)

    def test_too_many_axes(self) -> None:
        assert "has 6 axes" in str(form_state(facts(2, 2, 2, 2, 4, 5), SPEC).problem)

    def test_text(self) -> None:
        assert axes_text("zyx", (12, 512, 600)) == "z 12 · y 512 · x 600"


class TestState:
    def test_without_a_layer_or_a_model(self) -> None:
        assert "open an image" in str(form_state(None, SPEC).problem)
        assert "no model" in str(form_state(facts(4, 5), None).problem)

    def test_a_channel_must_be_chosen(self) -> None:
        state = form_state(facts(3, 4, 5), SPEC, chosen_axes="cyx")
        assert [value for _, value in state.channels] == ["", 0, 1, 2]
        assert state.problem == "choose the channel that shows channel 0"
        chosen = form_state(facts(3, 4, 5), SPEC, chosen_axes="cyx", chosen_channel=2)
        assert (chosen.channel_taken, chosen.problem) == (2, None)

    def test_a_channel_that_is_not_there_is_forgotten(self) -> None:
        assert form_state(facts(3, 4, 5), SPEC, chosen_axes="cyx", chosen_channel=3).channel_taken is None

    @pytest.mark.parametrize(("shape", "axes"), [((4, 5), None), ((1, 4, 5), "cyx"), ((3, 4, 5), "zyx")])
    def test_no_choice_of_channels_without_channels(self, shape: tuple[int, ...], axes: str | None) -> None:
        assert form_state(facts(*shape), SPEC, chosen_axes=axes).channels == ()

    def test_colours_are_grey_unless_one_is_chosen(self) -> None:
        state = form_state(facts(4, 5, 4, rgb=True), SPEC)
        assert [text for text, _ in state.channels] == ["grey (luminance)", "red", "green", "blue"]
        assert (state.channel_taken, state.problem) == (None, None)

    def test_rows_without_effect_say_why(self) -> None:
        classes = blob_model(classes=True, object_size=None).spec
        idle = form_state(facts(4, 5), classes).idle
        assert "classes" in idle["seed_threshold"]
        assert "size of its objects" in idle["object_size"]
        assert "z-stack" in form_state(facts(4, 5), SPEC).idle["link_slices"]
        assert "link_slices" not in form_state(facts(3, 4, 5), SPEC, chosen_axes="zyx").idle

    def test_empty_rows_say_what_they_mean(self) -> None:
        layer = facts(4, 5, spacing=(0.5, 0.25))
        meaning = form_state(layer, SPEC).placeholders
        assert meaning["spacing"] == "auto (0.5, 0.25 µm)"
        assert meaning["foreground_threshold"] == "auto (0.5)"
        assert meaning["fill_holes"] == "auto (yes)"
        assert meaning["normalisation"] == "auto (minmax)"
        assert meaning["memory"] == "auto, GiB"
        assert meaning["device"] == "auto"


@pytest.mark.parametrize(
    ("done", "total", "seconds", "text"),
    [
        (0, 40, 0.0, "tile 0 of 40"),
        (10, 40, 5.0, "tile 10 of 40, about 15 s left"),
        (10, 40, 200.0, "tile 10 of 40, about 10 min left"),
        (40, 40, 9.0, "tile 40 of 40"),
    ],
)
def test_progress_text(done: int, total: int, seconds: float, text: str) -> None:
    assert progress_text(done, total, seconds) == text


def test_finished_text() -> None:
    end = Finished(np.zeros((2, 2), np.uint8), "yx", 12, 2.04)
    assert finished_text(end, ["RGB converted to grey"]) == "12 labels in 2.0 s\nRGB converted to grey"
    assert finished_text(Finished(end.labels, "yx", 0, 1.0), []) == "nothing found in 1.0 s"
