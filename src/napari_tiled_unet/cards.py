"""Models told to people: a line each, or the whole card."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from napari_tiled_unet.errors import FileError, OptionsError
from napari_tiled_unet.model import SEAM_TOLERANCE, ModelSpec, SeamPoint
from napari_tiled_unet.model_files import list_models, user_folder


def print_models(*, as_json: bool) -> None:
    """Print the bundled and the user's models, a line each."""
    entries = list_models()
    if as_json:
        rows = [
            {"name": e.name, "path": str(e.path), "bundled": e.bundled, "spec": e.spec.model_dump(mode="json")}
            for e in entries
        ]
        print(json.dumps(rows, indent=2))
        return
    width = max((len(e.name) for e in entries), default=4)
    for e in entries:
        origin = "bundled" if e.bundled else "yours  "
        print(f"{e.name:<{width}}  {origin}  {e.spec.axes:<3}  {e.spec.target.kind:<7}  {e.spec.summary}")
    print(f"own models: {user_folder()}")


def card_lines(spec: ModelSpec, path: Path | None = None) -> list[str]:
    """Return the card of a model: what it is for, how it was made, how well it does."""
    network = spec.network
    rows: list[tuple[str, object]] = [
        ("axes", spec.axes),
        ("channels", ", ".join(spec.channels)),
        ("spacing", f"{spec.spacing} {spec.units}" if spec.spacing else "unknown"),
        ("object size", f"{spec.object_size:g} voxels across" if spec.object_size else "not stated"),
        ("normalisation", _normalisation(spec)),
        ("network", f"{network.architecture} in {network.ndim}D, width {network.width}, depth {network.depth}"),
        ("norm", network.norm),
        ("target", f"{spec.target.kind} ({', '.join(spec.target.channels)})"),
        ("overlap", _overlap(spec)),
        ("licence", spec.licence or "not stated"),
        *((f"training {key}".replace("_", " "), _brief(key, value)) for key, value in spec.training.items()),
        *((f"score {key}".replace("_", " "), f"{value:.3f}") for key, value in spec.scores.items()),
        ("format", f"version {spec.format_version}, written by napari-tiled-unet {spec.package_version}"),
    ]
    if path is not None:
        rows.append(("file", f"{path} ({path.stat().st_size / 1e6:.1f} MB)"))
    width = max(len(name) for name, _ in rows)
    return [f"{spec.name}: {spec.summary}", *(f"  {name:<{width}}  {value}" for name, value in rows)]


def seam_lines(spec: ModelSpec) -> list[str]:
    """Return the seam error of a model against the overlap, a line per overlap."""
    lines = [f"{'overlap':>16} {'largest map error':>18} {'voxels changed':>15} {'objects changed':>16}"]
    lines += [f"{_by(p.overlap):>16} {p.max_map:>18.4f} {p.voxels:>14.4%} {p.objects:>16.2%}" for p in spec.seams]
    earned = spec.earned_overlap
    if earned is None:
        return [*lines, f"none is within the tolerance (no object, no map by more than {SEAM_TOLERANCE:g})"]
    return [*lines, f"overlap=auto takes {_by(earned)} (no object, no map by more than {SEAM_TOLERANCE:g})"]


def _overlap(spec: ModelSpec) -> str:
    earned = spec.earned_overlap
    if earned is None:
        return "not measured"
    point: SeamPoint | None = next((p for p in spec.seams if p.overlap == earned), None)
    return _by(earned) if point is None else f"{_by(earned)}, maps within {point.max_map:.4f} of the whole image"


def _brief(key: str, value: Any) -> object:
    """Return what a card tells of a training; ``--json`` tells all of it."""
    if key == "plan":
        return ", ".join(f"{choice['name']} {choice['value']}" for choice in value)
    if key == "images":
        return ", ".join(value[:3]) + (f" ... ({len(value)} in all)" if len(value) > 3 else "")
    if isinstance(value, dict):
        return ", ".join(f"{name} {chosen}" for name, chosen in value.items())
    return value


def _by(sides: tuple[int, ...]) -> str:
    return " x ".join(map(str, sides))


def _normalisation(spec: ModelSpec) -> str:
    chosen = spec.normalisation
    return f"{chosen.method} {chosen.low:g} to {chosen.high:g}" if chosen.method == "percentile" else chosen.method


def print_architectures(names: Sequence[str], choices: Mapping[str, Any], *, as_json: bool) -> None:
    """Print what networks weigh, cost and see, a line each, as they are built by default."""
    from napari_tiled_unet.anatomy import measure_architecture
    from napari_tiled_unet.networks.zoo import ARCHITECTURES

    found = [measure_architecture(name, **choices) for name in names]
    if as_json:
        print(json.dumps([asdict(a) for a in found], indent=2))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(
        "architecture",
        "M parameters",
        "GFLOP/MVoxel",
        "stride",
        "receptive field",
        "B/voxel run",
        "B/voxel train",
        "exact",
    )
    for a in found:
        table.add_row(
            a.name,
            f"{a.parameters / 1e6:.2f}",
            f"{a.gflop_per_megavoxel:.0f}",
            _per_axis(a.stride),
            _per_axis(a.receptive_field),
            f"{a.inference_bytes:.0f}",
            f"{a.training_bytes:.0f}",
            "yes" if a.exact_tiling else "no",
        )
    console = Console(width=None if sys.stdout.isatty() else 160)
    console.print(table)
    for name in names:
        row = ARCHITECTURES[name]
        console.print(f"{name}: {row.summary} ({row.source})", highlight=False, markup=False)


def draw_architecture(name: str | None, choices: Mapping[str, Any], path: Path) -> None:
    """Write the drawing of a network as SVG.

    Raises
    ------
    OptionsError
        If no network is named or the file is no ``.svg``.
    FileError
        If it cannot be written.
    """
    from napari_tiled_unet.diagram import diagram_svg
    from napari_tiled_unet.networks.zoo import build_network, network_spec

    if name is None:
        raise OptionsError("a diagram shows one network; name it: tiled-unet architectures unet --diagram unet.svg")
    if path.suffix != ".svg":
        raise OptionsError(f"the diagram is an SVG drawing, got {str(path)!r}; give a name that ends in .svg")
    try:
        path.write_text(diagram_svg(build_network(network_spec(name, **choices))), encoding="utf-8")
    except OSError as error:
        raise FileError(f"{str(path)!r} cannot be written: {error.strerror or error}") from None


def _per_axis(values: tuple[int, ...]) -> str:
    return str(values[0]) if len(set(values)) == 1 else " x ".join(map(str, values))
