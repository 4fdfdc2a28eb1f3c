"""napari layers to images, and labels to napari layers; no Qt.

A layer's own axes are those of its transforms; an RGB layer holds its colours in one
more axis of the data, which no transform knows.

::

    image layer        data (t, c, y, x)        axes "tcyx"
    labels of the run  data (t,    y, x)        axes "tyx"
    labels layer       data (t, 1, y, x)        the channel axis is kept, one voxel that
                                                spans all channels: napari aligns layers
                                                by their last axes, so that without it t
                                                of the labels would meet c of the image

A channel axis in front needs no such place-holder and is dropped, also from scale,
translate, rotate, shear, affine, units and axis labels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_tiled_unet.errors import ImageError
from napari_tiled_unet.image import Image

if TYPE_CHECKING:
    from collections.abc import Mapping

    import napari.layers

METADATA_KEY = "tiled_unet"
_LETTERS = {
    "t": "t",
    "time": "t",
    "c": "c",
    "ch": "c",
    "channel": "c",
    "channels": "c",
    "z": "z",
    "y": "y",
    "x": "x",
}


@dataclass(frozen=True)
class LayerFacts:
    """What the form must know of an image layer.

    Attributes
    ----------
    name : str
        Name of the layer.
    shape : tuple of int
        Shape of its data, full resolution, colours included.
    rgb : bool
        Whether the last axis holds colours.
    named_axes : str or None
        Axes of the data, letters of ``tczyx``, if the layer names them.
    spacing : tuple of float or None
        Micrometre per voxel of each axis of the layer; None where its unit is no length.
    """

    name: str
    shape: tuple[int, ...]
    rgb: bool = False
    named_axes: str | None = None
    spacing: tuple[float | None, ...] = ()


def is_image_layer(layer: Any) -> bool:
    """Return whether a layer is one that can be segmented: an Image, no Labels."""
    from napari.layers import Image as ImageLayer

    return isinstance(layer, ImageLayer)


def is_labels_layer(layer: Any) -> bool:
    """Return whether a layer holds labels."""
    from napari.layers import Labels

    return isinstance(layer, Labels)


def is_shapes_layer(layer: Any) -> bool:
    """Return whether shapes can be drawn in a layer."""
    from napari.layers import Shapes

    return isinstance(layer, Shapes)


def facts_of(layer: napari.layers.Image) -> LayerFacts:
    """Return what the form must know of an image layer; its data are not read."""
    data = full_resolution(layer)
    return LayerFacts(
        name=layer.name,
        shape=tuple(int(n) for n in data.shape),
        rgb=bool(layer.rgb),
        named_axes=named_axes(layer),
        spacing=axis_spacing(layer),
    )


def full_resolution(layer: napari.layers.Image | napari.layers.Labels) -> Any:
    """Return the data of a layer; of a multiscale layer those of level 0."""
    return layer.data[0] if layer.multiscale else layer.data


def named_axes(layer: napari.layers.Image | napari.layers.Labels) -> str | None:
    """Return the axes of a layer's data if it names them, by axis labels or xarray's dims.

    Labels are letters of ``tczyx`` or the words time, channel(s), in any case. Anything
    else, such as napari's own ``-2`` and ``-1``, names nothing.
    """
    rgb = bool(getattr(layer, "rgb", False))
    ndim = layer.ndim + rgb
    candidates = [(*layer.axis_labels, *("c" if rgb else ""))]
    candidates.append(tuple(str(d) for d in getattr(full_resolution(layer), "dims", ())))
    for labels in candidates:
        letters = "".join(_LETTERS.get(label.strip().lower(), "?") for label in labels)
        if len(letters) == ndim and "?" not in letters and len(set(letters)) == ndim and {"y", "x"} <= set(letters):
            return letters
    return None


def axis_spacing(layer: napari.layers.Image | napari.layers.Labels) -> tuple[float | None, ...]:
    """Return micrometres per voxel of each axis of a layer, None where the unit is no length."""
    return tuple(
        abs(float(scale)) * factor if (factor := _micrometres(unit)) else None
        for scale, unit in zip(layer.scale, layer.units, strict=True)
    )


def _micrometres(unit: Any) -> float | None:
    """Return how many micrometres a pint unit is; None for a pixel, a second and the like."""
    if dict(unit.dimensionality) != {"[length]": 1}:
        return None
    return float((1.0 * unit).to("micrometer").magnitude)


def spacing_of_axes(facts: LayerFacts, axes: str) -> tuple[float, ...] | None:
    """Return micrometres per voxel of the spatial axes, or None if one of them is unknown."""
    known = [spacing for axis, spacing in zip(axes[: len(facts.spacing)], facts.spacing, strict=True) if axis in "zyx"]
    values = tuple(spacing for spacing in known if spacing is not None)
    return values if values and len(values) == len(known) else None


def image_from_layer(layer: Any, axes: str) -> Image:
    """Return the image that a layer shows; nothing is copied.

    Parameters
    ----------
    layer : napari.layers.Image
        Full resolution is taken of a multiscale layer.
    axes : str
        Axes of the data, letters of ``tczyx``; of an RGB layer the last one is ``c``.

    Raises
    ------
    ImageError
        If the layer is no image layer, or its data cannot be segmented.
    """
    if not is_image_layer(layer):
        raise ImageError(
            f"layer {getattr(layer, 'name', layer)!r} is a {type(layer).__name__} layer, only Image layers can be "
            "segmented; choose the image it belongs to, or convert it with Convert to Image"
        )
    facts = facts_of(layer)
    spacing = spacing_of_axes(facts, axes)
    return Image(
        full_resolution(layer),
        axes,
        spacing=spacing,
        units="micrometer" if spacing else "pixel",
        name=layer.name,
        is_rgb=bool(layer.rgb),
    )


def labels_axes(axes: str, *, rgb: bool = False) -> str:
    """Return the axes of the labels layer of an image with these axes.

    The channel axis stays, as one voxel, unless it leads or holds the colours of an RGB layer.
    """
    if rgb:
        return axes.removesuffix("c")
    return axes.removeprefix("c")


def labels_for_layer(labels: npt.NDArray[Any], given: str, wanted: str) -> npt.NDArray[Any]:
    """Return labels with axes ``given`` as the data of a layer with axes ``wanted``; a view."""
    ordered = labels.transpose([given.index(axis) for axis in wanted if axis != "c"])
    return np.expand_dims(ordered, wanted.index("c")) if "c" in wanted else ordered


def labels_placement(layer: napari.layers.Image, axes: str, offset: Mapping[str, int] | None = None) -> dict[str, Any]:
    """Return where the labels of an image layer lie, as arguments of a Labels layer.

    Parameters
    ----------
    layer : napari.layers.Image
        Where it is now.
    axes : str
        Axes of its data.
    offset : mapping of str to int, optional
        First voxel of the labels along each axis, where they are of a part of the image.

    Returns
    -------
    dict
        scale, translate, rotate, shear, affine, units and axis_labels, for a layer with the
        axes :func:`labels_axes`.
    """
    own = axes.removesuffix("c") if layer.rgb else axes
    scale = np.array(layer.scale, dtype=float)
    translate = np.array(layer.translate, dtype=float)
    rotate, shear = np.asarray(layer.rotate, dtype=float), shear_matrix(layer.shear, layer.ndim)
    first = np.array([(offset or {}).get(axis, 0) for axis in own], dtype=float)
    translate += rotate @ shear @ (scale * first)
    wanted = labels_axes(axes, rgb=bool(layer.rgb))
    if "c" in wanted:
        # One voxel stands for all channels: as long as they are together, and at their middle.
        channel = own.index("c")
        count = int(full_resolution(layer).shape[channel])
        translate += (rotate @ shear @ np.diag(scale))[:, channel] * (count - 1) / 2
        scale[channel] *= count
    kept = [own.index(axis) for axis in wanted]
    affine = np.asarray(layer.affine, dtype=float)
    with_origin = [*kept, layer.ndim]
    return {
        "scale": scale[kept],
        "translate": translate[kept],
        "rotate": rotate[np.ix_(kept, kept)],
        "shear": shear[np.ix_(kept, kept)],
        "affine": affine[np.ix_(with_origin, with_origin)],
        "units": tuple(layer.units[i] for i in kept),
        "axis_labels": tuple(layer.axis_labels[i] for i in kept),
    }


def shear_matrix(shear: npt.ArrayLike, ndim: int) -> npt.NDArray[np.float64]:
    """Return the shear of a layer, which is a matrix or its upper triangle, as a matrix."""
    given = np.asarray(shear, dtype=float)
    if given.ndim == 2:
        return given
    matrix = np.eye(ndim)
    matrix[np.triu_indices(ndim, k=1)] = given
    return matrix
