"""What runs a network: torch, and faster runtimes where they are installed.

A backend is a name, a number format and ``run``: tiles ``(n, c, *spatial)`` float32 in,
maps ``(n, k, *spatial)`` float32 out. A runtime is a row of
:data:`~napari_tiled_unet.backends.interface.RUNTIMES`; which one a run takes is decided in
:mod:`~napari_tiled_unet.backends.choice`.
"""
