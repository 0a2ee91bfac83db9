from io import StringIO

import pytest
from rich.console import Console

from deconfuse.system import progress
from deconfuse.system.progress import bar, speaker, speaking


@pytest.fixture
def terminal(monkeypatch):
    """What the console would put on a terminal."""
    said = StringIO()
    console = Console(file=said, force_terminal=True, width=99, highlight=False, markup=False, soft_wrap=True)
    monkeypatch.setattr(progress, "console", console)
    monkeypatch.setenv("DECONFUSE_PROGRESS", "1")
    return said


def test_every_line_of_a_speaker_starts_with_its_name_and_no_bar_does(terminal):
    progress.console.print("before")
    with speaking("[1/2] seed=0"):
        assert speaker() == "[1/2] seed=0"
        with bar() as shown:
            task = shown.add_task("training", total=3, note="")
            progress.console.print("[a] line")
            shown.advance(task)
            shown.refresh()
        progress.console.print("another")
    progress.console.print("after")
    text = terminal.getvalue()
    assert "1/3" in text
    assert text.count("[1/2] seed=0: ") == 2
    assert "[1/2] seed=0: [a] line\n" in text
    assert "[1/2] seed=0: another\nafter\n" in text
    assert text.startswith("before\n")
    assert speaker() == ""


def test_the_name_is_gone_after_an_error(terminal):
    with pytest.raises(ZeroDivisionError), speaking("[1/2]"):
        raise ZeroDivisionError
    progress.console.print("after")
    assert terminal.getvalue() == "after\n"
    assert speaker() == ""


def test_inside_silence_nothing_is_said_and_no_bar_is_drawn(terminal):
    with progress.silence():
        progress.console.print("line")
        assert not progress.wanted()
        with progress.silence(False):
            progress.console.print("another")
        assert list(progress.track(range(3), "training", 3)) == [0, 1, 2]
    assert terminal.getvalue() == ""
    assert progress.wanted()
    with progress.silence(False):
        progress.console.print("said")
    assert "said" in terminal.getvalue()
