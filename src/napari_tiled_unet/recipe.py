"""Recipes: the options of one run as a file, as Python and as a command.

A recipe file is YAML, a line per option that is not automatic::

    recipe: 1
    model: nuclei
    axes: zyx
    region: z=2:10
    min_size: 30

The viewer's run, a script and the command line share it. What a recipe leaves out is chosen
anew on every image; :func:`pinned` states what a run chose, so that it can be repeated to the
bit.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_tiled_unet.errors import FileError, OptionsError
from napari_tiled_unet.options import SegmentOptions
from napari_tiled_unet.strips import StripPlan

if TYPE_CHECKING:
    from napari_tiled_unet.tiling import TilePlan

FORMAT = 1
"""Version of the recipe file."""


def said(options: SegmentOptions) -> dict[str, Any]:
    """Return the model and every option that is not its default, as plain data."""
    return {"model": options.model, **options.model_dump(mode="json", exclude_defaults=True)}


def recipe_text(options: SegmentOptions) -> str:
    """Return options as the text of a recipe file."""
    import yaml

    return str(yaml.safe_dump({"recipe": FORMAT, **said(options)}, sort_keys=False, allow_unicode=True))


def parse_recipe(text: str, name: str = "recipe") -> SegmentOptions:
    """Return the options that the text of a recipe file says.

    Raises
    ------
    OptionsError
        If it is no recipe, of another version, or an option is unknown or breaks its rule.
    """
    import yaml

    try:
        found = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise OptionsError(f"{name!r} is no YAML: {' '.join(str(error).split())}; save the recipe again") from None
    if not isinstance(found, dict) or "recipe" not in found:
        raise OptionsError(f"{name!r} is no recipe, which begins with 'recipe: {FORMAT}'; choose another file")
    version = found.pop("recipe")
    if version != FORMAT:
        raise OptionsError(
            f"{name!r} is a recipe of version {version!r}, this version reads {FORMAT}; update napari-tiled-unet"
        )
    if odd := [key for key in found if not isinstance(key, str)]:
        raise OptionsError(f"{name!r} has the key {odd[0]!r}, which is no option; take it out")
    return SegmentOptions.of(**found)


def read_recipe(path: str | Path) -> SegmentOptions:
    """Read a recipe file.

    Raises
    ------
    FileError
        If it cannot be read.
    OptionsError
        As :func:`parse_recipe`.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise FileError(f"recipe {str(path)!r} cannot be read: {error}; give a recipe file (.yaml)") from error
    return parse_recipe(text, path.name)


def write_recipe(path: str | Path, options: SegmentOptions) -> None:
    """Write a recipe file; an earlier one is replaced.

    Raises
    ------
    FileError
        If it cannot be written.
    """
    path = Path(path)
    beside = path.with_name(f".{path.name}.partial")
    try:
        beside.write_text(recipe_text(options), encoding="utf-8")
        beside.replace(path)
    except OSError as error:
        raise FileError(f"recipe {str(path)!r} cannot be written: {error}; choose another folder") from error
    finally:
        beside.unlink(missing_ok=True)


def pinned(options: SegmentOptions, plan: TilePlan, *, device: str, precision: str) -> SegmentOptions:
    """Return options that name what a run chose by itself: tiles, device and number format.

    Parameters
    ----------
    options : SegmentOptions
        Of the run.
    plan : TilePlan
        Its tiles.
    device, precision : str
        What it ran on, and in which format.
    """
    if isinstance(plan, StripPlan):
        # Nothing was missing; tiles of the shape of a strip would be mostly overlap.
        return options.changed(tile="auto", overlap="exact", device=device, precision=precision)
    axes = range(len(plan.tile))
    # A tile as long as the frame sees all of it; an overlap there would ask for more than the tile has.
    overlap = tuple(0 if plan.tile[a] >= plan.padded[a] else plan.overlap[a] for a in axes)
    return options.changed(tile=tuple(plan.tile), overlap=overlap, device=device, precision=precision)


def as_python(options: SegmentOptions, image: str, imports: str = "") -> str:
    """Return a script that does the run.

    Parameters
    ----------
    options : SegmentOptions
        Of the run.
    image : str
        The expression of the image, such as ``repr(path)``.
    imports : str
        Further lines that the expression needs.
    """
    values = said(options).items()
    lines = [
        "from napari_tiled_unet import segment",
        *(imports.splitlines()),
        "",
        "labels = segment(",
        f"    {image},",
        *(f"    {name}={_plain(value)!r}," for name, value in values),
        ")",
    ]
    return "\n".join(lines) + "\n"


def as_command(options: SegmentOptions, image: str, out: str | None = None) -> str:
    """Return the command that does the run, quoted for a POSIX shell."""
    words = ["tiled-unet", "segment", image]
    for name, value in said(options).items():
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{'' if value else 'no-'}{flag}")
        else:
            words += [f"--{flag}", ",".join(map(str, value)) if isinstance(value, list) else str(value)]
    return shlex.join([*words, *(("--out", out) if out else ())])


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
