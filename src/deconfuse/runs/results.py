"""The tables a run writes: confusions, samples, relabels."""

import os
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from deconfuse.attribution.scores import Acting, acting, unscored
from deconfuse.attribution.trajectory import Trajectory
from deconfuse.data.noise import NoisyLabels
from deconfuse.data.split import Split
from deconfuse.labels.relabel import Votes, recommended_right, recommended_right_all
from deconfuse.labels.taxonomy import KINDS, merge_quality, merges, taxonomy
from deconfuse.retraining.reweight import Changes
from deconfuse.retrieval.confusion import Explained, Pairs, groups
from deconfuse.retrieval.statistics import detection
from deconfuse.runs.columns import COLUMNS, SIGNS
from deconfuse.runs.finished import RESULTS_FORMAT
from deconfuse.system.errors import UserError
from deconfuse.system.files import file_hash, read_json, write_array, write_csv, write_json


@dataclass(frozen=True)
class Findings:
    """Everything a run found out, before it is written.

    influence (e, n): of what was explained, > 0 harmful; suspicion (n,): higher = more likely mislabelled.
    retrained: d before and after retraining by the scores; None: not measured.
    lds (e,): how well the scores predict retraining without random subsets, in [-1, 1]; None: not measured.
    """

    split: Split
    noisy: NoisyLabels
    confusions: Pairs
    explained: Explained
    influence: Float[Tensor, "e n"]
    suspicion: Float[Tensor, " n"]
    votes: Votes
    lds: Float[np.ndarray, " e"] | None = None
    retrained: Changes | None = None
    trajectory: Trajectory | None = None  # over the epochs explained; None: the last one alone

    @cached_property
    def acting(self) -> Acting:
        """How each training sample acts on what was explained."""
        return acting(self.influence)


def confusion_table(found: Findings) -> pd.DataFrame:
    """One row per confusion pair, closest first."""
    split, pairs = found.split, found.confusions
    query, neighbour = pairs.query.numpy(), pairs.neighbour.numpy()
    classes = split.query.labels[query], split.gallery.labels[neighbour]
    alike = {(a, b) for group in split.same_things for a in group for b in group}
    return pd.DataFrame(
        {
            "confusion": np.arange(len(pairs)),
            "query": [split.query.names[i] for i in query],
            "query_class": [split.class_names[c] for c in classes[0]],
            "neighbour": [split.gallery.names[i] for i in neighbour],
            "neighbour_class": [split.class_names[c] for c in classes[1]],
            "distance": pairs.distance.numpy(),
            "same_thing": [pair in alike for pair in zip(*classes, strict=True)],
        },
        columns=list(COLUMNS["confusions.csv"]),
    )


def group_table(found: Findings) -> pd.DataFrame:
    """One row per confusion group: all confusions whose query has one test class."""
    split, pairs = found.split, found.confusions
    labels, near = torch.from_numpy(split.query.labels), split.gallery.labels[pairs.neighbour.numpy()]
    rows = []
    for i, (c, members) in enumerate(groups(pairs, labels)):
        with_whom = np.bincount(near[members.numpy()]).argmax()
        distance = pairs.distance[members].mean().item()
        sizes = len(members), int((split.query.labels == c).sum())
        rows.append((i, split.class_names[c], *sizes, split.class_names[with_whom], distance))
    return pd.DataFrame(rows, columns=list(COLUMNS["groups.csv"]))


def mis_similar_table(found: Findings) -> pd.DataFrame:
    """One row per explained mis-similar pair, farthest first."""
    split, pairs = found.split, found.explained.pairs
    query, neighbour = pairs.query.numpy(), pairs.neighbour.numpy()
    return pd.DataFrame(
        {
            "pair": np.arange(len(pairs)),
            "query": [split.query.names[i] for i in query],
            "neighbour": [split.gallery.names[i] for i in neighbour],
            "class": [split.class_names[c] for c in split.query.labels[query]],
            "distance": pairs.distance.numpy(),
        }
    )


def retrained_table(changes: Changes) -> pd.DataFrame:
    """One row per explanation: d before and after retraining by its scores."""
    before, after, change = (each.numpy() for each in (changes.before, changes.after, changes.change))
    return pd.DataFrame(
        {"row": np.arange(len(before)), "d_before": before, "d_after": after, "change": change}
    )


def sample_table(found: Findings) -> pd.DataFrame:
    """One row per training sample, in the training set's order."""
    names, noisy = found.split.class_names, found.noisy
    label, share = found.votes.best
    table = pd.DataFrame(
        {
            "sample": np.arange(len(noisy.labels)),
            "path": found.split.train.names,
            "class": [names[c] for c in noisy.labels],
            "influence_mean": found.acting.mean.numpy(),
            "influence_abs_mean": found.acting.absolute.numpy(),
            "harmful_share": found.acting.harmful.numpy(),
            **(found.trajectory.columns() if found.trajectory else {}),
            "suspicion": found.suspicion.numpy(),
            "vote_current": found.votes.own.numpy(),
            "recommended": [names[c] for c in label],
            "vote_recommended": share.numpy(),
        }
    )
    if noisy.flipped.any():
        table["flipped"] = noisy.flipped
        table["true_class"] = [names[c] for c in noisy.clean]
    return table


def relabel_table(samples: pd.DataFrame) -> pd.DataFrame:
    """Algorithm 1: harmful samples whose neighbours vote for another label; most suspicious first."""
    chosen = samples[(samples["influence_mean"] > 0) & (samples["recommended"] != samples["class"])]
    chosen = chosen.sort_values(["suspicion", "sample"], ascending=[False, True], kind="stable")
    chosen = chosen.assign(rank=np.arange(len(chosen)))
    return chosen[[column for column in COLUMNS["relabels.csv"] if column in chosen]]


def suggestions(found: Findings, harmful_only: bool = True) -> pd.DataFrame:
    """`taxonomy` of the samples that are recommended another label: the harmful ones, or all."""
    label, current = found.votes.best[0].numpy(), found.noisy.labels
    suggested = label != current
    if harmful_only:
        suggested &= (found.acting.mean > 0).numpy()
    return taxonomy(current, label, suggested)


def class_table(found: Findings) -> pd.DataFrame:
    """One row per training class with relabel suggestions: most first, ties by name."""
    names, table = np.array(found.split.class_names, dtype=object), suggestions(found)
    merged = (table[["kind", "kind_by_share"]] == "centralized").any(axis=1)
    leans_to = pd.Series(names[table["leans_to"].to_numpy(np.int64)], dtype=object, index=table.index)
    table = table.assign(**{"class": names[table["class"].to_numpy(np.int64)]}, leans_to=leans_to)
    table = table.assign(merge_with=leans_to.where(merged, ""))
    return table.sort_values(["suggestions", "class"], ascending=[False, True], ignore_index=True)


def class_report(found: Findings) -> dict:
    """Table 5: how many classes are of each kind, by both rules."""
    table = suggestions(found)
    return {
        rule: {kind: int((table[rule] == kind).sum()) for kind in KINDS} for rule in ("kind", "kind_by_share")
    }


def merge_report(found: Findings) -> dict | None:
    """`merge_quality` by the harmful suggestions, by them and the authors' rule, and by all suggestions; None
    where no classes are known to be alike."""
    c, groups, harmful = found.split.num_classes, found.split.same_things, suggestions(found)
    by = {"harmful": merges(harmful), "harmful_by_share": merges(harmful, "kind_by_share")}
    by["all"] = merges(suggestions(found, harmful_only=False))
    quality = {name: merge_quality(pairs, groups, c) for name, pairs in by.items()}
    return quality if quality["all"] else None


def class_pairs(confusions: pd.DataFrame, most: int = 10) -> list[dict]:
    """The unordered class pairs confused most, with how often; ties by name."""
    both = [
        tuple(sorted(pair))
        for pair in zip(confusions["query_class"], confusions["neighbour_class"], strict=True)
    ]
    counts = pd.Series(both, dtype=object).value_counts()
    alike = dict(zip(both, confusions["same_thing"], strict=True))
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:most]
    return [{"classes": list(pair), "confusions": n, "same_thing": alike[pair]} for pair, n in ranked]


def noise_report(found: Findings) -> dict | None:
    """How well flipped samples were found and recommended right; None where none were flipped."""
    noisy = found.noisy
    if not noisy.flipped.any():
        return None
    label = found.votes.best[0].numpy()
    flagged = (found.acting.mean > 0).numpy() & (label != noisy.labels)
    return {
        "flipped": int(noisy.flipped.sum()),
        "detector": detection(found.suspicion.numpy(), noisy.flipped),
        "absolute_influence": detection(found.acting.absolute.numpy(), noisy.flipped)
        if len(found.influence)
        else None,
        "recommended_right": recommended_right(
            found.votes,
            torch.from_numpy(noisy.labels),
            torch.from_numpy(noisy.clean),
            found.acting.mean > 0,
        ),
        "recommended_right_all": recommended_right_all(
            found.votes, torch.from_numpy(noisy.labels), torch.from_numpy(noisy.clean)
        ),
        "relabels": int(flagged.sum()),
        "relabels_right": int((flagged & (label == noisy.clean)).sum()),
    }


def report(found: Findings, tables: dict[str, pd.DataFrame], retrieval: dict[str, float]) -> dict:
    """The numbers that the summary and metrics.json tell."""
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
    }


def provenance(checkpoint: Path, reused: bool, seconds: dict[str, float], device: torch.device) -> dict:
    """What metrics.json says of where the numbers come from."""
    return {
        "checkpoint": {"path": str(checkpoint), "sha256": file_hash(checkpoint), "reused": reused},
        "seconds": seconds,
        "versions": {package: version(package) for package in ("deconfuse", "torch", "pytorch-lightning")},
        "machine": {"cores": os.cpu_count(), "threads": torch.get_num_threads(), "device": str(device)},
    }


def write(
    folder: Path, found: Findings, method: str, unit: str, more: dict[str, pd.DataFrame] | None = None
) -> dict[str, pd.DataFrame]:
    """Write the tables and scores into a folder, and return the tables by file name; more: further ones."""
    samples = sample_table(found)
    tables = {
        "confusions.csv": confusion_table(found),
        "groups.csv": group_table(found),
        "samples.csv": samples,
        "relabels.csv": relabel_table(samples),
        "classes.csv": class_table(found),
    }
    if found.explained.table == "mis_similar.csv":
        tables["mis_similar.csv"] = mis_similar_table(found)
    if found.lds is not None:
        tables["counterfactual.csv"] = pd.DataFrame({"row": np.arange(len(found.lds)), "lds": found.lds})
    if found.retrained is not None:
        tables["retrained.csv"] = retrained_table(found.retrained)
    if found.trajectory is not None:
        tables["influence_epochs.csv"] = found.trajectory.table(found.noisy.flipped)
        tables["explained_epochs.csv"] = found.trajectory.explained_table(found.split)
        write_array(folder / "influence_epochs.npy", found.trajectory.means.numpy())
    tables |= more or {}
    for name, table in tables.items():
        write_csv(folder / name, table, spreadsheet=name == "clean_list.csv")
    write_array(folder / "influence.npy", found.influence.numpy())
    write_json(
        folder / "influence_index.json",
        {
            "file": "influence.npy",
            "method": method,
            "shape": list(found.influence.shape),
            "rows": f"the first {len(found.influence)} rows of {found.explained.table}, in order",
            "columns": "sample of samples.csv",
            "sign": SIGNS[found.explained.sign],
            "unit": unit,
        },
    )
    described = {
        name: {column: text for column, text in COLUMNS[name].items() if column in table}
        for name, table in tables.items()
    }
    write_json(folder / "columns.json", described)
    return tables


def finish(folder: Path, report: dict) -> dict:
    """Write metrics.json, the last file: the report, this code's format, and what else is in the folder."""
    report = {**report, "format": RESULTS_FORMAT, "files": sizes(folder)}
    write_json(folder / "metrics.json", report)
    return report


def sizes(folder: Path) -> dict[str, int]:
    """Bytes of every file in a folder, by name; what is in folders below is not what runs are compared by."""
    return {path.name: path.stat().st_size for path in sorted(folder.iterdir()) if path.is_file()}


def whole(folder: Path) -> bool:
    """True where a run of this code's format lies, with every file that it wrote, as long as it was."""
    try:
        report = read_json(folder / "metrics.json")
    except UserError:
        return False
    if not isinstance(report, dict) or report.get("format") != RESULTS_FORMAT:
        return False
    return report["files"].items() <= sizes(folder).items()
