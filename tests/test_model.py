"""Model files: data, never code; and a clear word when one cannot be used."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from napari_tiled_unet.cards import card_lines
from napari_tiled_unet.errors import FileError, ModelError
from napari_tiled_unet.model import FORMAT_VERSION, Model, ModelSpec
from napari_tiled_unet.model_files import (
    find_model,
    list_models,
    load_model,
    read_spec,
    recent_model,
    save_model,
    user_folder,
)
from napari_tiled_unet.networks.zoo import build_network, network_spec
from napari_tiled_unet.normalise import Normalisation
from napari_tiled_unet.segmentation import segment
from napari_tiled_unet.targets import Classes, Objects
from tests.models import blob_model


def tiny_model(**changes: object) -> Model:
    torch.manual_seed(3)
    network = build_network(network_spec("unet", width=4, depth=2, out_channels=2)).eval()
    values: dict[str, object] = {
        "name": "tiny",
        "summary": "a model for tests",
        "axes": "yx",
        "channels": ("grey",),
        "spacing": (0.5, 0.5),
        "object_size": 20.0,
        "normalisation": Normalisation("percentile", 2.0, 99.0),
        "network": network.spec,
        "target": Objects(seed_threshold=0.4, min_size=7),
        "licence": "CC0-1.0",
        "training": {"data": "none", "steps": 0},
        "scores": {"val_ap50": 0.5},
        **changes,
    }
    return Model(ModelSpec.model_validate(values), network)


@pytest.fixture
def model_file(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.safetensors"
    save_model(tiny_model(), path)
    return path


def rewritten(path: Path, **changes: object) -> Path:
    """Save the same tensors with another spec."""
    with safetensors.safe_open(str(path), framework="pt") as file:
        spec = json.loads(file.metadata()["tiled-unet"])
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    out = path.with_name("changed.safetensors")
    safetensors.torch.save_file(tensors, str(out), metadata={"tiled-unet": json.dumps({**spec, **changes})})
    return out


def test_a_model_survives_its_file(model_file: Path) -> None:
    model, loaded = tiny_model(), load_model(model_file)
    x = torch.rand(1, 1, 20, 24)
    assert torch.equal(loaded.network(x), model.network(x))
    assert not loaded.network.training
    assert loaded.spec.model_copy(update={"package_version": ""}) == model.spec
    assert loaded.spec.package_version


def test_a_classes_model_survives_its_file(tmp_path: Path) -> None:
    model = tiny_model(target=Classes(classes=("background", "cell")))
    save_model(model, tmp_path / "c.safetensors")
    assert read_spec(tmp_path / "c.safetensors").target == model.spec.target


def test_models_are_found_by_name(model_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TILED_UNET_MODELS", str(model_file.parent))
    assert user_folder() == model_file.parent
    assert find_model("tiny") == model_file
    assert find_model(model_file) == model_file
    assert "tiny" in [entry.name for entry in list_models() if not entry.bundled]


def test_a_model_in_use_is_loaded_once(model_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = recent_model(model_file)
    monkeypatch.chdir(model_file.parent)
    assert recent_model(model_file.name) is first
    monkeypatch.setenv("TILED_UNET_MODELS", str(model_file.parent))
    assert recent_model(model_file.stem) is first
    assert load_model(model_file) is not first
    save_model(tiny_model(summary="another"), model_file, overwrite=True)
    assert recent_model(model_file).spec.summary == "another"
    model_file.unlink()
    with pytest.raises(ModelError, match="does not exist"):
        recent_model(model_file)


def test_a_loop_that_names_its_model_loads_it_once(model_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loads: list[Path] = []

    def load(path: Path) -> Model:
        loads.append(path)
        return load_model(path)

    monkeypatch.setattr("napari_tiled_unet.model_files.load_model", load)
    plane = np.arange(480, dtype=np.uint16).reshape(20, 24)
    for _ in range(3):
        segment(plane, model_file, spacing=0.5, device="cpu")
    assert loads == [model_file]


def test_a_damaged_file_does_not_hide_the_other_models(model_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TILED_UNET_MODELS", str(model_file.parent))
    (model_file.parent / "broken.safetensors").write_bytes(b"nothing")
    names = [entry.name for entry in list_models()]
    assert "tiny" in names
    assert "broken" not in names


def test_the_user_folder_is_the_platforms_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TILED_UNET_MODELS", raising=False)
    assert user_folder().name == "models"
    assert user_folder().parent.name == "napari-tiled-unet"


def test_unknown_models_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"model 'nuclie' is unknown; the known ones are .*; own models go into"):
        find_model("nuclie")
    with pytest.raises(ModelError, match=r"does not exist; give the path of a .safetensors file or a name"):
        find_model(tmp_path / "missing.safetensors")
    with pytest.raises(ModelError, match="is a folder"):
        find_model(f"{tmp_path}/")


def test_a_pickle_is_refused_without_opening_it(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    torch.save({"weight": torch.zeros(2)}, path)
    with pytest.raises(ModelError, match=r"is a pickle .* only .safetensors model files are read"):
        load_model(path)
    import pickle

    path.write_bytes(pickle.dumps({"weight": 1}))
    with pytest.raises(ModelError, match="is a pickle"):
        load_model(path)


@pytest.mark.parametrize("kept", [0, 6, 500, -100])
def test_a_truncated_file_is_refused(model_file: Path, kept: int) -> None:
    model_file.write_bytes(model_file.read_bytes()[:kept])
    with pytest.raises(ModelError, match=r"is damaged or not a .safetensors file .*get it again"):
        load_model(model_file)


def test_a_file_without_a_spec_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "plain.safetensors"
    safetensors.torch.save_file({"weight": torch.zeros(2)}, str(path))
    with pytest.raises(ModelError, match=r"holds tensors but no 'tiled-unet' spec"):
        load_model(path)


@pytest.mark.parametrize("version", [FORMAT_VERSION + 1, 0, None, "1"])
def test_another_version_is_refused(model_file: Path, version: object) -> None:
    with pytest.raises(
        ModelError, match=rf"format version {version!r}, this package reads version {FORMAT_VERSION}; update"
    ):
        load_model(rewritten(model_file, format_version=version))


def test_a_spec_that_breaks_the_format_is_refused(model_file: Path) -> None:
    with pytest.raises(ModelError, match=r"breaks the format: .*colour"):
        load_model(rewritten(model_file, colour="red"))
    with pytest.raises(ModelError, match=r"breaks the format: axes"):
        load_model(rewritten(model_file, axes="xy"))
    path = model_file.with_name("text.safetensors")
    safetensors.torch.save_file({"weight": torch.zeros(2)}, str(path), metadata={"tiled-unet": "{"})
    with pytest.raises(ModelError, match="is not JSON"):
        load_model(path)


def test_weights_that_do_not_fit_the_spec_are_refused(model_file: Path) -> None:
    with safetensors.safe_open(str(model_file), framework="pt") as file:
        network = json.loads(file.metadata()["tiled-unet"])["network"]
    with pytest.raises(ModelError, match=r"do not fit its spec: encoder.* has shape .* needs"):
        load_model(rewritten(model_file, network={**network, "channels": [8, *network["channels"][1:]]}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"axes": "zyx"}, "a 2D network cannot have axes 'zyx'"),
        ({"channels": ("a", "b")}, "takes 1 channels, 2 are named"),
        ({"target": Classes(classes=("a", "b", "c"))}, "gives 2 maps, the target 'classes' needs 3"),
        ({"spacing": (1.0,)}, "must have one number per axis"),
    ],
)
def test_parts_of_a_spec_must_agree(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny_model(**changes)


def test_saving_never_replaces_by_accident(model_file: Path) -> None:
    before = model_file.read_bytes()
    with pytest.raises(FileError, match="exists; choose another name or allow overwriting"):
        save_model(tiny_model(), model_file)
    save_model(tiny_model(name="other"), model_file, overwrite=True)
    assert model_file.read_bytes() != before
    assert [p.name for p in model_file.parent.iterdir()] == [model_file.name]
    with pytest.raises(FileError, match=r"must end in .safetensors"):
        save_model(tiny_model(), model_file.with_suffix(".pt"))
    with pytest.raises(FileError, match="cannot be written"):
        save_model(tiny_model(), model_file.parent / "no" / "folder.safetensors")


def test_the_card_tells_a_training_in_brief() -> None:
    plan = [
        {"name": "patch", "value": "64x64", "reason": "as asked for"},
        {"name": "batch", "value": "2", "reason": ""},
    ]
    training = {"images": [f"{n}.tif" for n in range(9)], "options": {"depth": 5}, "plan": plan, "steps": 7}
    lines = card_lines(tiny_model().spec.model_copy(update={"training": training}))
    told = {line[:20].strip(): line[20:].strip() for line in lines if line.startswith("  training")}
    assert told == {
        "training images": "0.tif, 1.tif, 2.tif ... (9 in all)",
        "training options": "depth 5",
        "training plan": "patch 64x64, batch 2",
        "training steps": "7",
    }


def test_the_card_tells_what_matters() -> None:
    text = "\n".join(card_lines(tiny_model().spec))
    for part in (
        "tiny: a model for tests",
        "CC0-1.0",
        "(0.5, 0.5) micrometer",
        "20 voxels",
        "percentile 2 to 99",
        "0.500",
    ):
        assert part in text


def test_listing_models_does_not_import_torch() -> None:
    code = "import sys, napari_tiled_unet as t; t.list_models(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_header_of_any_length_is_no_pickle(tmp_path: Path) -> None:
    """The file starts with the length of its header, and that may start with the byte of a pickle."""
    model = blob_model()
    for more in range(0, 256, 4):
        summary = model.spec.model_copy(update={"summary": "x" * more})
        save_model(Model(summary, model.network), tmp_path / "a.safetensors", overwrite=True)
        if (tmp_path / "a.safetensors").read_bytes()[0] == 0x80:
            break
    assert (tmp_path / "a.safetensors").read_bytes()[0] == 0x80
    assert read_spec(tmp_path / "a.safetensors").summary == "x" * more


def test_a_name_may_have_a_dot(model_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TILED_UNET_MODELS", str(model_file.parent))
    dotted = model_file.rename(model_file.with_name("tiny-v1.2.safetensors"))
    assert "tiny-v1.2" in [entry.name for entry in list_models()]
    assert find_model("tiny-v1.2") == dotted
    assert find_model(dotted) == dotted


def test_half_precision_keeps_what_would_be_infinite(tmp_path: Path) -> None:
    model = blob_model()
    key = next(name for name, value in model.network.state_dict().items() if value.is_floating_point())
    model.network.state_dict()[key].fill_(1e6)
    save_model(model, tmp_path / "large.safetensors", half=True)
    stored = load_model(tmp_path / "large.safetensors").network.state_dict()[key]
    assert float(stored.max()) == 1e6
