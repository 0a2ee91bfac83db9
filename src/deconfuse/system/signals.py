"""End a run on SIGTERM, and on SIGUSR1 under SLURM, as Ctrl-C ends it.

Whole files stay, a file that is being written is dropped, and the exit code is 0, as the same command goes
on with the run. With `#SBATCH --signal=USR1@60` and `#SBATCH --requeue` SLURM sends SIGUSR1 a minute before
a job's time is over, and the run then asks SLURM to start it again. It does not ask on SIGTERM, as scancel
sends that, too, and SLURM requeues a job that it preempts by itself.
"""

import os
import re
import signal
import subprocess

from deconfuse.system.progress import console

REQUEUE_SECONDS = 20  # in which SLURM has to answer


class Stopped(BaseException):
    """Raised in the main thread by a signal. No Exception, so that no handler of errors catches it."""

    def __init__(self, number: int):
        super().__init__(signal.Signals(number).name)
        self.number = number


def listen() -> None:
    """Let the signals raise Stopped from now on, once: a second one does not interrupt the cleaning up.

    Lightning adds its handler of SIGTERM to this one, and sets none for SIGUSR1 where there is one; its own
    would save weights from the middle of an epoch.
    """
    owner, stopped = os.getpid(), []

    def stop(number: int, frame: object) -> None:
        if os.getpid() != owner:  # a process forked from this one ends by the signal
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        elif not stopped:
            stopped.append(number)
            raise Stopped(number)

    signal.signal(signal.SIGTERM, stop)
    if "SLURM_JOB_ID" in os.environ:
        signal.signal(signal.SIGUSR1, stop)


def requeue(stopped: Stopped) -> int:
    """Ask SLURM to start the job again if SIGUSR1 stopped it; only the first of the job's processes asks.

    Returns the exit code: 0, or 1 if SLURM refuses.
    """
    if stopped.number != signal.SIGUSR1 or os.environ.get("SLURM_PROCID", "0") != "0":
        return 0
    array, job = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_JOB_ID", "")
    if array is not None:
        job = f"{array}_{os.environ.get('SLURM_ARRAY_TASK_ID', '')}"
    refused = _refused(job)
    console.print(f"error: not requeued: {refused}" if refused else f"requeued as job {job}")
    return 1 if refused else 0


def _refused(job: str) -> str:
    """Why SLURM did not requeue the job; empty if it did."""
    if not re.fullmatch(r"[0-9]+(_[0-9]+)?", job):
        return f"{job!r} is no number of a SLURM job"
    words = ["scontrol", "requeue", job]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=REQUEUE_SECONDS)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{' '.join(words)}: {error}"
    return f"{' '.join(words)}: {done.stderr.strip() or done.returncode}" if done.returncode else ""
