"""Finished runs, as tables and figures want them."""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from jaxtyping import Float

from src.artifacts import read_json, short_hash
from src.errors import UserError

# What changes no finding, and the seed: runs that differ in nothing else are repetitions of one setting.
NO_SETTING = ("seed", "output_dir", "num_workers", "logger", "again", "pictures")
SEEDED = {"noise", "influence", "detector", "counterfactual", "retrain"}  # whose seed follows the run's
NO_FINDING = {"recipe": ("validate_every", "eval_batch_size")}


@dataclass(frozen=True)
class Run:
    """A run's folder, what its metrics.json says, and its settings without what changes no finding."""

    folder: Path
    report: dict[str, Any]
    settings: dict[str, Any]

    @property
    def seed(self) -> int:
        """Of the run."""
        return self.report["seed"]

    def choice(self, group: str) -> str:
        """The option chosen in a group (dataset, loss, ...); "" where there was none."""
        return str(self.report["choices"].get(group, self.report.get(group, "")))

    def table(self, name: str) -> pd.DataFrame:
        """One of the run's tables; UserError where it is damaged or gone."""
        try:
            return pd.read_csv(self.folder / name)
        except (OSError, ValueError) as error:
            raise UserError(
                f"{self.folder / name}: can't be read ({error}); run again with the command in "
                f"{self.folder / 'config.yaml'}, or delete the folder"
            ) from None

    def scores(self) -> Float[np.ndarray, "e n"]:
        """The run's influence scores, read as they are used; UserError where they are damaged or gone."""
        try:
            return np.load(self.folder / "influence.npy", mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            path = self.folder / "influence.npy"
            raise UserError(f"{path}: can't be read ({error}); delete the folder and run again") from None

    def setting(self, *without: str) -> str:
        """A hash of the settings, without some of their groups."""
        return short_hash({key: value for key, value in self.settings.items() if key not in without})


def find(folder: Path) -> list[Path]:
    """The finished runs below a folder; raises UserError where there is none."""
    runs = [path.parent for path in sorted(folder.glob("[!.]*/metrics.json"))]
    if not runs:
        raise UserError(f"{folder}: no finished run (no */metrics.json); make one with python -m src.run")
    return runs


def read(folder: Path) -> Run:
    """A finished run."""
    report = read_json(folder / "metrics.json")
    return Run(folder, report, _settings(folder / "config.yaml", report["seed"]))


def _settings(config: Path, seed: int) -> dict[str, Any]:
    if not config.exists():
        return {}
    found = yaml.safe_load(config.read_text("utf-8"))
    found = {key: value for key, value in found.items() if key not in NO_SETTING}
    for group, keys in NO_FINDING.items():
        found[group] = {key: value for key, value in found.get(group, {}).items() if key not in keys}
    for group in SEEDED & found.keys():  # dataset.seed is no follower: it says which data
        found[group] = {k: v for k, v in found[group].items() if not (k == "seed" and v == seed)}
    return found


def grouped(runs: Iterable[Run], key: Callable[[Run], Any]) -> dict[Any, list[Run]]:
    """Runs by a key, sorted by it."""
    groups: dict[Any, list[Run]] = {}
    for run in runs:
        groups.setdefault(key(run), []).append(run)
    return dict(sorted(groups.items(), key=lambda item: str(item[0])))


def usual(runs: Iterable[Run], group: str) -> list[Run]:
    """The runs with the settings of a group that most of them have, for each of its options, data set by
    data set: what a sweep over those settings adds stays out of tables that are not about it."""
    kept = []
    for alike in grouped(runs, lambda run: (run.choice("dataset"), run.choice(group))).values():
        counts = Counter(short_hash(run.settings.get(group)) for run in alike)
        most = max(counts.items(), key=lambda item: (item[1], item[0]))[0]
        kept += [run for run in alike if short_hash(run.settings.get(group)) == most]
    return kept


def by_seed(runs: Iterable[Run]) -> dict[int, Run]:
    """One run per seed; of several the last by name."""
    return {run.seed: run for run in sorted(runs, key=lambda run: (run.seed, run.folder.name))}
