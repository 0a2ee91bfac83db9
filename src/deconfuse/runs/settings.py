"""What tells the rows of a table apart, where its columns do not say it."""

from collections.abc import Sequence

import pandas as pd

from deconfuse.runs.finished import ASIDE, OFF, Run, flat


def apart(runs: Sequence[Run], only: tuple[str, ...] = (), without: tuple[str, ...] = ()) -> list[str]:
    """What each of these runs has that not all have, as on the command line.

    only: the groups that can tell them apart, () for all; without: groups and keys that can't. Of runs with
    different options of a group, such as recipe=photo, the option is named, and keys below it where runs with
    the same option differ; of what a run did not do, such as the loop, only that it is off.
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
        each |= off if (run.folder / "config.yaml").exists() else {}
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
    """As on the command line: true, null."""
    return str(value).lower() if isinstance(value, bool) else "null" if value is None else str(value)


def told(
    looks: Sequence[tuple], runs: Sequence[Run], only: tuple[str, ...] = (), without: tuple[str, ...] = ()
) -> list[str]:
    """What tells the run of each row from those of rows that look the same; only and without: of `apart`."""
    alike: dict[tuple, list[int]] = {}
    for i, look in enumerate(looks):
        alike.setdefault(look, []).append(i)
    found = [""] * len(looks)
    for numbers in alike.values():
        for i, words in zip(numbers, apart([runs[i] for i in numbers], only, without), strict=True):
            found[i] = words
    return found


def frame(
    rows: Sequence[tuple[Run, dict]],
    before: str = "models",
    only: tuple[str, ...] = (),
    without: tuple[str, ...] = (),
) -> pd.DataFrame:
    """Rows, each with a run that it is made of, as a table.

    Where several rows say the same left of the column `before`, a column `setting` says there what tells
    their runs apart; only and without: as of `apart`.
    """
    found = pd.DataFrame([row for _, row in rows])
    if not rows:
        return found
    place = found.columns.get_loc(before)
    looks = list(found.iloc[:, :place].astype(str).itertuples(index=False, name=None))
    setting = told(looks, [run for run, _ in rows], only, without)
    if any(setting):
        found.insert(place, "setting", setting)
    return found
