"""The line that foretells a run, before the click: tiles, memory, time; red when it does not fit."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QTimer

from napari_tiled_unet.model_files import recent_model
from napari_tiled_unet.viewer.rows import sentence
from napari_tiled_unet.viewer.worker import Latest, one_core_left, warm_up

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_tiled_unet.forecast import Forecast
    from napari_tiled_unet.image import Image
    from napari_tiled_unet.options import SegmentOptions

# Milliseconds that the form has to rest.
_REST = 150
_RED = "color: #ff6b6b;"


def foretold(image: Image, options: SegmentOptions) -> Forecast:
    """Return the forecast of a run; slow the first time, when model and rate are not known."""
    from napari_tiled_unet.forecast import calibrate, forecast

    warm_up()
    with one_core_left():
        model = recent_model(options.model)
        found = forecast(image, model, options)
        if found.problem is None and found.seconds is None:
            calibrate(model, options)
            found = forecast(image, model, options)
    return found


class Outlook:
    """Foretells the run that the form says.

    Parameters
    ----------
    question : callable
        Returns the image and the options of the run, or None where there is none to foretell.

    Attributes
    ----------
    widget : Label
        The line.
    """

    def __init__(self, question: Callable[[], tuple[Image, SegmentOptions] | None]) -> None:
        self.widget = sentence("outlook", "what the run will take, about")
        self._question = question
        self._answers = Latest()
        self._asked = 0
        self._soon = QTimer(self.widget.native)
        self._soon.setSingleShot(True)
        self._soon.timeout.connect(self._ask)

    def refresh(self) -> None:
        """Foretell anew, once the form rests."""
        self._asked += 1
        self._soon.start(_REST)

    @property
    def busy(self) -> bool:
        """Whether a forecast is still to come."""
        return self._soon.isActive() or self._answers.busy

    @property
    def text(self) -> str:
        """What the line says."""
        return str(self.widget.value)

    def close(self) -> None:
        """Foretell nothing more."""
        self._answers.close()

    def _ask(self) -> None:
        question = self._question()
        if question is None:
            self._show("", fits=True)
        else:
            self._answers.ask(partial(foretold, *question), partial(self._answer, self._asked))

    def _answer(self, asked: int, found: Any) -> None:
        if asked != self._asked:
            return
        # What the run would refuse it says itself, with more room.
        if isinstance(found, Exception):
            self._show("", fits=True)
        else:
            self._show(found.text, fits=found.problem is None)

    def _show(self, text: str, *, fits: bool) -> None:
        self.widget.value = text
        self.widget.native.setStyleSheet("" if fits else _RED)
        self.widget.visible = bool(text)
