"""A method's own defaults beside those of the command line."""

import inspect
from collections.abc import Callable

import yaml

from deconfuse.launch.command_line import CONF


def in_yaml(option: str) -> dict:
    """What conf/ says of an option such as influence/eif, without references to other keys."""
    settings = yaml.safe_load((CONF / f"{option}.yaml").read_text())
    return {
        key: value for key, value in settings.items() if not key.startswith("_") and "${" not in str(value)
    }


def in_code(function: Callable, names: dict) -> dict:
    """The defaults that the function has for these names."""
    return {name: inspect.signature(function).parameters[name].default for name in names}
