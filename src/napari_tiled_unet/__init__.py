"""Segment microscopy images of any size with a 2D or 3D U-Net, tile by tile.

The public names are loaded when they are first used: importing this package imports
neither torch nor napari.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari_tiled_unet.errors import (
        FileError,
        ImageError,
        MemoryBudgetError,
        ModelError,
        OptionsError,
        TiledUnetError,
    )
    from napari_tiled_unet.evaluation import evaluate
    from napari_tiled_unet.image import Image
    from napari_tiled_unet.io import Place, read_image, write_labels
    from napari_tiled_unet.model_files import list_models, load_model
    from napari_tiled_unet.options import SegmentOptions
    from napari_tiled_unet.segmentation import iter_segment, segment
    from napari_tiled_unet.train_options import TrainOptions
    from napari_tiled_unet.training import iter_train, train

__version__ = "0.1.0"

_HOMES = {
    "FileError": "errors",
    "Image": "image",
    "ImageError": "errors",
    "MemoryBudgetError": "errors",
    "ModelError": "errors",
    "OptionsError": "errors",
    "Place": "io",
    "SegmentOptions": "options",
    "TiledUnetError": "errors",
    "TrainOptions": "train_options",
    "evaluate": "evaluation",
    "iter_segment": "segmentation",
    "iter_train": "training",
    "list_models": "model_files",
    "load_model": "model_files",
    "read_image": "io",
    "segment": "segmentation",
    "train": "training",
    "write_labels": "io",
}

__all__ = [
    "FileError",
    "Image",
    "ImageError",
    "MemoryBudgetError",
    "ModelError",
    "OptionsError",
    "Place",
    "SegmentOptions",
    "TiledUnetError",
    "TrainOptions",
    "__version__",
    "evaluate",
    "iter_segment",
    "iter_train",
    "list_models",
    "load_model",
    "read_image",
    "segment",
    "train",
    "write_labels",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
