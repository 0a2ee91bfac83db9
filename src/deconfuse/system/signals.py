"""SIGTERM, and the signal by which SLURM announces the end of a job's time, end a run as Ctrl-C does.

What is whole on disk stays, what is being written is dropped, and the exit code is 0: the run is not over,
and the same command goes on. Under SLURM, `#SBATCH --signal=USR1@60` and `#SBATCH --requeue` give it again:
SIGUSR1 asks SLURM to. SIGTERM does not, as scancel sends it too; SLURM requeues by itself what it preempts.
"""

import os
import re
import signal
import subprocess

from deconfuse.system.progress import console

REQUEUE_SECONDS = 20  # that SLURM has to answer


class Stopped(BaseException):
    """Raised in the main thread by a signal; no Exception, so that nothing takes it for an error."""

    def __init__(self, number: int):
        super().__init__(signal.Signals(number).name)
        self.number = number


def listen() -> None:
    """From now on the signals raise Stopped, once: a second one does not cut the cleaning up short.

    Lightning adds its own handler of SIGTERM to one that is there, and leaves a SIGUSR1 that has one alone;
    its own would keep weights from the middle of an epoch.
    """
    owner, stopped = os.getpid(), []

    def stop(number: int, frame: object) -> None:
        if os.getpid() != owner:  # a process forked from this one dies of it, as any would
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        elif not stopped:
            stopped.append(number)
            raise Stopped(number)

    signal.signal(signal.SIGTERM, stop)
    if "SLURM_JOB_ID" in os.environ:
        signal.signal(signal.SIGUSR1, stop)


def requeue(stopped: Stopped) -> int:
    """Ask SLURM to start the job again where its signal stopped it, in the first of the job's processes.

    Returns the exit code: 0, or 1 where SLURM would not.
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
    """Why SLURM did not take the job back; empty where it did."""
    if not re.fullmatch(r"[0-9]+(_[0-9]+)?", job):
        return f"{job!r} is no number of a SLURM job"
    words = ["scontrol", "requeue", job]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=REQUEUE_SECONDS)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{' '.join(words)}: {error}"
    return f"{' '.join(words)}: {done.stderr.strip() or done.returncode}" if done.returncode else ""
