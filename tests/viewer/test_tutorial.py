"""docs/tutorial.md, followed step by step in a real viewer with the bundled model."""

from __future__ import annotations

import csv
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from napari_tiled_unet.demo import read_sample
from napari_tiled_unet.io import read_image
from napari_tiled_unet.recipe import read_recipe
from tests.viewer.tutorial import Tutorial

if TYPE_CHECKING:
    from napari.viewer import Viewer

pytestmark = pytest.mark.filterwarnings("ignore:Conversion from CIE-LAB:UserWarning")  # napari's label colours

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "tutorial.md"


def test_the_page_can_be_followed(viewer: Viewer, qtbot: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from qtpy.QtWidgets import QFileDialog

    import napari_tiled_unet

    sample = Path(napari_tiled_unet.__file__).parent / "samples" / "nuclei_2d.tif"
    (tmp_path / "images").mkdir()
    shutil.copy(sample, tmp_path / "images" / "one.tif")
    chosen = {"Export features": "nuclei.csv", "Save recipe": "recipe.yaml", "Load recipe": "recipe.yaml"}
    answer = lambda _parent, title, *_: (str(tmp_path / chosen[title]), "")  # noqa: E731
    monkeypatch.setattr(QFileDialog, "getSaveFileName", answer)
    monkeypatch.setattr(QFileDialog, "getOpenFileName", answer)

    tutorial = Tutorial(viewer, tmp_path, lambda holds: qtbot.waitUntil(holds, timeout=120_000))
    text = PAGE.read_text(encoding="utf-8")
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == list(tutorial.steps)
    for picture in re.findall(r"\]\((images/[^)]*)\)", text):
        assert (PAGE.parent / picture).is_file(), picture

    for title, step in tutorial.steps.items():
        step()
        if title.startswith("3"):
            found = len(np.unique(tutorial.labels.data)) - 1
            assert re.match(rf"{found} labels in ", tutorial.widget.status)
        if title.startswith("4"):
            assert np.bincount(tutorial.labels.data.ravel())[1:].min() >= 60
            assert tutorial.widget.control("min_size").value == "60"

    kept = len(np.unique(tutorial.labels.data)) - 1
    assert 20 < kept <= found
    with (tmp_path / "nuclei.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert len(table) == len(tutorial.labels.features) == kept
    assert min(float(row[next(n for n in row if n.startswith("area_"))]) for row in table) > 0
    assert read_recipe(tmp_path / "recipe.yaml").min_size == 60
    assert [row.state for row in tutorial.batch.state.rows] == ["done"]
    of_folder = np.asarray(read_image(tmp_path / "labels" / "one_labels.ome.tif").data)
    assert of_folder.shape == read_sample().shape
    assert len(np.unique(of_folder)) - 1 == kept
