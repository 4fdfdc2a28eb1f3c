"""The command line: one sub-command per verb.

Nothing heavy is imported until a verb runs, so that ``--help`` answers at once.
Exit status: 0 when all is done, 1 when a file failed, 2 when the command is wrong,
130 when it was interrupted, 141 when whoever reads its output closed it.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, CycloptsError, Parameter
from pydantic import ValidationError

from napari_tiled_unet import __version__
from napari_tiled_unet.errors import TiledUnetError
from napari_tiled_unet.options import SegmentOptions, readable_problems
from napari_tiled_unet.train_options import TrainOptions

DONE, FAILED, WRONG, INTERRUPTED, UNREAD = 0, 1, 2, 130, 141

app = App(
    name="tiled-unet",
    help="Segment microscopy images of any size with a 2D or 3D U-Net, tile by tile.",
    # Markdown, the default, loads a parser of it: a fifth of the time that --help takes.
    help_format="plaintext",
    version=__version__,
    # Nor is a file named [1].tif the beginning of JSON.
    default_parameter=Parameter(negative_iterable=(), negative_none=(), json_list=False, json_dict=False),
    # Said below, in a line of ours.
    suppress_keyboard_interrupt=False,
)


@app.command
def segment(
    paths: list[Path],
    /,
    *,
    out: Path | None = None,
    save_maps: bool = False,
    overwrite: bool = False,
    json: bool = False,
    explain_plan: bool = False,
    options: Annotated[SegmentOptions, Parameter(name="*")] = SegmentOptions(),  # noqa: B008
) -> int:
    """Turn images into label images.

    Parameters
    ----------
    paths
        image files (TIFF, OME-TIFF, PNG, NPY, OME-Zarr), or folders of them
    out
        folder for the results, or a file name ending in .ome.tif for a single image; default: beside each image
    save_maps
        write the network's maps too, as float32 OME-TIFF, and their spread where there are flips
    overwrite
        replace results that exist; otherwise their images are skipped
    json
        print one JSON document for machines instead of the table
    explain_plan
        say which tiles are taken and why, and what else was considered
    options
        how to segment
    """
    from napari_tiled_unet.batch import run_batch

    return run_batch(
        paths, options, out=out, save_maps=save_maps, overwrite=overwrite, as_json=json, explain_plan=explain_plan
    )


@app.command(name="run")
def run_recipe(
    recipe: Path,
    paths: list[Path],
    /,
    *,
    out: Path | None = None,
    save_maps: bool = False,
    overwrite: bool = False,
    json: bool = False,
) -> int:
    """Turn images into label images as a recipe says, for example one saved in napari.

    Parameters
    ----------
    recipe
        recipe file (YAML)
    paths
        image files, or folders of them
    out
        folder for the results, or a file name ending in .ome.tif for a single image; default: beside each image
    save_maps
        write the network's maps too, as float32 OME-TIFF, and their spread where there are flips
    overwrite
        replace results that exist; otherwise their images are skipped
    json
        print one JSON document for machines instead of the table
    """
    from napari_tiled_unet.batch import run_batch
    from napari_tiled_unet.recipe import read_recipe

    options = read_recipe(recipe)
    return run_batch(paths, options, out=out, save_maps=save_maps, overwrite=overwrite, as_json=json)


@app.command
def train(
    images: Path,
    labels: Path,
    /,
    *,
    out: Path,
    resume: bool = False,
    overwrite: bool = False,
    tensorboard: Path | None = None,
    json: bool = False,
    options: Annotated[TrainOptions, Parameter(name="*")] = TrainOptions(),  # noqa: B008
) -> int:
    """Teach a network to segment like labelled images.

    Parameters
    ----------
    images
        folder of images, or an image file
    labels
        folder of label images of the same names (also with _labels or _mask at the end), or a label file
    out
        model file to write, ending in .safetensors; its checkpoint and curves lie beside it
    resume
        go on from the checkpoint beside the model file
    overwrite
        replace a model file that exists
    tensorboard
        folder for TensorBoard event files
    json
        print one JSON document for machines at the end
    options
        how to train
    """
    from napari_tiled_unet.trainer import run_training

    return run_training(
        images,
        labels,
        options,
        out=out,
        resume=resume,
        overwrite=overwrite,
        tensorboard=tensorboard,
        as_json=json,
    )


@app.command
def evaluate(
    predicted: Path,
    true: Path,
    /,
    *,
    target: Literal["objects", "classes"] = "objects",
    classes: tuple[str, ...] = (),
    tolerance: float = 1.0,
    faults: Path | None = None,
    json: bool = False,
) -> int:
    """Score label images against the truth.

    Parameters
    ----------
    predicted
        folder of label images, or a label file
    true
        folder of true label images of the same names, or a label file
    target
        whether a number is one object, or a class
    classes
        names of the classes in the order of their values, background first
    tolerance
        how far, in voxels, borders may be apart for the boundary F-score
    faults
        folder for label images of what is matched (1), missed (2), extra (3), split (4), merged (5)
    json
        print one JSON document for machines, with every fault
    """
    from napari_tiled_unet.scorecard import run_evaluation

    # As for ``train``: one after the other, or with commas.
    names = tuple(name.strip() for given in classes for name in given.split(","))
    return run_evaluation(
        predicted, true, target=target, classes=names, tolerance=tolerance, faults=faults, as_json=json
    )


@app.command
def models(name: str | None = None, /, *, json: bool = False) -> int:
    """List the models, or show the card of one.

    Parameters
    ----------
    name
        model to show; default: list all
    json
        print JSON for machines
    """
    from napari_tiled_unet.cards import card_lines, print_models
    from napari_tiled_unet.model_files import find_model, read_spec

    if name is None:
        print_models(as_json=json)
        return DONE
    path = find_model(name)
    spec = read_spec(path)
    print(spec.model_dump_json(indent=2) if json else "\n".join(card_lines(spec, path)))
    return DONE


@app.command
def seams(name: str, paths: list[Path], /, *, axes: str | None = None, save: bool = False) -> int:
    """Measure how much a model's tiles differ from the whole image, against their overlap.

    Parameters
    ----------
    name
        model to measure
    paths
        images like those that it is for, or folders of them; a few of the size of two tiles suffice
    axes
        axes of the images, letters of tczyx in array order; default: from their metadata
    save
        write the result into the model file, where overlap=auto looks for it
    """
    from napari_tiled_unet.cards import seam_lines
    from napari_tiled_unet.seams import measure_files

    print("\n".join(seam_lines(measure_files(name, paths, axes=axes, save=save))))
    return DONE


@app.command
def architectures(
    name: str | None = None,
    /,
    *,
    ndim: Literal[2, 3] = 2,
    encoder: str | None = None,
    width: int | None = None,
    diagram: Path | None = None,
    json: bool = False,
) -> int:
    """List the networks of the family: parameters, work, stride, receptive field, memory.

    Parameters
    ----------
    name
        network to show; default: all
    ndim
        dimensions that it is built for
    encoder
        published encoder to build it on, for example resnet18; default: its own
    width
        channels of the finest level; default: its own
    diagram
        SVG file for a drawing of the network named
    json
        print JSON for machines
    """
    from napari_tiled_unet.cards import draw_architecture, print_architectures
    from napari_tiled_unet.networks.zoo import ARCHITECTURES

    given = {"ndim": ndim, "encoder": encoder, "width": width}
    choices = {key: value for key, value in given.items() if value is not None}
    if diagram is not None:
        draw_architecture(name, choices, diagram)
    print_architectures(list(ARCHITECTURES) if name is None else [name], choices, as_json=json)
    return DONE


@app.command
def demo(*, out: Path = Path("tiled-unet-demo")) -> int:
    """Segment the bundled image of nuclei, offline, and write labels and a picture.

    Parameters
    ----------
    out
        folder for labels.ome.tif and overlay.png
    """
    from napari_tiled_unet.demo import run_demo

    run_demo(out)
    return DONE


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its status."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A name that the terminal cannot show must not end a run whose work is done.
            stream.reconfigure(errors="backslashreplace")
    try:
        status = run(sys.argv[1:] if arguments is None else arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        # Who reads has enough, as ``head`` does; Python would try to write the rest at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = UNREAD
    sys.exit(status)


def run(arguments: Sequence[str]) -> int:
    """Run the command line and return its exit status; every error is one readable line."""
    try:
        status = app(list(arguments), exit_on_error=False, print_error=False, result_action="return_value")
    except CycloptsError as error:
        cause = error.__cause__
        options = TrainOptions if arguments[:1] == ["train"] else SegmentOptions
        message = readable_problems(cause, options) if isinstance(cause, ValidationError) else str(error)
        return _refuse(message)
    except TiledUnetError as error:
        return _refuse(str(error))
    except KeyboardInterrupt:
        # An interrupt within an exec of a text, as imports have them, makes ``python -m`` end by the signal although
        # it is caught here; the next exec takes that back, and the status is ours.
        exec("")
        print("tiled-unet: interrupted", file=sys.stderr)
        return INTERRUPTED
    return status if isinstance(status, int) else DONE


def _refuse(message: str) -> int:
    print(f"tiled-unet: {message}", file=sys.stderr)
    print("tiled-unet: see 'tiled-unet --help'", file=sys.stderr)
    return WRONG
