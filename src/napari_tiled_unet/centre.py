"""Labels to the centre map, which :mod:`napari_tiled_unet.labelling` makes objects of again; 2D and 3D alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_tiled_unet.errors import ImageError, OptionsError
from napari_tiled_unet.labelling import check_labels

Labels = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]


def centre_map(
    labels: Labels, spacing: Sequence[float] | None = None, outside: Mask | None = None
) -> npt.NDArray[np.float32]:
    """Return how central each voxel is in its object.

    Parameters
    ----------
    labels : numpy.ndarray
        ``([z,] y, x)`` integer labels, 0 is background. Objects need not be connected.
    spacing : sequence of float, optional
        Voxel size per axis; distances are measured in it.
    outside : numpy.ndarray, optional
        Voxels past the image, bool of the same shape: objects that the image cuts have no border there.

    Returns
    -------
    numpy.ndarray
        float32 of the same shape, ``d_border / (d_border + d_centre)``, 0 in the background.
        ``d_border`` is the distance to the nearest voxel of something else; the border of the
        image is no border of the objects that it cuts. ``d_centre`` is the distance to the
        centroid, or to the object's voxel nearest to it where the centroid lies outside
        the object. An object of one voxel has the value 1.

    Raises
    ------
    ImageError
        If labels are not integers in two or three dimensions, or ``outside`` has another shape.
    OptionsError
        If the spacing is not one positive number per axis.
    """
    import edt
    import fastremap

    check_labels(labels)
    if outside is not None and outside.shape != labels.shape:
        raise ImageError(f"outside has shape {outside.shape}, the labels have {labels.shape}; give one of their shape")
    size = _checked_spacing(spacing, labels.ndim)
    out = np.zeros(labels.shape, np.float32)
    compact, _ = fastremap.renumber(np.ascontiguousarray(labels, labels.dtype.newbyteorder("=")), in_place=False)
    flat = np.flatnonzero(compact)
    if not flat.size:
        return out
    number = compact.ravel()[flat].astype(np.intp)
    continued = compact if outside is None or not outside.any() else _continued(compact, outside, size)
    border = edt.edt(continued, anisotropy=size, black_border=False).ravel()[flat]
    # An object that fills the image has no border: its distance is infinite.
    np.minimum(border, np.float32(sum(n * s for n, s in zip(labels.shape, size, strict=True))), out=border)
    positions = [p * np.float32(s) for p, s in zip(np.unravel_index(flat, labels.shape), size, strict=True)]
    centres = _centres(compact, number, positions, size)
    squared = [(p - c[number]) ** 2 for p, c in zip(positions, centres, strict=True)]
    out.ravel()[flat] = border / (border + np.sqrt(np.sum(squared, axis=0)))
    return out


def _continued(compact: Labels, outside: Mask, size: tuple[float, ...]) -> Labels:
    """Return labels with the nearest one wherever there is no image."""
    from scipy.ndimage import distance_transform_edt

    if outside.all():
        return compact
    nearest = distance_transform_edt(outside, sampling=size, return_distances=False, return_indices=True)
    return np.ascontiguousarray(compact[tuple(nearest)])


def _centres(
    compact: Labels, number: npt.NDArray[np.intp], positions: list[npt.NDArray[np.float32]], size: tuple[float, ...]
) -> list[npt.NDArray[np.float32]]:
    """Return the coordinates of the objects' centres, one array per axis, indexed by number."""
    count = np.maximum(np.bincount(number), 1)
    centres = [(np.bincount(number, weights=p) / count).astype(np.float32) for p in positions]
    nearest_voxel = tuple(np.rint(c / np.float32(s)).astype(np.intp) for c, s in zip(centres, size, strict=True))
    outside = compact[nearest_voxel] != np.arange(count.size)
    outside[0] = False
    if not outside.any():
        return centres
    bent = np.flatnonzero(outside[number])
    which = number[bent]
    squared = [(p[bent] - c[which]) ** 2 for p, c in zip(positions, centres, strict=True)]
    order = np.lexsort((np.sum(squared, axis=0), which))
    first = np.flatnonzero(np.diff(which[order], prepend=0))
    for centre, position in zip(centres, positions, strict=True):
        centre[which[order[first]]] = position[bent[order[first]]]
    return centres


def _checked_spacing(spacing: Sequence[float] | None, ndim: int) -> tuple[float, ...]:
    size = tuple(float(s) for s in spacing) if spacing is not None else (1.0,) * ndim
    if len(size) != ndim or not all(0 < s < np.inf for s in size):
        raise OptionsError(
            f"spacing={spacing} must be {ndim} positive numbers, the voxel size of each axis of the labels"
        )
    return size
