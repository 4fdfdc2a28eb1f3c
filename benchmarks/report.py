"""Write ``docs/performance.md`` and its plots from ``benchmarks/results/*.csv``: ``python -m benchmarks.report``.

Every number of the page comes from those files; a table whose file is not there is left out. The words
around them are in ``benchmarks/performance.md.in``, where ``{{name}}`` stands for a table.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from benchmarks.cases import ROOT, read_rows
from benchmarks.goals import goals

PAGE = ROOT / "docs" / "performance.md"
WORDS = ROOT / "benchmarks" / "performance.md.in"
IMAGES = ROOT / "docs" / "images"
NOT_MEASURED = "*Not measured yet: `make bench`.*"

Row = dict[str, str]


def table(heads: list[str], rows: list[list[str]]) -> str:
    """Return a table; the first column is text, the others numbers."""
    lines = [heads, ["---", *["---:"] * (len(heads) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def machine() -> str:
    """Return what the numbers were measured on."""
    found = {(row["processor"], row["threads"]) for row in read_rows("compare")}
    return "; ".join(f"{name}, {threads} threads" for name, threads in sorted(found)) or "nothing yet"


def compare(case: str) -> str:
    """Return ours beside the peers, slowest first."""
    rows = [row for row in read_rows("compare") if row["case"] == case]
    if not rows:
        return NOT_MEASURED
    speed = {row["contender"]: float(row["megavoxels_per_s"]) for row in rows}

    def ratio(row: Row, peer: str) -> str:
        return f"{speed[row['contender']] / speed[peer]:.2f}" if peer in speed else ""

    lines = [
        [
            row["contender"] + (f" ({row['backend']}, {row['precision']})" if row["backend"] else ""),
            row["megavoxels_per_s"],
            ratio(row, "monai"),
            ratio(row, "nnunet-settings"),
            row["seconds_to_labels"],
            row["largest_seam_error"],
            row["largest_error"],
            row["mean_error"],
            row["peak_gib"],
            row["useful_gflop_per_s"],
            share_of_roofline(row),
        ]
        for row in sorted(rows, key=lambda row: float(row["megavoxels_per_s"]))
    ]
    heads = [
        f"{rows[0]['shape'].replace('x', ' x ')} voxels",
        "Mvoxel/s",
        "x MONAI",
        "x nnU-Net's settings",
        "s to labels",
        "largest seam error",
        "largest error",
        "mean error",
        "peak GiB",
        "useful GFLOP/s",
        "of the best convolution",
    ]
    return table(heads, lines)


def share_of_roofline(row: Row) -> str:
    """Return useful work against the best convolution of the same precision and number of axes."""
    rates = [
        float(rate["gflop_per_s"])
        for rate in read_rows("roofline")
        if rate["precision"] == row["precision"] and rate["kind"].startswith(f"convolution {row['case'].upper()}")
    ]
    return f"{float(row['useful_gflop_per_s']) / max(rates):.0%}" if rates else ""


def roofline() -> str:
    """Return the machine's best rates."""
    rows = read_rows("roofline")
    kinds = list(dict.fromkeys(row["kind"] for row in rows))
    rate = {(row["kind"], row["precision"]): row["gflop_per_s"] for row in rows}
    lines = [[kind, rate.get((kind, "float32"), ""), rate.get((kind, "bfloat16"), "")] for kind in kinds]
    return table(["GFLOP/s", "float32", "bfloat16"], lines) if rows else NOT_MEASURED


def scaling(against: str) -> str:
    """Return time and memory against one thing."""
    rows = sorted((r for r in read_rows("scaling") if r["against"] == against), key=lambda r: float(r["value"]))
    lines = [
        [
            row["value"],
            f"{float(row['megavoxels']):.1f}",
            row["seconds"],
            f"{float(row['seconds']) / float(row['megavoxels']):.3f}",
            row["peak_gib"],
        ]
        for row in rows
    ]
    return table([against, "megavoxels", "s", "s per megavoxel", "peak GiB"], lines) if rows else NOT_MEASURED


def startup() -> str:
    """Return the seconds until something happens."""
    rows = read_rows("startup")
    lines = [[row["what"], row["seconds"], row["least"], row["limit"]] for row in rows]
    return table(["", "median s", "least s", "wanted below"], lines) if rows else NOT_MEASURED


def stardist() -> str:
    """Return StarDist's network beside ours."""
    rows = read_rows("stardist")
    lines = [[row["contender"], row["side"], row["s_per_megapixel"]] for row in rows]
    return table(["", "side", "s per megapixel"], lines) if rows else NOT_MEASURED


def responsiveness() -> str:
    """Return how the viewer answers."""
    rows = read_rows("responsiveness")
    lines = [
        [
            f"{row['side']} x {row['side']}{', nothing loaded yet' if row['cold'] == 'True' else ''}",
            row["seconds_to_first_tile"],
            row["seconds_to_finish"],
            row["longest_stall_ms"],
            row["own_work_ms"],
            row["stall_until_layer_ms"],
        ]
        for row in rows
    ]
    heads = ["image", "first tile, s", "end, s", "longest stall, ms", "of it own work, ms", "stall before tiles, ms"]
    return table(heads, lines) if rows else NOT_MEASURED


def decode() -> str:
    """Return the seconds from maps to objects."""
    rows = read_rows("decode")
    lines = [
        [row["case"], row["shape"].replace("x", " x "), row["objects"], row["seconds"], row["s_per_megavoxel"]]
        for row in rows
    ]
    return table(["", "voxels", "objects", "s", "s per megavoxel"], lines) if rows else NOT_MEASURED


def half() -> str:
    """Return what rounding to half precision takes, by NumPy and by torch."""
    rows = read_rows("half")
    lines = [
        [f"{row['what']}, {row['unit']}", *(f"{float(row[name]):.3g}" for name in ("numpy", "torch", "ratio"))]
        for row in rows
    ]
    return table(["", "NumPy", "torch", "ratio"], lines) if rows else NOT_MEASURED


def footprint() -> str:
    """Return the planned bytes per voxel beside those that a pass takes, and its seconds."""
    rows = read_rows("footprint")
    lines = [
        [
            f"{row['model']}, {row['precision']}, {row['tile'].replace('x', ' x ')}, {row['manner']}",
            row["planned"],
            row["taken"],
            row["seconds"],
        ]
        for row in rows
    ]
    return table(["", "planned, bytes per voxel", "taken", "s"], lines) if rows else NOT_MEASURED


def strips() -> str:
    """Return strips beside tiles."""
    rows = read_rows("strips")
    lines = [
        [
            f"{row['case']}, {row['shape'].replace('x', ' x ')}, {row['precision']}, {row['manner']}",
            row["overlap"].replace("x", " x "),
            row["work"],
            row["first"],
            f"{100 * float(row['first_useful']):.0f} %",
            row["seconds"],
            f"{100 * float(row['useful']):.0f} %",
            row["ratio"],
            row["gib"],
            row["difference"],
        ]
        for row in rows
    ]
    head = ["", "overlap", "computed", "first, s", "useful", "later, s", "useful", "x tiles", "GiB", "difference"]
    note = f"\n\nOn: {rows[0]['processor']}, {rows[0]['threads']} threads." if rows else ""
    return table(head, lines) + note if rows else NOT_MEASURED


def throughput() -> str:
    """Return the bundled model beside its network alone."""
    rows = read_rows("throughput")
    lines = [[f"{row['side']} x {row['side']}, {row['run']}", row["s_per_megapixel"]] for row in rows]
    return table(["", "s per megapixel"], lines) if rows else NOT_MEASURED


def acceptance() -> str:
    """Return what was aimed at, and what was reached."""
    lines = [[goal.what, goal.wanted, goal.found, goal.verdict] for goal in goals()]
    return table(["goal", "wanted", "measured", "met"], lines)


def gpu() -> str:
    """Return the comparison on a card."""
    rows = read_rows("gpu")
    lines = [
        [f"{row['case']}, {row['contender']}", row["megavoxels_per_s"], row["share_of_matrix_product"], row["card"]]
        for row in rows
    ]
    heads = ["", "Mvoxel/s", "of the matrix product rate", "card"]
    return table(heads, lines) if rows else "*Not measured: there was no card.*"


def plot_compare(path: Path) -> None:
    """Draw speed beside the largest error at seams, one panel per case."""
    import matplotlib.pyplot as plt

    cases = list(dict.fromkeys(row["case"] for row in read_rows("compare")))
    figure, axes = plt.subplots(1, len(cases), figsize=(5.5 * len(cases), 3.6), squeeze=False, layout="constrained")
    for axis, case in zip(axes[0], cases, strict=True):
        rows = [row for row in read_rows("compare") if row["case"] == case]
        rows.sort(key=lambda row: float(row["megavoxels_per_s"]))
        colours = ["tab:blue" if row["backend"] else "tab:gray" for row in rows]
        speeds = [float(row["megavoxels_per_s"]) for row in rows]
        bars = axis.barh([row["contender"] for row in rows], speeds, color=colours)
        axis.bar_label(
            bars, [f" {s:.2f} (seams {float(r['largest_seam_error']):.1g})" for s, r in zip(speeds, rows, strict=True)]
        )
        axis.set(
            title=f"{case.upper()}, {rows[0]['shape']}", xlabel="megavoxels per second", xlim=(0, max(speeds) * 1.5)
        )
    figure.savefig(path, dpi=110)
    plt.close(figure)


def plot_scaling(path: Path) -> None:
    """Draw time and peak memory against the size of the image."""
    import matplotlib.pyplot as plt

    rows = sorted((r for r in read_rows("scaling") if r["against"] == "side"), key=lambda r: float(r["megavoxels"]))
    size = [float(row["megavoxels"]) for row in rows]
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    for axis, column, label in ((left, "seconds", "seconds"), (right, "peak_gib", "peak memory, GiB")):
        values = [float(row[column]) for row in rows]
        axis.plot(size, values, "o-")
        axis.set(xlabel="megavoxels", ylabel=label, ylim=(0, max(values) * 1.1), xlim=(0, None))
    figure.savefig(path, dpi=110)
    plt.close(figure)


TABLES: dict[str, Callable[[], str]] = {
    "machine": machine,
    "compare 2d": lambda: compare("2d"),
    "compare 3d": lambda: compare("3d"),
    "roofline": roofline,
    "scaling side": lambda: scaling("side"),
    "scaling tile": lambda: scaling("tile"),
    "scaling threads": lambda: scaling("threads"),
    "startup": startup,
    "stardist": stardist,
    "responsiveness": responsiveness,
    "decode": decode,
    "footprint": footprint,
    "half": half,
    "strips": strips,
    "throughput": throughput,
    "acceptance": acceptance,
    "gpu": gpu,
}


def main() -> None:
    """Write the page and the plots."""
    for name, draw, source in (
        ("performance-compare.png", plot_compare, "compare"),
        ("performance-scaling.png", plot_scaling, "scaling"),
    ):
        if read_rows(source):
            draw(IMAGES / name)
    page = re.sub(r"{{(.+?)}}", lambda found: TABLES[found[1]](), WORDS.read_text(encoding="utf-8"))
    # A picture that was not drawn is not shown.
    page = re.sub(r"^!\[.*\]\((.+)\)\n", lambda m: m[0] if (PAGE.parent / m[1]).exists() else "", page, flags=re.M)
    PAGE.write_text(page, encoding="utf-8")
    print(f"wrote {PAGE.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
