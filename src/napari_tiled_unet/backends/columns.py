"""A convolution computed for two columns at once.

In memory that has the channels last, two neighbours of ``c`` channels lie as one voxel of ``2 c``. Two columns of what
a kernel of three gives depend on four of the input, which are two such pairs: the kernel becomes two pairs wide, a
quarter of it zero, and the input is seen as it lies. A third more is multiplied; but in bfloat16 a processor multiplies
two numbers at once, of which one channel leaves one empty.

The same products are added, in float32, in another order. A transposed convolution whose kernel is its stride gives all
columns of a voxel at once: they are as many channels of one column, and no number is moved to its place.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

# Outputs of a transposed convolution that leave a processor's units half empty.
_FEW = 32


def channels_last(ndim: int) -> torch.memory_format:
    """Return the layout that has the channels last, of so many spatial axes."""
    return torch.channels_last if ndim == 2 else torch.channels_last_3d


def paired_weight(weight: Tensor) -> Tensor:
    """Return the weights ``(2 o, 2 c, *kernel, (k + 1) / 2)`` of pairs, of those ``(o, c, *kernel, k)`` of columns.

    ``k`` is odd.
    """
    outputs, channels, *rest, width = weight.shape
    paired = weight.new_zeros((2, outputs, 2, channels, *rest, (width + 1) // 2))
    for given in range(2):
        for column in range(width):
            pair, taken = divmod(column + given, 2)
            paired[given, :, taken, ..., pair] = weight[..., column]
    return paired.reshape(2 * outputs, 2 * channels, *rest, (width + 1) // 2)


def as_pairs(x: Tensor) -> Tensor:
    """Return features ``(n, c, ..., x)``, channels last, as ``(n, 2 c, ..., x / 2)``, pairs of columns: a view."""
    last = x.movedim(1, -1)
    return last.reshape(*last.shape[:-2], last.shape[-2] // 2, 2 * last.shape[-1]).movedim(-1, 1)


def as_columns(x: Tensor, count: int = 2) -> Tensor:
    """Return pairs of columns, or ``count`` that lie as one, as the columns that they are: a view."""
    last = x.movedim(1, -1)
    return last.reshape(*last.shape[:-2], count * last.shape[-2], last.shape[-1] // count).movedim(-1, 1)


def with_margin(x: Tensor, columns: int) -> Tensor:
    """Return features with columns of zeros at both ends, channels last."""
    if not columns:
        return x
    shape, layout = (*x.shape[:-1], x.shape[-1] + 2 * columns), channels_last(x.ndim - 2)
    wide = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=layout)
    wide[..., :columns] = 0
    wide[..., -columns:] = 0
    wide[..., columns:-columns] = x
    return wide


def stacked_weight(weight: Tensor) -> Tensor:
    """Return the weights ``(c, k o, *kernel, 1)`` of a transposed convolution whose stride is ``k``, as its kernel is.

    Those of single columns are ``(c, o, *kernel, k)``.
    """
    return weight.movedim(-1, 1).flatten(1, 2).unsqueeze(-1)


def can_pair(conv: Any) -> bool:
    """Return whether a convolution can be computed for two columns at once."""
    width = conv.kernel_size[-1]
    return conv.groups == 1 and {*conv.stride, *conv.dilation} == {1} and width > 1 and width % 2 == 1


def pairs_pay(x: Tensor) -> bool:
    """Return whether what is convolved is done sooner two columns at a time: one channel in bfloat16 is."""
    return x.dtype == torch.bfloat16 and x.shape[1] == 1 and x.shape[-1] % 2 == 0


def stack_pays(conv: Any) -> bool:
    """Return whether a transposed convolution is done sooner for all columns of a voxel: with few channels it is."""
    width = conv.kernel_size[-1]
    apart = width == conv.stride[-1] and not conv.padding[-1] and not conv.output_padding[-1] and conv.dilation[-1] == 1
    return (
        apart and width > 1 and conv.groups == 1 and conv.weight.dtype == torch.bfloat16 and conv.out_channels <= _FEW
    )
