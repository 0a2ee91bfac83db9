"""Decisions on labels of the test side, applied where a run asks for it (relabels.test=true)."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int

from deconfuse.corrections import decisions
from deconfuse.corrections.class_map import class_map
from deconfuse.corrections.corrections import Source, Tested, class_pairs
from deconfuse.data.split import Part, Split
from deconfuse.system.errors import UserError, shorten
from deconfuse.system.spelling import Names, same_path, same_word


@dataclass(frozen=True)
class _Side:
    labels: Int[np.ndarray, " q"]
    kept: Bool[np.ndarray, " q"]


def corrected(source: Source, split: Split) -> tuple[Split, Tested | None]:
    """(the split with the file's labels on its test side, what was decided); without a file (split, None).

    Without source.test the split stays as it is, and what the file would change is counted all the same. A
    sample gets its own label first, then test classes are merged and swapped. Raises UserError, naming the
    sample, for what does not fit the test side.
    """
    if source.file is None:
        return split, None
    file = Path(str(source.file))
    tests, _ = decisions.beside(file)
    to = _map(file, split)
    parts = split.test_parts
    _check_kinds(file, tests, parts)
    sides = {
        name: _side(file, tests[tests["kind"] == name].itertuples(index=False, name=None), part, split, to)
        for name, part in parts.items()
    }
    changed = sum(int((side.labels != parts[name].labels)[side.kept].sum()) for name, side in sides.items())
    told = Tested(source.test, changed, sum(int((~side.kept).sum()) for side in sides.values()))
    if not source.test or not told.decided:
        return split, told
    query = _part(split.query, sides["query"])
    gallery = query if split.shared_gallery else _part(split.gallery, sides["gallery"])
    if not len(query) or not len(gallery):
        raise UserError(f"{file}: no test sample would be left; exclude fewer")
    twins = None if split.twins is None else _twins(split.twins, sides["query"].kept, sides["gallery"].kept)
    return replace(split, query=query, gallery=gallery, twins=twins), told


def _map(file: Path, split: Split) -> Int[np.ndarray, " c"]:
    """For each class the one that its test samples get; training classes stay."""
    c = split.num_classes
    mine = [(a, b, what) for a, b, what in class_pairs(file, split) if a >= c and b >= c]
    try:
        return class_map(mine, len(split.class_names), split.class_names)
    except UserError as error:
        raise UserError(f"{file}: {error}") from None


def _check_kinds(file: Path, tests, parts: dict[str, Part]) -> None:
    odd = tests[~tests["kind"].isin(list(parts))]
    if len(odd):
        raise UserError(
            f"{file}: decides on {odd['path'].iloc[0]} of the gallery, and this data has no gallery apart "
            "from its queries; give the dataset= of the run that was reviewed"
        )


def _side(
    file: Path, rows: Iterable[tuple[str, str, str, str, str]], part: Part, split: Split, to: np.ndarray
) -> _Side:
    paths, classes = Names(part.names, same_path), Names(split.class_names, same_word)
    at, ids = ({name: i for i, name in enumerate(names)} for names in (part.names, split.class_names))
    labels, kept = part.labels.copy(), np.ones(len(part), bool)
    for _, path, had, decision, label in rows:
        row = at.get(paths(path))
        if row is None:
            raise UserError(f"{file}: {path} is no test sample of this data; give the dataset= reviewed")
        if split.class_names[part.labels[row]] not in (classes(had), classes(label)):
            now = split.class_names[part.labels[row]]
            raise UserError(f"{file}: {path} is {now} here, {had} in the file; give the dataset= reviewed")
        if decision == "exclude":
            kept[row] = False
        elif decision == "other" and label:
            name = ids.get(classes(label), -1)
            if name < split.num_classes:
                tested = shorten(split.class_names[split.num_classes :], 3)
                raise UserError(f"{file}: {path}: {label} is no class to test with ({tested}); or exclude it")
            labels[row] = name
    return _Side(to[labels], kept)


def _part(part: Part, side: _Side) -> Part:
    rows = np.flatnonzero(side.kept)
    return Part(part.images, part.rows[rows], side.labels[rows], tuple(part.names[i] for i in rows))


def _twins(twins: np.ndarray, queries: np.ndarray, gallery: np.ndarray) -> np.ndarray:
    """The twins of the queries that are kept, counted among the gallery samples that are kept."""
    place = np.where(gallery, np.cumsum(gallery) - 1, -1)
    mine = twins[queries]
    return np.where(mine >= 0, place[mine], -1)
