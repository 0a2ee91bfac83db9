"""Collect finished runs into a table: python -m src.tables [outputs].

One row per setting, mean and standard deviation over its seeds, as Markdown on the terminal and as
tables/summary.md and tables/summary.csv inside the folder.
"""

import argparse
import sys
from pathlib import Path

import pandas as pd
import yaml

from src.artifacts import read_json, short_hash, whole_file, write_csv
from src.errors import UserError

NO_SETTING = ("seed", "output_dir", "num_workers", "logger", "again")  # what changes no finding, and the seed
SEEDED = {"noise", "influence", "detector", "counterfactual"}  # whose seed follows the run's
MODEL_FINDINGS = ["R@1", "MAP@R", "NMI", "confusions", "AUROC", "AP"]  # of a model, however it is looked at
ONE_MODEL = ["dataset", "noise", "model", "loss"]
SETTING = ["dataset", "noise", "model", "loss", "target", "params", "influence", "detector"]


def find(folder: Path) -> list[Path]:
    """The finished runs below a folder; raises UserError where there is none."""
    runs = [path.parent for path in sorted(folder.glob("[!.]*/metrics.json"))]
    if not runs:
        raise UserError(f"{folder}: no finished run (no */metrics.json); make one with python -m src.run")
    return runs


def collect(runs: list[Path]) -> pd.DataFrame:
    """One row per finished run, in the order given."""
    rows = []
    for path in dict.fromkeys(run / "metrics.json" for run in runs):
        report = read_json(path)
        noise = report["noise"] or {}
        lds = report["counterfactual"] or {}
        by_detector, by_influence = noise.get("detector") or {}, noise.get("absolute_influence") or {}
        rows.append(
            {
                **{group: report["choices"].get(group, report.get(group)) for group in SETTING},
                "setting": _setting(path.with_name("config.yaml"), report["seed"]),
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
                "LDS": lds.get("mean"),
                "LDS ±": None if lds.get("low") is None else (lds["high"] - lds["low"]) / 2,
            }
        )
    return pd.DataFrame(rows)


def _setting(config: Path, seed: int) -> str:
    """A hash of every number of a run but its seed: equal for runs that differ in nothing else."""
    if not config.exists():
        return ""
    settings = yaml.safe_load(config.read_text("utf-8"))
    settings = {key: value for key, value in settings.items() if key not in NO_SETTING}
    for group in SEEDED & settings.keys():  # dataset.seed is no follower: it says which data
        kept = settings[group].items()
        settings[group] = {key: value for key, value in kept if not (key == "seed" and value == seed)}
    return short_hash(settings)


def over_seeds(runs: pd.DataFrame) -> pd.DataFrame:
    """Mean ± standard deviation (n - 1) over the runs of each setting; '-' where nothing was measured."""
    measured = [column for column in runs if column not in (*SETTING, "setting", "seed")]

    def cell(values: pd.Series) -> str:
        values = values.astype(float).dropna()
        if values.empty:
            return "-"
        digits = 0 if values.name == "confusions" else 3
        spread = f" ± {values.std():.{digits}f}" if len(values) > 1 else ""
        return f"{values.mean():.{digits}f}{spread}"

    groups = runs.groupby([*SETTING, "setting"], sort=True)
    table = groups[measured].agg(cell)
    table.insert(0, "runs", groups.size())
    return table.reset_index().drop(columns="setting")


def markdown(table: pd.DataFrame) -> str:
    """A Markdown table; a setting with one value for all rows is said once, above, and so is what sweeping
    the way of looking leaves as it is. LDS ±: half of the 95 % interval over what was explained."""
    one = [name for name in table if table[name].nunique() == 1 and len(table) > 1]
    nothing = [name for name in table if name.startswith("LDS") and (table[name] == "-").all()]
    shown = [name for name in SETTING if name in one]
    if len({*table[ONE_MODEL].itertuples(index=False)}) == 1:  # one model, looked at in several ways
        shown += [name for name in MODEL_FINDINGS if name in one]
    rest = table.drop(columns=[*shown, *nothing])
    above = ", ".join(f"{name} {table[name].iloc[0]}" for name in shown)
    cells = [list(rest.columns), ["---"] * len(rest.columns), *rest.astype(str).values.tolist()]
    lines = ["| " + " | ".join(text.replace("|", "\\|") for text in row) + " |" for row in cells]
    return "\n".join([f"All rows: {above}.", ""] * bool(above) + lines) + "\n"


def show(runs: list[Path]) -> str:
    """The table of some runs, such as those of a sweep."""
    return markdown(over_seeds(collect(runs)))


def main(words: list[str]) -> None:
    """Print and write the table."""
    parser = argparse.ArgumentParser(prog="python -m src.tables", description=__doc__)
    parser.add_argument("folder", nargs="?", default="outputs", type=Path, help="where the runs are")
    folder = parser.parse_args(words).folder
    runs = collect(find(folder))
    table = over_seeds(runs)
    text = markdown(table)
    write_csv(folder / "tables" / "runs.csv", runs)
    write_csv(folder / "tables" / "summary.csv", table)
    with whole_file(folder / "tables" / "summary.md") as partial:
        partial.write_text(text, "utf-8")
    print(text)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except UserError as error:
        sys.exit(f"error: {error}")
