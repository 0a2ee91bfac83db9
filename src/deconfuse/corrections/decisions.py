"""Read what a reviewer decided: where they agree with the model, and which labels they give.

A decisions file is JSON, as the report's page exports it, or CSV. Labels to give may also come from a run's
relabels.csv, from a clean_list.csv, from what Label Studio or FiftyOne exports (`labelling_tools`), or from a
plain list of path and label. In CSVs that a run or the report
writes, text that a spreadsheet would compute begins with ' (`system.files.guarded`), which is taken off here.
A plain list is taken as it is written.
"""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from deconfuse.corrections import labelling_tools
from deconfuse.system import csv_files
from deconfuse.system.csv_files import unguarded
from deconfuse.system.errors import UserError, one_of, within

FORMAT = 1
PAIR_KINDS = ("confusion", "mis_similar")
# With the model: that a confused pair looks alike, or that a mis-similar pair does not.
PAIR_DECISIONS = ("agree", "disagree", "unsure")
# accept: the recommended label is right; reject: the present one is; other: neither is; exclude: the sample
# is left out, as it is no usable picture.
LABEL_DECISIONS = ("accept", "reject", "other", "exclude", "unsure")
TEST_KINDS = ("query", "gallery")  # the test side's parts
TEST_DECISIONS = ("reject", "other", "exclude", "unsure")
# merge: all samples of the first class get the second one; swap: each class gets the other's samples; apart:
# the two are rightly two classes.
CLASS_DECISIONS = ("merge", "swap", "apart")
PAIR = ("kind", "query", "neighbour", "query_class", "neighbour_class", "decision")
LABEL = ("path", "class", "decision", "label", "recommended", "vote")
TEST = ("kind", "path", "class", "decision", "label")
CLASSES = ("class", "with", "decision")
ASKED = ("path", "class", "label", "evidence")
# The columns of each kind of CSV; a file is of the first kind whose columns it has.
FORMS = {
    "decisions": ("kind", "path", "class", "decision"),
    "clean list": ("path", "old_label", "new_label"),
    "relabels": ("rank", "path", "class", "recommended", "vote_recommended"),
    "list": ("path", "label"),
}


@dataclass(frozen=True)
class Review:
    """One reviewer's file.

    run: the name of the reviewed run, "" if the file does not give it. pairs; labels, of training samples;
    tests, labels of test samples; classes, decisions on two classes: with the columns PAIR, LABEL, TEST and
    CLASSES, in the file's order; vote is NaN where the file has none.
    """

    file: Path
    run: str
    pairs: pd.DataFrame
    labels: pd.DataFrame
    tests: pd.DataFrame
    classes: pd.DataFrame


def read(file: Path) -> Review:
    """Read a decisions file; UserError, naming the file and the place in it, if it is not one."""
    if file.suffix.lower() != ".json":
        form, rows = table(file)
        if form != "decisions":
            raise UserError(f"{file}: a {form}, not decisions; it has no column decision")
        return _review(file, _run(rows), rows)
    return _decided(file, _json(file))


def _decided(file: Path, content: object) -> Review:
    """The review that a file's JSON holds."""
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise UserError(f"{file}: no decisions of format {FORMAT}; export it again from the report")
    content = {"tests": [], "classes": [], **content}  # a file that decides on none need not say so
    for key in ("pairs", "labels", "tests", "classes"):
        if not isinstance(content.get(key), list):
            raise UserError(f"{file}: {key} is no list; export it again from the report")
    rows = [
        (f"{file}, {key}[{i}]", key, entry)
        for key in ("pairs", "labels", "tests", "classes")
        for i, entry in enumerate(content[key])
    ]
    return _review(file, str(content.get("run") or ""), _plain(rows))


def _run(rows: list[tuple[str, dict[str, str]]]) -> str:
    """The run that a CSV's column run names; "" if there is no such column, or if it names several runs."""
    named = {row.get("run", "") for _, row in rows}
    return named.pop() if len(named) == 1 else ""


def asked(file: Path, min_vote: float) -> pd.DataFrame:
    """The labels that a file gives, as text in the columns ASKED; class is "" where the file does not say
    which label the sample has, and label is `labelling_tools.LEFT_OUT` where the sample is to be left out.

    The decision other gives `label`, and none if that is empty: then only the present label is known to be
    wrong. The decision accept gives `label`, or `recommended` if that is empty. Of a run's relabels.csv those
    rows count whose vote_recommended is at least min_vote, in [0, 1]. A clean list without a new label leaves
    the sample out.
    """
    if file.suffix.lower() == ".json":
        content = _json(file)
        if not labelling_tools.known(content):
            return _accepted(_decided(file, content))
        return pd.DataFrame(labelling_tools.given(file, content), columns=list(ASKED), dtype=object)
    form, rows = table(file)
    if form == "decisions":
        return _accepted(_review(file, "", rows))
    found = []
    for place, row in rows:
        if form == "list":
            found.append((*_filled(place, row, "path"), "", *_filled(place, row, "label"), "list"))
        elif form == "clean list":
            path, old, new = (row[name] for name in FORMS[form])
            if new != old:
                found.append((path, old, new, row.get("evidence") or "list"))
        else:
            vote = _number(place, "vote_recommended", row["vote_recommended"])
            if vote >= min_vote:
                found.append((row["path"], row["class"], row["recommended"], f"vote {vote:.2f}"))
    return pd.DataFrame(found, columns=list(ASKED), dtype=object)


def beside(file: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(decisions on labels of test samples, on two classes) of a file, in the columns TEST and CLASSES;
    without rows where the file holds no decisions but labels."""
    if file.suffix.lower() == ".json":
        content = _json(file)
        review = _review(file, "", []) if labelling_tools.known(content) else _decided(file, content)
    else:
        form, rows = table(file)
        review = _review(file, _run(rows), rows if form == "decisions" else [])
    return review.tests, review.classes


def _accepted(review: Review) -> pd.DataFrame:
    labels = review.labels
    given = labels["decision"].isin(["accept", "other"]) & (labels["label"] != "")
    chosen = labels[given | (labels["decision"] == "exclude")]
    return chosen.assign(evidence="reviewer")[list(ASKED)].reset_index(drop=True)


def table(file: Path) -> tuple[str, list[tuple[str, dict[str, str]]]]:
    """(kind, rows) of a CSV: which of FORMS it is, and (place, row) of each line that is not empty.

    UserError if it is of no known kind. Names of columns are compared in small letters; `csv_files.read` says
    what is read.
    """
    rows = csv_files.read(file)
    header = [word.casefold() for word in rows.header]
    form = next((name for name, needed in FORMS.items() if set(needed) <= set(header)), None)
    if form is None:
        known = "; ".join(f"{name}: {', '.join(needed)}" for name, needed in FORMS.items())
        raise UserError(f"{file}: its columns are {', '.join(rows.header) or 'none'}; known are {known}")
    rows.places(FORMS[form])  # none of them twice
    odd = rows.short if rows.short is not None else rows.long and rows.long[0]
    if odd is not None:
        raise UserError(
            f"{file}, line {rows.line(odd)}: not the {len(header)} cells of the header; mend the line"
        )
    lines = rows.lines()
    plain = form == "list"
    found = []
    for line, cells in zip(lines, zip(*rows.columns, strict=True), strict=True):
        if any(cells):
            row = dict(zip(header, cells if plain else map(unguarded, cells), strict=True))
            found.append((f"{file}, line {line}", row))
    return form, found


def _json(file: Path) -> object:
    try:
        return json.loads(file.read_text("utf-8-sig"))
    except FileNotFoundError:
        raise UserError(f"{file}: no such file") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file}: not whole JSON ({error}); export it again") from None
    except OSError as error:
        raise UserError(f"{file}: can't be read ({error.strerror})") from None


def _plain(rows: list[tuple[str, str, object]]) -> Iterator[tuple[str, dict[str, str]]]:
    """The entries of a JSON file as rows of a CSV.

    All values are text, a pair's query is its path, and the second of two classes is its neighbour_class.
    """
    for place, key, entry in rows:
        if not isinstance(entry, dict):
            raise UserError(f"{place}: not an object of names and values; export it again from the report")
        row = {name: "" if value is None else str(value) for name, value in entry.items()}
        if key == "labels":
            row["kind"] = "label"
        elif key == "classes":
            row |= {"kind": "classes", "neighbour_class": row.get("with", "")}
        elif key == "pairs":
            row |= {"path": row.get("query", ""), "class": row.get("query_class", "")}
        yield place, row


def _review(file: Path, run: str, rows) -> Review:
    found: dict[str, list[tuple]] = {"pairs": [], "labels": [], "tests": [], "classes": []}
    kinds = (*PAIR_KINDS, "label", *TEST_KINDS, "classes")
    for place, row in rows:
        kind = one_of(f"{place}: kind", row.get("kind", "").strip(), kinds)
        if kind == "label":
            found["labels"].append(_label(place, row))
        elif kind == "classes":
            found["classes"].append(_class_pair(place, row))
        elif kind in TEST_KINDS:
            path, current = _filled(place, row, "path", "class")
            decision = _decision(place, row, TEST_DECISIONS)
            label = row.get("label", "") if decision == "other" else ""
            found["tests"].append((kind, path, current, decision, label))
        else:
            path, neighbour = _filled(place, row, "path", "neighbour")
            classes = row.get("class", ""), row.get("neighbour_class", "")
            found["pairs"].append((kind, path, neighbour, *classes, _decision(place, row, PAIR_DECISIONS)))
    _once(file, [row[:3] for row in found["pairs"]], [row[-1] for row in found["pairs"]])
    _once(file, [row[:1] for row in found["labels"]], [row[2:4] for row in found["labels"]])
    _once(file, [row[:2] for row in found["tests"]], [row[3:] for row in found["tests"]])
    both = [tuple(sorted(row[:2])) for row in found["classes"]]
    _once(file, both, [row[2] if row[2] != "merge" else row for row in found["classes"]])
    columns = {"pairs": PAIR, "labels": LABEL, "tests": TEST, "classes": CLASSES}
    found["labels"] = list({row[0]: row for row in found["labels"]}.values())
    frames = {
        key: pd.DataFrame(list(dict.fromkeys(found[key])), columns=list(names)).astype(
            {name: object for name in names if name != "vote"}
        )
        for key, names in columns.items()
    }
    return Review(file, run, **frames)


def _class_pair(place: str, row: dict[str, str]) -> tuple[str, str, str]:
    one, other = _filled(place, row, "class", "neighbour_class")
    if one == other:
        raise UserError(f"{place}: {one} and {other} are one class; name two")
    return one, other, _decision(place, row, CLASS_DECISIONS)


def _once(file: Path, things: list[tuple], decided: list) -> None:
    """Raise UserError if there are two different decisions on the same thing."""
    seen: dict[tuple, object] = {}
    for thing, decision in zip(things, decided, strict=True):
        if seen.setdefault(thing, decision) != decision:
            raise UserError(f"{file}: decides on {', '.join(thing)} in two ways; keep one")


def _label(place: str, row: dict[str, str]) -> tuple:
    path, current = _filled(place, row, "path", "class")
    decision, label = _decision(place, row, LABEL_DECISIONS), row.get("label", "")
    recommended, vote = row.get("recommended", ""), row.get("vote", "")
    if decision == "accept":
        label = label or recommended
    if decision == "accept" and not label:
        raise UserError(f"{place}: decision=accept without a label to give; fill label, or say unsure")
    return path, current, decision, label, recommended, _number(place, "vote", vote) if vote else math.nan


def _decision(place: str, row: dict[str, str], valid: tuple[str, ...]) -> str:
    return one_of(f"{place}: decision", row.get("decision", "").strip(), valid)


def _filled(place: str, row: dict[str, str], *names: str) -> list[str]:
    empty = [name for name in names if not row.get(name)]
    if empty:
        raise UserError(f"{place}: no {' and no '.join(empty)}; export it again, or fill it")
    return [row[name] for name in names]


def _number(place: str, name: str, text: str) -> float:
    try:
        # Some spreadsheets write a decimal comma. Rounded, because a sum of float32 votes may exceed 1.
        value = round(float(text.replace(",", ".")), 6)
    except ValueError:
        raise UserError(f"{place}: {name}={text} is not a number") from None
    return within(f"{place}: {name}", value, 0, 1)
