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
SHOWN = "tiled_unet_shown"
"""Key in the metadata of layers that are for looking at, and never learned from; what they are."""
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
        Shape of its data at the resolution that was asked for, colours included.
    rgb : bool
        Whether the last axis holds colours.
    named_axes : str or None
        Axes of the data, letters of ``tczyx``, if the layer names them.
    spacing : tuple of float or None
        Micrometre per voxel of each axis of the layer; None where its unit is no length.
    levels : tuple of tuple of int
        Shapes of the resolutions of a multiscale layer, the full one first; else one.
    """

    name: str
    shape: tuple[int, ...]
    rgb: bool = False
    named_axes: str | None = None
    spacing: tuple[float | None, ...] = ()
    levels: tuple[tuple[int, ...], ...] = ()


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


def facts_of(layer: napari.layers.Image, level: int = 0) -> LayerFacts:
    """Return what the form must know of an image layer at a resolution; its data are not read."""
    levels = tuple(shape_of(layer, k) for k in range(len(layer.data) if layer.multiscale else 1))
    factors = level_factors(layer, level)
    return LayerFacts(
        name=layer.name,
        shape=levels[level],
        rgb=bool(layer.rgb),
        named_axes=named_axes(layer),
        spacing=tuple(s and s * f for s, f in zip(axis_spacing(layer), factors, strict=True)),
        levels=levels,
    )


def data_of(layer: napari.layers.Image | napari.layers.Labels, level: int = 0) -> Any:
    """Return the data of a layer; of a multiscale layer those of a resolution, by default the full one.

    Raises
    ------
    ImageError
        If the layer does not have it.
    """
    count = len(layer.data) if layer.multiscale else 1
    if level >= count:
        raise ImageError(
            f"level={level}: layer {layer.name!r} has {count}, 0 is the full resolution; take one of those"
        )
    return layer.data[level] if layer.multiscale else layer.data


def shape_of(layer: napari.layers.Image | napari.layers.Labels, level: int = 0) -> tuple[int, ...]:
    """Return the shape of :func:`data_of`."""
    return tuple(int(n) for n in data_of(layer, level).shape)


def level_factors(layer: napari.layers.Image, level: int) -> npt.NDArray[np.float64]:
    """Return how many voxels of the full resolution one of another is wide, per axis of the layer."""
    return np.divide(shape_of(layer), shape_of(layer, level))[: layer.ndim]


def named_axes(layer: napari.layers.Image | napari.layers.Labels) -> str | None:
    """Return the axes of a layer's data if it names them, by axis labels or xarray's dims.

    Labels are letters of ``tczyx`` or the words time, channel(s), in any case. Anything
    else, such as napari's own ``-2`` and ``-1``, names nothing.
    """
    rgb = bool(getattr(layer, "rgb", False))
    ndim = layer.ndim + rgb
    candidates = [(*layer.axis_labels, *("c" if rgb else ""))]
    candidates.append(tuple(str(d) for d in getattr(data_of(layer), "dims", ())))
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


def image_from_layer(layer: Any, axes: str, level: int = 0) -> Image:
    """Return the image that a layer shows; nothing is copied.

    Parameters
    ----------
    layer : napari.layers.Image
        The layer.
    axes : str
        Axes of the data, letters of ``tczyx``; of an RGB layer the last one is ``c``.
    level : int
        Resolution of a multiscale layer; 0 is the full one.

    Raises
    ------
    ImageError
        If the layer is no image layer, its data cannot be segmented, or they have another number of axes.
    """
    if not is_image_layer(layer):
        raise ImageError(
            f"layer {getattr(layer, 'name', layer)!r} is a {type(layer).__name__} layer, only Image layers can be "
            "segmented; choose the image it belongs to, or convert it with Convert to Image"
        )
    require_axes(layer, axes, level)
    data = data_of(layer, level)
    spacing = spacing_of_axes(facts_of(layer, level), axes)
    return Image(
        data,
        axes,
        spacing=spacing,
        units="micrometer" if spacing else "pixel",
        name=layer.name,
        is_rgb=bool(layer.rgb),
        level=level,
    )


def require_axes(layer: napari.layers.Image, axes: str, level: int = 0) -> None:
    """Refuse axes that are not as many as the data of a layer have, which may be other data than before.

    Raises
    ------
    ImageError
        If they are not.
    """
    shape = shape_of(layer, level)
    if len(shape) != len(axes):
        raise ImageError(
            f"axes={axes!r}: the data of layer {layer.name!r} have {len(shape)} axes, shape {shape}; "
            "name one letter per axis, or choose anew what they are"
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


def labels_placement(
    layer: napari.layers.Image, axes: str, offset: Mapping[str, int] | None = None, level: int = 0
) -> dict[str, Any]:
    """Return where the labels of an image layer lie, as arguments of a Labels layer.

    Parameters
    ----------
    layer : napari.layers.Image
        Where it is now.
    axes : str
        Axes of its data.
    offset : mapping of str to int, optional
        First voxel of the labels along each axis, where they are of a part of the image.
    level : int
        Resolution of a multiscale layer on whose grid they are. A voxel of it lies at the
        middle of those that it stands for.

    Returns
    -------
    dict
        scale, translate, rotate, shear, affine, units and axis_labels, for a layer with the
        axes :func:`labels_axes`.
    """
    own = axes.removesuffix("c") if layer.rgb else axes
    factors = level_factors(layer, level)
    scale = np.array(layer.scale, dtype=float) * factors
    translate = np.array(layer.translate, dtype=float)
    rotate, shear = np.asarray(layer.rotate, dtype=float), shear_matrix(layer.shear, layer.ndim)
    first = np.array([(offset or {}).get(axis, 0) for axis in own], dtype=float) + (factors - 1) / 2 / factors
    translate += rotate @ shear @ (scale * first)
    wanted = labels_axes(axes, rgb=bool(layer.rgb))
    if "c" in wanted:
        # One voxel stands for all channels: as long as they are together, and at their middle.
        channel = own.index("c")
        count = shape_of(layer)[channel]
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
