"""The U-Net family, in any number of dimensions.

A network is an encoder, a decoder and a head, put together from a
:class:`~napari_tiled_unet.networks.spec.NetworkSpec`; a name in
:data:`~napari_tiled_unet.networks.zoo.ARCHITECTURES` is a row of choices, not a class.

Importing this package imports torch; the spec alone does not
(:mod:`napari_tiled_unet.networks.spec`).
"""

from __future__ import annotations

from napari_tiled_unet.networks.spec import NetworkSpec

__all__ = ["NetworkSpec"]
