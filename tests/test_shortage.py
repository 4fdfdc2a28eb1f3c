"""Out of memory is a slowdown, and the labels are the same."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from napari_tiled_unet import MemoryBudgetError, iter_segment, predict, runtime, segment, shortage
from napari_tiled_unet.backends import choice as backend_choice
from napari_tiled_unet.events import Finished, Notice, Planned, TileDone
from napari_tiled_unet.runtime import Runner
from napari_tiled_unet.targets import Objects
from tests.models import blob_model, blobs

PLANE = blobs((200, 160), [(20, 20), (70, 30), (50, 100), (90, 120), (150, 80), (180, 20)])


@pytest.fixture
def small_device(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Make networks fail above 5000 voxels, as a device does; the sizes that were tried."""
    tried: list[int] = []
    run = Runner.run

    def limited(self: Runner, tiles: np.ndarray) -> np.ndarray:
        tried.append(tiles.size)
        if tiles.size > 5000:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB")
        return run(self, tiles)

    monkeypatch.setattr(Runner, "run", limited)
    return tried


@pytest.mark.parametrize("blend", ["crop", "gaussian"])
@pytest.mark.parametrize("tile", ["auto", 120])
def test_tiles_get_smaller_until_they_fit(small_device: list[int], blend: str, tile: str | int) -> None:
    stack = np.stack([PLANE, PLANE[::-1]])
    chosen = {"overlap": 10, "blend": blend, "tile": tile, "axes": "tyx", "precision": "float32"}
    events = list(iter_segment(stack, "blobs", **chosen))
    notices = [e.message for e in events if isinstance(e, Notice)]
    assert any("memory ran out: tiles of" in message for message in notices)
    plans = [e for e in events if isinstance(e, Planned)]
    assert len(plans) > 1
    assert np.prod(plans[-1].plan.tile) <= 5000 < np.prod(plans[0].plan.tile)
    assert plans[-1].plan.overlap == plans[0].plan.overlap
    assert plans[-1].n_tiles == len([e for e in events if isinstance(e, TileDone)]) == 2 * len(plans[-1].plan)
    finished = events[-1]
    assert finished.provenance["tile"] == list(plans[-1].plan.tile)
    first = next(i for i, size in enumerate(small_device) if size <= 5000)
    assert max(small_device[first:]) <= 5000, "what was learned is kept for the next frame"
    small_device.clear()
    expected = segment(stack, "blobs", axes="tyx", precision="float32", tile=64, overlap=10)
    np.testing.assert_array_equal(finished.labels, expected)


def test_no_tile_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(self: Runner, tiles: np.ndarray) -> np.ndarray:
        raise RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes")

    monkeypatch.setattr(Runner, "run", never)
    with pytest.raises(MemoryBudgetError, match=r"a tile of .* ran out of memory.*; no smaller tile is possible"):
        segment(PLANE, "blobs")


def test_maps_that_do_not_fit_lie_in_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = segment(PLANE, "blobs")
    monkeypatch.setattr("napari_tiled_unet.framewise._MAPS_PART", 0.0)
    events = list(iter_segment(PLANE, "blobs", keep_maps=True))
    assert any("lie in a temporary file" in e.message for e in events if isinstance(e, Notice))
    np.testing.assert_array_equal(events[-1].labels, expected)
    assert events[-1].maps.shape == (2, *PLANE.shape)


def test_labels_do_not_depend_on_whether_maps_are_kept() -> None:
    kept = [e for e in iter_segment(PLANE, "blobs", keep_maps=True) if isinstance(e, Finished)]
    np.testing.assert_array_equal(kept[0].labels, segment(PLANE, "blobs"))
    assert kept[0].maps.dtype == np.float32


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="limits of the address space are those of Linux")
def test_a_process_with_little_memory_finishes() -> None:
    """The host's allocator fails for real, and the run goes on with smaller tiles."""
    script = """
        import resource
        import numpy as np, torch
        from napari_tiled_unet import iter_segment
        from napari_tiled_unet.events import Finished, Notice
        from napari_tiled_unet.networks.zoo import build_network, network_spec
        from napari_tiled_unet.model import Model, ModelSpec
        from napari_tiled_unet.targets import Objects

        torch.manual_seed(0)
        torch.set_num_threads(1)
        network = build_network(network_spec("unet", width=24, depth=1, out_channels=2)).eval()
        spec = ModelSpec(name="random", axes="yx", channels=("c",), network=network.spec, target=Objects())
        model = Model(spec, network)
        image = np.random.default_rng(0).integers(0, 255, (640, 640), np.uint8)
        plain = {"precision": "float32", "backend": "torch"}

        def run():
            events = list(iter_segment(image, model, **plain, memory=8, overlap="exact", seam_windows=0))
            return events[-1].labels, [e.message for e in events if isinstance(e, Notice)]

        tile = image[:128, :128]
        list(iter_segment(tile, model, **plain))  # threads and libraries take their address space
        used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + 150 * 2**20, resource.RLIM_INFINITY))
        limited, said = run()
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        free, nothing = run()
        assert any("memory ran out" in message for message in said), said
        assert not nothing, nothing
        assert np.mean(limited != free) < 1e-3, np.mean(limited != free)
        print("same labels")
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "same labels", done.stderr[-2000:]


def test_rescaled_labels_do_not_depend_on_whether_maps_are_kept() -> None:
    rng = np.random.default_rng(5)
    noisy = PLANE + rng.integers(0, 700, PLANE.shape).astype(PLANE.dtype)
    kept = list(iter_segment(noisy, "blobs", object_size=17, keep_maps=True, precision="float32"))[-1]
    np.testing.assert_array_equal(kept.labels, segment(noisy, "blobs", object_size=17, precision="float32"))
    assert kept.maps.dtype == np.float32
    assert kept.maps.shape == (2, *PLANE.shape)


@pytest.mark.parametrize("chosen", [{"blend": "gaussian"}, {"object_size": 17}])
def test_maps_on_the_disk_stay_there(chosen: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    expected = segment(PLANE, "blobs", **chosen)
    monkeypatch.setattr("napari_tiled_unet.framewise._MAPS_PART", 0.0)
    decoded: list[np.ndarray] = []
    decode = Objects.decode

    def seen(self: Objects, maps: np.ndarray, options: Any) -> np.ndarray:
        decoded.append(maps)
        return decode(self, maps, options)

    monkeypatch.setattr(Objects, "decode", seen)
    for keep in (False, True):
        events = list(iter_segment(PLANE, "blobs", keep_maps=keep, **chosen))
        assert isinstance(decoded[-1].base if decoded[-1].base is not None else decoded[-1], np.memmap | mmap.mmap)
        np.testing.assert_array_equal(events[-1].labels, expected)


def test_a_full_disk_is_said_before_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int, start: int, size: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shortage.os, "posix_fallocate", full, raising=False)
    with pytest.raises(
        MemoryBudgetError, match=r"fits neither the memory nor .* \(No space left on device\); make room"
    ):
        shortage.zeros_or_disk((10, 10), np.float32, free=0)


@pytest.mark.parametrize("allocates", [True, False])
def test_room_on_the_disk_is_taken_at_once(allocates: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not allocates:
        monkeypatch.delattr(shortage.os, "posix_fallocate", raising=False)
        monkeypatch.setattr(shortage, "_CLAIMED_AT_ONCE", 300)
    taken: list[int] = []
    memmap = np.memmap

    def made(file: Any, *rest: Any, **named: Any) -> Any:
        taken.append(os.fstat(file.fileno()).st_blocks * 512)
        return memmap(file, *rest, **named)

    monkeypatch.setattr(shortage.np, "memmap", made)
    array = shortage.zeros_or_disk((100, 100), np.float32, free=0)
    assert taken[0] >= array.nbytes
    assert not array.any()
    assert shortage.is_on_disk(array)
    assert not shortage.is_on_disk(array.astype(np.float16))


def test_memory_that_is_short_for_the_certificate_costs_only_that(monkeypatch: pytest.MonkeyPatch) -> None:
    def short(*arguments: Any, **named: Any) -> None:
        raise RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes")

    monkeypatch.setattr("napari_tiled_unet.framewise.certify", short)
    events = list(iter_segment(PLANE, "blobs", tile=64, overlap=10))
    assert events[-1].provenance["seam_error"] is None
    np.testing.assert_array_equal(events[-1].labels, segment(PLANE, "blobs"))

    def broken(*arguments: Any, **named: Any) -> None:
        raise RuntimeError("something else")

    monkeypatch.setattr("napari_tiled_unet.framewise.certify", broken)
    with pytest.raises(RuntimeError, match="something else"):
        segment(PLANE, "blobs", tile=64, overlap=10)


def test_tiles_fit_the_number_format_that_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "choose_precision", lambda *_: torch.bfloat16)
    monkeypatch.setitem(backend_choice.MAP_TOLERANCE, "bfloat16", -1.0)
    chosen = {"overlap": 10, "memory": 0.001, "backend": "torch", "flips": True}
    stack = np.stack([PLANE, PLANE[::-1]])
    events = list(iter_segment(stack, blob_model(), axes="tyx", **chosen))
    said = [e.message for e in events if isinstance(e, Notice)]
    assert any("the network runs in float32, whose numbers are larger: tiles of" in message for message in said)
    first, second = (e for e in events if isinstance(e, Planned))
    assert np.prod(second.plan.tile) < np.prod(first.plan.tile)
    assert (first.precision, second.precision) == ("bfloat16", "float32")
    assert second.n_tiles == 2 * len(second.plan)
    assert events[-1].provenance["precision"] == "float32"
    assert events[-1].provenance["tile"] == list(second.plan.tile)
    monkeypatch.undo()
    expected = segment(
        stack, blob_model(), axes="tyx", precision="float32", tile=second.plan.tile, **{**chosen, "memory": 1}
    )
    assert np.array_equal(events[-1].labels, expected)


@pytest.mark.parametrize("where", ["_Work._read", "to_half", "_blend"])
def test_memory_that_is_short_beside_the_network_costs_only_time(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = segment(PLANE, "blobs", precision="float32")
    owner: Any = predict._Work if "." in where else predict
    name = where.rpartition(".")[2]
    right = getattr(owner, name)
    failed: list[int] = []

    def short(*arguments: Any) -> Any:
        if not failed:
            failed.append(1)
            raise MemoryError
        return right(*arguments)

    monkeypatch.setattr(owner, name, short)
    events = list(iter_segment(PLANE, "blobs", precision="float32"))
    assert failed
    assert any("memory ran out: tiles of" in e.message for e in events if isinstance(e, Notice))
    np.testing.assert_array_equal(events[-1].labels, expected)


def test_labels_are_made_again_with_what_was_kept_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = segment(PLANE, "blobs")
    decode, calls = Objects.decode, []

    def short(self: Objects, *arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == 1:
            raise MemoryError
        return decode(self, *arguments)

    monkeypatch.setattr(Objects, "decode", short)
    np.testing.assert_array_equal(segment(PLANE, "blobs"), expected)
    assert len(calls) == 2

    def never(self: Objects, *arguments: Any) -> Any:
        raise MemoryError

    monkeypatch.setattr(Objects, "decode", never)
    with pytest.raises(MemoryBudgetError, match=r"labels were made of the maps of \(200, 160\) voxels; close other"):
        segment(PLANE, "blobs")


def test_no_room_for_a_file_in_the_address_space_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> Any:
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(np, "memmap", full)
    with pytest.raises(MemoryBudgetError, match=r"fits neither the memory nor .*Cannot allocate memory"):
        shortage.zeros_or_disk((4, 5), np.float32, free=0)
