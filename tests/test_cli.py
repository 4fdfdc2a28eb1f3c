"""The command line: files in, label files out, and a word and a status for everything else."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import tifffile

from napari_tiled_unet import cli, read_image
from napari_tiled_unet.errors import OptionsError
from napari_tiled_unet.options import SegmentOptions
from napari_tiled_unet.result_files import maps_path, result_paths
from tests.models import blobs

PLANE = blobs((56, 72), [(15, 20), (15, 50), (40, 30)])
OURS = [sys.executable, "-m", "napari_tiled_unet"]


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    for name, plane in (("a", PLANE), ("b", PLANE[::-1])):
        tifffile.imwrite(
            folder / f"{name}.ome.tif", plane, metadata={"axes": "YX", "PhysicalSizeX": 0.25, "PhysicalSizeY": 0.5}
        )
    return folder


def test_a_folder_becomes_label_files(images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "labels"
    assert cli.run(["segment", str(images), "--model", "blobs", "--out", str(out)]) == cli.DONE
    assert sorted(p.name for p in out.iterdir()) == ["a_labels.ome.tif", "b_labels.ome.tif"]
    labels = read_image(out / "a_labels.ome.tif")
    assert labels.axes == "yx"
    assert labels.data.dtype == np.uint8
    assert np.asarray(labels.data).max() == 3
    assert labels.spacing == (0.5, 0.25)
    with tifffile.TiffFile(out / "a_labels.ome.tif") as file:
        assert file.pages[0].compression == tifffile.COMPRESSION.ADOBE_DEFLATE
        assert "blobs" in file.ome_metadata
    told = capsys.readouterr()
    assert "2 done, 0 skipped, 0 failed" in told.out
    assert "[1/2] a.ome.tif" in told.err


def test_results_lie_beside_the_images_by_default(images: Path) -> None:
    assert cli.run(["segment", str(images / "a.ome.tif"), "--model", "blobs"]) == cli.DONE
    assert (images / "a_labels.ome.tif").exists()


def test_one_image_may_name_its_result(images: Path, tmp_path: Path) -> None:
    target = tmp_path / "mine.ome.tif"
    assert cli.run(["segment", str(images / "a.ome.tif"), "--model", "blobs", "--out", str(target)]) == cli.DONE
    assert target.exists()
    assert cli.run(["segment", str(images), "--model", "blobs", "--out", str(target)]) == cli.WRONG


def test_an_image_is_never_replaced_by_its_labels(images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = images / "a.ome.tif"
    command = ["segment", str(image), "--model", "blobs", "--out", str(images / "." / "a.ome.tif"), "--overwrite"]
    assert cli.run(command) == cli.FAILED
    assert "the labels would replace the image" in capsys.readouterr().err
    np.testing.assert_array_equal(tifffile.imread(image), PLANE)


def test_results_that_are_named_are_not_segmented(images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["segment", str(images), "--model", "blobs"]) == cli.DONE
    files = sorted(map(str, images.iterdir()))
    assert cli.run(["segment", *files, "--model", "blobs", "--overwrite"]) == cli.DONE
    told = capsys.readouterr().out
    assert "2 done, 2 skipped, 0 failed" in told
    assert "a result of an earlier run; rename it to segment it" in told
    assert sorted(map(str, images.iterdir())) == files


@pytest.mark.parametrize("name", ["res.png", "res.zarr", "res.NPY"])
def test_labels_are_not_written_in_other_formats(
    images: Path, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / name
    assert cli.run(["segment", str(images / "a.ome.tif"), "--model", "blobs", "--out", str(out)]) == cli.WRONG
    assert "labels are written as OME-TIFF; name a .ome.tif file, or a folder" in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize("name", ["cell[a].tif", "b[/x].tif"])
def test_names_are_shown_as_they_are(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    tifffile.imwrite(tmp_path / name, PLANE)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert cli.run(["segment", str(tmp_path / name), "--model", "blobs"]) == cli.DONE
    assert Path(name).name in capsys.readouterr().out
    (tmp_path / name).write_bytes(b"II*\0")
    assert cli.run(["segment", str(tmp_path / name), "--model", "blobs", "--overwrite"]) == cli.FAILED
    assert Path(name).name in capsys.readouterr().out


def test_maps_are_saved_when_asked_for(images: Path, tmp_path: Path) -> None:
    assert (
        cli.run(["segment", str(images / "a.ome.tif"), "--model", "blobs", "--out", str(tmp_path), "--save-maps"]) == 0
    )
    maps = read_image(tmp_path / "a_maps.ome.tif")
    assert maps.axes == "cyx"
    assert maps.shape == (2, *PLANE.shape)
    assert maps.spacing == (0.5, 0.25)
    assert maps.data.dtype == np.float32


def test_maps_are_replaced_only_with_overwrite(images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["segment", str(images / "a.ome.tif"), "--model", "blobs", "--save-maps", "--json"]
    (images / "a_maps.ome.tif").write_bytes(b"precious")
    assert cli.run(command) == cli.FAILED
    assert "its labels do not; --overwrite replaces it" in capsys.readouterr().out
    assert (images / "a_maps.ome.tif").read_bytes() == b"precious"
    assert not (images / "a_labels.ome.tif").exists()
    assert cli.run([*command, "--overwrite"]) == cli.DONE
    assert read_image(images / "a_maps.ome.tif").axes == "cyx"


def test_maps_of_a_part_lie_where_its_labels_do(images: Path) -> None:
    command = ["segment", str(images / "a.ome.tif"), "--model", "blobs", "--save-maps", "--region", "y=8:40,x=4:60"]
    assert cli.run(command) == cli.DONE
    places = []
    for kind in ("labels", "maps"):
        with tifffile.TiffFile(images / f"a_{kind}.ome.tif") as file:
            planes = tifffile.xml2dict(file.ome_metadata)["OME"]["Image"]["Pixels"]["Plane"]
        places += [(p["PositionX"], p["PositionY"]) for p in (planes if isinstance(planes, list) else [planes])]
    assert places == [(1.0, 4.0)] * 3


@pytest.mark.skipif(sys.platform == "win32", reason="needs links")
def test_whatever_is_wrong_with_a_file_costs_it_alone(images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (images / "aa.tif").symlink_to(images / "aa.tif")
    long = images / f"{'n' * 300}.tif"
    given = [images / "a.ome.tif", images / "aa.tif", long, images / "b.ome.tif"]
    assert cli.run(["segment", *map(str, given), "--model", "blobs", "--json"]) == cli.FAILED
    report = json.loads(capsys.readouterr().out)
    assert [file["state"] for file in report["files"]] == ["done", "failed", "failed", "done"]


def test_a_terminal_that_cannot_show_a_name_does_not_end_a_run(images: Path, model_folder: Path) -> None:
    (images / "a.ome.tif").rename(images / "\u7d30\u80de.tif")
    there = {**os.environ, "PYTHONIOENCODING": "cp1252"}
    command = [*OURS, "segment", str(images), "--model", "blobs"]
    done = subprocess.run(command, env=there, capture_output=True, check=False)
    assert done.returncode == cli.DONE, done.stderr
    assert b"\\u7d30" in done.stdout


@pytest.mark.skipif(sys.platform == "win32", reason="needs head")
def test_a_reader_that_has_enough_ends_it_quietly() -> None:
    command = f"{sys.executable} -m napari_tiled_unet models --json | true"
    done = subprocess.run(["bash", "-c", f"set -o pipefail; {command}"], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (cli.UNREAD, b"")


def test_existing_results_are_kept_unless_overwritten(images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["segment", str(images / "a.ome.tif"), "--model", "blobs", "--json"]
    assert cli.run(command) == cli.DONE
    before = (images / "a_labels.ome.tif").stat().st_mtime_ns
    capsys.readouterr()
    assert cli.run(command) == cli.DONE
    assert json.loads(capsys.readouterr().out)["skipped"] == 1
    assert (images / "a_labels.ome.tif").stat().st_mtime_ns == before
    assert cli.run([*command, "--overwrite"]) == cli.DONE
    assert json.loads(capsys.readouterr().out)["done"] == 1
    assert (images / "a_labels.ome.tif").stat().st_mtime_ns > before


def test_one_bad_file_does_not_stop_the_rest(images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (images / "aa.tif").write_bytes((images / "a.ome.tif").read_bytes()[:400])
    status = cli.run(["segment", str(images), "--model", "blobs", "--out", str(tmp_path / "o"), "--json"])
    report = json.loads(capsys.readouterr().out)
    assert status == cli.FAILED
    assert (report["done"], report["failed"]) == (2, 1)
    states = {Path(f["image"]).name: f for f in report["files"]}
    assert states["aa.tif"]["state"] == "failed"
    assert "aa.tif" in states["aa.tif"]["error"]
    assert states["a.ome.tif"]["n_objects"] == 3
    assert sorted(p.name for p in (tmp_path / "o").iterdir()) == ["a_labels.ome.tif", "b_labels.ome.tif"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["segment"], "PATHS"),
        (["segment", "a.tif", "--blend", "mean"], "blend='mean'"),
        (["segment", "a.tif", "--tile", "64", "--overlap", "32"], "leaves nothing of tile"),
        (["segment", "a.tif", "--spacing", "-1"], "finite and positive"),
        (["segment", "a.tif", "--nope"], "nope"),
        (["segment", "a.tif", "--model", "nope"], "model 'nope' is unknown"),
        (["models", "nope"], "model 'nope' is unknown"),
        (["sgment"], "sgment"),
    ],
)
def test_wrong_commands_exit_with_2(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(arguments) == cli.WRONG
    assert message in capsys.readouterr().err


def test_a_folder_without_images_is_a_wrong_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["segment", str(tmp_path)]) == cli.WRONG
    assert "no image files in" in capsys.readouterr().err


def test_an_unwritable_output_fails_before_the_work(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("in the way")
    status = cli.run(["segment", str(images), "--model", "blobs", "--out", str(tmp_path / "file" / "x"), "--json"])
    assert status == cli.FAILED
    assert "file" in json.loads(capsys.readouterr().out)["files"][0]["error"]


def test_every_option_is_a_flag() -> None:
    told = subprocess.run([*OURS, "segment", "--help"], capture_output=True, text=True, check=True).stdout
    missing = [name for name in SegmentOptions.model_fields if f"--{name.replace('_', '-')}" not in told]
    assert missing == []


def test_help_imports_neither_torch_nor_numpy() -> None:
    code = (
        "import sys\nfrom napari_tiled_unet import cli\ncli.run(['--help'])\ncli.run(['segment', '--help'])\n"
        "sys.exit(bool({'torch', 'numpy', 'napari', 'scipy'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0


def test_models_are_listed_and_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["models"]) == cli.DONE
    listed = capsys.readouterr().out
    assert "bright blobs, by construction" in listed
    assert cli.run(["models", "blobs"]) == cli.DONE
    assert "objects (foreground, centre)" in capsys.readouterr().out
    assert cli.run(["models", "--json"]) == cli.DONE
    assert {"blobs", "blobs-3d"} <= {row["name"] for row in json.loads(capsys.readouterr().out)}
    assert cli.run(["models", "blobs", "--json"]) == cli.DONE
    assert json.loads(capsys.readouterr().out)["name"] == "blobs"


def test_where_results_go() -> None:
    images = [Path("x/a.ome.tif"), Path("y/b.png"), Path("z/c.ome.zarr")]
    assert [p.as_posix() for p in result_paths(images, None)] == [
        "x/a_labels.ome.tif",
        "y/b_labels.ome.tif",
        "z/c_labels.ome.tif",
    ]
    assert result_paths(images[:1], Path("o/out.tif")) == [Path("o/out.tif")]
    assert [maps_path(Path(f"o/{name}")).name for name in ("a_labels.ome.tif", "out.ome.tif", "out.tif")] == [
        "a_maps.ome.tif",
        "out_maps.ome.tif",
        "out_maps.ome.tif",
    ]
    with pytest.raises(OptionsError, match="names one file, there are 3 images; give a folder"):
        result_paths(images, Path("o/out.tif"))


def test_interrupting_leaves_no_half_file(tmp_path: Path, model_folder: Path) -> None:
    """Ctrl-C during the tiles: status 130, no result, no partial file."""
    tifffile.imwrite(tmp_path / "big.tif", np.tile(PLANE, (30, 24)))
    out = tmp_path / "out"
    environment = {**os.environ, "TILED_UNET_MODELS": str(model_folder)}
    command = [
        *OURS,
        "segment",
        str(tmp_path / "big.tif"),
        "--model",
        "blobs",
        "--out",
        str(out),
        "--tile",
        "24",
        "--overlap",
        "8",
        # Nothing is converted, so that tiles come soon after the first line.
        "--backend",
        "torch",
    ]
    # A job in the background may have been started with Ctrl-C ignored, which is inherited.
    heard = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    with subprocess.Popen(command, stderr=subprocess.PIPE, env=environment, text=True, preexec_fn=heard) as process:
        assert process.stderr is not None
        assert "big.tif" in process.stderr.readline()
        time.sleep(1.5)
        assert process.poll() is None, "the run must still be at work for this test to mean something"
        process.send_signal(signal.SIGINT)
        assert process.stderr.read().endswith("tiled-unet: interrupted\n")
        assert process.wait(timeout=20) == cli.INTERRUPTED
    assert not out.exists() or list(out.iterdir()) == []


def test_an_interrupt_within_an_import_has_the_same_status(tmp_path: Path) -> None:
    """Python marks an interrupt that leaves an exec of a text, and ``python -m`` would end by the signal."""
    script = """
        from napari_tiled_unet import cli

        def interrupted(*_, **__):
            exec("raise KeyboardInterrupt")

        cli.app = interrupted
        cli.main([])
    """
    (tmp_path / "interrupted.py").write_text(textwrap.dedent(script))
    command = [sys.executable, "-m", "interrupted"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (cli.INTERRUPTED, "tiled-unet: interrupted\n")
