"""Which finished runs a table takes, and how they are grouped.

Each module of experiment/ says which runs its table takes, by these constants:

LABELS = FLIPPED or GIVEN: the table takes only runs with flipped labels, or only runs without.
SCORES = False: the table does not depend on scores, so it also takes runs whose scores are all 0.
CORRECTED = True: the table also takes runs with corrected labels (relabels=FILE).
"""

import re
from collections.abc import Callable, Iterable
from types import ModuleType
from typing import Any

from deconfuse.runs.finished import Run
from deconfuse.runs.identity import ASIDE, departures
from deconfuse.system.files import short_hash

FLIPPED, GIVEN = "flipped", "given"


def taken(module: ModuleType, runs: Iterable[Run]) -> list[Run]:
    """The runs that the table of an experiment's module takes, by the constants above."""
    labels, scores = getattr(module, "LABELS", None), getattr(module, "SCORES", True)
    runs = [run for run in runs if getattr(module, "CORRECTED", False) or not run.report["corrections"]]
    runs = [run for run in runs if not (scores and nothing_scored(run))]
    return [run for run in runs if labels is None or (labels == FLIPPED) == bool(run.report["noise"])]


def nothing_scored(run: Run) -> bool:
    """Whether a run explained something, and all of its scores are 0."""
    explained = run.report["explained"]
    return 0 < explained["rows"] == explained["unscored"]


def grouped(runs: Iterable[Run], key: Callable[[Run], Any]) -> dict[Any, list[Run]]:
    """The runs with each key, sorted by the key as `natural` does: 5 % before 10 %."""
    groups: dict[Any, list[Run]] = {}
    for run in runs:
        groups.setdefault(key(run), []).append(run)
    return dict(sorted(groups.items(), key=lambda item: natural(str(item[0]))))


def natural(text: str) -> tuple[tuple[str, float], ...]:
    """A sorting key that compares numbers in a text as numbers, and the word none as 0."""
    text = re.sub(r"\bnone\b", "0", text)
    found = re.findall(r"(\D*)(\d+(?:\.\d+)?|$)", text)
    return tuple((word, float(number or -1)) for word, number in found)


def usual(runs: Iterable[Run], group: str) -> list[Run]:
    """The runs that have the most frequent settings of a group, for each data set and option of the group.

    Tables that are not about a group's settings leave out in this way the runs that a sweep over them adds.
    Of settings that equally many runs have, those that differ from conf/ in the fewest keys are taken.
    """

    def rank(kind: list[Run]) -> tuple[int, int]:
        first = kind[0]
        return len(kind), -departures(first.settings.get(group), group, first.choice(group))

    kept = []
    for alike in grouped(runs, lambda run: (run.choice("dataset"), run.choice(group))).values():
        kinds = grouped(alike, lambda run: short_hash(run.settings.get(group))).values()
        kept += max(kinds, key=rank)
    return kept


def by_seed(runs: Iterable[Run]) -> dict[int, Run]:
    """One run per seed: of several, the last by name."""
    return {run.seed: run for run in sorted(runs, key=lambda run: (run.seed, run.folder.name))}


def distinct(runs: Iterable[Run]) -> list[Run]:
    """One run for each setting and seed; of several, the one that `by_seed` chooses."""

    def setting(run: Run) -> tuple:
        groups = run.report["choices"].keys() - ASIDE
        return run.setting(), *sorted((group, run.choice(group)) for group in groups)

    found = [run for alike in grouped(runs, setting).values() for run in by_seed(alike).values()]
    return sorted(found, key=lambda run: run.folder)


def current(runs: Iterable[Run]) -> list[Run]:
    """The runs without those whose data has changed since, as a folder's does when an image is moved.

    For each data set with its settings, those runs are kept that read the same data as the run that ended
    last, by the time of its metrics.json.
    """
    runs = list(runs)
    by_time = sorted(runs, key=lambda run: (run.folder / "metrics.json").stat().st_mtime_ns)
    last = {_data_set(run): run.data for run in by_time}
    return [run for run in runs if run.data == last[_data_set(run)]]


def _data_set(run: Run) -> tuple[str, str]:
    return run.choice("dataset"), short_hash(run.settings["dataset"])
