"""Patches varied so that few images teach much: presets of MONAI's transforms.

=========  ==========================================================================
none       patches as they are
light      flips and right angles, a little gamma, brightness and noise
standard   free rotation, shear, scale, elastic (2D), gamma, contrast, blur, noise
strong     as standard, further, with bias field and elastic in 3D too
=========  ==========================================================================

In stacks of thick slices nothing is rotated or flipped out of the plane.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_tiled_unet.errors import OptionsError
from napari_tiled_unet.process_setting import ProcessSetting
from napari_tiled_unet.targets import OUTSIDE
from napari_tiled_unet.train_options import Augmentation

# From this ratio of voxel sides on, z is not mixed with y and x.
THICK = 2.0
_BOTH, _IMAGE = ("image", "labels"), ("image",)
# Of image and labels: a mirror image is no object of its own, so past its region nothing is labelled.
_MODE, _PAST = ("bilinear", "nearest"), ("reflection", "zeros")
# From here on float32 cannot hold every whole number; objects of a patch are then numbered anew.
_FLOAT32_WHOLE = 2**24


class Augmenter:
    """Variation of patches by a preset; the same seed gives the same variation.

    Parameters
    ----------
    preset : {"none", "light", "standard", "strong"}
        How much.
    patch : sequence of int
        Shape of the patches that come out.
    anisotropy : float
        How many times deeper than wide a voxel is.

    Attributes
    ----------
    margin : tuple of int
        Voxels around a patch, per side and axis, that it needs to rotate and scale.

    Raises
    ------
    OptionsError
        If MONAI is not installed and the preset needs it.
    """

    def __init__(self, preset: Augmentation, patch: Sequence[int], anisotropy: float = 1.0) -> None:
        self.patch = tuple(patch)
        spatial = preset in ("standard", "strong")
        flat = len(patch) == 2 or anisotropy >= THICK
        self.margin = tuple(
            (max(1, n // 8) if flat and len(patch) == 3 and axis == 0 else n // 4) if spatial else 0
            for axis, n in enumerate(patch)
        )
        self._transform = None if preset == "none" else _transforms(preset, self.patch, flat)

    def __call__(
        self, image: npt.NDArray[np.float32], labels: npt.NDArray[np.int32], seed: int
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int32]]:
        """Vary one patch.

        Parameters
        ----------
        image : numpy.ndarray
            ``(c, [z,] y, x)`` normalised, the patch with its margin.
        labels : numpy.ndarray
            ``([z,] y, x)``, of the same grid; -2 is past the image.
        seed : int
            Chooses the variation.

        Returns
        -------
        image, labels : numpy.ndarray
            Of the patch's shape. What is turned in from outside is reflected in the image and -2 in the labels.
        """
        if self._transform is None:
            return image, labels
        # MONAI fills in 0 where there is nothing, so 0 is made to mean that.
        values = None
        if labels.max() >= _FLOAT32_WHOLE + OUTSIDE:
            values, inverse = np.unique(np.append(labels, np.int32(OUTSIDE)), return_inverse=True)
            numbers = inverse[:-1].reshape(labels.shape).astype(np.int32)
        else:
            numbers = labels - OUTSIDE
        self._transform.set_random_state(seed=seed)
        with _unrecorded:
            out = self._transform({"image": image, "labels": numbers[None].astype(np.float32)})
        varied = np.asarray(out["labels"])[0].round().astype(np.int32)
        changed = np.ascontiguousarray(np.asarray(out["image"], np.float32))
        return changed, varied + OUTSIDE if values is None else values[varied]


def _stop_recording() -> bool:
    """Keep MONAI's tensors from recording what was done to them, which costs as much; return whether they did."""
    from monai.data import get_track_meta, set_track_meta

    before = get_track_meta()
    set_track_meta(False)
    return bool(before)


def _record(wanted: bool) -> None:
    from monai.data import set_track_meta

    set_track_meta(wanted)


_unrecorded = ProcessSetting(_stop_recording, _record)


def _transforms(preset: Augmentation, patch: tuple[int, ...], flat: bool) -> Any:
    try:
        import monai.transforms as monai
    except ModuleNotFoundError as error:
        raise OptionsError(
            f"augmentation={preset!r} needs the package {error.name!r}; install it with "
            "pip install 'napari-tiled-unet[train]', or take augmentation='none'"
        ) from None
    chain = [*_rigid(monai, patch, flat)]
    if preset != "light":
        chain.append(_free(monai, preset, patch, flat))
        if preset == "strong" and len(patch) == 3:
            magnitude = (0.0, 0.0) if flat else (20.0, 60.0)
            if not flat:
                chain.append(
                    monai.Rand3DElasticd(
                        _BOTH, sigma_range=(4, 6), magnitude_range=magnitude, prob=0.2,
                        mode=_MODE, padding_mode=_PAST,
                    )
                )  # fmt: skip
    return monai.Compose(chain + _intensity(monai, preset, len(patch), flat))


def _rigid(monai: Any, patch: tuple[int, ...], flat: bool) -> list[Any]:
    """Flips along every axis that looks the same both ways, right angles in the plane."""
    axes = range(len(patch))
    mirrored = [axis for axis in axes if not (flat and len(patch) == 3 and axis == 0)]
    chain = [monai.RandFlipd(_BOTH, prob=0.5, spatial_axis=axis) for axis in mirrored]
    if patch[-1] == patch[-2]:
        chain.append(monai.RandRotate90d(_BOTH, prob=0.75, spatial_axes=(len(patch) - 2, len(patch) - 1)))
    return chain


def _free(monai: Any, preset: Augmentation, patch: tuple[int, ...], flat: bool) -> Any:
    """Rotation, shear and scale; in 2D with elastic deformation in the same interpolation."""
    reach = 0.45 if preset == "strong" else 0.3
    common = {
        "spatial_size": patch,
        "mode": _MODE,
        "padding_mode": _PAST,
        "prob": 0.9 if preset == "strong" else 0.8,
    }
    if len(patch) == 2:
        return monai.Rand2DElasticd(
            _BOTH,
            spacing=(32, 32),
            magnitude_range=(0.0, 4.0 if preset == "strong" else 2.5),
            rotate_range=(math.pi,),
            shear_range=(0.15, 0.15),
            scale_range=(-reach, reach),
            **common,
        )
    tilt = 0.0 if flat else 0.3
    return monai.RandAffined(
        _BOTH,
        rotate_range=(math.pi, tilt, tilt),
        scale_range=((-0.1, 0.1) if flat else (-reach, reach), (-reach, reach), (-reach, reach)),
        **common,
    )


def _intensity(monai: Any, preset: Augmentation, ndim: int, flat: bool) -> list[Any]:
    if preset == "light":
        return [
            monai.RandAdjustContrastd(_IMAGE, prob=0.3, gamma=(0.8, 1.25)),
            monai.RandScaleIntensityd(_IMAGE, prob=0.3, factors=0.2),
            monai.RandGaussianNoised(_IMAGE, prob=0.2, std=0.03),
        ]
    more = preset == "strong"
    blur = dict.fromkeys(("sigma_x", "sigma_y", "sigma_z")[:ndim], (0.3, 2.0 if more else 1.5))
    if ndim == 3 and flat:
        blur["sigma_x"] = (0.0, 0.4)  # MONAI's x is the first spatial axis, here z
    chain = [
        monai.RandAdjustContrastd(_IMAGE, prob=0.5, gamma=(0.4, 2.5) if more else (0.5, 2.0)),
        monai.RandGaussianSmoothd(_IMAGE, prob=0.25, **blur),
        monai.RandGaussianNoised(_IMAGE, prob=0.4 if more else 0.3, std=0.12 if more else 0.08),
        monai.RandScaleIntensityd(_IMAGE, prob=0.5, factors=0.6 if more else 0.4),
        monai.RandShiftIntensityd(_IMAGE, prob=0.3, offsets=0.2 if more else 0.1),
    ]
    if more:
        chain.insert(0, monai.RandBiasFieldd(_IMAGE, degree=2, coeff_range=(0.0, 0.2), prob=0.3))
    return chain
