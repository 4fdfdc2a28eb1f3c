"""Out of memory is a slowdown, and the labels are the same."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch

from napari_tiled_unet import MemoryBudgetError, iter_segment, segment
from napari_tiled_unet.events import Finished, Notice, Planned, TileDone
from napari_tiled_unet.runtime import Runner
from tests.models import blobs

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

        def run():
            events = list(iter_segment(image, model, precision="float32", memory=8, overlap="exact", seam_windows=0))
            return events[-1].labels, [e.message for e in events if isinstance(e, Notice)]

        tile = image[:128, :128]
        list(iter_segment(tile, model, precision="float32"))  # threads and libraries take their address space
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
