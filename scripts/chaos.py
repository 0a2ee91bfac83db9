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

from deconfuse.launch import sweep, tables
from deconfuse.system.files import short_hash

MOST_SECONDS = 900  # of a command
POLL = 0.001  # seconds between two looks
TRIES = 40  # to meet a command before it ends
TINY = "dataset.classes=12 dataset.image_size=16 model.width=4 recipe.embedding_size=8 noise=flip_10".split()
TINY += ["recipe.classes_per_batch=4", "recipe.checkpoints=2"]
RUN = [*TINY, "recipe.epochs=4"]
RETRAIN = [*RUN, "retrain.mode=cached", "retrain.epochs=5", "target=pairs", "target.most=20"]
SWEEP = ["-m", *TINY, "recipe.epochs=2", "seed=0,1", "influence=eif,random"]
TABLES = ("tables",)
# What tells nothing of the results: sweeps' records by their time, and what Lightning logs on the way.
NO_RESULT = ("multirun", "log")


@dataclass(frozen=True)
class Phase:
    """What is killed. words: of the command, `tables` or those of `run`; gone: what its start lacks of its
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
    Phase("table-making", TABLES, ("tables",), lambda output, said: True),
)


class Command:
    """A command in a process group of its own, what it says in a file."""

    def __init__(self, words: tuple[str, ...], output: Path):
        self.log, self.began = output.with_name("said.txt"), time.monotonic()
        sys.stdout.flush()
        self.code: int | None = None
        self.process = os.fork()
        if self.process == 0:
            os._exit(_carry_out(words, output, self.log))
        with suppress(OSError):  # the child does it too, whoever is first
            os.setpgid(self.process, 0)

    def said(self) -> str:
        """So far."""
        return self.log.read_text("utf-8") if self.log.exists() else ""

    def ended(self) -> int | None:
        """The exit code; None where it still runs."""
        if self.code is None:
            process, status = os.waitpid(self.process, os.WNOHANG)
            self.code = os.waitstatus_to_exitcode(status) if process else None
        return self.code

    def end(self) -> float:
        """Wait for its end, well or by a kill; seconds it took. Anything else ends this script."""
        until(self, lambda: time.monotonic() - self.began > MOST_SECONDS)
        if self.code is None:
            self.kill()
        if self.code not in (0, -signal.SIGKILL):
            sys.exit(f"error: exit code {self.code}\n{self.said()}")
        return time.monotonic() - self.began

    def kill(self) -> None:
        """As kill -9 does, with everything it has started; wait until it is gone."""
        os.killpg(self.process, signal.SIGKILL)
        while self.ended() is None:
            time.sleep(POLL)


def until(command: Command, happened: Callable[[], bool]) -> bool:
    """True when it happened, False where the command ended before."""
    while not happened():
        if command.ended() is not None:
            return False
        time.sleep(POLL)
    return True


def _carry_out(words: tuple[str, ...], output: Path, log: Path) -> int:
    """Run the command in a process that was forked for it, and return its exit code."""
    os.setpgid(0, 0)
    os.environ["DECONFUSE_COMMAND"] = "python -m src."  # as in a checkout: metrics.json keeps the command
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(file, 1)
    os.dup2(file, 2)
    try:
        if words == TABLES:
            tables.main([str(output)])
            return 0
        sys.argv = ["run.py", *words, f"output_dir={output}"]
        return sweep.command(importlib.import_module("deconfuse.__main__").run)
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


def whole(words: tuple[str, ...], output: Path) -> tuple[float, str]:
    """(seconds, what was said) of a command that nobody kills."""
    command = Command(words, output)
    return command.end(), command.said()


def measured(phase: Phase, output: Path) -> tuple[float, float]:
    """Seconds of the phase, and of the whole command, that nobody kills."""
    command = Command(phase.words, output)
    until(command, lambda: phase.begun(output, command.said()))
    before = time.monotonic()
    until(command, lambda: not phase.begun(output, command.said()))  # a lock that is gone, or its end
    seconds = time.monotonic() - before
    return seconds, command.end()


def killed(phase: Phase, output: Path, seconds: float, chance: random.Random, writing: bool) -> bool:
    """Start the command and kill it in the phase; False where it ended before."""
    command, delay = Command(phase.words, output), chance.uniform(0, seconds)
    met = until(command, lambda: phase.begun(output, command.said()))
    moment = time.monotonic() + delay
    met = met and until(command, lambda: time.monotonic() > moment)
    if met and (not writing or until(command, lambda: any(output.rglob(".*.partial")))):
        command.kill()
    command.end()
    return command.code == -signal.SIGKILL


def fresh(phase: Phase, end: Path, output: Path) -> None:
    """Where the command starts: what it ends with, less what is gone."""
    shutil.rmtree(output, ignore_errors=True)
    shutil.copytree(end, output)
    for pattern in phase.gone:
        for path in list(output.glob(pattern)):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def results(output: Path) -> dict[str, bytes | dict]:
    """Every result's bytes by its name; of metrics.json, and the report's copy of it in run.js, what does not
    tell the time, or who trained."""
    found = {}
    for path in sorted(output.rglob("*")):
        name = path.relative_to(output)
        if path.is_file() and not set(NO_RESULT) & set(name.parts):
            found[str(name)] = path.read_bytes()
            if name.name == "metrics.json":
                report = json.loads(path.read_text("utf-8"))
                del report["seconds"], report["checkpoint"]["reused"]
                found[str(name)] = report
            elif name.parts[-3:] == ("report", "data", "run.js"):
                call = path.read_text("utf-8")
                report = json.loads(call[call.index("{") : call.rindex("}") + 1])
                del report["seconds"]
                found[str(name)] = report
    return found


def leftovers(output: Path) -> list[Path]:
    """Half-written files and folders, locks, and checkpoints of unfinished trainings."""
    return [path for path in output.rglob("*") if path.name.startswith(".") or path.name == "last.ckpt"]


def end_of(words: tuple[str, ...], work: Path) -> Path:
    """What a command that nobody kills ends with; made once."""
    end, output = work / f"end-{short_hash(words)}", work / "outputs"
    if not end.exists():
        if words == TABLES:
            shutil.copytree(end_of(tuple(SWEEP), work), output)
        whole(words, output)
        output.rename(end)
    return end


def kills(phase: Phase, work: Path, chance: random.Random, number: int) -> Iterator[dict]:
    """`number` kills of a phase, each followed by the same command; ends where the results differ."""
    end, output = end_of(phase.words, work), work / "outputs"
    fresh(phase, end, output)
    (seconds, alone), expected = measured(phase, output), results(end)
    for i in range(number):
        for _ in range(TRIES):
            fresh(phase, end, output)
            if killed(phase, output, seconds, chance, writing=bool(i % 2)):
                break
        else:
            sys.exit(f"error: {phase.name} ended {TRIES} times before it was killed")
        left = leftovers(output)
        again, said = whole(phase.words, output)
        found = results(output)
        differ = sorted(name for name in {**expected, **found} if expected.get(name) != found.get(name))
        if differ or leftovers(output):
            kept = Path(tempfile.mkdtemp()) / "outputs"
            shutil.copytree(output, kept)
            names = [*differ, *(str(path.relative_to(output)) for path in leftovers(output))]
            sys.exit(f"error: {phase.name}, kill {i + 1}: {', '.join(names)} in {kept}\n{said}")
        yield {
            "phase": phase.name,
            "kills": 1,
            "in a write": i % 2,
            "training resumed": int("resuming training" in said),
            "left by the kills": len(left),
            "same results, nothing left": 1,
            "seconds, never killed": alone,
            "seconds, given again": again,
        }
    shutil.rmtree(output)


def main(words: list[str]) -> None:
    """Print a table, a row per phase."""
    parser = argparse.ArgumentParser(prog="python -m scripts.chaos", description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(words)
    chance, rows = random.Random(options.seed), []
    importlib.import_module("deconfuse.story")  # once, for all that are killed
    tables.experiments()
    with tempfile.TemporaryDirectory() as folder:
        for i, phase in enumerate(PHASES):
            number = len(range(i, options.kills, len(PHASES)))
            if number:
                rows += kills(phase, Path(folder).resolve(), chance, number)
                print(f"{phase.name}: {number} kills, each ended well", file=sys.stderr, flush=True)
    means = {name: "mean" if name.startswith("seconds") else "sum" for name in rows[0] if name != "phase"}
    table = pd.DataFrame(rows).groupby("phase", sort=False).agg(means).round(1).reset_index()
    print(tables.grid(table))
    print(f"\n{len(rows)} kills, seed {options.seed}: the command given again always ended the same")


if __name__ == "__main__":
    main(sys.argv[1:])
