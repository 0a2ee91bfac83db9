import errno
import mmap
import os

import numpy as np
import pytest

from deconfuse.system.arrays import (
    add_array,
    add_rows,
    growing_arrays,
    let_go,
    map_arrays,
    read_arrays,
    scratch,
    write_array,
    write_arrays,
)
from deconfuse.system.errors import UserError

ROWS = np.random.default_rng(2).normal(size=(23, 5)).astype(np.float32)


def grown(path, rows=ROWS, **more):
    with growing_arrays(path) as file:
        add_array(file, "checkpoint", np.array("abc"))
        add_rows(file, "train", len(rows), (rows[i : i + 4] for i in range(0, len(rows), 4)))
        for name, value in more.items():
            add_rows(file, name, len(value), [value])
    return path


def test_arrays_that_grew_are_those_of_savez_and_are_mapped(tmp_path):
    path = grown(tmp_path / "x.npz", query=ROWS[:, 0].astype(np.float64))
    with np.load(path) as file:
        assert file.files == ["checkpoint", "train", "query"]
        assert np.array_equal(file["train"], ROWS)
    found = map_arrays(path)
    assert str(found["checkpoint"]) == "abc"
    for name, want in (("train", ROWS), ("query", ROWS[:, 0].astype(np.float64))):
        assert isinstance(found[name].base, np.memmap | mmap.mmap)
        assert found[name].ctypes.data % 64 == 0
        assert found[name].dtype == want.dtype
        assert np.array_equal(found[name], want)
    found["train"][0] = 7  # a copy on write: the file stays as it was
    assert np.array_equal(map_arrays(path)["train"], ROWS)
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_what_numpy_wrote_is_mapped_or_read(tmp_path, save):
    odd = {
        "a": ROWS,
        "f": np.asfortranarray(ROWS),
        "none": ROWS[:0],
        "word": np.array("x"),
        "s": ROWS.astype(str),
    }
    save(tmp_path / "x.npz", **odd)
    found = map_arrays(tmp_path / "x.npz")
    assert found.keys() == odd.keys()
    for name, want in odd.items():
        assert np.array_equal(found[name], want)
        assert found[name].dtype == want.dtype


def test_a_byte_that_changed_is_found_before_anything_is_mapped(tmp_path):
    path = grown(tmp_path / "x.npz")
    whole = path.read_bytes()
    at = whole.index(ROWS[11].tobytes())
    path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
    with pytest.raises(UserError, match=r"x\.npz: not whole \(Bad CRC-32"):
        map_arrays(path)
    path.write_bytes(whole[:-9])
    with pytest.raises(UserError, match=r"x\.npz: not whole \(.*zip"):
        map_arrays(path)
    with pytest.raises(UserError, match=r"none\.npz: no such file"):
        map_arrays(tmp_path / "none.npz")


@pytest.mark.parametrize("batches", [[], [ROWS[:22]], [ROWS, ROWS[:1]]])
def test_rows_that_are_not_as_many_as_announced_leave_no_file(tmp_path, batches):
    with (
        pytest.raises(ValueError, match=r"train has \d+ rows where 23 were announced"),
        growing_arrays(tmp_path / "x.npz") as file,
    ):
        add_rows(file, "train", 23, iter(batches))
    assert not list(tmp_path.iterdir())


def test_scratch_lies_on_the_disk_without_a_name_and_is_zero(tmp_path):
    held = scratch(tmp_path / "new", (3, 7), np.float32)
    assert isinstance(held, np.memmap)
    assert held.sum() == 0
    held[1] = 2
    assert held.sum() == 14
    assert not list((tmp_path / "new").iterdir())


def test_a_full_disk_is_said_before_scratch_is_used(tmp_path, monkeypatch):
    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(UserError, match=r"could not write .* \(No space left on device\); .*output_dir="):
        scratch(tmp_path, (3, 7), np.float32)


def test_memory_that_was_let_go_is_read_again(tmp_path):
    array = map_arrays(grown(tmp_path / "x.npz"))["train"]
    assert np.array_equal(array, ROWS)
    array[3] = 5
    let_go(array.ctypes.data)
    assert np.array_equal(array, ROWS)  # the copy is gone, so its page was given back
    own = ROWS.copy()
    let_go(own.ctypes.data)
    assert np.array_equal(own, ROWS)


# --- whole arrays


ARRAYS = {
    "phi": np.arange(23 * 7, dtype=np.float32).reshape(23, 7) / 3,
    "labels": np.arange(23),
    "none": np.zeros((0, 7)),
    "flag": np.array([True, False]),
}


def test_arrays_come_back_with_their_types_and_shapes(tmp_path):
    path = tmp_path / "features.npz"
    write_arrays(path, **ARRAYS)
    back = read_arrays(path)
    assert list(back) == list(ARRAYS)
    for name, array in ARRAYS.items():
        assert back[name].dtype == array.dtype
        np.testing.assert_array_equal(back[name], array)
    assert [path.name for path in tmp_path.iterdir()] == ["features.npz"]


def test_one_array_is_an_npy_file_of_that_name(tmp_path):
    write_array(tmp_path / "influence.npy", ARRAYS["phi"])
    back = np.load(tmp_path / "influence.npy")
    assert back.dtype == np.float32
    np.testing.assert_array_equal(back, ARRAYS["phi"])


@pytest.mark.parametrize("share", [0, 0.01, 0.3, 0.6, 0.95, 0.999])
def test_truncated_arrays_are_named_with_the_fix(tmp_path, share):
    path = tmp_path / "features.npz"
    write_arrays(path, **ARRAYS)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(UserError) as caught:
        read_arrays(path)
    assert str(caught.value).startswith(f"{path}: not whole (")
    assert str(caught.value).endswith("); delete it and run again")


def test_a_changed_byte_in_an_array_is_noticed(tmp_path):
    path = tmp_path / "features.npz"
    write_arrays(path, **ARRAYS)
    data = bytearray(path.read_bytes())
    data[300] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match=rf"^{path}: not whole \("):
        read_arrays(path)


def test_pickles_are_neither_written_nor_read(tmp_path):
    with pytest.raises(ValueError, match="pickle"):
        write_array(tmp_path / "x.npy", np.array([{}], dtype=object))
    assert list(tmp_path.iterdir()) == []
    np.savez(tmp_path / "x.npz", a=np.array([{}], dtype=object))
    with pytest.raises(UserError, match=r"x\.npz: not whole \("):
        read_arrays(tmp_path / "x.npz")
