"""Which part of a layer: what the viewer shows, or what was drawn, as a region; no Qt.

A box is found by taking its corners from the world into the layer's voxels, through all of
the layer's transforms. Under a rotation or a shear it is the smallest upright box around
them: the network works on upright boxes.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_tiled_unet.errors import OptionsError
from napari_tiled_unet.region import Region
from napari_tiled_unet.viewer.layers import level_factors, require_axes, shape_of

if TYPE_CHECKING:
    import napari.layers
    from napari.components import ViewerModel

Points = npt.NDArray[np.float64]

WHOLE, VIEW, FRAME, RANGE = "whole layer", "current view", "current frame", "range ..."
"""What a run can be on, beside the rectangles of a Shapes layer."""
# A point this close to a voxel's edge lies on it; transforms are not exact.
_EDGE = 1e-6


@dataclass(frozen=True)
class View:
    """What the viewer shows.

    Attributes
    ----------
    point : tuple of float
        Where its sliders stand, in the world, along all of its axes.
    displayed : tuple of int
        The axes on the screen.
    corners : numpy.ndarray or None
        ``(4, n)`` corners of the canvas in the world; None in 3D, where a view is no box.
    units : tuple of pint.Unit or None
        Of the axes of the world; None where layers lie in it as if all had the same.
    """

    point: tuple[float, ...]
    displayed: tuple[int, ...]
    corners: Points | None = None
    units: tuple[Any, ...] | None = None


def view_of(viewer: ViewerModel) -> View:
    """Return what a viewer shows now."""
    dims, camera = viewer.dims, viewer.scene.camera
    point = tuple(float(p) for p in dims.point)
    displayed, units = tuple(dims.displayed), dims.units
    if dims.ndisplay != 2:
        return View(point, displayed, units=units)
    half = np.array(viewer.canvas.size, dtype=float) / camera.zoom / 2
    corners = np.tile(np.array(point), (4, 1))
    for corner, signs in zip(corners, itertools.product((-1, 1), repeat=2), strict=True):
        corner[list(displayed)] = np.array(camera.center[-2:]) + half * signs
    return View(point, displayed, corners, units)


def region_text(
    run_on: Any, layer: napari.layers.Image, axes: str, viewer: ViewerModel, spatial: str, typed: str, level: int = 0
) -> str | None:
    """Return what is to be segmented as the option ``region``; None for all of the layer.

    Parameters
    ----------
    run_on : str or Shapes layer
        :data:`WHOLE`, :data:`VIEW`, :data:`FRAME`, :data:`RANGE`, or the layer in which it was drawn.
    layer, axes, spatial, level
        As for :func:`region_of_view`.
    viewer : ViewerModel
        The viewer.
    typed : str
        The range that the user wrote.

    Raises
    ------
    OptionsError
        If nothing would be segmented.
    ImageError
        If the layer has other axes.
    """
    if run_on == WHOLE:
        return None
    if run_on == RANGE:
        return typed.strip() or None
    if run_on == VIEW:
        region = region_of_view(layer, axes, view_of(viewer), spatial, level)
    elif run_on == FRAME:
        region = region_of_frame(layer, axes, view_of(viewer), spatial, level)
    else:
        region = region_of_shapes(layer, axes, run_on, spatial, level)
    return region.text or None


def region_of_view(layer: napari.layers.Image, axes: str, view: View, spatial: str, level: int = 0) -> Region:
    """Return the part of a layer that is on the screen.

    Parameters
    ----------
    layer : napari.layers.Image
        The image.
    axes : str
        Axes of its data.
    view : View
        What the viewer shows.
    spatial : str
        Axes of the model: where they are not on the screen they stay whole, for the network needs them.
    level : int
        Resolution of a multiscale layer in whose voxels the region is.

    Raises
    ------
    OptionsError
        If nothing of the layer is on the screen.
    ImageError
        If the layer has other axes.
    """
    shown = _shown(layer, view)
    wanted: dict[str, tuple[float, float]] = {}
    if view.corners is not None:
        wanted = {a: box for i, (a, box) in _boxes(layer, axes, view.corners, view.units, level).items() if i in shown}
    wanted |= _current(layer, axes, view, spatial, level)
    return _clipped(layer, axes, wanted, level, "the view shows nothing of it: bring it into view")


def region_of_frame(layer: napari.layers.Image, axes: str, view: View, spatial: str, level: int = 0) -> Region:
    """Return the frame, or plane, at which the sliders stand; as :func:`region_of_view`, without its edges."""
    return _clipped(
        layer, axes, _current(layer, axes, view, spatial, level), level, "the sliders stand outside of it: move them"
    )


def region_of_shapes(
    layer: napari.layers.Image, axes: str, shapes: napari.layers.Shapes, spatial: str, level: int = 0
) -> Region:
    """Return the extent of shapes, of those that are selected or else of all.

    Axes along which they are flat, other than those of the screen, stay whole if they are the model's.

    Raises
    ------
    OptionsError
        If there is no shape, or none lies in the layer.
    ImageError
        If the layer has other axes.
    """
    drawn = [shapes.data[i] for i in sorted(shapes.selected_data)] or list(shapes.data)
    if not drawn:
        raise OptionsError(f"layer {shapes.name!r} has no shape: draw a rectangle around what is to be segmented")
    points = np.array([shapes.data_to_world(vertex) for vertex in np.concatenate(drawn)])
    known = range(layer.ndim - min(layer.ndim, shapes.ndim), layer.ndim)
    found = _boxes(layer, axes, points, tuple(shapes.units), level)
    wanted = {
        a: (low, high)
        for i, (a, (low, high)) in found.items()
        if i in known and (a not in spatial or a in "yx" or high - low > _EDGE)
    }
    return _clipped(layer, axes, wanted, level, f"the shapes of {shapes.name!r} lie outside of it: draw on the image")


def _own_axes(layer: napari.layers.Image, axes: str) -> str:
    return axes.removesuffix("c") if layer.rgb else axes


def _shown(layer: napari.layers.Image, view: View) -> set[int]:
    """Return the axes of the layer that are on the screen; layers are aligned by their last axes."""
    return {i - (len(view.point) - layer.ndim) for i in view.displayed}


def _boxes(
    layer: napari.layers.Image, axes: str, points: Points, units: tuple[Any, ...] | None, level: int
) -> dict[int, tuple[str, tuple[float, float]]]:
    """Return, by axis of the layer, its letter and the least and most of world points along it, in voxels."""
    require_axes(layer, axes, level)
    own = points if units is None else in_units(points, units, tuple(layer.units))
    # From edges, not centres: the first voxels of all resolutions begin at the same place.
    voxels = (np.array([layer.world_to_data(point) for point in own]) + 0.5) / level_factors(layer, level) - 0.5
    letters = enumerate(_own_axes(layer, axes))
    return {i: (a, (voxels[:, i].min(), voxels[:, i].max())) for i, a in letters if a != "c"}


def in_units(points: Points, given: tuple[Any, ...], wanted: tuple[Any, ...]) -> Points:
    """Return world points ``(n, ndim)`` of one set of units in another; axes are aligned by the last.

    Parameters
    ----------
    points : numpy.ndarray
        Their last axes are those of ``given``.
    given, wanted : tuple of pint.Unit
        Of the axes. What is no unit of the same kind is left as it is.
    """
    own = points.copy()
    for back in range(1, 1 + min(len(wanted), len(given), points.shape[1])):
        unit, other = given[-back], wanted[-back]
        if unit != other and unit.dimensionality == other.dimensionality:
            own[:, -back] *= (1.0 * unit).to(other).magnitude
    return own


def _current(
    layer: napari.layers.Image, axes: str, view: View, spatial: str, level: int
) -> dict[str, tuple[float, float]]:
    """Return where the sliders stand, along axes that are neither on the screen nor the model's."""
    shown, found = _shown(layer, view), _boxes(layer, axes, np.array([view.point]), view.units, level)
    return {a: box for i, (a, box) in found.items() if i not in shown and a not in spatial}


def _clipped(layer: Any, axes: str, wanted: dict[str, tuple[float, float]], level: int, remedy: str) -> Region:
    """Return the voxels that a box touches; a voxel reaches half a voxel around its index."""
    sizes = dict(zip(axes, shape_of(layer, level), strict=True))
    slices = {}
    for axis, (low, high) in wanted.items():
        start = max(0, math.floor(low + 0.5 + _EDGE))
        stop = min(sizes[axis], max(math.ceil(high + 0.5 - _EDGE), math.floor(low + 0.5 + _EDGE) + 1))
        if stop <= start:
            raise OptionsError(f"nothing of {layer.name!r} would be segmented, {remedy}")
        slices[axis] = (start, stop)
    return Region.of_slices(slices, sizes)
