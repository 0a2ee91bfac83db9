"""Made-up finished runs: a folder with a small report, settings and tables."""

from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from deconfuse.labels.taxonomy import KINDS
from deconfuse.runs.finished import RESULTS_FORMAT, Run, read
from deconfuse.system.csv_files import write_csv
from deconfuse.system.files import write_json

CHOICES = {
    "dataset": "glyphs",
    "model": "small_cnn",
    "loss": "proxynca",
    "noise": "none",
    "target": "all",
    "influence": "eif",
    "detector": "knn",
}
# The groups of settings that every run has, with its optional steps turned off.
SETTINGS = {
    **{group: {} for group in ("dataset", "model", "loss", "recipe", "target", "detector")},
    "influence": {"n_theta": 1, "radius": 0.02},
    "noise": {"ratio": 0.0, "kind": "symmetric"},
    "retrain": {"mode": "none"},
    "loop": {"rounds": 0},
    "relabels": {"file": None},
    "counterfactual": {"subsets": 0},
    "leave_out": {"confusions": 0},
}


# What metrics.json says of a run that did none of the optional steps.
REPORT = {
    "params": "head",
    "command": "deconfuse run",
    "data": "fingerprint",
    "retrieval": {"R@1": 0.8, "MAP@R": 0.5, "NMI": 0.6},
    "confusions": 9,
    "queries": 20,
    "noise": None,
    "explained": {"table": "confusions.csv", "rows": 9, "unscored": 0},
    "classes": {rule: dict.fromkeys(KINDS, 0) for rule in ("kind", "kind_by_share")},
    "merge": None,
    "counterfactual": None,
    "leave_out": None,
    "retrain": None,
    "loop": None,
    "corrections": None,
    "checkpoint": {"sha256": ""},
    "seconds": {},
    "machine": {"device": "cpu", "cores": 2, "threads": 1},
    "format": RESULTS_FORMAT,
    "files": {},
}


def noise_report(ap: float, right: float | None = 0.8, right_all: float | None = 0.8) -> dict:
    """What metrics.json says of flipped labels; ap is also the AUROC and the recall."""
    ranked = {"auroc": ap, "average_precision": ap, "recall": ap}
    return {
        "flipped": 2,
        "detector": ranked,
        "absolute_influence": ranked,
        "recommended_right": right,
        "recommended_right_all": right_all,
        "relabels": 1,
        "relabels_right": 1,
    }


def finish(
    folder: Path,
    name: str,
    seed: int = 0,
    *,
    choices: dict | None = None,
    settings: dict | None = None,
    tables: dict[str, dict] | None = None,
    scores: list | None = None,
    **report,
) -> Run:
    """A run as read from what was written; settings: those groups that are not as in SETTINGS."""
    home = folder / name
    home.mkdir(parents=True)
    found = {
        "choices": {**CHOICES, **(choices or {})},
        **REPORT,
        "seed": seed,
        "checkpoint": {"sha256": f"model of seed {seed}"},
        **report,
    }
    own = {"noise": {"ratio": 0.1, "kind": "symmetric"}} if found["noise"] else {}
    own |= settings or {}
    (home / "config.yaml").write_text(yaml.safe_dump({"seed": seed, **SETTINGS, **own}), "utf-8")
    for file, columns in (tables or {}).items():
        write_csv(home / file, pd.DataFrame(columns))
    if scores is not None:
        np.save(home / "influence.npy", np.array(scores, dtype=np.float32))
    write_json(home / "metrics.json", found)
    return read(home)
