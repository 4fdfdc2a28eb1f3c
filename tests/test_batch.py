"""Many files: whose a result is, what is replaced, and what does not go together."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr

from napari_tiled_unet import cli, read_image
from napari_tiled_unet.io import read_description
from napari_tiled_unet.result_files import ResultFiles
from tests.models import blobs

PLANE = blobs((56, 72), [(15, 20), (15, 50), (40, 30)])
FEWER = blobs((56, 72), [(15, 20)])


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Return two folders with an image of the same name each, one of three objects and one of one."""
    for name, plane in (("first", PLANE), ("second", FEWER)):
        (tmp_path / name).mkdir()
        tifffile.imwrite(tmp_path / name / "x.tif", plane)
    return tmp_path / "first", tmp_path / "second"


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    """Return a function that segments into the folder ``out`` and returns the status and what became of each file."""

    def segment(*paths: Path, more: tuple[str, ...] = ()) -> tuple[int, list[dict[str, Any]], str]:
        command = ["segment", *map(str, paths), "--model", "blobs", "--out", str(tmp_path / "out"), "--json", *more]
        capsys.readouterr()
        status = cli.run(command)
        told = capsys.readouterr()
        return status, json.loads(told.out)["files"] if told.out else [], told.err

    return segment


class TestWhoseAResultIs:
    def test_labels_of_another_image_of_the_name_do_not_pass_as_done(
        self, folders: tuple[Path, Path], run: Any, tmp_path: Path
    ) -> None:
        first, second = (folder / "x.tif" for folder in folders)
        assert run(first)[0] == cli.DONE
        status, (file,), _ = run(second)
        assert (status, file["state"]) == (cli.FAILED, "failed")
        assert f"is of another image, {str(first.resolve())!r}" in file["error"]
        assert "write into another folder with --out" in file["error"]
        assert np.asarray(read_image(tmp_path / "out" / "x_labels.ome.tif").data).max() == 3
        assert run(second, more=("--overwrite",))[0] == cli.DONE
        assert np.asarray(read_image(tmp_path / "out" / "x_labels.ome.tif").data).max() == 1

    def test_an_image_that_changed_since_is_not_done(self, folders: tuple[Path, Path], run: Any) -> None:
        run(folders[0] / "x.tif")
        tifffile.imwrite(folders[0] / "x.tif", FEWER)
        status, (file,), _ = run(folders[0] / "x.tif")
        assert (status, file["state"]) == (cli.FAILED, "failed")
        assert "has changed since; --overwrite segments it as it is now" in file["error"]

    def test_an_image_that_was_moved_or_touched_is_done(
        self, folders: tuple[Path, Path], run: Any, tmp_path: Path
    ) -> None:
        run(folders[0])
        shutil.move(folders[0], tmp_path / "moved")
        (tmp_path / "moved" / "x.tif").touch()
        status, (file,), _ = run(tmp_path / "moved")
        assert (status, file["state"]) == (cli.DONE, "skipped")

    def test_results_of_earlier_versions_are_done(self, folders: tuple[Path, Path], run: Any, tmp_path: Path) -> None:
        (tmp_path / "out").mkdir()
        result = tmp_path / "out" / "x_labels.ome.tif"
        for description in ({"software": "napari-tiled-unet", "image": "x.tif"}, {"image_file": "x.tif"}):
            tifffile.imwrite(result, PLANE, metadata={"axes": "YX", "Description": json.dumps(description)})
            assert run(folders[0])[1][0]["state"] == "skipped"
        result.write_bytes(b"of somebody else")
        assert run(folders[0])[1][0]["state"] == "skipped"

    def test_of_a_zarr_it_is_known_too(self, run: Any, tmp_path: Path) -> None:
        for name, plane in (("first", PLANE), ("second", FEWER)):
            path = tmp_path / name / "x.zarr"
            array = zarr.create_array(path, shape=plane.shape, dtype=plane.dtype, chunks=(20, 20))
            array[:] = plane
        assert run(tmp_path / "first" / "x.zarr", more=("--axes", "yx"))[0] == cli.DONE
        assert run(tmp_path / "first" / "x.zarr", more=("--axes", "yx"))[1][0]["state"] == "skipped"
        assert run(tmp_path / "second" / "x.zarr", more=("--axes", "yx"))[1][0]["state"] == "failed"

    def test_the_result_says_of_which_file_it_is(self, folders: tuple[Path, Path], run: Any, tmp_path: Path) -> None:
        run(folders[0], more=("--save-maps",))
        for kind in ("labels", "maps"):
            described = read_description(tmp_path / "out" / f"x_{kind}.ome.tif")
            assert described["image_file"]["path"] == str((folders[0] / "x.tif").resolve())
            assert described["image_shape"] == list(PLANE.shape)


class TestWhatDoesNotGoTogether:
    def test_images_that_would_write_the_same_file_are_all_refused(
        self, folders: tuple[Path, Path], run: Any, tmp_path: Path
    ) -> None:
        tifffile.imwrite(folders[0] / "y.tif", PLANE)
        status, files, _ = run(*folders)
        assert status == cli.FAILED
        assert [file["state"] for file in files] == ["failed", "done", "failed"]
        for file, other in ((files[0], folders[1]), (files[2], folders[0])):
            assert str(other / "x.tif") in file["error"]
            assert "x_labels.ome.tif" in file["error"]
            assert "segment them into different folders, or rename one" in file["error"]
        assert [path.name for path in (tmp_path / "out").iterdir()] == ["y_labels.ome.tif"]

    def test_formats_of_one_name_are_refused_before_one_is_done(self, folders: tuple[Path, Path], run: Any) -> None:
        import PIL.Image

        PIL.Image.fromarray((PLANE // 4).astype(np.uint8)).save(folders[0] / "x.jpg")
        for _ in range(2):
            status, files, _ = run(folders[0])
            assert (status, [file["state"] for file in files]) == (cli.FAILED, ["failed", "failed"])
            assert all("x.jpg" in file["error"] and "x.tif" in file["error"] for file in files)

    def test_an_image_given_twice_is_segmented_once(
        self, folders: tuple[Path, Path], run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(folders[0])
        status, files, _ = run(Path("x.tif"), folders[0], folders[1] / ".." / "first" / "x.tif")
        assert (status, [file["state"] for file in files]) == (cli.DONE, ["done"])
        one = tmp_path / "one.ome.tif"
        assert cli.run(["segment", "x.tif", str(folders[0]), "--model", "blobs", "--out", str(one)]) == cli.DONE

    def test_two_names_of_one_file_have_a_result_each(self, folders: tuple[Path, Path], run: Any) -> None:
        (folders[0] / "y.tif").symlink_to(folders[0] / "x.tif")
        status, files, _ = run(folders[0])
        assert (status, [file["state"] for file in files]) == (cli.DONE, ["done", "done"])


class TestMaps:
    def test_maps_of_an_earlier_run_do_not_stay_beside_new_labels(
        self, folders: tuple[Path, Path], run: Any, tmp_path: Path
    ) -> None:
        image, out = folders[0] / "x.tif", tmp_path / "out"
        run(image, more=("--save-maps", "--flips"))
        assert len(list(out.iterdir())) == 3
        status, _, told = run(image, more=("--save-maps", "--overwrite"))
        assert status == cli.DONE
        assert sorted(path.name for path in out.iterdir()) == ["x_labels.ome.tif", "x_maps.ome.tif"]
        assert "x.tif: 'x_spread.ome.tif' of an earlier run is removed, it does not belong to the new labels" in told
        _, (file,), told = run(image, more=("--overwrite",))
        assert file["removed"] == [str(out / "x_maps.ome.tif")]
        assert [path.name for path in out.iterdir()] == ["x_labels.ome.tif"]
        assert "'x_maps.ome.tif' of an earlier run is removed" in told
        assert "--save-maps writes them anew" in told

    def test_what_is_not_ours_stays(self, folders: tuple[Path, Path], run: Any, tmp_path: Path) -> None:
        run(folders[0])
        (tmp_path / "out" / "x_maps.ome.tif").write_bytes(b"precious")
        assert run(folders[0], more=("--overwrite",))[0] == cli.DONE
        assert (tmp_path / "out" / "x_maps.ome.tif").read_bytes() == b"precious"

    @pytest.mark.parametrize("more", [("--save-maps", "--flips"), ("--save-maps",), ()])
    def test_maps_that_an_interrupted_run_left_are_replaced(
        self, folders: tuple[Path, Path], run: Any, tmp_path: Path, more: tuple[str, ...]
    ) -> None:
        run(folders[0], more=("--save-maps", "--flips"))
        (tmp_path / "out" / "x_labels.ome.tif").unlink()
        before = (tmp_path / "out" / "x_maps.ome.tif").stat().st_mtime_ns
        status, files, _ = run(folders[0], more=more)
        assert (status, files[0]["state"]) == (cli.DONE, "done")
        assert len(list((tmp_path / "out").iterdir())) == 1 + len(more)
        if more:
            assert (tmp_path / "out" / "x_maps.ome.tif").stat().st_mtime_ns > before

    @pytest.mark.parametrize("flips", [("--flips",), ()])
    def test_labels_that_cannot_be_written_leave_all_as_it_was(
        self,
        folders: tuple[Path, Path],
        run: Any,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        flips: tuple[str, ...],
    ) -> None:
        run(folders[0], more=("--save-maps", "--flips"))
        before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
        assert len(before) == 3
        write = tifffile.imwrite

        def full(path: Path, data: Any, **how: Any) -> None:
            write(path, data, **how)
            if data.dtype.kind == "u":
                raise OSError(28, "No space left on device")

        monkeypatch.setattr(tifffile, "imwrite", full)
        status, files, _ = run(folders[0], more=("--save-maps", "--overwrite", "--foreground-threshold", "0.7", *flips))
        assert status == cli.FAILED
        assert "x_labels.ome.tif' cannot be written: No space left on device" in files[0]["error"]
        assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before

    def test_labels_that_cannot_be_replaced_leave_old_maps(
        self, folders: tuple[Path, Path], run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run(folders[0], more=("--save-maps",))
        before = sorted(path.name for path in (tmp_path / "out").iterdir())

        def held(self: Path, target: Path) -> Path:
            raise PermissionError(13, "Operation not permitted")

        monkeypatch.setattr(Path, "replace", held)
        assert run(folders[0], more=("--overwrite",))[0] == cli.FAILED
        assert sorted(path.name for path in (tmp_path / "out").iterdir()) == before

    def test_a_name_in_brackets_is_a_file(
        self, folders: tuple[Path, Path], run: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (folders[0] / "x.tif").rename(folders[0] / "[1] x.tif")
        monkeypatch.chdir(folders[0])
        status, files, _ = run(Path("[1] x.tif"))
        assert (status, files[0]["n_objects"]) == (cli.DONE, 3)

    def test_maps_of_another_image_are_not(self, folders: tuple[Path, Path], run: Any, tmp_path: Path) -> None:
        run(folders[0], more=("--save-maps",))
        (tmp_path / "out" / "x_labels.ome.tif").unlink()
        status, files, _ = run(folders[1], more=("--save-maps",))
        assert status == cli.FAILED
        assert "x_maps.ome.tif' is of another image" in files[0]["error"]
        assert run(folders[1], more=("--save-maps", "--overwrite"))[0] == cli.DONE


class TestWhatTravelsAlong:
    def test_sizes_that_are_known(self, run: Any, tmp_path: Path) -> None:
        stack = np.stack([PLANE, PLANE])
        metadata = {"axes": "ZYX", "PhysicalSizeX": 0.25, "PhysicalSizeY": 0.5}
        tifffile.imwrite(tmp_path / "x.ome.tif", stack, metadata=metadata)
        _, _, told = run(tmp_path / "x.ome.tif")
        assert "the voxel size is known along y and x, not along z" in told
        assert read_image(tmp_path / "out" / "x_labels.ome.tif").spacing_along("zyx") == (None, 0.5, 0.25)
        run(tmp_path / "x.ome.tif", more=("--overwrite", "--spacing", "none"))
        assert read_image(tmp_path / "out" / "x_labels.ome.tif").spacing_along("zyx") is None

    @pytest.mark.parametrize(("more", "places"), [((), [3.0, 4.5]), (("--region", "y=8:,x=4:"), [7.0, 5.5])])
    def test_time_step_and_place(self, run: Any, tmp_path: Path, more: tuple[str, ...], places: list[float]) -> None:
        group = zarr.open_group(tmp_path / "x.ome.zarr", mode="w")
        series = np.stack([PLANE, PLANE])
        group.create_array("0", shape=series.shape, dtype=series.dtype)[:] = series
        axes: list[Any] = [{"name": "t", "type": "time", "unit": "second"}]
        axes += [{"name": name, "type": "space", "unit": "micrometer"} for name in "yx"]
        known = [{"type": "scale", "scale": [2.5, 0.5, 0.25]}, {"type": "translation", "translation": [0, 3, 4.5]}]
        datasets: Any = [{"path": "0", "coordinateTransformations": known}]
        group.attrs["ome"] = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": datasets}]}
        assert run(tmp_path / "x.ome.zarr", more=("--save-maps", *more))[0] == cli.DONE
        for kind in ("labels", "maps"):
            path = tmp_path / "out" / f"x_{kind}.ome.tif"
            assert read_image(path).time_step == 2.5
            with tifffile.TiffFile(path) as file:
                planes = tifffile.xml2dict(file.ome_metadata)["OME"]["Image"]["Pixels"]["Plane"]
            assert [[p["PositionY"], p["PositionX"]] for p in planes] == [places] * len(planes)


class TestWhatEndsARunBeforeItsWork:
    @pytest.mark.parametrize(
        ("more", "message"),
        [
            (("--device", "cuda:7"), "device 'cuda:7' is not there"),
            (("--device", "cpu", "--precision", "float16"), "precision 'float16' is slow"),
        ],
    )
    def test_what_no_file_could_be_done_with(
        self, folders: tuple[Path, Path], run: Any, more: tuple[str, ...], message: str, tmp_path: Path
    ) -> None:
        # Also where all results are there.
        for _ in range(2):
            status, files, told = run(folders[0], more=more)
            assert (status, files) == (cli.WRONG, [])
            assert message in told
            run(folders[0])

    def test_a_folder_may_have_the_name_of_a_file(self, folders: tuple[Path, Path], tmp_path: Path) -> None:
        out = tmp_path / "results.tif"
        out.mkdir()
        assert cli.run(["segment", *map(str, folders[:1]), "--model", "blobs", "--out", str(out)]) == cli.DONE
        assert [path.name for path in out.iterdir()] == ["x_labels.ome.tif"]

    def test_a_link_to_nothing_is_a_failure(self, folders: tuple[Path, Path], run: Any, tmp_path: Path) -> None:
        (folders[0] / "gone.tif").symlink_to(tmp_path / "unmounted" / "gone.tif")
        (folders[0] / "loop.tif").symlink_to(folders[0] / "loop.tif")
        status, files, _ = run(folders[0])
        assert status == cli.FAILED
        assert {Path(file["image"]).name: file["state"] for file in files} == {
            "gone.tif": "failed",
            "loop.tif": "failed",
            "x.tif": "done",
        }

    def test_what_another_process_did_meanwhile_is_skipped(
        self, folders: tuple[Path, Path], run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        result = tmp_path / "out" / "x_labels.ome.tif"
        run(folders[0])
        theirs = result.read_bytes()
        result.unlink()
        write = ResultFiles.write

        def late(self: ResultFiles, *arguments: Any) -> Any:
            result.write_bytes(theirs)
            return write(self, *arguments)

        monkeypatch.setattr(ResultFiles, "write", late)
        status, files, _ = run(folders[0])
        assert (status, files[0]["state"]) == (cli.DONE, "skipped")
        assert "meanwhile" in files[0]["error"]
        assert result.read_bytes() == theirs
        result.unlink()
        # Labels of another image are no less in the way than before.
        status, files, _ = run(folders[1])
        assert (status, files[0]["state"]) == (cli.FAILED, "failed")
        assert "of another image" in files[0]["error"]
