"""What a run writes: its tables and scores, and what metrics.json says of them."""

import os
from importlib.metadata import version
from pathlib import Path

import pandas as pd
import torch

from deconfuse import __version__
from deconfuse.attribution.scores import unscored
from deconfuse.labels import copies
from deconfuse.labels.relabel import recommended_right, recommended_right_all
from deconfuse.labels.taxonomy import KINDS, merge_quality, merges
from deconfuse.retrieval.statistics import calibration_error, detection
from deconfuse.runs.columns import COLUMNS, SIGNS
from deconfuse.runs.finished import RESULTS_FORMAT
from deconfuse.runs.tables import Findings, relabel_table, sample_table, suggestions, tables_of
from deconfuse.system.arrays import write_array
from deconfuse.system.csv_files import write_csv
from deconfuse.system.errors import UserError
from deconfuse.system.files import file_hash, read_json, write_json


def class_report(found: Findings) -> dict:
    """Table 5: how many classes are of each kind, by both rules."""
    table = suggestions(found)
    return {
        rule: {kind: int((table[rule] == kind).sum()) for kind in KINDS} for rule in ("kind", "kind_by_share")
    }


def merge_report(found: Findings) -> dict | None:
    """`merge_quality` of three lists: harmful suggestions by each of the two rules, and all suggestions.

    None where the data set knows no classes to look alike.
    """
    c, groups, harmful = found.split.num_classes, found.split.same_things, suggestions(found)
    by = {"harmful": merges(harmful), "harmful_by_share": merges(harmful, "kind_by_share")}
    by["all"] = merges(suggestions(found, harmful_only=False))
    quality = {name: merge_quality(pairs, groups, c) for name, pairs in by.items()}
    return quality if quality["all"] else None


def class_pairs(confusions: pd.DataFrame, most: int = 10) -> list[dict]:
    """The unordered pairs of classes that are confused most, and how often; ties are in order of name."""
    both = [
        tuple(sorted(pair))
        for pair in zip(confusions["query_class"], confusions["neighbour_class"], strict=True)
    ]
    counts = pd.Series(both, dtype=object).value_counts()
    alike = dict(zip(both, confusions["same_thing"], strict=True))
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:most]
    return [{"classes": list(pair), "confusions": n, "same_thing": alike[pair]} for pair, n in ranked]


def noise_report(found: Findings) -> dict | None:
    """How well flipped samples were found, and how often their true label was recommended.

    None where no label was flipped.
    """
    noisy = found.noisy
    if not noisy.flipped.any():
        return None
    label, harmful = found.votes.best[0].numpy(), found.acting.mean > 0
    flagged = harmful.numpy() & (label != noisy.labels)
    labels, clean = torch.from_numpy(noisy.labels), torch.from_numpy(noisy.clean)
    return {
        "flipped": int(noisy.flipped.sum()),
        "detector": detection(found.suspicion.numpy(), noisy.flipped),
        "absolute_influence": detection(found.acting.absolute.numpy(), noisy.flipped)
        if len(found.influence)
        else None,
        "recommended_right": recommended_right(found.votes, labels, clean, harmful),
        "recommended_right_all": recommended_right_all(found.votes, labels, clean),
        "relabels": int(flagged.sum()),
        "relabels_right": int((flagged & (label == noisy.clean)).sum()),
    }


def wrong_report(found: Findings) -> dict:
    """How many labels are probably wrong, and how far that can be trusted.

    labels, low, high: the estimated number of wrong labels, with its 95 % interval; agree: the share of
    labels that are the likeliest class by a classifier that has not seen them; leave_one_out: R@1 on the
    training set, None if not all samples were voted on. With noise= also calibration_error (ten bins) and
    average precision of P(wrong), and how many of the labels listed are wrong and are recommended their true
    label.
    """
    doubt, noisy, n = found.doubt, found.noisy, int(found.doubt.used.sum())
    said = {
        "labels": n * doubt.share,
        "low": n * doubt.low,
        "high": n * doubt.high,
        "listed": int(doubt.listed.sum()),
        "agree": doubt.agree,
        "leave_one_out": doubt.leave_one_out,
    }
    if noisy.flipped.any():
        table = relabel_table(sample_table(found)[doubt.used.numpy()])
        right = table["recommended"] == table["true_class"]
        said |= {
            "true": int(noisy.flipped.sum()),
            "listed_wrong": int(table["flipped"].sum()),
            "listed_right": int(right.sum()),
            "calibration_error": calibration_error(doubt.wrong.numpy(), noisy.flipped),
            "average_precision": detection(doubt.wrong.numpy(), noisy.flipped)["average_precision"],
        }
    return said


def report(found: Findings, tables: dict[str, pd.DataFrame], retrieval: dict[str, float]) -> dict:
    """The numbers of a run's findings, for metrics.json and the summary in the terminal."""
    return {
        "retrieval": retrieval,
        "trivial": found.split.trivial,
        "queries": len(found.split.query),
        "lone_queries": int(found.split.lone.sum()),
        "confusions": len(found.confusions),
        "explained": {
            "table": found.explained.table,
            "rows": len(found.explained.groups),
            "unscored": unscored(found.influence),
        },
        "confused_most": class_pairs(tables["confusions.csv"]),
        "noise": noise_report(found),
        "classes": class_report(found),
        "merge": merge_report(found),
        "relabels": len(tables["relabels.csv"]),
        "wrong": wrong_report(found),
        "duplicates": copies.report(found.duplicates, found.split, found.noisy.labels, found.confusions),
    }


def provenance(checkpoint: Path, reused: bool, seconds: dict[str, float], device: torch.device) -> dict:
    """The part of metrics.json that says which model, code and machine the numbers come from."""
    return {
        "checkpoint": {"path": str(checkpoint), "sha256": file_hash(checkpoint), "reused": reused},
        "seconds": seconds,
        "versions": {
            "deconfuse": __version__,
            **{package: version(package) for package in ("torch", "pytorch-lightning")},
        },
        "machine": {"cores": os.cpu_count(), "threads": torch.get_num_threads(), "device": str(device)},
    }


def write(
    folder: Path, found: Findings, method: str, unit: str, more: dict[str, pd.DataFrame] | None = None
) -> dict[str, pd.DataFrame]:
    """Write the tables and scores into a folder, and return the tables by file name.

    method: the name of the influence method; unit: of its scores; more: further tables to write.
    """
    tables = {**tables_of(found), **(more or {})}
    for name, table in tables.items():
        write_csv(folder / name, table, spreadsheet=name == "clean_list.csv")
    if found.trajectory is not None:
        write_array(folder / "influence_epochs.npy", found.trajectory.means.numpy())
    write_array(folder / "influence.npy", found.influence.numpy())
    index = {
        "file": "influence.npy",
        "method": method,
        "shape": list(found.influence.shape),
        "rows": f"the first {len(found.influence)} rows of {found.explained.table}, in order",
        "columns": "sample of samples.csv",
        "sign": SIGNS[found.explained.sign],
        "unit": unit,
    }
    write_json(folder / "influence_index.json", index)
    described = {
        name: {column: text for column, text in COLUMNS[name].items() if column in table}
        for name, table in tables.items()
    }
    write_json(folder / "columns.json", described)
    return tables


def finish(folder: Path, report: dict) -> dict:
    """Write metrics.json, and return what it holds: the report, this code's format, and each file's size.

    It is the last file that a run writes, so a folder without it is not whole.
    """
    report = {**report, "format": RESULTS_FORMAT, "files": sizes(folder)}
    write_json(folder / "metrics.json", report)
    return report


def sizes(folder: Path) -> dict[str, int]:
    """The size in bytes of each file directly in a folder, by name."""
    return {path.name: path.stat().st_size for path in sorted(folder.iterdir()) if path.is_file()}


def whole(folder: Path) -> bool:
    """Whether a folder holds a finished run of this format, and each of its files has its full size."""
    try:
        report = read_json(folder / "metrics.json")
    except UserError:
        return False
    if not isinstance(report, dict) or report.get("format") != RESULTS_FORMAT:
        return False
    return report["files"].items() <= sizes(folder).items()
