"""What a training says while it goes on."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from napari_tiled_unet.events import Event

if TYPE_CHECKING:
    from napari_tiled_unet.model import Model
    from napari_tiled_unet.training.patches import Patch
    from napari_tiled_unet.training.plan import Plan


@dataclass(frozen=True)
class Prepared(Event):
    """The data are looked through and the plan is made; nothing is learned yet.

    Attributes
    ----------
    plan : Plan
        With a reason for each choice.
    n_training, n_validation : int
        Frames to learn from, and frames held out.
    n_parameters : int
        Numbers that are learned.
    split : str
        How the held-out part was chosen.
    patches : tuple of Patch
        The first augmented patches, to look at.
    first_step : int
        Step from which it goes on; 0 for a new training.
    """

    plan: Plan
    n_training: int
    n_validation: int
    n_parameters: int
    split: str
    patches: tuple[Patch, ...]
    first_step: int = 0


@dataclass(frozen=True)
class StepDone(Event):
    """A batch has been learned.

    Attributes
    ----------
    step : int
        Counted from 1.
    loss, learning_rate : float
        Of this step.
    seconds : float
        Time trained, over all sessions.
    progress : float
        Share of the steps, or of the minutes if those end first.
    """

    step: int
    loss: float
    learning_rate: float
    seconds: float
    progress: float


@dataclass(frozen=True)
class Validated(Event):
    """The held-out part has been predicted.

    Attributes
    ----------
    step : int
        After which step.
    score : float
        What the best model is chosen by: mean AP over IoU 0.5 to 0.9, or mean Dice.
    scores : dict of str to float
        All scores by name.
    loss : float
        Mean training loss since the validation before.
    is_best : bool
        Whether there was no better one so far.
    model : Model
        As it stands; to keep if it is the best, or to predict with.
    seconds : float
        Time trained.
    """

    step: int
    score: float
    scores: dict[str, float]
    loss: float
    is_best: bool
    model: Model
    seconds: float


@dataclass(frozen=True)
class Trained(Event):
    """The training is over.

    Attributes
    ----------
    model : Model
        The best one.
    step, best_step : int
        How many steps were done, and after which the best model stood.
    scores : dict of str to float
        Of the best model.
    reason : str
        Why it ended.
    seconds : float
        Time trained.
    history : list of Row
        What the curves show.
    """

    model: Model
    step: int
    best_step: int
    scores: dict[str, float]
    reason: str
    seconds: float
    history: list[Row] = field(default_factory=list)


@dataclass(frozen=True)
class Row:
    """A point of the curves: one validation."""

    step: int
    seconds: float
    loss: float
    learning_rate: float
    score: float
    scores: dict[str, float]
