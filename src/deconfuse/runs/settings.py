"""Names the settings that distinguish otherwise identical rows of a table."""

from collections.abc import Sequence

import pandas as pd

from deconfuse.runs.finished import Run
from deconfuse.runs.identity import ASIDE, OFF, flat


def differences(runs: Sequence[Run], only: tuple[str, ...] = (), without: tuple[str, ...] = ()) -> list[str]:
    """For each run, the settings in which the runs differ, as on the command line.

    only: the groups that are compared, () for all; without: groups and keys that are left out. Where runs
    have different options of a group, such as recipe=photo, the option is named; keys below it are named
    only where runs with the same option differ. Where a run left out an optional step, such as the loop, only
    the key that turns the step off is named.
    """

    def named(key: str) -> bool:
        group = key.partition(".")[0]
        return group not in without and key not in without and (not only or group in only)

    options = sorted({group for run in runs for group in run.report["choices"] if named(group)} - ASIDE)
    options = [group for group in options if len({run.choice(group) for run in runs}) > 1]
    words = [[f"{group}={run.choice(group)}" for group in options] for run in runs]
    settings = [dict(flat(run.settings)) for run in runs]
    for run, each in zip(runs, settings, strict=True):
        off = {f"{name}.{key}": value for name, (key, value) in OFF.items() if name not in run.settings}
        each |= off
    for key in sorted({key for each in settings for key in each if named(key)}):
        group = key.partition(".")[0]
        alike: dict[str, dict[int, object]] = {}
        for i, (run, each) in enumerate(zip(runs, settings, strict=True)):
            if key in each or group not in OFF or group in run.settings:
                alike.setdefault(run.choice(group) if group in options else "", {})[i] = each.get(key)
        for values in alike.values():
            if len(set(map(str, values.values()))) > 1:
                for i, value in values.items():
                    words[i].append(f"{key}={_word(value)}")
    return [", ".join(each) for each in words]


def _word(value: object) -> str:
    """A value as on the command line: true, null."""
    return str(value).lower() if isinstance(value, bool) else "null" if value is None else str(value)


def row_settings(
    rows: Sequence[tuple], runs: Sequence[Run], only: tuple[str, ...] = (), without: tuple[str, ...] = ()
) -> list[str]:
    """For each row, the `differences` of its run from the runs of equal rows; "" where no row is equal."""
    alike: dict[tuple, list[int]] = {}
    for i, row in enumerate(rows):
        alike.setdefault(row, []).append(i)
    found = [""] * len(rows)
    for numbers in alike.values():
        for i, words in zip(numbers, differences([runs[i] for i in numbers], only, without), strict=True):
            found[i] = words
    return found


def frame(
    rows: Sequence[tuple[Run, dict]],
    before: str = "models",
    only: tuple[str, ...] = (),
    without: tuple[str, ...] = (),
) -> pd.DataFrame:
    """A table of the given rows; each row comes with one of the runs that it is made of.

    Where rows are equal left of the column `before`, a column `setting` is inserted there that names the
    settings in which their runs differ. only, without: as in `differences`.
    """
    found = pd.DataFrame([row for _, row in rows])
    if not rows:
        return found
    place = found.columns.get_loc(before)
    equal = list(found.iloc[:, :place].astype(str).itertuples(index=False, name=None))
    setting = row_settings(equal, [run for run, _ in rows], only, without)
    if any(setting):
        found.insert(place, "setting", setting)
    return found
