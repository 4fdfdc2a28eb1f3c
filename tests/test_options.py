"""Options are checked when they are made, and say what is wrong."""

from __future__ import annotations

import math

import pytest
from pydantic import ValidationError

from napari_tiled_unet.errors import OptionsError
from napari_tiled_unet.options import SegmentOptions


def test_defaults_are_automatic() -> None:
    options = SegmentOptions()
    assert (options.model, options.tile, options.overlap, options.blend) == ("nuclei", "auto", "auto", "crop")
    assert SegmentOptions.of() == options


@pytest.mark.parametrize(
    ("given", "stored"),
    [
        ({"tile": 512}, {"tile": (512,)}),
        ({"tile": "512"}, {"tile": (512,)}),
        ({"tile": "32,256,256"}, {"tile": (32, 256, 256)}),
        ({"tile": [32, 256]}, {"tile": (32, 256)}),
        ({"overlap": "exact"}, {"overlap": "exact"}),
        ({"overlap": 0}, {"overlap": (0,)}),
        ({"spacing": 0.5}, {"spacing": (0.5,)}),
        ({"spacing": ["2,0.5,0.5"]}, {"spacing": (2.0, 0.5, 0.5)}),
        ({"spacing": "1e-1"}, {"spacing": (0.1,)}),
        ({"axes": "tczyx"}, {"axes": "tczyx"}),
        ({"device": "cuda:1"}, {"device": "cuda:1"}),
    ],
)
def test_shorthand_is_stored_in_full(given: dict[str, object], stored: dict[str, object]) -> None:
    options = SegmentOptions.of(**given)
    assert {name: getattr(options, name) for name in stored} == stored


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"spacing": -1.0}, r"spacing=.*-1.*finite and positive"),
        ({"spacing": (1.0, math.nan)}, r"spacing=.*nan.*finite and positive"),
        ({"spacing": (1, 1, 1, 1)}, r"spacing must have one number, or one per spatial axis"),
        ({"object_size": 0}, r"object_size=0.*above 0"),
        ({"memory": math.inf}, r"memory=inf.*finite"),
        ({"tile": 0}, r"tile=.*at least 1"),
        ({"overlap": -1}, r"overlap=.*at least 0"),
        (
            {"tile": 64, "overlap": 32},
            r"overlap \(32,\) on both sides leaves nothing of tile \(64,\); take an overlap below half",
        ),
        ({"tile": (8, 64), "overlap": 8}, r"overlap \(8,\) on both sides leaves nothing of tile \(8, 64\)"),
        ({"axes": "xx"}, r"axes='xx'.*tczyx"),
        ({"axes": "zy"}, r"axes='zy'.*both y and x"),
        ({"axes": "qyx"}, r"axes='qyx'"),
        ({"channel": -1}, r"channel=-1.*greater than or equal to 0"),
        ({"device": "gpu"}, r"device='gpu'.*auto, cpu, cuda"),
        ({"device": "cuda:"}, r"device=.cuda:.*auto, cpu, cuda"),
        ({"device": "cpu:"}, r"device=.cpu:.*auto, cpu, cuda"),
        ({"device": "cpu:1"}, r"device='cpu:1'"),
        ({"blend": "mean"}, r"blend='mean'.*'crop' or 'gaussian'"),
        ({"precision": "int8"}, r"precision='int8'"),
        ({"foreground_threshold": 1.5}, r"foreground_threshold=1.5.*less than 1"),
        ({"min_size": -3}, r"min_size=-3"),
        ({"overlab": 3}, r"unknown option 'overlab'; the options are model, axes"),
    ],
)
def test_wrong_values_name_value_rule_and_remedy(given: dict[str, object], message: str) -> None:
    with pytest.raises(OptionsError, match=message):
        SegmentOptions.of(**given)


def test_options_cannot_be_changed_in_place_but_copied_with_changes() -> None:
    options = SegmentOptions.of(tile=128)
    with pytest.raises(ValidationError, match="frozen"):
        options.tile = (64,)  # type: ignore[misc]
    assert options.changed(overlap=8).tile == (128,)
    with pytest.raises(OptionsError, match="leaves nothing"):
        options.changed(overlap=64)


def test_every_option_has_a_description() -> None:
    assert [name for name, field in SegmentOptions.model_fields.items() if not field.description] == []


def test_options_survive_json() -> None:
    options = SegmentOptions.of(tile=(32, 64), spacing=(1, 0.5), overlap=4)
    assert SegmentOptions.model_validate_json(options.model_dump_json()) == options


def test_verbs_show_every_option_as_a_keyword() -> None:
    import inspect

    from napari_tiled_unet import iter_segment, segment

    for verb in (segment, iter_segment):
        shown = inspect.signature(verb).parameters
        assert set(SegmentOptions.model_fields) <= set(shown)
        assert shown["tile"].default == "auto"
        assert shown["model"].default is None
