"""Read what a reviewer decided: where they agree with the model, and which labels they give.

A decisions file is JSON, as the report's page exports it, or CSV. Labels to give may also come from a run's
relabels.csv, from a clean_list.csv, or from a plain list of path and label. In CSVs that a run or the report
writes, text that a spreadsheet would compute begins with ' (`system.files.guarded`), which is taken off here.
A plain list is taken as it is written.
"""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from deconfuse.system import csv_files
from deconfuse.system.errors import UserError, one_of, within
from deconfuse.system.files import unguarded

FORMAT = 1
PAIR_KINDS = ("confusion", "mis_similar")
PAIR_DECISIONS = (
    "agree",
    "disagree",
    "unsure",
)  # with the model, that a confused pair looks alike or a mis-similar does not
# accept: the recommended label is right; reject: the present one is; other: neither is.
LABEL_DECISIONS = ("accept", "reject", "other", "unsure")
PAIR = ("kind", "query", "neighbour", "query_class", "neighbour_class", "decision")
LABEL = ("path", "class", "decision", "label", "recommended", "vote")
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

    run: the name of the reviewed run, "" if the file does not give it. pairs, labels: with the columns PAIR
    and LABEL, in the file's order; vote is NaN where the file has none.
    """

    file: Path
    run: str
    pairs: pd.DataFrame
    labels: pd.DataFrame


def read(file: Path) -> Review:
    """Read a decisions file; UserError, naming the file and the place in it, if it is not one."""
    if file.suffix.lower() != ".json":
        form, rows = table(file)
        if form != "decisions":
            raise UserError(f"{file}: a {form}, not decisions; it has no column decision")
        return _review(file, _run(rows), rows)
    content = _json(file)
    rows = [
        (f"{file}, {key}[{i}]", key == "labels", entry)
        for key in ("pairs", "labels")
        for i, entry in enumerate(content[key])
    ]
    return _review(file, str(content.get("run") or ""), _plain(rows))


def _run(rows: list[tuple[str, dict[str, str]]]) -> str:
    """The run that a CSV's column run names; "" if there is no such column, or if it names several runs."""
    named = {row.get("run", "") for _, row in rows}
    return named.pop() if len(named) == 1 else ""


def asked(file: Path, min_vote: float) -> pd.DataFrame:
    """The labels that a file gives, as text in the columns ASKED; class is "" where the file does not say
    which label the sample has.

    The decision other gives `label`, and none if that is empty: then only the present label is known to be
    wrong. The decision accept gives `label`, or `recommended` if that is empty. Of a run's relabels.csv those
    rows count whose vote_recommended is at least min_vote, in [0, 1].
    """
    if file.suffix.lower() == ".json":
        return _accepted(read(file))
    form, rows = table(file)
    if form == "decisions":
        return _accepted(_review(file, "", rows))
    found = []
    for place, row in rows:
        if form == "list":
            found.append((row["path"], "", row["label"], "list"))
        elif form == "clean list":
            path, old, new = (row[name] for name in FORMS[form])
            if new not in ("", old):
                found.append((path, old, new, row.get("evidence") or "list"))
        else:
            vote = _number(place, "vote_recommended", row["vote_recommended"])
            if vote >= min_vote:
                found.append((row["path"], row["class"], row["recommended"], f"vote {vote:.2f}"))
    return pd.DataFrame(found, columns=list(ASKED), dtype=object)


def _accepted(review: Review) -> pd.DataFrame:
    chosen = review.labels[
        review.labels["decision"].isin(["accept", "other"]) & (review.labels["label"] != "")
    ]
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


def _json(file: Path) -> dict:
    try:
        content = json.loads(file.read_text("utf-8-sig"))
    except FileNotFoundError:
        raise UserError(f"{file}: no such file") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file}: not whole JSON ({error}); export it again") from None
    except OSError as error:
        raise UserError(f"{file}: can't be read ({error.strerror})") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise UserError(f"{file}: no decisions of format {FORMAT}; export it again from the report")
    for key in ("pairs", "labels"):
        if not isinstance(content.get(key), list):
            raise UserError(f"{file}: {key} is no list; export it again from the report")
    return content


def _plain(rows: list[tuple[str, bool, object]]) -> Iterator[tuple[str, dict[str, str]]]:
    """The entries of a JSON file as rows of a CSV: all values are text, and a pair's query is its path."""
    for place, is_label, entry in rows:
        if not isinstance(entry, dict):
            raise UserError(f"{place}: not an object of names and values; export it again from the report")
        row = {key: "" if value is None else str(value) for key, value in entry.items()}
        if is_label:
            row["kind"] = "label"
        else:
            row |= {"path": row.get("query", ""), "class": row.get("query_class", "")}
        yield place, row


def _review(file: Path, run: str, rows) -> Review:
    pairs, labels = [], []
    for place, row in rows:
        kind = one_of(f"{place}: kind", row.get("kind", "").strip(), (*PAIR_KINDS, "label"))
        if kind == "label":
            labels.append(_label(place, row))
        else:
            path, neighbour = _filled(place, row, "path", "neighbour")
            classes = row.get("class", ""), row.get("neighbour_class", "")
            pairs.append((kind, path, neighbour, *classes, _decision(place, row, PAIR_DECISIONS)))
    _once(file, [row[:3] for row in pairs], [row[-1] for row in pairs])
    _once(file, [row[:1] for row in labels], [row[2:4] for row in labels])
    return Review(
        file,
        run,
        pd.DataFrame(list(dict.fromkeys(pairs)), columns=list(PAIR), dtype=object),
        pd.DataFrame(list({row[0]: row for row in labels}.values()), columns=list(LABEL)).astype(
            dict.fromkeys(LABEL[:-1], object)
        ),
    )


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
