import errno
import json
import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

from deconfuse.system import files
from deconfuse.system.arrays import read_arrays, scratch
from deconfuse.system.errors import UserError
from deconfuse.system.files import file_hash, read_json, short_hash, whole_file, whole_folder, write_json
from deconfuse.system.lock import one_maker

ROOT = Path(__file__).parents[1]


class Stop(Exception):
    pass


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def tree(folder):
    """Relative path -> bytes of everything below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def dead_pid():
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


# --- whole_file


def test_a_file_appears_when_its_block_ends(tmp_path):
    path = tmp_path / "deep" / "er" / "x.txt"
    with whole_file(path) as partial:
        partial.write_text("new")
        assert not path.exists()
        assert partial.parent == path.parent
    assert names(path.parent) == ["x.txt"]
    assert path.read_text() == "new"


def test_a_file_is_replaced_in_one_step(tmp_path):
    path = tmp_path / "x.txt"
    path.write_text("old")
    with open(path) as reader, whole_file(path) as partial:
        partial.write_text("new")
        assert path.read_text() == "old"
        assert reader.read() == "old"
    assert path.read_text() == "new"
    assert names(tmp_path) == ["x.txt"]


@pytest.mark.parametrize("old", ["old", None])
@pytest.mark.parametrize("error", [Stop, KeyboardInterrupt, UserError])
def test_an_exception_leaves_the_old_file_and_nothing_else(tmp_path, old, error):
    path = tmp_path / "x.txt"
    if old:
        path.write_text(old)

    def write():
        with whole_file(path) as partial:
            partial.write_text("half")
            raise error("stop")

    with pytest.raises(error, match="stop"):
        write()
    assert names(tmp_path) == (["x.txt"] if old else [])
    assert not old or path.read_text() == old


def test_nothing_written_is_an_error_and_no_file(tmp_path):
    path = tmp_path / "x.txt"
    with pytest.raises(UserError, match=rf"^could not write {path} \("), whole_file(path):
        pass
    assert names(tmp_path) == []


@pytest.mark.parametrize("whole", [whole_file, whole_folder])
def test_a_file_in_place_of_the_folder_is_told_in_a_line(tmp_path, whole):
    (tmp_path / "file").write_text("I was here")
    path = tmp_path / "file" / "sub" / "x"
    with pytest.raises(UserError) as caught, whole(path):
        pytest.fail("the block must not begin")
    assert str(caught.value) == (
        f"could not write {path} (Not a directory); nothing there was changed; "
        "free some space, or choose another place with output_dir=FOLDER"
    )
    assert tree(tmp_path) == {"file": b"I was here"}


def enter(context):
    with context:
        pytest.fail("the block must not begin")


@pytest.mark.parametrize(
    "write",
    [
        lambda path: write_json(path, {}),
        lambda path: enter(whole_folder(path)),
        lambda path: enter(one_maker(path)),
        lambda path: scratch(path, (2,), np.dtype(np.float32)),
    ],
)
def test_a_place_that_lets_nobody_write_is_told_in_a_line(write):
    """Not even root; the permissions of a folder would not stop it."""
    path = Path("/proc/deconfuse/x")
    with pytest.raises(UserError, match=rf"^could not write {path} .*choose another place with output_dir="):
        write(path)


# --- whole_folder


def test_a_folder_appears_when_its_block_ends(tmp_path):
    path = tmp_path / "deep" / "run"
    with whole_folder(path) as partial:
        (partial / "a.txt").write_text("new")
        assert not path.exists()
    assert names(path.parent) == ["run"]
    assert tree(path) == {"a.txt": b"new"}


def test_a_folder_is_replaced_as_a_whole(tmp_path):
    path = tmp_path / "run"
    path.mkdir()
    (path / "old.txt").write_text("old")
    with whole_folder(path) as partial:
        (partial / "sub").mkdir()
        (partial / "sub" / "new.txt").write_text("new")
        assert tree(path) == {"old.txt": b"old"}
    assert names(tmp_path) == ["run"]
    assert tree(path) == {"sub/new.txt": b"new"}


@pytest.mark.parametrize("old", [True, False])
@pytest.mark.parametrize("error", [Stop, KeyboardInterrupt, UserError])
def test_an_exception_leaves_the_old_folder_and_nothing_else(tmp_path, old, error):
    path = tmp_path / "run"
    if old:
        path.mkdir()
        (path / "old.txt").write_text("old")

    def write():
        with whole_folder(path) as partial:
            (partial / "sub").mkdir()
            (partial / "sub" / "half.txt").write_text("half")
            raise error("stop")

    with pytest.raises(error, match="stop"):
        write()
    assert names(tmp_path) == (["run"] if old else [])
    assert not old or tree(path) == {"old.txt": b"old"}


def test_a_folder_can_be_written_twice_in_a_row(tmp_path):
    for text in ("one", "two", "three"):
        with whole_folder(tmp_path / "run") as partial:
            (partial / "a.txt").write_text(text)
    assert tree(tmp_path) == {"run/a.txt": b"three"}


def left(folder, pid, machine=None, name="run"):
    """What a process that was killed while it wrote `name` leaves."""
    half = folder / f".{name}.{machine or files._machine()}.{pid}.partial"
    half.mkdir()
    (half / "half.txt").write_text("half")
    return half


def write_a_folder(path):
    with whole_folder(path) as partial:
        (partial / "a.txt").write_text("new")


def write_a_file(path):
    with whole_file(path) as partial:
        partial.write_text("new")


@pytest.mark.parametrize("write", [write_a_folder, write_a_file])
def test_what_dead_processes_left_is_cleaned_and_what_living_ones_write_is_not(tmp_path, write):
    left(tmp_path, dead_pid())
    left(tmp_path, dead_pid(), name="another")
    (tmp_path / f".x.csv.{files._machine()}.{dead_pid()}.partial").write_text("half")
    alive = [left(tmp_path, os.getppid()), left(tmp_path, os.getpid(), name="by another thread")]
    write(tmp_path / "run")
    assert names(tmp_path) == sorted([*(folder.name for folder in alive), "run"])


def test_what_another_machine_began_is_left_for_a_day(tmp_path):
    fresh, old = (left(tmp_path, dead_pid(), machine=name) for name in ("abc123", "def456"))
    for path, hours in ((fresh, 23.9), (old, 24.1)):
        when = time.time() - 3600 * hours
        os.utime(path, (when, when))
    write_a_file(tmp_path / "x")
    assert names(tmp_path) == [fresh.name, "x"]


def test_what_other_programs_call_partial_is_let_be_however_old_it_is(tmp_path):
    others = [".x.csv.123.partial", ".partial", ".film.mkv.partial", ".abc123.7.partial"]
    others += [".x.ABC123.7.partial", ".x.abc123.7a.partial", "x.abc123.7.partial", ".x.abcdef0.7.partial"]
    for name in others:
        (tmp_path / name).write_text("half")
        os.utime(tmp_path / name, (0, 0))
    write_a_file(tmp_path / "x")
    assert names(tmp_path) == sorted([*others, "x"])


# --- disk


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), True),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), True),
        (OSError("4001 requested and 608 written"), True),  # numpy's
        (OSError(errno.EROFS, "Read-only file system", "/out/run/.x.partial"), True),
        (PermissionError(errno.EACCES, "Permission denied", "/out"), True),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", b"/out/run/x.csv"), True),
        (OSError(errno.EPERM, "Operation not permitted", "/photos/1.jpg", None, "/out/run/1.jpg"), True),
        (PermissionError(errno.EACCES, "Permission denied"), False),  # of a semaphore
        (PermissionError(errno.EACCES, "Permission denied", "/photos/1.jpg"), False),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "nvcc"), False),
        (BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable"), False),  # a fork
        (OSError(errno.ENOMEM, "Cannot allocate memory"), False),
        (OSError(errno.EMFILE, "Too many open files", "/out/run/x.csv"), False),
        (ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"), False),
        (TimeoutError("no answer"), False),
    ],
)
def test_only_an_error_of_writing_there_says_so(error, told):
    def fail():
        with files.disk(Path("/out/run")):
            raise error

    with pytest.raises(UserError if told else type(error)) as caught:
        fail()
    if told:
        said = error.strerror or error
        assert str(caught.value).startswith(f"could not write /out/run ({said}); nothing there was changed")
        assert caught.value.__cause__ is error
    else:
        assert caught.value is error


def test_what_can_not_be_removed_is_let_be(tmp_path, monkeypatch):
    half = left(tmp_path, dead_pid())

    def refuse(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(files.shutil, "rmtree", refuse)
    write_a_file(tmp_path / "x")
    assert names(tmp_path) == [half.name, "x"]
    files.tidy(tmp_path / "nowhere")


def test_what_a_killed_process_of_the_same_number_left_is_cleaned(tmp_path):
    # In containers every run is process 1, or 7: what it left bears the number of the one that goes on.
    left(tmp_path, os.getpid())
    write_a_folder(tmp_path / "run")
    assert tree(tmp_path) == {"run/a.txt": b"new"}


def killed_while_exchanging(path):
    """What is on disk if a process dies after it moved the old folder away."""
    path.with_name(f".{path.name}.before").mkdir()
    (path.with_name(f".{path.name}.before") / "old.txt").write_text("old")
    left(path.parent, dead_pid())


def test_the_folder_from_before_a_kill_is_put_back(tmp_path):
    path = tmp_path / "run"
    killed_while_exchanging(path)
    seen = {}

    def write():
        with whole_folder(path):
            seen.update(tree(path))
            raise Stop

    with pytest.raises(Stop):
        write()
    assert seen == {"old.txt": b"old"}
    assert tree(tmp_path) == {"run/old.txt": b"old"}


def test_the_folder_from_before_a_kill_is_replaced_in_the_end(tmp_path):
    path = tmp_path / "run"
    killed_while_exchanging(path)
    with whole_folder(path) as partial:
        (partial / "a.txt").write_text("newer")
    assert tree(tmp_path) == {"run/a.txt": b"newer"}


def test_the_folder_from_before_goes_where_the_new_one_was_already_in_place(tmp_path):
    path = tmp_path / "run"
    killed_while_exchanging(path)
    path.mkdir()
    (path / "new.txt").write_text("new")
    with pytest.raises(Stop), whole_folder(path):
        raise Stop
    assert tree(path) == {"new.txt": b"new"}
    with whole_folder(path) as partial:
        (partial / "a.txt").write_text("newer")
    assert tree(tmp_path) == {"run/a.txt": b"newer"}


def test_an_exchange_that_fails_puts_the_old_folder_back(tmp_path, monkeypatch):
    path = tmp_path / "run"
    path.mkdir()
    (path / "old.txt").write_text("old")
    rename = Path.rename

    def refuse(self, target):
        if self.name.endswith(".partial"):
            raise OSError(5, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refuse)
    with (
        pytest.raises(UserError, match=r"\(Input/output error\); nothing there was changed"),
        whole_folder(path) as partial,
    ):
        (partial / "new.txt").write_text("new")
    assert tree(tmp_path) == {"run/old.txt": b"old"}


FULL_DISK = """
    import resource, signal, sys
    from pathlib import Path
    import numpy as np, pandas as pd
    from deconfuse.system.arrays import write_array, write_arrays
    from deconfuse.system.files import whole_folder, write_json
    from deconfuse.system.csv_files import write_csv
    from deconfuse.system.errors import UserError

    folder = Path(sys.argv[1])
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
    values = np.random.default_rng(0).random(4001)

    def folder_of_tables(path):
        with whole_folder(path) as partial:
            write_json(partial / "small.json", [1])
            write_array(partial / "x.npy", values)

    for write, name in (
        (lambda path: write_json(path, values.tolist()), "x.json"),
        (lambda path: write_csv(path, pd.DataFrame({"a": values})), "x.csv"),
        (lambda path: write_array(path, values), "x.npy"),
        (lambda path: write_arrays(path, a=values), "x.npz"),
        (folder_of_tables, "run"),
    ):
        try:
            write(folder / name)
            print("written")
        except UserError as error:
            print(error)
"""


def test_a_full_disk_is_told_in_a_line_and_leaves_everything_as_it_was(tmp_path):
    (tmp_path / "x.npy").write_text("old")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "old.txt").write_text("old")
    command = [sys.executable, "-c", textwrap.dedent(FULL_DISK), str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert len(lines) == 5
    for line, name in zip(lines, ["x.json", "x.csv", "x.npy", "x.npz", "run"], strict=True):
        assert line.startswith(f"could not write {tmp_path}/")
        assert name in line
        assert "; nothing there was changed; free some space" in line
    assert tree(tmp_path) == {"x.npy": b"old", "run/old.txt": b"old"}
    assert names(tmp_path) == ["run", "x.npy"]


# --- JSON


def test_json_is_indented_in_the_order_given_with_nan_as_null(tmp_path):
    value = {
        "z": float("nan"),
        "a": [np.float32(0.5), np.int64(3), np.bool_(True), np.float64("inf"), -np.inf],
        3: (None, "Μ а é"),
        "deep": {"x": {"y": [np.nan, 1.5]}},
    }
    write_json(tmp_path / "x.json", value)
    text = (tmp_path / "x.json").read_bytes().decode("utf-8")
    assert "NaN" not in text
    assert '  "a": [\n' in text
    assert "Μ а é" in text
    assert text.endswith("}\n")
    back = read_json(tmp_path / "x.json")
    assert back == {
        "z": None,
        "a": [0.5, 3, True, None, None],
        "3": [None, "Μ а é"],
        "deep": {"x": {"y": [None, 1.5]}},
    }
    assert list(back) == ["z", "a", "3", "deep"]
    assert back["a"][2] is True


def test_what_json_cannot_hold_leaves_no_file(tmp_path):
    with pytest.raises(TypeError):
        write_json(tmp_path / "x.json", {"a": object()})
    assert names(tmp_path) == []


def test_json_is_utf8_whatever_the_locale(tmp_path):
    code = "import sys; from pathlib import Path; from deconfuse.system.files import read_json, write_json; "
    code += "path = Path(sys.argv[1]); write_json(path, '\\u039c'); assert read_json(path) == '\\u039c'"
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "x.json")],
        cwd=ROOT,
        env={**os.environ, "LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "x.json").read_bytes() == '"Μ"\n'.encode()


@pytest.mark.parametrize("size", [0, 1, 20, 41])
def test_truncated_json_is_named_with_the_fix(tmp_path, size):
    path = tmp_path / "metrics.json"
    write_json(path, {"retrieval": {"R@1": 0.5}, "n": 3})
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(UserError, match=rf"^{path}: not whole \(.*\); delete it and run again$"):
        read_json(path)


def test_json_that_is_no_text_is_named(tmp_path):
    path = tmp_path / "metrics.json"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match=rf"^{path}: not whole \("):
        read_json(path)


@pytest.mark.parametrize("read", [read_json, read_arrays])
def test_a_missing_file_is_named(tmp_path, read):
    with pytest.raises(UserError) as caught:
        read(tmp_path / "gone")
    assert str(caught.value) == f"{tmp_path}/gone: no such file"


# --- hashes


def test_short_hash_does_not_depend_on_the_order_of_keys():
    one = {"a": 1, "b": {"x": [1, 2], "y": None}}
    two = {"b": {"y": None, "x": [1, 2]}, "a": 1}
    assert short_hash(one) == short_hash(two)
    assert len(short_hash(one)) == 8
    assert short_hash(one, 20).startswith(short_hash(one))


@pytest.mark.parametrize(
    "other", [{"a": 2}, {"a": "1"}, {"a": 1.5}, {"a": True}, {"b": 1}, {"a": [1]}, {"a": 1, "b": None}]
)
def test_short_hash_tells_other_values_apart(other):
    assert short_hash({"a": 1}) != short_hash(other)


def test_short_hash_minds_the_order_of_lists():
    assert short_hash([1, 2]) != short_hash([2, 1])


def test_short_hash_is_the_same_in_every_process():
    import hashlib

    text = json.dumps({"a": "Μ", "b": [1, None]}, ensure_ascii=False).encode()
    assert short_hash({"b": [1, None], "a": "Μ"}, 64) == hashlib.sha256(text).hexdigest()


def test_file_hash_is_the_files_sha256(tmp_path):
    (tmp_path / "x").write_bytes(b"abc")
    assert file_hash(tmp_path / "x") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
