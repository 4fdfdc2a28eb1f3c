"""What runs is settled on something, given back after a run, and chosen alike by whoever asks."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from napari_tiled_unet import iter_segment, segment
from napari_tiled_unet.backends import conversion
from napari_tiled_unet.backends.choice import busiest_part
from napari_tiled_unet.backends.interface import Prepared, Sides
from napari_tiled_unet.backends.pytorch import TorchBackend
from napari_tiled_unet.errors import OptionsError
from napari_tiled_unet.events import Finished, Notice, Planned
from napari_tiled_unet.frame_plan import first_choice
from napari_tiled_unet.model import Model, ModelSpec
from napari_tiled_unet.networks.zoo import build_network, network_spec
from napari_tiled_unet.normalise import Statistics
from napari_tiled_unet.options import BackendName, SegmentOptions
from napari_tiled_unet.targets import Objects
from tests.backends.test_choice import spoil_bfloat16
from tests.models import blob_model, blobs

PLANE = blobs((200, 160), [(20, 20), (70, 30), (50, 100), (90, 120), (150, 80), (180, 20)])
GIB = 2**30


def random_model(ndim: int = 2, **choices: Any) -> Model:
    torch.manual_seed(0)
    network = build_network(network_spec("unet", ndim=ndim, out_channels=2, **choices)).eval()
    axes = "zyx"[-ndim:]
    return Model(ModelSpec(name="random", axes=axes, channels=("c",), network=network.spec, target=Objects()), network)


def ran(data: Any, model: Model, **chosen: Any) -> tuple[str, list[str]]:
    """Return the precision that ran and what was said."""
    events = list(iter_segment(data, model, **chosen))
    (finished,) = (e for e in events if isinstance(e, Finished))
    return finished.provenance["precision"], [e.message for e in events if isinstance(e, Notice)]


class TestContent:
    @pytest.fixture(autouse=True)
    def bfloat16(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Have bfloat16, whose maps are too far off wherever there is anything in the image."""
        monkeypatch.setattr("napari_tiled_unet.runtime._cpu_has_bfloat16", lambda: True)
        right = TorchBackend.run

        def spoiled(self: TorchBackend, tiles: np.ndarray) -> np.ndarray:
            off = 0.06 if self.precision == "bfloat16" and tiles.std() > 0 else 0
            return right(self, tiles) + off

        monkeypatch.setattr(TorchBackend, "run", spoiled)

    @pytest.mark.filterwarnings("ignore:channel 0")
    def test_a_blank_image_proves_nothing(self) -> None:
        model = blob_model()
        assert ran(np.zeros_like(PLANE), model, backend="torch")[0] == "bfloat16"
        precision, said = ran(PLANE, model, backend="torch")
        assert precision == "float32"
        assert any("maps computed by torch in bfloat16 differ from float32" in message for message in said)

    def test_nor_does_a_blank_tile(self) -> None:
        large = np.pad(PLANE, ((400, 0), (0, 0)))
        assert ran(large, blob_model(), backend="torch", tile=160, overlap=10)[0] == "float32"
        # The frame after a blank one, in one run.
        stack = np.stack([np.zeros_like(PLANE), PLANE])
        assert ran(stack, blob_model(), axes="tyx", backend="torch")[0] == "float32"

    def test_what_was_proven_is_not_asked_again(self, monkeypatch: pytest.MonkeyPatch) -> None:
        built: list[str] = []
        make = TorchBackend.__init__

        def counted(self: TorchBackend, prepared: Prepared, precision: str) -> None:
            built.append(precision)
            make(self, prepared, precision)

        monkeypatch.setattr(TorchBackend, "__init__", counted)
        model = blob_model()
        for _ in range(3):
            ran(PLANE, model, backend="torch")
        assert built == ["bfloat16", "float32", "float32"], "one given up, one to compare with, one that runs"


def test_the_busiest_part_of_a_frame_is_found() -> None:
    frame = np.zeros((1, 3000, 1000), np.uint16)
    frame[0, 2500:2600, 700:800] = np.random.default_rng(0).integers(0, 1000, (100, 100))
    part = busiest_part(frame, Statistics((0.0,), (1e-3,)), (16, 16))
    assert part[0, 0].size <= 2**16
    assert part.std() > 0.01
    # At the far ends too, where no whole box is left.
    frame[0, 2500:2600, 700:800] = 0
    frame[0, 2990:, 990:] = 1000
    assert busiest_part(frame, Statistics((0.0,), (1e-3,)), (16, 16)).max() == 1
    small = busiest_part(frame[:, :5, :7], Statistics((0.0,), (1.0,)), (16, 16))
    assert small.shape == (1, 1, 5, 7)


def test_strips_are_not_planned_for_a_backend_that_takes_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first plan may be tiles, for bfloat16 in OpenVINO, and that of the fallback strips."""
    monkeypatch.setattr("napari_tiled_unet.runtime._cpu_has_bfloat16", lambda: True)
    monkeypatch.setattr("napari_tiled_unet.backends.choice._fastest", lambda *_: "openvino")
    from napari_tiled_unet.backends.openvino import OpenvinoBackend

    right = OpenvinoBackend.run

    def spoiled(self: OpenvinoBackend, tiles: np.ndarray) -> np.ndarray:
        return right(self, tiles) + (0.06 if self.precision == "bfloat16" else 0)

    monkeypatch.setattr(OpenvinoBackend, "run", spoiled)
    model = random_model(width=16, depth=3)
    asked: list[str] = []

    def watched(*arguments: Any, **keywords: Any) -> Any:
        asked.append(arguments[2].backend)
        return first_choice(*arguments, **keywords)

    monkeypatch.setattr("napari_tiled_unet.framewise.first_choice", watched)
    data = np.random.default_rng(0).random((300, 300), np.float32)
    events = list(iter_segment(data, model, memory=0.2))
    assert asked == ["openvino"]
    assert events[-1].provenance["backend"] == "openvino"
    assert events[-1].provenance["precision"] == "float32"


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="resident memory is read as Linux tells it")
@pytest.mark.parametrize("backend", ["openvino", "onnx"])
def test_memory_is_given_back_after_a_run(backend: BackendName) -> None:
    script = f"""
        import gc, psutil
        import numpy as np, torch
        torch.set_num_threads(1)
        from napari_tiled_unet import iter_segment
        from napari_tiled_unet.events import TileDone
        from tests.backends.test_settling import random_model

        model = random_model(width=16, depth=1)
        image = np.random.default_rng(0).integers(0, 255, (1000, 1000), np.uint8)
        plain = dict(backend="{backend}", precision="float32", memory=4, tile=1000)
        list(iter_segment(image[:64, :64], model, **plain))  # libraries take their room
        resident = psutil.Process().memory_info
        before = resident().rss
        events = iter_segment(image, model, **plain)
        for event in events:
            if isinstance(event, TileDone):
                break
        during = resident().rss
        events.close()
        del event
        gc.collect()
        after = resident().rss
        print((during - before) >> 20, (after - before) >> 20)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=False)
    during, after = map(int, done.stdout.split()) if done.stdout else pytest.fail(done.stderr[-2000:])
    assert during > 100
    assert after < 0.3 * during, (during, after)


def test_conversions_do_not_run_beside_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exporters keep what they are at in globals."""
    monkeypatch.setenv("TILED_UNET_CACHE", str(tmp_path))
    inside: list[int] = []
    busy = threading.Semaphore(2)

    def write(network: Any, example: torch.Tensor, folder: Path) -> None:
        busy.acquire()
        time.sleep(0.05)
        inside.append(2 - busy._value)
        (folder / "model").write_bytes(b"done")
        busy.release()

    networks = [build_network(network_spec("unet", width=2, depth=1)).eval() for _ in range(3)]
    every = [Prepared(network, torch.sigmoid, torch.device("cpu")) for network in networks]
    threads = [threading.Thread(target=conversion.converted, args=(each, "kind", write)) for each in (*every, *every)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert inside == [1, 1, 1], "one at a time, and each network once"


class TestNormsOfTheWholeInput:
    def test_auto_does_not_pay_for_what_cannot_be_exact(self) -> None:
        model = random_model(ndim=3, width=32, depth=4, norm="instance")
        choice = first_choice((64, 512, 512), model, SegmentOptions(), torch.float32, 4 * GIB, "cpu")
        assert choice.considered[0].work_ratio <= 3.5
        assert choice.caution is not None

    def test_the_viewer_sees_the_labels_of_the_python_function(self) -> None:
        model = random_model(width=16, depth=3, norm="instance")
        plans = [
            first_choice((1200, 1600), model, SegmentOptions(), torch.float32, 8 * GIB, "cpu", live=live).plan
            for live in (False, True)
        ]
        assert plans[0] == plans[1]

    def test_backends_pad_as_the_network_does(self) -> None:
        for choices, least in (({"norm": "instance"}, 2), ({"norm": "batch"}, 1), ({"norm": "group"}, 2)):
            network = random_model(width=8, depth=1, **choices).network
            assert (network.least_strides, Sides.of(network)((1, 1))) == (least, (2 * least, 2 * least))
        whole = build_network(network_spec("unet-efficientnet-b0", in_channels=1, out_channels=2))
        assert not whole.exact_tiling
        assert Sides.of(whole)((20, 200)) == (32, 224)


@pytest.mark.filterwarnings("ignore:tiles overlap by")
def test_smaller_tiles_that_are_not_exact_are_said_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    from napari_tiled_unet.runtime import Runner

    run = Runner.run

    def limited(self: Runner, tiles: np.ndarray) -> np.ndarray:
        if tiles.size > 9000:
            raise MemoryError
        return run(self, tiles)

    monkeypatch.setattr(Runner, "run", limited)
    events = list(iter_segment(PLANE, blob_model(), overlap=4, backend="torch", precision="float32"))
    assert len([e for e in events if isinstance(e, Planned)]) > 1
    cautions = [e.message for e in events if isinstance(e, Notice) and e.caution]
    assert len(cautions) == 1
    assert "less than the network's receptive field" in cautions[0]


def test_reduced_precision_spoiled_everywhere_is_given_up_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("napari_tiled_unet.runtime._cpu_has_bfloat16", lambda: True)
    spoil_bfloat16(monkeypatch)
    model = blob_model()
    said = [ran(PLANE, model, backend="torch")[1] for _ in range(2)]
    assert [len([m for m in messages if "differ from float32" in m]) for messages in said] == [1, 0]


@pytest.mark.parametrize("device", ["cuda:128", "cuda:99999999999999999999", "cuda:²", "cuda:-1", "cuda:01"])
def test_devices_that_cannot_be(device: str) -> None:
    with pytest.raises(OptionsError, match="device must be auto, cpu, cuda, cuda:N or mps"):
        SegmentOptions.of(device=device)


def test_memory_beyond_counting_is_much() -> None:
    assert segment(PLANE, blob_model(), memory=1e300).max() == 6


def test_flips_of_an_axis_of_one_voxel() -> None:
    model = random_model(width=2, depth=2, downsampling=((2, 1), (2, 1)))
    column = np.random.default_rng(0).random((40, 1))
    labels = segment(column, model, flips=True, backend="torch", precision="float32", axes="yx")
    assert labels.shape == (40, 1)
