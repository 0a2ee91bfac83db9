"""The one exception that a user is meant to read, and checks of values that raise it."""

import difflib
import os
import sys
from collections.abc import Callable, Iterable


class UserError(Exception):
    """An error that the user can mend. The message is one line: what is wrong, where, and how to mend it."""


def command(main: Callable[[list[str]], int | None], interrupted: str = "interrupted") -> None:
    """Run a subcommand with the words of the command line, and end the process with its exit code.

    None is exit code 0. A UserError or an OSError is printed as one line, with exit code 1; Ctrl-C prints the
    line `interrupted`, with 130. If the reader of the output leaves early, the exit code is 141.
    """
    try:
        code = main(sys.argv[1:])
        sys.stdout.flush()
        sys.exit(code)
    except BrokenPipeError:
        sys.exit(reader_left())
    except (UserError, OSError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        print(f"\n{interrupted}", file=sys.stderr)
        sys.exit(130)


def invoked(name: str) -> str:
    """How the user calls a subcommand: `deconfuse run`, or `python -m src.run` in a checkout."""
    return os.environ.get("DECONFUSE_COMMAND", "deconfuse ") + name


def reader_left() -> int:
    """The exit code if the reader of standard output has left, as `head` does; no more is written to it."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 141  # 128 + SIGPIPE, as a shell has it


def shorten(items: Iterable[object], limit: int = 5) -> str:
    """The first `limit` items, comma-separated, and how many more there are."""
    words = [str(item) for item in items]
    more = f" and {len(words) - limit} more" if len(words) > limit else ""
    return ", ".join(words[:limit]) + more


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """Text with the nearest choice, if one is near, and all valid ones."""
    names = sorted(choices)
    near = difflib.get_close_matches(word, names, n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    return f"{hint}Valid: {', '.join(names)}"


def one_of(key: str, value: str, choices: Iterable[str]) -> str:
    """Return value; raise UserError, naming the key and the valid choices, if it is none of them."""
    names = list(choices)
    if value not in names:
        raise UserError(f"{key}={value} is not known; {did_you_mean(str(value), names)}")
    return value


def number(key: str, value: object) -> float:
    """Return value, or raise UserError if it is not a number."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != value:
        raise UserError(f"{key}={value} is not a number")
    return value


def flag(key: str, value: object) -> bool:
    """Return value, or raise UserError unless it is true or false. (Hydra reads `no` as text.)"""
    if not isinstance(value, bool):
        raise UserError(f"{key}={value} is neither true nor false")
    return value


def within(key: str, value: float, low: float, high: float, *, open_end: bool = False) -> float:
    """Return value, or raise UserError if it is outside [low, high], or outside [low, high) with open_end."""
    good = low <= number(key, value) < high if open_end else low <= number(key, value) <= high
    if not good:
        end = ")" if open_end else "]"
        raise UserError(f"{key}={value} is out of range; give a value in [{low}, {high}{end}")
    return value


def at_least(key: str, value: float, low: float) -> float:
    """Return value, or raise UserError if it is below low."""
    if number(key, value) < low:
        raise UserError(f"{key}={value} is too small; give {low} or more")
    return value


def count(key: str, value: int, low: int) -> int:
    """Return value, or raise UserError if it is not a whole number or is below low."""
    if not isinstance(at_least(key, value, low), int):
        raise UserError(f"{key}={value} is not a whole number")
    return value
