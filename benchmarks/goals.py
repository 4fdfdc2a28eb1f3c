"""What was aimed at, beside what the results say: one row per goal, met or not.

Ours is the run with every option at its default (``auto``), unless the goal names float32.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.cases import read_rows

Row = dict[str, str]


@dataclass(frozen=True)
class Goal:
    """A limit and a number.

    Attributes
    ----------
    what : str
        What is measured.
    limit : float
        What it should be.
    value : float or None
        What it is; None where it was not measured.
    at_least : bool
        Whether more is better.
    unit : str
        Of both.
    """

    what: str
    limit: float
    value: float | None
    at_least: bool = False
    unit: str = ""

    @property
    def wanted(self) -> str:
        """The limit in words."""
        return f"{'>=' if self.at_least else '<='} {self.limit:.3g}{self.unit}"

    @property
    def found(self) -> str:
        """The number in words."""
        return "not measured" if self.value is None else f"{self.value:.3g}{self.unit}"

    @property
    def verdict(self) -> str:
        """Whether the limit is kept."""
        if self.value is None:
            return ""
        kept = operator.ge if self.at_least else operator.le
        return "yes" if kept(self.value, self.limit) else "**no**"


def goals() -> list[Goal]:
    """Return all goals, in the order of the pages of the report."""
    return [
        *_beside_peers("2d", monai=6, nnunet=10),
        *_beside_peers("3d", monai=10, nnunet=15),
        _bundled_model(),
        _memory(),
        *_decoding(),
        *_startup(),
        *_viewer(),
    ]


def _beside_peers(case: str, *, monai: float, nnunet: float) -> Iterator[Goal]:
    rows = {row["contender"]: row for row in read_rows("compare") if row["case"] == case}

    def ratio(column: str, ours: str, peer: str) -> float | None:
        if ours not in rows or peer not in rows or not float(rows[peer][column]):
            return None
        return float(rows[ours][column]) / float(rows[peer][column])

    name = case.upper()
    speed = "megavoxels_per_s"
    yield Goal(f"{name}: speed, times MONAI's defaults", monai, ratio(speed, "auto", "monai"), at_least=True)
    yield Goal(
        f"{name}: speed, times nnU-Net's settings", nnunet, ratio(speed, "auto", "nnunet-settings"), at_least=True
    )
    yield Goal(
        f"{name}: torch float32 alone, times MONAI's defaults", 2.5, ratio(speed, "torch float32", "monai"), True
    )
    for told, peer in (("MONAI's", "monai"), ("nnU-Net's settings", "nnunet-settings")):
        yield Goal(f"{name}: largest error at seams, part of {told}", 1, ratio("largest_seam_error", "auto", peer))
        yield Goal(f"{name}: largest error with rounding, part of {told}", 1, ratio("largest_error", "auto", peer))
    # There the convolution is run between the strips, so that a noisy machine slows both.
    chosen = {"case": case, "manner": "strips", "precision": rows["auto"]["precision"]} if "auto" in rows else {}
    share = _number("strips", "useful", **chosen) if chosen else None
    yield Goal(f"{name}: useful work, of the best convolution", 70, share and 100 * share, at_least=True, unit=" %")


def _number(name: str, column: str, **wanted: str) -> float | None:
    """Return a number of the one row of a table that agrees with what is wanted."""
    found = [row for row in read_rows(name) if all(row[key] == value for key, value in wanted.items())]
    return float(found[0][column]) if found else None


def _bundled_model() -> Goal:
    value = _number("stardist", "s_per_megapixel", contender="ours, image to labels")
    return Goal("bundled model, image to labels, per megapixel", 0.35, value, unit=" s")


def _memory() -> Goal:
    peak = _number("scaling", "peak_gib", against="side", value="4096")
    # One byte per voxel of the image, four of the labels.
    beyond = None if peak is None else (peak * 2**30 - 5 * 4096**2) / 1e9
    return Goal("peak memory for 4096 x 4096, beyond image and labels", 1.5, beyond, unit=" GB")


def _decoding() -> Iterator[Goal]:
    flat = _number("throughput", "s_per_megapixel", side="2048", run="network alone")
    rate = _number("compare", "megavoxels_per_s", case="3d", contender="auto")
    deep = 1 / rate if rate else None
    networks = (("nuclei", "2D: decoding, part of the bundled network's time", flat),)
    for case, what, network in (*networks, ("embryo", "3D: decoding, part of the 3D U-Net's time", deep)):
        seconds = _number("decode", "s_per_megavoxel", case=case)
        yield Goal(what, 1, seconds / network if seconds and network else None)


def _startup() -> Iterator[Goal]:
    for row in read_rows("startup"):
        if row["limit"]:
            yield Goal(f"start-up: {row['what']}", float(row["limit"]), float(row["seconds"]), unit=" s")


def _viewer() -> Iterator[Goal]:
    wanted = {"side": "4096", "cold": "False"}
    yield Goal(
        "viewer: click to first tile, 4096 x 4096",
        2,
        _number("responsiveness", "seconds_to_first_tile", **wanted),
        unit=" s",
    )
    yield Goal(
        "viewer: longest stall while tiles come",
        100,
        _number("responsiveness", "longest_stall_ms", **wanted),
        unit=" ms",
    )
