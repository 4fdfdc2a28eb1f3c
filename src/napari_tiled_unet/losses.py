"""Losses of maps under a weight; voxels of weight 0 count for nothing.

========  =============================================  ==================================
kind      voxel by voxel                                 of the whole batch
========  =============================================  ==================================
dice      cross-entropy                                  Dice
focal     cross-entropy, easy voxels count less          Dice
tversky   cross-entropy                                  Tversky: a miss costs more than an
                                                         extra, for what is rare
========  =============================================  ==================================
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from napari_tiled_unet.train_options import Loss

# Lin et al. 2017 and Salehi et al. 2017 recommend these.
_FOCUS = 2.0
_EXTRA, _MISSED = 0.3, 0.7


def weighted_mean(values: Tensor, weight: Tensor) -> Tensor:
    """Return the mean of ``values`` under ``weight``; voxels of weight 0 do not count."""
    return (values * weight).sum() / weight.sum().clamp_min(1e-6)


def voxel_loss(entropy: Tensor, weight: Tensor, kind: Loss = "dice") -> Tensor:
    """Return the mean cross-entropy; under ``focal`` times ``(1 - p) ** 2`` of the right answer's ``p``.

    References
    ----------
    .. [1] T.-Y. Lin et al., "Focal loss for dense object detection", ICCV 2017, arXiv:1708.02002
    """
    if kind == "focal":
        entropy = entropy * (1 - (-entropy).exp()) ** _FOCUS
    return weighted_mean(entropy, weight)


def overlap_loss(probability: Tensor, truth: Tensor, weight: Tensor, kind: Loss = "dice") -> Tensor:
    """Return the soft Dice loss, or the Tversky loss of that kind, ``(n, k, *spatial)``."""
    if kind == "tversky":
        return soft_tversky_loss(probability, truth, weight)
    return soft_dice_loss(probability, truth, weight)


def soft_dice_loss(probability: Tensor, truth: Tensor, weight: Tensor) -> Tensor:
    """Return 1 minus the soft Dice of each channel over the batch (Milletari et al. 2016)."""
    dims = (0, *range(2, probability.ndim))
    product = (weight * probability * truth).sum(dims)
    total = (weight * (probability + truth)).sum(dims)
    return 1 - ((2 * product + 1) / (total + 1)).mean()


def soft_tversky_loss(probability: Tensor, truth: Tensor, weight: Tensor) -> Tensor:
    """Return 1 minus the soft Tversky index of each channel over the batch.

    References
    ----------
    .. [1] S. S. M. Salehi et al., "Tversky loss function for image segmentation using 3D fully convolutional
           deep networks", MLMI 2017, arXiv:1706.05721
    """
    dims = (0, *range(2, probability.ndim))
    product = (weight * probability * truth).sum(dims)
    extra = (weight * probability * (1 - truth)).sum(dims)
    missed = (weight * (1 - probability) * truth).sum(dims)
    return 1 - ((product + 1) / (product + _EXTRA * extra + _MISSED * missed + 1)).mean()
