"""What memory is free, control groups included."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest
import torch

from napari_tiled_unet import memory
from napari_tiled_unet.memory import GIB, free_memory, memory_budget

CPU = torch.device("cpu")


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand in for the folder of control groups, with nothing in it."""
    root = tmp_path / "cgroup"
    root.mkdir()
    monkeypatch.setattr(memory, "_GROUPS", root)
    monkeypatch.setattr(memory, "_OWN_GROUPS", tmp_path / "own")
    return root


def write(group: Path, **files: object) -> None:
    group.mkdir(parents=True, exist_ok=True)
    for name, value in files.items():
        (group / name.replace("__", ".")).write_text(f"{value}\n")


def test_the_memory_asked_for_is_the_budget() -> None:
    assert memory_budget(1.5, CPU) == int(1.5 * GIB)


def test_without_control_groups_it_is_the_systems(groups: Path) -> None:
    assert free_memory() == pytest.approx(psutil.virtual_memory().available, rel=0.2)


def test_the_control_group_is_respected(groups: Path) -> None:
    write(groups, memory__max=3_000_000, memory__current=1_000_000)
    assert free_memory() == 2_000_000
    assert memory_budget(None, CPU) == 1_200_000
    write(groups, memory__max="max")
    assert free_memory() > 2_000_000
    write(groups, memory__max=500_000)
    assert free_memory() == 0


@pytest.mark.parametrize("version", [1, 2])
def test_files_that_are_only_kept_at_hand_are_free(groups: Path, version: int) -> None:
    if version == 2:
        stat = "anon 5\ninactive_file 900000\nactive_file 7"
        write(groups, memory__max=3_000_000, memory__current=2_500_000, memory__stat=stat)
    else:
        stat = "inactive_file 3\ntotal_inactive_file 900000"
        files = {"memory__limit_in_bytes": 3_000_000, "memory__usage_in_bytes": 2_500_000, "memory__stat": stat}
        write(groups / "memory", **files)
    assert free_memory() == 1_400_000


@pytest.mark.parametrize("tightest", ["job", "step"])
def test_the_tightest_group_around_the_process_counts(groups: Path, tightest: str) -> None:
    memory._OWN_GROUPS.write_text("0::/slurm/job/step\n")
    for group in ("slurm/job", "slurm/job/step"):
        limit = 2_000_000 if group.endswith(tightest) else 9_000_000
        write(groups / group, memory__max=limit, memory__current=1_000_000)
    assert free_memory() == 1_000_000


def test_a_group_of_version_1_is_found_by_its_controller(groups: Path) -> None:
    memory._OWN_GROUPS.write_text("5:cpu,cpuacct:/elsewhere\n4:memory:/job\n0::/\n")
    write(groups / "memory" / "job", memory__limit_in_bytes=2_000_000, memory__usage_in_bytes=500_000)
    assert free_memory() == 1_500_000
