"""Many jobs from one command: deconfuse run -m seed=0,1,2 influence=eif,if.

The sweep's folder, outputs/multirun/<time>/, holds `jobs.json`, the words of each job, and a record of each
job that ended, `0.json`, `1.json` ... Jobs may run in other processes, so the summary at the end is made from
these records.
"""

import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, redirect_stdout
from functools import cache
from io import StringIO
from pathlib import Path
from typing import Any, TypeVar

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, flag_override

from deconfuse.launch import command_line, path_words
from deconfuse.system import signals
from deconfuse.system.errors import UserError, invoked, reader_left, shorten
from deconfuse.system.files import read_json, tidy, write_json
from deconfuse.system.progress import console, speaking, started_first
from deconfuse.system.words import many

PLAN = "jobs.json"
BASIC = "hydra._internal.core_plugins.basic_launcher.BasicLauncher"

T = TypeVar("T")
made: dict[str, Any] = {}  # what `shared` returned, by the settings it was made from
started: list[Path] = []  # the folder of the sweep that this process started
# True if the user asks for tracebacks. `command` sets the variable itself, so that Hydra raises errors and
# does not print them.
traceback_wanted = os.environ.get("HYDRA_FULL_ERROR") == "1"


def command(main: Callable[[], None]) -> int:
    """Run a job or a sweep, as `deconfuse run` does; return the exit code."""
    os.environ["HYDRA_FULL_ERROR"] = "1"
    signals.listen()
    sys.argv[1:] = path_words.in_hydras_words(sys.argv[1:])
    try:
        main()
    except signals.Stopped as stopped:
        said(stopped, sys.argv[1:])
        return signals.requeue(stopped)
    except BaseException as error:
        code = said(error, sys.argv[1:])
        lost = isinstance(error, BrokenProcessPool) or command_line.of_submitit(error)
        return end(started[0]) if lost and started else code
    return end(started[0]) if started else 0


def said(error: BaseException, words: list[str]) -> int:
    """Print an error's one line and return its exit code; raise an error that is a bug."""
    if isinstance(error, BrokenPipeError):
        return reader_left()
    message, code = command_line.explain(error, words)
    if not mine_to_say():
        return code
    if traceback_wanted or message is None:
        raise error
    print(message, file=sys.stderr)
    return code


def mine_to_say() -> bool:
    """True in the one of several processes that prints an error which all of them meet."""
    # The module is loaded once the story has begun; importing it here would import torch.
    distributed = sys.modules.get("deconfuse.system.distributed")
    return distributed.mine_to_say() if distributed else started_first()


def running() -> bool:
    """True in a job of a sweep."""
    return HydraConfig.get().mode == RunMode.MULTIRUN


def shared(settings: DictConfig, make: Callable[[DictConfig], T]) -> T:
    """Return make(settings). The jobs of a sweep in this process share what it returns."""
    if not running():
        return make(settings)
    key = OmegaConf.to_yaml(settings, resolve=True)
    if key not in made:
        made[key] = make(settings)
    return made[key]


class Jobs(Callback):
    """Hydra's callback at the start of a sweep: checks the jobs, writes their words, prints their number."""

    def on_multirun_start(self, config: DictConfig, **settings) -> None:
        """Check the jobs. An error is printed here and ends the process, as Hydra would only warn of it."""
        try:
            folder, parallel = Path(config.hydra.sweep.dir), config.hydra.launcher._target_ != BASIC
            jobs = planned(config)
            check(config, jobs or [])
            if parallel:
                different_models_first(config)
                jobs = planned(config)
            plan = {"process": os.getpid(), "traceback": traceback_wanted, "jobs": jobs}
            write_json(folder / PLAN, plan)
            for earlier in folder.parent.iterdir():
                tidy(earlier)
        except Exception as error:
            sys.exit(error_line(error, sys.argv[1:], traceback_wanted))
        started.append(folder)
        if jobs is not None:
            console.print(
                f"{many(len(jobs), 'job')}{at_once(config) if parallel else ''}; records in {folder}"
            )


def at_once(config: DictConfig) -> str:
    """How many jobs run at the same time, as a sweep's first line has it; empty if the launcher is silent."""
    jobs = config.hydra.launcher.get("n_jobs")
    if jobs is None:
        return ""
    from joblib import cpu_count, effective_n_jobs

    jobs = effective_n_jobs(jobs)
    threads = os.environ.get("OMP_NUM_THREADS", max(cpu_count() // jobs, 1))  # what joblib gives each job
    return f", {jobs} at a time on {many(int(threads), 'thread')} each (hydra.launcher.n_jobs={jobs})"


def different_models_first(config: DictConfig) -> None:
    """Order the words of a sweep so that jobs that share a model are far apart.

    The last word varies fastest, so words that a model's weights depend on come last. Otherwise jobs that run
    at the same time would wait for each other's training.
    """
    from deconfuse.launch.names import TRAINING_KEYS  # imports torch, which a misspelt word does not wait for

    def of_a_model(word: str) -> bool:
        return word.lstrip("+~").partition("=")[0].partition(".")[0] in TRAINING_KEYS

    words = sorted(given(config), key=of_a_model)
    with flag_override(config, ["readonly", "struct"], False):
        config.hydra.overrides.task = words
        config.hydra.sweeper.params = None


def given(config: DictConfig) -> list[str]:
    """The experiment's words, then the command line's, which win."""
    params = config.hydra.sweeper.get("params") or {}
    return [*(f"{key}={value}" for key, value in params.items()), *config.hydra.overrides.task]


def planned(config: DictConfig) -> list[list[str]] | None:
    """The words of each job, in order; None if a sweeper chooses them while it runs."""
    if not config.hydra.sweeper._target_.endswith(".BasicSweeper"):
        return None
    parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
    (jobs,) = BasicSweeper.split_arguments(parser.parse_overrides(given(config)), None)
    return jobs


def check(config: DictConfig, jobs: list[list[str]]) -> None:
    """Raise UserError if a job's words do not compose, before the first job starts.

    Every word is tried once, in the first job that has it. Hydra checks each job again when it starts.
    """
    tried: set[str] = set()
    for words in jobs:
        if tried >= set(words):
            continue
        tried |= set(words)
        try:
            composed = GlobalHydra.instance().config_loader().load_sweep_config(config, words)
            settings = {key: value for key, value in composed.items_ex(resolve=False) if key != "hydra"}
            OmegaConf.to_container(OmegaConf.create(settings), resolve=True, throw_on_missing=True)
        except Exception as error:
            message, _ = command_line.explain(error, words)
            if message is None:
                raise
            raise UserError(f"{message.removeprefix('error: ')} [{name(words, jobs)}]") from None
        if composed.hydra.sweep.dir != config.hydra.sweep.dir:
            raise UserError("output_dir is one for all jobs of a sweep; give one folder")
        lost = (composed.hydra.sweeper.get("params") or {}).keys() - {
            word.lstrip("+").partition("=")[0] for word in words
        }
        if lost:
            raise UserError(
                f"experiments that sweep over {', '.join(sorted(lost))} themselves can't be swept over; "
                "give one experiment at a time"
            )


def name(words: list[str], jobs: list[list[str]] | None) -> str:
    """A job's name: those of its words that not all jobs have, or all of them."""
    shared = set.intersection(*map(set, jobs)) if jobs and len(jobs) > 1 else set()
    return " ".join(word for word in words if word not in shared) or " ".join(words)


def job(run: Callable[[DictConfig], Path], cfg: DictConfig) -> None:
    """Run one job. In a sweep also write its record; an error is printed, and the next jobs go on."""
    path_words.expand_home(cfg)
    if not running():
        try:
            run(cfg)
        except Exception as error:  # printed here, as Hydra would print a line of its own before it
            sys.exit(said(error, list(HydraConfig.get().overrides.task)))
        return
    hydra = HydraConfig.get()
    number, words, home = hydra.job.num, list(hydra.overrides.task), Path(hydra.sweep.dir)
    plan = read_json(home / PLAN)
    of = f"/{len(plan['jobs'])}" if plan["jobs"] else ""
    title = f"[{number + 1}{of}] {name(words, plan['jobs'])}"
    record = {"words": words, "folder": None, "error": None}
    before = time.perf_counter()
    if os.getppid() == plan["process"]:
        end_with_parent()
    with speaking(title), terminal(title, alone=plan["process"] == os.getpid()):
        try:
            record["folder"] = str(run(cfg))
        except Exception as error:
            record["error"] = error_line(error, words, plan["traceback"])
            console.print(record["error"])
    record["seconds"] = round(time.perf_counter() - before, 2)
    write_json(home / f"{number}.json", record)


@cache
def end_with_parent() -> None:
    """End this process when the one that started it ends, as nobody would read its results any more."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def error_line(error: Exception, words: list[str], with_traceback: bool) -> str:
    """Return an error's one line; print its traceback if the user asks for it, or if the error is a bug."""
    message, _ = command_line.explain(error, words)
    if with_traceback or message is None:
        traceback.print_exc()
    return message or f"error: {type(error).__name__}: {error}"


@contextmanager
def terminal(title: str, alone: bool) -> Iterator[None]:
    """Let a job that shares its terminal draw no bars, and print its summary in one piece under its title."""
    if alone:
        yield
        return
    os.environ.setdefault("DECONFUSE_PROGRESS", "0")
    said = StringIO()
    try:
        with redirect_stdout(said):
            yield
    finally:
        if said.getvalue():
            print(f"\n{title}{said.getvalue()}", end="", flush=True)


def end(folder: Path) -> int:
    """Print a sweep's table, and which jobs failed or left no record; return the exit code."""
    from deconfuse.launch import tables  # imports all experiments, which a misspelt word does not wait for

    jobs = read_json(folder / PLAN)["jobs"]
    records = {int(path.stem): read_json(path) for path in folder.glob("[0-9]*.json")}
    ended = [records[number] for number in sorted(records)]
    finished = [Path(record["folder"]) for record in ended if record["folder"]]
    failed = [name(record["words"], jobs) for record in ended if record["error"]]
    lost = [name(words, jobs) for number, words in enumerate(jobs or []) if number not in records]
    if len(set(finished)) > 1:
        print("\n" + tables.show(finished))
        print(f"Tables and pictures of all runs there: {invoked('tables')} {finished[0].parent}")
    if failed and len(ended) > 1:
        print(f"error: {many(len(failed), 'job')} failed: {'; '.join(failed)}", file=sys.stderr)
    if lost:
        print(f"error: {many(len(lost), 'job')} did not end: {shorten(lost)}", file=sys.stderr)
    return 1 if failed or lost else 0
