"""Unpack tar and zip archives so that nothing in them can reach outside the folder they are unpacked to."""

import errno
import posixpath
import re
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from deconfuse.system.errors import UserError
from deconfuse.system.progress import bar

ARCHIVE_SUFFIXES = (".tar", ".tgz", ".gz", ".tbz", ".bz2", ".txz", ".xz", ".zip")
MEGABYTE = 10**6
# What the file system says of members that can't be there together, or by that name; None: gzip's word for
# damage, and shutil's for a file that is copied to itself.
DAMAGE = (None, errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG)


@dataclass(frozen=True)
class Member:
    """One entry of an archive: a folder, a file (content), a link (its target's name) or something else.

    done: how much of the archive has been read, in bytes.
    """

    name: str
    kind: str
    content: IO[bytes] | None = None
    target: str = ""
    done: int = 0


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a .tar, .tgz or .zip archive into a folder; a file of another kind is copied into it.

    Only folders and plain files are made. A link becomes a copy of the file it points to.
    Raises UserError for a damaged or encrypted archive, and for a member that is a device, or whose name or
    target lies outside the folder.
    """
    if archive.name.lower().endswith(ARCHIVE_SUFFIXES):
        try:
            _unpack(archive, folder)
        except (tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error) as error:
            raise _damaged(archive, error) from None
        except (RuntimeError, NotImplementedError) as error:  # zipfile: encrypted, or an unknown compression
            raise UserError(f"{archive}: {error}; unpack it yourself and give the folder") from None
        except OSError as error:
            if error.errno in DAMAGE:
                raise _damaged(archive, error) from None
            raise
    else:
        shutil.copyfile(archive, folder / archive.name)


def _damaged(archive: Path, error: Exception) -> UserError:
    reason = getattr(error, "strerror", None) or error
    return UserError(f"{archive}: damaged ({reason}); fetch it again")


def _unpack(archive: Path, folder: Path) -> None:
    members, total = _members(archive)
    links = []
    with bar() as progress:
        task = progress.add_task(f"unpacking {archive.name}", total=total // MEGABYTE, note="MB")
        for member in members:
            path = folder / _inside(archive, member.name, member.name)
            if member.kind == "folder":
                path.mkdir(parents=True, exist_ok=True)
            elif member.kind == "file":
                path.parent.mkdir(parents=True, exist_ok=True)
                with open(path, "wb") as file:
                    shutil.copyfileobj(member.content, file)
            elif member.kind == "link":
                links.append((path, folder / _inside(archive, member.target, member.name), member.name))
            else:
                raise UserError(
                    f"{archive}: {member.name} is no file, folder or link; the archive is not safe"
                )
            progress.update(task, completed=member.done // MEGABYTE)
    while links:  # a link may come before the link it points to
        waiting = []
        for path, target, name in links:
            if target.is_file():
                path.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(target, path)
            else:
                waiting.append((path, target, name))
        if len(waiting) == len(links):
            name = waiting[0][-1]
            raise UserError(f"{archive}: {name} is a link to what is no file in it; unpack it yourself")
        links = waiting


def _inside(archive: Path, name: str, member: str) -> PurePosixPath:
    """The name as a relative path below the folder, links or no links; UserError where it leads out of it."""
    path = PurePosixPath(name.replace("\\", "/"))
    if (
        path.is_absolute()
        or ".." in path.parts
        or "\0" in name
        or re.match("[A-Za-z]:", str(path))  # a drive
    ):
        raise UserError(f"{archive}: {member} would be written outside the folder; the archive is not safe")
    return path


def _members(archive: Path) -> tuple[Iterator[Member], int]:
    """(entries in the archive's order, bytes there are to read)."""
    if tarfile.is_tarfile(archive):
        return _tar(archive), archive.stat().st_size
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as file:
            return _zip(archive), sum(info.file_size for info in file.infolist())
    raise UserError(f"{archive}: neither a tar nor a zip archive; fetch it again")


def _tar(archive: Path) -> Iterator[Member]:
    with open(archive, "rb") as raw, tarfile.open(fileobj=raw, mode="r:*") as file:
        for info in file:
            if info.isdir():
                yield Member(info.name, "folder", done=raw.tell())
            elif info.isfile():
                yield Member(info.name, "file", file.extractfile(info), done=raw.tell())
            elif info.islnk():
                yield Member(info.name, "link", target=info.linkname, done=raw.tell())
            elif info.issym():
                yield Member(info.name, "link", target=_beside(info.name, info.linkname), done=raw.tell())
            else:
                yield Member(info.name, "other")
        while file.fileobj.read(MEGABYTE):  # the checksum comes last, behind what tar takes for the end
            pass


def _zip(archive: Path) -> Iterator[Member]:
    done = 0
    with zipfile.ZipFile(archive) as file:
        for info in file.infolist():
            done += info.file_size
            if info.is_dir():
                yield Member(info.filename, "folder", done=done)
            elif stat.S_ISLNK(info.external_attr >> 16):
                target = file.read(info).decode("utf-8", "replace")
                yield Member(info.filename, "link", target=_beside(info.filename, target), done=done)
            else:
                with file.open(info) as content:
                    yield Member(info.filename, "file", content, done=done)


def _beside(name: str, target: str) -> str:
    """A symbolic link's target, which is relative to the link's folder, relative to the archive."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(name), target))
