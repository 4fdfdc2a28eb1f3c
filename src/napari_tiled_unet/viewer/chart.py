"""The curves of a training, drawn."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import QPointF, QRectF, QSize, Qt
from qtpy.QtGui import QColor, QPainter, QPaintEvent, QPalette, QPen, QPolygonF
from qtpy.QtWidgets import QSizePolicy, QWidget

from napari_tiled_unet.viewer.curve import Curves

if TYPE_CHECKING:
    from napari_tiled_unet.viewer.curve import Points

# Told apart with any kind of colour vision, on dark and on light.
_LOSS, _SCORE = QColor("#e69f00"), QColor("#56b4e9")
_HEIGHT, _MARGIN = 130, 8


class Chart(QWidget):
    """Loss and score over the steps; the loss on its own scale, the score from 0 to 1.

    Attributes
    ----------
    curves : Curves
        What is drawn.
    """

    def __init__(self) -> None:
        super().__init__()
        self.curves = Curves()
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.setFixedHeight(_HEIGHT)
        self.setToolTip(
            "loss of the training (orange, mean of neighbouring steps, on a scale of its own) and score of the part "
            "that is held out (blue, from 0 to 1); the best score counts"
        )

    def sizeHint(self) -> QSize:  # noqa: N802
        """Return a size that fits a narrow dock."""
        return QSize(220, _HEIGHT)

    def clear(self) -> None:
        """Begin anew."""
        self.curves = Curves()
        self.update()

    def paintEvent(self, event: QPaintEvent | None) -> None:  # noqa: ARG002, N802
        """Draw the curves with their names and last values."""
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        line = painter.fontMetrics().height()
        frame = QRectF(_MARGIN, _MARGIN + line, self.width() - 2 * _MARGIN, _HEIGHT - 2 * (_MARGIN + line))
        text = self.palette().color(QPalette.ColorRole.WindowText)
        faint = QColor(text)
        faint.setAlpha(60)
        painter.setPen(QPen(faint, 1))
        painter.drawRect(frame)
        painter.translate(frame.topLeft())
        self._draw(painter, self.curves.loss_points(frame.width(), frame.height()), _LOSS, dots=False)
        self._draw(painter, self.curves.score_points(frame.width(), frame.height()), _SCORE, dots=True)
        painter.translate(-frame.topLeft())
        above = QRectF(_MARGIN, 0, self.width() - 2 * _MARGIN, line + _MARGIN)
        below = QRectF(_MARGIN, frame.bottom(), self.width() - 2 * _MARGIN, line + _MARGIN)
        loss, score = self.words()
        for area, side, colour, words in (
            (above, Qt.AlignmentFlag.AlignLeft, _LOSS, loss),
            (above, Qt.AlignmentFlag.AlignRight, _SCORE, score),
            (below, Qt.AlignmentFlag.AlignLeft, text, f"step {self.curves.span[0]}"),
            (below, Qt.AlignmentFlag.AlignRight, text, str(self.curves.span[1])),
        ):
            painter.setPen(colour)
            painter.drawText(area, int(side | Qt.AlignmentFlag.AlignVCenter), words)
        painter.end()

    def words(self) -> tuple[str, str]:
        """Return what is written above the curves: the range of the loss, the last score and the best."""
        low, high = self.curves.loss_range
        loss = f"loss {high:.2f} to {low:.2f}" if self.curves.losses else "loss"
        scores = self.curves.scores
        return loss, f"score {scores[-1]:.2f}, best {max(scores):.2f}" if scores else "score"

    def _draw(self, painter: QPainter, points: Points, colour: QColor, *, dots: bool) -> None:
        corners = [QPointF(x, y) for x, y in points]
        painter.setPen(QPen(colour, 2))
        painter.drawPolyline(QPolygonF(corners))
        if dots:
            painter.setBrush(colour)
            for corner in corners:
                painter.drawEllipse(corner, 2.5, 2.5)
