"""Plugins > Tiled U-Net > Improve: labels of a run, corrected by hand, make its model better."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import finalize

from magicgui.widgets import CheckBox, Container, SpinBox, Widget
from napari.utils.notifications import show_error
from qtpy.QtCore import QTimer

from napari_tiled_unet.errors import OptionsError, TiledUnetError
from napari_tiled_unet.model_files import find_model, read_spec
from napari_tiled_unet.viewer.chart import Chart
from napari_tiled_unet.viewer.choices import offer_new_models
from napari_tiled_unet.viewer.correction import candidate_path, take, taken_path
from napari_tiled_unet.viewer.form import UNSAID
from napari_tiled_unet.viewer.hands import claimed_text, claims
from napari_tiled_unet.viewer.improving import Correction, Judged, drop, improve_events, improvement_options
from napari_tiled_unet.viewer.layers import METADATA_KEY, SHOWN, image_from_layer, is_image_layer
from napari_tiled_unet.viewer.preferences import read_preferences, use_model_folder
from napari_tiled_unet.viewer.repeat import last_run, recipe_of
from napari_tiled_unet.viewer.rows import Departure, DropDown, ScrollingRows, push_button, sentence, side_by_side
from napari_tiled_unet.viewer.running import tell
from napari_tiled_unet.viewer.schooling import Schooling, watch_layer
from napari_tiled_unet.viewer.teaching import Lesson, is_own_result, labels_from_layer

if TYPE_CHECKING:
    from pathlib import Path

    import napari.layers
    import napari.viewer

    from napari_tiled_unet.events import Event
    from napari_tiled_unet.options import SegmentOptions
    from napari_tiled_unet.viewer.correction import Compared

_STEPS = 200
_FIRST = "segment an image, and correct its labels with napari's brush"


class ImproveWidget(Container[Widget]):
    """Teach a model what was corrected in its labels; the new one is taken only when asked to.

    Parameters
    ----------
    napari_viewer : napari.viewer.Viewer
        Whose layers are offered.

    Attributes
    ----------
    compared : Compared or None
        Old and new model, while the new one waits to be taken.
    """

    def __init__(self, napari_viewer: napari.viewer.Viewer) -> None:
        super().__init__(labels=False)
        self._viewer = napari_viewer
        self._run: Schooling | None = None
        self.compared: Compared | None = None
        # Files and no names: the folder of models may be another one when the new model is taken.
        self._improved: Path | None = None
        # Drops the new model that waits, also when nothing else is left of the widget.
        self._forsaken: finalize[Any, Any] | None = None
        self._build()
        self._soon = QTimer(self.native)
        self._soon.setSingleShot(True)
        self._soon.timeout.connect(self.reset_choices)
        self._held = ""
        self._improve.changed.connect(self.improve)
        self._cancel.changed.connect(self.cancel)
        self._take.changed.connect(self.take)
        self._discard.changed.connect(self.discard)
        for event in self._layer_events():
            event.connect(self.reset_choices)
        self._result.changed.connect(self._refresh)
        claims.connect(self._marked)
        self._departure = Departure(self.native, undocked=self.cancel, destroyed=self._leave)
        self.reset_choices()

    def _build(self) -> None:
        self._result = DropDown(name="result", label="corrected", tooltip="labels of a run that you have corrected")
        self._steps = SpinBox(
            name="steps",
            label="steps",
            value=_STEPS,
            min=1,
            max=100_000,
            tooltip="steps of training on the corrections",
        )
        self._freeze = CheckBox(
            name="freeze", text="freeze encoder", tooltip="keep the encoder as it is: learns less, forgets less"
        )
        self._image = DropDown(
            name="held_out_image", label="compare on", tooltip="image that was not corrected, to compare the models on"
        )
        self._truth = DropDown(name="held_out_truth", label="its truth", tooltip="right labels of that image")
        self._improve = push_button(
            "Improve", name="improve", tooltip="train on what was touched, and compare", icon="run"
        )
        self._cancel = push_button("Cancel", name="cancel", tooltip="stop; the model stays as it is", icon="stop")
        self._take = push_button(
            "Take the new model", name="take", tooltip="put it in the place of the old one", icon="run"
        )
        self._discard = push_button("Keep the old", name="discard", tooltip="throw the new model away", icon="stop")
        self.chart = Chart()
        self._line = sentence("line", "how it goes")
        form: Container[Widget] = Container(
            widgets=[self._result, self._steps, self._freeze, self._image, self._truth], name="form"
        )
        form.margins = (0, 0, 0, 0)
        self._answer = side_by_side(self._take, self._discard, name="answer")
        self.extend([side_by_side(self._improve, self._cancel, name="buttons"), self._line, self._answer])
        self.native.layout().insertWidget(0, ScrollingRows(form))
        self.native.layout().insertWidget(2, self.chart)
        self.native.setMinimumWidth(260)

    def _layer_events(self) -> tuple[Any, ...]:
        events = self._viewer.layers.events
        return events.inserted, events.removed, events.renamed, events.reordered

    def _leave(self) -> None:
        for event in self._layer_events():
            event.disconnect(self.reset_choices)
        claims.disconnect(self._marked)
        if self._run is not None:
            out = self._run.lesson.out
            self._run.abandon(None if out is None else partial(drop, out))
            self._run = None
        if self._forsaken is not None:
            self._forsaken()

    def control(self, name: str) -> Any:
        """Return a control by its name."""
        own = (
            self._result, self._steps, self._freeze, self._image, self._truth,
            self._improve, self._cancel, self._take, self._discard,
        )  # fmt: skip
        return {w.name: w for w in own}[name]

    @property
    def running(self) -> bool:
        """Whether an improvement is under way."""
        return self._run is not None

    @property
    def status(self) -> str:
        """What the line says."""
        return str(self._line.value)

    def reset_choices(self, *_: Any) -> None:
        """Offer the layers that the viewer has now."""
        from napari.layers import Labels

        layers = [layer for layer in self._viewer.layers if not layer.metadata.get(SHOWN)]
        labels = [layer for layer in layers if isinstance(layer, Labels)]
        made = [layer for layer in labels if self._source_of(layer) is not None]
        human = [layer for layer in labels if not is_own_result(layer)]
        result = self._result.value if self._result.value in made else next(reversed(made), None)
        self._result.offer([(layer.name, layer) for layer in made], result)
        images = [layer for layer in layers if is_image_layer(layer)]
        for row, offered, none in (
            (self._image, images, "a part of the corrections"),
            (self._truth, human, "none"),
        ):
            value = row.value if row.value in offered else UNSAID
            row.offer([(none, UNSAID), *((layer.name, layer) for layer in offered)], value)
        self._refresh()

    def _marked(self) -> None:
        """Look anew when a run begins or ends: its labels are marked then."""
        self._soon.start(0)

    def _source_of(self, labels: napari.layers.Labels) -> napari.layers.Image | None:
        mark = labels.metadata.get(METADATA_KEY)
        if not isinstance(mark, dict) or "exact" not in mark:
            return None
        return next((layer for layer in self._viewer.layers if str(layer.unique_id) == mark.get("source")), None)

    def _refresh(self) -> None:
        waits, result = self.compared is not None, self._result.value
        before, self._held = self._held, "" if result is None else claimed_text(result)
        self._improve.enabled = not self.running and not waits and result is not None and not self._held
        self._cancel.enabled = self._run is not None and not self._run.cancelled
        self._answer.visible = waits
        if self.running or waits:
            return
        if self._held or self.status in ("", _FIRST, before):
            self._line.value = _FIRST if result is None else self._held

    # --- an improvement ---------------------------------------------------------------

    def improve(self) -> None:
        """Train the model of the labels on what was touched in them, and compare it with the old one."""
        if self.running or self.compared is not None:
            return
        preferred = read_preferences()
        use_model_folder(preferred)
        try:
            ran, labels, source = self._chosen()
            path = find_model(ran.model)
            spec = read_spec(path)
            axes = ran.axes or labels.metadata[METADATA_KEY]["image_axes"]
            correction = self._correction(ran, labels, source, axes)
            options = improvement_options(
                ran,
                spec.target.kind,
                steps=int(self._steps.value),
                freeze=bool(self._freeze.value),
                device=preferred.device,
                memory=preferred.memory or None,
            )
            lesson = Lesson(None, None, options, candidate_path(path), overwrite=True)
            watch = watch_layer(self._viewer, source, axes, ran.level)
        except TiledUnetError as error:
            self._line.value = str(error)
            show_error(str(error))
            return
        self._improved = path
        self._run = Schooling(
            lesson,
            self.chart,
            self._show_line,
            on_end=self._end,
            watch=watch,
            source=partial(improve_events, correction),
            hear=self._hear,
        )
        self._refresh()

    def _chosen(self) -> tuple[SegmentOptions, napari.layers.Labels, napari.layers.Image]:
        labels = self._result.value
        source = self._source_of(labels) if labels is not None else None
        if labels is not None and (held := claimed_text(labels)):
            raise OptionsError(held)
        ran = last_run(labels)
        if labels is None or source is None or ran is None:
            raise OptionsError("choose labels of a run whose image is still there")
        return ran, labels, source

    def _correction(
        self, ran: SegmentOptions, labels: napari.layers.Labels, source: napari.layers.Image, axes: str
    ) -> Correction:
        return Correction(
            image_from_layer(source, axes, ran.level),
            labels_from_layer(labels, source, axes),
            ran,
            self._held_out(axes),
            recipe_of(labels),
            labels.metadata[METADATA_KEY].get("origin"),
        )

    def _held_out(self, axes: str) -> tuple[Any, ...]:
        image, truth = self._image.value, self._truth.value
        if image in (None, UNSAID):
            return ()
        if truth in (None, UNSAID):
            raise OptionsError(f"choose the right labels of {image.name!r}, or compare on a part of the corrections")
        return ((image_from_layer(image, axes), labels_from_layer(truth, image, axes)),)

    def _hear(self, event: Event) -> None:
        if isinstance(event, Judged):
            self.compared = event.compared

    def _show_line(self, text: str) -> None:
        self._line.value = text

    def cancel(self) -> None:
        """End within a step; the model stays as it is."""
        if self._run is not None and not self._run.cancelled:
            self._run.cancel()
            self._line.value = "stopping; the model stays as it is ..."
            self._refresh()

    def _end(self) -> None:
        assert self._run is not None
        assert self._improved is not None
        ended, self._run = self._run, None
        if ended.cancelled or self.compared is None:
            self.compared = None
            self._line.value = "cancelled; the model stays as it is" if ended.cancelled else ended.words
            if ended.lesson.out is not None:
                drop(ended.lesson.out)
        else:
            if ended.lesson.out is not None:
                self._forsaken = finalize(self, drop, ended.lesson.out)
            place = taken_path(self._improved)
            self._line.value = f"{self.compared.text}. Taken, it would be {place.stem!r}"
        self._refresh()

    def take(self) -> None:
        """Put the new model in the place of the old."""
        if self.compared is None or self._improved is None:
            return
        use_model_folder(read_preferences())
        try:
            self._line.value = take(self._improved, self.compared.model)
        except TiledUnetError as error:
            tell(error)
            return
        self._forget()
        offer_new_models(self._viewer)

    def discard(self) -> None:
        """Throw the new model away."""
        if self.compared is not None:
            self._line.value = "the old model stays"
            self._forget()

    def _forget(self) -> None:
        self.compared = None
        if self._forsaken is not None:
            self._forsaken()
        self._refresh()
