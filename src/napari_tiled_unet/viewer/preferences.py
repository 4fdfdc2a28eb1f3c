"""What napari's preferences say for this plugin; no Qt.

**File > Preferences > Tiled U-Net** where napari offers settings of plugins (0.9 and later);
elsewhere the defaults.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from napari_tiled_unet.viewer.form import AUTOMATIC, text_of

PLUGIN = "napari-tiled-unet"
_MODELS = "TILED_UNET_MODELS"


@dataclass(frozen=True)
class Preferences:
    """What a form starts with.

    Attributes
    ----------
    device : str
        As the option; ``auto`` leaves it open.
    memory : float
        GiB a run may use; 0 leaves it open.
    models : str
        Folder of the user's models; empty is the one of the platform.
    """

    device: str = AUTOMATIC
    memory: float = 0.0
    models: str = ""

    @property
    def rows(self) -> dict[str, str]:
        """The rows of a form that start with another value than their default."""
        said = {"device": self.device, "memory": self.memory or None}
        return {name: text for name, value in said.items() if (text := text_of(value))}


def read_preferences() -> Preferences:
    """Return what the user set in napari's preferences."""
    try:
        from napari.settings import get_plugin_settings

        runs: Any = get_plugin_settings(PLUGIN).runs
    except (ImportError, KeyError, AttributeError):
        # An older napari, or one that does not know the plugin.
        return Preferences()
    return Preferences(device=str(runs.device), memory=float(runs.memory), models=str(runs.models).strip())


def use_model_folder(preferences: Preferences) -> None:
    """Look for models where the preferences say; an environment that names a folder comes first."""
    ours = _chosen.get(_MODELS)
    if os.environ.get(_MODELS) not in (None, "", ours):
        return
    if preferences.models:
        folder = os.path.expanduser(preferences.models)  # noqa: PTH111  as it is written into the environment
        os.environ[_MODELS] = _chosen[_MODELS] = folder
    elif ours is not None:
        os.environ.pop(_MODELS, None)
        _chosen.clear()


# What this module wrote into the environment, to be told from what the user did.
_chosen: dict[str, str] = {}
