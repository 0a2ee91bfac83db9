"""Make the data set with a run's corrected labels: clean_list.csv, and a folder of links for ImageFolder.

    deconfuse clean outputs/RUN FOLDER

makes FOLDER/train/CLASS/IMAGE, the same for the test side (test, or query and gallery), and FOLDER/list.csv
for dataset=table. The images are links to where they lie. RUN is a run that corrected labels, by relabels= or
loop.rounds=.
"""

import argparse
import errno
import re
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from deconfuse.corrections.corrections import Corrections
from deconfuse.corrections.decisions import table as read_table
from deconfuse.data import build
from deconfuse.data.images import FileImages
from deconfuse.data.split import Split
from deconfuse.labels.loop import Loop
from deconfuse.runs.columns import COLUMNS
from deconfuse.runs.tables import Findings
from deconfuse.system.csv_files import write_csv
from deconfuse.system.errors import UserError, invoked, shorten
from deconfuse.system.files import new_folder, short_hash, whole_folder
from deconfuse.system.words import agree, many

LIST = "clean_list.csv"
# The errors of file systems that have no links.
NO_LINKS = (errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP, errno.EACCES)


def tables(found: Findings, corrections: Corrections | None, loop: Loop | None) -> dict[str, pd.DataFrame]:
    """clean_list.csv: every training sample, those that change first; {} where nothing corrects labels."""
    if corrections is None and loop is None:
        return {}
    given = (corrections.given if corrections else found.noisy).labels
    new, left_out, evidence = found.noisy.labels, np.zeros(len(given), bool), np.full(len(given), "", object)
    if corrections:
        evidence[:], left_out = corrections.evidence, corrections.left_out
    if loop:
        new, left_out = loop.labels.labels, loop.labels.left_out
        never = corrections.left_out if corrections else np.zeros(len(given), bool)
        for i in np.flatnonzero(((new != found.noisy.labels) | left_out) & ~never):
            share = loop.labels.evidence[i]
            evidence[i] = f"loop {1 - share if left_out[i] else share:.2f}"  # P of what was done
    names = np.array(found.split.class_names, dtype=object)
    change = np.select([left_out, new != given], ["left out", "relabelled"], "kept").astype(object)
    table = pd.DataFrame(
        {
            "path": np.array(found.split.train.names, dtype=object),
            "old_label": names[given],
            "new_label": np.where(left_out, "", names[new]),
            "change": change,
            "evidence": np.where(change == "kept", "", evidence),
        },
        columns=list(COLUMNS[LIST]),
    )
    return {LIST: table.iloc[np.argsort(change == "kept", kind="stable")].reset_index(drop=True)}


def links(run: Path, folder: Path) -> tuple[int, int]:
    """Write FOLDER completely or not at all; returns (number of images, how many of them were copied).

    An image is copied where it is in an archive, or where the file system has no links. Raises UserError
    where the run corrected nothing, where its data has no image files or has changed, or where FOLDER is not
    empty.
    """
    if not (run / "metrics.json").is_file():
        raise UserError(f"{run}: no finished run (no metrics.json); give a folder of outputs/")
    if not (run / LIST).is_file():
        raise UserError(
            f"{run}: corrected no label (no {LIST}); run again with relabels=FILE or loop.rounds=1"
        )
    new_folder(folder)
    settings = settings_of(run / "config.yaml")
    root = settings.get("root")
    if root and folder.resolve().is_relative_to(Path(root).resolve()):
        raise UserError(
            f"{folder}: is inside the data, {root}, where it would be more of it; name one elsewhere"
        )
    split = build.load(settings)
    if not isinstance(split.train.images, FileImages):
        raise UserError(f"{run}: its data is no image files to link; the labels are in {run / LIST}")
    labels = _labels(run / LIST, split)
    sides = {"train": split.train}
    sides |= (
        {"test": split.query} if split.shared_gallery else {"query": split.query, "gallery": split.gallery}
    )
    rows, copies = [], 0
    with whole_folder(folder, "another FOLDER") as partial:
        for side, part in sides.items():
            given = labels if side == "train" else [split.class_names[c] for c in part.labels]
            files = [part.images.path(row) for row in part.rows]
            kept = [i for i, label in enumerate(given) if label]
            for i, place in zip(
                kept, places([(given[i], files[i].name, part.names[i]) for i in kept]), strict=True
            ):
                if part.images.on_disk:
                    copies += link(files[i].absolute(), partial / side / place)
                else:
                    copies += _written(part.images.read(int(part.rows[i])), partial / side / place)
                rows.append((f"{side}/{place}", given[i], side))
        # dataset=table takes labels as they are written.
        write_csv(partial / "list.csv", pd.DataFrame(rows, columns=["path", "label", "split"]), guard=False)
    return len(rows), copies


def places(images: list[tuple[str, str, str]]) -> list[str]:
    """A distinct, safe path CLASS/IMAGE for each (class, file name, name in the data set).

    Where two paths would be equal, or differ only in capitals, each gets a hash of the name that it is for.
    """
    folders = {name: _safe(name) for name in dict.fromkeys(name for name, _, _ in images)}
    taken = Counter(place.casefold() for place in folders.values())
    for name, place in folders.items():
        if taken[place.casefold()] > 1:
            folders[name] = f"{place}-{short_hash(name)}"
    found = [f"{folders[label]}/{_safe(file)}" for label, file, _ in images]
    taken = Counter(place.casefold() for place in found)
    for i, (place, (_, _, name)) in enumerate(zip(found, images, strict=True)):
        if taken[place.casefold()] > 1:
            stem, dot, suffix = place.rpartition(".")
            found[i] = f"{stem}-{short_hash(name)}{dot}{suffix}"
    return found


def _safe(name: str) -> str:
    """A file name that is valid everywhere: no separators or control characters, not hidden, <= 200 bytes."""
    text = re.sub(r'[\x00-\x1f\x7f/\\:*?"<>|]', "_", name).rstrip(". ")
    text = f"_{text}" if not text or text.startswith(".") else text
    if len(text.encode()) > 200:
        suffix = Path(text).suffix[:10]
        text = text.encode()[:180].decode(errors="ignore") + f"-{short_hash(name)}{suffix}"
    return text


def link(file: Path, place: Path) -> bool:
    """Link place to the file, or copy the file where links are not possible; True where it was copied."""
    place.parent.mkdir(parents=True, exist_ok=True)
    try:
        place.symlink_to(file)
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        shutil.copy2(file, place)
        return True
    return False


def _written(content: bytes, place: Path) -> bool:
    """Write what an archive holds; True, as it is a copy."""
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(content)
    return True


def _labels(file: Path, split: Split) -> list[str]:
    """Each training sample's new label, "" where it was left out; UserError where the data has changed."""
    listed = {row["path"]: (row["old_label"], row["new_label"]) for _, row in read_table(file)[1]}
    odd = sorted(listed.keys() ^ set(split.train.names))
    if odd:
        raise UserError(
            f"{file}: {many(len(odd), 'image')} {agree(len(odd))} not in both it and the data: "
            f"{shorten(odd, 3)}; run again"
        )
    return [listed[name][1] for name in split.train.names]


def settings_of(config: Path) -> dict:
    """The settings of a run's data set; UserError where they cannot be read."""
    try:
        settings = dict(yaml.safe_load(config.read_text("utf-8"))["dataset"])
        if settings["_target_"].startswith("deconfuse.dataset."):
            return settings
    except (OSError, ValueError, TypeError, KeyError, AttributeError, yaml.YAMLError):
        pass
    raise UserError(f"{config}: does not say which data set it was; run again")


def main(words: list[str]) -> None:
    """Make the folder, and print what is in it."""
    parser = argparse.ArgumentParser(
        prog=invoked("clean"), description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="a run's folder, with clean_list.csv")
    parser.add_argument("folder", type=Path, help="a new folder")
    asked = parser.parse_args(words)
    images, copies = links(asked.run, asked.folder)
    what = "copies, as links are not possible" if copies else "links"
    print(
        f"{many(images, 'image')} in {asked.folder}/ ({what}); ImageFolder('{asked.folder}/train') reads "
        "them, and"
    )
    print(f"{invoked('run')} dataset=table dataset.csv={asked.folder}/list.csv")
