"""The public face: its names, what it does not load, and that it needs no viewer."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import napari_tiled_unet

HEAVY = ("torch", "napari", "qtpy", "magicgui", "numpy", "scipy", "skimage", "zarr", "pydantic")

IMPORT = f"""
import sys
import napari_tiled_unet
print(*(name for name in {HEAVY} if name in sys.modules))
"""

# The bundled model on a drawn image: two discs on a dark ground.
WITHOUT_VIEWER = """
import sys
from importlib.abc import MetaPathFinder

BLOCKED = {"napari", "npe2", "magicgui", "qtpy", "superqt", "PyQt5", "PyQt6", "PySide2", "PySide6"}

class Blocker(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in BLOCKED:
            raise ImportError(f"{name} is blocked")
        return None

sys.meta_path.insert(0, Blocker())

import numpy as np
import napari_tiled_unet as tiled_unet

y, x = np.ogrid[:128, :160]
image = np.full((128, 160), 100, np.uint16)
for centre in ((40, 40), (80, 110)):
    image[(y - centre[0]) ** 2 + (x - centre[1]) ** 2 < 12**2] = 1000

assert "nuclei" in [entry.name for entry in tiled_unet.list_models()]
labels = tiled_unet.segment(image, model=tiled_unet.load_model("nuclei"))
assert labels.shape == image.shape
events = [type(event).__name__ for event in tiled_unet.iter_segment(image, options=tiled_unet.SegmentOptions())]
assert {"Planned", "TileDone", "FrameDone", "Finished"} <= set(events), events
tiled_unet.write_labels("labels.ome.tif", labels, "yx", (0.5, 0.5))
again = tiled_unet.read_image("labels.ome.tif")
assert np.array_equal(np.asarray(again.data), labels)
assert not BLOCKED & {name.partition(".")[0] for name in sys.modules}
print(labels.max())
"""


def run(code: str, cwd: Path | None = None) -> str:
    """Run code in a Python of its own and return what it printed."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], cwd=cwd, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_import_loads_nothing_heavy() -> None:
    assert run(IMPORT) == ""


def test_the_api_runs_without_napari_and_qt(tmp_path: Path) -> None:
    assert run(WITHOUT_VIEWER, cwd=tmp_path) == "2"


def test_a_run_loads_no_compiler() -> None:
    # It takes a second or two of every process; tiles and strips are counted in different ways.
    code = """
import sys
import numpy as np
from napari_tiled_unet import iter_segment, strips
from napari_tiled_unet.events import Planned
strips._STRIP_VOXELS = (2**14,)
image = np.random.default_rng(0).integers(0, 255, (1024, 256), np.uint8)
plans = []
for options in ({"tile": (256, 256)}, {"memory": 0.08}):
    run = iter_segment(image, "nuclei", axes="yx", backend="torch", precision="float32", **options)
    plans += [type(event.plan).__name__ for event in run if isinstance(event, Planned)]
assert plans == ["TilePlan", "StripPlan"], plans
print(*(name for name in ("sympy", "torch._dynamo", "torch._inductor") if name in sys.modules))
"""
    assert run(code) == ""


def test_the_public_names_are_these() -> None:
    assert set(napari_tiled_unet.__all__) == {
        "FileError",
        "Image",
        "ImageError",
        "MemoryBudgetError",
        "ModelError",
        "OptionsError",
        "Place",
        "SegmentOptions",
        "TiledUnetError",
        "TrainOptions",
        "__version__",
        "evaluate",
        "iter_segment",
        "iter_train",
        "list_models",
        "load_model",
        "read_image",
        "segment",
        "train",
        "write_labels",
    }
    assert set(napari_tiled_unet.__all__) <= set(dir(napari_tiled_unet))


@pytest.mark.parametrize("name", napari_tiled_unet.__all__)
def test_every_public_name_is_what_it_says(name: str) -> None:
    value = getattr(napari_tiled_unet, name)
    assert getattr(value, "__name__", name) == name


def test_a_submodule_does_not_hide_a_function() -> None:
    # ``import napari_tiled_unet.x`` sets x on the package, over a public function of that name.
    for name in napari_tiled_unet.__all__:
        with pytest.raises(ImportError):
            __import__(f"napari_tiled_unet.{name}")


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'segmnt'"):
        _ = napari_tiled_unet.segmnt
