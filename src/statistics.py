"""How well a ranking finds what it should."""

import numpy as np
from jaxtyping import Bool, Float
from sklearn.metrics import average_precision_score, roc_auc_score


def detection(suspicion: Float[np.ndarray, " n"], flipped: Bool[np.ndarray, " n"]) -> dict[str, float] | None:
    """AUROC and average precision of ranking flipped samples first, both in [0, 1].

    A random order has AUROC 0.5 and an average precision of about the share of flipped samples.
    None where none or all are flipped, as neither is defined then.
    """
    if flipped.all() or not flipped.any():
        return None
    return {
        "auroc": float(roc_auc_score(flipped, suspicion)),
        "average_precision": float(average_precision_score(flipped, suspicion)),
    }
