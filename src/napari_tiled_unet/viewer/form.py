"""What the segment form shows, as pure functions: rows from the options, state from the layer.

The rows are the fields of :class:`SegmentOptions`; the state is computed from what is
chosen and applied by the widget as it stands, so that it can be tested without Qt.
"""

from __future__ import annotations

import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin

from napari_tiled_unet.options import OF_OBJECTS, Options, SegmentOptions
from napari_tiled_unet.viewer.layers import spacing_of_axes

if TYPE_CHECKING:
    from napari_tiled_unet.events import Finished
    from napari_tiled_unet.model import ModelSpec
    from napari_tiled_unet.viewer.layers import LayerFacts

Choice = tuple[str, Any]
"""What a drop-down shows, and the value it stands for."""

AUTOMATIC = "auto"
# The value of a choice that is none; magicgui has plans of its own for None.
UNSAID = ""
# What the leading axes of a layer can be, likely ones first.
_LEADING = {
    0: ("",),
    1: ("z", "t", "c"),
    2: ("tz", "tc", "cz", "zc", "ct", "zt"),
    3: ("tcz", "tzc", "ctz", "czt", "ztc", "zct"),
}
_LABELS = {"region": "range"}
_UNITS = {
    "region": "z=2:10,y=100:400",
    "spacing": "µm",
    "object_size": "px",
    "memory": "GiB",
    "min_size": "voxels",
    "tile": "voxels",
    "overlap": "voxels",
}


@dataclass(frozen=True)
class Row:
    """One option as a row of the form.

    Attributes
    ----------
    name : str
        Field of :class:`SegmentOptions`.
    kind : {"choice", "check", "text"}
        Drop-down, check box, or a line of text where empty means automatic.
    label, tooltip : str
        What stands before the row; the field's description.
    advanced : bool
        Whether the row is folded away.
    default : object
        The field's default.
    choices : tuple of (str, object)
        Of a drop-down; empty for those that depend on the layer or the model.
    """

    name: str
    kind: Literal["choice", "check", "text"]
    label: str
    tooltip: str
    advanced: bool
    default: Any
    choices: tuple[Choice, ...] = ()


@dataclass(frozen=True)
class FormState:
    """Everything about the form that depends on the layer, the model and the axes.

    Attributes
    ----------
    axes : tuple of (str, object)
        Readings of the layer's axes; one that says "choose" comes first where none is sure.
    axes_taken : str or None
        The reading that is taken; None where the user must choose.
    channels : tuple of (str, object)
        Channels to choose from; empty when there is no choice.
    channel_taken : int or None
        The channel that is taken.
    levels : tuple of (str, object)
        Resolutions to choose from; empty when there is no choice.
    placeholders : dict
        What an empty row means, by row.
    idle : dict
        Rows that have no effect here, and why.
    problem : str or None
        Why the layer cannot be segmented yet, one sentence; None when it can.
    """

    axes: tuple[Choice, ...] = ()
    axes_taken: str | None = None
    channels: tuple[Choice, ...] = ()
    channel_taken: int | None = None
    levels: tuple[Choice, ...] = ()
    placeholders: dict[str, str] = field(default_factory=dict)
    idle: dict[str, str] = field(default_factory=dict)
    problem: str | None = None


def option_rows(of: type[Options] = SegmentOptions) -> tuple[Row, ...]:
    """Return the rows of a form, one per field of its options class, in its order."""
    rows = []
    for name, info in of.model_fields.items():
        extra = info.json_schema_extra
        kind, choices = _kind(name, info.annotation)
        rows.append(
            Row(
                name=name,
                kind=kind,
                label=_LABELS.get(name, name.removesuffix("_threshold").replace("_", " ")),
                tooltip=info.description or "",
                advanced=isinstance(extra, dict) and bool(extra.get("advanced")),
                default=info.default,
                choices=choices,
            )
        )
    return tuple(rows)


def _kind(name: str, annotation: Any) -> tuple[Literal["choice", "check", "text"], tuple[Choice, ...]]:
    if name in ("model", "axes", "channel", "level"):
        return "choice", ()
    members = get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,)
    optional: tuple[Choice, ...] = ((AUTOMATIC, AUTOMATIC),) if type(None) in members else ()
    members = tuple(member for member in members if member is not type(None))
    if members == (bool,):
        return ("choice", (*optional, ("yes", True), ("no", False))) if optional else ("check", ())
    if len(members) == 1 and get_origin(members[0]) is Literal:
        return "choice", (*optional, *((str(value), value) for value in get_args(members[0])))
    return "text", ()


def said_in_rows(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the rows say beside the defaults, for which empty lines and None stand."""
    return {
        name: value.strip() if isinstance(value, str) else value
        for name, value in values.items()
        if value is not None and str(value).strip() not in ("", AUTOMATIC)
    }


def options_from_rows(values: Mapping[str, Any]) -> SegmentOptions:
    """Return the options that the rows say.

    Raises
    ------
    OptionsError
        If a row holds a value that breaks its rule.
    """
    return SegmentOptions.of(**said_in_rows(values))


def text_of(value: Any) -> str:
    """Return an option's value as the text of its row, the inverse of :func:`options_from_rows`."""
    if value is None or value == AUTOMATIC:
        return ""
    if isinstance(value, tuple | list):
        return ", ".join(map(_number, value))
    return _number(value) if isinstance(value, float) else str(value)


def _number(value: float) -> str:
    short = f"{value:g}"
    return short if float(short) == value else repr(value)


def rows_of(options: SegmentOptions) -> dict[str, Any]:
    """Return the values of the rows that say these options, the inverse of :func:`options_from_rows`.

    Without model, axes, channel and level, which are chosen, and the region, which has a row of its own kind.
    """
    values = {}
    for row in option_rows():
        value = getattr(options, row.name)
        if row.name in ("model", "axes", "channel", "level", "region"):
            continue
        values[row.name] = text_of(value) if row.kind == "text" else AUTOMATIC if value is None else value
    return values


def axes_readings(facts: LayerFacts, model_axes: str = "yx") -> tuple[str, ...]:
    """Return what the axes of a layer can be, under a model with these axes; likely ones first."""
    colours = "c" if facts.rgb else ""
    leading = _LEADING.get(len(facts.shape) - 2 - len(colours), ())
    readings = [f"{letters}yx{colours}" for letters in leading if not (colours and "c" in letters)]
    if facts.named_axes is not None:
        readings = [facts.named_axes, *(r for r in readings if r != facts.named_axes)]
    return tuple(r for r in readings if r == facts.named_axes or set(model_axes) <= set(r))


def taken_axes(facts: LayerFacts, readings: tuple[str, ...], chosen: str | None) -> str | None:
    """Return the reading that is taken: the user's, the layer's own, or the only one there is."""
    if chosen in readings:
        return chosen
    if facts.named_axes in readings:
        return facts.named_axes
    return readings[0] if len(readings) == 1 else None


def form_state(
    facts: LayerFacts | None,
    spec: ModelSpec | None,
    *,
    chosen_axes: str | None = None,
    chosen_channel: int | None = None,
) -> FormState:
    """Return the state of the form.

    Parameters
    ----------
    facts : LayerFacts or None
        The layer chosen, if any.
    spec : ModelSpec or None
        The model chosen, if any.
    chosen_axes, chosen_channel : optional
        What the user chose for this layer.
    """
    placeholders = _placeholders(facts, spec, None)
    levels = _levels(facts)
    if spec is None:
        return FormState(placeholders=placeholders, problem="no model is installed: see `tiled-unet models`")
    if facts is None:
        return FormState(placeholders=placeholders, problem="open an image, or take one from File > Open Sample")
    readings = axes_readings(facts, spec.axes)
    axes = taken_axes(facts, readings, chosen_axes)
    choices = tuple((axes_text(reading, facts.shape), reading) for reading in readings)
    if not readings:
        return FormState(levels=levels, placeholders=placeholders, problem=_no_reading(facts, spec))
    if axes is None:
        return FormState(
            axes=(("choose ...", UNSAID), *choices),
            levels=levels,
            placeholders=placeholders,
            problem=f"choose what the axes of {facts.name!r} are",
        )
    channels, channel, problem = _channels(facts, spec, axes, chosen_channel)
    if not set(spec.axes) <= set(axes):
        problem = f"model {spec.name!r} needs axes {spec.axes}, the layer has {axes}: choose another model or layer"
    return FormState(
        axes=choices,
        axes_taken=axes,
        channels=channels,
        channel_taken=channel,
        levels=levels,
        placeholders=_placeholders(facts, spec, axes),
        idle=_idle_rows(spec, axes),
        problem=problem,
    )


def axes_text(axes: str, shape: tuple[int, ...]) -> str:
    """Return a reading as it stands in the drop-down, for example ``z 12 · y 512 · x 512``."""
    return " · ".join(f"{axis} {size}" for axis, size in zip(axes, shape, strict=True))


def misfit(facts: LayerFacts | None, spec: ModelSpec) -> str | None:
    """Return why a model can never run on a layer, whatever its axes are taken for; None if it may."""
    if facts is None or any(set(spec.axes) <= set(reading) for reading in axes_readings(facts, spec.axes)):
        return None
    return _no_reading(facts, spec)


def _no_reading(facts: LayerFacts, spec: ModelSpec) -> str:
    ndim = len(facts.shape) - facts.rgb
    if ndim < len(spec.axes):
        return (
            f"model {spec.name!r} needs axes {spec.axes}, {facts.name!r} has only {ndim}: choose a stack, or a 2D model"
        )
    return f"{facts.name!r} has {ndim} axes, at most {5 - facts.rgb} (of t, c, z, y, x) can be segmented"


def _channels(
    facts: LayerFacts, spec: ModelSpec, axes: str, chosen: int | None
) -> tuple[tuple[Choice, ...], int | None, str | None]:
    """Return the channels to choose from, the one taken, and what is missing."""
    if "c" not in axes or len(spec.channels) != 1:
        return (), None, None
    count = facts.shape[axes.index("c")]
    if count == 1:
        return (), None, None
    taken = chosen if chosen is not None and chosen < count else None
    if facts.rgb:
        colours = tuple((colour, index) for index, colour in enumerate(("red", "green", "blue")))
        return (("grey (luminance)", UNSAID), *colours), taken, None
    numbered = tuple((str(index), index) for index in range(count))
    if taken is None:
        return (("choose ...", UNSAID), *numbered), None, f"choose the channel that shows {spec.channels[0]}"
    return numbered, taken, None


def _levels(facts: LayerFacts | None) -> tuple[Choice, ...]:
    """Return the resolutions of a multiscale layer."""
    if facts is None or len(facts.levels) < 2:
        return ()
    sizes = [" x ".join(map(str, shape)) for shape in facts.levels]
    return tuple((f"{level or 'full'}: {size}", level) for level, size in enumerate(sizes))


def _idle_rows(spec: ModelSpec, axes: str) -> dict[str, str]:
    idle: dict[str, str] = {}
    if spec.target.kind != "objects":
        idle |= dict.fromkeys((*OF_OBJECTS, "link_slices"), "this model predicts classes, not objects")
    elif spec.axes != "yx" or "z" not in axes:
        idle["link_slices"] = "only for a z-stack under a 2D model"
    if spec.object_size is None:
        idle["object_size"] = "this model does not state the size of its objects"
    return idle


def _placeholders(facts: LayerFacts | None, spec: ModelSpec | None, axes: str | None) -> dict[str, str]:
    """Return what an empty row means: automatic, and the value that it takes where known."""
    meaning: dict[str, Any] = {}
    if spec is not None:
        if spec.target.kind == "objects":
            meaning |= {name: getattr(spec.target, name) for name in OF_OBJECTS}
        meaning |= {"normalisation": spec.normalisation.method}
    if facts is not None and axes is not None and (spacing := spacing_of_axes(facts, axes)):
        meaning["spacing"] = text_of(spacing)
    texts = {}
    for row in option_rows():
        value = meaning.get(row.name)
        shown = {True: "yes", False: "no"}[value] if isinstance(value, bool) else text_of(value)
        unit = f" {_UNITS[row.name]}" if row.name in _UNITS else ""
        texts[row.name] = f"{AUTOMATIC} ({shown}{unit})" if shown else f"{AUTOMATIC}{unit and ','}{unit}"
    return texts


def progress_text(done: int, total: int, seconds: float) -> str:
    """Return how far a run is, for example ``tile 12 of 40, about 5 s left``."""
    text = f"tile {done} of {total}"
    if done == 0 or done == total:
        return text
    left = seconds / done * (total - done)
    return f"{text}, about {left / 60:.0f} min left" if left >= 90 else f"{text}, about {max(left, 1):.0f} s left"


def finished_text(finished: Finished, notes: Sequence[str]) -> str:
    """Return how a run ended, and what was decided or is to be heeded, a line each."""
    count = (
        f"{finished.n_objects} {'label' if finished.n_objects == 1 else 'labels'}"
        if finished.n_objects
        else "nothing found"
    )
    return "\n".join([f"{count} in {finished.seconds:.1f} s", *notes])
