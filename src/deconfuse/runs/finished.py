"""Finished runs, as tables and figures want them."""

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
from deconfuse.system.errors import UserError, invoked
from deconfuse.system.files import read_json, short_hash, unguarded

# What changes no finding, and the seed: runs that differ in nothing else are repetitions of one setting.
NO_SETTING = ("seed", "output_dir", "data_dir", "num_workers", "logger", "again", "report")
# Whose seed follows the run's, unless the command gives it one of its own.
SEEDED = {"noise", "influence", "detector", "counterfactual", "retrain"}
NO_FINDING = {"recipe": ("validate_every", "eval_batch_size"), "influence": ("when", "every")}
NAMED = tuple(f"deconfuse.dataset.{name}." for name in ("cars", "cub", "inshop", "omniglot", "sop"))
OFF = {
    "retrain": ("mode", "none"),
    "loop": ("rounds", 0),
    "relabels": ("file", None),
    "counterfactual": ("subsets", 0),
    "noise": ("ratio", 0),
}
# Keys that older runs did not have, with what these did.
SINCE = {"recipe": {"sampling": "instance_balanced"}}
ASIDE = {"experiment", "logger"}  # choices that change no finding
REPORT = {"choices", "seed", "retrieval", "confusions", "noise"}  # what every run's metrics.json has
NAMES = ("query", "query_class", "neighbour", "neighbour_class", "class", "true_class", "recommended", "path")

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml, where it is there, reads 500 runs quickly


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

    @property
    def data(self) -> str | None:
        """The fingerprint of the data as it was; None of a run that did not write it down."""
        return self.report.get("data")

    def choice(self, group: str) -> str:
        """The option chosen in a group (dataset, loss, ...), or params; "" where there was none."""
        found = self.report["choices"].get(group, self.report.get(group))
        return found if isinstance(found, str) else ""

    @property
    def noise(self) -> str:
        """How many labels were flipped, and how: noise=flip_10 noise.ratio=0.3 is no 10 %."""
        noise = self.settings.get("noise") or {}
        if not self.report["noise"]:
            return "none"
        if "ratio" not in noise:
            return self.choice("noise")
        return f"{100 * noise['ratio']:g} % {noise.get('kind', '')}".strip()

    @property
    def where(self) -> dict[str, str]:
        """The columns that say what was trained: data set, noise, loss."""
        return {"dataset": self.choice("dataset"), "noise": self.noise, "loss": self.choice("loss")}

    def panel(self, *without: str) -> tuple[str, tuple[str, ...]]:
        """(the setting that a picture's panels of one data set share, which of them the run belongs to);
        without: keys that differ within a panel."""
        return self.setting(*without, "loss", "noise"), tuple(self.where.values())

    def table(self, name: str, *columns: str) -> pd.DataFrame:
        """Some columns of one of the run's tables; UserError where it is damaged or gone.

        Names are text, also those like 007 and NA.
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
        """The run's influence scores, read as they are used; UserError where they are damaged or gone."""
        try:
            self._check("influence.npy")
            return np.load(self.folder / "influence.npy", mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            path = self.folder / "influence.npy"
            raise UserError(
                f"{path}: can't be read ({_reason(error)}); delete the folder and run again"
            ) from None

    def _check(self, name: str) -> None:
        """Raise ValueError where a file is not as long as the run left it."""
        size = self.report.get("files", {}).get(name)
        if size is not None and (self.folder / name).stat().st_size != size:
            raise ValueError(f"not the {size} bytes that the run wrote")

    def setting(self, *without: str) -> str:
        """A hash of the settings, without some of their keys: influence, or influence.radius."""
        left = copy.deepcopy(self.settings) if without else self.settings
        for path in without:
            *groups, key = path.split(".")
            place = left
            for group in groups:
                place = place.get(group) or {}
            place.pop(key, None)
        return short_hash(left)


def find(folder: Path) -> list[Path]:
    """The finished runs below a folder; raises UserError where there is none."""
    runs = [path.parent for path in sorted(folder.glob("[!.]*/metrics.json"))]
    if not runs:
        raise UserError(f"{folder}: no finished run (no */metrics.json); make one with {invoked('run')}")
    return runs


def read(folder: Path) -> Run:
    """A finished run; UserError where its report or its settings are damaged."""
    report = read_json(folder / "metrics.json")
    lacking = REPORT - report.keys() if isinstance(report, dict) else REPORT
    if lacking:
        raise UserError(
            f"{folder / 'metrics.json'}: no run's report, it lacks {', '.join(sorted(lacking))}; "
            "delete the folder and run again"
        )
    return Run(folder, report, _settings(folder / "config.yaml", _followers(report), report["seed"]))


def _followers(report: dict[str, Any]) -> set[str]:
    """The groups whose seed follows the run's: noise.seed=0 seed=1 is another setting than seed=1 alone."""
    given = {word.lstrip("+").partition("=")[0] for word in str(report.get("command")).split()}
    return {group for group in SEEDED if f"{group}.seed" not in given}


def _settings(config: Path, followers: set[str], seed: int) -> dict[str, Any]:
    if not config.exists():
        return {}
    try:
        found = dict(yaml.load(config.read_text("utf-8"), LOADER))
    except (OSError, ValueError, TypeError, yaml.YAMLError) as error:
        raise UserError(
            f"{config}: can't be read ({_reason(error)}); delete the folder and run again"
        ) from None
    # A key that says nothing may be one that an older run did not have.
    found = {key: value for key, value in found.items() if key not in NO_SETTING and value is not None}
    for group, (key, off) in OFF.items():  # what was not done can't differ
        if isinstance(found.get(group), dict) and found[group].get(key) == off:
            del found[group]
    data = found.get("dataset") or {}
    if str(data.get("_target_")).startswith(NAMED):  # of data with a name, where they lie is no setting
        found["dataset"] = {key: value for key, value in data.items() if key != "root"}
    for group in NO_FINDING.keys() & found.keys():
        found[group] = {k: v for k, v in found[group].items() if k not in NO_FINDING[group]}
    for group in SINCE.keys() & found.keys():
        found[group] = {k: v for k, v in found[group].items() if (k, v) not in SINCE[group].items()}
    for group in followers & found.keys():  # dataset.seed is no follower: it says which data
        found[group] = {k: v for k, v in found[group].items() if not (k == "seed" and v == seed)}
    return found


def _reason(error: Exception) -> str:
    """In one line, without the path."""
    return getattr(error, "strerror", None) or " ".join(str(error).split())


def grouped(runs: Iterable[Run], key: Callable[[Run], Any]) -> dict[Any, list[Run]]:
    """Runs by a key, sorted by it: 5 % before 10 %."""
    groups: dict[Any, list[Run]] = {}
    for run in runs:
        groups.setdefault(key(run), []).append(run)
    return dict(sorted(groups.items(), key=lambda item: natural(str(item[0]))))


def natural(text: str) -> tuple[tuple[str, float], ...]:
    """A sorting key in which the numbers within a text count as numbers, and none as 0."""
    text = re.sub(r"\bnone\b", "0", text)
    found = re.findall(r"(\D*)(\d+(?:\.\d+)?|$)", text)
    return tuple((word, float(number or -1)) for word, number in found)


def usual(runs: Iterable[Run], group: str) -> list[Run]:
    """The runs with the settings of a group that most of them have, for each of its options, data set by
    data set: what a sweep over those settings adds stays out of tables that are not about it. Runs of the
    newest format decide, then all; of several settings that as many have, those nearest to conf/."""
    kept = []
    for alike in grouped(runs, lambda run: (run.choice("dataset"), run.choice(group))).values():
        kept += _most(alike, group)
    return kept


def _most(alike: list[Run], group: str) -> list[Run]:
    """Those of the runs that have the settings of a group that `usual` takes."""
    kinds = grouped(alike, lambda run: short_hash(run.settings.get(group))).values()
    new = {run.folder for run in newest(alike)}

    def weight(kind: list[Run]) -> tuple[int, int, int]:
        return sum(run.folder in new for run in kind), len(kind), -_departures(kind[0], group)

    return max(kinds, key=weight)


def _departures(run: Run, group: str) -> int:
    """How many of a group's settings are not those of conf/."""
    usually = dict(flat(_defaults(group, run.choice(group))))
    return sum(usually.get(key, value) != value for key, value in flat(run.settings.get(group)))


@cache
def _defaults(group: str, option: str) -> Any:
    """A group's settings in conf/, without those that another key decides; {} of an option that is gone."""
    file = CONF / group / f"{option}.yaml"
    if file.is_file():
        found = dict(yaml.load(file.read_text("utf-8"), LOADER))
        for parent in found.pop("defaults", []):
            found = {**_defaults(group, parent), **found} if isinstance(parent, str) else found
    else:
        found = yaml.load((CONF / "config.yaml").read_text("utf-8"), LOADER).get(group) or {}
    return {key: value for key, value in found.items() if not str(value).startswith("${")}


def flat(settings: Any, above: str = "") -> Iterator[tuple[str, Any]]:
    """(optimizer.lr, 1e-4), ... of {optimizer: {lr: 1e-4}, ...}."""
    for key, value in (settings or {}).items():
        if isinstance(value, dict):
            yield from flat(value, f"{above}{key}.")
        else:
            yield above + key, value


def by_seed(runs: Iterable[Run]) -> dict[int, Run]:
    """One run per seed, of the newest format alone, as others have other numbers; the last by name."""
    return {run.seed: run for run in sorted(newest(runs), key=lambda run: (run.seed, run.folder.name))}


def distinct(runs: Iterable[Run]) -> list[Run]:
    """The runs, each setting and seed once, as `by_seed` chooses."""

    def looks(run: Run) -> tuple:
        groups = run.report["choices"].keys() - ASIDE
        return run.setting(), *sorted((group, run.choice(group)) for group in groups)

    found = [run for alike in grouped(runs, looks).values() for run in by_seed(alike).values()]
    return sorted(found, key=lambda run: run.folder)


def current(runs: Iterable[Run]) -> list[Run]:
    """Without the runs of data that has changed since, as a folder does where an image is moved: of one data
    set with one set of settings, those of the data that the run saw which ended last, by the time of its
    metrics.json. Runs that did not write down which data stay."""
    runs = list(runs)
    last: dict[tuple[str, str], str] = {}
    for run in sorted(runs, key=lambda run: (run.folder / "metrics.json").stat().st_mtime_ns):
        if run.data:
            last[_data_set(run)] = run.data
    return [run for run in runs if run.data in (None, last.get(_data_set(run)))]


def _data_set(run: Run) -> tuple[str, str]:
    return run.choice("dataset"), short_hash(run.settings.get("dataset"))


def newest(runs: Iterable[Run]) -> list[Run]:
    """The runs of the newest format among them."""
    runs = list(runs)
    last = max((run.report.get("format", 0) for run in runs), default=0)
    return [run for run in runs if run.report.get("format", 0) == last]
