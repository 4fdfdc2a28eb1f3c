"""Train the bundled model ``nuclei``: 2D nuclei in fluorescence, from the DSB 2018 set (CC0).

    python training/train_nuclei.py --data DATA/dsb2018 --run runs/nuclei

The folder holds ``index.csv`` (id, kind, split), ``images/ID.tif`` and ``labels/ID.tif``.
Trains on the split ``train``, chooses by average precision on ``val``, never opens
``test``. At the end the thresholds of the decoding are chosen on ``val`` too. Stops at
``--steps`` or ``--minutes``, whichever comes first, and goes on from
``RUN/checkpoint.pt`` with ``--resume``. Writes ``RUN/nuclei.safetensors`` (the best
averaged weights so far, a complete model file) and ``RUN/log.csv``.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile
import torch
from monai.transforms import (
    Compose,
    Rand2DElasticd,
    RandAdjustContrastd,
    RandFlipd,
    RandGaussianNoised,
    RandGaussianSmoothd,
    RandRotate90d,
    RandScaleIntensityd,
    RandShiftIntensityd,
)
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader, Dataset

import napari_tiled_unet
from napari_tiled_unet.metrics import average_precision
from napari_tiled_unet.model import Model, ModelSpec, load_model, save_model
from napari_tiled_unet.networks.zoo import build_network, network_spec
from napari_tiled_unet.normalise import Normalisation, measure
from napari_tiled_unet.options import SegmentOptions
from napari_tiled_unet.targets import Objects

PATCH = 256
# Wide enough that a rotated or shrunken patch still finds real image around it.
REGION = 384


@dataclass(frozen=True)
class Sample:
    """One normalised image ``(1, y, x)`` float32 and its labels ``(y, x)``."""

    image: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int32]


def read_split(folder: Path, split: str, kinds: tuple[str, ...]) -> list[Sample]:
    """Read and normalise every image of a split whose kind starts with one of ``kinds``."""
    normalisation = Normalisation()
    samples = []
    with (folder / "index.csv").open() as index:
        for row in csv.DictReader(index):
            if row["split"] != split or not row["kind"].startswith(kinds):
                continue
            frame = tifffile.imread(folder / "images" / f"{row['id']}.tif")[None]
            statistics, _ = measure(frame, normalisation)
            labels = tifffile.imread(folder / "labels" / f"{row['id']}.tif").astype(np.int32)
            samples.append(Sample(statistics.apply(frame), labels))
    return samples


def augmentation() -> Compose:
    """Return flips, rotations, scale, elastic, gamma, intensity, blur and noise (MONAI)."""
    both, image = ("image", "labels"), ("image",)
    return Compose(
        [
            RandFlipd(both, prob=0.5, spatial_axis=0),
            RandRotate90d(both, prob=0.75),
            Rand2DElasticd(
                both,
                spacing=(32, 32),
                magnitude_range=(0.0, 2.5),
                prob=0.8,
                rotate_range=(math.pi,),
                shear_range=(0.15, 0.15),
                scale_range=(-0.35, 0.35),
                spatial_size=(PATCH, PATCH),
                mode=("bilinear", "nearest"),
                padding_mode="reflection",
            ),
            RandAdjustContrastd(image, prob=0.5, gamma=(0.5, 2.0)),
            RandGaussianSmoothd(image, prob=0.25, sigma_x=(0.3, 1.5), sigma_y=(0.3, 1.5)),
            RandGaussianNoised(image, prob=0.3, std=0.08),
            RandScaleIntensityd(image, prob=0.5, factors=0.4),
            RandShiftIntensityd(image, prob=0.3, offsets=0.1),
        ]
    )


class Patches(Dataset[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]):
    """Augmented patches; the patch of an index depends on the seed and the index alone."""

    def __init__(self, samples: list[Sample], target: Objects, count: int, seed: int) -> None:
        self.samples, self.target, self.count, self.seed = samples, target, count, seed
        self.augment = augmentation()
        # Scores pool objects, so crowded images count for more, but not in proportion.
        objects = np.array([np.clip(s.labels.max(), 6, 150) for s in samples], dtype=float)
        self.probability = np.sqrt(objects) / np.sqrt(objects).sum()

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        rng = np.random.default_rng((self.seed, index))
        sample = self.samples[int(rng.choice(len(self.samples), p=self.probability))]
        box = self._region(sample, rng)
        self.augment.set_random_state(seed=int(rng.integers(2**31)))
        patch = self.augment(
            {"image": sample.image[(slice(None), *box)], "labels": sample.labels[box][None].astype(np.float32)}
        )
        labels = np.asarray(patch["labels"])[0].astype(np.int64)
        encoded = self.target.encode(labels)
        image = torch.as_tensor(np.asarray(patch["image"], dtype=np.float32))
        return image, torch.from_numpy(encoded.maps), torch.from_numpy(encoded.weight)

    @staticmethod
    def _region(sample: Sample, rng: np.random.Generator) -> tuple[slice, slice]:
        """Choose a region, mostly one around an object."""
        shape = sample.labels.shape
        centre = [int(rng.integers(n)) for n in shape]
        if rng.random() < 0.7 and sample.labels.any():
            voxels = np.flatnonzero(sample.labels == rng.choice(np.unique(sample.labels)[1:]))
            jitter = rng.integers(-PATCH // 2, PATCH // 2, size=2)
            place = np.unravel_index(int(rng.choice(voxels)), shape)
            centre = [int(p + j) for p, j in zip(place, jitter, strict=True)]
        starts = [int(np.clip(c - REGION // 2, 0, max(0, n - REGION))) for c, n in zip(centre, shape, strict=True)]
        return slice(starts[0], starts[0] + REGION), slice(starts[1], starts[1] + REGION)


@torch.inference_mode()
def predict(network: torch.nn.Module, image: npt.NDArray[np.float32], target: Objects) -> npt.NDArray[np.float32]:
    """Return the maps of one whole image."""
    x = torch.from_numpy(image)[None].contiguous(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        logits = network(x)
    return target.activate(logits.float())[0].numpy()


def validate(network: torch.nn.Module, samples: list[Sample], target: Objects) -> dict[str, float]:
    """Return pooled average precision at 0.5, 0.75, 0.9 and its mean over 0.5 to 0.9."""
    network.eval()
    options = SegmentOptions()
    pairs = [(target.decode(predict(network, s.image, target), options), s.labels) for s in samples]
    result = average_precision([p for p, _ in pairs], [t for _, t in pairs])
    network.train()
    pooled = np.asarray(result.pooled)
    return {"ap50": pooled[0], "ap75": pooled[5], "ap90": pooled[8], "mean": float(pooled.mean())}


def model_of(
    network: torch.nn.Module, target: Objects, arguments: argparse.Namespace, scores: dict[str, float], step: int
) -> Model:
    """Return the trained network with everything needed to use it right."""
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
            "steps": step,
            "batch": arguments.batch,
            "patch": PATCH,
            "seed": arguments.seed,
        },
        scores={f"val_{k}": round(float(v), 4) for k, v in scores.items()},
    )
    return Model(spec, network)


def learning_rate(progress: float, peak: float, warm_up: float = 0.03) -> float:
    """Linear warm-up, then a cosine to a hundredth of the peak."""
    if progress < warm_up:
        return peak * (0.05 + 0.95 * progress / warm_up)
    return peak * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, (progress - warm_up) / (1 - warm_up)))))


def average(averaged: list[torch.Tensor], current: list[torch.Tensor], count: torch.Tensor | int) -> None:
    """Average weights exponentially over about 500 steps, over fewer at the start."""
    decay = min(0.998, (1 + int(count)) / (10 + int(count)))
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
    for foreground, prominence, size in itertools.product((0.5, 0.55, 0.6, 0.65), (0.06, 0.08, 0.1, 0.13), (8, 15, 22)):
        trial = Objects(foreground_threshold=foreground, seed_prominence=prominence, min_size=size)
        pooled = average_precision([trial.decode(m, SegmentOptions()) for m in maps], truth).pooled
        if float(np.mean(pooled)) > best:
            best, chosen = float(np.mean(pooled)), trial
            scores = {"val_ap50": pooled[0], "val_ap75": pooled[5], "val_ap90": pooled[8], "val_mean": best}
    print(f"thresholds {chosen}, val {scores}", flush=True)
    rounded = {name: round(float(value), 4) for name, value in scores.items()}
    spec = model.spec.model_copy(update={"target": chosen, "scores": rounded})
    save_model(Model(spec, model.network), path, overwrite=True)


def save_checkpoint(path: Path, **state: Any) -> None:
    """Write a checkpoint beside and rename it, so that a kill leaves the old one whole."""
    beside = path.with_suffix(".partial")
    torch.save(state, beside)
    beside.replace(path)


def train(arguments: argparse.Namespace) -> None:
    """Run the whole training."""
    torch.manual_seed(arguments.seed)
    torch.set_num_threads(arguments.threads)
    run: Path = arguments.run
    run.mkdir(parents=True, exist_ok=True)
    target = Objects()
    samples = read_split(arguments.data, "train", ("fluorescence",))
    validation = read_split(arguments.data, "val", ("fluorescence",))
    print(f"{len(samples)} images to train on, {len(validation)} to choose by", flush=True)

    spec = network_spec("unet", ndim=2, in_channels=1, out_channels=2, width=arguments.width, depth=arguments.depth)
    network = build_network(spec).to(memory_format=torch.channels_last)
    averaged = AveragedModel(network, multi_avg_fn=average, use_buffers=True)
    optimiser = torch.optim.AdamW(network.parameters(), lr=arguments.peak, weight_decay=0.01)
    step, spent, best = 0, 0.0, -1.0
    checkpoint = run / "checkpoint.pt"
    if arguments.resume and checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        network.load_state_dict(state["network"])
        averaged.load_state_dict(state["averaged"])
        optimiser.load_state_dict(state["optimiser"])
        step, spent, best = state["step"], state["spent"], state["best"]
        print(f"resumed at step {step} after {spent / 60:.0f} min", flush=True)

    patches = Patches(samples, target, arguments.steps * arguments.batch, arguments.seed)
    remaining = range(step * arguments.batch, len(patches))
    loader = DataLoader(
        patches, batch_size=arguments.batch, sampler=remaining, num_workers=arguments.workers, prefetch_factor=4
    )
    log = (run / "log.csv").open("a", buffering=1)
    started, losses = time.monotonic() - spent, []
    for image, maps, weight in loader:
        spent = time.monotonic() - started
        progress = max(step / arguments.steps, spent / 60 / arguments.minutes)
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(progress, arguments.peak)
        with torch.autocast("cpu", torch.bfloat16):
            logits = network(image.contiguous(memory_format=torch.channels_last))
        loss = target.loss(logits.float(), maps, weight)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimiser.step()
        averaged.update_parameters(network)
        losses.append(loss.item())
        step += 1
        last = step >= arguments.steps or progress >= 1
        if step % 20 == 0:
            print(f"step {step} {spent / 60:.1f} min loss {np.mean(losses[-20:]):.4f}", flush=True)
        if step % arguments.validate_every == 0 or last:
            scores = validate(averaged.module, validation, target)
            log.write(
                f"{step},{spent:.0f},{np.mean(losses):.5f}," + ",".join(f"{v:.4f}" for v in scores.values()) + "\n"
            )
            print(f"step {step} {spent / 60:.1f} min val {scores}", flush=True)
            losses = []
            if scores["mean"] > best:
                best = scores["mean"]
                save_model(
                    model_of(averaged.module, target, arguments, scores, step),
                    run / "nuclei.safetensors",
                    overwrite=True,
                )
            save_checkpoint(
                checkpoint,
                network=network.state_dict(),
                averaged=averaged.state_dict(),
                optimiser=optimiser.state_dict(),
                step=step,
                spent=spent,
                best=best,
            )
        if last:
            break
    choose_thresholds(run / "nuclei.safetensors", validation)


def main() -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the dsb2018 folder")
    parser.add_argument("--run", type=Path, required=True, help="folder for the checkpoint, the log and the model")
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--minutes", type=float, default=90.0)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--peak", type=float, default=2e-3, help="highest learning rate")
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--depth", type=int, default=4)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--validate-every", type=int, default=250)
    parser.add_argument("--resume", action="store_true")
    train(parser.parse_args())


if __name__ == "__main__":
    print(f"napari-tiled-unet {napari_tiled_unet.__version__}, torch {torch.__version__}")
    main()
