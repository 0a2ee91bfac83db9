"""Images in tar shards, as the library webdataset writes them: KEY.jpg beside KEY.cls, KEY.json or KEY.txt.

A key is a member's path up to the first dot of its last part, and what follows that dot, in lower case, is
the member's extension. Members of one key in one shard are a sample. Nothing is unpacked: an index of where
the members begin lets each image be read on its own.
"""

import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from glob import glob
from itertools import groupby
from pathlib import Path

from deconfuse.data.image_files import suffixes
from deconfuse.data.images import FileImages
from deconfuse.data.listing import WORDS, Listing, by_class
from deconfuse.system.archive import TarMembers, tar_members
from deconfuse.system.errors import UserError, did_you_mean, shorten
from deconfuse.system.progress import console, track
from deconfuse.system.spelling import one_spelling
from deconfuse.system.words import agree, many

KEY = re.compile(r"((?:.*/)?[^./][^./]*)\.([^/]+)", re.DOTALL)  # (the key, the extension)
FIELDS = ("label", "class", "cls", "class_name", "category")  # of a json, the first that is there
NAMES = "classnames.txt"  # beside the shards: line i, from 0, is the name of the class whose cls is i
FORMS = "give a folder of .tar files as dataset.root=DIR, or dataset.shards='DIR/train-{000..003}.tar'"


@dataclass(frozen=True, slots=True)
class Sample:
    """One key of a shard. cells: the number of the member in the shard's index, by extension."""

    shard: int
    key: str
    cells: dict[str, int]


def load(
    root: str | None = None,
    shards: str | Sequence[str] | None = None,
    image: str | None = None,
    label: str | None = None,
    index_dir: str | None = None,
    test_classes: float | list[str] | None = None,
    seed: int = 0,
) -> Listing:
    """Read all samples of the shards; an image is read and decoded where it is used.

    root: a folder with .tar files at any depth. shards: a path, or several, with {000..003}, {a,b}, * or **,
    relative to root. image: the extension of the image; None: the only one that is an image's. label: the
    extension of the class, as cls, txt or json.FIELD; None: the first of these that there is. index_dir:
    where the index of each shard is kept; None: nowhere. test_classes, seed: as of dataset=folder; splits are
    those that the shards' names say, and stay as they are if their classes are disjoint. Raises UserError for
    a shard that is missing, compressed or damaged, and for a sample without a class or with several images.
    """
    files, base = _files(root, shards)
    words = [file.relative_to(base).with_suffix("").as_posix() for file in files]
    source = f"dataset webdataset in {base}"
    index = [tar_members(file, index_dir) for file in track(files, "reading shards", len(files))]
    samples = _samples(files, index)
    images = [_image(files[sample.shard], sample, image) for sample in samples]
    _say_left_out(source, samples, images)
    kept = [(sample, ext) for sample, ext in zip(samples, images, strict=True) if ext]
    if not kept:
        raise UserError(f"{source}: no member is an image{_said(image)}; {_extensions(samples)}")
    samples = [sample for sample, _ in kept]
    classes = one_spelling(_labels(files, index, samples, label, base), source)
    which = [sample.shard for sample in samples]
    members = TarMembers.chosen(index, [(sample.shard, sample.cells[ext]) for sample, ext in kept])
    paths = [f"{files[i]}/{name}" for i, name in zip(which, members.names, strict=True)]
    names = [f"{words[i]}/{name}" for i, name in zip(which, members.names, strict=True)]
    return Listing(
        FileImages(paths, read=members.read),
        classes,
        _parts(words, which, classes, test_classes, seed, source),
        names,
        source=source,
    )


def _files(root: str | None, shards: str | Sequence[str] | None) -> tuple[list[Path], Path]:
    """(the shards in order, the folder that contains all of them)."""
    if root is None and shards is None:
        raise UserError(f"dataset webdataset: no shards are named; {FORMS}")
    base = Path(root) if root is not None else None
    if base is not None and not base.is_dir():
        raise UserError(f"dataset webdataset: {base.absolute()} is no folder; {FORMS}")
    if shards is None:
        files = sorted(path for path in base.rglob("*.tar") if path.is_file())
        if not files:
            packed = sorted(
                path.name for path in base.rglob("*") if re.search(r"\.(tgz|tar\.\w+)$", path.name)
            )
            hint = (
                f"{shorten(packed, 3)} {agree(len(packed))} compressed; unpack to .tar" if packed else FORMS
            )
            raise UserError(f"dataset webdataset: {base.absolute()} has no .tar file; {hint}")
        return files, base
    patterns = [shards] if isinstance(shards, str) else [str(each) for each in shards]
    files = [Path(found) for each in patterns for found in _matching(os.path.join(root or "", each))]
    files = list(dict.fromkeys(files))
    absent = [file.as_posix() for file in files if not file.is_file()]
    if absent or not files:
        what = f"no {shorten(absent, 3)}" if absent else f"nothing matches {shorten(patterns)}"
        raise UserError(f"dataset.shards: {what} ({Path.cwd()}); {FORMS}")
    return files, base or Path(os.path.commonpath([file.parent for file in files]))


def _matching(pattern: str) -> list[str]:
    """The paths that a pattern means; one without * ? [ is a path whether it exists or not."""
    found = []
    for path in [pattern] if os.path.exists(pattern) else expanded(pattern):
        found += sorted(glob(path, recursive=True)) if re.search(r"[*?[]", path) else [path]
    return found


def expanded(pattern: str) -> list[str]:
    """The pattern with each {a,b} and each {first..last} written out, as a shell does it."""
    found = re.search(r"\{([^{}]*)\}", pattern)
    if found is None:
        return [pattern]
    ends = re.fullmatch(r"(\d+)\.\.(\d+)", found[1])
    if ends is None and "," not in found[1]:
        raise UserError(f"dataset.shards={pattern}: {found[0]} is no range; write {{000..003}} or {{a,b}}")
    if ends is None:
        inner = found[1].split(",")
    else:
        first, last = int(ends[1]), int(ends[2])
        width = max(map(len, ends.groups())) if "0" in (ends[1][0], ends[2][0]) else 0
        inner = [f"{i:0{width}d}" for i in range(first, last + 1)]
    head, tail = pattern[: found.start()], pattern[found.end() :]
    return [path for each in inner for path in expanded(head + each + tail)]


def _samples(files: Sequence[Path], index: Sequence[TarMembers]) -> list[Sample]:
    """All samples in the order of the shards and of their first members; UserError for a member twice."""
    found: list[Sample] = []
    for shard, members in enumerate(index):
        of_key: dict[str, Sample] = {}
        for row, name in enumerate(members.names):
            match = KEY.fullmatch(name)
            if match is None or name.startswith("__"):  # the library skips these too
                continue
            key, extension = match[1], match[2].lower()
            sample = of_key.setdefault(key, Sample(shard, key, {}))
            if extension in sample.cells:
                raise UserError(f"{files[shard]}: {name} is there twice; keep one")
            sample.cells[extension] = row
        found += of_key.values()
    return found


def _image(file: Path, sample: Sample, wanted: str | None) -> str | None:
    """The extension of a sample's image; None if it has none. UserError if it has several, none chosen."""
    if wanted is not None:
        wanted = wanted.lower().lstrip(".")
        return wanted if wanted in sample.cells else None
    found = [each for each in sample.cells if f".{each.rpartition('.')[2]}" in suffixes()]
    if len(found) > 1:
        raise UserError(
            f"{file}: {sample.key} has several images ({', '.join(found)}); choose one with "
            "dataset.image=EXTENSION"
        )
    return found[0] if found else None


def _said(image: str | None) -> str:
    return "" if image is None else f" with the extension {image} (dataset.image)"


def _say_left_out(source: str, samples: Sequence[Sample], images: Sequence[str | None]) -> None:
    without = [sample.key for sample, image in zip(samples, images, strict=True) if image is None]
    if without and len(without) < len(samples):
        console.print(
            f"{source}: left out {many(len(without), 'key', ',')} without an image: {shorten(without, 3)}"
        )


def _extensions(samples: Sequence[Sample]) -> str:
    """What extensions there are, for a message."""
    there = sorted({extension for sample in samples for extension in sample.cells})
    return f"their extensions are {shorten(there, 8)}" if there else "no member has an extension"


def _labels(
    files: Sequence[Path],
    index: Sequence[TarMembers],
    samples: Sequence[Sample],
    wanted: str | None,
    base: Path,
) -> list[str]:
    """The class of each sample; UserError naming the samples that have none."""
    first = samples[0]
    member, field = _label_of(files[first.shard], index[first.shard], first, wanted)
    where = f"{member}.{field}" if field else member
    names = _class_names(base) if member == "cls" else []
    found: list[str] = []
    bad: list[str] = []
    for sample, text in zip(samples, _texts(index, samples, member), strict=True):
        label = None if text is None else _field(text, field) if field else text.strip()
        if label is not None and names:
            label = names[int(label)] if label.isdecimal() and int(label) < len(names) else None
        if not label:
            bad.append(f"{files[sample.shard].name}/{sample.key}")
        found.append(label or "")
    if bad:
        listed = f" in the list {NAMES}" if names else ""
        raise UserError(
            f"dataset webdataset in {base}: {many(len(bad), 'sample', ',')} "
            f"{agree(len(bad), 'has', 'have')} no class{listed} by {where}: {shorten(bad, 3)}; mend or leave "
            f"out, or name another with dataset.label=EXTENSION or json.FIELD ({_extensions(samples)})"
        )
    return found


def _label_of(file: Path, members: TarMembers, sample: Sample, wanted: str | None) -> tuple[str, str]:
    """(the extension of the member that says the class, the field in it if it is a json)."""
    cells = sample.cells
    if wanted is not None:
        member, _, field = wanted.partition(".") if wanted.lower().startswith("json") else (wanted, "", "")
        member = member.lower().lstrip(".")
        if member not in cells:
            raise UserError(
                f"dataset.label={wanted}: {file}: {sample.key} has no {member}; {did_you_mean(member, cells)}"
            )
        if field or member != "json":
            return member, field
    if "cls" in cells and wanted is None:
        return "cls", ""
    if "json" in cells:
        read = _parsed(members.read(cells["json"]))
        fields = read if isinstance(read, dict) else {}
        field = next((name for name in FIELDS if name in fields), None)
        if field is not None:
            return "json", field
        if wanted is not None:
            raise UserError(
                f"{file}: {sample.key}.json has none of {', '.join(FIELDS)}; name the field with "
                f"dataset.label=json.FIELD (its fields: {shorten(fields, 8) or 'none'})"
            )
    if "txt" in cells:
        return "txt", ""
    raise UserError(
        f"{file}: {sample.key} has no cls, json or txt that says its class; name another with "
        f"dataset.label=EXTENSION or json.FIELD (it has: {', '.join(cells)})"
    )


def _texts(index: Sequence[TarMembers], samples: Sequence[Sample], member: str) -> Iterator[str | None]:
    """The text of a member of each sample; None where a sample has none."""
    for shard, group in groupby(samples, key=lambda sample: sample.shard):
        rows = [sample.cells.get(member) for sample in group]
        texts = index[shard].each([row for row in rows if row is not None])
        for row in rows:
            yield None if row is None else next(texts).decode("utf-8", "replace")


def _parsed(text: str | bytes):
    try:
        return json.loads(text)
    except ValueError:
        return None


def _field(text: str, field: str) -> str | None:
    """A field of a json, or of one inside it, as text; None if there is none, or it is no name or number."""
    found = _parsed(text)
    for part in field.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    good = isinstance(found, (str, int, float)) and not isinstance(found, bool)
    return str(found).strip() if good else None


def _class_names(base: Path) -> list[str]:
    """The lines of the list of names, if it is there."""
    file = base / NAMES
    return [line.strip() for line in file.read_text("utf-8").splitlines()] if file.is_file() else []


def _parts(
    words: Sequence[str], which: Sequence[int], classes, test_classes, seed: int, source: str
) -> list[str]:
    """The part of each sample, by the last name in its shard's path that has one of WORDS."""
    said = [_part(word) for word in words]
    silent = [word for word, part in zip(words, said, strict=True) if part is None]
    if 0 < len(silent) < len(words):
        raise UserError(
            f"{source}: shards such as {next(w for w in words if w not in silent)} say a split, and "
            f"{shorten(silent, 3)} beside them {agree(len(silent), 'says', 'say')} none; name the shards of "
            "one kind with dataset.shards=PATTERN"
        )
    splits = [said[i] or "train" for i in which]
    found = by_class(classes, splits, test_classes, seed, source)
    apart = found == ["train" if split == "train" else "test" for split in splits]
    return splits if apart and {"query", "gallery"} & set(splits) else found


def _part(word: str) -> str | None:
    for name in reversed(word.casefold().split("/")):
        for each in re.split(r"[^a-z]+", name):
            if each in WORDS:
                return WORDS[each]
    return None
