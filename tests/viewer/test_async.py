"""A run where napari slices layers in a thread (NAPARI_ASYNC=1)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np
import pytest

from napari_tiled_unet.segmentation import segment
from tests.models import blobs

if TYPE_CHECKING:
    from napari.viewer import Viewer

    from napari_tiled_unet.viewer.segment_widget import SegmentWidget

pytestmark = pytest.mark.filterwarnings("ignore:Conversion from CIE-LAB:UserWarning")  # napari's label colours

PLANE = blobs((56, 72), [(15, 20), (15, 50), (40, 30)])


@pytest.fixture(autouse=True)
def slicing_in_a_thread() -> Iterator[None]:
    """Set what NAPARI_ASYNC=1 sets."""
    from napari.settings import get_settings

    experimental = get_settings().experimental
    before = experimental.async_
    experimental.async_ = True
    yield
    experimental.async_ = before


def test_labels_come_live_and_are_right(
    viewer: Viewer, docked: SegmentWidget, finish: Callable[[SegmentWidget], None]
) -> None:
    viewer.add_image(PLANE, name="cells")
    for _ in range(2):
        docked.control("tile").value, docked.control("overlap").value = "32", "10"
        docked.segment()
        finish(docked)
    np.testing.assert_array_equal(viewer.layers["cells labels"].data, segment(PLANE, "blobs", tile=32, overlap=10))
    assert docked.status.startswith("3 labels in ")
