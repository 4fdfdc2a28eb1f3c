"""Maps are rounded as NumPy rounds them, and nobody waits for it."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from napari_tiled_unet import half_precision, iter_segment
from napari_tiled_unet.half_precision import to_half
from tests.models import blobs

FLOATS = st.one_of(
    arrays.arrays(np.float32, st.integers(1, 40), elements=st.floats(width=32)),
    arrays.arrays(np.float32, st.integers(1, 40), elements=st.floats(0, 2**-13, width=32)),
    arrays.arrays(np.float64, st.integers(1, 40), elements=st.floats(-1, 1)),
)


@pytest.mark.filterwarnings("ignore:overflow encountered in cast:RuntimeWarning")
@given(FLOATS)
def test_as_numpy(values: npt.NDArray[Any]) -> None:
    np.testing.assert_array_equal(to_half(values), values.astype(np.float16))


@pytest.mark.parametrize("kind", ["read-only", "backwards", "big-endian", "strided"])
def test_arrays_of_every_kind(kind: str) -> None:
    values = np.linspace(0, 1, 60, dtype=np.float32).reshape(3, 20)
    expected = values.astype(np.float16)
    if kind == "read-only":
        values.flags.writeable = False
    elif kind == "backwards":
        values, expected = values[:, ::-1], expected[:, ::-1]
    elif kind == "big-endian":
        values = values.astype(">f4")
    elif kind == "strided":
        values, expected = values[::2, ::3], expected[::2, ::3]
    out: npt.NDArray[Any] = np.zeros((*values.shape, 2), np.float16)[..., 0]
    assert to_half(values, out) is out
    np.testing.assert_array_equal(out, expected)


def test_what_is_half_stays_as_it_is() -> None:
    values = np.linspace(0, 1, 60, dtype=np.float16)
    assert to_half(values) is values
    assert to_half(values, np.empty_like(values)) is not values


@pytest.mark.parametrize("blend", ["crop", "gaussian"])
def test_a_run_rounds_by_torch(blend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    suited: list[bool] = []
    suits = half_precision._suits_torch

    def seen(values: npt.NDArray[Any]) -> bool:
        suited.append(suits(values))
        return suited[-1]

    monkeypatch.setattr(half_precision, "_suits_torch", seen)
    image = blobs((200, 160), [(20, 20), (70, 30), (150, 80)])
    labels = list(iter_segment(image, "blobs", blend=blend, tile=64, overlap=10, seam_windows=0))[-1].labels
    assert labels.max() == 3
    assert suited
    assert all(suited)
