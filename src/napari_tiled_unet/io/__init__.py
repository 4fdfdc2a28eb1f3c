"""Readers and writers, by suffix.

=========================== =======================================================
read                        TIFF (OME, ImageJ, LSM, plain), PNG, JPEG, BMP, NPY, OME-Zarr, Zarr
written                     labels and maps as OME-TIFF, pictures as PNG
=========================== =======================================================

Spacing is in micrometres. What is written is written beside and renamed, so that no half
file is ever left under the final name.
"""

from __future__ import annotations

from napari_tiled_unet.io.identity import SOFTWARE, identity_of, image_of, is_ours, result_of
from napari_tiled_unet.io.ome import Place
from napari_tiled_unet.io.read import image_files, is_result, read_image, read_labels
from napari_tiled_unet.io.tiff import read_description
from napari_tiled_unet.io.write import (
    AsOne,
    require_writable,
    smallest_label_dtype,
    write_labels,
    write_maps,
    write_png,
)

__all__ = [
    "SOFTWARE",
    "AsOne",
    "Place",
    "identity_of",
    "image_files",
    "image_of",
    "is_ours",
    "is_result",
    "read_description",
    "read_image",
    "read_labels",
    "require_writable",
    "result_of",
    "smallest_label_dtype",
    "write_labels",
    "write_maps",
    "write_png",
]
