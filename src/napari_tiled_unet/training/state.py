"""What a training is in the middle of, and how it survives: the checkpoint.

A checkpoint is written beside and renamed, so that a kill at any moment leaves the one
before whole. It is read as data (``weights_only``), never as code.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_tiled_unet.errors import FileError, OptionsError
from napari_tiled_unet.train_options import TrainOptions
from napari_tiled_unet.training.happenings import Row
from napari_tiled_unet.training.plan import Plan

if TYPE_CHECKING:
    import torch

    from napari_tiled_unet.networks.zoo import Network

_MIB = 2**20
# What may change between the sessions of one training without changing what is learned from.
_MAY_CHANGE = {"steps", "minutes", "patience", "workers", "memory", "device", "precision"}
_PARTS = ("network", "averaged", "optimiser")


def checkpoint_path(model_file: Path) -> Path:
    """Return where the checkpoint of a model file lies."""
    return model_file.with_suffix(".checkpoint")


@dataclass
class State:
    """Weights, their running mean, the optimiser, and how far it is.

    Attributes
    ----------
    network, averaged : Network
        As they are trained, and as they are used.
    optimiser : torch.optim.AdamW
        With its moments.
    step, seconds : int, float
        How far it is.
    best, best_step, waited : float, int, int
        Best score, after which step, and how many validations since.
    rate_factor : float
        What the plateau schedule has made of the learning rate.
    loss_sum, loss_count : float, int
        Of the steps since the last validation.
    history : list of Row
        Of the curves.
    """

    network: Network
    averaged: Network
    optimiser: torch.optim.AdamW
    step: int = 0
    seconds: float = 0.0
    best: float = -1.0
    best_step: int = 0
    waited: int = 0
    rate_factor: float = 1.0
    loss_sum: float = 0.0
    loss_count: int = 0
    history: list[Row] = field(default_factory=list)

    @classmethod
    def fresh(cls, network: Network, options: TrainOptions, device: torch.device) -> State:
        """Return a state before the first step; the network is taken over."""
        import copy

        import torch

        layout = torch.channels_last if network.spec.ndim == 2 else torch.channels_last_3d
        network = network.to(device).to(memory_format=layout)  # type: ignore[call-overload]
        network.train().requires_grad_(True)
        if options.freeze_encoder:
            network.encoder.requires_grad_(False)
        averaged = copy.deepcopy(network).eval().requires_grad_(False)
        learned = [p for p in network.parameters() if p.requires_grad]
        optimiser = torch.optim.AdamW(learned, lr=1e-3, weight_decay=options.weight_decay)
        return cls(network, averaged, optimiser)

    def average(self, decay: float) -> None:
        """Bring the running mean up to date; young means forget faster."""
        import torch

        decay = min(decay, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            current = self.network.state_dict()
            for name, value in self.averaged.state_dict().items():
                if value.is_floating_point():
                    value.lerp_(current[name], 1 - decay)
                else:
                    value.copy_(current[name])

    def save(self, path: Path, plan: Plan, options: TrainOptions, data: Sequence[str]) -> None:
        """Write a checkpoint, whole or not at all.

        Raises
        ------
        FileError
            If it cannot be written.
        """
        import torch

        words = {
            "plan": plan.model_dump(mode="json"),
            "options": options.model_dump(mode="json"),
            "data": list(data),
            "history": [asdict(row) for row in self.history],
            **{name: getattr(self, name) for name in _NUMBERS},
        }
        beside = path.with_name(f".{path.name}.{os.getpid()}.partial")
        try:
            with beside.open("wb") as file:
                parts = {name: getattr(self, name).state_dict() for name in _PARTS}
                torch.save({**parts, "words": json.dumps(words)}, file)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(path)
        except (OSError, RuntimeError) as error:
            raise FileError(f"checkpoint {str(path)!r} cannot be written: {error}; make room and resume") from None
        finally:
            beside.unlink(missing_ok=True)

    def restore(self, saved: Checkpoint) -> None:
        """Go on from a checkpoint."""
        for name in _PARTS:
            getattr(self, name).load_state_dict(saved.tensors[name])
        for name in _NUMBERS:
            setattr(self, name, saved.words[name])
        self.history = [Row(**row) for row in saved.words["history"]]


_NUMBERS = ("step", "seconds", "best", "best_step", "waited", "rate_factor", "loss_sum", "loss_count")


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint as it was read: tensors, and the rest as JSON values."""

    tensors: dict[str, Any]
    words: dict[str, Any]

    @property
    def plan(self) -> Plan:
        """The plan it follows."""
        return Plan.model_validate(self.words["plan"])

    def check(self, options: TrainOptions, data: Sequence[str]) -> None:
        """Refuse to go on with other data or options.

        Raises
        ------
        OptionsError
            Naming what differs.
        """
        now, then = options.model_dump(mode="json"), self.words["options"]
        differ = sorted(k for k in {*now, *then} - _MAY_CHANGE if now.get(k) != then.get(k))
        if differ:
            was = ", ".join(f"{k} was {then.get(k)!r} and is {now.get(k)!r}" for k in differ)
            raise OptionsError(
                f"the checkpoint is of a training with other options: {was}; give the same, or begin anew"
            )
        if list(data) != self.words["data"]:
            raise OptionsError(
                f"the checkpoint is of a training with other images ({len(self.words['data'])}, now {len(data)}, or of "
                "other names or shapes); give the same, or begin anew"
            )


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint; nothing in it is executed.

    Raises
    ------
    FileError
        If there is none, or it is damaged.
    """
    import torch

    if not path.exists():
        raise FileError(f"there is no checkpoint {str(path)!r} to resume from; train without resume first")
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
        return Checkpoint({name: saved[name] for name in _PARTS}, json.loads(saved["words"]))
    except Exception as error:  # noqa: BLE001 - a damaged file can raise anything in the reader
        raise FileError(f"checkpoint {str(path)!r} is damaged ({error}); train without resume") from None


def discard_checkpoint(model_file: Path) -> None:
    """Remove the checkpoint of a model file, if there is one, so that nothing goes on from it.

    Raises
    ------
    FileError
        If it cannot be removed.
    """
    path = checkpoint_path(model_file)
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise FileError(
            f"checkpoint {str(path)!r} of another training cannot be removed: {error}; "
            "remove it, or choose another model file"
        ) from None


def require_room(model_file: Path, network: Network) -> None:
    """Refuse before the hours what would fail after them: too little room on the disk.

    Raises
    ------
    FileError
        Naming what is needed: two checkpoints (weights, mean, two moments) and two model files.
    """
    size = sum(value.numel() * value.element_size() for value in network.state_dict().values())
    needed = 2 * (4 * size + size) + _MIB
    free = shutil.disk_usage(model_file.parent).free
    if needed > free:
        raise FileError(
            f"the disk of {str(model_file.parent)!r} has {free / _MIB:.0f} MiB free, a training of this network needs "
            f"{needed / _MIB:.0f} MiB for its model and checkpoints; make room, or choose another folder"
        )
