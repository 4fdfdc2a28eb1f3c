"""A run written down repeats to the bit: as a file, as Python, as a command."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from napari_tiled_unet import cli, read_image, write_labels
from napari_tiled_unet.errors import FileError, OptionsError
from napari_tiled_unet.options import SegmentOptions
from napari_tiled_unet.recipe import (
    as_command,
    as_python,
    parse_recipe,
    pinned,
    read_recipe,
    recipe_text,
    write_recipe,
)
from napari_tiled_unet.strips import plan_strips
from napari_tiled_unet.tiling import plan_tiles
from tests.models import blobs

OPTIONS = SegmentOptions.of(
    model="blobs",
    axes="zyx",
    region="z=1:,x=4:60",
    spacing=(2.0, 0.1234567890123, 0.5),
    tile=(64, 48),
    overlap=(8, 0),
    foreground_threshold=0.45,
    fill_holes=False,
    link_slices=True,
)


class TestFile:
    def test_it_is_read_back(self, tmp_path: Path) -> None:
        write_recipe(tmp_path / "a.yaml", OPTIONS)
        assert read_recipe(tmp_path / "a.yaml") == OPTIONS
        assert [path.name for path in tmp_path.iterdir()] == ["a.yaml"]

    def test_the_defaults_are_left_out(self) -> None:
        assert recipe_text(SegmentOptions()) == "recipe: 1\nmodel: nuclei\n"
        assert parse_recipe("recipe: 1") == SegmentOptions()

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("model: nuclei", "is no recipe"),
            ("- a", "is no recipe"),
            ("recipe: 1\n3: 4", "has the key 3, which is no option"),
            ("recipe: 2", "version 2, this version reads 1"),
            ("recipe: [1", "is no YAML"),
            ("recipe: 1\nmin_sise: 3", "unknown option 'min_sise'"),
            ("recipe: 1\nmin_size: -3", "min_size=-3"),
        ],
    )
    def test_what_is_none_is_refused(self, text: str, message: str) -> None:
        with pytest.raises(OptionsError, match=message):
            parse_recipe(text)

    def test_files_that_cannot_be_read_or_written(self, tmp_path: Path) -> None:
        with pytest.raises(FileError, match="cannot be read"):
            read_recipe(tmp_path / "missing.yaml")
        with pytest.raises(FileError, match="cannot be written"):
            write_recipe(tmp_path / "missing" / "a.yaml", OPTIONS)


class TestPinned:
    def test_strips_are_pinned_by_what_they_saw(self) -> None:
        plan = plan_strips((400, 64), (400, 64), (30, 30), (16, 16), 0, 32)
        options = pinned(SegmentOptions(), plan, device="cpu", precision="float32")
        assert (options.tile, options.overlap) == ("auto", "exact")

    def test_an_axis_that_a_tile_spans_needs_no_overlap(self) -> None:
        plan = plan_tiles((50, 200), (64, 96), (12, 12), (16, 16))
        options = pinned(SegmentOptions(), plan, device="cpu", precision="float32")
        assert options.tile == tuple(plan.tile)
        assert options.overlap == (0, 12)
        assert plan_tiles((50, 200), options.tile, options.overlap, (16, 16)).starts == plan.starts


class TestRepeated:
    @pytest.fixture
    def stack(self, tmp_path: Path) -> Path:
        path = tmp_path / "a stack's.ome.tif"
        plane = blobs((56, 72), [(15, 20), (15, 50), (40, 30)])
        write_labels(path, np.stack([plane, plane, np.roll(plane, 3, 1)]), "zyx", (2.0, 0.5, 0.5))
        return path

    def test_command_python_and_recipe_agree(self, stack: Path, tmp_path: Path, model_folder: Path) -> None:
        folder = tmp_path / "out"
        command = as_command(OPTIONS, str(stack), str(folder / "command.ome.tif"))
        assert cli.run(shlex.split(command)[1:]) == cli.DONE
        by_command = np.asarray(read_image(folder / "command.ome.tif").data)
        assert by_command.shape == (2, 56, 56)
        assert by_command.max() > 0

        script = (
            as_python(OPTIONS, repr(str(stack))) + f"\nimport numpy\nnumpy.save({str(tmp_path / 'l.npy')!r}, labels)\n"
        )
        environment = {**os.environ, "TILED_UNET_MODELS": str(model_folder)}
        subprocess.run([sys.executable, "-c", script], check=True, env=environment, timeout=120)
        np.testing.assert_array_equal(np.load(tmp_path / "l.npy"), by_command)

        write_recipe(tmp_path / "r.yaml", OPTIONS)
        assert cli.run(["run", str(tmp_path / "r.yaml"), str(stack), "--out", str(folder / "run.ome.tif")]) == cli.DONE
        np.testing.assert_array_equal(read_image(folder / "run.ome.tif").data, by_command)

    def test_a_recipe_that_is_wrong_ends_the_command(self, tmp_path: Path, stack: Path) -> None:
        (tmp_path / "r.yaml").write_text("model: nuclei")
        assert cli.run(["run", str(tmp_path / "r.yaml"), str(stack)]) == cli.WRONG
