"""Make the figures of anatomy.md: drawings of networks, and what the bundled model sees in the bundled image.

python docs/make_anatomy.py
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from napari_tiled_unet.demo import read_sample
from napari_tiled_unet.diagram import diagram_svg
from napari_tiled_unet.model_files import load_model
from napari_tiled_unet.networks.inside import look_inside
from napari_tiled_unet.networks.zoo import build_network, network_spec
from napari_tiled_unet.normalise import measure

IMAGES = Path(__file__).parent / "images" / "anatomy"
DRAWN = ("unet", "attention-unet", "unetpp", "unet3p", "fcn")
SIDE = 192


def grey(values: np.ndarray) -> np.ndarray:
    """Return a plane as uint8, stretched from its 1st to its 99th percentile, enlarged to ``SIDE``."""
    low, high = np.percentile(values, (1, 99))
    stretched = np.clip((values - low) / max(high - low, 1e-6), 0, 1)
    times = SIDE // values.shape[0]
    return (255 * stretched.repeat(times, 0).repeat(times, 1)).astype(np.uint8)


def main() -> None:
    """Write the figures."""
    IMAGES.mkdir(parents=True, exist_ok=True)
    for name in DRAWN:
        (IMAGES / f"{name}.svg").write_text(diagram_svg(build_network(network_spec(name, out_channels=2))), "utf-8")
    model = load_model("nuclei")
    frame = np.asarray(read_sample().data)[None]
    statistics, _ = measure(frame, model.spec.normalisation)
    piece = statistics.apply(frame)[:, :SIDE, :SIDE]
    planes = [grey(piece[0])]
    for part, level in (("encoder", 0), ("encoder", 2), ("encoder", 4), ("decoder", 2), ("decoder", 0)):
        maps = look_inside(model.network, piece, part, level).maps  # type: ignore[arg-type]
        # The channel that varies most says most; a single bright corner does not count.
        spread = np.diff(np.percentile(maps, (10, 90), axis=(1, 2)), axis=0)[0]
        planes.append(grey(maps[spread.argmax()]))
    gap = np.full((SIDE, 6), 255, np.uint8)
    Image.fromarray(np.concatenate([x for p in planes for x in (p, gap)][:-1], axis=1)).save(IMAGES / "inside.png")


if __name__ == "__main__":
    main()
