"""How much memory there is: what is free to this process, and what a run may use of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

GIB = 2**30

_OWN_GROUPS = Path("/proc/self/cgroup")
_GROUPS = Path("/sys/fs/cgroup")
# Limit, use, and the key of memory.stat for files that the system drops when memory is wanted; version 2 and 1.
_FILES = {
    "": ("memory.max", "memory.current", "inactive_file"),
    "memory": ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
}


def memory_budget(memory: float | None, device: torch.device) -> int:
    """Return the bytes that a run may use.

    Parameters
    ----------
    memory : float or None
        What the user allows, in GiB; None takes 60 % of what is free now (80 % on a
        CUDA device), control-group limits respected.
    device : torch.device
        Where the network runs.
    """
    if memory is not None:
        # An exbibyte is beyond any machine, and a float may hold more than can be counted in bytes.
        return int(min(memory, 2.0**30) * GIB)
    if device.type == "cuda":
        import torch

        # What torch holds of earlier runs without using it is free to this one.
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(0.8 * (torch.cuda.mem_get_info(device)[0] + kept))
    return int(0.6 * free_memory())


def free_memory() -> int:
    """Return the bytes of host memory that are free to this process.

    The smallest of what the system has and what each control group that the process is in (of a
    container, a batch job, a session) still allows. Files that the system only keeps at hand count
    as free, in both.

    References
    ----------
    .. [1] "Control Group v2", The Linux Kernel documentation, section Memory
    """
    import psutil

    return min([int(psutil.virtual_memory().available), *(max(left, 0) for left in _left_in_groups())])


def _left_in_groups() -> Iterator[int]:
    for controller, (limit, used, files) in _FILES.items():
        for group in _groups_of(controller):
            # A group without a limit says "max"; the root has no files.
            with suppress(OSError, ValueError):
                yield int((group / limit).read_text()) - int((group / used).read_text()) + _stat(group, files)


def _groups_of(controller: str) -> Iterator[Path]:
    """Yield the folders of this process's group and of those around it."""
    root, own = _GROUPS / controller, ""
    with suppress(OSError):
        for line in _OWN_GROUPS.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controller in controllers.split(","):
                own = path.strip("/")
    # In a container the path may be the host's; the root of what is mounted is then the process's own.
    folder = root / own
    yield folder
    while folder != root:
        folder = folder.parent
        yield folder


def _stat(group: Path, key: str) -> int:
    with suppress(OSError):
        for line in (group / "memory.stat").read_text().splitlines():
            name, _, value = line.partition(" ")
            if name == key:
                return int(value)
    return 0
