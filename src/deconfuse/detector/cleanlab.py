"""Suspicion = 1 - cleanlab's label quality (Northcutt, Jiang and Chuang, "Confident learning", JAIR 2021).

Label quality is computed from out-of-fold probabilities: P(class | e) by a logistic regression on the
normalised embeddings e of the other folds. The head that made e was trained on all labels, also wrong ones;
only the regression is out of fold. Embeddings are used rather than features: they find flipped labels
equally well (AP within 0.001 on average; glyphs and omniglot, three seeds each), are about four times as
fast, and are what is confused.
"""

import warnings
from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float, Int
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from deconfuse.attribution.head import Training
from deconfuse.attribution.rows import embeddings
from deconfuse.labels.relabel import Votes
from deconfuse.retrieval.directions import unit
from deconfuse.system.errors import UserError, at_least, count, one_of, within
from deconfuse.system.progress import console, track
from deconfuse.system.words import agree, many

METHODS = ("self_confidence", "normalized_margin", "confidence_weighted_entropy")
MOST_STEPS = 1000  # the most L-BFGS iterations per fold


def suspicion(
    training: Training,
    influence: Float[Tensor, "p n"],
    votes: Votes,
    folds: int = 5,
    method: str = "self_confidence",
    C: float = 0.1,
    seed: int = 0,
) -> Float[Tensor, " n"]:
    """1 - label quality, in [0, 1]; higher = more likely mislabelled. By default 1 - P(current label).

    folds: the number of folds, for each of which a regression is fitted on the others; method: cleanlab's
    measure of label quality; C: the inverse of the regression's L2 penalty; seed: of the folds. A sample that
    is alone in its class cannot be judged, as no other sample shows what the class looks like: it is left out
    and gets the median suspicion of the others. 0 for all samples if fewer than two classes are left. Raises
    UserError if the library is missing.
    """
    quality = _library()
    count("detector.folds", folds, 2)
    one_of("detector.method", method, METHODS)
    at_least("detector.C", C, 1e-6)
    within("detector.seed", count("detector.seed", seed, 0), 0, 2**32 - 1)
    _, classes, sizes = np.unique(training.labels.cpu().numpy(), return_inverse=True, return_counts=True)
    judged = sizes[classes] > 1
    result = np.zeros(len(training))
    if (sizes > 1).sum() > 1:
        z = unit(embeddings(training), torch.float64).cpu().numpy()[judged]
        _, labels = np.unique(classes[judged], return_inverse=True)
        share = out_of_fold(z, labels, min(folds, int(sizes.max())), C, seed)
        result[judged] = 1 - np.clip(quality(labels, share, method=method), 0, 1)
        result[~judged] = np.median(result[judged])
        alone = int((~judged).sum())
        if alone:
            console.print(
                f"cleanlab: {many(alone, 'sample')} {agree(alone)} alone in {agree(alone, 'its', 'their')} "
                f"class and cannot be judged; {agree(alone, 'it gets', 'they get')} the median suspicion"
            )
    return torch.from_numpy(result).to(training.weight)


def out_of_fold(
    x: Float[np.ndarray, "n d"], labels: Int[np.ndarray, " n"], folds: int, C: float, seed: int
) -> Float[np.ndarray, "n c"]:
    """P(class | x) from the other folds, labels being 0..c-1 with at least two samples of each.

    The samples of a class that has fewer samples than folds are in different folds, so every regression is
    fitted on samples of every class.
    """
    share, open_ = np.empty((len(x), labels.max() + 1)), 0
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The least populated class", UserWarning)
        splits = list(StratifiedKFold(folds, shuffle=True, random_state=seed).split(x, labels))
    for rest, fold in track(splits, "cleanlab (folds)", folds):
        regression = make_pipeline(StandardScaler(), LogisticRegression(C=C, max_iter=MOST_STEPS))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # one warning for all folds is printed below
            regression.fit(x[rest], labels[rest])
        open_ += int(regression[-1].n_iter_.max() >= MOST_STEPS)
        share[fold] = regression.predict_proba(x[fold])
    if open_:
        console.print(
            f"warning: cleanlab: {open_} of {folds} regressions did not converge in {MOST_STEPS} steps; "
            f"lower detector.C (now {C:g})"
        )
    return share


def _library() -> Callable[..., np.ndarray]:
    """cleanlab's get_label_quality_scores; the library is optional."""
    try:
        from cleanlab.rank import get_label_quality_scores
    except ImportError as error:
        raise UserError(
            f"detector=cleanlab needs the library cleanlab ({error}); pip install 'deconfuse[cleanlab]'"
        ) from error
    return get_label_quality_scores
