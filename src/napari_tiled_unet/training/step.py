"""One step of a training: its batch, its rate, its loss, and what is learned from it."""

from __future__ import annotations

import math
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any

from napari_tiled_unet.training.preparation import Session

if TYPE_CHECKING:
    from torch import Tensor

_FRESH_RATE, _TUNING_RATE = 2e-3, 5e-4
_WARM_UP, _WARM_UP_STEPS = 0.03, 10


def iter_batches(session: Session) -> Iterator[list[Tensor]]:
    """Yield batches from where the training stands; their content depends on their number alone."""
    import torch
    from torch.utils.data import DataLoader

    size, workers = session.plan.batch, session.options.workers
    loader: Any = DataLoader(
        session.patches,  # type: ignore[arg-type]  # anything with a length and numbered items will do
        batch_size=size,
        sampler=range(session.state.step * size, len(session.patches)),
        num_workers=workers,
        prefetch_factor=4 if workers else None,
        generator=torch.Generator().manual_seed(session.options.seed),
    )
    yield from loader


def learning_rate(session: Session, progress: float) -> float:
    """Return the rate of the next step: linear warm-up, then a cosine, or what the plateau has left."""
    options, state = session.options, session.state
    peak = options.learning_rate or (_FRESH_RATE if options.start is None else _TUNING_RATE)
    warm_up = max(_WARM_UP, _WARM_UP_STEPS / options.steps)
    if progress < warm_up:
        return peak * (0.05 + 0.95 * progress / warm_up)
    if options.schedule == "plateau":
        return peak * state.rate_factor
    fallen = min(1.0, (progress - warm_up) / max(1e-9, 1 - warm_up))
    return peak * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * fallen)))


def learn(session: Session, batch: list[Tensor], rate: float) -> float:
    """Take one step and return its loss; if that or the gradient is not finite, nothing is changed."""
    import torch

    state, options, device = session.state, session.options, session.device
    image, maps, weight = (part.to(device, non_blocking=True) for part in batch)
    layout = torch.channels_last if image.ndim == 4 else torch.channels_last_3d
    for group in state.optimiser.param_groups:
        group["lr"] = rate
    state.network.train()
    if options.freeze_encoder:
        state.network.encoder.eval()
    drops = state.network.spec.dropout > 0 or state.network.spec.classification_guided
    with (
        torch.random.fork_rng(enabled=drops),
        torch.autocast(device.type, session.dtype, enabled=session.dtype != torch.float32),
    ):
        if drops:
            # What is dropped depends on the step alone, so that resuming drops the same.
            torch.manual_seed(options.seed * 1_000_003 + state.step)
        outputs = _outputs(state.network, image.contiguous(memory_format=layout))
    loss = _deep_loss(session, outputs, maps, weight)
    state.optimiser.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    learned = [p for p in state.network.parameters() if p.requires_grad]
    norm = torch.nn.utils.clip_grad_norm_(learned, options.clip)
    if not (torch.isfinite(loss) and torch.isfinite(norm)):
        return math.nan
    with undisturbed():
        state.optimiser.step()
        state.step += 1
        state.average(options.averaging)
        value = float(loss.detach())
        state.loss_sum += value
        state.loss_count += 1
    return value


@contextmanager
def undisturbed() -> Iterator[None]:
    """Hold Ctrl-C back until the end of the block, so that what is kept then is of a whole step."""
    usual = signal.getsignal(signal.SIGINT)
    # Only the main thread is interrupted, and only it may say by what.
    if threading.current_thread() is not threading.main_thread() or not callable(usual):
        yield
        return
    pressed: list[tuple[int, FrameType | None]] = []
    signal.signal(signal.SIGINT, lambda *caught: pressed.append(caught))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, usual)
        if pressed:
            usual(*pressed[-1])


def _outputs(network: Any, image: Tensor) -> list[Tensor]:
    """Return the logits, finest first; several where the network is supervised at depth."""
    supervised = getattr(network, "training_outputs", None)
    return list(supervised(image)) if supervised is not None else [network(image)]


def _deep_loss(session: Session, outputs: list[Tensor], maps: Tensor, weight: Tensor) -> Tensor:
    """Return the mean loss of all outputs, each coarser one counting half as much."""
    from torch.nn.functional import interpolate

    target, kind = session.plan.target, session.options.loss
    total = target.loss(outputs[0].float(), maps, weight, kind)
    shares = 1.0
    for level, logits in enumerate(outputs[1:], start=1):
        share, size = 0.5**level, logits.shape[2:]
        truth, counts = (x if x.shape[2:] == size else interpolate(x, size) for x in (maps, weight))
        total = total + share * target.loss(logits.float(), truth, counts, kind)
        shares += share
    return total / shares
