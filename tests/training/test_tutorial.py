"""Teach it your cells: the page's script paints some nuclei of a real image, trains for seconds, segments the rest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from napari_tiled_unet import write_labels
from napari_tiled_unet.demo import read_sample
from tests.test_docs import blocks

TRUTH = Path(__file__).parents[1] / "data" / "nuclei_2d_labels.tif"


def test_a_few_painted_nuclei_teach_it_the_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "truth").mkdir()
    for name, data in (("field", np.asarray(read_sample().data)), ("truth/field", tifffile.imread(TRUTH))):
        write_labels(tmp_path / f"{name}.ome.tif", data, "yx", (0.5, 0.5))
    (script,) = blocks("docs/teach.md", "python")
    names: dict[str, Any] = {}
    exec(compile(script, "docs/teach.md", "exec"), names)
    assert names["labels"].max() > 0
    assert names["after"] > names["before"] + 0.4
