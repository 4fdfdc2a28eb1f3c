"""``python -m napari_tiled_unet`` is the command ``tiled-unet``."""

from napari_tiled_unet.cli import main

if __name__ == "__main__":
    main()
