"""A run's samples, with the labels decided on, as files of other labelling tools.

    deconfuse export outputs/RUN FOLDER [--decisions decisions.json]

writes FOLDER/labelstudio.json (tasks with the recommended labels as predictions, the decided ones as
annotations) and labelstudio.xml (the labelling interface for them), FOLDER/fiftyone/ (a
FiftyOneImageClassificationDataset: labels.json and data/, of links), and FOLDER/suspects/, links to the
samples that are recommended another label, most suspicious first, named by rank and label. Without image
files only the two files for Label Studio are written. relabels=FILE takes what either tool exports after the
review.
"""

import argparse
import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

import pandas as pd

from deconfuse.corrections import decisions, labelling_tools
from deconfuse.data import build
from deconfuse.data.images import FileImages
from deconfuse.runs import finished
from deconfuse.runs.clean import link, settings_of
from deconfuse.system.errors import UserError, invoked
from deconfuse.system.files import new_folder, whole_file, whole_folder

MOST_BUTTONS = 20  # classes
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


def label_studio(samples: pd.DataFrame, run: str, addresses: Sequence[str]) -> list[dict]:
    """Label Studio's tasks for the interface that `interface` writes (labelstud.io, task format)."""

    def choice(control: str, label: str) -> dict:
        value = {"choices": [label]}
        return {"from_name": control, "to_name": "image", "type": "choices", "value": value}

    tasks = []
    for row, address in zip(samples.to_dict("records"), addresses, strict=True):
        prediction = {
            "model_version": run,
            "score": row["vote_recommended"],
            "result": [choice(labelling_tools.CONTROL, row["recommended"])],
        }
        data = {
            "image": address,
            "path": row["path"],
            "label_now": row["class"],
            "suspicion": row["suspicion"],
        }
        given = [choice(labelling_tools.CONTROL, row["given"])] if row["given"] else []
        if row["left_out"]:
            given = [choice(labelling_tools.DECISION, labelling_tools.LEAVE_OUT)]
        annotations = [{"result": given}] if given else []
        tasks.append({"data": data, "predictions": [prediction], "annotations": annotations})
    return tasks


def interface(classes: Sequence[str]) -> str:
    """Label Studio's labelling interface: the picture, the label it has, and one choice of the classes.

    Many classes are a list to choose from; a second control says that a picture is not usable.
    """
    layout = ' layout="select"' if len(classes) > MOST_BUTTONS else ""
    choices = "\n".join(f"    <Choice value={quoteattr(name)}/>" for name in classes)
    return f"""<View>
  <Header value="Label now: $label_now"/>
  <Image name="image" value="$image"/>
  <Choices name="{labelling_tools.CONTROL}" toName="image" choice="single"{layout}>
{choices}
  </Choices>
  <Choices name="{labelling_tools.DECISION}" toName="image" choice="single">
    <Choice value="{labelling_tools.LEAVE_OUT}" hint="Not a usable picture: training leaves it out"/>
  </Choices>
</View>
"""


def fiftyone(samples: pd.DataFrame, names: Sequence[str]) -> dict:
    """labels.json of a FiftyOneImageClassificationDataset; names: of the files in data/, without endings.

    A sample has its decided label, else the one it has, and what is known of it as attributes of the label;
    those left out are in no dataset.
    """
    given = samples["given"].where(samples["given"] != "", samples["class"])
    classes = sorted({*given, *samples["class"]})
    at = {name: i for i, name in enumerate(classes)}
    labels = {}
    for name, label, row in zip(names, given, samples.to_dict("records"), strict=True):
        if not row["left_out"]:
            known = {key: row[key] for key in ("path", "suspicion", "recommended", "vote_recommended")}
            labels[name] = {"label": at[label], "attributes": {**known, "label_now": row["class"]}}
    return {"classes": classes, "labels": labels}


def write(run: Path, folder: Path, file: Path | None) -> list[str]:
    """Write the folder, whole or not at all; returns the names of what is in it."""
    new_folder(folder)
    samples = labelled(finished.read(run).table("samples.csv", *COLUMNS), file)
    files = image_files(run / "config.yaml", samples["path"].tolist())
    samples = samples.sort_values("suspicion", ascending=False, kind="stable")
    files = [files[i] for i in samples.index] if files else []
    local = labelling_tools.LOCAL  # before a path from the root of the file system, without its first /
    addresses = [local + quote(path.as_posix().lstrip("/")) for path in files] or samples["path"].tolist()
    with whole_folder(folder, "another FOLDER") as partial:
        write_json(partial / "labelstudio.json", label_studio(samples, run.name, addresses))
        with whole_file(partial / "labelstudio.xml") as config:
            config.write_text(interface(sorted({*samples["class"], *samples["recommended"]})), "utf-8")
        if files:
            _links(partial, samples, files)
    return sorted(path.name for path in folder.iterdir())


def _links(folder: Path, samples: pd.DataFrame, files: list[Path]) -> None:
    """FiftyOne's data set and the suspects, as links to the files; samples: most suspicious first."""
    rows = samples.to_dict("records")
    names = [labelling_tools.stem(i, row["path"], row["class"]) for i, row in enumerate(rows)]
    write_json(folder / "fiftyone" / "labels.json", fiftyone(samples, names))
    suspects = 0
    for row, name, path in zip(rows, names, files, strict=True):
        if not row["left_out"]:
            link(path, folder / "fiftyone" / "data" / f"{name}{path.suffix}")
        if row["recommended"] != row["class"]:
            name = re.sub(r"[^\w.-]+", "_", f"{row['class']} to {row['recommended']}")[:120]
            link(path, folder / "suspects" / f"{suspects:05d} {name}{path.suffix}")
            suspects += 1


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


def write_json(path: Path, value: object) -> None:
    """Write the file whole, with null for numbers that are not finite."""
    with whole_file(path) as partial:
        partial.write_text(json.dumps(_finite(value), ensure_ascii=False, allow_nan=False), "utf-8")


def _finite(value: object) -> object:
    """The same, with null for numbers that are none, which JSON lacks."""
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


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
