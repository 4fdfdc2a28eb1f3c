"""The first run: the bundled image of nuclei to labels and a picture, offline."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from napari_tiled_unet.image import Image


def sample_path(name: str = "nuclei_2d") -> Path:
    """Return the file of a bundled sample image."""
    return Path(__file__).parent / "samples" / f"{name}.tif"


def read_sample(name: str = "nuclei_2d") -> Image:
    """Return a bundled sample image."""
    from napari_tiled_unet.io import read_image

    return read_image(sample_path(name))


def overlay(image: npt.NDArray[Any], labels: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Return image and labelled image side by side, RGB.

    Parameters
    ----------
    image : numpy.ndarray
        ``(y, x)`` intensities.
    labels : numpy.ndarray
        ``(y, x)`` labels; each object gets a colour and an outline.
    """
    from skimage.color import label2rgb
    from skimage.exposure import rescale_intensity
    from skimage.segmentation import find_boundaries

    low, high = np.percentile(image, (1, 99.8))
    # A gamma of 0.5 shows dim nuclei beside bright ones.
    grey = np.sqrt(rescale_intensity(image.astype(float), in_range=(low, max(high, low + 1)), out_range=(0.0, 1.0)))
    coloured = label2rgb(labels, grey, alpha=0.35, bg_label=0)
    coloured[find_boundaries(labels, mode="inner")] = (1.0, 0.9, 0.2)
    plain = np.repeat(grey[..., None], 3, axis=-1)
    return (np.concatenate([plain, coloured], axis=1) * 255).astype(np.uint8)


def run_demo(out: Path) -> None:
    """Segment the sample and write ``labels.ome.tif`` and ``overlay.png`` into a folder.

    Raises
    ------
    FileError
        If the folder cannot be written.
    """
    from napari_tiled_unet.io import require_writable, write_labels, write_png
    from napari_tiled_unet.segmentation import segment

    require_writable(out)
    image = read_sample()
    started = time.perf_counter()
    labels = segment(image)
    seconds = time.perf_counter() - started
    write_labels(out / "labels.ome.tif", labels, "yx", image.spacing, image.units, overwrite=True)
    write_png(out / "overlay.png", overlay(np.asarray(image.data), labels))
    height, width = labels.shape
    print(f"{int(labels.max())} nuclei in {seconds:.1f} s ({width} x {height} pixels, model loading included)")
    print(f"labels:  {(out / 'labels.ome.tif').resolve()}")
    print(f"picture: {(out / 'overlay.png').resolve()}")
