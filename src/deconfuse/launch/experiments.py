"""The modules of experiment/, each of which makes a table or a figure of finished runs."""

import importlib
import pkgutil
from types import ModuleType

from deconfuse import experiment


def experiments() -> dict[str, ModuleType]:
    """The modules of experiment/ by name: the paper's tables first, then its figures, then the others."""
    names = [module.name for module in pkgutil.iter_modules(experiment.__path__)]
    names.sort(key=lambda name: (not name.startswith("table"), not name.startswith("figure"), name))
    return {name: importlib.import_module(f"{experiment.__name__}.{name}") for name in names}


def labels_of(name: str | None) -> str | None:
    """LABELS of an experiment's module; None where it has none, or where the experiment has no module."""
    try:
        module = importlib.import_module(f"{experiment.__name__}.{name}")
    except ModuleNotFoundError as error:
        if error.name != f"{experiment.__name__}.{name}":
            raise
        return None
    return getattr(module, "LABELS", None)
