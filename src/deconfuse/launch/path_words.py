"""Paths on the command line, written so that Hydra's grammar reads each as the text that was given.

The grammar gives ( ) = , ' [ ] ~ a meaning of its own and accepts no letters beyond ASCII, while the names of
folders may contain any of them.
"""

import os
import re
from collections.abc import Iterator

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString, ValueType
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict

from deconfuse.system.errors import invoked

# The keys that take a path; a test compares them with conf/.
KEYS = (
    *("output_dir", "data_dir", "dataset.root", "dataset.csv", "dataset.path", "model.weights"),
    *("dataset.shards", "dataset.index_dir", "relabels.file", "hydra.sweep.dir"),
)
ONE_FOR_ALL_JOBS = ("output_dir", "hydra.sweep.dir")  # never swept over, so a comma is part of the name
SWEEP_FLAGS = {"-m", "--multirun"}

# What conf/ may say: ${home:~/x}, and ${command:run} for how the user calls a subcommand.
OmegaConf.register_new_resolver("home", os.path.expanduser, replace=True)
OmegaConf.register_new_resolver("command", invoked, replace=True)


def in_hydras_words(words: list[str]) -> list[str]:
    """The command line with every path quoted where Hydra's grammar would not read it as it is.

    relabels=FILE becomes relabels.file=FILE, as a key of Hydra's cannot be both a value and a group. ~ and
    ~user are expanded. With -m a comma separates values, except inside a path that exists. The user's own
    quotes, ${interpolations}, null and functions of a sweep such as choice(a,b) are left as they are.
    """
    swept = bool(SWEEP_FLAGS & set(words))
    return [_written(word, swept) for word in words]


def _written(word: str, swept: bool) -> str:
    prefix, key, equals, value = re.fullmatch(r"([+]{0,2})([^=]*)(=?)(.*)", word, re.DOTALL).groups()
    if key == "relabels" and equals and not (value.startswith("{") and _parsed(f"relabels={value}")):
        key = "relabels.file"
    if key not in KEYS or not equals:
        return word
    value = os.path.expanduser(value)
    if not os.path.exists(value) and _meant_for_hydra(key, value):
        return f"{prefix}{key}={value}"
    parts = [value] if key in ONE_FOR_ALL_JOBS else paths_in(value, swept)
    return f"{prefix}{key}=" + ",".join(_quoted(key, os.path.expanduser(part)) for part in parts)


def _meant_for_hydra(key: str, value: str) -> bool:
    """True if the user quoted the value, or one of several values, or used a function of a sweep."""
    override = _parsed(f"{key}={value}")
    if override is None or not value:
        return not value
    if override.value_type == ValueType.SIMPLE_CHOICE_SWEEP:
        return any(isinstance(item, QuotedString) for item in override.value().list)
    return value[0] in "'\"" or (override.is_sweep_override() and key not in ONE_FOR_ALL_JOBS)


def paths_in(value: str, swept: bool) -> list[str]:
    """Split a value at those commas that separate paths.

    A value that exists is one path. Any other is split so that each path is the longest one that exists, or
    ends at the next comma if none exists. Outside of a sweep a value with such a missing path is not split.
    """
    if os.path.exists(value):
        return [value]
    pieces = value.split(",")
    found = list(_longest_first(pieces))
    return found if swept or all(os.path.exists(os.path.expanduser(path)) for path in found) else [value]


def _longest_first(pieces: list[str]) -> Iterator[str]:
    while pieces:
        lengths = range(len(pieces), 0, -1)
        joined = (",".join(pieces[:length]) for length in lengths)
        taken = next((path for path in joined if os.path.exists(os.path.expanduser(path))), pieces[0])
        yield taken
        pieces = pieces[taken.count(",") + 1 :]


def _quoted(key: str, path: str) -> str:
    """The path itself if Hydra reads it as the same text or as null, else the path in quotes."""
    return (
        path
        if path.lower() == "null" or _read(f"{key}={path}") == path
        else QuotedString(path, Quote.single).with_quotes()
    )


def quoted(key: str, value: str) -> str | None:
    """The value, or each text of a list, in the quotes that Hydra needs; None if quotes do not help."""
    if value.startswith("[") and value.endswith("]"):
        written = "[" + ",".join(_quoted(key, part.strip()) for part in value[1:-1].split(",")) + "]"
    else:
        written = _quoted(key, value)
    return written if written != value and _parsed(f"{key}={written}") else None


def _read(word: str) -> object:
    """The value that Hydra reads from a word; None if it refuses the word or finds several values."""
    override = _parsed(word)
    return None if override is None or override.is_sweep_override() else override.value()


def _parsed(word: str) -> Override | None:
    try:
        return OverridesParser.create().parse_override(word)
    except HydraException:
        return None


def expand_home(config: DictConfig) -> None:
    """Expand ~ and ~user in the paths that come from a YAML file."""
    for key in KEYS:
        value = None if key.startswith("hydra.") else OmegaConf.select(config, key, throw_on_missing=False)
        if isinstance(value, str) and value.startswith("~"):
            with open_dict(config):
                OmegaConf.update(config, key, os.path.expanduser(value))
