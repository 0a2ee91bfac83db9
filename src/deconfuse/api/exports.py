"""What was found in the forms that other tools read."""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

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
