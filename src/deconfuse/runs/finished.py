"""Read finished runs from their folders, for tables and figures."""

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from deconfuse.runs.identity import compared, reason
from deconfuse.system.csv_files import unguarded
from deconfuse.system.errors import UserError, invoked, shorten
from deconfuse.system.files import read_json, short_hash
from deconfuse.system.words import agree, many

RESULTS_FORMAT = 8  # raised when the code finds other numbers from the same settings, or writes others
# Keys that every run's metrics.json has.
REPORT = {
    *("choices", "params", "seed", "command", "data", "retrieval", "queries", "confusions", "explained"),
    *("noise", "classes", "merge", "counterfactual", "leave_out", "retrain", "loop"),
    "corrections",
    *("checkpoint", "seconds", "machine", "format", "files"),
}
# Columns that are read as text.
NAMES = ("query", "query_class", "neighbour", "neighbour_class", "class", "true_class", "recommended", "path")


@dataclass(frozen=True)
class Run:
    """A run's folder, its metrics.json, and its settings without those that change no finding."""

    folder: Path
    report: dict[str, Any]
    settings: dict[str, Any]

    @property
    def seed(self) -> int:
        """The run's seed."""
        return self.report["seed"]

    @property
    def data(self) -> str:
        """The fingerprint of the data that the run read."""
        return self.report["data"]

    def choice(self, group: str) -> str:
        """The option chosen in a group (dataset, loss, ...), or params.

        It is "" where the group has no options (retrain), or none was chosen (experiment).
        """
        return self.report["params"] if group == "params" else self.report["choices"].get(group, "")

    @property
    def noise(self) -> str:
        """The share and kind of flipped labels, such as "30 % shift"; "none" where no label is wrong.

        The numbers count, and not the name of the option: noise=flip_10 noise.ratio=0.3 is 30 %.
        """
        if not self.report["noise"]:
            return "none"
        noise = self.settings["noise"]
        return f"{100 * noise['ratio']:g} % {noise['kind']}"

    @property
    def where(self) -> dict[str, str]:
        """The columns that name the trained model: data set, noise, loss."""
        return {"dataset": self.choice("dataset"), "noise": self.noise, "loss": self.choice("loss")}

    def panel(self, *without: str) -> tuple[str, tuple[str, ...]]:
        """(a hash of the settings that all panels of a data set share, the key of the run's panel).

        without: keys that differ within a panel.
        """
        return self.setting(*without, "loss", "noise"), tuple(self.where.values())

    def table(self, name: str, *columns: str) -> pd.DataFrame:
        """Some columns of one of the run's tables; UserError where it is damaged or missing.

        Names are read as text, even where they look like numbers (007) or missing values (NA).
        """
        try:
            self._check(name)
            text = dict.fromkeys(set(NAMES) & set(columns), str)
            found = pd.read_csv(
                self.folder / name, usecols=columns, dtype=text, keep_default_na=False, na_values=[""]
            )
            return found.assign(**{each: found[each].map(unguarded, na_action="ignore") for each in text})
        except (OSError, ValueError) as error:
            raise UserError(
                f"{self.folder / name}: can't be read ({reason(error)}); run again with the command in "
                f"{self.folder / 'metrics.json'}, or delete the folder"
            ) from None

    def scores(self) -> Float[np.ndarray, "e n"]:
        """The run's influence scores, mapped from disk; UserError where they are damaged or missing."""
        try:
            self._check("influence.npy")
            return np.load(self.folder / "influence.npy", mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            path = self.folder / "influence.npy"
            raise UserError(
                f"{path}: can't be read ({reason(error)}); delete the folder and run again"
            ) from None

    def _check(self, name: str) -> None:
        """Raise ValueError where a file does not have the size that metrics.json lists."""
        size = self.report["files"].get(name)
        if size is not None and (self.folder / name).stat().st_size != size:
            raise ValueError(f"not the {size} bytes that the run wrote")

    def setting(self, *without: str) -> str:
        """A hash of the settings, without those named, such as influence or influence.path.radius."""
        left = copy.deepcopy(self.settings) if without else self.settings
        for path in without:
            *groups, key = path.split(".")
            place = left
            for group in groups:
                place = place.get(group) or {}
            place.pop(key, None)
        return short_hash(left)


def find(folder: Path) -> list[Path]:
    """The folders of the finished runs in a folder; raises UserError where there is none."""
    runs = [path.parent for path in sorted(folder.glob("[!.]*/metrics.json"))]
    if not runs:
        raise UserError(f"{folder}: no finished run (no */metrics.json); make one with {invoked('run')}")
    return runs


def read(folder: Path) -> Run:
    """The run in a folder; UserError where its files are damaged or were written by another version."""
    report = _report(folder)
    if report["format"] != RESULTS_FORMAT:
        raise UserError(
            f"{folder / 'metrics.json'}: written by another version of deconfuse (format {report['format']}, "
            f"not {RESULTS_FORMAT}); the command in it makes it anew"
        )
    return _run(folder, report)


def read_all(folder: Path) -> tuple[list[Run], int]:
    """(the finished runs in a folder, how many more were written by another version of deconfuse)."""
    folders = find(folder)
    runs = [
        _run(path, report)
        for path, report in zip(folders, map(_report, folders), strict=True)
        if report["format"] == RESULTS_FORMAT
    ]
    others = len(folders) - len(runs)
    if not runs:
        raise UserError(
            f"{folder}: its {many(others, 'run')} {agree(others, 'was', 'were')} written by another "
            "version of deconfuse; make one with "
            f"{invoked('run')}, or make them anew by the commands in their metrics.json"
        )
    return runs, others


def _report(folder: Path) -> dict[str, Any]:
    """The content of metrics.json; UserError where it is damaged or lacks what a run writes."""
    path = folder / "metrics.json"
    report = read_json(path)
    needed = REPORT
    if isinstance(report, dict) and report.get("format", RESULTS_FORMAT) != RESULTS_FORMAT:
        needed = {"format"}
    lacking = needed - report.keys() if isinstance(report, dict) else needed
    if lacking:
        raise UserError(
            f"{path}: no run's report, it lacks {shorten(sorted(lacking))}; delete the folder and run again"
        )
    return report


def _run(folder: Path, report: dict[str, Any]) -> Run:
    return Run(folder, report, compared(folder / "config.yaml", report))
