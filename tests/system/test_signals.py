import os
import signal
import time

import pytest

from deconfuse.launch import command_line
from deconfuse.system import signals


@pytest.fixture(autouse=True)
def no_slurm(monkeypatch):
    """As if SLURM had not started the tests."""
    for name in list(os.environ):
        if name.startswith("SLURM_"):
            monkeypatch.delenv(name)


def test_the_first_signal_stops_and_a_second_does_not_stop_the_cleaning_up():
    signals.listen()
    cleaned = []

    def work():
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            signal.raise_signal(signal.SIGTERM)
            cleaned.append(True)

    with pytest.raises(signals.Stopped, match=r"^SIGTERM$"):
        work()
    assert cleaned == [True]


def test_it_is_no_error_and_the_line_says_how_to_go_on():
    assert not issubclass(signals.Stopped, Exception)
    assert command_line.explain(signals.Stopped(signal.SIGTERM), []) == (
        "\nstopped by SIGTERM; the same command goes on after the last whole epoch",
        0,
    )


def test_a_process_forked_from_the_one_that_listens_dies_of_the_signal():
    signals.listen()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writer, b"1")  # Python forgets a signal that comes while it is still forking
        time.sleep(60)
        os._exit(3)
    assert os.read(reader, 1) == b"1"
    os.kill(child, signal.SIGTERM)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGTERM


def test_slurms_announcement_stops_under_slurm_alone(monkeypatch):
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    signals.listen()
    signal.raise_signal(signal.SIGUSR1)
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    signals.listen()
    with pytest.raises(signals.Stopped, match=r"^SIGUSR1$"):
        signal.raise_signal(signal.SIGUSR1)


@pytest.fixture
def scontrol(tmp_path, monkeypatch):
    """A made-up scontrol that notes what it is asked."""
    asked = tmp_path / "asked"
    asked.write_text("")

    def make(code):
        script = tmp_path / "scontrol"
        script.write_text(f'#!/bin/sh\necho "$@" >> {asked}\necho no such job >&2\nexit {code}\n')
        script.chmod(0o755)
        return asked

    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return make


@pytest.mark.parametrize(
    ("number", "settings", "asked", "code"),
    [
        (signal.SIGTERM, {"SLURM_JOB_ID": "41"}, "", 0),
        (signal.SIGUSR1, {"SLURM_JOB_ID": "41"}, "requeue 41\n", 0),
        (signal.SIGUSR1, {"SLURM_JOB_ID": "41", "SLURM_PROCID": "0"}, "requeue 41\n", 0),
        (signal.SIGUSR1, {"SLURM_JOB_ID": "41", "SLURM_PROCID": "1"}, "", 0),
        (
            signal.SIGUSR1,
            {"SLURM_JOB_ID": "43", "SLURM_ARRAY_JOB_ID": "41", "SLURM_ARRAY_TASK_ID": "2"},
            "requeue 41_2\n",
            0,
        ),
        (signal.SIGUSR1, {"SLURM_JOB_ID": "41; rm -r x"}, "", 1),
    ],
)
def test_the_job_is_requeued_once_by_slurms_signal(scontrol, monkeypatch, number, settings, asked, code):
    notes = scontrol(0)
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    assert signals.requeue(signals.Stopped(number)) == code
    assert notes.read_text() == asked


def test_a_slurm_that_does_not_requeue_is_told(scontrol, monkeypatch, capsys):
    monkeypatch.setenv("SLURM_JOB_ID", "41")
    scontrol(1)
    assert signals.requeue(signals.Stopped(signal.SIGUSR1)) == 1
    assert capsys.readouterr().err == "error: not requeued: scontrol requeue 41: no such job\n"
    monkeypatch.setenv("PATH", "/nowhere")
    assert signals.requeue(signals.Stopped(signal.SIGUSR1)) == 1
    assert "not requeued: scontrol requeue 41: [Errno 2]" in capsys.readouterr().err
