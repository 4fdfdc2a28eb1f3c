"""What a run writes down about itself, so that it can be done again: image, model, options, what ran."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari_tiled_unet.errors import ModelError
from napari_tiled_unet.io import SOFTWARE
from napari_tiled_unet.model_files import find_model

if TYPE_CHECKING:
    from napari_tiled_unet.framewise import Framewise
    from napari_tiled_unet.image import Image
    from napari_tiled_unet.model import Model


def called(model: Model) -> str:
    """Return what :func:`napari_tiled_unet.load_model` finds a model by.

    The name of its file where that is what the name stands for, else its path; of a model that was
    made in memory the name in its spec.
    """
    if model.path is None:
        return model.spec.name
    try:
        found = find_model(model.path.stem).absolute()
    except ModelError:
        found = None
    return model.path.stem if found == model.path else str(model.path)


def provenance(source: Image, framewise: Framewise, **measured: Any) -> dict[str, Any]:
    """Return what is written down about a run, as plain data.

    Parameters
    ----------
    source : Image
        What was segmented.
    framewise : Framewise
        How; its ``options`` name the model as :func:`called` does.
    **measured
        What else is known at the end.
    """
    from napari_tiled_unet import __version__

    model, seam_error = framewise.model, framewise.seam_error
    if framewise.tiles_empty:
        measured["tiles_empty"] = framewise.tiles_empty
    return {
        "software": SOFTWARE,
        "version": __version__,
        "image": source.name,
        "image_shape": list(source.shape),
        "image_axes": source.axes,
        "model": model.spec.name,
        "model_file": None if model.path is None else str(model.path),
        "model_sha256": model.sha256,
        "model_package_version": model.spec.package_version,
        "options": framewise.options.model_dump(exclude_defaults=True),
        **framewise.choice.numbers(),
        "seam_error": None if seam_error is None else seam_error.to_dict(),
        **measured,
    }
