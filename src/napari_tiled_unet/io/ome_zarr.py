"""Reading OME-Zarr (NGFF 0.4 in Zarr 2, 0.5 in Zarr 3) and bare Zarr arrays; never into memory.

References
----------
.. [1] OME-NGFF specification, https://ngff.openmicroscopy.org/0.5/
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_tiled_unet.axes import AXES
from napari_tiled_unet.errors import FileError
from napari_tiled_unet.image import Image, image_from_array
from napari_tiled_unet.io.metadata import Calibration, calibrated, check_level, known_axes

if TYPE_CHECKING:
    import zarr

_MARKS = ("zarr.json", ".zgroup", ".zarray")


def is_zarr(path: Path) -> bool:
    """Return whether a path is the folder of a Zarr group or array."""
    return path.is_dir() and (path.suffix.lower() == ".zarr" or any((path / mark).exists() for mark in _MARKS))


def read_zarr(path: Path, axes: str | None, level: int = 0) -> Image:
    """Open one resolution of an OME-Zarr image, or a Zarr array; as :func:`read_image`."""
    import zarr

    node = zarr.open(path, mode="r")
    if isinstance(node, zarr.Array):
        check_level(level, 1, path.name)
        return image_from_array(node, axes or _dimension_names(node), name=path.name)
    attributes = _ome_attributes(node)
    notes: tuple[str, ...] = ()
    if "multiscales" not in attributes and "bioformats2raw.layout" in attributes and "0" in node:
        first = node["0"]
        if isinstance(first, zarr.Group):
            notes = (f"{path.name}: the first image of the file is taken",) if "1" in node else ()
            node, attributes = first, _ome_attributes(first)
    if "plate" in attributes or "well" in attributes:
        raise FileError(f"{str(path)!r} is a plate or a well, not an image; give the path of a field in it, as A/1/0")
    multiscales = attributes.get("multiscales")
    if not multiscales:
        raise FileError(f"{str(path)!r} is a Zarr group without OME 'multiscales'; give the path of an array in it")
    check_level(level, len(multiscales[0]["datasets"]), path.name)
    return replace(_resolution(node, multiscales[0], level, path.name, axes, notes), level=level)


def _ome_attributes(group: zarr.Group) -> Mapping[str, Any]:
    """Return the OME metadata of a group: under ``ome`` since version 0.5, at the top before."""
    attributes: Mapping[str, Any] = group.attrs.asdict()
    return attributes.get("ome") or attributes


def _dimension_names(array: zarr.Array[Any]) -> str | None:
    """Return the axes that a Zarr 3 array names itself, if they are ours."""
    names = [str(n).lower() for n in getattr(array.metadata, "dimension_names", None) or ()]
    return "".join(names) if names and all(len(n) == 1 and n in AXES for n in names) else None


def _resolution(
    group: zarr.Group, multiscale: Mapping[str, Any], level: int, name: str, axes: str | None, notes: tuple[str, ...]
) -> Image:
    # The specification orders the levels from the largest to the smallest.
    dataset = multiscale["datasets"][level]
    data: Any = group[dataset["path"]]
    # Names alone until version 0.3; none until 0.2, where the axes were always these.
    named = [a if isinstance(a, Mapping) else {"name": a} for a in multiscale.get("axes") or AXES]
    found = "".join(_letter(a) for a in named)
    if len(found) != len(data.shape):
        raise FileError(
            f"{name!r} is damaged: its metadata name {len(found)} axes, the array has shape {data.shape}; get it again"
        )
    image = Image(data, axes or known_axes(found, tuple(data.shape), name), name=name, notes=notes)
    transforms = [*dataset.get("coordinateTransformations", ()), *multiscale.get("coordinateTransformations", ())]
    scale, shift = _composed(transforms, len(found))
    units = [axis.get("unit") for axis in named]
    calibration = Calibration.of(
        [entry for entry in zip(found, scale, units, strict=True) if entry[0] in "zyx"],
        origin=[entry for entry in zip(found, shift or (), units, strict=False) if entry[0] in "zyx"],
        time_step=(scale[found.index("t")], units[found.index("t")]) if "t" in found else (None, ""),
    )
    return calibrated(image, found, calibration)


def _letter(axis: Mapping[str, Any]) -> str:
    """Return the letter of an axis; a question mark if it is none of ours."""
    name = str(axis["name"]).lower()
    if name in tuple(AXES):
        return name
    return {"time": "t", "channel": "c"}.get(str(axis.get("type")), "?")


def _composed(transforms: Iterable[Mapping[str, Any]], ndim: int) -> tuple[list[float], list[float] | None]:
    """Return scale and translation per axis of transformations one after the other; None where none translates."""
    scale, shift, moved = [1.0] * ndim, [0.0] * ndim, False
    for transform in transforms:
        kind = transform.get("type")
        values = transform.get(str(kind))
        if values is None:
            continue
        numbers = [float(values[axis]) for axis in range(ndim)]
        if kind == "scale":
            scale = [s * n for s, n in zip(scale, numbers, strict=True)]
            shift = [s * n for s, n in zip(shift, numbers, strict=True)]
        elif kind == "translation":
            shift, moved = [s + n for s, n in zip(shift, numbers, strict=True)], True
    return scale, shift if moved else None
