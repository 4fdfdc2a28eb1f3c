"""The same short training for every cell."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from benchmarks.study.cells import Cell
from benchmarks.study.data import Sample, target_of
from napari_tiled_unet.networks.zoo import Network
from napari_tiled_unet.targets import Classes, Objects

BATCH = {2: 4, 3: 2}
SIDE = {2: 160, 3: 48}
PEAK = 2e-3


def _patch(sample: Sample, side: int, rng: np.random.Generator) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Cut, mirror, turn (in the plane of y and x), and change brightness and contrast."""
    frame, truth = sample.frame, sample.truth
    pad = [(0, max(0, side - n)) for n in truth.shape]
    frame, truth = np.pad(frame, [(0, 0), *pad], mode="reflect"), np.pad(truth, pad, mode="reflect")
    starts = [int(rng.integers(n - side + 1)) for n in truth.shape]
    box = tuple(slice(s, s + side) for s in starts)
    frame, truth = frame[(slice(None), *box)], truth[box]
    for axis in range(truth.ndim):
        if rng.random() < 0.5:
            frame, truth = np.flip(frame, axis + 1), np.flip(truth, axis)
    turns = int(rng.integers(4))
    frame, truth = np.rot90(frame, turns, (-2, -1)), np.rot90(truth, turns, (-2, -1))
    changed = np.clip(frame, 0, None) ** rng.uniform(0.7, 1.4) * rng.uniform(0.8, 1.2) + rng.normal(
        0, 0.03, frame.shape
    )
    return changed.astype(np.float32), np.ascontiguousarray(truth)


def _batch(
    samples: list[Sample], target: Objects | Classes, ndim: int, rng: np.random.Generator
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    images, maps, weights = [], [], []
    for _ in range(BATCH[ndim]):
        image, truth = _patch(samples[int(rng.integers(len(samples)))], SIDE[ndim], rng)
        encoded = target.encode(truth)
        images.append(image)
        maps.append(encoded.maps)
        weights.append(encoded.weight)
    return tuple(torch.from_numpy(np.stack(part)) for part in (images, maps, weights))  # type: ignore[return-value]


def train(cell: Cell, samples: list[Sample]) -> Network:
    """Train the network of a cell: AdamW, warm-up and cosine, bfloat16 where the processor has it."""
    torch.manual_seed(cell.seed)
    rng = np.random.default_rng((cell.seed, 1))
    target, network = target_of(cell.data), cell.network().train()
    ndim = network.spec.ndim
    layout: Any = torch.channels_last if ndim == 2 else torch.channels_last_3d
    network.to(memory_format=layout)  # type: ignore[call-overload]
    optimiser = torch.optim.AdamW(network.parameters(), lr=PEAK, weight_decay=0.01)
    for step in range(cell.steps):
        progress = step / cell.steps
        rate = min(1.0, (step + 1) / (0.05 * cell.steps + 1)) * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress)))
        for group in optimiser.param_groups:
            group["lr"] = PEAK * rate
        image, maps, weight = _batch(samples, target, ndim, rng)
        with torch.autocast("cpu", torch.bfloat16):
            outputs = network.training_outputs(image.contiguous(memory_format=layout))
        losses = [target.loss(y.float(), maps, weight) for y in outputs]
        loss = torch.stack(losses).mean()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimiser.step()
    network.eval()
    return network


@torch.inference_mode()
def predict(network: Network, frame: npt.NDArray[np.float32], target: Objects | Classes) -> npt.NDArray[np.float32]:
    """Return the maps of a whole frame."""
    with torch.autocast("cpu", torch.bfloat16):
        logits = network(torch.from_numpy(np.ascontiguousarray(frame))[None])
    return target.activate(logits.float())[0].numpy()
