"""Does removing the samples that a method blames mend the confusion? Methods against random samples."""

from collections.abc import Iterable

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from deconfuse.retrieval.statistics import holm, paired, wilson
from deconfuse.runs import panels
from deconfuse.runs.finished import Run
from deconfuse.runs.section import MISSING, Section
from deconfuse.runs.settings import frame
from deconfuse.runs.takes import by_seed, grouped, usual

BASELINE = "random"
COLUMNS = ("row", "share", "left_out", "seed", "d_kept", "d", "confused_kept", "confused")
NOTE = (
    "Head and proxies are trained from scratch without the samples that score most harmful on a confusion, "
    "several seeds each, and with all of them. Change of d: mean over the confusions and seeds of d without "
    "minus d with all of the same seed; > 0, the pair is further apart. In sd: in units of the seeds' own "
    "standard deviation of d with all samples (root mean square over the confusions). Mended: of the "
    "confusions that are confused with all samples in most seeds, the share that is not confused in most "
    "seeds, with Wilson's 95 % interval. Over random: the difference to as many random samples, in sd, its "
    "effect size (mean / standard deviation over the confusions) with its 95 % interval, and p of the "
    "one-sided paired t-test over the confusions, after Holm's correction for all methods and shares of the "
    "data set. The confusions of a model share its training set, so p says nothing of other models."
)


def sections(runs: list[Run]) -> list[Section]:
    """A row for each data set, noise, loss, share and method, with its picture."""
    chosen = usual([run for run in runs if run.report["leave_out"]], "influence")
    rows, pictured = [], []
    for alike in grouped(chosen, _key).values():
        methods = {
            method: pooled(by_seed(some).values())
            for method, some in grouped(alike, lambda run: run.choice("influence")).items()
        }
        first = alike[0]
        where = dict(zip(("dataset", "noise", "loss"), _key(first)[:3], strict=True))
        rows += [(first, {**where, **row}) for row in compared(methods)]
        pictured.append((*first.panel("influence"), methods))
    if not rows:
        return []
    shown = panels.of_one_setting(pictured, len)
    title = "Does removing the blamed samples mend the confusion?"
    found = frame(rows, without=("influence",))
    return [Section("leave_out", title, found, NOTE, _draw(shown))]


def _key(run: Run) -> tuple[str, ...]:
    return run.choice("dataset"), run.noise, run.choice("loss"), run.setting("influence")


def pooled(models: Iterable[Run]) -> pd.DataFrame:
    """A row per model, confusion and share: d and change in sd (mean over seeds), and majorities of confused.

    Columns: model, row, share, change, in_sd, before (confused with all samples in most seeds), after.
    """
    tables = []
    for run in models:
        table = run.table("left_out.csv", *COLUMNS)
        table["change"] = table["d"] - table["d_kept"]
        found = table.groupby(["row", "share"], as_index=False).agg(
            change=("change", "mean"),
            left_out=("left_out", "first"),
            before=("confused_kept", lambda x: x.mean() > 0.5),
            after=("confused", lambda x: x.mean() > 0.5),
        )
        spread = run.report["leave_out"]["spread"]
        found["in_sd"] = found["change"] / spread if spread else np.nan
        tables.append(found.assign(model=run.report["checkpoint"]["sha256"]))
    return pd.concat(tables, ignore_index=True)


def compared(methods: dict[str, pd.DataFrame]) -> list[dict[str, str]]:
    """The cells of each share and method; methods: what `pooled` returns of each."""
    cells, tests = [], []
    for share in sorted({share for table in methods.values() for share in table["share"]}):
        for method, table in methods.items():
            here = table[table["share"] == share]
            if not len(here):
                continue
            test = _against(here, methods.get(BASELINE), share) if method != BASELINE else None
            was = here[here["before"]]
            cells.append(
                {
                    "left out": f"{share:.1%} ({here['left_out'].iloc[0]})",
                    "method": method,
                    "models": str(here["model"].nunique()),
                    "confusions": str(len(here)),
                    "change of d": f"{here['change'].mean():+.4f}",
                    "in sd": f"{here['in_sd'].mean():+.2f}",
                    "mended": _mended(int((~was["after"]).sum()), len(was)),
                }
            )
            tests.append(test)
    corrected = iter(holm([test["p_t"] for test in tests if test]))
    for cell, test in zip(cells, tests, strict=True):
        cell |= _cells(test, next(corrected)) if test else dict.fromkeys(("over random", "effect", "p"), "-")
    return cells


def _against(here: pd.DataFrame, baseline: pd.DataFrame | None, share: float) -> dict | None:
    """The paired test of the changes in sd against random's, on the confusions that both looked at."""
    if baseline is None:
        return None
    both = here.merge(baseline[baseline["share"] == share], on=["model", "row"], suffixes=("", "_random"))
    return paired(both["in_sd"].to_numpy(float), both["in_sd_random"].to_numpy(float))


def _cells(test: dict, p: float) -> dict[str, str]:
    known = np.isfinite(test["effect"])
    return {
        "over random": f"{test['improvement']:+.2f}" if test["n"] else MISSING,
        "effect": f"{test['effect']:.2f} [{test['low']:.2f}, {test['high']:.2f}]" if known else "-",
        "p": f"{p:.1e}" if np.isfinite(p) else "-",
    }


def _mended(successes: int, n: int) -> str:
    if not n:
        return "-"
    low, high = wilson(successes, n)
    return f"{successes} of {n} [{low:.0%}, {high:.0%}]"


def _draw(pictured: dict[tuple[str, str, str], dict[str, pd.DataFrame]]) -> Figure:
    """Each method's mean change of d in sd by the share left out, a panel for each data set."""
    figure, axes = panels.tiles(len(pictured), 2, 4.6, 3.0)
    for axis, (where, methods) in zip(axes, pictured.items(), strict=True):
        for i, (method, table) in enumerate(methods.items()):
            mean = table.groupby("share")["in_sd"].mean()
            axis.plot(100 * mean.index, mean, label=method, **panels.style(i))
        axis.axhline(0, color="#888888", linewidth=0.8)
        axis.set_xlabel("left out, % of the training set")
        axis.set_ylabel("change of d, sd of the seeds")
        panels.entitle(axis, *where)
    panels.legend(figure)
    return figure
