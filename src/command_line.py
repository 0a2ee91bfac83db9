"""Turn what went wrong on the command line into one line for the user."""

import re
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException, InstantiationException, MissingConfigException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from src.errors import UserError, did_you_mean

CONF = Path(__file__).resolve().parent.parent / "conf"


def explain(error: BaseException, words: list[str]) -> tuple[str | None, int]:
    """(message, exit code); message None where the error is not the user's and wants its traceback.

    words: the command line, to find the valid keys around a wrong one.
    """
    if isinstance(error, InstantiationException) and error.__cause__ is not None:
        if not isinstance(error.__cause__, (UserError, HydraException, OmegaConfBaseException)):
            place = str(error).rpartition("full_key: ")[2]
            return f"error: {place}: {_last_line(str(error.__cause__))} (check the keys under {place})", 1
        return explain(error.__cause__, words)
    if isinstance(error, KeyboardInterrupt):
        return "\ninterrupted; the same command goes on after the last whole epoch", 130
    if isinstance(error, UserError):
        return "error: " + re.sub(r"^[\w.]*UserError: ", "", _last_line(str(error))), 1
    if isinstance(error, MissingMandatoryValue):
        key = getattr(error, "full_key", None) or "a key"
        return f"error: {key} has no default; give it as {key}=VALUE", 1
    if isinstance(error, MissingConfigException) and error.options is not None:
        group, _, choice = (error.missing_cfg_file or "").rpartition("/")
        return f"error: there is no {group}={choice}; {did_you_mean(choice, error.options)}", 1
    if isinstance(error, (HydraException, OmegaConfBaseException)):
        return f"error: {_configuration(str(error), words)}", 1
    return None, 1


def _last_line(text: str) -> str:
    """A loader's worker process wraps an error in the story of its traceback."""
    return (text.strip().splitlines() or ["unknown"])[-1]


def _configuration(text: str, words: list[str]) -> str:
    """Hydra's words, with the valid keys or groups where one was misspelt."""
    first = text.strip().splitlines()[0]
    override = re.match(r"Could not override '([^']+)'", first)
    group = re.search(r"Could not find '([^']+)'|override '([^']+?)(?:=|'\.)", first)
    if override:
        return _key(override[1], words)
    if group and "defaults list" in text:
        name = group[1] or group[2]
        groups = [path.name for path in CONF.iterdir() if path.is_dir()]
        return f"there is no choice {name}; {did_you_mean(name, groups)}"
    return first


def _key(key: str, words: list[str]) -> str:
    """What could have been meant by a key that is not in the configuration."""
    *parents, last = key.split(".")
    groups = {path.name for path in CONF.iterdir() if path.is_dir()}
    chosen = [word for word in words if word.partition("=")[0] in groups and "," not in word]
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("config", overrides=chosen)
    found = OmegaConf.select(config, ".".join(parents)) if parents else config
    if not isinstance(found, DictConfig):
        return f"there is no key {key}; {did_you_mean(parents[0], [str(name) for name in config])}"
    valid = [str(name) for name in found if not str(name).startswith("_")]
    near = did_you_mean(last, valid)
    return f"there is no key {key}; {near}" + (f" (in {'.'.join(parents)})" if parents else "")
