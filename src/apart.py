"""What tells the rows of a table apart, where its columns do not say it."""

from collections.abc import Sequence

import pandas as pd

from src.errors import shorten
from src.runs import FOLLOWED, OFF, Run, flat

MOST = 6  # keys that are named


def apart(runs: Sequence[Run], without: tuple[str, ...] = ()) -> list[str]:
    """What each of these runs has that not all have, as on the command line; without: keys, or groups of
    them, not to name. Of what a run did not do, such as the loop, only that it is off."""
    options = {group for run in runs for group in run.report["choices"]} - {*FOLLOWED, *without}
    options = [group for group in sorted(options) if len({run.choice(group) for run in runs}) > 1]
    told = [[f"{group}={run.choice(group)}" for group in options] for run in runs]
    settings = [dict(flat(run.settings)) for run in runs]
    for run, each in zip(runs, settings, strict=True):
        each |= {f"{name}.{key}": off for name, (key, off) in OFF.items() if name not in run.settings}
    for key in sorted({key for each in settings for key in each}):
        group = key.partition(".")[0]
        if group in (*options, *without) or key in without:
            continue
        values = {
            i: each.get(key, "null")
            for i, each in enumerate(settings)
            if key in each or group not in OFF or group in runs[i].settings
        }
        if len(set(map(str, values.values()))) > 1:
            for i, value in values.items():
                told[i].append(f"{key}={value}")
    return [shorten(words, MOST) for words in told]


def table(
    rows: Sequence[tuple[Run, dict]], before: str = "models", without: tuple[str, ...] = ()
) -> pd.DataFrame:
    """Rows, each with a run that it is made of, as a table.

    Where several rows say the same left of the column `before`, a column `setting` says there what tells
    their runs apart; without: keys, or groups of them, that can't.
    """
    found = pd.DataFrame([row for _, row in rows])
    if not rows:
        return found
    place = found.columns.get_loc(before)
    alike: dict[tuple, list[int]] = {}
    for i, row in enumerate(found.iloc[:, :place].astype(str).itertuples(index=False, name=None)):
        alike.setdefault(row, []).append(i)
    setting = [""] * len(rows)
    for numbers in alike.values():
        words = apart([rows[i][0] for i in numbers], without) if len(numbers) > 1 else [""]
        for i, word in zip(numbers, words, strict=True):
            setting[i] = word
    if any(setting):
        found.insert(place, "setting", setting)
    return found
