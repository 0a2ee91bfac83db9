"""Unpack tar and zip archives so that nothing in them can reach outside the folder they are unpacked to, and
read single members of a tar in place.

The standard library's tarfile, with its data filter, and zipfile do the work. This module adds three things:
links become copies, as not every file system has links; names that lead outside the folder are refused, while
zipfile would change them; and what is wrong with an archive becomes a single line.
"""

import errno
import os
import platform
import posixpath
import re
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path, PurePosixPath

import numpy as np

from deconfuse.system.arrays import read_arrays, write_arrays
from deconfuse.system.errors import UserError
from deconfuse.system.files import short_hash
from deconfuse.system.progress import bar, console

ARCHIVE_SUFFIXES = (".tar", ".tgz", ".gz", ".tbz", ".bz2", ".txz", ".xz", ".zip")
MEGABYTE = 10**6
# Error numbers for members that can't exist together, or that have impossible names. None: the number of
# gzip's error for damage, and of shutil's error for a file that is copied to itself.
DAMAGE = (None, errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG)

Links = list[tuple[str, str]]  # (name, name of its target), both relative to the top of the archive


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a .tar, .tgz or .zip archive into a folder; a file of another kind is copied into it.

    Only folders and plain files are made. A link becomes a copy of the file it points to.
    Raises UserError for a damaged or encrypted archive, and for a member that is a device, or whose name or
    target lies outside the folder.
    """
    if not archive.name.lower().endswith(ARCHIVE_SUFFIXES):
        shutil.copyfile(archive, folder / archive.name)
        return
    try:
        if tarfile.is_tarfile(archive):
            links = _tar(archive, folder)
        elif zipfile.is_zipfile(archive):
            links = _zip(archive, folder)
        else:
            raise UserError(f"{archive}: neither a tar nor a zip archive; fetch it again")
        _copied(archive, folder, links)
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error) as error:
        raise _damaged(archive, error) from None
    except (RuntimeError, NotImplementedError) as error:  # zipfile: encrypted, or an unknown compression
        raise UserError(f"{archive}: {error}; unpack it yourself and give the folder") from None
    except OSError as error:
        if error.errno in DAMAGE:
            raise _damaged(archive, error) from None
        raise


def _damaged(archive: Path, error: Exception) -> UserError:
    reason = getattr(error, "strerror", None) or error
    return UserError(f"{archive}: damaged ({reason}); fetch it again")


def _tar(archive: Path, folder: Path) -> Links:
    """Unpack the folders and files of a tar archive, and return its links."""
    if not hasattr(tarfile, "data_filter"):  # 3.11.0 to 3.11.3
        raise UserError(
            f"{archive}: Python {platform.python_version()} can't unpack it safely; take 3.11.4 or later, or "
            "unpack it yourself and give the folder"
        )
    links: Links = []
    with open(archive, "rb") as raw, tarfile.open(fileobj=raw, mode="r:*") as file, bar() as progress:
        task = progress.add_task(
            f"unpacking {archive.name}", total=archive.stat().st_size // MEGABYTE, note="MB"
        )

        def kept(info: tarfile.TarInfo, place: str) -> tarfile.TarInfo | None:
            progress.update(task, completed=raw.tell() // MEGABYTE)
            info = _filtered(archive, info, place)
            if info.isdir():  # tarfile would accept a file of that name as the folder
                (folder / info.name).mkdir(parents=True, exist_ok=True)
            elif info.islnk():
                links.append((info.name, _inside(archive, info.linkname, info.name)))
            elif info.issym():
                links.append((info.name, _beside(archive, info.name, info.linkname)))
            else:
                return info
            return None

        file.extractall(folder, filter=kept)
        while file.fileobj.read(MEGABYTE):  # the checksum follows the end of the tar data
            pass
    return links


def _filtered(archive: Path, info: tarfile.TarInfo, place: str) -> tarfile.TarInfo:
    """The member as the data filter returns it; UserError if the filter refuses it."""
    try:
        return tarfile.data_filter(info.replace(name=_inside(archive, info.name, info.name)), place)
    except tarfile.SpecialFileError:
        raise UserError(
            f"{archive}: {info.name} is no file, folder or link; the archive is not safe"
        ) from None
    except tarfile.FilterError:
        raise _outside(archive, info.name) from None


def _zip(archive: Path, folder: Path) -> Links:
    """Unpack the folders and files of a zip archive, and return its links."""
    links: Links = []
    with zipfile.ZipFile(archive) as file, bar() as progress:
        total = sum(info.file_size for info in file.infolist())
        task = progress.add_task(f"unpacking {archive.name}", total=total // MEGABYTE, note="MB")
        done = 0
        for info in file.infolist():
            is_folder = info.filename.endswith(("/", "\\"))
            info.filename = _inside(archive, info.filename, info.filename) + "/" * is_folder
            if stat.S_ISLNK(info.external_attr >> 16):
                target = file.read(info).decode("utf-8", "replace")
                links.append((info.filename, _beside(archive, info.filename, target)))
            else:
                file.extract(info, folder)
            done += info.file_size
            progress.update(task, completed=done // MEGABYTE)
    return links


def _copied(archive: Path, folder: Path, links: Links) -> None:
    """Write a copy of its target for each link; a link may come before the link that it points to."""
    while links:
        waiting: Links = []
        for name, target in links:
            if (folder / target).is_file():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(folder / target, folder / name)
            else:
                waiting.append((name, target))
        if len(waiting) == len(links):
            name = waiting[0][0]
            raise UserError(f"{archive}: {name} is a link to what is no file in it; unpack it yourself")
        links = waiting


def _inside(archive: Path, name: str, member: str) -> str:
    """The name as a relative path below the folder; UserError if it leads out of the folder."""
    path = PurePosixPath(name.replace("\\", "/"))
    if (
        path.is_absolute()
        or ".." in path.parts
        or "\0" in name
        or re.match("[A-Za-z]:", str(path))  # a drive
    ):
        raise _outside(archive, member)
    return str(path)


def _outside(archive: Path, member: str) -> UserError:
    return UserError(f"{archive}: {member} would be written outside the folder; the archive is not safe")


def _beside(archive: Path, name: str, target: str) -> str:
    """A symbolic link's target, which is relative to the link's folder, relative to the archive."""
    return _inside(archive, posixpath.normpath(posixpath.join(posixpath.dirname(name), target)), name)


@dataclass(frozen=True)
class TarMembers:
    """Where the plain files in uncompressed tars begin, to read one without the others.

    names: of the members, without ./ before them. tars: the archives; member i is in tars[of[i]], where its
    sizes[i] bytes begin at offsets[i].
    """

    tars: tuple[str, ...]
    names: tuple[str, ...]
    of: np.ndarray
    offsets: np.ndarray
    sizes: np.ndarray

    def read(self, i: int) -> bytes:
        """The bytes of member i; UserError where the tar is gone, or has become shorter."""
        return next(self.each([i]))

    def each(self, rows: Sequence[int]) -> Iterator[bytes]:
        """`read` of several members; an archive is opened once for all that follow each other in it."""
        for tar, some in groupby(rows, key=lambda i: self.of[i]):
            path = self.tars[tar]
            try:
                with open(path, "rb", buffering=0) as file:
                    for i in some:
                        found = os.pread(file.fileno(), int(self.sizes[i]), int(self.offsets[i]))
                        if len(found) != self.sizes[i]:
                            raise UserError(f"{path}: ends inside of {self.names[i]}; restore it")
                        yield found
            except OSError as error:
                raise UserError(f"{path}: cannot be read ({error.strerror}); restore it") from None

    @classmethod
    def chosen(cls, several: Sequence["TarMembers"], rows: Sequence[tuple[int, int]]) -> "TarMembers":
        """Members of several tars as one: row (s, i) is member i of the first tar of several[s]."""
        names = tuple(several[s].names[i] for s, i in rows)
        offsets = np.array([several[s].offsets[i] for s, i in rows], np.int64)
        sizes = np.array([several[s].sizes[i] for s, i in rows], np.int64)
        of = np.array([s for s, _ in rows], np.int64)
        return cls(tuple(each.tars[0] for each in several), names, of, offsets, sizes)


def tar_members(path: Path, index_dir: str | None = None) -> TarMembers:
    """All plain files in an uncompressed tar, in its order.

    index_dir: a folder where what was found is kept, and is found again while the tar has the same size and
    time of change; None: it is not kept. Raises UserError for a compressed or damaged tar.
    """
    status = path.stat()
    stamp = np.array([status.st_size, status.st_mtime_ns], np.int64)
    kept = Path(index_dir) / f"{short_hash(str(path.absolute()))}.npz" if index_dir is not None else None
    found = None if kept is None else _kept(kept, stamp)
    if found is None:
        rows = list(_plain_files(path, status.st_size))
        names = "\0".join(name for name, _, _ in rows).encode("utf-8", "surrogateescape")
        found = {
            "stamp": stamp,
            "names": np.frombuffer(names, np.uint8),
            "offsets": np.array([offset for _, offset, _ in rows], np.int64),
            "sizes": np.array([size for _, _, size in rows], np.int64),
        }
        if kept is not None:
            _keep(kept, found)
    text = found["names"].tobytes().decode("utf-8", "surrogateescape")
    names = tuple(text.split("\0")) if len(found["sizes"]) else ()
    return TarMembers((str(path),), names, np.zeros(len(names), np.int64), found["offsets"], found["sizes"])


def _kept(file: Path, stamp: np.ndarray) -> dict[str, np.ndarray] | None:
    """What was found before; None if it is not there, or is of another state of the tar, or is damaged."""
    if not file.is_file():
        return None
    try:
        found = read_arrays(file)
    except UserError:
        return None
    return found if np.array_equal(found.get("stamp"), stamp) else None


def _keep(file: Path, found: dict[str, np.ndarray]) -> None:
    """Write what was found; a folder that cannot be written costs time alone, which a line says."""
    try:
        write_arrays(file, **found)
    except UserError as error:
        console.print(f"the index of a tar is not kept, and is made again each time: {error}")


def _plain_files(path: Path, size: int) -> Iterator[tuple[str, int, int]]:
    """(name, where its bytes begin, how many) of each plain file, without links, folders and devices."""
    try:
        with open(path, "rb") as raw, tarfile.open(fileobj=raw, mode="r:") as file:
            for info in file:
                file.members = []  # else tarfile keeps all of them
                if info.issparse():
                    raise UserError(f"{path}: {info.name} is sparse; write the tar again without --sparse")
                if info.offset_data + info.size > size:
                    raise tarfile.ReadError(f"it ends inside of {info.name}")
                if info.isreg():
                    yield info.name.removeprefix("./"), info.offset_data, info.size
            raw.seek(file.offset)
            end = raw.read(tarfile.BLOCKSIZE)
            if end.strip(b"\0"):  # tarfile ends at what it does not understand
                raise tarfile.ReadError(f"no header at byte {file.offset}")
            if not end:
                console.print(f"warning: {path} ends without a tar's end mark; it may have been cut off")
    except tarfile.TarError as error:
        with open(path, "rb") as raw:
            packed = raw.read(4).startswith((b"\x1f\x8b", b"BZh", b"\xfd7zX", b"\x28\xb5\x2f\xfd"))
        if packed:
            raise UserError(
                f"{path}: is compressed, so no member can be read alone; unpack it to .tar"
            ) from None
        raise _damaged(path, error) from None
