"""Collect finished runs into tables and figures: deconfuse tables [outputs] [--review decisions.json].

One row per setting, mean and standard deviation over its seeds; then the tables and figures of
experiment/, each as far as its runs are there, the paper's value beside ours where it has one. On the
terminal as Markdown; in tables/ results.md with everything, and of each table .md, .csv, .tex and .png.
"""

import argparse
import importlib
import pkgutil
from collections.abc import Iterable
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from deconfuse import experiment
from deconfuse.runs import review
from deconfuse.runs.finished import Run, current, distinct, find, natural, newest, read
from deconfuse.runs.part import MISSING, Part, spread
from deconfuse.runs.settings import told
from deconfuse.system.errors import UserError, invoked
from deconfuse.system.files import whole_file, write_csv

MODEL_FINDINGS = ["R@1", "MAP@R", "NMI", "confusions", "AUROC", "AP"]  # of a model, however it is looked at
ONE_MODEL = ["dataset", "noise", "model", "loss"]
LOOKS = ["dataset", "noise", "model", "loss", "target", "params", "influence", "detector"]
SETTING = [*LOOKS, "setting"]
SCORELESS = ("figure1", "table3", "closed_loop")  # experiments whose tables look at no score


def collect(runs: list[Run]) -> pd.DataFrame:
    """One row per finished run, in the order given; setting: what tells it from others that look the same."""
    runs, rows = list({run.folder: run for run in runs}.values()), []
    for run in runs:
        report = run.report
        noise, lds = report["noise"] or {}, report.get("counterfactual") or {}
        corrected = report.get("corrections")
        by_detector, by_influence = noise.get("detector") or {}, noise.get("absolute_influence") or {}
        rows.append(
            {
                **{group: run.choice(group) for group in LOOKS},
                "noise": run.noise + (", corrected" if corrected else ""),
                "setting": "",
                "hash": run.setting(),
                "data": (run.data or "")[:8],
                "seed": report["seed"],
                "R@1": report["retrieval"]["R@1"],
                "MAP@R": report["retrieval"]["MAP@R"],
                "NMI": report["retrieval"].get("NMI"),
                "confusions": report["confusions"],
                "AUROC": by_detector.get("auroc"),
                "AP": by_detector.get("average_precision"),
                "AUROC |influence|": by_influence.get("auroc"),
                "AP |influence|": by_influence.get("average_precision"),
                "recommended right": noise.get("recommended_right"),
                "R@1 before": corrected and corrected["before"]["R@1"],
                "change of d": _change(run),
                "LDS": lds.get("mean"),
                "LDS ±": None if lds.get("low") is None else (lds["high"] - lds["low"]) / 2,
            }
        )
    looks, first = [tuple(row[name] for name in LOOKS) for row in rows], {}
    # The seeds of a setting stand together as the first of them.
    keys = [(look, row["hash"]) for look, row in zip(looks, rows, strict=True)]
    of = [first.setdefault(key, run) for key, run in zip(keys, runs, strict=True)]
    for row, words in zip(rows, told(looks, of), strict=True):
        row["setting"] = words
    return pd.DataFrame(rows)


def _change(run: Run) -> float | None:
    """Mean change of d by retraining; the report of mis-similar pairs has that of -d."""
    again, explained = run.report.get("retrain"), run.report.get("explained") or {}
    if not again:
        return None
    return -again["mean"] if explained.get("table") == "mis_similar.csv" else again["mean"]


def over_seeds(runs: pd.DataFrame) -> pd.DataFrame:
    """Mean ± standard deviation (n - 1) over the runs of each setting, "(2 of 5)" where only some have the
    number; "-" where none has."""
    measured = [column for column in runs if column not in (*SETTING, "hash", "data", "seed")]

    def cell(values: pd.Series) -> str:
        digits = {"confusions": 0, "change of d": 4}.get(values.name, 3)
        found = spread(values.astype(float), digits, small=values.name == "change of d")
        return "-" if found == MISSING else found

    groups = runs.groupby([*SETTING, "hash"], sort=True)
    table = groups[measured].agg(cell)
    table.insert(0, "runs", groups.size())
    table = table.reset_index().drop(columns="hash")
    return table.sort_values(SETTING, key=lambda column: column.map(natural), ignore_index=True)


def markdown(table: pd.DataFrame) -> str:
    """A Markdown table; a setting with one value for all rows is said once, above, and so is what sweeping
    the way of looking leaves as it is. LDS ±: half of the 95 % interval over what was explained."""
    one = [name for name in table if table[name].nunique() == 1 and len(table) > 1]
    nothing = [name for name in table if (table[name] == "-").all()]
    if not table["setting"].any():
        one, nothing = [name for name in one if name != "setting"], [*nothing, "setting"]
    shown = [name for name in SETTING if name in one]
    if len({*table[ONE_MODEL].itertuples(index=False)}) == 1:  # one model, looked at in several ways
        shown += [name for name in MODEL_FINDINGS if name in one and name not in nothing]
    rest = table.drop(columns=[*shown, *nothing])
    above = ", ".join(f"{name} {table[name].iloc[0]}" for name in shown)
    return "\n".join([f"All rows: {above}.", ""] * bool(above) + [grid(rest)]) + "\n"


def show(folders: list[Path]) -> str:
    """The table of some runs, such as those of a sweep."""
    return markdown(over_seeds(collect(distinct(current(map(read, folders))))))


def nothing_scored(run: Run) -> bool:
    """Whether no explanation of a run has a score but 0."""
    explained = run.report.get("explained") or {}
    return 0 < explained.get("rows", 0) == explained.get("unscored")


def experiments() -> dict[str, object]:
    """The modules of experiment/ by name: the paper's tables, its figures, then what goes past it."""
    names = [module.name for module in pkgutil.iter_modules(experiment.__path__)]
    names.sort(key=lambda name: (not name.startswith("table"), not name.startswith("figure"), name))
    return {name: importlib.import_module(f"{experiment.__name__}.{name}") for name in names}


def ordered(found: Iterable[list[Part]]) -> list[Part]:
    """The parts, those of a module together, in that order too, but by title: pairs before groups."""

    def place(parts: list[Part]) -> tuple[bool, bool, str]:
        title = parts[0].title
        return not title.startswith("Table"), not title.startswith("Figure"), title

    return [part for parts in sorted(filter(None, found), key=place) for part in parts]


def grid(table: pd.DataFrame) -> str:
    """A Markdown table with all of its columns."""
    cells = [list(table.columns), ["---"] * len(table.columns), *table.astype(str).values.tolist()]
    return "\n".join("| " + " | ".join(text.replace("|", "\\|") for text in row) + " |" for row in cells)


def latex(table: pd.DataFrame, title: str) -> str:
    """A table environment with booktabs' rules; every character of the cells is shown as it is."""
    special = {
        "\\": r"\textbackslash{}",
        "±": r"$\pm$",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
    }
    special |= {each: "\\" + each for each in "&%$#_{}"} | {"<": "$<$", ">": "$>$", "|": r"\textbar{}"}

    def line(row: list) -> str:
        return " & ".join("".join(special.get(c, c) for c in str(cell)) for cell in row) + r" \\"

    rows = [line(row) for row in table.values.tolist()]
    head = [r"\begin{table}", r"\centering", rf"\caption{{{''.join(special.get(c, c) for c in title)}}}"]
    head += [rf"\begin{{tabular}}{{{'l' * len(table.columns)}}}", r"\toprule", line(list(table.columns))]
    return "\n".join([*head, r"\midrule", *rows, r"\bottomrule", r"\end{tabular}", r"\end{table}"]) + "\n"


def section(part: Part) -> str:
    """A part as Markdown, with its picture beside it."""
    picture = "" if part.picture is None else f"![{part.title}]({part.name}.png)\n\n"
    note = f"{part.note}\n\n" if part.note else ""
    return f"## {part.title}\n\n{picture}{grid(part.table)}\n\n{note}".rstrip() + "\n"


def write(folder: Path, part: Part) -> None:
    """The part's files, each whole or not at all."""
    write_csv(folder / f"{part.name}.csv", part.table)
    _text(folder / f"{part.name}.md", section(part))
    _text(folder / f"{part.name}.tex", latex(part.table, part.title))
    if part.picture is not None:
        with whole_file(folder / f"{part.name}.png") as partial:
            if isinstance(part.picture, Figure):
                part.picture.savefig(partial, format="png", dpi=110)
            else:
                part.picture.save(partial, "png")


def _text(path: Path, text: str) -> None:
    with whole_file(path) as partial:
        partial.write_text(text, "utf-8")


def show_review(folder: Path, files: list[Path]) -> None:
    """Print and write the tables of reviewers' decisions."""
    found = review.parts(files, folder)
    if not found:
        raise UserError(f"{files[0]}: holds no decision; decide in the report, and export again")
    for part in found:
        write(folder / "tables", part)
    print("\n".join(section(part) for part in found))
    print(f"Written to {folder / 'tables'}/: of each table .md, .csv and .tex")


def main(words: list[str]) -> None:
    """Print and write the tables."""
    parser = argparse.ArgumentParser(prog=invoked("tables"), description=__doc__)
    parser.add_argument("folder", nargs="?", default="outputs", type=Path, help="where the runs are")
    parser.add_argument(
        "--review",
        nargs="+",
        type=Path,
        metavar="FILE",
        help="make Tables 4 and 6 of these decisions (.json or .csv); with more files, how far they agree",
    )
    words = parser.parse_args(words)
    if words.review:
        return show_review(words.folder, words.review)
    folder = words.folder
    every = [read(path) for path in find(folder)]
    runs = current(every)
    # The paper's tables are of the labels as they were given.
    given = [run for run in runs if not run.report.get("corrections")]
    scored = [run for run in given if not nothing_scored(run)]
    looked_at = {"relabels": runs} | dict.fromkeys(SCORELESS, given)
    found = {name: module.parts(looked_at.get(name, scored)) for name, module in experiments().items()}
    here, all_runs = folder / "tables", collect(every)
    summary = over_seeds(collect(distinct(runs)))
    write_csv(here / "runs.csv", all_runs)
    write_csv(here / "summary.csv", summary)
    text = markdown(summary)
    _text(here / "summary.md", text)
    sections = []
    for part in ordered(found.values()):
        write(here, part)
        sections.append(section(part))
    _text(here / "results.md", "\n".join(["# Tables and figures\n", *sections]))
    print("\n".join([text, *sections]))
    if len(runs) < len(every):
        print(
            f"{len(every) - len(runs)} of {len(every)} runs are of data that has changed since, and are only "
            "in runs.csv"
        )
    if len(scored) < len(given):
        print(
            f"{len(given) - len(scored)} of {len(runs)} runs found no score but 0 (influence=if solved no "
            "system? raise influence.damping), and are in no table of what scores do"
        )
    older = len(runs) - len(newest(runs))
    if older:
        print(
            f"{older} of {len(runs)} runs are of an older format and count only where their setting has no "
            "newer one; the commands that made them make them anew"
        )
    absent = [name for name, parts in found.items() if not parts]
    if absent:
        print(f"Not there yet: {', '.join(absent)}. Make one with {invoked('run')} -m experiment=NAME")
    print(f"Written to {here}/: results.md, and of each table .md, .csv and .tex")
