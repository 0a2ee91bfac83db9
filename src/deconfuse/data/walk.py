"""Find the image files below a folder, and say which files were left out and why."""

import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from deconfuse.data.image_files import suffixes
from deconfuse.system.errors import shorten
from deconfuse.system.words import many

# Folders and files, in lower case, that operating systems, network drives and archive programs create. Names
# that begin with a dot count as such too.
TOOL_FOLDERS = frozenset(
    (
        "@eadir",
        "@recycle",
        "__macosx",
        "__pycache__",
        "#recycle",
        "$recycle.bin",
        "lost+found",
        "system volume information",
    )
)
TOOL_FILES = frozenset(("thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"))


@dataclass
class FolderContents:
    """What `images_below` found.

    names: the images as paths relative to the folder, in order. left_out: the number of files of each ending
    that is no image's. tools: the number of files that each other program left. loose: images beside the
    sub-folders. broken: links to nothing. loops: links to folders that were read already. hidden: the number
    of images in each topmost folder whose name begins with a dot.
    """

    names: list[str] = field(default_factory=list)
    left_out: Counter = field(default_factory=Counter)
    tools: Counter = field(default_factory=Counter)
    loose: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    loops: list[str] = field(default_factory=list)
    hidden: dict[str, int] = field(default_factory=dict)

    def lines(self) -> list[str]:
        """One line for each reason why files were left out."""
        said = []
        if self.left_out:
            kinds = shorten((f"{n:,} {suffix}" for suffix, n in self.left_out.most_common()), 6)
            said.append(
                f"left out {many(self.left_out.total(), 'file', ',')} without an image's ending: {kinds}"
            )
        if self.tools:
            kinds = shorten((f"{n:,} in or named {name}" for name, n in self.tools.most_common()), 4)
            said.append(
                f"left out {many(self.tools.total(), 'file', ',')} that other programs leave: {kinds}"
            )
        if self.loose:
            said.append(
                f"left out {many(len(self.loose), 'image', ',')} beside the class folders: "
                f"{shorten(self.loose, 3)}"
            )
        if self.broken:
            said.append(
                f"left out {many(len(self.broken), 'link', ',')} to nothing: {shorten(self.broken, 3)}"
            )
        if self.loops:
            said.append(
                f"did not follow {many(len(self.loops), 'link', ',')} to folders read already: "
                f"{shorten(self.loops, 3)}"
            )
        for name, n in self.hidden.items():
            said.append(
                f"left out the folder {name} with {many(n, 'image', ',')}, as its name begins with a dot; "
                "rename it if it is a class"
            )
        return said


def images_below(base: Path) -> FolderContents:
    """All images in sub-folders of base, at any depth.

    Links to files and folders are followed. Below each topmost folder, a folder is read once, however many
    links lead to it; a link that leads back up is not followed.
    """
    found, top = FolderContents(), _identity(base)
    for entry in sorted(os.scandir(base), key=lambda entry: entry.name):
        if _is_tool(entry.name, entry.is_dir()):
            _count_tool(entry, found)
            if entry.name.startswith(".") and entry.is_dir():
                _count_hidden(entry, found)
        elif entry.is_dir():
            _read(entry.path, f"{entry.name}/", {top}, found)
        elif Path(entry.name).suffix.lower() in suffixes():
            (found.loose if entry.is_file() else found.broken).append(entry.name)
        elif entry.is_file():
            found.left_out[_ending(entry.name)] += 1
    found.names.sort(key=lambda name: name.split("/"))
    return found


def _read(folder: str, prefix: str, seen: set[tuple[int, int]], found: FolderContents) -> None:
    """Add the images below a topmost folder; seen: the identities of base and of the folders already read."""
    waiting = [(folder, prefix)]
    while waiting:
        folder, prefix = waiting.pop()
        here = _identity(folder)
        if here in seen:
            found.loops.append(prefix.rstrip("/"))
            continue
        seen.add(here)
        links = []
        for entry in sorted(os.scandir(folder), key=lambda entry: entry.name, reverse=True):
            if _is_tool(entry.name, entry.is_dir()):
                _count_tool(entry, found)
            elif entry.is_dir():
                (links if entry.is_symlink() else waiting).append((entry.path, f"{prefix}{entry.name}/"))
            elif not entry.is_file():
                found.broken.append(prefix + entry.name)
            elif Path(entry.name).suffix.lower() in suffixes():
                found.names.append(prefix + entry.name)
            else:
                found.left_out[_ending(entry.name)] += 1
        waiting[:0] = links  # read after the folders, so that a link to one of them is left out


def _identity(folder: str | Path) -> tuple[int, int]:
    """(device, inode), which is the same for all paths to one folder."""
    stat = os.stat(folder)
    return stat.st_dev, stat.st_ino


def _is_tool(name: str, folder: bool) -> bool:
    known = TOOL_FOLDERS if folder else TOOL_FILES
    return name.startswith(".") or name.lower() in known


def _count_tool(entry: os.DirEntry, found: FolderContents) -> None:
    """Count the file of a tool, or the files in its folder without following links."""
    n = 1 if not entry.is_dir() else sum(len(files) for _, _, files in os.walk(entry.path))
    if n:
        found.tools[entry.name] += n


def _count_hidden(entry: os.DirEntry, found: FolderContents) -> None:
    """Record a topmost hidden folder that holds images directly, as it may be meant as a class."""
    n = sum(Path(each.name).suffix.lower() in suffixes() for each in os.scandir(entry.path))
    if n and entry.name not in (".ipynb_checkpoints", ".thumbnails"):
        found.hidden[entry.name] = n
        found.tools[entry.name] -= n
        if not found.tools[entry.name]:
            del found.tools[entry.name]


def _ending(name: str) -> str:
    return Path(name).suffix.lower() or "without an ending"
