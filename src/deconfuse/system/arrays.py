"""Arrays that need not be in memory: written batch by batch, mapped from their file, or in a scratch file."""

import mmap
import os
import struct
import tempfile
import weakref
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import numpy as np

from deconfuse.system.errors import UserError
from deconfuse.system.files import disk, version, whole_file

ALIGNED = 64  # bytes: a mapped array starts at a multiple, so that processors read whole words
READ_BYTES = 2**24  # how much of a file is read at once

# The mapped files, by the address of their array.
_mapped: weakref.WeakValueDictionary[int, mmap.mmap] = weakref.WeakValueDictionary()


def write_array(path: Path, array: np.ndarray) -> None:
    """Write one .npy file."""
    with whole_file(path) as partial, open(partial, "wb") as file:
        np.save(file, array, allow_pickle=False)


def write_arrays(path: Path, **arrays: np.ndarray) -> None:
    """Write one .npz file."""
    with whole_file(path) as partial, open(partial, "wb") as file:
        np.savez(file, **arrays)


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Read the file; raises UserError, naming it, if it is missing or damaged."""
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
            return {key: arrays[key] for key in arrays.files}
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except Exception as error:  # zip, zlib and numpy raise errors of their own for a damaged file
        raise UserError(f"{path}: not whole ({error}); delete it and run again") from None


@contextmanager
def growing_arrays(path: Path) -> Iterator[zipfile.ZipFile]:
    """Yield an .npz file, to which `add_array` and `add_rows` write array by array, as numpy.savez does."""
    with whole_file(path) as partial, zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as file:
        yield file


def add_array(file: zipfile.ZipFile, name: str, array: np.ndarray) -> None:
    """Write an array that is in memory."""
    with _member(file, name) as member:
        np.lib.format.write_array(member, np.asanyarray(array), allow_pickle=False)


def add_rows(file: zipfile.ZipFile, name: str, n: int, batches: Iterable[np.ndarray]) -> None:
    """Write an array of n rows that come batch by batch, so that it is never in memory as a whole.

    numpy's open_memmap is not used: writing through a mapping turns a full disk into SIGBUS, which ends the
    process, and an .npy file has no checksum. Raises ValueError if there are more or fewer than n rows.
    """
    written = 0
    with _member(file, name) as member:
        for batch in batches:
            if not written:
                np.lib.format.write_array_header_1_0(
                    member,
                    {
                        "descr": np.lib.format.dtype_to_descr(batch.dtype),
                        "fortran_order": False,
                        "shape": (n, *batch.shape[1:]),
                    },
                )
            member.write(np.ascontiguousarray(batch).data)
            written += len(batch)
    if written != n or not n:
        raise ValueError(f"{name} has {written} rows where {n} were announced")


def _member(file: zipfile.ZipFile, name: str):
    """Open a member of the archive for writing, aligned in the file so that it can be mapped."""
    info = zipfile.ZipInfo(f"{name}.npy")
    header = 30 + len(info.filename.encode()) + 20  # zip's own, and its field for sizes beyond 4 GiB
    padding = -(file.fp.tell() + header + 4) % ALIGNED
    info.extra = struct.pack("<HH", 0xD935, padding) + bytes(padding)  # a field that readers skip
    return file.open(info, "w", force_zip64=True)


def map_arrays(path: Path) -> dict[str, np.ndarray]:
    """As `read_arrays`, but the arrays stay in the file, mapped into memory, to be read where they are used.

    The file is read through to see that it is whole: once, as long as it is not changed.
    """
    try:
        with zipfile.ZipFile(path) as file:
            names = [info.filename.removesuffix(".npy") for info in file.infolist()]
        return {name: map_array(path, name) for name in names}
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except Exception as error:  # zip, zlib and numpy each have their own for a damaged file
        raise UserError(f"{path}: not whole ({error}); delete it and run again") from None


@lru_cache(maxsize=64)
def _compare_checksum(path: Path, name: str, version: tuple[int, ...]) -> None:
    """Read an array of an .npz file through; zipfile raises where its checksum is another one."""
    with zipfile.ZipFile(path) as file, file.open(f"{name}.npy") as member:
        while member.read(READ_BYTES):
            pass


def map_array(path: Path, name: str) -> np.ndarray:
    """Map one array of an .npz file copy-on-write; an array that is compressed or empty is read instead.

    Its checksum is compared first, in one pass. Raises the errors of zip and numpy for a damaged file.
    """
    with open(path, "rb") as raw, zipfile.ZipFile(raw) as file:
        info = file.getinfo(f"{name}.npy")
        _compare_checksum(path, name, version(path))
        raw.seek(info.header_offset)
        lengths = struct.unpack("<HH", raw.read(30)[26:])
        start = info.header_offset + 30 + sum(lengths)
        raw.seek(start)
        if info.compress_type == zipfile.ZIP_STORED and np.lib.format.read_magic(raw) == (1, 0):
            shape, fortran, dtype = np.lib.format.read_array_header_1_0(raw)
            if raw.tell() + dtype.itemsize * int(np.prod(shape)) > start + info.file_size:
                raise ValueError(f"{name} is shorter than its header says")
            if shape and np.prod(shape) and not dtype.hasobject:
                array = np.memmap(path, dtype, "c", raw.tell(), shape, "F" if fortran else "C")
                _mapped[array.ctypes.data] = array.base
                return array
        with file.open(info) as member:
            return np.lib.format.read_array(member, allow_pickle=False)


def let_go(address: int) -> None:
    """Free the memory of the array that `map_array` has put at this address; it is read again when used.

    Changes of the copy in memory are lost. Any other address is ignored.
    """
    mapping = _mapped.get(address)
    if mapping is not None:
        mapping.madvise(mmap.MADV_DONTNEED)


def scratch(folder: Path, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Zeros in a file without a name, mapped into memory; the system removes the file when the process ends.

    The space on the disk is taken now, so that a full disk is an error here and not later.
    """
    with disk(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            os.posix_fallocate(file.fileno(), 0, max(1, int(np.prod(shape)) * np.dtype(dtype).itemsize))
            return np.memmap(file, dtype, "r+", shape=shape)
