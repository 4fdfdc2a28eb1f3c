"""The command line teaches: folders in, a model file out."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from napari_tiled_unet import cli, load_model
from napari_tiled_unet.events import Notice
from napari_tiled_unet.training import StepDone, loop
from tests.training.scenes import folders

FAST = ["--width", "4", "--depth", "2", "--patch", "32", "--batch", "2", "--validate-every", "4"]


def command(tmp_path: Path, *more: str) -> list[str]:
    images, labels = tmp_path / "images", tmp_path / "labels"
    if not images.exists():
        folders(tmp_path)
    return ["train", str(images), str(labels), "--out", str(tmp_path / "cells.safetensors"), *FAST, *more]


def test_folders_become_a_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(command(tmp_path, "--steps", "8")) == cli.DONE
    told = capsys.readouterr()
    assert "3 images have labels" in told.err
    assert "patch       32x32  (as asked for)" in told.err
    assert "3 frames to learn from, 3 held out" in told.err
    assert "step 8 loss" in told.err
    assert "all 8 steps done: 8 steps" in told.out
    assert load_model(tmp_path / "cells.safetensors").spec.name == "cells"
    assert {p.suffixes[-1] for p in tmp_path.glob("cells.*")} == {".safetensors", ".checkpoint", ".csv", ".png"}
    assert cli.run(command(tmp_path, "--steps", "12", "--resume", "--json")) == cli.DONE
    assert json.loads(capsys.readouterr().out)["steps"] == 12
    assert cli.run(["models", str(tmp_path / "cells.safetensors")]) == cli.DONE


def test_classes_are_named_with_commas_or_one_by_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for names in (["--classes", "background, cell"], ["--classes", "background", "--classes", "cell"]):
        folders(tmp_path / names[-1])
        for path in (tmp_path / names[-1] / "labels").iterdir():
            tifffile.imwrite(path, (tifffile.imread(path) > 0).astype(np.uint8))
        images, labels = tmp_path / names[-1] / "images", tmp_path / names[-1] / "labels"
        out = tmp_path / f"{names[-1]}.safetensors"
        line = ["train", str(images), str(labels), "--out", str(out), *FAST]
        line += ["--target", "classes", "--steps", "1", *names]
        assert cli.run(line) == cli.DONE, capsys.readouterr().err
        assert load_model(out).spec.target.channels == ("background", "cell")


def test_a_wrong_option_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(command(tmp_path, "--freeze-encoder")) == cli.WRONG
    assert "start is not given; name one" in capsys.readouterr().err
    assert cli.run(["train", str(tmp_path / "images"), str(tmp_path / "no"), "--out", "x.safetensors"]) == cli.WRONG
    assert "does not exist" in capsys.readouterr().err


def test_every_option_has_a_flag(capsys: pytest.CaptureFixture[str]) -> None:
    from napari_tiled_unet.train_options import TrainOptions

    cli.run(["train", "--help"])
    told = capsys.readouterr().out
    assert all(f"--{name.replace('_', '-')}" in told for name in TrainOptions.model_fields)


def interrupt(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Have Ctrl-C pressed after so many steps."""
    real = loop.learn

    def interrupted(session: Any, *rest: Any) -> float:
        if session.state.step == step:
            raise KeyboardInterrupt
        return real(session, *rest)

    monkeypatch.setattr(loop, "learn", interrupted)


def test_interrupting_keeps_the_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt(monkeypatch, step=6)
    with pytest.raises(SystemExit) as left:
        cli.main(command(tmp_path, "--steps", "50"))
    assert left.value.code == cli.INTERRUPTED
    out = tmp_path / "cells.safetensors"
    assert f"interrupted; the best model so far is {out}, --resume goes on" in capsys.readouterr().err
    assert load_model(out).spec.training["steps"] == 4


def test_interrupting_before_the_first_validation_keeps_the_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt(monkeypatch, step=3)
    assert cli.run(command(tmp_path, "--steps", "8")) == cli.INTERRUPTED
    out = tmp_path / "cells.safetensors"
    assert f"interrupted; the model so far is {out}, --resume goes on" in capsys.readouterr().err
    assert load_model(out).spec.training["steps"] == 3
    monkeypatch.undo()
    assert cli.run(command(tmp_path, "--steps", "8", "--resume", "--json")) == cli.DONE
    assert json.loads(capsys.readouterr().out)["steps"] == 8


def test_interrupting_before_the_first_step_keeps_nothing_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "cells.safetensors"
    assert cli.run(command(tmp_path, "--steps", "4")) == cli.DONE
    before = out.read_bytes()
    capsys.readouterr()
    interrupt(monkeypatch, step=0)
    assert cli.run(command(tmp_path, "--steps", "4", "--overwrite")) == cli.INTERRUPTED
    told = capsys.readouterr().err
    assert "interrupted before there was anything to keep" in told
    assert "--resume" not in told
    assert out.read_bytes() == before
    assert cli.run(command(tmp_path, "--steps", "4", "--resume")) == cli.WRONG
    assert "no checkpoint" in capsys.readouterr().err


def test_tensorboard_gets_the_curves(tmp_path: Path) -> None:
    assert cli.run(command(tmp_path, "--steps", "4", "--tensorboard", str(tmp_path / "board"))) == cli.DONE
    (file,) = (tmp_path / "board").iterdir()
    content = file.read_bytes()
    assert b"validation/ap50" in content
    assert b"learning rate" in content


def test_without_tensorboard_the_remedy_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    assert cli.run(command(tmp_path, "--tensorboard", str(tmp_path / "board"))) == cli.WRONG
    assert "pip install 'napari-tiled-unet[tensorboard]'" in capsys.readouterr().err


def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from napari_tiled_unet import trainer

    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with trainer._shown_progress() as progress:
        progress.say(Notice("one sentence").message)
        progress.step(StepDone(3, 1.25, 1e-3, 2.0, 0.5))
    told = capsys.readouterr().err
    assert "one sentence" in told
    assert "step 3" in told
    assert np.char.find(told, "loss 1.250") >= 0
