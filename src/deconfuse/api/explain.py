"""Explain a model's confusions: from arrays, or from a model and its data sets, to what was found.

The steps are those of story.py, by the same functions; nothing is trained but proxies, where no loss is
given.
"""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import torch

from deconfuse.adapt import freezing, prepare
from deconfuse.adapt.options import option
from deconfuse.adapt.prepare import Head, Loss
from deconfuse.adapt.questions import Asked, Questions
from deconfuse.api.found import Found
from deconfuse.attribution import attribute
from deconfuse.attribution.look import Frozen, Subject, measure
from deconfuse.attribution.rows import embeddings
from deconfuse.data.noise import NoisyLabels
from deconfuse.data.split import Split
from deconfuse.duplicates import search as duplicates
from deconfuse.labels import judge, relabel, wrong
from deconfuse.runs.tables import Findings
from deconfuse.system.progress import Clock, silence


def explain(
    model: Any = None,
    *,
    train: Any,
    test: Any,
    gallery: Any = None,
    head: Head = None,
    loss: Loss = None,
    **asked: Unpack[Asked],
) -> Found:
    """Find who is taken for whom, which training samples are to blame, and which labels look wrong.

    model: any torch.nn.Module whose output, or whose layer `head`, is the embedding; (trunk, embedder) of
    pytorch-metric-learning; a sentence-transformers encoder. None: train and test are embeddings. It is
    copied, put into eval mode and never trained.

    train, test, gallery: a torch Dataset of (input, label), or a tuple (values, labels) or (values, labels,
    names), where values are an array, tensor or memory map (n, ...), texts, or a Dataset. gallery: what test
    is searched in; None: test itself.

    head: the name of the linear layer whose weight W is attributed, z = W phi + b; None: the last one whose
    output is the model's. Without a model a torch.nn.Linear, or (W, b), that is applied to the rows.

    loss: the loss that the model was trained with, with its trained proxies (ours, pytorch-metric-learning's,
    or a module with one value per sample); torch.nn.CrossEntropyLoss() for a classifier, whose embeddings are
    then what its last layer reads; None, or the name of an option of conf/loss: proxies are fitted to the
    embeddings.

    asked: see `Questions`. Scores > 0 are harmful: fitting the sample more brings the confused pair closer.
    Raises UserError, in one line, for whatever cannot be meant. No global state is changed, and the same
    arguments give the same numbers.
    """
    ask = Questions.of(asked)
    with silence(not ask.progress), left_as_it_was(ask.seed):
        clock = Clock()
        sides = prepare.samples(model, train, test, gallery, ask)
        opened, linear, own = prepare.opened_model(model, head, loss, sides, ask)
        frozen, split, subject = freezing.frozen_model(opened, linear, own, sides, ask)
        clock.lap("features")
        return answer(frozen, split, subject, ask, clock)


def answer(frozen: Frozen, split: Split, subject: Subject, ask: Questions, clock: Clock) -> Found:
    """What is asked of a frozen model: confusions, scores, and the judgement of labels."""
    relabel.check(frozen.training.labels, ask.neighbours, ask.candidates)
    seen = measure(frozen, split, Path(type(subject.model).__name__), split.recall_at)
    clock.lap("confusions")
    explained = option("target", ask.target, ask.seed)(seen.confusions, seen.test)
    influence = attribute.attribute(ask.explainer, explained, frozen, subject, [])
    clock.lap("influence")
    votes = judge.votes(frozen.training, influence, ask.neighbours, ask.candidates)
    detector = option("detector", ask.detector, ask.seed)
    z = {"train": embeddings(frozen.training), "query": seen.test.query, "gallery": seen.test.gallery}
    same = duplicates.search(duplicates.Search(ask.duplicates, ask.mirrored), split, z)
    judged = judge.judge(detector, frozen, influence, votes, iter(()), same)
    sides = frozen.training.features, frozen.training.labels, split.num_classes
    doubt = wrong.doubt(*sides, votes, directions=subject.model.embeds)
    clock.lap("relabelling")
    labels = split.train.labels
    findings = Findings(
        split,
        NoisyLabels(labels, labels),
        seen.confusions,
        explained,
        influence,
        judged.suspicion,
        judged.votes,
        doubt,
        duplicates=same,
    )
    return Found(findings, seen, votes, attribute.unit(ask.explainer), ask, subject, dict(clock.laps))


@contextmanager
def left_as_it_was(seed: int) -> Iterator[None]:
    """Seed Python's, numpy's and torch's random numbers, and put their states back afterwards."""
    states = random.getstate(), np.random.get_state()  # noqa: NPY002
    with torch.random.fork_rng(range(torch.cuda.device_count())):
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002 - a data set of the caller's may draw from it
        torch.manual_seed(seed)
        try:
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])  # noqa: NPY002
