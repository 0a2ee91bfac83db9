"""The folder of a data set as its authors distribute it: its files, and how many images they list."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from deconfuse.data.split import Split
from deconfuse.system.errors import UserError, invoked, shorten
from deconfuse.system.words import agree, many


@dataclass(frozen=True)
class Layout:
    """The files by which the folder of a data set is recognised.

    folder: its usual name. ways: sets of paths inside it, one of which has to be complete. origin: where the
    files come from. counts: (images, classes) of each part, as the field uses the data set.
    """

    dataset: str
    folder: str
    ways: tuple[tuple[str, ...], ...]
    origin: str
    counts: dict[str, tuple[int, int]]

    def find(self, root: str | Path) -> list[Path]:
        """The paths of the first complete way; UserError, naming what is missing, if none is complete."""
        base = Path(root)
        missing = [[name for name in way if not (base / name).exists()] for way in self.ways]
        least = min(range(len(self.ways)), key=lambda i: len(missing[i]))
        if missing[least]:
            raise UserError(
                f"dataset {self.dataset}: looked in {base.absolute()} for {', '.join(self.ways[least])} and "
                f"found no {', '.join(missing[least])}; they come in {self.origin}; "
                f"unpack with {invoked('prepare')} {self.dataset} FILES, or set dataset.root=FOLDER"
            )
        return [base / name for name in self.ways[least]]

    def locate(self, folder: Path) -> Path:
        """This folder, or the first one up to two levels below it, that is complete; UserError if none is."""
        for base in (folder, *sorted(folder.glob("*")), *sorted(folder.glob("*/*"))):
            if any(all((base / name).exists() for name in way) for way in self.ways):
                return base
        self.find(folder)
        return folder

    def check(self, root: Path, split: Split) -> None:
        """Raise UserError if listed images do not exist, or if the numbers listed are not `counts`."""
        parts = {id(part): part for part in (split.train, split.query, split.gallery)}.values()
        files = [part.images.path(row) for part in parts for row in part.rows]
        gone = absent(files)
        if gone:
            names = shorten((path.relative_to(root) for path in gone), 3)
            raise UserError(
                f"dataset {self.dataset}: {len(gone):,} of {many(len(files), 'image', ',')} "
                f"{agree(len(gone))} not in {root}: {names}; fetch and unpack it again"
            )
        found = counts(split)
        wrong = [
            f"{part} {many(found[part][0], 'image', ',')} of {many(found[part][1], 'class', ',')}, not "
            f"{images:,} of {classes:,}"
            for part, (images, classes) in self.counts.items()
            if found[part] != (images, classes)
        ]
        if wrong:
            raise UserError(
                f"dataset {self.dataset}: the lists in {root} are not the authors': {'; '.join(wrong)}; "
                "fetch and unpack it again"
            )


def counts(split: Split) -> dict[str, tuple[int, int]]:
    """(images, classes) of train and test, or of train, query and gallery if those are separate."""
    parts = {"train": split.train, "test": split.query}
    if not split.shared_gallery:
        parts = {"train": split.train, "query": split.query, "gallery": split.gallery}
    return {name: (len(part), len(np.unique(part.labels))) for name, part in parts.items()}


def absent(files: Iterable[Path]) -> list[Path]:
    """The files that do not exist, in order. Each folder is listed once."""
    listed: dict[Path, set[str]] = {}

    def there(path: Path) -> bool:
        if path.parent not in listed:
            listed[path.parent] = set(os.listdir(path.parent)) if path.parent.is_dir() else set()
        return path.name in listed[path.parent]

    return [path for path in files if not there(path)]


def lines(path: Path) -> list[str]:
    """The lines of a text file that are not blank; UserError if it is no UTF-8 text."""
    try:
        return [line for line in path.read_text("utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no UTF-8 text"
        raise UserError(f"{path}: can't be read ({reason}); unpack the archive again") from None


def confined(path: Path, names: Iterable[str]) -> list[str]:
    """The names in a list; UserError, naming list and name, if a name leads out of the data set's folder."""
    names = list(names)
    outside = next((name for name in names if Path(name).is_absolute() or ".." in Path(name).parts), None)
    if outside is not None:
        raise UserError(
            f"{path}: lists {outside!r}, which is not inside the data set's folder; unpack the archive again"
        )
    return names


def fields(path: Path, text: Iterable[str], *names: str) -> list[list[str]]:
    """The words of each line, one per name; the last may contain blanks. UserError if a line has too few."""
    found = [line.split(maxsplit=len(names) - 1) for line in text]
    wrong = next((i for i, words in enumerate(found) if len(words) != len(names)), None)
    if wrong is not None:
        raise UserError(
            f"{path}: every line must be '{' '.join(names)}', and entry {wrong + 1} is "
            f"{' '.join(found[wrong])!r}; unpack the archive again"
        )
    return [[word.strip() for word in words] for words in found]
