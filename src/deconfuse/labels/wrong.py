"""P(wrong) of each training label: how likely it is that the label is an error, not that the sample is hard.

A held-out classifier says p(j | x), which class x belongs to. A label is wrong with probability eps, and then
any other class, one as likely as another. So the label y that is given has the probability

    P(y | x) = (1 - eps) p(y | x) + eps (1 - p(y | x)) / (c - 1),

and P(wrong | x, y) is the second term's share of it. A weak classifier gives many labels a p of a tenth,
which is far more than eps / (c - 1): hard samples are not wrong ones. p is the softmax of tau times the
held-out cosines. tau and eps are those by which the labels given are likeliest, so the classifier is
calibrated and the errors are counted in one step, and nothing is tuned to a data set. Label noise of this
kind: Natarajan et al. (NeurIPS 2013, "Learning with noisy labels"); errors counted by maximum likelihood:
Dawid and Skene (1979).
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from deconfuse.labels.held_out import cosines
from deconfuse.labels.relabel import KEPT, Votes
from deconfuse.retrieval.directions import unit

SCALES = np.geomspace(2, 500, 56).tolist()  # of the cosines in the softmax, among which tau is chosen
FITTED = 20_000  # samples that tau is chosen by, at most
PASSES = 2  # the second one counts each sample by 1 - P(wrong) of the first
STEPS = 500  # of expectation and maximisation for eps, at most
NEARLY = 1e-7  # the change of eps at which it has converged
WIDTH = 3.841  # twice the fall of the log likelihood at the ends of a 95 % interval: chi square, one degree


@dataclass(frozen=True)
class Doubt:
    """How likely each training label is wrong.

    wrong (n,): P(wrong), in [0, 1]; label (n,): the likeliest other class. share: the estimated share of
    wrong labels, with the ends of its 95 % interval. agree: the share of the labels that are the likeliest
    class by the other folds: how far to trust the classifier. leave_one_out: R@1 of the embeddings on the
    training classes, None where not all neighbours are known. votes: p(j | x) of the likeliest classes. used
    (n,): which samples the classifier learnt from and the shares are of.
    """

    wrong: Float[Tensor, " n"]
    label: Int[Tensor, " n"]
    share: float
    low: float
    high: float
    agree: float
    leave_one_out: float | None
    votes: Votes
    used: Bool[Tensor, " n"]

    @property
    def listed(self) -> Bool[Tensor, " n"]:
        """Which labels are more likely wrong than right, among the samples that are used."""
        return (self.wrong > 0.5) & self.used


@dataclass(frozen=True)
class Held:
    """What is kept of the held-out cosines.

    own (n,): that of the label given; log_sum (f, t): log sum_j exp(tau cos_j) of some samples, for each tau;
    near (n, k): the largest ones of all classes, and which `classes`; known (n,): whether the other folds
    have samples of the label given.
    """

    own: Float[Tensor, " n"]
    log_sum: Float[Tensor, "f t"]
    near: Float[Tensor, "n k"]
    classes: Int[Tensor, "n k"]
    known: Bool[Tensor, " n"]


def doubt(
    features: Float[Tensor, "n D"],
    labels: Int[Tensor, " n"],
    c: int,
    votes: Votes | None = None,
    directions: bool = False,
    used: Int[Tensor, " r"] | None = None,
) -> Doubt:
    """P(wrong) of each label by the features; c: the number of classes; votes: of the nearest embeddings.

    directions: the features are embeddings, of which the directions alone count. used: the samples that the
    classifier learns from (all); the labels of the others say nothing, but are judged all the same.

    A label that no sample of the other folds has cannot be judged, and gets P(wrong) = eps. Computed on the
    CPU.
    """
    features, labels = features.cpu(), labels.cpu()
    features = unit(features) if directions else features
    counted = torch.ones(len(labels), dtype=torch.float64)
    if used is not None:
        counted = torch.zeros_like(counted).index_fill(0, used, 1.0)
    weight = counted
    for _ in range(PASSES):
        held, scale, log_sum = _fitted(features, labels, weight, c)
        p, judged = torch.exp(scale * held.own - log_sum), held.known & (counted > 0)
        share = likeliest(p[judged], c)[0]
        wrong = torch.where(held.known, posterior(p, share, c), share)
        weight = (1 - wrong) * counted
    chance = Votes(held.classes, torch.exp(scale * held.near - log_sum[:, None]), p)
    agree = (held.classes[:, 0] == labels)[judged].double().mean().item() if judged.any() else 0.0
    near = None if votes is None or votes.index is None else labels[votes.index[:, 0]]
    first = None if near is None else (near == labels)[counted > 0].double().mean().item()
    ends, other = interval(p[judged], share, c), chance.best_but(labels)[0]
    return Doubt(wrong, other, share, *ends, agree, first, chance, counted > 0)


def _fitted(
    features: Tensor, labels: Tensor, weight: Tensor, c: int
) -> tuple[Held, float, Float[Tensor, " n"]]:
    """(the held-out cosines, tau, log sum_j exp(tau cos_j) of each sample).

    tau is chosen by at most FITTED samples, evenly spread; more are passed a second time with it.
    """
    n, scales = len(labels), torch.tensor(SCALES, dtype=torch.float64)
    few = torch.arange(min(n, FITTED)) * n // min(n, FITTED)
    held = _held(features, labels, weight, c, scales, few)
    chances = torch.exp(scales * held.own[few, None] - held.log_sum)[held.known[few] & (weight[few] > 0)]
    fits = [likeliest(p, c)[1] for p in chances.T]
    place = max(range(len(fits)), key=fits.__getitem__)
    if len(few) == n:
        return held, SCALES[place], held.log_sum[:, place]
    whole = _held(features, labels, weight, c, scales[place : place + 1], torch.arange(n))
    return whole, SCALES[place], whole.log_sum[:, 0]


def _held(
    features: Tensor, labels: Tensor, weight: Tensor, c: int, scales: Tensor, few: Int[Tensor, " f"]
) -> Held:
    n = len(labels)
    own, log_sum = torch.zeros(n, dtype=torch.float64), torch.zeros(len(few), len(scales)).double()
    place = torch.full((n,), -1).scatter(0, few, torch.arange(len(few)))
    kept = min(KEPT, c)
    near, classes = torch.zeros(n, kept, dtype=torch.float64), labels[:, None].repeat(1, kept)
    known = torch.zeros(n, dtype=torch.bool)
    for rows, cosine, there in cosines(features, labels, weight, c):
        cosine = cosine.double().masked_fill(~there, -1.0)
        given = labels[rows, None]
        own[rows] = cosine.gather(1, given)[:, 0]
        known[rows] = there[given[:, 0]]
        near[rows], classes[rows] = cosine.topk(kept, dim=1)
        asked = place[rows] >= 0
        for i, scale in enumerate(scales.tolist()):
            log_sum[place[rows[asked]], i] = torch.logsumexp(scale * cosine[asked], 1)
    return Held(own, log_sum, near, classes, known)


def posterior(p: Float[Tensor, " n"], share: float, c: int) -> Float[Tensor, " n"]:
    """P(wrong | x, y) from p(y | x) and the share of wrong labels."""
    wrong = share * (1 - p) / max(c - 1, 1)
    return wrong / (wrong + (1 - share) * p).clamp_min(torch.finfo(p.dtype).tiny)


def log_likelihood(p: Float[Tensor, " n"], share: float, c: int) -> float:
    """Of the labels given, in nats."""
    each = (1 - share) * p + share * (1 - p) / max(c - 1, 1)
    return each.clamp_min(torch.finfo(p.dtype).tiny).log().sum().item()


def likeliest(p: Float[Tensor, " n"], c: int) -> tuple[float, float]:
    """(the share of wrong labels that makes the labels given likeliest, their log likelihood)."""
    share = 0.05
    for _ in range(STEPS if len(p) and c > 1 else 0):
        new = posterior(p, share, c).mean().item()
        done, share = abs(new - share) < NEARLY, new
        if done:
            break
    share = share if len(p) and c > 1 else 0.0
    return share, log_likelihood(p, share, c)


def interval(p: Float[Tensor, " n"], share: float, c: int) -> tuple[float, float]:
    """The shares at which twice the log likelihood is WIDTH below its largest: a 95 % interval."""
    least = log_likelihood(p, share, c) - WIDTH / 2

    def end(inside: float, outside: float) -> float:
        for _ in range(40):
            middle = (inside + outside) / 2
            good = log_likelihood(p, middle, c) >= least
            inside, outside = (middle, outside) if good else (inside, middle)
        return inside

    return end(share, 0.0), end(share, 1.0)
