"""Teach it your cells: paint a few nuclei of a real image, train for seconds, segment the rest."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tifffile

from napari_tiled_unet import evaluate, segment, train
from napari_tiled_unet.demo import read_sample

TRUTH = Path(__file__).parents[1] / "data" / "nuclei_2d_labels.tif"


def test_a_few_painted_nuclei_teach_it_the_rest() -> None:
    image = np.asarray(read_sample().data)
    truth = tifffile.imread(TRUTH).astype(np.int64)
    left, right = np.s_[:, : image.shape[1] // 2], np.s_[:, image.shape[1] // 2 :]
    # Every second nucleus of the left half is outlined, and the background there is painted.
    painted = np.zeros_like(truth)
    painted[left][truth[left] == 0] = 1
    for number in np.unique(truth[left])[1::2]:
        painted[truth == number] = number + 1
    painted[right] = 0
    options = {"sparse": True, "width": 8, "depth": 3, "patch": 64, "batch": 4, "augmentation": "light"}
    untrained, taught = (train(image, painted, steps=n, validate_every=n, **options) for n in (1, 100))
    before, after = (evaluate(segment(image[right], m), truth[right]).scores["AP@0.5"] for m in (untrained, taught))
    assert after > before + 0.4
