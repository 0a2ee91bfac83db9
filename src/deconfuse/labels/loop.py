"""Relabel samples, leave out doubtful ones, train again from scratch, and measure what that wins back.

Each round decides for every sample between the label given and another one, by the evidence of all models
so far. The evidence of the latest model alone would repeat its errors, as a model reproduces the labels
that it was trained with. If the evidence is even, the label given stays, because most labels are right; so
samples of classes that look alike are not left out.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from deconfuse.attribution.head import Training
from deconfuse.attribution.look import Seen, Subject, earlier_sides, look
from deconfuse.compute.placement import exact
from deconfuse.data.noise import NoisyLabels
from deconfuse.data.split import Split
from deconfuse.labels.evidence import evidence, odds
from deconfuse.labels.relabel import neighbourhood
from deconfuse.retrieval.metrics import MEASURES
from deconfuse.system import distributed
from deconfuse.system.errors import UserError, count, flag, within
from deconfuse.system.files import short_hash
from deconfuse.system.progress import console
from deconfuse.training.embedder import Embedder
from deconfuse.training.train import Start, another


@dataclass(frozen=True)
class Relabelling:
    """The settings under loop=.

    rounds: how often is relabelled and trained, 0 for not at all. sure: in [0.5, 1); another label is given
    if s = P(other) / (P(other) + P(given)) is at least this, and the sample is left out if the log-odds of
    s are more than half of those of `sure` (s > 0.75 for sure = 0.9). clean: also train on the labels
    before noise= flipped them, to measure what share of the loss is won back.
    """

    rounds: int
    sure: float
    clean: bool

    def __post_init__(self):
        count("loop.rounds", self.rounds, 0)
        within("loop.sure", self.sure, 0.5, 1, open_end=True)
        flag("loop.clean", self.clean)


def allowed(plan: Relabelling, candidates: int | None, model: Embedder) -> None:
    """Raise UserError if rounds are asked for with candidates, or with embeddings that are not trained.

    In a round all samples vote on all, and the embeddings are trained again.
    """
    if plan.rounds and model.embeds:
        raise UserError(
            f"loop.rounds={plan.rounds} trains embeddings again, which model=as_is takes as they are; take "
            "model=identity, or train your own model on corrected labels"
        )
    if plan.rounds and candidates is not None:
        raise UserError(
            f"loop.rounds={plan.rounds} judges every sample, but candidates={candidates} asks few; take "
            "candidates=null"
        )


@dataclass(frozen=True)
class Labels:
    """The labels of a round. labels (n,): class ids; left_out (n,): True for samples left out of training.

    evidence (n,): P(chosen) / (P(given) + P(best alternative)), in [0, 1], where chosen is the one of these
    two labels that `labels` has.
    """

    labels: np.ndarray
    left_out: np.ndarray
    evidence: np.ndarray


@dataclass(frozen=True)
class Trained:
    """A trained model: the training side at each checkpoint kept, in order, and its MEASURES."""

    checkpoint: Path
    sides: list[Training]
    found: dict[str, float]


@dataclass(frozen=True)
class Loop:
    """A finished loop: a row per round (rounds.csv), the last labels, and the clean model's MEASURES."""

    rounds: pd.DataFrame
    labels: Labels
    clean: dict[str, float] | None


def correct(
    sides: list[Training], voters: list[torch.Tensor], given: np.ndarray, sure: float, k: int | None
) -> Labels:
    """Give the other label if s = P(other) / (P(other) + P(given)) >= sure; else leave the sample out if

        log s / (1 - s)  >  1/2 log sure / (1 - sure)

    P: `evidence` of the sides of all models so far; voters (n,): for each side, the samples it was trained
    with.
    """
    labels = torch.from_numpy(given)
    with exact():
        votes = evidence(sides, k or neighbourhood(sides[-1].labels), labels=labels, voters=voters).cpu()
    other, log_odds = odds(votes, labels)
    share = log_odds.sigmoid()
    taken = (share >= sure) & (log_odds > 0)
    corrected = torch.where(taken, other, labels).numpy()
    doubtful = log_odds > torch.tensor(sure).logit() / 2
    return Labels(corrected, (doubtful & ~taken).numpy(), torch.where(taken, share, 1 - share).numpy())


def row(
    number: int,
    seen: Trained,
    labels: Labels,
    noisy: NoisyLabels,
    start: dict[str, float],
    clean: dict[str, float] | None,
) -> dict:
    """A row of rounds.csv. start and clean: MEASURES of the first model and of the one with clean labels.

        won back = (measure - start's) / (clean's - start's)

    NaN if no label was flipped, there is no clean model, or the clean model is not better than the first.
    """
    known, used = bool(noisy.flipped.any()), ~labels.left_out
    wrong = used & (labels.labels != noisy.clean)
    back = {}
    for name in MEASURES:
        lost = clean[name] - start[name] if clean else 0.0
        back[f"won_back_{name}"] = (seen.found[name] - start[name]) / lost if lost > 0 else np.nan
    return {
        "round": number,
        **seen.found,
        "relabelled": int((used & (labels.labels != noisy.labels)).sum()),
        "left_out": int(labels.left_out.sum()),
        "wrong": int(wrong.sum()) if known else np.nan,
        "broken": int((wrong & ~noisy.flipped).sum()) if known else np.nan,
        **back,
        "checkpoint": str(seen.checkpoint),
    }


def run(
    plan: Relabelling,
    noisy: NoisyLabels,
    start: Trained,
    k: int | None,
    train: Callable[[Labels], Trained],
    clean: Callable[[], Trained],
    left_out: np.ndarray | None = None,
) -> Loop:
    """Run the rounds. start: the model of the labels given; train: trains on a round's labels from scratch;
    left_out (n,) bool: samples that no model trains with.

    Ends early if a round would train with the same labels as the one before, or with fewer than two classes.
    """
    n = len(noisy.labels)
    never = np.zeros(n, bool) if left_out is None else left_out
    labels = Labels(noisy.labels, never, np.full(n, np.nan))

    sides: list[Training] = []
    voters: list[torch.Tensor] = []

    def next_labels() -> Labels:
        new = distributed.told(lambda: correct(sides, voters, noisy.labels, plan.sure, k))
        return replace(new, left_out=new.left_out | never)

    best = clean().found if plan.clean and noisy.flipped.any() else None
    rows, seen = [row(0, start, labels, noisy, start.found, best)], start
    for number in range(1, plan.rounds + 1):
        sides += seen.sides
        voters += [~torch.from_numpy(labels.left_out)] * len(seen.sides)
        new = next_labels()
        if same(new, labels):
            console.print(f"loop: round {number} would change no label; ended")
            break
        if len(np.unique(new.labels[~new.left_out])) < 2:
            console.print(f"loop: round {number} would leave fewer than two classes; ended; raise loop.sure")
            break
        labels, seen = new, train(new)
        rows.append(row(number, seen, labels, noisy, start.found, best))
    return Loop(pd.DataFrame(rows), labels, best)


def same(one: Labels, other: Labels) -> bool:
    """True if training with either ends at the same weights."""
    return np.array_equal(one.left_out, other.left_out) and np.array_equal(
        one.labels[~one.left_out], other.labels[~other.left_out]
    )


def home(first: Path, labels: Labels) -> Path:
    """The folder of a round's model: the first model's name, with a hash of that and of the labels."""
    words, _, key = first.name.rpartition("-")
    content = fingerprint(labels)
    return first.with_name(f"{words}-loop-{short_hash([key, content])}")


def fingerprint(labels: Labels) -> str:
    """A hash of the labels and of the samples left out."""
    return hashlib.sha256(labels.labels.tobytes() + labels.left_out.tobytes()).hexdigest()


def of(subject: Subject, seen: Seen) -> Trained:
    """A measured model with its training sides at the checkpoints kept."""
    sides = [*(past.training for past in earlier_sides(subject, seen.checkpoint)), seen.frozen.training]
    return Trained(seen.checkpoint, sides, {name: seen.retrieval[name] for name in MEASURES})


def train(
    start: Start,
    subject: Subject,
    folder: Path,
    labels: np.ndarray,
    left_out: np.ndarray | None = None,
    settings: dict | None = None,
) -> Trained:
    """Find or train the model of other labels, from the first model's initial weights, and measure it.

    settings: what its weights depend on (see find_or_train).
    """
    model, data, checkpoint, reused = another(start, folder, labels, left_out, settings)
    console.print(f"loop: {'reusing' if reused else 'trained'} {checkpoint}")
    other = replace(subject, model=model, data=data)
    return of(other, look(other, checkpoint))


def tables(loop: Loop | None, split: Split, noisy: NoisyLabels) -> dict[str, pd.DataFrame]:
    """The tables rounds.csv and corrected.csv by name; no table without a loop."""
    if loop is None:
        return {}
    names = np.array(split.class_names, dtype=object)
    corrected = pd.DataFrame(
        {
            "sample": np.arange(len(noisy.labels)),
            "path": split.train.names,
            "class": names[noisy.labels],
            "corrected": names[loop.labels.labels],
            "left_out": loop.labels.left_out,
            "evidence": loop.labels.evidence,
        }
    )
    return {"rounds.csv": loop.rounds, "corrected.csv": corrected}


def report(loop: Loop | None, plan: Relabelling) -> dict | None:
    """The entry of metrics.json: rounds, the clean model's measures and loop.sure; None without a loop."""
    if loop is None:
        return None
    rounds = loop.rounds.astype(object).where(loop.rounds.notna(), None)
    return {"rounds": rounds.to_dict("records"), "clean": loop.clean, "sure": plan.sure}
