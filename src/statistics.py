"""How well a ranking finds what it should, and how sure a mean is."""

import numpy as np
from jaxtyping import Bool, Float
from scipy.stats import t
from sklearn.metrics import average_precision_score, roc_auc_score


def detection(suspicion: Float[np.ndarray, " n"], flipped: Bool[np.ndarray, " n"]) -> dict[str, float] | None:
    """AUROC, average precision, and recall at the noise rate, of ranking flipped samples first; in [0, 1].

    recall: the share of the k flipped samples that is among the k most suspicious, ties in the order given,
    so it does not reward a detector that cannot tell samples apart; the other two do not depend on the order.
    A random order has AUROC 0.5, and average precision and recall of about the share of flipped samples.
    None where none or all are flipped, as AUROC is not defined then.
    """
    if flipped.all() or not flipped.any():
        return None
    return {
        "auroc": float(roc_auc_score(flipped, suspicion)),
        "average_precision": float(average_precision_score(flipped, suspicion)),
        "recall": float(detection_curve(suspicion, flipped)[1][flipped.sum()]),
    }


def detection_curve(
    suspicion: Float[np.ndarray, " n"], flipped: Bool[np.ndarray, " n"]
) -> tuple[Float[np.ndarray, " n+1"], Float[np.ndarray, " n+1"]]:
    """(share checked, share found): of all samples, and of the flipped ones, after the j most suspicious.

    Both rise from 0 (j = 0) to 1 (j = n); ties are checked in the order given. At least one is flipped.
    """
    order = np.argsort(-suspicion, kind="stable")
    found = np.concatenate([[0], np.cumsum(flipped[order])])
    return np.arange(len(found)) / len(suspicion), found / flipped.sum()


def mean_interval(values: Float[np.ndarray, " n"], level: float = 0.95) -> dict[str, float | None] | None:
    """Mean and Student's interval of it, mean ± t sd / sqrt(n); no interval (low and high None) of a single
    value, and None without a finite one.

    Right for independent values; those of one model share its training set, so other models may differ more.
    """
    values = values[np.isfinite(values)]
    if not len(values):
        return None
    if len(values) == 1:
        return {"mean": float(values[0]), "low": None, "high": None, "n": 1}
    half = t.ppf((1 + level) / 2, len(values) - 1) * values.std(ddof=1) / len(values) ** 0.5
    mean = float(values.mean())
    return {"mean": mean, "low": mean - float(half), "high": mean + float(half), "n": len(values)}
