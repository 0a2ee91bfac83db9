import errno
import multiprocessing
import os
import signal
import threading
import time

import pytest

from deconfuse.system import lock
from deconfuse.system.errors import UserError
from deconfuse.system.lock import found_or_made, one_maker

FORK = multiprocessing.get_context("fork")


def started(target, *arguments):
    process = FORK.Process(target=target, args=arguments)
    process.start()
    return process


def add_ones(path, times):
    """Not safe without a lock: what is read may be old by the time it is written."""
    for _ in range(times):
        with one_maker(path):
            value = int(path.read_text())
            time.sleep(1e-4)
            path.write_text(str(value + 1))


def test_one_process_at_a_time_is_inside_though_every_holder_removes_the_file(tmp_path):
    path = tmp_path / "number"
    path.write_text("0")
    processes = [started(add_ones, path, 60) for _ in range(4)]
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * 4
    assert path.read_text() == "240"
    assert [file.name for file in tmp_path.iterdir()] == ["number"]


def test_what_several_processes_want_is_made_once(tmp_path):
    path, log = tmp_path / "made", tmp_path / "log"

    def find():
        return path.read_text() if path.exists() else None

    def make():
        with open(log, "a") as file:
            file.write("made\n")
        time.sleep(0.1)
        path.write_text("by one")
        return "by one"

    processes = [started(lambda: os._exit(found_or_made(path, find, make) != "by one")) for _ in range(4)]
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * 4
    assert log.read_text() == "made\n"


def test_what_is_there_is_found_without_a_lock(tmp_path, monkeypatch):
    monkeypatch.setattr(
        lock, "one_maker", lambda path: pytest.fail("a lock in a folder that may be read-only")
    )
    assert found_or_made(tmp_path / "x", lambda: 3, lambda: pytest.fail("made again")) == 3


def test_the_lock_of_a_process_killed_after_it_had_made_its_file_goes(tmp_path):
    path, place = tmp_path / "model.ckpt", tmp_path / ".model.ckpt.lock"
    place.write_text("process 1")
    assert found_or_made(path, lambda: 3, lambda: pytest.fail("made again")) == 3
    assert not place.exists()
    with one_maker(path):  # held by this process: another descriptor of the file can not take it
        assert found_or_made(path, lambda: 3, lambda: pytest.fail("made again")) == 3
        assert place.exists()


def hold(path, ready):
    with one_maker(path):
        ready.set()
        time.sleep(600)


def test_the_lock_of_a_killed_process_is_free(tmp_path):
    path, ready = tmp_path / "model.ckpt", FORK.Event()
    holder = started(hold, path, ready)
    assert ready.wait(20)
    assert (tmp_path / ".model.ckpt.lock").read_text() == f"process {holder.pid}"
    entered = threading.Event()

    def enter():
        with one_maker(path):
            entered.set()

    waiting = threading.Thread(target=enter)
    waiting.start()
    assert not entered.wait(0.3)
    os.kill(holder.pid, signal.SIGKILL)
    assert entered.wait(20)
    waiting.join()
    holder.join()
    assert not list(tmp_path.iterdir())


def test_the_one_who_waits_says_for_whom(tmp_path, monkeypatch):
    path, said = tmp_path / "model.ckpt", []
    monkeypatch.setattr(lock.console, "print", said.append)
    monkeypatch.setattr(lock, "speaker", lambda: "[1/2] seed=0")

    def enter():
        with one_maker(path):
            pass

    with one_maker(path):
        waiting = threading.Thread(target=enter)
        waiting.start()
        for _ in range(200):
            if said:
                break
            time.sleep(0.01)
    waiting.join()
    assert said == [f"waiting for process {os.getpid()}, [1/2] seed=0, which makes {path}"]


def test_a_process_forked_inside_keeps_no_lock(tmp_path):
    """Workers that load images are forked while a model is trained, and outlive the training."""
    path, said = tmp_path / "model.ckpt", FORK.Queue()

    def enter():
        with one_maker(path):
            said.put("entered")

    with one_maker(path):
        worker = started(time.sleep, 600)
        waiting = started(enter)
        time.sleep(0.3)  # until it waits for this file, which the holder removes
    assert said.get(timeout=20) == "entered"
    worker.kill()
    worker.join()
    waiting.join()


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_worked_on_without(tmp_path, monkeypatch, code):
    def refuse(*arguments):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("fcntl.flock", refuse)
    with one_maker(tmp_path / "x"):
        (tmp_path / "x").write_text("made")
    assert (tmp_path / "x").read_text() == "made"
    assert [file.name for file in tmp_path.iterdir()] == ["x"]


def test_a_block_inside_a_block_of_the_same_path_does_not_wait_for_itself(tmp_path):
    with (
        one_maker(tmp_path / "x"),
        pytest.raises(RuntimeError, match="already held"),
        one_maker(tmp_path / "x"),
    ):
        pass
    assert not list(tmp_path.iterdir())


def test_a_place_that_can_not_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(UserError, match=r"could not write .*file/x .*output_dir=FOLDER"),
        one_maker(tmp_path / "file" / "x"),
    ):
        pass


def test_an_error_inside_frees_the_lock(tmp_path):
    with pytest.raises(ZeroDivisionError), one_maker(tmp_path / "x"):
        raise ZeroDivisionError
    with one_maker(tmp_path / "x"):
        pass
    assert not list(tmp_path.iterdir())
