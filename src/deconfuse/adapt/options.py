"""The options of conf/ by their names, with the same numbers as on the command line, without Hydra."""

import copy
import functools
import importlib
from collections.abc import Mapping
from typing import Any

import yaml

from deconfuse import CONF
from deconfuse.system.errors import UserError, did_you_mean, one_of


def option(group: str, chosen: str | Mapping[str, Any], seed: int = 0, **arguments: Any) -> Any:
    """What conf/GROUP/NAME.yaml describes, made with its numbers, those that are changed, and the arguments.

    chosen: the option's name, or a mapping with `name` and the keys to change, such as {"name": "eif",
    "n_theta": 2, "path": {"radius": 0.05}}. seed: in place of the run's seed. Raises UserError for a name or
    key that does not exist, or a value that the option refuses.
    """
    name, changed = _chosen(group, chosen)
    options = sorted(path.stem for path in (CONF / group).glob("*.yaml"))
    settings = _settings(group, str(one_of(group, name, options)), seed)
    return _made(_changed(settings, changed, group), **arguments)


def name_of(chosen: str | Mapping[str, Any]) -> str:
    """The name of a chosen option."""
    return _chosen("option", chosen)[0]


def _chosen(group: str, chosen: str | Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    if isinstance(chosen, str):
        return chosen, {}
    if not isinstance(chosen, Mapping) or not isinstance(chosen.get("name"), str):
        raise UserError(
            f"{group}={chosen!r} is no option; give its name, or a mapping such as "
            f'{{"name": NAME, KEY: VALUE}}'
        )
    return chosen["name"], {key: value for key, value in chosen.items() if key != "name"}


def _settings(group: str, name: str, seed: int) -> dict[str, Any]:
    """The content of an option's YAML over that of the options in its defaults list."""
    own = yaml.safe_load((CONF / group / f"{name}.yaml").read_text("utf-8"))
    found: dict[str, Any] = {}
    for parent in own.pop("defaults", []):
        if isinstance(parent, str) and parent != "_self_":
            found = {**found, **_settings(group, parent, seed)}
    return _resolved({**found, **own}, seed)


def _resolved(value: Any, seed: int) -> Any:
    """The settings with ${seed} replaced by the number, and ${group.key} by what conf/ has there."""
    if isinstance(value, dict):
        return {key: _resolved(item, seed) for key, item in value.items()}
    if not isinstance(value, str) or not value.startswith("${"):
        return value
    return seed if value == "${seed}" else _resolved(_elsewhere(value[2:-1]), seed)


def _elsewhere(key: str) -> Any:
    """The value of a key in conf/config.yaml, or in the option that it chooses by default."""
    group, _, name = key.partition(".")
    settings = yaml.safe_load((CONF / "config.yaml").read_text("utf-8"))
    if group not in settings:
        chosen = {k: v for item in settings["defaults"] if isinstance(item, dict) for k, v in item.items()}
        return yaml.safe_load((CONF / group / f"{chosen[group]}.yaml").read_text("utf-8"))[name]
    return settings[group][name]


def _changed(settings: dict[str, Any], changed: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The settings with some values replaced; UserError, naming the key, for one that does not exist."""
    found = copy.deepcopy(settings)
    keys = [key for key in settings if not key.startswith("_")]
    for key, value in changed.items():
        if key not in keys:
            raise UserError(f"there is no key {where}.{key}; {did_you_mean(str(key), keys)}")
        if isinstance(found[key], dict) and isinstance(value, Mapping):
            value = _changed(found[key], value, f"{where}.{key}")
        found[key] = value
    return found


def _made(settings: Any, **arguments: Any) -> Any:
    """The object of a `_target_`, or with `_partial_` the function that still needs its other arguments."""
    if not isinstance(settings, dict):
        return settings
    given = {key: _made(value) for key, value in settings.items() if key not in ("_target_", "_partial_")}
    if "_target_" not in settings:
        return given
    module, _, name = settings["_target_"].rpartition(".")
    function = getattr(importlib.import_module(module), name)
    if settings.get("_partial_"):
        return functools.partial(function, **given, **arguments)
    return function(**given, **arguments)
