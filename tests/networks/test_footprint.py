"""Shapes that are reckoned without torch's own ways, which import its compiler."""

from __future__ import annotations

from typing import Any

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_tiled_unet.networks.footprint import _SHAPES

ATEN = torch.ops.aten


def shapes(found: Any) -> list[tuple[tuple[int, ...], torch.dtype]]:
    return [(tuple(t.shape), t.dtype) for t in (found if isinstance(found, tuple) else (found,))]


def meta(*shape: int) -> torch.Tensor:
    return torch.empty(shape, device="meta")


def agree(operator: Any, *args: Any) -> None:
    assert shapes(_SHAPES[operator](*args)) == shapes(operator(*args))


@settings(deadline=None)
@given(st.data(), st.integers(2, 3))
def test_convolutions(data: st.DataObject, ndim: int) -> None:
    def each(low: int, high: int) -> list[int]:
        return data.draw(st.lists(st.integers(low, high), min_size=ndim, max_size=ndim))

    groups, transposed = data.draw(st.integers(1, 2)), data.draw(st.booleans())
    kernel, stride = each(1, 3), each(1, 3)
    more = [data.draw(st.integers(0, s - 1)) if transposed else 0 for s in stride]
    weight = meta(4, 6, *kernel) if transposed else meta(6, 4 // groups, *kernel)
    where = (stride, each(0, 2), each(1, 2), transposed, more, groups)
    agree(ATEN.convolution.default, meta(2, 4, *each(7, 12)), weight, None, *where)


@settings(deadline=None)
@given(st.data(), st.integers(2, 3), st.booleans())
def test_pooling(data: st.DataObject, ndim: int, ceil_mode: bool) -> None:
    def each(low: int, high: int, most: list[int] | None = None) -> list[int]:
        drawn = data.draw(st.lists(st.integers(low, high), min_size=ndim, max_size=ndim))
        return drawn if most is None else [min(pair) for pair in zip(drawn, most, strict=True)]

    kernel = each(1, 3)
    padding = each(0, 1, [k // 2 for k in kernel])
    operator = {2: ATEN.max_pool2d_with_indices.default, 3: ATEN.max_pool3d_with_indices.default}[ndim]
    x = meta(1, 3, *each(5, 11))
    agree(operator, x, kernel, each(1, 3), padding, [1], ceil_mode)
    agree(operator, x, kernel, [], padding)
    agree(operator, x, [2])


@settings(deadline=None)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=3), st.integers(-3, 2))
def test_joining(sides: list[int], dim: int) -> None:
    shapes = [[3, 4, 5] for _ in sides]
    for shape, side in zip(shapes, sides, strict=True):
        shape[dim] = side + 1
    agree(ATEN.cat.default, [meta(*shape) for shape in shapes], dim)


def test_copies() -> None:
    agree(ATEN.clone.default, meta(2, 3, 4))
