"""Look whether the data is there before torch and Lightning are imported, which takes seconds."""

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

PLACES = ("root", "csv", "path")  # the keys below `dataset` that say where data lies


def check(cfg: DictConfig) -> None:
    """Raise the UserError of the data set's own module where the files by which it is recognised are missing.

    Only modules of this package are asked, and none that fetches its data. Everything else about the data is
    looked at when it is read.
    """
    settings = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)["dataset"]
    target = str(settings["_target_"])
    if target.startswith("deconfuse.dataset.") and not settings.get("download"):
        _look(importlib.import_module(target.rpartition(".")[0]), settings)


def _look(module: Any, settings: Mapping[str, Any]) -> None:
    places = {key: settings[key] for key in PLACES if isinstance(settings.get(key), str)}
    if hasattr(module, "LAYOUT") and "root" in places:
        module.LAYOUT.find(places["root"])
    elif places and not any(Path(place).exists() for place in places.values()):
        module.load(**places)
