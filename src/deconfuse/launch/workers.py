"""Run one job in several processes, which are started here, or by torchrun or srun.

If they are started here, the process that the user started does none of the job's work. It watches the new
processes: when one of them fails or dies, it ends the others and says in one line what happened.

torch's elastic agent is not used for this: it ends the other processes at once when one fails, so that what
they were writing is cut off and the cause is lost; it sends a terminal's Ctrl-C a second time, prints error
lines of its own, and keeps its signal handlers.
"""

import io
import multiprocessing
import os
import socket
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout, suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import setup_globals
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.strategies import DDPStrategy

from deconfuse.launch import command_line, sweep
from deconfuse.system import distributed, signals
from deconfuse.system.errors import UserError
from deconfuse.system.progress import by_torchrun, console, speaker, speaking
from deconfuse.training import devices

INTERRUPTED = 130  # the exit code of Ctrl-C
# Seconds that the other processes have to report after the first failure, and to end by themselves.
GRACE = 3.0
# Seconds that processes have to clean up after a signal. SLURM sends SIGKILL 30 seconds after SIGTERM.
STOPPING = 20.0


@dataclass(frozen=True)
class Task:
    """What a new process is given: the job, its settings and Hydra's, and how it prints.

    speaker: the name before each of its lines. silent: whether it returns what it would print, because jobs
    share the terminal.
    """

    run: Callable[[DictConfig], Path]
    cfg: DictConfig
    hydra: DictConfig
    speaker: str
    with_traceback: bool
    silent: bool


@dataclass(frozen=True)
class Report:
    """How a process ended: with the job's folder and what it printed, or with an error.

    error: one line, or a traceback if the error is a bug. code: the exit code; None with a traceback.
    died: whether the process ended without a report. stopped: the number of the signal that stopped it.
    """

    folder: Path | None = None
    printed: str = ""
    error: str | None = None
    code: int | None = None
    died: bool = False
    stopped: int | None = None


def together(run: Callable[[DictConfig], Path], cfg: DictConfig) -> Path:
    """Run the job in as many processes as the trainer's settings ask for; return the job's folder."""
    trainer = instantiate(cfg.trainer)
    found = devices.strategy(trainer)
    several = isinstance(found, DDPStrategy)
    if by_torchrun() and not several and os.environ["WORLD_SIZE"] != "1":
        raise UserError(
            f"torchrun started {os.environ['WORLD_SIZE']} processes for a job of one; add trainer=ddp and "
            "trainer.devices=PROCESSES_PER_MACHINE"
        )
    if not several or found.num_processes * found.num_nodes == 1:
        return run(cfg)
    if not found.cluster_environment.creates_processes_externally:
        return look_after(run, cfg, found.num_processes, found.num_nodes)
    if sweep.running():
        raise UserError("a sweep starts the processes of its jobs itself; leave torchrun or srun away")
    return member(run, cfg)


def member(run: Callable[[DictConfig], Path], cfg: DictConfig) -> Path:
    """Run the job as one of several processes, of which only the first prints."""
    devices.join(instantiate(cfg.trainer))
    if not distributed.first():
        console.quiet = True
        warnings.simplefilter("ignore")
    console.print(f"{distributed.world()} processes")
    return run(cfg)


def look_after(run: Callable[[DictConfig], Path], cfg: DictConfig, here: int, machines: int) -> Path:
    """Start this machine's processes and wait for them; raise the error of the one that failed."""
    # In a launcher's process Hydra's settings hold types of its plugins that can't be pickled; values can.
    hydra = OmegaConf.create(OmegaConf.to_container(HydraConfig.instance().cfg))
    task = Task(
        run,
        cfg,
        hydra,
        speaker(),
        with_traceback=sweep.traceback_wanted,
        silent=sys.stdout is not sys.__stdout__,
    )
    with started(task, environments(here, machines)) as processes:
        reports = gathered(processes)
    print(reports[0].printed, end="", flush=True)
    return reports[0].folder


def environments(here: int, machines: int) -> list[dict[str, str]]:
    """The environment variables of each process of this machine, by which Lightning connects the processes.

    On a single machine a free port is chosen. Raises UserError if there are several machines and the
    variables that name the first one are not set.
    """
    needed = ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK")
    missing = [name for name in needed if name not in os.environ]
    if machines > 1 and missing:
        raise UserError(
            f"trainer.num_nodes={machines}: {', '.join(missing)} not set; start it on each machine with "
            "MASTER_ADDR (the first machine), MASTER_PORT (one that is free there) and NODE_RANK=0, 1, ..., "
            "or with torchrun or srun"
        )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        given = ("127.0.0.1", str(free.getsockname()[1]), "0")
    if machines > 1:
        given = tuple(os.environ[name] for name in needed)
    shared = {**dict(zip(needed, given, strict=True)), "WORLD_SIZE": str(here * machines)}
    return [{**shared, "LOCAL_RANK": str(i)} for i in range(here)]


@contextmanager
def started(task: Task, variables: list[dict[str, str]]) -> Iterator[list[tuple[Connection, BaseProcess]]]:
    """Start a process for each environment, each with a pipe for its report; none is left afterwards."""
    context, processes, grace = multiprocessing.get_context("spawn"), [], GRACE
    try:
        for own in variables:
            reader, writer = context.Pipe(duplex=False)
            process = context.Process(target=_process, args=(task, own, writer))
            with known_start_method():
                process.start()
            writer.close()  # so that the reader meets the end of the pipe when the process ends
            processes.append((reader, process))
        yield processes
    except (KeyboardInterrupt, signals.Stopped) as error:
        grace = STOPPING  # each process removes what it was writing, and the first prints what is kept
        for _, process in processes if isinstance(error, signals.Stopped) else []:
            process.terminate()  # a terminal's Ctrl-C reaches each without this
        raise
    finally:
        until = time.monotonic() + grace
        for _, process in processes:
            process.join(max(0.0, until - time.monotonic()))
            process.kill()
            process.join()


@contextmanager
def known_start_method() -> Iterator[None]:
    """Hide a start method that multiprocessing does not know, such as loky's in a process of joblib's.

    A new process sets its parent's default start method, and ends with an error where it does not know it.
    """
    before = multiprocessing.get_start_method(allow_none=True)
    if before in (None, *multiprocessing.get_all_start_methods()):
        yield
        return
    multiprocessing.set_start_method(None, force=True)  # the platform's own
    try:
        yield
    finally:
        multiprocessing.set_start_method(before, force=True)


def _process(task: Task, variables: dict[str, str], writer: Connection) -> None:
    """What a new process runs: the job, and then its report."""
    os.environ |= variables
    setup_globals()
    HydraConfig.instance().cfg = task.hydra
    sweep.end_with_parent()
    signals.listen()
    printed = io.StringIO()
    with ExitStack() as stack:
        if task.speaker:
            stack.enter_context(speaking(task.speaker))
        if task.silent:
            stack.enter_context(redirect_stdout(printed))
        try:
            report = Report(folder=member(task.run, task.cfg))
        except BaseException as error:
            report = failed(error, task.with_traceback)
    with suppress(OSError):  # the parent has ended
        writer.send(replace(report, printed=printed.getvalue()))


def failed(error: BaseException, with_traceback: bool) -> Report:
    """The report of an error."""
    message, code = command_line.explain(error, list(HydraConfig.get().overrides.task))
    if message is None:
        return Report(error=traceback.format_exc())
    if with_traceback:
        traceback.print_exc()
    number = error.number if isinstance(error, signals.Stopped) else None
    return Report(error=message.removeprefix("error: "), code=code, stopped=number)


def gathered(processes: list[tuple[Connection, BaseProcess]]) -> list[Report]:
    """The reports in the order of the processes; raises the error that caused the others.

    When a process is lost, the others fail as soon as they wait for it. So after the first failure there are
    GRACE seconds for the report of its cause. An error of the user's is raised before a death without a
    report, and that before a bug.
    """
    open_ = {reader: i for i, (reader, _) in enumerate(processes)}
    reports, until = {}, None
    while open_:
        ready = wait(list(open_), None if until is None else max(0.0, until - time.monotonic()))
        if not ready:
            break
        for reader in ready:
            i = open_.pop(reader)
            try:
                reports[i] = reader.recv()
            except EOFError:
                processes[i][1].join(GRACE)
                reports[i] = Report(error=died(i, processes[i][1].exitcode), code=1, died=True)
        if until is None and any(report.error for report in reports.values()):
            until = time.monotonic() + GRACE
    failures = {i: report for i, report in reports.items() if report.error}  # in the order in which they came
    if not failures:
        return [reports[i] for i in range(len(processes))]
    i, worst = min(failures.items(), key=lambda item: (item[1].code is None, item[1].died))
    if worst.code == INTERRUPTED:
        raise KeyboardInterrupt
    if worst.stopped is not None:
        raise signals.Stopped(worst.stopped)
    if worst.code is not None:
        raise UserError(worst.error)
    error = RuntimeError(f"process {i} failed")
    error.add_note(worst.error)
    raise error


def died(i: int, code: int | None) -> str:
    """The line about a process that ended without a report."""
    how = f"by signal {-code}" if code is not None and code < 0 else f"with exit code {code}"
    return (
        f"process {i} was ended {how}, perhaps for want of memory (trainer.devices=1 takes less); the same "
        "command goes on after the last whole epoch"
    )
