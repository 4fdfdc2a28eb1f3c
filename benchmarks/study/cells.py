"""What is trained: one cell is one network, on one set, with one seed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from functools import cache
from typing import Any

from napari_tiled_unet.networks.footprint import flops_per_voxel
from napari_tiled_unet.networks.spec import NetworkSpec
from napari_tiled_unet.networks.zoo import Network, build_network, network_spec

WIDTH, STEPS = 16, 600
FEW = (5, 10, 20, 50)
# A row that does not reach these on dsb2018, with all images, is taken for broken.
FLOOR = {"Dice": 0.8, "AP 0.5": 0.45}
DESCENDANTS = ("residual-unet", "attention-unet", "unetpp", "unet3p")


@dataclass(frozen=True)
class Cell:
    """One training.

    Attributes
    ----------
    question : str
        Which part of the page it answers.
    variant : str
        What is compared within the question.
    row : str
        Architecture.
    data : {"dsb2018", "isbi2012", "plantseg_3d"}
        Which set.
    choices : dict
        Of the network.
    images : int
        Number of training images; 0 is all.
    fold : int
        Of isbi2012; which slices are held out.
    seed : int
        Of weights, patches and augmentation.
    steps : int
        Of training.
    """

    question: str
    variant: str
    row: str
    data: str
    choices: dict[str, Any] = field(default_factory=dict)
    images: int = 0
    fold: int = 0
    seed: int = 0
    steps: int = STEPS

    @property
    def key(self) -> str:
        """Name of the cell in the table; a cell of the same key is not run again."""
        return json.dumps(asdict(self), sort_keys=True)

    @property
    def spec(self) -> NetworkSpec:
        """Its network with every choice spelt out."""
        return network_spec(self.row, in_channels=1, out_channels=2, **self.choices)

    @property
    def training(self) -> str:
        """What is trained: cells of different questions that agree in this share one training."""
        given = (self.spec.model_dump_json(), self.data, self.images, self.fold, self.seed, self.steps)
        return json.dumps(given)

    def network(self) -> Network:
        """Build its network."""
        return build_network(self.spec)


def all_cells(seeds: int, steps: int, folds: int) -> Iterator[Cell]:
    """Yield every cell, seed by seed, so that a study cut short has whole rounds."""
    for seed in range(seeds):
        yield from _round(seed, steps, folds)


def by_training(cells: Iterable[Cell]) -> list[list[Cell]]:
    """Return the cells in groups of one training each, in order."""
    groups: dict[str, list[Cell]] = {}
    for cell in cells:
        groups.setdefault(cell.training, []).append(cell)
    return list(groups.values())


def _round(seed: int, steps: int, folds: int) -> Iterator[Cell]:
    flat: dict[str, Any] = {"width": WIDTH}
    deep: dict[str, Any] = {"ndim": 3, "width": 8, "depth": 3}
    same: dict[str, Any] = {"seed": seed, "steps": steps}
    for row in ("unet", "fcn", "unet-noskip", "unet-add"):
        yield Cell("skips", row, row, "dsb2018", flat, **same)
        for fold in range(folds):
            yield Cell("skips", row, row, "isbi2012", flat, fold=fold, **same)
        yield Cell("skips", row, row, "plantseg_3d", deep, **same)
    for up in ("transposed", "nearest", "linear", "pixel-shuffle"):
        yield Cell("upsampling", up, "unet", "dsb2018", {**flat, "upsample": up}, **same)
    for down in ("max-pool", "strided-conv", "blur-pool"):
        yield Cell("downsampling", down, "unet", "dsb2018", {**flat, "downsample": down}, **same)
    for measure in ("parameters", "work"):
        for row in ("unet", *DESCENDANTS):
            width = equal_width(row, measure)
            yield Cell(f"equal {measure}", row, row, "dsb2018", {"width": width}, **same)
            yield Cell(f"equal {measure}", row, row, "isbi2012", {"width": width}, **same)
    for row in ("unet", "fcn"):
        for images in (*FEW, 0):
            yield Cell("few images", f"{row} {images or 'all'}", row, "dsb2018", flat, images=images, **same)
    for row in ("fpn", "unet-strided", "unet-2015"):
        yield Cell("other rows", row, row, "dsb2018", flat, **same)
    for row in ("unet-resnet34", "unet-efficientnet-b0"):
        yield Cell("other rows", row, row, "dsb2018", **same)
    for encoder, width in (("resnet18", 16), ("efficientnet-b0", 16)):
        choices = {"encoder": encoder, "width": width, "depth": 4}
        yield Cell("other rows", f"unet on {encoder}", "unet", "dsb2018", choices, **same)


@cache
def equal_width(row: str, measure: str) -> int:
    """Return the width at which a row comes nearest to the U-Net of ``WIDTH`` in parameters or work."""

    def cost(name: str, width: int) -> float:
        network = build_network(network_spec(name, width=width, out_channels=2))
        return sum(p.numel() for p in network.parameters()) if measure == "parameters" else flops_per_voxel(network)

    wanted = cost("unet", WIDTH)
    # Both grow with the width, so the place where they pass the U-Net's is found by halving.
    low, high = 1, 2 * WIDTH
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if cost(row, middle) < wanted else (low, middle)
    return min((low, high), key=lambda width: abs(cost(row, width) / wanted - 1))
