"""What a network sees inside, as image layers over the view that it looked at; no Qt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_tiled_unet.region import Region
from napari_tiled_unet.viewer.form import form_state
from napari_tiled_unet.viewer.layers import (
    METADATA_KEY,
    SHOWN,
    facts_of,
    image_from_layer,
    labels_axes,
    labels_for_layer,
    labels_placement,
)
from napari_tiled_unet.viewer.regions import region_of_view

if TYPE_CHECKING:
    import napari.layers

    from napari_tiled_unet.model import Model, ModelSpec
    from napari_tiled_unet.networks.inside import Inside, Part
    from napari_tiled_unet.viewer.regions import View

TITLES: dict[Part, str] = {
    "encoder": "encoder features",
    "skip": "what the skip carries",
    "attention": "attention of the gate",
    "decoder": "decoder features",
}
"""What each part is called on the screen."""
# Voxels looked at, per number of spatial axes: all features of a level are held at once.
_MOST = {2: (1024, 1024), 3: (48, 160, 160)}


@dataclass(frozen=True)
class Look:
    """One look into a network.

    Attributes
    ----------
    layer, axes : napari.layers.Image, str
        The image and the axes of its data.
    region : Region
        The part of it that is looked at.
    channel : int or None
        The channel that a model of one channel sees.
    part, level : str, int
        What is shown, as for :func:`napari_tiled_unet.networks.inside.look_inside`.
    """

    layer: napari.layers.Image
    axes: str
    region: Region
    channel: int | None
    part: Part
    level: int


def look_at(
    layer: napari.layers.Image, view: View, spec: ModelSpec, part: Part, level: int, channel: int | None = None
) -> Look | str:
    """Return the look that a view asks for, or why there is none, in one sentence.

    Views of more than 1024 x 1024 pixels, or 48 x 160 x 160 voxels, are cut to their middle.

    Parameters
    ----------
    layer : napari.layers.Image
        The image.
    view : View
        What is on the screen.
    spec : ModelSpec
        Of the model that is looked into.
    part, level : str, int
        What is shown.
    channel : int, optional
        The channel that was chosen, for a model of one channel.

    Raises
    ------
    OptionsError
        If nothing of the layer is on the screen.
    """
    state = form_state(facts_of(layer), spec, chosen_channel=channel)
    if state.axes_taken is None and state.axes:
        likely = next(reading for _, reading in state.axes if reading).removesuffix("c" if layer.rgb else "")
        return (
            f"the axes of {layer.name!r} are not known; name them, for example "
            f"viewer.layers[{layer.name!r}].axis_labels = {tuple(likely)}"
        )
    if state.problem is not None:
        return state.problem
    axes = state.axes_taken
    assert axes is not None, "without axes there is a problem"
    sizes = dict(zip(axes, facts_of(layer).shape, strict=True))
    region = region_of_view(layer, axes, view, spec.axes)
    boxes = {a: (s.start, s.stop) for a, s in zip(axes, region.slices(axes, tuple(sizes.values())), strict=True)}
    for axis, most in zip(spec.axes, _MOST[len(spec.axes)], strict=True):
        start, stop = boxes[axis]
        start += max(0, stop - start - most) // 2
        boxes[axis] = start, min(stop, start + most)
    for axis in axes:
        # One frame: where the view spans several, the first.
        if axis != "c" and axis not in spec.axes:
            boxes[axis] = boxes[axis][0], boxes[axis][0] + 1
    boxes.pop("c", None)
    return Look(layer, axes, Region.of_slices(boxes, sizes), state.channel_taken, part, level)


def inside_of(look: Look, model: Model) -> Inside:
    """Return what a network sees of the part, at the image's own resolution; the layer is only read."""
    from napari_tiled_unet.matching import match_channels, match_image
    from napari_tiled_unet.networks.inside import look_inside
    from napari_tiled_unet.normalise import measure
    from napari_tiled_unet.options import SegmentOptions

    options = SegmentOptions(model=model.spec.name, channel=look.channel)
    source, _ = match_image(image_from_layer(look.layer, look.axes), model, options)
    channels = match_channels(source, model, options)
    frame = next(source.part(look.region).frames(model.spec.axes))
    statistics, _ = measure(frame.around(source, look.region).read(channels), model.spec.normalisation)
    return look_inside(model.network, statistics.apply(frame.read(channels)), look.part, look.level)


def inside_layer(look: Look, inside: Inside) -> napari.layers.Image:
    """Return the maps as a layer over the image, their channels along a slider of their own in front."""
    from napari.layers import Image as ImageLayer

    own = labels_axes(look.axes, rgb=bool(look.layer.rgb))
    # The maps have the axes of the network, in its order; a frame is one voxel long along all others.
    spatial = "zyx"[-len(inside.stride) :]
    strides = dict(zip(spatial, inside.stride, strict=True))
    given = "".join(a for a in own if a not in spatial and a != "c") + spatial
    first = dict(zip(given, look.region.offset(given), strict=True))
    # A voxel of the maps lies at the middle of the voxels that it stands for.
    middle: dict[str, Any] = {a: first[a] + (strides.get(a, 1) - 1) / 2 for a in given}
    placement = labels_placement(look.layer, look.axes, middle)
    placement["scale"] = placement["scale"] * [strides.get(a, 1) for a in own]
    maps = inside.maps.reshape(len(inside.maps), *(1,) * (len(given) - len(spatial)), *inside.maps.shape[1:])
    data = np.stack([labels_for_layer(one, given, own) for one in maps])
    return ImageLayer(
        data,
        name=f"{look.layer.name} {TITLES[look.part]}, level {look.level}",
        colormap="magma",
        contrast_limits=_limits(inside.maps),
        metadata={
            METADATA_KEY: {"source": str(look.layer.unique_id), "part": look.part, "level": look.level},
            SHOWN: True,
        },
        **_with_leading_axis(placement),
    )


def _limits(maps: npt.NDArray[np.float32]) -> tuple[float, float]:
    low, high = float(maps.min()), float(np.percentile(maps, 99.9))
    return (low, high) if high > low else (low, low + 1)


def _with_leading_axis(placement: dict[str, Any]) -> dict[str, Any]:
    """Return a placement with one more axis in front, that of the features."""

    def grown(matrix: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        bigger = np.eye(len(matrix) + 1)
        bigger[1:, 1:] = matrix
        return bigger

    return {
        "scale": np.concatenate([[1.0], placement["scale"]]),
        "translate": np.concatenate([[0.0], placement["translate"]]),
        **{name: grown(placement[name]) for name in ("rotate", "shear", "affine")},
        "units": ("pixel", *placement["units"]),
        "axis_labels": ("feature", *placement["axis_labels"]),
    }
