"""What a result says of its run, so that it can be done again."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from napari_tiled_unet import cli, iter_segment, load_model, segment
from napari_tiled_unet.io import read_description
from napari_tiled_unet.model import Model
from tests.models import blob_model, blobs

PLANE = blobs((56, 72), [(15, 20), (15, 50), (40, 30)])


def provenance(model: Any, **keywords: Any) -> dict[str, Any]:
    told: dict[str, Any] = list(iter_segment(PLANE, model, **keywords))[-1].provenance
    return told


@pytest.fixture
def mine(tmp_path: Path, model_folder: Path) -> Path:
    """Return a model file that has another name than its spec and lies in no folder of models."""
    return Path(shutil.copy(model_folder / "blobs.safetensors", tmp_path / "mine.safetensors"))


def test_a_model_given_by_path_is_found_again(mine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for given in ("./mine.safetensors", mine, load_model("mine.safetensors")):
        told = provenance(given, min_size=3)
        assert told["model"] == "blobs"
        assert told["model_file"] == str(mine)
        assert told["model_sha256"] == hashlib.sha256(mine.read_bytes()).hexdigest()
        assert told["options"] == {"model": str(mine), "min_size": 3}
        np.testing.assert_array_equal(segment(PLANE, **told["options"]), segment(PLANE, "blobs", min_size=3))


def test_a_model_of_a_folder_of_models_is_told_by_the_name_of_its_file(
    mine: Path, tmp_path: Path, model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TILED_UNET_MODELS", str(tmp_path))
    for given in ("mine", mine, load_model("mine")):
        assert provenance(given)["options"] == {"model": "mine"}
    # A file of the name elsewhere is another one.
    told = provenance(model_folder / "blobs.safetensors")
    assert told["options"] == {"model": str(model_folder / "blobs.safetensors")}


def test_a_model_without_a_file_says_so() -> None:
    loaded = load_model("blobs")
    for model in (blob_model(), Model(loaded.spec, loaded.network)):
        told = provenance(model)
        assert (told["model"], told["model_file"], told["model_sha256"]) == ("blobs", None, None)
        assert told["options"] == {"model": "blobs"}


def test_a_result_of_the_command_line_names_the_model_file(mine: Path, tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", PLANE)
    assert cli.run(["segment", str(tmp_path / "a.tif"), "--model", str(mine)]) == cli.DONE
    told = read_description(tmp_path / "a_labels.ome.tif")
    assert told["model_file"] == told["options"]["model"] == str(mine)
    assert told["model_sha256"] == hashlib.sha256(mine.read_bytes()).hexdigest()
