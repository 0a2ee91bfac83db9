"""Turn an error into the one line that the user reads, and into an exit code."""

import re
import shlex
from concurrent.futures.process import BrokenProcessPool
from difflib import get_close_matches

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import (
    HydraException,
    InstantiationException,
    MissingConfigException,
    OverrideParseException,
)
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from deconfuse import CONF
from deconfuse.launch import path_words
from deconfuse.system.errors import UserError, did_you_mean
from deconfuse.system.signals import Stopped
from deconfuse.training import trainer_keys

GROUPS = {path.name for path in CONF.iterdir() if path.is_dir() and path.name != "hydra"}
# The extra of this package that installs each of Hydra's launchers.
LAUNCHERS = {"joblib": "parallel", "submitit_local": "slurm", "submitit_slurm": "slurm"}


def explain(error: BaseException, words: list[str]) -> tuple[str | None, int]:
    """(message, exit code) of an error; the message is None if the error is a bug, which needs its traceback.

    words: the command line. The options chosen there decide which keys are valid.
    """
    if isinstance(error, InstantiationException) and error.__cause__ is not None:
        if not isinstance(error.__cause__, (UserError, HydraException, OmegaConfBaseException)):
            place = str(error).rpartition("full_key: ")[2]
            return f"error: {place}: {_last_line(str(error.__cause__))} (check the keys under {place})", 1
        return explain(error.__cause__, words)
    if isinstance(error, KeyboardInterrupt):
        return "\ninterrupted; the same command goes on after the last whole epoch", 130
    if isinstance(error, Stopped):
        return f"\nstopped by {error}; the same command goes on after the last whole epoch", 0
    if isinstance(error, UserError):
        return "error: " + re.sub(r"^[\w.]*UserError: ", "", _last_line(str(error))), 1
    if isinstance(error, BrokenProcessPool):
        return (
            "error: a job's process was killed, perhaps for want of memory (hydra.launcher.n_jobs=1 takes "
            "less); the same command goes on with what is left",
            1,
        )
    if of_submitit(error):
        return (
            "error: a job ended without a result: killed, or out of time (hydra.launcher.timeout_min); its "
            "log is in .submitit beside the records; the same command goes on with what is left",
            1,
        )
    if _out_of_memory(error):
        return (
            f"error: out of memory: {_asked_for(str(error))}; smaller batches take less "
            "(recipe.classes_per_batch, recipe.per_class, recipe.eval_batch_size), and so does "
            "trainer.precision=bf16-mixed on a GPU; the same command goes on after the last whole epoch",
            1,
        )
    if isinstance(error, MissingMandatoryValue):
        key = getattr(error, "full_key", None) or "a key"
        return f"error: {key} has no default; give it as {key}=VALUE", 1
    if isinstance(error, MissingConfigException) and error.options is not None:
        group, _, choice = (error.missing_cfg_file or "").rpartition("/")
        if group == "hydra/launcher" and choice in LAUNCHERS:
            extra = LAUNCHERS[choice]
            return f"error: hydra/launcher={choice} needs a plugin: pip install 'deconfuse[{extra}]'", 1
        return f"error: there is no {group}={choice}; {did_you_mean(choice, error.options)}", 1
    if isinstance(error, OSError):
        return f"error: {error}", 1
    if isinstance(error, ValueError) and str(error).startswith("Only one of --run"):
        return "error: give one of -m, --cfg and --info; --cfg shows one job", 1
    if isinstance(error, ValueError) and str(error).startswith("Config group override"):
        return f"error: {_no_word(words)}", 1
    if isinstance(error, OverrideParseException):
        return f"error: {_unreadable(error.override, str(error), words)}", 1
    if isinstance(error, (HydraException, OmegaConfBaseException)):
        return f"error: {_configuration(str(error), words)}", 1
    return None, 1


def of_submitit(error: BaseException) -> bool:
    """True for submitit's error about a job without a result. submitit need not be installed."""
    return type(error).__module__ == "submitit.core.utils" and type(error).__name__.endswith("JobError")


def _out_of_memory(error: BaseException) -> bool:
    """True for torch's error about a device's memory or the machine's, and Python's."""
    kind, text = type(error), str(error)
    on_device = kind.__name__ == "OutOfMemoryError" and kind.__module__.partition(".")[0] == "torch"
    of_machine = isinstance(error, RuntimeError) and "DefaultCPUAllocator: can't allocate" in text
    return on_device or of_machine or isinstance(error, MemoryError)


def _asked_for(text: str) -> str:
    """What could not be had, from torch's message: so much of so much of a GPU, or so many bytes."""
    gpu = re.search(r"Tried to allocate ([\d.]+ \w+)\. (GPU \d+) has a total capacity of ([\d.]+ \w+)", text)
    machine = re.search(r"you tried to allocate (\d+) bytes", text)
    if gpu:
        return f"{gpu[1]} more are not free on {gpu[2]}, which has {gpu[3]}"
    if machine:
        return f"{int(machine[1]) / 2**30:.1f} GiB more are not free on this machine"
    return "no more is free"


def _last_line(text: str) -> str:
    """The last line of a text. A process that loads images puts its traceback before the error."""
    return (text.strip().splitlines() or ["unknown"])[-1]


def _configuration(text: str, words: list[str]) -> str:
    """Hydra's own message, or a better one where a key is misspelt or a word has several values."""
    first = text.strip().splitlines()[0]
    override = re.match(r"Could not override '([^']+)'", first)
    if override:
        return _key(override[1], words)
    swept = re.match(r"(Ambiguous value for argument|Sweep parameters) '(.*)'", text, re.DOTALL)
    if swept:
        return _without_m(swept[2].partition("'\n")[0], literal=swept[1].startswith("Ambiguous"))
    return first


def _without_m(word: str, literal: bool) -> str:
    """The message about a word with several values in a command without -m."""
    key, _, value = word.partition("=")
    said = f"{word} are several values; add -m to sweep over them"
    if not literal or key in GROUPS:
        return said
    return f"{said} (or, for a key that takes a list, {_in_a_shell(f'{key}=[{value}]')})"


def _unreadable(word: str, text: str, words: list[str]) -> str:
    """The message about a word that Hydra's grammar refuses: how to write it."""
    key, equals, value = word.partition("=")
    if not equals:
        before = words[words.index(word) - 1] if word in words[1:] else ""
        whole = f" (a space in a value is written {_in_a_shell(f'{before} {word}')})" if "=" in before else ""
        return f"{word} is not KEY=VALUE{whole}"
    quoted = path_words.quoted(key, value)
    if quoted is None:
        return f"{word}: {text.strip().splitlines()[0]}"
    return (
        f"{word}: a value with ( ) = ' or letters beyond ASCII is given in quotes inside the shell's: "
        f"{_in_a_shell(f'{key}={quoted}')}"
    )


def _in_a_shell(word: str) -> str:
    """The word as it is typed in a shell, in double quotes if they are enough: inner quotes stay readable."""
    return shlex.quote(word) if re.search(r'["$`!\\]', word) else f'"{word}"'


def _no_word(words: list[str]) -> str:
    """The message about a choice whose value is not one word. Hydra does not say which choice it is."""
    given = [word for word in words if word.partition("=")[0] in GROUPS]
    return f"a choice is one word, such as dataset=glyphs; look at {' '.join(given)}"


def _key(key: str, words: list[str]) -> str:
    """The message about a key that the configuration does not have, with the nearest valid keys."""
    group, _, name = key.partition(".")
    if group == "trainer" and name in trainer_keys.OURS:
        return trainer_keys.refusal(name)
    chosen = [word for word in words if word.partition("=")[0] in GROUPS]
    try:
        config = _composed(chosen)
    except (HydraException, OmegaConfBaseException, ValueError):  # several values are no option
        config = _composed([])
    above: list[str] = []
    for step in key.split("."):
        found = OmegaConf.select(config, ".".join(above)) if above else config
        below = found if isinstance(found, DictConfig) else ()
        valid = [str(name) for name in below if not str(name).startswith("_")]
        if step not in valid:
            break
        above.append(step)
    if not valid:
        return f"there is no key {key}; {'.'.join(above)} has none below it"
    names = valid if above else sorted({*valid, *GROUPS})
    near = did_you_mean(step, names)
    if above and not get_close_matches(step, names, n=1):
        near = _deeper(step, below) + near
    return f"there is no key {key}; {near}" + (f" (in {'.'.join(above)})" if above else "")


def _deeper(name: str, group: DictConfig) -> str:
    """Text that asks for the key nearest to name one level below the group; "" if none is near."""
    below = [
        f"{outer}.{inner}"
        for outer, value in group.items_ex(resolve=False)  # a key without a value is no group
        if isinstance(value, DictConfig)
        for inner in value
        if not str(inner).startswith("_")
    ]
    last = {key.rpartition(".")[2]: key for key in below}
    near = get_close_matches(name, last, n=1)
    return f"did you mean {last[near[0]]}? " if near else ""


def _composed(words: list[str]) -> DictConfig:
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", overrides=words)
