"""How well a ranking finds what it should, and how sure a mean is."""

import math

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.stats import binomtest, shapiro, t, ttest_rel, wilcoxon
from sklearn.metrics import average_precision_score, roc_auc_score

HARMFUL = 5  # training samples that are looked at, as in the paper's Figure 3


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


def evenly(n: int, most: int) -> Int[np.ndarray, " s"]:
    """At most `most` of the numbers 0 to n, evenly spaced, with both ends: where a long curve is drawn."""
    return np.unique(np.linspace(0, n, most).round().astype(int))


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


def paired(first: Float[np.ndarray, " n"], second: Float[np.ndarray, " n"]) -> dict[str, float]:
    """Is `first` larger than `second`, pair by pair? H0: the differences x have mean, or median, 0.

        t = mean(x) / (sd(x) / sqrt(n)),   effect size d_z = mean(x) / sd(x)   (Cohen 1988, section 2.3)

    improvement: mean(x); p_t and p_wilcoxon: one-sided, of the paired t-test and of Wilcoxon's signed-rank
    test; low, high: 95 % interval of d_z, d_z ± 1.96 sqrt(1/n + d_z^2 / 2n) (Hedges and Olkin 1985, section
    5); p_normal: Shapiro and Wilk's test of x, small where the t-test's assumption of normality fails. NaN
    where a number is not defined: fewer than three pairs, or differences that are all the same but for
    rounding.
    """
    x = np.asarray(first, dtype=float) - np.asarray(second, dtype=float)
    n, names = len(x), ("p_t", "effect", "low", "high", "p_wilcoxon", "p_normal")
    found = {"n": n, "improvement": float(x.mean()) if n else math.nan, **dict.fromkeys(names, math.nan)}
    if n < 3 or np.ptp(x) <= 1e-12 * max(np.abs(first).max(), np.abs(second).max()):
        return found
    effect = float(x.mean() / x.std(ddof=1))
    half = 1.96 * math.sqrt(1 / n + effect**2 / (2 * n))
    return found | {
        "p_t": float(ttest_rel(first, second, alternative="greater").pvalue),
        "p_wilcoxon": float(wilcoxon(x, alternative="greater").pvalue),
        "p_normal": float(shapiro(x).pvalue),
        "effect": effect,
        "low": effect - half,
        "high": effect + half,
    }


def holm(p: list[float]) -> list[float]:
    """p-values corrected for their number (Holm 1979): the i-th smallest of m times m - i + 1, never falling.

    In [0, 1]; NaN, a test that was not made, stays one and does not count.
    """
    known = np.flatnonzero(np.isfinite(p)) if len(p) else np.zeros(0, int)
    order = known[np.argsort(np.asarray(p, float)[known], kind="stable")]
    found, least = [math.nan] * len(p), 0.0
    for i, at in enumerate(order):
        least = max(least, min(1.0, p[at] * (len(order) - i)))
        found[at] = float(least)
    return found


def wilson(successes: int, n: int) -> tuple[float, float]:
    """The ends of Wilson's 95 % interval of a share (Wilson 1927), n > 0."""
    found = binomtest(successes, n).proportion_ci(0.95, method="wilson")
    return float(found.low), float(found.high)


def calibration_error(
    chance: Float[np.ndarray, " n"], happened: Bool[np.ndarray, " n"], bins: int = 10
) -> float:
    """ECE: the mean over bins of equal width of |mean chance - share that happened|, by their sizes.

    Naeini et al., AAAI 2015, "Obtaining well calibrated probabilities using Bayesian binning". In [0, 1].
    """
    place = np.minimum((chance * bins).astype(int), bins - 1)
    apart = np.bincount(place, chance - happened, minlength=bins)
    return float(np.abs(apart).sum() / max(len(chance), 1))


def most_harmful(scores: np.ndarray, most: int = HARMFUL) -> np.ndarray:
    """(k,) the samples with the largest scores, most harmful first, ties by index; only what scores > 0."""
    order = np.argsort(-scores, kind="stable")[:most]
    return order[scores[order] > 0]
