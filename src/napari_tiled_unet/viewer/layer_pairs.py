"""Which Labels layer belongs to each image layer, as rows of a form."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from magicgui.widgets import Container, Widget

from napari_tiled_unet.viewer.form import UNSAID
from napari_tiled_unet.viewer.layers import is_image_layer
from napari_tiled_unet.viewer.rows import DropDown
from napari_tiled_unet.viewer.teaching import proposed

if TYPE_CHECKING:
    from collections.abc import Iterable

    import napari.layers


class LayerPairs(Container[Widget]):
    """A row for each image layer that offers the Labels layers of its size.

    Parameters
    ----------
    on_change : callable
        Called when the user has chosen.
    """

    def __init__(self, on_change: Callable[[], None]) -> None:
        super().__init__(label="", name="layers")
        self.margins = (0, 0, 0, 0)
        self._on_change = on_change
        self._rows: list[tuple[napari.layers.Image, DropDown]] = []
        # What the user chose, by image layer; not the Labels layer, which may be removed meanwhile.
        self._said: dict[Any, Any] = {}

    @property
    def images(self) -> list[napari.layers.Image]:
        """The image layers, with labels or without."""
        return [image for image, _ in self._rows]

    @property
    def chosen(self) -> list[tuple[napari.layers.Image, napari.layers.Labels]]:
        """The image layers that have labels, with them."""
        return [(image, row.value) for image, row in self._rows if row.value not in (None, UNSAID)]

    def row_of(self, image: napari.layers.Image) -> DropDown:
        """Return the row of an image layer."""
        return next(row for layer, row in self._rows if layer is image)

    def offer(self, layers: Iterable[napari.layers.Layer]) -> None:
        """Offer what a viewer has now; what was chosen stays where it is still there."""
        from napari.layers import Labels

        layers = list(layers)
        images = [layer for layer in layers if is_image_layer(layer)]
        labels = [layer for layer in layers if isinstance(layer, Labels)]
        if self.images != images:
            self.clear()
            self._rows = [(image, self._new_row(image)) for image in images]
            self.extend([row for _, row in self._rows])
        for image, row in self._rows:
            row.label = image.name
            fitting, clear = proposed(image, labels)
            said = self._said.get(image.unique_id, getattr(clear, "unique_id", UNSAID))
            taken = next((layer for layer in fitting if layer.unique_id == said), UNSAID)
            row.offer([("not used", UNSAID), *((layer.name, layer) for layer in fitting)], taken)

    def _new_row(self, image: napari.layers.Image) -> DropDown:
        row = DropDown(name=f"labels_of_{image.unique_id}", label=image.name, tooltip="the labels of this image layer")

        def say(value: Any) -> None:
            self._said[image.unique_id] = getattr(value, "unique_id", UNSAID)
            self._on_change()

        row.changed.connect(say)
        return row
