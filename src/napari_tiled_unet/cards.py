"""Models told to people: a line each, or the whole card."""

from __future__ import annotations

import json
from pathlib import Path

from napari_tiled_unet.model import ModelSpec, list_models, user_folder


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
        ("licence", spec.licence or "not stated"),
        *((f"training {key}".replace("_", " "), value) for key, value in spec.training.items()),
        *((f"score {key}".replace("_", " "), f"{value:.3f}") for key, value in spec.scores.items()),
        ("format", f"version {spec.format_version}, written by napari-tiled-unet {spec.package_version}"),
    ]
    if path is not None:
        rows.append(("file", f"{path} ({path.stat().st_size / 1e6:.1f} MB)"))
    width = max(len(name) for name, _ in rows)
    return [f"{spec.name}: {spec.summary}", *(f"  {name:<{width}}  {value}" for name, value in rows)]


def _normalisation(spec: ModelSpec) -> str:
    chosen = spec.normalisation
    return f"{chosen.method} {chosen.low:g} to {chosen.high:g}" if chosen.method == "percentile" else chosen.method
