"""Which runs an experiment's table takes: each module of experiment/ says so by constants.

LABELS: FLIPPED or GIVEN, where the table is of runs with flipped labels, or of runs without, only.
SCORES = False: the table also takes runs whose scores are all 0, as it does not look at scores.
CORRECTED = True: the table also takes runs with corrected labels (relabels=FILE).
"""

from collections.abc import Iterable
from types import ModuleType

from deconfuse.runs.finished import Run

FLIPPED, GIVEN = "flipped", "given"


def taken(module: ModuleType, runs: Iterable[Run]) -> list[Run]:
    """The runs that an experiment's table takes, by its module's constants."""
    labels, scores = getattr(module, "LABELS", None), getattr(module, "SCORES", True)
    runs = [run for run in runs if getattr(module, "CORRECTED", False) or not run.report["corrections"]]
    runs = [run for run in runs if not (scores and nothing_scored(run))]
    return [run for run in runs if labels is None or (labels == FLIPPED) == bool(run.report["noise"])]


def nothing_scored(run: Run) -> bool:
    """Whether a run explained something, and all of its scores are 0."""
    explained = run.report["explained"]
    return 0 < explained["rows"] == explained["unscored"]
