"""What is installed is the whole plugin: from a wheel, from an sdist, and from a working copy."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from collections.abc import Callable
from email.message import Message
from email.parser import Parser
from pathlib import Path

import pytest

import napari_tiled_unet

ROOT = Path(__file__).parents[1]
MANIFEST = ROOT / "napari.yaml"
NAME = "napari-tiled-unet"

# Runs npe2 with the installed plugin in front of any other copy of it.
VALIDATE = """
import site, sys
from importlib.metadata import distribution

others = list(sys.path)
site.addsitedir(sys.argv[1])
sys.path[:] = [path for path in sys.path if path not in others] + others

import napari_tiled_unet
from npe2 import PluginManifest

print(distribution("napari-tiled-unet").locate_file(""))
print(napari_tiled_unet.__file__)
print(*(widget.command for widget in PluginManifest.from_distribution("napari-tiled-unet").contributions.widgets))

from npe2.cli import main
sys.argv = ["npe2", "validate", "--imports", "napari-tiled-unet"]
main()
"""


def python(*arguments: str | Path, cwd: Path) -> str:
    """Run this Python and return what it printed; the coverage of other copies is not measured."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the sdist, and the wheel that was built from it."""
    folder = tmp_path_factory.mktemp("dist")
    python("-m", "build", "--no-isolation", "--outdir", folder, ROOT, cwd=folder)
    return folder


@pytest.fixture
def install(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that installs into an empty folder, without network, and returns where packages lie."""

    def installed(*what: str | Path) -> Path:
        options = ["--quiet", "--no-index", "--no-deps", "--no-build-isolation", "--disable-pip-version-check"]
        python("-m", "pip", "install", *options, "--ignore-installed", "--prefix", tmp_path, *what, cwd=tmp_path)
        scheme = {"base": str(tmp_path), "platbase": str(tmp_path)}
        return Path(sysconfig.get_path("purelib", scheme="posix_prefix", vars=scheme))

    return installed


@pytest.mark.parametrize("kind", ["wheel", "sdist", "editable"])
def test_npe2_finds_a_valid_manifest(kind: str, built: Path, install: Callable[..., Path]) -> None:
    if kind == "editable":
        packages = install("--editable", ROOT)
    else:
        packages = install(*built.glob("*.whl" if kind == "wheel" else "*.tar.gz"))
    told = python("-c", VALIDATE, packages, cwd=packages).splitlines()
    assert Path(told[0]) == packages
    assert Path(told[1]).parent == (ROOT / "src" if kind == "editable" else packages) / "napari_tiled_unet"
    assert f"{NAME}.segment" in told[2].split()
    assert "Manifest for 'Tiled U-Net' valid" in told[-1]


def test_the_manifest_is_one_file(built: Path) -> None:
    assert (ROOT / "src/napari_tiled_unet/napari.yaml").resolve() == MANIFEST
    with zipfile.ZipFile(next(built.glob("*.whl"))) as wheel:
        assert wheel.read("napari_tiled_unet/napari.yaml") == MANIFEST.read_bytes()


def test_the_wheel_carries_what_the_package_needs(built: Path) -> None:
    with zipfile.ZipFile(next(built.glob("*.whl"))) as wheel:
        names = set(wheel.namelist())
    needed = (
        "py.typed",
        "samples/nuclei_2d.tif",
        "samples/README.md",
        "weights/nuclei.safetensors",
        "weights/README.md",
    )
    assert {f"napari_tiled_unet/{name}" for name in needed} <= names
    assert {name.partition("/")[0] for name in names} == {
        "napari_tiled_unet",
        f"napari_tiled_unet-{napari_tiled_unet.__version__}.dist-info",
    }


def test_the_sdist_carries_what_a_developer_needs(built: Path) -> None:
    with tarfile.open(next(built.glob("*.tar.gz"))) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    assert {
        "LICENSE",
        "Makefile",
        ".ci/system-packages",
        "constraints.txt",
        "napari.yaml",
        "tests/conftest.py",
    } <= names


def metadata(built: Path) -> Message:
    with zipfile.ZipFile(next(built.glob("*.whl"))) as wheel:
        name = next(name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
        return Parser().parsestr(wheel.read(name).decode())


def test_the_metadata_name_version_and_licence(built: Path) -> None:
    told = metadata(built)
    assert told["Name"] == NAME
    assert told["Version"] == napari_tiled_unet.__version__
    assert told["License-Expression"] == "BSD-3-Clause"
    assert "Framework :: napari" in told.get_all("Classifier", [])


def test_the_base_install_is_headless(built: Path) -> None:
    needed = metadata(built).get_all("Requires-Dist", [])
    base = " ".join(line.lower() for line in needed if "extra ==" not in line)
    assert "torch" in base
    for viewer in ("napari", "qt", "pyside", "magicgui"):
        assert viewer not in base
