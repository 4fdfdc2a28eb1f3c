"""Which backend is taken, what is checked, and what is kept on the disk."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import textwrap
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch

from napari_tiled_unet import iter_segment, segment
from napari_tiled_unet.backends import choice, conversion, interface, retention
from napari_tiled_unet.backends.choice import busiest_crop, choose_backend
from napari_tiled_unet.backends.interface import RUNTIMES, Prepared
from napari_tiled_unet.backends.openvino import OpenvinoBackend
from napari_tiled_unet.backends.pytorch import TorchBackend
from napari_tiled_unet.errors import MemoryBudgetError, OptionsError
from napari_tiled_unet.events import Finished, Notice
from napari_tiled_unet.options import BackendName
from napari_tiled_unet.runtime import Runner, choose_device
from tests.backends.test_agreement import IMAGES, network, plain, tiles_of
from tests.models import blob_model

CPU = torch.device("cpu")
TILES = tiles_of((32, 40))


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TILED_UNET_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def only_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide the other runtimes."""
    monkeypatch.setattr(interface, "_installed", lambda name: name == "torch")


def prepared() -> Prepared:
    return Prepared(network(), torch.sigmoid, CPU)


def wrong(self: Any, tiles: np.ndarray) -> np.ndarray:
    return np.full((len(tiles), 2, *tiles.shape[2:]), 0.25, np.float32)


def spoil_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    right = TorchBackend.run

    def spoiled(self: TorchBackend, tiles: np.ndarray) -> np.ndarray:
        return right(self, tiles) + (0.06 if self.precision == "bfloat16" else 0)

    monkeypatch.setattr(TorchBackend, "run", spoiled)


def test_reduced_precision_that_is_close_is_kept() -> None:
    backend, notices = choose_backend(prepared(), "torch", "bfloat16", TILES, checked=True)
    assert (backend.name, backend.precision, notices) == ("torch", "bfloat16", [])


def test_reduced_precision_that_is_far_off_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    spoil_bfloat16(monkeypatch)
    backend, notices = choose_backend(prepared(), "torch", "bfloat16", TILES, checked=True)
    assert backend.precision == "float32"
    assert [n.caution for n in notices] == [True]
    assert "computed by torch in bfloat16 differ from float32 by up to 0.06" in notices[0].message
    # What was asked for by name is taken as it is.
    backend, notices = choose_backend(prepared(), "torch", "bfloat16", TILES, checked=False)
    assert (backend.precision, notices) == ("bfloat16", [])


def test_maps_that_are_not_numbers_fail_the_check(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_numbers(self: Any, tiles: np.ndarray) -> np.ndarray:
        return np.full((1, 2, *tiles.shape[2:]), np.nan, np.float32)

    monkeypatch.setattr(OpenvinoBackend, "run", no_numbers)
    backend, _ = choose_backend(prepared(), "openvino", "float32", TILES, checked=True)
    assert backend.name == "torch"


def test_the_run_says_that_it_fell_back(monkeypatch: pytest.MonkeyPatch) -> None:
    spoil_bfloat16(monkeypatch)
    monkeypatch.setattr("napari_tiled_unet.runtime._cpu_has_bfloat16", lambda: True)
    events = list(iter_segment(IMAGES[2], blob_model(), backend="torch"))
    assert any(isinstance(e, Notice) and e.caution and "in bfloat16 differ" in e.message for e in events)
    finished = events[-1]
    assert isinstance(finished, Finished)
    assert (finished.provenance["backend"], finished.provenance["precision"]) == ("torch", "float32")


@pytest.mark.parametrize("backend", ["openvino", "onnx"])
def test_a_conversion_that_is_wrong_is_not_used(monkeypatch: pytest.MonkeyPatch, backend: str) -> None:
    module, _, name = RUNTIMES[backend].home.partition(":")
    monkeypatch.setattr(f"{module}.{name}.run", wrong)
    running, notices = choose_backend(prepared(), backend, "float32", TILES, checked=False)
    assert running.name == "torch"
    assert f"computed by {backend} in float32 differ" in notices[0].message


def test_a_conversion_that_fails_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Any, tiles: np.ndarray) -> np.ndarray:
        raise RuntimeError("Unsupported operator: Fold")

    monkeypatch.setattr(OpenvinoBackend, "run", fail)
    running, notices = choose_backend(prepared(), "openvino", "float32", TILES, checked=True)
    assert running.name == "torch"
    assert (
        "backend 'openvino' cannot run this network (Unsupported operator: Fold); torch runs it" in notices[0].message
    )


def test_running_out_of_memory_is_no_reason_to_fall_back(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Any, tiles: np.ndarray) -> np.ndarray:
        raise MemoryBudgetError("full")

    monkeypatch.setattr(OpenvinoBackend, "run", full)
    with pytest.raises(MemoryBudgetError, match="full"):
        choose_backend(prepared(), "openvino", "float32", TILES, checked=True)


@pytest.mark.parametrize("backend", ["openvino", "onnx"])
def test_a_runtime_without_memory_is_said_with_the_remedy(monkeypatch: pytest.MonkeyPatch, backend: str) -> None:
    running = RUNTIMES[backend].build(prepared(), "float32")

    class Full:
        def __call__(self, *_: object, **__: object) -> None:
            raise RuntimeError("bad alloc: Failed to allocate")

        run = __call__

    monkeypatch.setattr(running, "_compiled" if backend == "openvino" else "_session", Full())
    with pytest.raises(MemoryBudgetError, match=r"tiles of \(32, 40\) voxels ran out of memory in O.*smaller tile"):
        running.run(TILES)


def test_the_fastest_is_timed_once(empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    timed = {"torch": 0.5, "openvino": 0.4, "onnx": 0.9}
    calls = []

    def calibrate(*_: object) -> tuple[dict[str, float], bool]:
        calls.append(1)
        return timed, True

    monkeypatch.setattr(choice, "calibrate", calibrate)
    for _ in range(2):
        backend, notices = choose_backend(prepared(), "auto", "float32", TILES, checked=True)
        assert backend.name == "openvino"
        assert "runs in openvino, the fastest backend installed here" in notices[0].message
    assert len(calls) == 1
    (kept,) = (empty_cache / "calibration").iterdir()
    assert json.loads(kept.read_text())["seconds_per_megavoxel"] == timed
    # Damage is repaired.
    kept.write_text("{")
    choose_backend(prepared(), "auto", "float32", TILES, checked=True)
    assert len(calls) == 2


def test_what_is_hardly_faster_than_torch_is_not_taken(empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "calibrate", lambda *_: ({"torch": 0.5, "openvino": 0.46}, True))
    assert choose_backend(prepared(), "auto", "float32", TILES, checked=True)[0].name == "torch"


def test_calibration_times_what_gives_the_right_maps(empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(OpenvinoBackend, "run", wrong)
    this = prepared()
    seconds, _ = choice.calibrate(this, "bfloat16", choice._Judge(this, TILES), list(RUNTIMES))
    assert "torch" in seconds
    assert "openvino" not in seconds
    assert all(s > 0 for s in seconds.values())


def test_calibration_falls_back_as_a_run_would(empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or a runtime that knows no reduced precision would be alone, however slow it is."""
    monkeypatch.setattr(choice, "_CALIBRATION_SECONDS", 60.0)
    spoil_bfloat16(monkeypatch)
    this = prepared()
    seconds, complete = choice.calibrate(this, "bfloat16", choice._Judge(this, TILES), ["torch", "onnx"])
    assert complete
    assert set(seconds) == {"torch", "onnx"}


def test_calibration_ends_in_time(empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "_CALIBRATION_SECONDS", 0.0)
    this = prepared()
    assert choice.calibrate(this, "float32", choice._Judge(this, TILES), list(RUNTIMES)) == ({}, False)
    assert choose_backend(this, "auto", "float32", TILES, checked=True)[0].name == "torch"


def test_a_busy_machine_is_asked_again_but_not_for_ever(empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[bool] = []
    answer: tuple[dict[str, float], bool] = ({"torch": 8.0}, False)

    def calibrate(*_: object) -> tuple[dict[str, float], bool]:
        calls.append(answer[1])
        return answer

    monkeypatch.setattr(choice, "calibrate", calibrate)
    for _ in range(5):
        assert choose_backend(prepared(), "auto", "float32", TILES, checked=True)[0].name == "torch"
    assert len(calls) == 3
    # An answer in between counts for good.
    (kept,) = (empty_cache / "calibration").iterdir()
    kept.unlink()
    choose_backend(prepared(), "auto", "float32", TILES, checked=True)
    answer = ({"torch": 8.0, "openvino": 4.0}, True)
    for _ in range(3):
        assert choose_backend(prepared(), "auto", "float32", TILES, checked=True)[0].name == "openvino"
    assert calls.count(True) == 1


@pytest.mark.usefixtures("only_torch")
def test_without_extras_auto_is_torch(empty_cache: Path) -> None:
    assert choose_backend(prepared(), "auto", "float32", TILES, checked=True)[0].name == "torch"
    assert not empty_cache.exists()


@pytest.mark.usefixtures("only_torch")
def test_a_backend_that_is_not_installed_is_refused_with_the_remedy() -> None:
    with pytest.raises(
        OptionsError,
        match=r"backend 'onnx' needs onnxruntime and onnx, not installed here; "
        r'pip install "napari-tiled-unet\[onnx\]"',
    ):
        Runner(network(), torch.sigmoid, CPU, torch.float32, backend="onnx")


def test_a_backend_that_cannot_use_the_device_or_format_is_refused() -> None:
    with pytest.raises(OptionsError, match="backend 'openvino' runs on the CPU, the device is meta"):
        Runner(network(), torch.sigmoid, torch.device("meta"), torch.float32, backend="openvino")
    with pytest.raises(OptionsError, match="backend 'onnx' computes in float32, not in bfloat16"):
        Runner(network(), torch.sigmoid, CPU, torch.bfloat16, backend="onnx")
    # A format that was not asked for gives way.
    runner = Runner(network(), torch.sigmoid, CPU, torch.bfloat16, backend="onnx", checked=True)
    runner.run(TILES)
    assert (runner.backend, runner.precision) == ("onnx", "float32")


def test_backends_of_the_processor_choose_it() -> None:
    assert choose_device("auto", "openvino") == CPU
    assert choose_device("auto", "onnx") == CPU


def test_the_crop_is_where_something_is() -> None:
    tiles = np.zeros((1, 1, 512, 768), np.float32)
    tiles[0, 0, 300, 700] = 1
    crop = busiest_crop(tiles, (16, 16))
    assert crop.shape == (1, 1, 256, 192)
    assert crop.max() == 1
    small = tiles[..., :7, :9]
    assert busiest_crop(small, (16, 16)).shape == small.shape
    assert busiest_crop(np.zeros((2, 3, 96, 128, 128), np.float32), (8, 8, 8)).shape == (1, 3, 48, 32, 32)


@pytest.mark.parametrize("backend", ["openvino", "onnx"])
def test_conversions_are_kept_and_repaired(backend: str, empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    this = prepared()
    RUNTIMES[backend].build(this, "float32")
    (folder,) = (empty_cache / "converted").iterdir()
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    RUNTIMES[backend].build(this, "float32")
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before
    for path in folder.iterdir():
        path.write_bytes(b"damaged")
    running = RUNTIMES[backend].build(this, "float32")
    np.testing.assert_allclose(running.run(TILES), plain(this.network, TILES), atol=1e-4)


def test_other_weights_are_another_conversion(empty_cache: Path) -> None:
    one, other = network(), network()
    first = conversion.fingerprint(one, torch.sigmoid)
    assert conversion.fingerprint(other, torch.sigmoid) == first
    assert conversion.fingerprint(one, torch.relu) != first
    with torch.no_grad():
        other.head.bias.add_(1e-3)
    assert conversion.fingerprint(other, torch.sigmoid) != first


def test_the_oldest_conversions_go(empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversion, "_KEPT", 2)
    made = [
        conversion.converted(prepared(), f"kind{i}", lambda _, __, folder: (folder / "x").touch()) for i in range(4)
    ]
    assert [folder.exists() for folder in made] == [False, False, True, True]


def test_a_cache_that_cannot_be_written_costs_only_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("TILED_UNET_CACHE", str(tmp_path / "file" / "cache"))
    backend, _ = choose_backend(prepared(), "openvino", "float32", TILES, checked=True)
    assert backend.name == "openvino"
    choose_backend(prepared(), "auto", "float32", TILES, checked=True)


def test_the_cache_is_the_users_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TILED_UNET_CACHE")
    assert "napari-tiled-unet" in str(conversion.cache_folder())


def test_freed_memory_is_kept_only_while_runners_live(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[object] = []

    class Library:
        def mallopt(self, number: int, value: int) -> None:
            calls.append((number, value))

        def malloc_trim(self, pad: int) -> None:
            calls.append("trimmed")

    monkeypatch.setattr(retention, "_glibc", Library)
    one = Runner(network(), torch.sigmoid, CPU, torch.float32)
    two = Runner(network(), torch.sigmoid, CPU, torch.float32)
    assert calls == [(-4, 0), (-1, -1), (-8, 1)]
    del one
    assert "trimmed" not in calls
    del two
    assert calls[3:] == [(-4, 65536), (-1, 131072), (-8, 0), "trimmed"]


def test_large_tiles_keep_their_memory_too() -> None:
    """A limit on what is kept would have the system clear gigabytes at every layer of a large tile."""
    if retention._glibc() is None or psutil.virtual_memory().available < 5 * 2**30:
        pytest.skip("needs glibc and 5 GiB of free memory")
    script = """
import ctypes, psutil
from napari_tiled_unet.backends.retention import keep_freed_memory

library = ctypes.CDLL(None)
library.malloc.restype, library.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
library.free.argtypes = [ctypes.c_void_p]
give_back = keep_freed_memory()
before = psutil.Process().memory_info().rss
blocks = [library.malloc(2**28) for _ in range(10)]
for block in blocks:
    ctypes.memset(block, 1, 2**28)
for block in blocks:
    library.free(block)
kept = psutil.Process().memory_info().rss - before
give_back()
left = psutil.Process().memory_info().rss - before
print(kept > 2 * 2**30, left < 2**28)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "True"]


def test_other_c_libraries_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "_glibc", lambda: None)
    retention.keep_freed_memory()()
    assert retention._kept.inside == 0


def test_a_signal_after_openvino_is_survived() -> None:
    """Signal stacks of models that are gone must not be used."""
    pytest.importorskip("openvino")
    script = """
        import faulthandler, os, signal, torch
        faulthandler.enable()
        torch.set_num_threads(2)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        from napari_tiled_unet.backends.openvino import OpenvinoBackend
        from tests.backends.test_choice import prepared
        first, second = (OpenvinoBackend(prepared(), "float32") for _ in range(2))
        del first
        del second
        os.kill(os.getpid(), signal.SIGCHLD)
        print("alive")
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=False)
    assert done.stdout == "alive\n", (done.returncode, done.stderr[-2000:])


def test_without_room_for_compiled_kernels_torch_uses_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    held = prepared()
    backend = TorchBackend(held, "float32")
    expected = backend.run(TILES)

    def no_room(x: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("could not create a primitive")

    monkeypatch.setattr(backend._network, "forward", no_room)
    with pytest.raises(RuntimeError, match="could not create a primitive"):
        backend.run(TILES)
    enabled: list[Any] = []
    backend._network.register_forward_pre_hook(lambda *_: enabled.append(torch.backends.mkldnn.enabled))
    np.testing.assert_allclose(backend.run(TILES), expected, atol=1e-5)
    assert enabled == [False]
    flags: Any = torch.backends.mkldnn
    assert flags.enabled, "put back"


@pytest.mark.parametrize("backend", ["torch", "onnx", "openvino"])
def test_a_network_goes_when_nobody_uses_it(backend: BackendName) -> None:
    model = blob_model()
    network = weakref.ref(model.network)
    segment(IMAGES[2], model, axes="yx", backend=backend, device="cpu", precision="float32")
    del model
    gc.collect()
    assert network() is None


def test_a_conversion_that_nobody_keeps_leaves_nothing_behind(empty_cache: Path) -> None:
    def write(network: Any, example: Any, folder: Path) -> None:
        (folder / "model.onnx").write_bytes(b"half")
        raise OSError("no space left on device")

    with pytest.raises(OSError, match="no space left"):
        conversion.converted(prepared(), "kind", write)
    assert list((empty_cache / "converted").iterdir()) == []

    def beaten(network: Any, example: Any, folder: Path) -> None:
        (folder / "model.onnx").write_bytes(b"mine")
        final = folder.parent / f"kind-{conversion.fingerprint(prepared_once.network, prepared_once.activate)}"
        final.mkdir()
        (final / "model.onnx").write_bytes(b"theirs")

    prepared_once = prepared()
    folder = conversion.converted(prepared_once, "kind", beaten)
    assert (folder / "model.onnx").read_bytes() == b"theirs"
    assert list((empty_cache / "converted").iterdir()) == [folder]


def test_where_the_cache_cannot_be_written_nothing_stays_after_the_process(tmp_path: Path) -> None:
    script = """
        import numpy as np
        from napari_tiled_unet import segment
        segment(np.zeros((40, 40), np.uint8), "nuclei", backend="onnx", device="cpu", precision="float32")
    """
    nowhere = tmp_path / "file"
    nowhere.write_text("no folder")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    environment = {**os.environ, "TILED_UNET_CACHE": str(nowhere / "cache"), "TMPDIR": str(scratch)}
    command = [sys.executable, "-W", "ignore", "-c", textwrap.dedent(script)]
    subprocess.run(command, check=True, env=environment)
    assert list(scratch.glob("tiled-unet*")) == []


def test_changed_buffers_are_another_network() -> None:
    model = blob_model()
    options: dict[str, Any] = {"axes": "yx", "backend": "torch", "device": "cpu", "precision": "float32"}
    assert segment(IMAGES[2], model, **options).any()
    with torch.no_grad():
        for name, buffer in model.network.named_buffers():
            if name.endswith("running_mean"):
                buffer.add_(5)
    assert not segment(IMAGES[2], model, **options).any()


def test_a_model_of_inference_mode_runs() -> None:
    with torch.inference_mode():
        labels = segment(IMAGES[2], blob_model(), axes="yx", backend="torch", device="cpu", precision="float32")
    np.testing.assert_array_equal(labels, segment(IMAGES[2], blob_model(), axes="yx", backend="torch", device="cpu"))
