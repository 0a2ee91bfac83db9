"""The settings by which models and runs are named and compared: they do not say where our code lies."""

from typing import Any

PACKAGE = __name__.partition(".")[0]


def without_places(settings: Any) -> Any:
    """A copy of (nested) settings in which our own functions are named without the path of their module.

    A `_target_` of this package keeps its last two names: `deconfuse.loss.softtriple.SoftTriple` becomes
    `softtriple.SoftTriple`, so two options with the same numbers still differ, and moving a module from one
    folder to another changes nothing. The `_partial_` beside it is left out, as it says how our code calls
    the function. Targets of other packages, such as `torch.optim.Adam`, are kept whole: they are a choice.
    """
    if isinstance(settings, list):
        return [without_places(value) for value in settings]
    if not isinstance(settings, dict):
        return settings
    target = settings.get("_target_")
    own = isinstance(target, str) and target.startswith(f"{PACKAGE}.")
    found = {key: without_places(value) for key, value in settings.items()}
    if own:
        found["_target_"] = ".".join(target.split(".")[-2:])
        found.pop("_partial_", None)
    return found
