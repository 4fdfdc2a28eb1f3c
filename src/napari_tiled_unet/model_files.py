"""Model files: where they lie, reading and writing them.

A file is one ``.safetensors``; its metadata holds a JSON spec under the key ``tiled-unet``. Loading executes
nothing: tensors are read as tensors, the spec is validated as data, the network is built from the table of
architectures.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from napari_tiled_unet.errors import FileError, ModelError
from napari_tiled_unet.model import FORMAT_VERSION, Model, ModelSpec

if TYPE_CHECKING:
    from torch import Tensor

_KEY = "tiled-unet"


@dataclass(frozen=True)
class ModelEntry:
    """A model that can be named: where it is and what it says about itself."""

    name: str
    path: Path
    bundled: bool
    spec: ModelSpec


def bundled_folder() -> Path:
    """Return the folder of the models inside the package."""
    return Path(__file__).parent / "weights"


def user_folder() -> Path:
    """Return the folder of the user's own models.

    ``TILED_UNET_MODELS`` in the environment replaces the platform's data folder.
    """
    chosen = os.environ.get("TILED_UNET_MODELS")
    if chosen:
        return Path(chosen)
    from platformdirs import user_data_path

    return user_data_path("napari-tiled-unet", appauthor=False) / "models"


def list_models() -> list[ModelEntry]:
    """Return the bundled and the user's models, by name; a user's model hides a bundled one.

    Files that are not readable model files are left out. Torch is not imported.
    """
    entries: dict[str, ModelEntry] = {}
    for folder, bundled in ((bundled_folder(), True), (user_folder(), False)):
        for path in sorted(folder.glob("*.safetensors")):
            try:
                entries[path.stem] = ModelEntry(path.stem, path, bundled, read_spec(path))
            except (ModelError, FileError):
                continue
    return sorted(entries.values(), key=lambda entry: (not entry.bundled, entry.name))


def find_model(name: str | Path) -> Path:
    """Return the file of a model name or path.

    Raises
    ------
    ModelError
        If there is no such model.
    """
    text = str(name)
    # By its name first: a name may have a dot, as paths have.
    if os.sep not in text:
        for folder in (user_folder(), bundled_folder()):
            path = folder / f"{text}.safetensors"
            if path.exists():
                return path
    if text.endswith(".safetensors") or os.sep in text or Path(text).suffix:
        path = Path(text).expanduser()
        if path.is_dir():
            raise ModelError(f"model {text!r} is a folder; give the .safetensors file in it")
        if not path.exists():
            raise ModelError(
                f"model file {text!r} does not exist; give the path of a .safetensors file or a name from {_names()}"
            )
        return path
    raise ModelError(f"model {text!r} is unknown; the known ones are {_names()}; own models go into {user_folder()}")


def _names() -> str:
    return ", ".join(entry.name for entry in list_models()) or "(none)"


def read_spec(path: str | Path) -> ModelSpec:
    """Read the spec of a model file, not its weights; torch is not imported.

    Raises
    ------
    ModelError
        If the file is no model file, is damaged, or of a version that is not known.
    """
    from safetensors import SafetensorError, safe_open

    _refuse_pickle(Path(path))
    try:
        with safe_open(str(path), framework="numpy") as file:
            metadata = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise ModelError(
            f"model file {str(path)!r} is damaged or not a .safetensors file ({error}); get it again"
        ) from None
    if _KEY not in metadata:
        raise ModelError(
            f"{str(path)!r} holds tensors but no {_KEY!r} spec that says how to use them; save it with save_model"
        )
    return _spec_from_json(metadata[_KEY], path)


def _spec_from_json(text: str, path: str | Path) -> ModelSpec:
    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        raise ModelError(f"the spec of model file {str(path)!r} is not JSON ({error}); get the file again") from None
    version = values.get("format_version") if isinstance(values, dict) else None
    if version != FORMAT_VERSION:
        raise ModelError(
            f"model file {str(path)!r} has format version {version!r}, this package reads version {FORMAT_VERSION}; "
            "update napari-tiled-unet, or save the model again with this version"
        )
    try:
        return ModelSpec.model_validate(values)
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, p['loc']))}: {p['msg']}" for p in error.errors())
        raise ModelError(f"the spec of model file {str(path)!r} breaks the format: {problems}") from None


def _refuse_pickle(path: Path) -> None:
    try:
        with path.open("rb") as file:
            start = file.read(9)
    except OSError as error:
        raise ModelError(f"model file {str(path)!r} cannot be read: {error.strerror or error}") from None
    # A safetensors file starts with the length of its JSON header, which may be any number.
    if start[8:] != b"{" and (start[:1] == b"\x80" or start[:4] == b"PK\x03\x04"):
        raise ModelError(
            f"model file {str(path)!r} is a pickle (a torch checkpoint), which could run any code when loaded; "
            "only .safetensors model files are read: save the model with save_model"
        )


def load_model(name: str | Path) -> Model:
    """Load a model by name or path.

    Parameters
    ----------
    name : str or Path
        A name from :func:`list_models` or the path of a ``.safetensors`` file.

    Raises
    ------
    ModelError
        If there is no such model, or its file is a pickle, damaged, of an unknown
        version, or holds weights that do not fit its own spec.
    """
    path = find_model(name)
    spec = read_spec(path)
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from napari_tiled_unet.networks.zoo import build_network

    try:
        weights = load_file(str(path))
    except (SafetensorError, OSError) as error:
        raise ModelError(f"model file {str(path)!r} is damaged ({error}); get it again") from None
    network = build_network(spec.network)
    expected = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    found = {key: tuple(value.shape) for key, value in weights.items()}
    if expected != found:
        wrong = next(key for key in {**expected, **found} if expected.get(key) != found.get(key))
        raise ModelError(
            f"the weights of model file {str(path)!r} do not fit its spec: {wrong} has shape {found.get(wrong)}, "
            f"{spec.network.architecture!r} needs {expected.get(wrong)}; get the file again"
        )
    network.load_state_dict(weights)
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return Model(spec, network.eval().requires_grad_(False), path.absolute(), sha256)


def recent_model(name: str | Path) -> Model:
    """Return a model as :func:`load_model` does; of the last two the same again while their files stay the same.

    It is everybody's: for use, not for change.

    Raises
    ------
    ModelError
        As :func:`load_model`.
    """
    path = find_model(name).absolute()
    try:
        state = path.stat()
    except OSError as error:
        raise ModelError(f"model file {str(path)!r} cannot be read: {error.strerror or error}") from None
    return _recent(path, (state.st_mtime_ns, state.st_size, state.st_ino))


@functools.lru_cache(maxsize=2)
def _recent(path: Path, state: tuple[int, ...]) -> Model:  # noqa: ARG001 - a file that changed is loaded anew
    return load_model(path)


def stored_half(path: str | Path) -> bool:
    """Whether a model file holds its weights as float16."""
    from safetensors import safe_open

    with safe_open(str(path), framework="numpy") as file:
        return any(file.get_slice(key).get_dtype() == "F16" for key in file.keys())  # noqa: SIM118 - it is no dict


def _halved(weight: Tensor) -> Tensor:
    """Return numbers in half precision where they stay finite."""
    half = weight.half() if weight.is_floating_point() else weight
    return half if bool(half.isfinite().all()) else weight


def save_model(model: Model, path: str | Path, *, overwrite: bool = False, half: bool = False) -> None:
    """Write a model as one ``.safetensors`` file, beside first and then renamed.

    Parameters
    ----------
    model : Model
        What to write.
    path : str or Path
        Where; must end in ``.safetensors``.
    overwrite : bool
        Whether a file that exists is replaced.
    half : bool
        Whether weights are stored as float16, which halves the file; they are float32
        again when loaded, rounded to 11 significant bits.

    Raises
    ------
    FileError
        If the file exists and ``overwrite`` is False, or cannot be written.
    """
    from safetensors.torch import save

    from napari_tiled_unet import __version__

    path = Path(path)
    if path.suffix != ".safetensors":
        raise FileError(f"model file {str(path)!r} must end in .safetensors")
    if path.exists() and not overwrite:
        raise FileError(f"model file {str(path)!r} exists; choose another name or allow overwriting")
    spec = model.spec.model_copy(update={"package_version": __version__})
    weights = {key: value.detach().cpu().contiguous() for key, value in model.network.state_dict().items()}
    if half:
        weights = {key: _halved(value) for key, value in weights.items()}
    beside = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        beside.write_bytes(save(weights, metadata={_KEY: spec.model_dump_json(), "format": "pt"}))
        beside.replace(path)
    except OSError as error:
        raise FileError(f"model file {str(path)!r} cannot be written: {error.strerror or error}") from None
    finally:
        beside.unlink(missing_ok=True)
