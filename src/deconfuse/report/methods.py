"""The methods whose scores a report shows side by side: the run's own, and those of runs beside it."""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Float
from torch import Tensor

from deconfuse.runs import finished
from deconfuse.runs.tables import Findings
from deconfuse.system.errors import UserError
from deconfuse.system.files import read_json

METHODS = 12  # runs shown beside each other


@dataclass(frozen=True)
class Method:
    """One run's scores (e, n), > 0 harmful, with the name of its method, the run's name, and the unit."""

    name: str
    run: str
    unit: str
    scores: Float[Tensor, "e n"] | Float[np.ndarray, "e n"] = field(repr=False)


def methods(folder: Path, own: Method, checkpoint: dict, found: Findings) -> list[Method]:
    """This run's scores, then those of runs in the same folder that explain the same by another method.

    The checkpoint's hash, the explained table and the number of training samples must be the same. A run may
    have explained fewer or more rows: the first rows are then the same. Runs that cannot be read, and runs
    whose scores are copies of others, are left out.
    """
    taken = [own]
    for path in sorted(folder.glob("[!.]*/metrics.json")):
        try:
            report = read_json(path)
            if not _alike(report, checkpoint, found) or path.parent.name == own.run:
                continue
            run = finished.read(path.parent)
            scores, unit = run.scores(), read_json(path.parent / "influence_index.json")["unit"]
        except (UserError, AttributeError):
            continue
        if scores.ndim != 2 or scores.shape[1] != own.scores.shape[1] or not len(scores):
            continue
        if any(_copy(scores, other.scores) for other in taken):
            continue
        params = "" if run.choice("params") == "head" else f" on {run.choice('params').replace('_', ' ')}"
        taken.append(Method(run.choice("influence") + params, run.folder.name, unit, scores))
        if len(taken) == METHODS:
            break
    return _distinct(taken)


def _alike(report, checkpoint: dict, found: Findings) -> bool:
    if not isinstance(report, dict):
        return False
    same = (report.get("checkpoint") or {}).get("sha256") == checkpoint["sha256"]
    return same and (report.get("explained") or {}).get("table") == found.explained.table


def _copy(one, other) -> bool:
    k = min(len(one), len(other), 32)
    return k > 0 and np.array_equal(np.asarray(one[:k]), np.asarray(other[:k]))


def _distinct(taken: list[Method]) -> list[Method]:
    """The methods; to equal names the hash at the end of the run's name is added."""
    counts = Counter(method.name for method in taken)
    return [
        method
        if counts[method.name] == 1
        else Method(f"{method.name} ({method.run[-8:]})", method.run, method.unit, method.scores)
        for method in taken
    ]
