"""What the documentation shows works: its Python is run, its commands too."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from napari_tiled_unet import cli, write_labels
from napari_tiled_unet.demo import read_sample

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"^```(?P<language>\w*)\n(?P<code>.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(page: str, language: str) -> list[str]:
    """Return the code blocks of a page."""
    found = BLOCK.finditer((ROOT / page).read_text(encoding="utf-8"))
    return [match["code"] for match in found if match["language"] == language]


def commands(page: str) -> Iterator[list[str]]:
    """Yield the arguments of every ``tiled-unet`` line of a page."""
    for code in blocks(page, "sh"):
        for line in code.splitlines():
            name, *arguments = shlex.split(line, comments=True) or [""]
            if name == "tiled-unet":
                yield arguments


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Go to a folder with the files that the pages speak of: parts of the bundled sample."""
    sample = np.asarray(read_sample().data)[:128, :160]
    (tmp_path / "plate").mkdir()
    for name in ("field.ome.tif", "plate/a.ome.tif", "plate/b.ome.tif"):
        write_labels(tmp_path / name, sample, "yx", (0.5, 0.5))
    write_labels(tmp_path / "stack.ome.tif", np.stack([sample] * 3), "zyx", (2.0, 0.5, 0.5))
    (tmp_path / "recipe.yaml").write_text("recipe: 1\nmodel: nuclei\nmin_size: 30\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("page", ["README.md", "docs/python.md"])
def test_the_python_of_the_pages_runs(page: str, desk: Path) -> None:
    names: dict[str, object] = {}
    code = blocks(page, "python")
    assert code
    for block in code:
        exec(compile(block, page, "exec"), names)
    labels = names["labels"]
    assert isinstance(labels, np.ndarray)
    assert labels.max() > 0


@pytest.mark.parametrize("page", ["README.md", "docs/install.md", "docs/command-line.md"])
def test_the_commands_of_the_pages_work(page: str, desk: Path) -> None:
    lines = list(commands(page))
    assert lines
    for arguments in lines:
        # Wild cards are the shell's.
        expanded = [name for a in arguments for name in (sorted(map(str, Path().glob(a))) if "*" in a else [a])]
        assert cli.run(expanded) == cli.DONE, arguments


@pytest.mark.parametrize("page", ["README.md", *(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))])
def test_links_lead_to_files(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    targets = [target.partition("#")[0] for target in re.findall(r"\]\(([^)\s]+)\)", text)]
    missing = [t for t in targets if t and "://" not in t and not (ROOT / page).parent.joinpath(t).exists()]
    assert not missing
