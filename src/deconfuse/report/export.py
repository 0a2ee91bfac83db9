"""A run's samples, with the labels decided on, as files of other labelling tools.

    deconfuse export outputs/RUN FOLDER [--decisions decisions.json]

writes FOLDER/labelstudio.json (tasks with the recommended labels as predictions, the decided ones as
annotations), FOLDER/fiftyone/ (a FiftyOneImageClassificationDataset: labels.json and data/, of links), and
FOLDER/suspects/, links to the samples that are recommended another label, most suspicious first, named by
rank and label. Without image files only labelstudio.json is written.
"""

import argparse
import json
import re
from pathlib import Path

import pandas as pd

from deconfuse.corrections import decisions
from deconfuse.data import build
from deconfuse.data.images import FileImages
from deconfuse.runs import finished
from deconfuse.runs.clean import link, settings_of
from deconfuse.system.errors import UserError, invoked
from deconfuse.system.files import whole_file, whole_folder

COLUMNS = ("path", "class", "suspicion", "recommended", "vote_recommended")


def labelled(samples: pd.DataFrame, file: Path | None) -> pd.DataFrame:
    """The samples with two more columns: given, the label decided on ("" without a decision), and left_out.

    Decisions on samples that the run does not have, or with another label by now, are refused.
    """
    found = samples.assign(given="", left_out=False)
    if file is None:
        return found
    review = decisions.read(file).labels.set_index("path")
    strange = [path for path in review.index if path not in set(samples["path"])]
    if strange:
        raise UserError(f"{file}: {strange[0]} is no training sample of this run; give its own decisions")
    now = samples.set_index("path")["class"]
    moved = [path for path, name in review["class"].items() if now[path] != name]
    if moved:
        raise UserError(f"{file}: {moved[0]} is {now[moved[0]]} in this run; give its own decisions")
    decided = found["path"].map(review["decision"]).fillna("")
    given = found["path"].map(review["label"]).fillna("")
    right = decided == "reject"
    chosen = decided.isin(["accept", "other"])
    return found.assign(
        given=found["class"].where(right, given.where(chosen, "")), left_out=decided == "exclude"
    )


def label_studio(samples: pd.DataFrame, run: str, paths: list[str]) -> list[dict]:
    """Label Studio's tasks for a choice named label of an image named image (labelstud.io, import format)."""

    def choice(label: str) -> list[dict]:
        return [{"from_name": "label", "to_name": "image", "type": "choices", "value": {"choices": [label]}}]

    tasks = []
    for row, path in zip(samples.to_dict("records"), paths, strict=True):
        prediction = {
            "model_version": run,
            "score": row["vote_recommended"],
            "result": choice(row["recommended"]),
        }
        data = {"image": path, "path": row["path"], "label_now": row["class"], "suspicion": row["suspicion"]}
        given = [{"result": choice(row["given"])}] if row["given"] else []
        tasks.append({"data": data, "predictions": [prediction], "annotations": given})
    return tasks


def fiftyone(samples: pd.DataFrame, names: list[str]) -> dict:
    """labels.json of a FiftyOneImageClassificationDataset; names: of the files in data/, without endings.

    A sample has its decided label, else the one it has; those left out are in no dataset.
    """
    labels = samples["given"].where(samples["given"] != "", samples["class"])
    classes = sorted(set(labels))
    at = {name: i for i, name in enumerate(classes)}
    kept = ~samples["left_out"].to_numpy(bool)
    return {
        "classes": classes,
        "labels": {name: at[label] for name, label, there in zip(names, labels, kept, strict=True) if there},
    }


def write(run: Path, folder: Path, file: Path | None) -> list[str]:
    """Write the folder, whole or not at all; returns the names of what is in it."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder}: is there already; give the name of a new folder")
    samples = labelled(finished.read(run).table("samples.csv", *COLUMNS), file)
    files = image_files(run / "config.yaml", samples["path"].tolist())
    paths = [str(path) for path in files] if files else samples["path"].tolist()
    with whole_folder(folder, "another FOLDER") as partial:
        _json(partial / "labelstudio.json", label_studio(samples, run.name, paths))
        if files:
            names = [f"{i:06d}" for i in range(len(files))]
            _json(partial / "fiftyone" / "labels.json", fiftyone(samples, names))
            for name, path, out in zip(names, files, samples["left_out"], strict=True):
                if not out:
                    link(path, partial / "fiftyone" / "data" / f"{name}{path.suffix}")
            other = samples[samples["recommended"] != samples["class"]]
            ranked = other.sort_values("suspicion", ascending=False, kind="stable")
            for rank, (i, row) in enumerate(ranked.iterrows()):
                name = re.sub(r"[^\w.-]+", "_", f"{row['class']} to {row['recommended']}")[:120]
                link(files[i], partial / "suspects" / f"{rank:05d} {name}{files[i].suffix}")
    return sorted(path.name for path in folder.iterdir())


def image_files(config: Path, names: list[str]) -> list[Path]:
    """The file of each training sample; [] where they are no files. UserError where the data has changed."""
    part = build.load(settings_of(config)).train
    if not isinstance(part.images, FileImages) or not part.images.on_disk:
        return []
    where = {name: part.images.path(int(row)) for name, row in zip(part.names, part.rows, strict=True)}
    gone = [name for name in names if name not in where]
    if gone:
        raise UserError(f"{config.parent}: {gone[0]} is not in its data by now; run again")
    return [where[name].absolute() for name in names]


def _json(path: Path, value: object) -> None:
    with whole_file(path) as partial:
        partial.write_text(json.dumps(value, ensure_ascii=False), "utf-8")


def main(words: list[str]) -> None:
    """Write the folder, and say what is in it."""
    parser = argparse.ArgumentParser(
        prog=invoked("export"), description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="a run's folder")
    parser.add_argument("folder", type=Path, help="a new folder")
    parser.add_argument("--decisions", type=Path, metavar="FILE", help="decisions.json, or its CSV")
    asked = parser.parse_args(words)
    there = write(asked.run, asked.folder, asked.decisions)
    print(f"{asked.folder}/: {', '.join(there)}")
