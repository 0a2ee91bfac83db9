"""What was found in the forms that other tools read."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from deconfuse.data.images import FeatureRows, file_of
from deconfuse.report import export
from deconfuse.runs.clean import link
from deconfuse.system.errors import UserError
from deconfuse.system.files import new_folder, whole_folder

if TYPE_CHECKING:
    from deconfuse.api.found import Found


def cleanlab(found: "Found") -> pd.DataFrame:
    """One row per training sample with the columns of Datalab's get_issues("label").

    is_label_issue: the sample is in relabels. label_score: 1 - suspicion where the detector gives a share
    (knn, cleanlab); else 1 - (how many samples are less suspicious, ties halved) / n; in [0, 1], lower = more
    likely mislabelled. given_label, predicted_label: class names; predicted is the label that is recommended.
    """
    samples = found.samples
    suspicion = samples["suspicion"].to_numpy(float)
    if (
        suspicion.min() >= 0
        and suspicion.max() <= 1
        and found.asked.choices["detector"] in ("knn", "cleanlab")
    ):
        score = 1 - suspicion
    else:
        score = 1 - (pd.Series(suspicion).rank(method="average").to_numpy() - 0.5) / len(suspicion)
    issue = np.zeros(len(samples), bool)
    issue[found.relabels["sample"].to_numpy(np.int64)] = True
    return pd.DataFrame(
        {
            "is_label_issue": issue,
            "label_score": score,
            "given_label": samples["class"].to_numpy(object),
            "predicted_label": samples["recommended"].to_numpy(object),
        }
    )


def label_studio(found: "Found") -> list[dict]:
    """A task for each training sample, with the label that is recommended as its prediction.

    The image is the picture's file, or the sample's name where it is none.
    """
    samples, files = _undecided(found), _files(found)
    paths = [str(file or name) for file, name in zip(files, samples["path"], strict=True)]
    return export.label_studio(samples, "deconfuse", paths)


def fiftyone(found: "Found", folder: Path) -> Path:
    """Write a FiftyOneImageClassificationDataset of the training pictures with their labels; the folder.

    A picture that is a file becomes a link, any other a PNG. UserError where there are no pictures, or where
    the folder is not empty.
    """
    part = found.findings.split.train
    if isinstance(part.images, FeatureRows):
        raise UserError("to_fiftyone: there are no pictures; give dc.explain images={'train': [...], ...}")
    new_folder(folder)
    names = [f"{i:06d}" for i in range(len(part))]
    with whole_folder(folder, "another folder") as partial:
        (partial / "data").mkdir()
        for i, (name, file) in enumerate(zip(names, _files(found), strict=True)):
            if file is not None:
                link(file.absolute(), partial / "data" / f"{name}{file.suffix}")
            else:
                part.image(i).save(partial / "data" / f"{name}.png")
        export.write_json(partial / "labels.json", export.fiftyone(_undecided(found), names))
    return folder


def _undecided(found: "Found") -> pd.DataFrame:
    """The samples in the form in which no label has been decided on."""
    return found.samples.assign(given="", left_out=False)


def _files(found: "Found") -> list[Path | None]:
    """The file of each training picture; None where it is none."""
    part = found.findings.split.train
    return [file_of(part.images, int(row)) for row in part.rows]
