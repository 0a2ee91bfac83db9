"""Collect finished runs into tables and figures: deconfuse tables [outputs] [--review decisions.json].

The first table has a row for each setting, with mean and standard deviation over its seeds. The tables and
figures of the experiments follow, as far as their runs exist, with the paper's values beside ours where it
has any. They are printed as Markdown; tables/results.md has all of them, and each is also written alone as
.md, .csv, .tex and .png.
"""

import argparse
from collections.abc import Iterable
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from deconfuse.launch.experiments import experiments
from deconfuse.report import review
from deconfuse.runs import takes
from deconfuse.runs.finished import Run, read, read_all
from deconfuse.runs.section import MISSING, Section, spread
from deconfuse.runs.settings import row_settings
from deconfuse.runs.takes import current, distinct, natural
from deconfuse.system.csv_files import write_csv
from deconfuse.system.errors import UserError, invoked
from deconfuse.system.files import whole_file
from deconfuse.system.words import agree, many

# Columns that depend on the model, and not on how it is explained.
MODEL_FINDINGS = ["R@1", "MAP@R", "NMI", "confusions", "AUROC", "AP"]
ONE_MODEL = ["dataset", "noise", "model", "loss"]
CHOICES = ["dataset", "noise", "model", "loss", "target", "params", "influence", "detector"]
SETTING = [*CHOICES, "setting"]


def collect(runs: list[Run]) -> pd.DataFrame:
    """One row per run, in order; setting: the settings that distinguish otherwise identical rows."""
    runs = list({run.folder: run for run in runs}.values())
    rows = [_row(run) for run in runs]
    choices, first = [tuple(row[name] for name in CHOICES) for row in rows], {}
    # All seeds of a setting are named after the first of them.
    keys = [(choice, row["hash"]) for choice, row in zip(choices, rows, strict=True)]
    representatives = [first.setdefault(key, run) for key, run in zip(keys, runs, strict=True)]
    for row, words in zip(rows, row_settings(choices, representatives), strict=True):
        row["setting"] = words
    return pd.DataFrame(rows)


def _row(run: Run) -> dict[str, object]:
    """A run's choices and findings; None where it did not measure one."""
    report = run.report
    noise, lds, corrected = report["noise"], report["counterfactual"], report["corrections"]
    by_detector, by_influence = (noise and noise[key] for key in ("detector", "absolute_influence"))
    return {
        **{group: run.choice(group) for group in CHOICES},
        "noise": run.noise + (", corrected" if corrected else ""),
        "setting": "",
        "hash": run.setting(),
        "data": run.data[:8],
        "seed": run.seed,
        **{name: report["retrieval"][name] for name in ("R@1", "MAP@R", "NMI")},
        "confusions": report["confusions"],
        "AUROC": by_detector and by_detector["auroc"],
        "AP": by_detector and by_detector["average_precision"],
        "AUROC |influence|": by_influence and by_influence["auroc"],
        "AP |influence|": by_influence and by_influence["average_precision"],
        "recommended right": noise and noise["recommended_right"],
        "R@1 before": corrected and corrected["before"]["R@1"],
        "change of d": _change(run),
        "LDS": lds and lds["mean"],
        "LDS ±": (lds["high"] - lds["low"]) / 2 if lds and lds["low"] is not None else None,
    }


def _change(run: Run) -> float | None:
    """Mean change of d by retraining; of mis-similar pairs the report has the change of -d."""
    again = run.report["retrain"]
    if not again:
        return None
    return -again["mean"] if run.report["explained"]["table"] == "mis_similar.csv" else again["mean"]


def over_seeds(runs: pd.DataFrame) -> pd.DataFrame:
    """Mean ± standard deviation (n - 1) over the runs of each setting.

    A cell ends in "(2 of 5)" where only some runs have the number; it is "-" where none has.
    """
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
    """A Markdown table; constant columns move to a header line above it.

    These are columns of settings, and, where all rows explain the same model, columns of that model's
    findings. LDS ±: half of the 95 % interval over the explanations.
    """
    one = [name for name in table if table[name].nunique() == 1 and len(table) > 1]
    nothing = [name for name in table if (table[name] == "-").all()]
    if not table["setting"].any():
        one, nothing = [name for name in one if name != "setting"], [*nothing, "setting"]
    shown = [name for name in SETTING if name in one]
    if len({*table[ONE_MODEL].itertuples(index=False)}) == 1:  # one model, explained in several ways
        shown += [name for name in MODEL_FINDINGS if name in one and name not in nothing]
    rest = table.drop(columns=[*shown, *nothing])
    above = ", ".join(f"{name} {table[name].iloc[0]}" for name in shown)
    return "\n".join([f"All rows: {above}.", ""] * bool(above) + [grid(rest)]) + "\n"


def show(folders: list[Path]) -> str:
    """The Markdown table of some runs, such as those of a sweep."""
    return markdown(over_seeds(collect(distinct(current(map(read, folders))))))


def ordered(found: Iterable[list[Section]]) -> list[Section]:
    """The sections of all modules by title, tables before figures; those of one module stay together."""

    def place(sections: list[Section]) -> tuple[bool, bool, str]:
        title = sections[0].title
        return not title.startswith("Table"), not title.startswith("Figure"), title

    return [section for sections in sorted(filter(None, found), key=place) for section in sections]


def grid(table: pd.DataFrame) -> str:
    """A Markdown table with all of its columns."""
    cells = [list(table.columns), ["---"] * len(table.columns), *table.astype(str).values.tolist()]
    return "\n".join("| " + " | ".join(text.replace("|", "\\|") for text in row) + " |" for row in cells)


def latex(table: pd.DataFrame, title: str) -> str:
    """A LaTeX table environment with booktabs' rules; special characters of the cells are escaped."""
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


def as_markdown(section: Section) -> str:
    """A section as Markdown, with a link to its picture."""
    picture = "" if section.picture is None else f"![{section.title}]({section.name}.png)\n\n"
    note = f"{section.note}\n\n" if section.note else ""
    return f"## {section.title}\n\n{picture}{grid(section.table)}\n\n{note}".rstrip() + "\n"


def write(folder: Path, section: Section) -> None:
    """Write the section's files, each completely or not at all."""
    write_csv(folder / f"{section.name}.csv", section.table)
    _text(folder / f"{section.name}.md", as_markdown(section))
    _text(folder / f"{section.name}.tex", latex(section.table, section.title))
    if section.picture is not None:
        with whole_file(folder / f"{section.name}.png") as partial:
            if isinstance(section.picture, Figure):
                section.picture.savefig(partial, format="png", dpi=110)
            else:
                section.picture.save(partial, "png")


def _text(path: Path, text: str) -> None:
    with whole_file(path) as partial:
        partial.write_text(text, "utf-8")


def show_review(folder: Path, files: list[Path]) -> None:
    """Print and write the tables of reviewers' decisions; UserError where the files hold none."""
    found = review.sections(files, folder)
    if not found:
        raise UserError(f"{files[0]}: holds no decision; decide in the report, and export again")
    for section in found:
        write(folder / "tables", section)
    print("\n".join(as_markdown(section) for section in found))
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
    show_all(words.folder)


def show_all(folder: Path) -> None:
    """Print and write the tables of all runs in a folder, then what was left out of them and why."""
    every, others = read_all(folder)
    runs = current(every)
    found = {name: module.sections(takes.taken(module, runs)) for name, module in experiments().items()}
    here, all_runs, summary = folder / "tables", collect(every), over_seeds(collect(distinct(runs)))
    write_csv(here / "runs.csv", all_runs)
    write_csv(here / "summary.csv", summary)
    text = markdown(summary) if len(summary) else ""
    _text(here / "summary.md", text)
    sections = []
    for section in ordered(found.values()):
        write(here, section)
        sections.append(as_markdown(section))
    _text(here / "results.md", "\n".join(["# Tables and figures\n", *sections]))
    print("\n".join([text, *sections]))
    for line in left_out(every, runs, others):
        print(line)
    absent = [name for name, made in found.items() if not made]
    if absent:
        print(f"Not there yet: {', '.join(absent)}. Make one with {invoked('run')} -m experiment=NAME")
    print(f"Written to {here}/: results.md, and of each table .md, .csv and .tex")


def left_out(every: list[Run], runs: list[Run], others: int) -> list[str]:
    """A line for each kind of runs that is not in all tables.

    every: the runs of this version; runs: those of current data; others: how many another version wrote.
    """
    lines = []
    if others:
        lines.append(
            f"{others} of {many(len(every) + others, 'run')} {agree(others, 'was', 'were')} written by "
            "another "
            f"version of deconfuse and {agree(others)} left out; the commands in their metrics.json make "
            "them anew"
        )
    if len(runs) < len(every):
        old = len(every) - len(runs)
        lines.append(
            f"{old} of {many(len(every), 'run')} {agree(old)} of data that has changed since, and "
            f"{agree(old)} only in runs.csv"
        )
    unscored = sum(takes.nothing_scored(run) for run in runs if not run.report["corrections"])
    if unscored:
        lines.append(
            f"{unscored} of {many(len(runs), 'run')} {agree(unscored, 'has', 'have')} no score but 0 "
            "(influence=if solved no system? raise influence.damping), and "
            f"{agree(unscored)} in no table about scores"
        )
    return lines
