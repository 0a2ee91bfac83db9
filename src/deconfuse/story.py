"""The story of a run: train, find who is confused with whom, and which training samples are to blame."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from hydra.utils import instantiate
from jaxtyping import Float
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from torch import Tensor

from deconfuse.attribution import attribute, trajectory
from deconfuse.attribution.head import Targets
from deconfuse.attribution.look import Frozen, Seen, earlier_sides, freeze, measure
from deconfuse.attribution.rows import embeddings
from deconfuse.attribution.scores import columns
from deconfuse.attribution.trajectory import Moment, Trajectory, listed
from deconfuse.duplicates import search as duplicates
from deconfuse.frozen.start import beside
from deconfuse.labels import effect, judge, loop, wrong
from deconfuse.labels.relabel import Votes
from deconfuse.launch.job import Job, prepare
from deconfuse.report import page
from deconfuse.retraining import counterfactual, leave_out, reweight
from deconfuse.retrieval import directions
from deconfuse.retrieval.confusion import Explained
from deconfuse.retrieval.metrics import nmi
from deconfuse.runs import clean, results, summary
from deconfuse.runs.tables import Findings
from deconfuse.system import distributed
from deconfuse.system.files import disk, whole_folder
from deconfuse.system.lock import one_maker
from deconfuse.system.progress import Clock, console
from deconfuse.tracking import dashboard, tracker
from deconfuse.training import loader_workers
from deconfuse.training.checkpoint import kept
from deconfuse.training.train import find_or_train


@loader_workers.looked_after()
@tracker.followed
def run(cfg: DictConfig) -> Path:
    """The whole story with one configuration, and the folder it ends in; see `deconfuse run --help`.

    What is done only where the settings ask for it is one line each; elsewhere it is None.
    """
    clock, job = Clock(), prepare(cfg)
    ask, subject = job.ask, job.subject
    if job.done:
        console.print(f"done before: {job.folder}")
        return job.folder

    # Train, or find the checkpoint that these settings lead to; with corrected labels, the model before too.
    before = effect.before(job.corrected, job.start, subject, job.given_home, job.made_with)
    clock.lap("training before", before)
    model = train(job)
    clock.lap("training")

    # Look: one pass of the frozen backbone; then who is taken for whom, and how often.
    frozen = freeze(subject, model.checkpoint)
    clock.lap("features")
    seen = measure(frozen, job.split, model.checkpoint, job.split.recall_at)
    clock.lap("confusions")
    comparison = effect.compare(job.corrected, before, seen, job.split)
    clusters = nmi(directions.unit(seen.test.query), seen.test.query_labels, job.settings["seed"])
    clock.lap("NMI")

    # Attribute: which training samples are to blame?
    explained = ask.target(seen.confusions, seen.test)
    targets, past = frozen.targets(explained), kept(model.checkpoint)
    influence = attribute.attribute(ask.explainer, explained, frozen, subject, past)
    clock.lap("influence")

    # What else is asked of the scores: how did they come about, do they come true, do they help?
    epochs = explain_epochs(job, seen, explained, influence)
    clock.lap("epochs", epochs)
    lds = leave_out_subsets(job, frozen, targets, influence, model.checkpoint)
    clock.lap("counterfactual", lds)
    retrained = retrain(job, frozen, targets, influence)
    clock.lap("retraining", retrained)

    # Judge: which labels look wrong, and what should they be? Does training on those win back what was lost?
    how = ask.neighbours, ask.candidates, ask.weights
    votes = judge.votes(frozen.training, influence, *how, subject.used)
    sides, same = earlier_sides(subject, model.checkpoint), copies_in(job, seen)
    judged = judge.judge(ask.detector, frozen, influence, votes, sides, same, subject.used)
    held = frozen.training.features, frozen.training.labels, job.split.num_classes
    doubt = wrong.doubt(*held, votes, directions=subject.model.embeds, used=subject.used)
    clock.lap("relabelling")
    without = train_without(job, seen, explained, influence, votes)
    clock.lap("leaving out", without)
    rounds = relabel_in_rounds(job, seen)
    clock.lap("loop", rounds)

    # Keep it, and say it: of several processes the first.
    what = job.split, job.noisy, seen.confusions, explained, influence
    found = Findings(*what, judged.suspicion, judged.votes, doubt, lds, retrained, epochs, same)
    if distributed.first():
        keep(job, Outcome(model, seen, clusters, found, votes, rounds, comparison, without), clock)
    return job.folder


@dataclass(frozen=True)
class Model:
    """A trained model's checkpoint, whether it was there already, and the logger of its training."""

    checkpoint: Path
    reused: bool
    logger: Any


@dataclass(frozen=True)
class Outcome:
    """Everything that a run has found out; clusters: NMI; votes: Algorithm 1's, whatever the detector's."""

    model: Model
    seen: Seen
    clusters: float
    found: Findings
    votes: Votes
    rounds: loop.Loop | None
    comparison: effect.CorrectionEffect | None
    without: leave_out.Left | None


def train(job: Job) -> Model:
    """The model of the job's settings, found or trained; earlier epochs are explained on the way."""
    with disk(job.home):
        logger = None
        if distributed.first():
            config = {**job.settings, "choices": job.choices}
            make = instantiate(job.settings["logger"])
            logger = make(folder=job.home, name=job.folder.name, config=config)
        start = job.subject.model, job.subject.data, job.home, job.start.trainer
        checkpoint, reused = find_or_train(*start, logger, job.made_with, job.moments)
    console.print(f"{'reusing' if reused else 'trained'} {checkpoint}")
    return Model(checkpoint, reused, logger)


def explain_epochs(
    job: Job, seen: Seen, explained: Explained, influence: Float[Tensor, "e n"]
) -> Trajectory | None:
    """How the scores came about, epoch by epoch; None where the last epoch alone is explained."""
    if not job.ask.when.asked:
        return None
    epochs, recall = job.subject.data.recipe.epochs, seen.retrieval["R@1"]
    last = Moment.of(epochs, recall, len(seen.confusions), listed(explained), influence)
    return job.moments.trajectory(seen.checkpoint, last)


def retrain(
    job: Job, frozen: Frozen, targets: Targets, influence: Float[Tensor, "g n"]
) -> reweight.Changes | None:
    """What training the head again by the scores changes; None where it was not asked for."""
    source = reweight.BatchSource(job.subject.model, job.subject.data, job.start.trainer)
    return distributed.told(
        lambda: reweight.reweight(job.ask.retraining, frozen.training, targets, influence, source)
    )


def leave_out_subsets(
    job: Job, frozen: Frozen, targets: Targets, influence: Float[Tensor, "e n"], checkpoint: Path
) -> Float[np.ndarray, " g"] | None:
    """Whether the scores foretell training without random subsets; None where it was not asked for."""
    if not job.ask.subsets.subsets:
        return None
    used, record = job.subject.used, attribute.record_of(job.subject, checkpoint.parent)
    side, scores = frozen.only(used).training, columns(influence, used, frozen.folder)
    return counterfactual.measure(side, targets, scores, job.ask.subsets, checkpoint, record)


def train_without(
    job: Job, seen: Seen, explained: Explained, influence: Float[Tensor, "e n"], votes: Votes
) -> leave_out.Left | None:
    """What training from scratch without the blamed samples changes; None where it was not asked for."""
    if not job.ask.leaving.confusions:
        return None
    frozen, start = seen.frozen, job.start
    data = frozen.training.features.cpu(), frozen.query.cpu(), frozen.gallery.cpu()
    sides = leave_out.Material(start.untrained, start.data, *data, seen.test)
    asked = job.ask.leaving, sides, explained, influence, votes.best[0].cpu(), seen.checkpoint
    return distributed.told(lambda: leave_out.measure(*asked))


def copies_in(job: Job, seen: Seen) -> duplicates.Duplicates | None:
    """Near-identical pictures among all parts; None where they are not looked for."""
    z = {"train": embeddings(seen.frozen.training), "query": seen.test.query, "gallery": seen.test.gallery}
    return distributed.told(lambda: duplicates.search(job.ask.duplicates, job.split, z, job.subject.used))


def relabel_in_rounds(job: Job, seen: Seen) -> loop.Loop | None:
    """The rounds of relabelling and training from scratch; None where none were asked for."""
    relabelling = job.ask.relabelling
    if not relabelling.rounds:
        return None

    def again(labels: loop.Labels) -> loop.Trained:
        home, stamp = loop.home(job.home, labels), {"labels": loop.fingerprint(labels)}
        return loop.train(job.start, job.subject, home, labels.labels, labels.left_out, job.made_with | stamp)

    def clean() -> loop.Trained:  # stamped as a run with noise=none says
        stamp = {"noise": None}
        return loop.train(
            job.start, job.subject, job.without_noise, job.noisy.clean, None, job.made_with | stamp
        )

    first = loop.of(job.subject, seen)
    left_out = job.corrected.left_out if job.corrected else None
    return loop.run(relabelling, job.noisy, first, job.ask.neighbours, again, clean, left_out)


def keep(job: Job, outcome: Outcome, clock: Clock) -> None:
    """Write the run's folder, whole or not at all; then log it, and print the summary."""
    found, seen, method = outcome.found, outcome.seen, job.choices["influence"]
    with one_maker(job.folder), whole_folder(job.folder) as partial:
        more = (
            loop.tables(outcome.rounds, job.split, job.noisy)
            | effect.tables(outcome.comparison)
            | leave_out.tables(outcome.without)
            | clean.tables(found, job.corrected, outcome.rounds)
        )
        unit = attribute.unit(job.ask.explainer)
        written = results.write(partial, found, method, unit, more)
        model = outcome.model
        report = {
            **job.asked,
            "data": job.everything,
            **results.report(found, written, {**seen.retrieval, "NMI": outcome.clusters}),
            **extras(job, outcome),
            **results.provenance(model.checkpoint, model.reused, clock.laps, job.subject.device),
        }
        (partial / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(job.settings)), "utf-8")

        def z() -> dict[str, Tensor]:
            train = embeddings(seen.frozen.training)
            return {"train": train, "query": seen.test.query, "gallery": seen.test.gallery}

        content = page.Content(found, report, written, unit, z, outcome.votes)
        page.write(partial / "report", job.folder, content, job.ask.report)
        clock.lap("report")
        report = results.finish(partial, report)
    dashboard.publish(tracker.page(model.logger), report, written, found, job.folder)
    tracker.numbers(model.logger, dashboard.numbers(report))
    summary.show(report, str(job.folder), Console(highlight=False))


def extras(job: Job, outcome: Outcome) -> dict:
    """What metrics.json says of all that is done only where it was asked for; None where it was not."""
    found = outcome.found
    return {
        "influence_epochs": trajectory.report(found.trajectory, found.noisy.flipped),
        "counterfactual": counterfactual.report(found.lds, job.ask.subsets),
        "leave_out": leave_out.report(outcome.without, job.ask.leaving),
        "retrain": reweight.report(found.retrained, job.ask.retraining),
        "loop": loop.report(outcome.rounds, job.ask.relabelling),
        "corrections": effect.report(outcome.comparison, job.tested),
        "start": beside(outcome.model.checkpoint),
    }
