"""Curves of a training as points on a rectangle; no Qt."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from collections.abc import Sequence

Points = list[tuple[float, float]]

# Steps that one point of the loss may stand for at least; more points than pixels show nothing.
_MOST_POINTS = 300


@dataclass
class Curves:
    """Loss by step and score by validation, as they come in.

    Attributes
    ----------
    steps, losses : list
        Every step.
    scored, scores : list
        Every validation.
    """

    steps: list[int] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    scored: list[int] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)

    def learn(self, step: int, loss: float) -> None:
        """Add a step."""
        self.steps.append(step)
        self.losses.append(loss)

    def score(self, step: int, score: float) -> None:
        """Add a validation."""
        self.scored.append(step)
        self.scores.append(score)

    @property
    def span(self) -> tuple[int, int]:
        """First and last step that are shown."""
        seen = [*self.steps[:1], *self.steps[-1:], *self.scored]
        return (min(seen), max(seen)) if seen else (0, 1)

    @property
    def loss_range(self) -> tuple[float, float]:
        """Least and greatest mean loss that is shown."""
        _, means = averaged(self.steps, self.losses)
        return (float(min(means)), float(max(means))) if len(means) else (0.0, 1.0)

    def loss_points(self, width: float, height: float) -> Points:
        """Return the loss as points of a rectangle, y downwards; its range fills the height."""
        steps, means = averaged(self.steps, self.losses)
        return placed(steps, means, self.span, self.loss_range, width, height)

    def score_points(self, width: float, height: float) -> Points:
        """Return the scores as points of the same rectangle, from 0 below to 1 above."""
        return placed(self.scored, self.scores, self.span, (0.0, 1.0), width, height)


def averaged(
    steps: Sequence[float], values: Sequence[float], most: int = _MOST_POINTS
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return at most so many points, each the mean of as many neighbours as all the others."""
    if not steps:
        return np.zeros(0), np.zeros(0)
    count = min(most, max(1, len(steps) // 4) if len(steps) > 12 else len(steps))
    parts = np.array_split(np.arange(len(steps)), count)
    x, y = np.asarray(steps, float), np.asarray(values, float)
    return np.array([x[p].mean() for p in parts]), np.array([y[p].mean() for p in parts])


def placed(
    steps: Sequence[float] | npt.NDArray[np.float64],
    values: Sequence[float] | npt.NDArray[np.float64],
    span: tuple[float, float],
    extent: tuple[float, float],
    width: float,
    height: float,
) -> Points:
    """Return values over steps as points of a rectangle, y downwards."""
    long, high = max(span[1] - span[0], 1e-9), max(extent[1] - extent[0], 1e-9)
    return [
        (float((x - span[0]) / long * width), float((1 - (y - extent[0]) / high) * height))
        for x, y in zip(steps, values, strict=True)
    ]
