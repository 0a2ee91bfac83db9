"""Finished runs, read from their folders for tables and figures."""

import copy
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from jaxtyping import Float

from deconfuse import CONF
from deconfuse.runs.identity import without_places
from deconfuse.system.errors import UserError, invoked, shorten
from deconfuse.system.files import read_json, short_hash, unguarded

RESULTS_FORMAT = 6  # raised when the code finds other numbers from the same settings, or writes others
# Settings that change no finding, and the seed: runs that differ in nothing else are repetitions.
NO_SETTING = ("seed", "output_dir", "data_dir", "num_workers", "logger", "again", "report")
# Groups whose seed is the run's unless the command gives another.
SEEDED = {"noise", "influence", "detector", "counterfactual", "retrain"}
NO_FINDING = {"recipe": ("validate_every", "eval_batch_size"), "influence": ("when", "every")}
# The key and value with which an optional step is not done; its other settings then change nothing.
OFF = {
    "retrain": ("mode", "none"),
    "loop": ("rounds", 0),
    "relabels": ("file", None),
    "counterfactual": ("subsets", 0),
    "noise": ("ratio", 0),
}
ASIDE = {"experiment", "logger"}  # choices that change no finding
# Keys that every run's metrics.json has.
REPORT = {
    *("choices", "params", "seed", "command", "data", "retrieval", "queries", "confusions", "explained"),
    *("noise", "classes", "merge", "counterfactual", "retrain", "loop", "corrections"),
    *("checkpoint", "seconds", "machine", "format", "files"),
}
# Columns that are read as text.
NAMES = ("query", "query_class", "neighbour", "neighbour_class", "class", "true_class", "recommended", "path")

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml, where it is installed, is ten times as fast


@dataclass(frozen=True)
class Run:
    """A run's folder, its metrics.json, and its settings without those that change no finding."""

    folder: Path
    report: dict[str, Any]
    settings: dict[str, Any]

    @property
    def seed(self) -> int:
        """The seed of the run."""
        return self.report["seed"]

    @property
    def data(self) -> str:
        """The fingerprint of the data that the run read."""
        return self.report["data"]

    def choice(self, group: str) -> str:
        """The option chosen in a group (dataset, loss, ...), or params; "" where none was chosen."""
        found = self.report["choices"].get(group, self.report.get(group))
        return found if isinstance(found, str) else ""

    @property
    def noise(self) -> str:
        """The share and kind of flipped labels, by the numbers: noise=flip_10 noise.ratio=0.3 is 30 %."""
        noise = self.settings.get("noise") or {}
        if not self.report["noise"]:
            return "none"
        if "ratio" not in noise:
            return self.choice("noise")
        return f"{100 * noise['ratio']:g} % {noise.get('kind', '')}".strip()

    @property
    def where(self) -> dict[str, str]:
        """The columns that name the trained model: data set, noise, loss."""
        return {"dataset": self.choice("dataset"), "noise": self.noise, "loss": self.choice("loss")}

    def panel(self, *without: str) -> tuple[str, tuple[str, ...]]:
        """(a hash of the setting that all panels of a data set share, the panel that the run belongs to).

        without: keys that differ within a panel.
        """
        return self.setting(*without, "loss", "noise"), tuple(self.where.values())

    def table(self, name: str, *columns: str) -> pd.DataFrame:
        """Some columns of one of the run's tables; UserError where it is damaged or missing.

        Names are read as text, also those like 007 and NA.
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
                f"{self.folder / name}: can't be read ({_reason(error)}); run again with the command in "
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
                f"{path}: can't be read ({_reason(error)}); delete the folder and run again"
            ) from None

    def _check(self, name: str) -> None:
        """Raise ValueError where a file does not have the size that metrics.json lists."""
        size = self.report["files"].get(name)
        if size is not None and (self.folder / name).stat().st_size != size:
            raise ValueError(f"not the {size} bytes that the run wrote")

    def setting(self, *without: str) -> str:
        """A hash of the settings without some keys, such as influence or influence.radius."""
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
    """A finished run; UserError where its files are damaged, or another version wrote them."""
    report = _report(folder)
    if report["format"] != RESULTS_FORMAT:
        raise UserError(
            f"{folder / 'metrics.json'}: written by another version of deconfuse (format {report['format']}, "
            f"not {RESULTS_FORMAT}); the command in it makes it anew"
        )
    return _run(folder, report)


def read_all(folder: Path) -> tuple[list[Run], int]:
    """(the finished runs in a folder, how many further ones another version of deconfuse wrote)."""
    folders = find(folder)
    runs = [
        _run(path, report)
        for path, report in zip(folders, map(_report, folders), strict=True)
        if report["format"] == RESULTS_FORMAT
    ]
    others = len(folders) - len(runs)
    if not runs:
        raise UserError(
            f"{folder}: its {others} run(s) were written by another version of deconfuse; make one with "
            f"{invoked('run')}, or make them anew by the commands in their metrics.json"
        )
    return runs, others


def _report(folder: Path) -> dict[str, Any]:
    """What metrics.json holds; UserError where it is damaged or no run's report."""
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
    return Run(folder, report, _settings(folder / "config.yaml", report))


def _followers(report: dict[str, Any]) -> set[str]:
    """The groups whose seed is the run's, as the command gives them none of their own."""
    given = {word.lstrip("+").partition("=")[0] for word in report["command"].split()}
    return {group for group in SEEDED if f"{group}.seed" not in given}


def _settings(config: Path, report: dict[str, Any]) -> dict[str, Any]:
    """The settings in config.yaml without those that change no finding; UserError where it can't be read."""
    try:
        found = dict(yaml.load(config.read_text("utf-8"), LOADER))
    except (OSError, ValueError, TypeError, yaml.YAMLError) as error:
        raise UserError(
            f"{config}: can't be read ({_reason(error)}); delete the folder and run again"
        ) from None
    found = without_places({key: value for key, value in found.items() if key not in NO_SETTING})
    for group, (key, off) in OFF.items():
        if isinstance(found.get(group), dict) and found[group].get(key) == off:
            del found[group]
    left_out = {**NO_FINDING, "dataset": _in_data_dir(report["choices"].get("dataset"))}
    for group in left_out.keys() & found.keys():
        found[group] = {k: v for k, v in found[group].items() if k not in left_out[group]}
    for group in _followers(report) & found.keys():  # dataset.seed is not among them: it decides which data
        found[group] = {k: v for k, v in found[group].items() if not (k == "seed" and v == report["seed"])}
    return found


def _in_data_dir(dataset: str | None) -> set[str]:
    """The keys of a data set that say only where it lies: those below ${data_dir} in its YAML."""
    return {key for key, value in _yaml("dataset", dataset).items() if str(value).startswith("${data_dir}")}


def _reason(error: Exception) -> str:
    """The error's message in one line, without the path."""
    return getattr(error, "strerror", None) or " ".join(str(error).split())


def grouped(runs: Iterable[Run], key: Callable[[Run], Any]) -> dict[Any, list[Run]]:
    """Runs by a key, sorted by it: 5 % before 10 %."""
    groups: dict[Any, list[Run]] = {}
    for run in runs:
        groups.setdefault(key(run), []).append(run)
    return dict(sorted(groups.items(), key=lambda item: natural(str(item[0]))))


def natural(text: str) -> tuple[tuple[str, float], ...]:
    """A sorting key by which numbers in a text are compared as numbers, and the word none as 0."""
    text = re.sub(r"\bnone\b", "0", text)
    found = re.findall(r"(\D*)(\d+(?:\.\d+)?|$)", text)
    return tuple((word, float(number or -1)) for word, number in found)


def usual(runs: Iterable[Run], group: str) -> list[Run]:
    """The runs that have the most frequent settings of a group, for each data set and option of the group.

    Tables that are not about a group's settings leave out by this what a sweep over them adds. Of several
    settings that equally many runs have, those that differ in the fewest keys from conf/ are taken.
    """
    kept = []
    for alike in grouped(runs, lambda run: (run.choice("dataset"), run.choice(group))).values():
        kinds = grouped(alike, lambda run: short_hash(run.settings.get(group))).values()
        kept += max(kinds, key=lambda kind: (len(kind), -_departures(kind[0], group)))
    return kept


def _departures(run: Run, group: str) -> int:
    """The number of a group's settings that differ from conf/."""
    usually = dict(flat(without_places(_defaults(group, run.choice(group)))))
    return sum(usually.get(key, value) != value for key, value in flat(run.settings.get(group)))


def _defaults(group: str, option: str) -> dict[str, Any]:
    """A group's settings in conf/ without references to other keys; {} where conf/ has no such option."""
    found = _yaml(group, option) or _yaml("", "config").get(group) or {}
    return {key: value for key, value in found.items() if not str(value).startswith("${")}


@cache
def _yaml(group: str, option: str | None) -> dict[str, Any]:
    """conf/GROUP/OPTION.yaml merged over the options in its defaults list; {} where there is no such file."""
    file = CONF / group / f"{option}.yaml"
    if not file.is_file():
        return {}
    found = dict(yaml.load(file.read_text("utf-8"), LOADER))
    for parent in found.pop("defaults", []) if group else []:
        found = {**_yaml(group, parent), **found} if isinstance(parent, str) else found
    return found


def flat(settings: Any, above: str = "") -> Iterator[tuple[str, Any]]:
    """(optimizer.lr, 1e-4), ... of {optimizer: {lr: 1e-4}, ...}."""
    for key, value in (settings or {}).items():
        if isinstance(value, dict):
            yield from flat(value, f"{above}{key}.")
        else:
            yield above + key, value


def by_seed(runs: Iterable[Run]) -> dict[int, Run]:
    """One run per seed: the last by name."""
    return {run.seed: run for run in sorted(runs, key=lambda run: (run.seed, run.folder.name))}


def distinct(runs: Iterable[Run]) -> list[Run]:
    """One run for each setting and seed, as `by_seed` chooses."""

    def looks(run: Run) -> tuple:
        groups = run.report["choices"].keys() - ASIDE
        return run.setting(), *sorted((group, run.choice(group)) for group in groups)

    found = [run for alike in grouped(runs, looks).values() for run in by_seed(alike).values()]
    return sorted(found, key=lambda run: run.folder)


def current(runs: Iterable[Run]) -> list[Run]:
    """The runs without those of data that has changed since, as a folder does where an image is moved.

    Of each data set and its settings, the runs are kept that read the same data as the run that ended last,
    by the time of its metrics.json.
    """
    runs = list(runs)
    by_time = sorted(runs, key=lambda run: (run.folder / "metrics.json").stat().st_mtime_ns)
    last = {_data_set(run): run.data for run in by_time}
    return [run for run in runs if run.data == last[_data_set(run)]]


def _data_set(run: Run) -> tuple[str, str]:
    return run.choice("dataset"), short_hash(run.settings.get("dataset"))
