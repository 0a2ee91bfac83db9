"""Kill runs at random moments, give the same command again, compare: python -m scripts.chaos --kills 50.

Each command is run once to its end. Then, kill by kill, it is started in a fresh copy of where it starts,
its process group is killed by SIGKILL at a random moment of the phase in question, and it is given again. It
has to end with exit code 0, with the files of the run that nobody killed, byte for byte, and with nothing
else: no half-written file, no lock, no checkpoint of an unfinished training. Every second kill waits for a
file that is being written.

Commands run in processes forked from this one, which has imported what they need: so kills meet work, not
Python's imports.
"""

import argparse
import importlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from src import sweep, tables

MOST_SECONDS = 900  # of a command
TRIES = 40  # to meet a command before it ends
TINY = "dataset.classes=24 dataset.image_size=16 model.width=4 recipe.embedding_size=8 noise=flip_10".split()
RUN = [*TINY, "recipe.classes_per_batch=4", "recipe.epochs=6", "recipe.checkpoints=3"]
RETRAIN = [*RUN, "retrain.mode=cached", "retrain.epochs=5", "target=pairs", "target.most=20"]
SWEEP = ["-m", *RUN, "recipe.epochs=3", "seed=0,1", "influence=eif,random"]
# What tells nothing of the results: sweeps' records by their time, and what Lightning logs on the way.
NO_RESULT = ("multirun", "log")


@dataclass(frozen=True)
class Phase:
    """What is killed. words: of the command, `tables` or those of src.run; gone: what its start lacks of its
    end (glob patterns); begun: whether the phase has, by the output folder and what was said."""

    name: str
    words: tuple[str, ...]
    gone: tuple[str, ...]
    begun: Callable[[Path, str], bool]


def locked(name: str) -> Callable[[Path, str], bool]:
    """True once somebody makes checkpoints/*/name."""
    return lambda output, said: any(output.glob(f"checkpoints/*/.{name}.lock"))


def heard(text: str) -> Callable[[Path, str], bool]:
    """True once the command has said it."""
    return lambda output, said: text in said


PHASES = (
    Phase("training", tuple(RUN), ("*",), locked("model.ckpt")),
    Phase("extraction", tuple(RUN), ("[!c]*", "checkpoints/*/*.npz"), locked("model.features.npz")),
    Phase("scoring", tuple(RUN), ("[!c]*",), heard("reusing ")),
    Phase("retraining", tuple(RETRAIN), ("[!c]*",), heard("reusing ")),
    Phase("sweeping", tuple(SWEEP), ("*",), heard("records in ")),
    Phase("table-making", ("tables",), ("tables",), lambda output, said: True),
)


class Command:
    """A command in a process group of its own, what it says in a file."""

    def __init__(self, words: tuple[str, ...], output: Path):
        self.log, self.began = output.with_name("said.txt"), time.monotonic()
        sys.stdout.flush()
        self.process = os.fork()
        if self.process == 0:
            os._exit(_carry_out(words, output, self.log))
        with suppress(OSError):  # the child does it too, whoever is first
            os.setpgid(self.process, 0)

    def said(self) -> str:
        """So far."""
        return self.log.read_text("utf-8") if self.log.exists() else ""

    def ended(self, wait: bool = False) -> int | None:
        """The exit code; None where it still runs."""
        while True:
            process, status = os.waitpid(self.process, os.WNOHANG)
            if process:
                return os.waitstatus_to_exitcode(status)
            if not wait:
                return None
            if time.monotonic() - self.began > MOST_SECONDS:
                self.kill()
            time.sleep(0.005)

    def kill(self) -> None:
        """As kill -9 does, with everything it has started."""
        os.killpg(self.process, signal.SIGKILL)


def _carry_out(words: tuple[str, ...], output: Path, log: Path) -> int:
    os.setpgid(0, 0)
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(file, 1)
    os.dup2(file, 2)
    try:
        if words == ("tables",):
            tables.main([str(output)])
            return 0
        sys.argv = ["run.py", f"output_dir={output}", *words]
        return sweep.command(importlib.import_module("src.run").main)
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


def whole(words: tuple[str, ...], output: Path) -> tuple[float, str]:
    """(seconds, what was said) of a command that nobody kills; ends with its words where it fails."""
    command = Command(words, output)
    code = command.ended(wait=True)
    if code:
        sys.exit(f"error: exit code {code} of {' '.join(words)}\n{command.said()}")
    return time.monotonic() - command.began, command.said()


def until(command: Command, happened: Callable[[], bool]) -> bool:
    """True when it happened, False where the command ended before."""
    while not happened():
        if command.ended() is not None:
            return False
        time.sleep(0.0005)
    return True


def length(phase: Phase, output: Path) -> float:
    """Seconds that the phase takes in a command that nobody kills."""
    command = Command(phase.words, output)
    until(command, lambda: phase.begun(output, command.said()))
    before = time.monotonic()
    if phase.name in ("training", "extraction"):
        until(command, lambda: not phase.begun(output, ""))
    seconds = time.monotonic() - before
    code = command.ended(wait=True)
    if code:
        sys.exit(f"error: exit code {code} of {' '.join(phase.words)}\n{command.said()}")
    return seconds if phase.name in ("training", "extraction") else time.monotonic() - before


def killed(phase: Phase, output: Path, seconds: float, chance: random.Random, writing: bool) -> bool:
    """Start the command and kill it in the phase; False where it ended before."""
    command = Command(phase.words, output)
    if not until(command, lambda: phase.begun(output, command.said())):
        return False
    moment = time.monotonic() + chance.uniform(0, seconds)
    if not until(command, lambda: time.monotonic() > moment):
        return False
    if writing and not until(command, lambda: any(output.rglob(".*.partial"))):
        return False
    command.kill()
    return command.ended(wait=True) == -signal.SIGKILL


def fresh(phase: Phase, end: Path, output: Path) -> None:
    """Where the command starts: what it ends with, less what is gone."""
    shutil.rmtree(output, ignore_errors=True)
    shutil.copytree(end, output)
    for pattern in phase.gone:
        for path in list(output.glob(pattern)):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def results(output: Path) -> dict[str, bytes | dict]:
    """Every result's bytes by its name; of metrics.json what does not tell the time, or who trained."""
    found = {}
    for path in sorted(output.rglob("*")):
        name = path.relative_to(output)
        if path.is_file() and not set(NO_RESULT) & set(name.parts):
            found[str(name)] = path.read_bytes()
            if name.name == "metrics.json":
                report = json.loads(path.read_text("utf-8"))
                del report["seconds"], report["checkpoint"]["reused"]
                found[str(name)] = report
    return found


def leftovers(output: Path) -> list[Path]:
    """Half-written files and folders, locks, and checkpoints of unfinished trainings."""
    return [path for path in output.rglob("*") if path.name.startswith(".") or path.name == "last.ckpt"]


def kills(phase: Phase, work: Path, chance: random.Random, number: int) -> Iterator[dict]:
    """`number` kills of a phase, each followed by the same command; ends where the results differ."""
    output, end = work / "outputs", work / "end"
    if phase.words == ("tables",):  # of the sweep's runs
        whole(tuple(SWEEP), output)
    elif phase.gone != ("*",):
        whole(phase.words, output)
    alone, _ = whole(phase.words, output)
    shutil.copytree(output, end)
    fresh(phase, end, output)
    seconds, expected = length(phase, output), results(end)
    for i in range(number):
        for _ in range(TRIES):
            fresh(phase, end, output)
            if killed(phase, output, seconds, chance, writing=bool(i % 2)):
                break
        else:
            sys.exit(f"error: {phase.name} ended {TRIES} times before it was killed")
        left = len(leftovers(output))
        again, said = whole(phase.words, output)
        found = results(output)
        differ = sorted(name for name in {**expected, **found} if expected.get(name) != found.get(name))
        if differ or leftovers(output):
            sys.exit(
                f"error: {phase.name}, kill {i + 1}: not the results of the run that nobody killed in {work}: "
                f"{', '.join(differ)}; left over: {', '.join(map(str, leftovers(output)))}\n{said}"
            )
        yield {
            "phase": phase.name,
            "kills": 1,
            "in a write": i % 2,
            "resumed training": int("resuming training" in said),
            "ended well, same results": 1,
            "left by the kills": left,
            "left in the end": 0,
            "seconds, never killed": alone,
            "seconds, given again": again,
        }


def main(words: list[str]) -> None:
    """Print a table, a row per phase."""
    parser = argparse.ArgumentParser(prog="python -m scripts.chaos", description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(words)
    chance, rows = random.Random(options.seed), []
    importlib.import_module("src.run")
    tables.experiments()
    for i, phase in enumerate(PHASES):
        number = len(range(i, options.kills, len(PHASES)))
        if not number:
            continue
        with tempfile.TemporaryDirectory() as folder:
            rows += kills(phase, Path(folder).resolve(), chance, number)
        print(f"{phase.name}: {number} kills, each ended well", file=sys.stderr)
    means = {name: "mean" if name.startswith("seconds") else "sum" for name in rows[0] if name != "phase"}
    table = pd.DataFrame(rows).groupby("phase", sort=False).agg(means).round(1).reset_index()
    print(tables.grid(table))
    print(f"\n{len(rows)} kills, seed {options.seed}: every command given again ended with the same results")


if __name__ == "__main__":
    main(sys.argv[1:])
