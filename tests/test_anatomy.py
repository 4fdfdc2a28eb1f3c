"""The numbers and the drawing of a network are those of the built module."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from napari_tiled_unet import cli
from napari_tiled_unet.anatomy import measure_architecture
from napari_tiled_unet.diagram import diagram_svg
from napari_tiled_unet.networks.zoo import ARCHITECTURES, build_network, network_spec

SVG = "{http://www.w3.org/2000/svg}"


def drawn(name: str, **choices: object) -> ET.Element:
    return ET.fromstring(diagram_svg(build_network(network_spec(name, **{"width": 4, "depth": 2, **choices}))))


def lines_of(svg: ET.Element) -> dict[str, int]:
    kinds = [path.get("class") for path in svg.iter(f"{SVG}path") if path.get("class")]
    return {kind: kinds.count(kind) for kind in ("down", "up", "skip")}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("unet", {"down": 2, "up": 2, "skip": 2}),
        ("unet-noskip", {"down": 2, "up": 2, "skip": 0}),
        ("unetpp", {"down": 2, "up": 3, "skip": 4}),
        ("unet3p", {"down": 2, "up": 3, "skip": 3}),
        ("fcn", {"down": 2, "up": 2, "skip": 2}),
        ("fpn", {"down": 2, "up": 4, "skip": 4}),
    ],
)
def test_every_wire_is_drawn(name: str, expected: dict[str, int]) -> None:
    assert lines_of(drawn(name)) == expected


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_row_can_be_drawn(name: str) -> None:
    texts = [t.text for t in drawn(name, ndim=3).iter(f"{SVG}text")]
    assert f"{name}, 3D" in texts[0]
    assert {"1", "1/2", "1/4", "image", "1 map"} <= set(texts)


def test_gates_sums_channels_and_uneven_strides_are_drawn() -> None:
    assert sum(g.get("class") == "gate" for g in drawn("attention-unet").iter(f"{SVG}g")) == 1
    assert sum(t.get("class") == "add" for t in drawn("unet-add").iter(f"{SVG}text")) == 2
    svg = drawn("unet", ndim=3, channels=(5, 7, 11), downsampling=((1, 2, 2), 2))
    texts = [t.text for t in svg.iter(f"{SVG}text")]
    assert [texts.count(c) for c in ("5", "7", "11")] == [2, 2, 1]
    assert "1/1x2x2" in texts


def test_anatomy_grows_with_the_network() -> None:
    small, large = (measure_architecture("unet", width=width, depth=2) for width in (4, 8))
    assert small.receptive_field == large.receptive_field
    for measure in ("parameters", "gflop_per_megavoxel", "inference_bytes", "training_bytes"):
        assert getattr(small, measure) < getattr(large, measure)
    assert small.inference_bytes < small.training_bytes
    assert not measure_architecture("unet", width=4, depth=2, norm="instance").exact_tiling


def test_the_command_lists_and_draws(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = tmp_path / "attention.svg"
    command = ["architectures", "attention-unet", "--width", "4", "--ndim", "3"]
    assert cli.run([*command, "--diagram", str(picture)]) == cli.DONE
    told = capsys.readouterr().out
    assert "attention-unet" in told
    assert "arXiv:1804.03999" in told
    assert "attention-unet, 3D" in picture.read_text(encoding="utf-8")
    assert cli.run([*command, "--encoder", "resnet18", "--json"]) == cli.DONE
    (entry,) = json.loads(capsys.readouterr().out)
    assert (entry["encoder"], entry["ndim"], entry["stride"]) == ("resnet18", 3, [16, 16, 16])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--diagram", "all.svg"], "a diagram shows one network; name it"),
        (["unet", "--diagram", "unet.png"], "give a name that ends in .svg"),
        (["unet", "--width", "2", "--diagram", "missing/unet.svg"], "cannot be written"),
        (["vnet"], "architecture 'vnet' is unknown"),
    ],
)
def test_what_cannot_be_shown_is_said(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.run(["architectures", *arguments]) == cli.WRONG
    assert message in capsys.readouterr().err
