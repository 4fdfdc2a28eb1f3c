r"""Train the bundled model ``nuclei``: 2D nuclei in fluorescence, from the DSB 2018 set (CC0).

    python -m training.train_nuclei --data DATA/dsb2018 --run runs/nuclei
    python -m training.train_nuclei --data DATA/dsb2018 --run runs/refined \
        --start runs/nuclei/nuclei.safetensors --minutes 60 --peak 1e-3 --plain 0.5

    python -m training.train_nuclei --data DATA/dsb2018 --run runs/narrow \
        --start runs/refined/nuclei.safetensors --channels 16 32 64 96 128

A start may have fewer channels than ``--channels``: the new ones begin without a say. Of one that has more, the most
useful ones are taken.

The folder holds ``index.csv`` (id, kind, split), ``images/ID.tif`` and ``labels/ID.tif``.
Trains on the split ``train``, chooses by average precision on ``val``, never opens
``test``. At the end the thresholds of the decoding are chosen on ``val`` too. Stops at
``--steps`` or ``--minutes``, whichever comes first, and goes on from
``RUN/checkpoint.pt`` with ``--resume``. Writes ``RUN/nuclei.safetensors`` (the best
averaged weights so far, a complete model file) and ``RUN/log.csv``.
"""

from __future__ import annotations

import argparse
import itertools
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader

import napari_tiled_unet
from napari_tiled_unet.metrics import average_precision
from napari_tiled_unet.model import Model, ModelSpec
from napari_tiled_unet.model_files import load_model, read_spec, save_model
from napari_tiled_unet.networks.zoo import Network, build_network, network_spec
from napari_tiled_unet.normalise import Normalisation
from napari_tiled_unet.options import SegmentOptions
from napari_tiled_unet.runtime import choose_precision
from napari_tiled_unet.targets import Objects
from training.narrowing import narrow
from training.nuclei_patches import PATCH, Patches, Sample, read_split
from training.widening import widen


def reduced_precision() -> torch.autocast:
    """Compute in bfloat16 where the processor has it; elsewhere it is emulated, and three times as slow as float32."""
    dtype = choose_precision("auto", torch.device("cpu"))
    return torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16)


@torch.inference_mode()
def predict(network: Network, image: npt.NDArray[np.float32], target: Objects) -> npt.NDArray[np.float32]:
    """Return the maps of one whole image."""
    x = torch.from_numpy(image)[None].contiguous(memory_format=torch.channels_last)
    with reduced_precision():
        logits = network(x)
    return target.activate(logits.float())[0].numpy()


def validate(network: Network, samples: list[Sample], target: Objects) -> dict[str, float]:
    """Return pooled average precision at 0.5, 0.75, 0.9 and its mean over 0.5 to 0.9."""
    network.eval()
    options = SegmentOptions()
    pairs = [(target.decode(predict(network, s.image, target), options), s.labels) for s in samples]
    result = average_precision([p for p, _ in pairs], [t for _, t in pairs])
    network.train()
    pooled = np.asarray(result.pooled)
    return {"ap50": float(pooled[0]), "ap75": float(pooled[5]), "ap90": float(pooled[8]), "mean": float(pooled.mean())}


def model_of(
    network: Network, target: Objects, arguments: argparse.Namespace, scores: dict[str, float], step: int
) -> Model:
    """Return the trained network with everything needed to use it right."""
    named = {
        "peak": "peak",
        "seed": "seed",
        "channels": "channels",
        "not_interpolated": "plain",
        "crowd": "crowd",
        "lowest": "lowest",
        "average": "average",
    }
    stage = {"steps": step, **{name: getattr(arguments, option) for name, option in named.items()}}
    spec = ModelSpec(
        name="nuclei",
        summary="Nuclei in 2D fluorescence images (DAPI, Hoechst and the like), one object each",
        axes="yx",
        channels=("nuclei",),
        object_size=20.0,
        normalisation=Normalisation(),
        network=network.spec,
        target=target,
        licence="CC0-1.0",
        training={
            "data": "2018 Data Science Bowl stage 1 (BBBC038), fluorescence, corrected masks; split train (435 images)",
            "data_licence": "CC0-1.0",
            "script": "training/train_nuclei.py",
            "batch": arguments.batch,
            "patch": PATCH,
            "stages": [*earlier_stages(arguments.start), stage],
        },
        scores={f"val_{k}": round(float(v), 4) for k, v in scores.items()},
    )
    return Model(spec, network)


def earlier_stages(start: Path | None) -> list[Any]:
    """Return what the card of the model to start from says of its own training."""
    return [] if start is None else list(read_spec(start).training.get("stages", []))


def learning_rate(progress: float, peak: float, lowest: float = 0.01, warm_up: float = 0.03) -> float:
    """Linear warm-up, then a cosine to a share ``lowest`` of the peak."""
    if progress < warm_up:
        return peak * (0.05 + 0.95 * progress / warm_up)
    fallen = 0.5 * (1 + math.cos(math.pi * min(1.0, (progress - warm_up) / (1 - warm_up))))
    return peak * (lowest + (1 - lowest) * fallen)


@dataclass(frozen=True)
class Averaging:
    """Averages weights exponentially over about so many steps, over fewer at the start."""

    steps: int

    def __call__(
        self, averaged: Sequence[torch.Tensor], current: Sequence[torch.Tensor], count: torch.Tensor | int
    ) -> None:
        """Move the averaged weights towards the current ones."""
        decay = min(1 - 1 / self.steps, (1 + int(count)) / (10 + int(count)))
        for old, new in zip(averaged, current, strict=True):
            if old.is_floating_point():
                old.lerp_(new, 1 - decay)
            else:
                old.copy_(new)


def choose_thresholds(path: Path, samples: list[Sample]) -> None:
    """Choose the thresholds of the decoding on the validation images and write them into the model file."""
    model = load_model(path)
    target = model.spec.target
    assert isinstance(target, Objects)
    maps = [predict(model.network, s.image, target) for s in samples]
    truth = [s.labels for s in samples]
    best, chosen = -1.0, target
    for foreground, seed, prominence, size in itertools.product(
        (0.3, 0.35, 0.4, 0.45, 0.5, 0.55), (0.4, 0.5), (0.06, 0.1, 0.14), (12, 20, 28)
    ):
        trial = Objects(foreground_threshold=foreground, seed_threshold=seed, seed_prominence=prominence, min_size=size)
        pooled = average_precision([trial.decode(m, SegmentOptions()) for m in maps], truth).pooled
        if float(np.mean(pooled)) > best:
            best, chosen = float(np.mean(pooled)), trial
            scores = {"val_ap50": pooled[0], "val_ap75": pooled[5], "val_ap90": pooled[8], "val_mean": best}
    print(f"thresholds {chosen}, val {scores}", flush=True)
    rounded = {name: round(float(value), 4) for name, value in scores.items()}
    spec = model.spec.model_copy(update={"target": chosen, "scores": rounded})
    save_model(Model(spec, model.network), path, overwrite=True, half=True)


@dataclass
class State:
    """What a training run is in the middle of."""

    network: Network
    averaged: AveragedModel
    optimiser: torch.optim.AdamW
    step: int = 0
    seconds: float = 0.0
    best: float = -1.0

    @classmethod
    def fresh(cls, arguments: argparse.Namespace) -> State:
        """Return a new network with its average and optimiser."""
        chosen = {"channels": arguments.channels, "depth": len(arguments.channels) - 1}
        network = build_network(network_spec("unet", ndim=2, in_channels=1, out_channels=2, **chosen))
        network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        averaged = AveragedModel(network, multi_avg_fn=Averaging(arguments.average), use_buffers=True)
        return cls(network, averaged, torch.optim.AdamW(network.parameters(), lr=arguments.peak, weight_decay=0.01))

    def save(self, path: Path) -> None:
        """Write a checkpoint beside and rename it, so that a kill leaves the old one whole."""
        beside = path.with_suffix(".partial")
        parts = {name: getattr(self, name).state_dict() for name in ("network", "averaged", "optimiser")}
        torch.save({**parts, "step": self.step, "spent": self.seconds, "best": self.best}, beside)
        beside.replace(path)

    def load(self, path: Path) -> None:
        """Go on from a checkpoint."""
        saved = torch.load(path, weights_only=True)
        for name in ("network", "averaged", "optimiser"):
            getattr(self, name).load_state_dict(saved[name])
        self.step, self.seconds, self.best = saved["step"], saved["spent"], saved["best"]


def train_step(state: State, batch: list[torch.Tensor], target: Objects, rate: float) -> float:
    """Learn from a batch and return its loss."""
    image, maps, weight = batch
    for group in state.optimiser.param_groups:
        group["lr"] = rate
    with reduced_precision():
        logits = state.network(image.contiguous(memory_format=torch.channels_last))
    loss = target.loss(logits.float(), maps, weight)
    state.optimiser.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(state.network.parameters(), 5.0)
    state.optimiser.step()
    state.averaged.update_parameters(state.network)
    state.step += 1
    return loss.item()


def begin_from(trained: Network, fresh: Network) -> None:
    """Give a network the weights of one that has more or fewer channels."""
    more = all(a <= b for a, b in zip(trained.spec.channels, fresh.spec.channels, strict=False))
    (widen if more else narrow)(trained, fresh)


def train(arguments: argparse.Namespace) -> None:
    """Run the whole training."""
    torch.manual_seed(arguments.seed)
    torch.set_num_threads(arguments.threads)
    run: Path = arguments.run
    run.mkdir(parents=True, exist_ok=True)
    # Near to what choose_thresholds takes in the end, so that the best step is best for it too.
    target = Objects(foreground_threshold=0.3, seed_threshold=0.5, seed_prominence=0.14, min_size=20)
    samples = read_split(arguments.data, "train", ("fluorescence",))
    validation = read_split(arguments.data, "val", ("fluorescence",))
    print(f"{len(samples)} images to train on, {len(validation)} to choose by", flush=True)

    state = State.fresh(arguments)
    if arguments.start is not None:
        begin_from(load_model(arguments.start).network, state.network)
        state.averaged.module.load_state_dict(state.network.state_dict())
    checkpoint, model_file = run / "checkpoint.pt", run / "nuclei.safetensors"
    if arguments.resume and checkpoint.exists():
        state.load(checkpoint)
        print(f"resumed at step {state.step} after {state.seconds / 60:.0f} min", flush=True)
    count = arguments.steps * arguments.batch
    patches = Patches(samples, target, count, arguments.seed, arguments.plain, arguments.crowd)
    loader = DataLoader(
        patches,
        batch_size=arguments.batch,
        sampler=range(state.step * arguments.batch, len(patches)),
        num_workers=arguments.workers,
        prefetch_factor=4,
    )
    started = time.monotonic() - state.seconds
    losses: list[float] = []
    with (run / "log.csv").open("a", buffering=1) as log:
        for batch in loader:
            state.seconds = time.monotonic() - started
            progress = max(state.step / arguments.steps, state.seconds / 60 / arguments.minutes)
            losses.append(train_step(state, batch, target, learning_rate(progress, arguments.peak, arguments.lowest)))
            last = state.step >= arguments.steps or progress >= 1
            told = f"step {state.step} {state.seconds / 60:.1f} min"
            if state.step % 20 == 0:
                print(f"{told} loss {np.mean(losses[-20:]):.4f}", flush=True)
            if state.step % arguments.validate_every and not last:
                continue
            averaged: Any = state.averaged.module
            scores = validate(averaged, validation, target)
            row = [state.step, round(state.seconds), *(round(v, 4) for v in (float(np.mean(losses)), *scores.values()))]
            log.write(",".join(map(str, row)) + "\n")
            print(f"{told} val {scores}", flush=True)
            losses = []
            if scores["mean"] > state.best:
                state.best = scores["mean"]
                save_model(
                    model_of(averaged, target, arguments, scores, state.step), model_file, overwrite=True, half=True
                )
            state.save(checkpoint)
            if last:
                break
    choose_thresholds(model_file, validation)


def main() -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the dsb2018 folder")
    parser.add_argument("--run", type=Path, required=True, help="folder for the checkpoint, the log and the model")
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--minutes", type=float, default=90.0)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--peak", type=float, default=2e-3, help="highest learning rate")
    parser.add_argument("--lowest", type=float, default=0.01, help="learning rate at the end, as a share of the peak")
    parser.add_argument("--average", type=int, default=500, help="steps that the averaged weights reach back")
    parser.add_argument("--channels", type=int, nargs="+", default=[16, 48, 96, 192, 256], help="per level")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--validate-every", type=int, default=250)
    parser.add_argument("--start", type=Path, help="go on from this model file")
    parser.add_argument("--plain", type=float, default=0.0, help="share of patches that are not interpolated, 0 to 1")
    parser.add_argument("--crowd", type=float, default=0.5, help="how much crowded images are preferred, 0 to 1")
    parser.add_argument("--resume", action="store_true")
    train(parser.parse_args())


if __name__ == "__main__":
    print(f"napari-tiled-unet {napari_tiled_unet.__version__}, torch {torch.__version__}")
    main()
