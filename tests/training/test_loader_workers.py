import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from deconfuse.system import signals
from deconfuse.system.errors import UserError
from deconfuse.training import loader_workers
from tests.conftest import ROOT


@pytest.fixture(autouse=True)
def ctrl_c_is_answered():
    """Also where the suite was started with SIGINT ignored, as shells start what runs in the background."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


class Slow(Dataset):
    """Item i is the number of the process that made it, after a moment; `kill` ends that process itself."""

    def __init__(self, kill=None):
        self.kill = kill

    def __len__(self):
        return 40

    def __getitem__(self, i):
        time.sleep(0.05)
        if i == 7 and self.kill is not None:
            os.kill(os.getpid(), self.kill)
        return os.getpid()


def loader(data):
    return DataLoader(data, batch_size=1, **loader_workers.settings(2))


def running(pid):
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("number", sorted(loader_workers.SIGNALS))
def test_a_worker_that_is_signalled_works_on(number):
    seen = []
    for batch in loader(Slow()):
        if len(seen) == 3:
            subprocess.run(["kill", f"-{int(number)}", *map(str, set(seen))], check=True)  # not its parent
        seen.append(int(batch))
    assert len(seen) == 40
    assert len(set(seen)) == 2


def test_no_worker_is_an_argument_less():
    assert loader_workers.settings(0) == {"num_workers": 0, "pin_memory": False}
    assert [int(batch) for batch in DataLoader(Slow(), **loader_workers.settings(0))] == [os.getpid()] * 40


def test_a_worker_ends_when_its_parent_asks_it_to():
    iterator = iter(loader(Slow()))
    pid = int(next(iterator))
    process = next(each for each in iterator._workers if each.pid == pid)
    process.terminate()
    process.join(10)
    assert process.exitcode == 0


def test_a_worker_that_is_killed_alone_is_one_line(monkeypatch):
    monkeypatch.setattr(loader_workers, "GRACE", 0.1)
    with pytest.raises(UserError, match=r"^a process that loads images was killed, .* num_workers=0"):
        list(loader_workers.batches(loader(Slow(kill=signal.SIGKILL))))


def test_a_worker_that_is_killed_before_this_process_is_told_to_stop_is_the_stop():
    signals.listen()
    main = os.getpid()
    killed = loader(Slow(kill=signal.SIGKILL))
    later = subprocess.Popen(["sh", "-c", f"sleep 1.5; kill -TERM {main}"])
    with pytest.raises(signals.Stopped, match="SIGTERM"):
        list(loader_workers.batches(killed))
    later.wait()


@pytest.mark.parametrize("met", [KeyboardInterrupt(), signals.Stopped(signal.SIGTERM)])
@pytest.mark.parametrize(
    "text",
    [
        "DataLoader worker (pid 7) is killed by signal: Terminated. ",
        "Please call `iter(combined_loader)` first.",  # Lightning's teardown of loaders that were not made
    ],
)
def test_an_error_while_a_stop_cleans_up_is_the_stop(met, text):
    def cleaning_up():
        try:
            raise met
        finally:
            raise RuntimeError(text)

    with pytest.raises(type(met)), loader_workers.looked_after():
        cleaning_up()


def test_shared_memory_and_other_errors_are_told_apart(monkeypatch):
    monkeypatch.setattr(loader_workers, "GRACE", 0.0)
    text = "DataLoader worker (pid 7) is killed by signal: Bus error. It is possible that ... shared memory"
    with pytest.raises(UserError, match="out of shared memory; num_workers=0"), loader_workers.looked_after():
        raise RuntimeError(text)
    with pytest.raises(RuntimeError, match=r"^CUDA$"), loader_workers.looked_after():
        raise RuntimeError("CUDA")
    with pytest.raises(FileNotFoundError), loader_workers.looked_after():
        raise FileNotFoundError("an image")


FORKED = []  # what this process does after it has forked another
os.register_at_fork(after_in_parent=lambda: [act() for act in FORKED])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_that_comes_while_a_worker_is_forked_is_not_lost(number):
    """Python drops what a handler raises there, and another thread may take a signal that this one blocks."""
    signals.listen()

    def taken():
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
        signal.raise_signal(number)

    def act():
        FORKED.clear()
        thread = threading.Thread(target=taken)
        thread.start()
        thread.join()

    before = {each: signal.getsignal(each) for each in loader_workers.SIGNALS}
    FORKED.append(act)
    with pytest.raises((signals.Stopped, KeyboardInterrupt)):
        list(loader(Slow()))
    assert not FORKED
    assert {each: signal.getsignal(each) for each in loader_workers.SIGNALS} == before


def test_workers_end_with_a_parent_that_is_killed(tmp_path):
    code = (
        "import time\nfrom tests.training.test_loader_workers import Slow, loader\n"
        "for batch in loader(Slow()):\n    print(int(batch), flush=True)\n    time.sleep(0.3)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    seen = {int(parent.stdout.readline()) for _ in range(2)}
    parent.kill()
    parent.wait()
    parent.stdout.close()
    until = time.monotonic() + 4  # before torch's own watch of 5 s
    while any(map(running, seen)) and time.monotonic() < until:
        time.sleep(0.05)
    assert not any(map(running, seen))


def of_session(session):
    """The live processes of a session."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            fields = (path / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == session and fields[0] != "Z":
            found.append(int(path.name))
    return found


WORDS = ["dataset.classes=8", "recipe.epochs=2", "num_workers=2", "report=false"]
TWO = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2"]


def start(folder, more):
    """A run into the folder, as the leader of a session of its own; what it says goes to a log beside it."""
    command = [sys.executable, "-m", "src.run", *WORDS, *more, f"output_dir={folder}"]
    own = {**os.environ, "OMP_NUM_THREADS": "1"}
    with folder.with_suffix(".log").open("a") as said:  # the process has the file open for itself
        return subprocess.Popen(command, cwd=ROOT, stdout=said, stderr=said, env=own, start_new_session=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "code", "phase", "more", "again"),
    [
        (signal.SIGTERM, 0, "training", (), False),
        (signal.SIGINT, 130, "training", (), False),
        (signal.SIGTERM, 0, "features", (), False),
        (signal.SIGTERM, 0, "training", tuple(TWO), True),
    ],
)
def test_a_run_whose_processes_are_all_signalled_says_one_line_and_goes_on(
    tmp_path, number, code, phase, more, again
):
    """again: the same command is given once more, and ends as one that nothing stopped."""
    out, log = tmp_path / "cut", tmp_path / "cut.log"

    def due(process):
        trained = "trained " in log.read_text()
        return len(of_session(process.pid)) >= (7 if more else 3) and trained == (phase == "features")

    cut = start(out, more)
    until = time.monotonic() + 200
    while not due(cut) and cut.poll() is None and time.monotonic() < until:
        time.sleep(0.02)
    everyone = of_session(cut.pid)
    random.Random(int(number)).shuffle(everyone)
    for pid in everyone:
        if running(pid):
            os.kill(pid, number)
    assert cut.wait(120) == code
    text = log.read_text()
    assert "Traceback" not in text
    assert "Error" not in text
    assert re.search(
        r"\n(stopped by SIGTERM|interrupted); the same command goes on after the last whole epoch", text
    )
    time.sleep(2 * loader_workers.WATCHED_EVERY)
    assert of_session(cut.pid) == []
    if not again:  # one process is seen to go on in tests/test_run.py
        return
    whole = tmp_path / "whole"
    assert [start(folder, more).wait(500) for folder in (out, whole)] == [0, 0]
    for name in ("model.ckpt", "history.csv", "confusions.csv", "samples.csv", "relabels.csv"):
        (one,), (other,) = (list(folder.rglob(name)) for folder in (out, whole))
        if name == "model.ckpt":
            one, other = (torch.load(path, weights_only=True) for path in (one, other))
            assert one.keys() == other.keys()
            assert all(torch.equal(one[key], other[key]) for key in one if isinstance(one[key], torch.Tensor))
        else:
            assert one.read_bytes() == other.read_bytes(), name


@pytest.mark.parametrize(
    ("cores", "quick", "beside", "want"),
    [
        (2, False, 1, 0),
        (4, False, 1, 2),
        (16, False, 1, 4),
        (16, False, 4, 2),
        (16, True, 1, 0),
        (3, False, 2, 0),
    ],
)
def test_auto_takes_one_process_for_two_cores_and_none_where_it_would_not_pay(
    monkeypatch, cores, quick, beside, want
):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)))
    assert loader_workers.number("auto", quick, beside) == want
    assert loader_workers.number(3, quick, beside) == 3


def test_workers_are_kept_and_batches_pinned_where_asked():
    made = loader_workers.settings(2, pinned=True)
    assert (made["num_workers"], made["persistent_workers"], made["pin_memory"]) == (2, True, True)
