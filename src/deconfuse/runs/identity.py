"""The settings by which models and runs are named and compared, wherever our code or the data lies."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from deconfuse import CONF
from deconfuse.system.errors import UserError, shorten

PACKAGE = __name__.partition(".")[0]
# Settings that change no finding, and the seed. Runs that differ in nothing else are repetitions.
NO_SETTING = ("seed", "output_dir", "data_dir", "num_workers", "logger", "again", "report", "duplicates")
# Groups whose seed is the run's, unless the command gives another one.
SEEDED = {"noise", "influence", "detector", "counterfactual", "retrain"}
NO_FINDING = {"recipe": ("validate_every", "eval_batch_size"), "influence": ("when", "every")}
# The key and value that turn an optional step off; its other settings then change nothing.
OFF = {
    "retrain": ("mode", "none"),
    "loop": ("rounds", 0),
    "relabels": ("file", None),
    "counterfactual": ("subsets", 0),
    "leave_out": ("confusions", 0),
    "noise": ("ratio", 0),
}
ASIDE = {"experiment", "logger"}  # choices that change no finding
# Groups below influence= whose keys are those of another group where the command gives them no values.
FOLLOWS = {"auto": "counterfactual", "descent": "counterfactual", "retraining": "retrain"}
# Groups of settings that every run's config.yaml has.
SETTINGS = {"dataset", "noise", "model", "loss", "recipe", "target", "influence", "detector", *OFF}

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml, where it is installed, is ten times as fast


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


def compared(config: Path, report: dict[str, Any]) -> dict[str, Any]:
    """The settings in a run's config.yaml that runs are compared by; report: its metrics.json.

    Settings that change no finding are left out, as are optional steps that are turned off, and seeds that
    are the run's. Raises UserError where the file cannot be read or lacks settings that every run has.
    """
    try:
        found = dict(yaml.load(config.read_text("utf-8"), LOADER))
    except (OSError, ValueError, TypeError, yaml.YAMLError) as error:
        raise UserError(
            f"{config}: can't be read ({reason(error)}); delete the folder and run again"
        ) from None
    lacking = {group for group in SETTINGS if not isinstance(found.get(group), dict)}
    if lacking:
        raise UserError(f"{config}: lacks {shorten(sorted(lacking))}; delete the folder and run again")
    found = without_places({key: value for key, value in found.items() if key not in NO_SETTING})
    for group, other in FOLLOWS.items():
        own = found["influence"].get(group)
        if isinstance(own, dict):
            same = {key for key, value in own.items() if key in found[other] and found[other][key] == value}
            found["influence"][group] = {key: value for key, value in own.items() if key not in same}
    for group, (key, off) in OFF.items():
        if found[group][key] == off:
            del found[group]
    left_out = {**NO_FINDING, "dataset": _in_data_dir(report["choices"]["dataset"])}
    for group, keys in left_out.items():
        found[group] = {key: value for key, value in found[group].items() if key not in keys}
    for group in _followers(report) & found.keys():  # dataset.seed is not among them: it decides which data
        found[group] = {k: v for k, v in found[group].items() if not (k == "seed" and v == report["seed"])}
    return found


def _in_data_dir(dataset: str) -> set[str]:
    """The keys of a data set that say only where it lies: those below ${data_dir} in its YAML."""
    return {key for key, value in _yaml("dataset", dataset).items() if str(value).startswith("${data_dir}")}


def departures(settings: Any, group: str, option: str) -> int:
    """The number of a group's settings that differ from those of its option in conf/."""
    usually = dict(flat(without_places(_defaults(group, option))))
    return sum(usually.get(key, value) != value for key, value in flat(settings))


def _followers(report: dict[str, Any]) -> set[str]:
    """The groups whose seed is the run's, because the command gives them none of their own."""
    given = {word.lstrip("+").partition("=")[0] for word in report["command"].split()}
    return {group for group in SEEDED if f"{group}.seed" not in given}


def _defaults(group: str, option: str) -> dict[str, Any]:
    """A group's settings in conf/ without references to other keys; {} where conf/ has no such option."""
    found = _yaml(group, option) or _yaml("", "config").get(group) or {}
    return {key: value for key, value in found.items() if not str(value).startswith("${")}


@cache
def _yaml(group: str, option: str | None) -> dict[str, Any]:
    """conf/GROUP/OPTION.yaml merged over the options in its defaults list; {} where there is no such file."""
    file = CONF / group / f"{option}.yaml"
    if not file.is_file():
        return {}
    found = dict(yaml.load(file.read_text("utf-8"), LOADER))
    for parent in found.pop("defaults", []) if group else []:
        found = {**_yaml(group, parent), **found} if isinstance(parent, str) else found
    return found


def flat(settings: Any, above: str = "") -> Iterator[tuple[str, Any]]:
    """(optimizer.lr, 1e-4), ... of {optimizer: {lr: 1e-4}, ...}."""
    for key, value in (settings or {}).items():
        if isinstance(value, dict):
            yield from flat(value, f"{above}{key}.")
        else:
            yield above + key, value


def reason(error: Exception) -> str:
    """The error's message in one line, without the path."""
    return getattr(error, "strerror", None) or " ".join(str(error).split())
