"""The training: prepare, step, validate, keep the best, until there is a reason to stop.

::

    prepare ──> [ patch batch ──> loss ──> step ──> running mean ]  ──> validate ──> best model, checkpoint ──┐
                      ^                                                                                      │
                      └──────────────────────────────────────────────────────────────────────────────────────┘

What is used, saved and scored is the running mean of the weights.
"""

from __future__ import annotations

import copy
import logging
import math
import time
import warnings
from collections.abc import Generator
from functools import partial
from pathlib import Path
from typing import Any

from napari_tiled_unet.events import Event, Notice
from napari_tiled_unet.model import Model, ModelSpec
from napari_tiled_unet.model_files import save_model
from napari_tiled_unet.options import with_keywords_of
from napari_tiled_unet.train_options import TrainOptions
from napari_tiled_unet.training.curves import curve_paths, write_picture, write_table
from napari_tiled_unet.training.happenings import Prepared, Row, StepDone, Trained, Validated
from napari_tiled_unet.training.preparation import Session, named_images, prepare
from napari_tiled_unet.training.state import checkpoint_path, discard_checkpoint
from napari_tiled_unet.training.step import iter_batches, learn, learning_rate, undisturbed

logger = logging.getLogger(__name__)

# Validations without a better score after which the plateau schedule halves the rate.
_PLATEAU = 3
_SHOWN_PATCHES = 4


@partial(with_keywords_of, TrainOptions)
def train(
    images: Any,
    labels: Any,
    *,
    out: str | Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    options: TrainOptions | None = None,
    **keywords: Any,
) -> Model:
    """Teach a network to segment like the labels.

    Parameters
    ----------
    images, labels : array, Image, path, or a sequence of those
        Or a folder each, whose files are paired by name. Labels are whole numbers on the
        images' grid. With ``sparse`` 0 is not labelled and ignored, 1 is background and
        objects or classes are numbered from 2; without it 0 is background.
    out : str or Path, optional
        Model file, ``.safetensors``; the best model so far is there after each validation,
        with ``.checkpoint`` and ``.curves.csv`` beside it.
    resume : bool
        Go on from the checkpoint beside ``out``.
    overwrite : bool
        Whether a model file that exists is replaced; its checkpoint goes when the first step begins.
    options : TrainOptions, optional
        How to train; the keywords replace single values of it.
    **keywords
        Any field of :class:`TrainOptions`.

    Returns
    -------
    Model
        The best one by the score of the held-out part.

    Raises
    ------
    OptionsError, ImageError, FileError, ModelError, MemoryBudgetError
        Before any work, if something cannot work.

    Warns
    -----
    UserWarning
        For every caution.
    """
    trained: Trained | None = None
    events = iter_train(images, labels, out=out, resume=resume, overwrite=overwrite, options=options, **keywords)
    for event in events:
        if isinstance(event, Notice):
            if event.caution:
                warnings.warn(event.message, UserWarning, stacklevel=2)
            else:
                logger.info(event.message)
        elif isinstance(event, Trained):
            trained = event
    assert trained is not None
    return trained.model


@partial(with_keywords_of, TrainOptions)
def iter_train(
    images: Any,
    labels: Any,
    *,
    out: str | Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    options: TrainOptions | None = None,
    **keywords: Any,
) -> Generator[Event, None, None]:
    """Teach a network, event by event; closing or interrupting the generator keeps the best model so far.

    Parameters
    ----------
    images, labels, out, resume, overwrite, options, **keywords
        As for :func:`train`.

    Yields
    ------
    Event
        ``Notice`` at any time, ``Prepared`` once, ``StepDone`` per step, ``Validated`` with
        the model as it stands, ``Trained`` at the end.

    Raises
    ------
    OptionsError, ImageError, FileError, ModelError, MemoryBudgetError
        At the call, as for :func:`train`.
    """
    options = (options or TrainOptions()).changed(**keywords)
    path = None if out is None else Path(out)
    return run_session(prepare(images, labels, options, out=path, resume=resume, overwrite=overwrite))


def run_session(session: Session) -> Generator[Event, None, None]:
    """Yield the events of a training whose input was checked."""
    state = session.state
    yield from (Notice(message) for message in session.told)
    yield from (Notice(message, caution=True) for message in session.cautions)
    yield Prepared(
        session.plan,
        len(session.split.training),
        len(session.split.validation),
        sum(p.numel() for p in state.network.parameters() if p.requires_grad),
        session.split.reason,
        tuple(session.patches.patch(i) for i in range(_SHOWN_PATCHES)),
        state.step,
    )
    if session.out is not None and state.step == 0:
        # Not before there is something to learn: who only looks at the plan keeps what was.
        discard_checkpoint(session.out)
    batches = iter_batches(session)
    try:
        while True:
            if _owes_validation(session):
                yield validate(session, state.optimiser.param_groups[0]["lr"])
            if reason := _reason_to_stop(session, _progress(session)):
                break
            # Preparing patches takes time, and that is part of the training.
            started = time.monotonic()
            batch = next(batches)
            rate = learning_rate(session, _progress(session))
            loss = learn(session, batch, rate)
            if not math.isfinite(loss):
                reason = _explosion(session, loss, rate)
                yield Notice(reason, caution=True)
                break
            state.seconds += time.monotonic() - started
            yield StepDone(state.step, loss, rate, state.seconds, _progress(session))
    except (GeneratorExit, KeyboardInterrupt):
        _keep(session)
        raise
    yield from _finish(session, reason)


def _progress(session: Session) -> float:
    options, state = session.options, session.state
    timed = state.seconds / 60 / options.minutes if options.minutes else 0.0
    return max(state.step / options.steps, timed)


def _reason_to_stop(session: Session, progress: float) -> str:
    options, state = session.options, session.state
    if options.patience and state.waited >= options.patience:
        return f"no better score in {state.waited} validations"
    if progress >= 1:
        return (
            f"all {options.steps} steps done" if state.step >= options.steps else f"{options.minutes:g} minutes are up"
        )
    return ""


def _owes_validation(session: Session) -> bool:
    """Whether the network as it stands is to be scored, and was not: also if a session ended in the middle of that."""
    state = session.state
    if state.step == 0 or (state.history and state.history[-1].step == state.step):
        return False
    return state.step % session.options.validate_every == 0 or bool(_reason_to_stop(session, _progress(session)))


def validate(session: Session, rate: float) -> Validated:
    """Score the running mean on the held-out part; keep it if it is the best, and write the checkpoint."""
    state = session.state
    started = time.monotonic()
    score, scores = session.examiner.score(state.averaged)
    with undisturbed():
        state.seconds += time.monotonic() - started
        return _enter(session, rate, score, scores)


def _enter(session: Session, rate: float, score: float, scores: dict[str, float]) -> Validated:
    """Enter a score into the state and the files."""
    state = session.state
    loss = state.loss_sum / max(1, state.loss_count)
    state.loss_sum, state.loss_count = 0.0, 0
    state.history.append(Row(state.step, state.seconds, loss, rate, score, scores))
    is_best = score > state.best
    model = current_model(session, scores)
    if is_best:
        state.best, state.best_step, state.waited = score, state.step, 0
        session.best = model
    else:
        state.waited += 1
        if state.waited % _PLATEAU == 0:
            state.rate_factor /= 2
    if session.out is not None:
        # The model first: a kill between the two costs nothing, for the steps since are done again.
        if is_best:
            save_model(model, session.out, overwrite=True)
        _write_checkpoint(session)
        write_table(curve_paths(session.out)[0], state.history)
    return Validated(state.step, score, scores, loss, is_best, model, state.seconds)


def current_model(session: Session, scores: dict[str, float]) -> Model:
    """Return the running mean with everything needed to use it right."""
    from napari_tiled_unet import __version__

    plan, options, state = session.plan, session.options, session.state
    spec = ModelSpec(
        name=session.out.stem if session.out is not None else "trained",
        summary=f"{plan.target.kind} learned from {len(session.data)} images",
        axes=plan.axes,
        channels=plan.channels,
        spacing=plan.spacing,
        object_size=plan.object_size,
        normalisation=plan.normalisation,
        network=plan.network,
        target=plan.target,
        training={
            "images": named_images(session.data),
            "steps": state.step,
            "seconds": round(state.seconds, 1),
            "split": session.split.reason,
            "options": options.model_dump(mode="json", exclude_defaults=True),
            "seed": options.seed,
            "device": str(session.device),
            "plan": plan.summary(),
            "package_version": __version__,
        },
        scores={f"val_{name}": round(value, 4) for name, value in scores.items()},
    )
    return Model(spec, copy.deepcopy(state.averaged).cpu())


def _write_checkpoint(session: Session) -> None:
    assert session.out is not None
    session.state.save(checkpoint_path(session.out), session.plan, session.options, session.data)


def _keep(session: Session) -> None:
    """Leave something usable behind when a training is cancelled or interrupted: the best model, and where it stood."""
    if session.out is None or session.state.step == 0:
        return
    if session.best is None:
        save_model(current_model(session, {}), session.out, overwrite=True)
    _write_checkpoint(session)


def _explosion(session: Session, loss: float, rate: float) -> str:
    state = session.state
    kept = (
        f"the best model, of step {state.best_step},"
        if session.best is not None
        else f"the weights of step {state.step}"
    )
    return (
        f"the loss or its gradient became {loss} after step {state.step}, so training stopped and {kept} "
        f"is kept; a lower learning_rate than {rate:.2g}, precision='float32', or cleaner images may help"
    )


def _finish(session: Session, reason: str) -> Generator[Event, None, None]:
    state = session.state
    model = session.best
    if model is None:
        model = current_model(session, {})
        if session.out is not None:
            save_model(model, session.out, overwrite=True)
    scores = next((row.scores for row in reversed(state.history) if row.step == state.best_step), {})
    if session.out is not None and state.history:
        try:
            write_picture(curve_paths(session.out)[1], state.history)
        except ModuleNotFoundError as error:
            yield Notice(
                f"the curves are in {curve_paths(session.out)[0].name}; a picture of them needs {error.name!r}: "
                "pip install 'napari-tiled-unet[train]'"
            )
    yield Trained(model, state.step, state.best_step, scores, reason, state.seconds, list(state.history))
