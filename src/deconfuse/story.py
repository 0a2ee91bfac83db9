"""The story of a run: train, find who is confused with whom, and which training samples are to blame."""

import copy
import functools
import logging
import shlex
import warnings
from pathlib import Path

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from hydra.core.hydra_config import HydraConfig
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, OmegaConf, open_dict
from rich.console import Console

from deconfuse.attribution import attribute, trajectory
from deconfuse.attribution.epochs import Moments
from deconfuse.attribution.trajectory import Moment, When, listed
from deconfuse.labels import corrections, effect, judge, loop, relabel
from deconfuse.launch import names, rehearsal, sweep
from deconfuse.launch.names import depends, explanation, places, without_noise
from deconfuse.report import page
from deconfuse.retraining import counterfactual, reweight
from deconfuse.retrieval.confusion import retrieve
from deconfuse.retrieval.metrics import nmi
from deconfuse.runs import clean, results, summary
from deconfuse.runs.results import Findings
from deconfuse.system import distributed
from deconfuse.system.errors import count, flag, invoked, within
from deconfuse.system.files import disk, whole_folder
from deconfuse.system.lock import one_maker
from deconfuse.system.progress import Clock, console
from deconfuse.tracking import dashboard, tracker
from deconfuse.training import loader_workers
from deconfuse.training.checkpoint import kept
from deconfuse.training.datamodule import DataModule
from deconfuse.training.devices import device
from deconfuse.training.embedder import Embedder
from deconfuse.training.train import find_or_train


@loader_workers.looked_after()
@tracker.followed
def run(cfg: DictConfig) -> Path:
    """The whole story with one configuration, and the folder it ends in; see `deconfuse run --help`."""
    settings = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    chosen = HydraConfig.get().runtime.choices.items()
    choices = {group: choice for group, choice in chosen if "/" not in group and choice is not None}
    begin(cfg.seed)
    clock = Clock()

    # The data, and a model for it.
    split = sweep.shared(cfg.dataset, instantiate)
    rehearsal.answerable(split)
    noisy = instantiate(cfg.noise, labels=split.train.labels, num_classes=split.num_classes)
    corrected = corrections.read(rehearsal.plan_of(corrections.Plan, "relabels", settings), split, noisy)
    recipe = instantiate(cfg.recipe)
    size = rehearsal.input_size(split.image, get_object(cfg.model._target_), choices)
    backbone = instantiate(cfg.model, **size)
    if getattr(backbone, "embeds", False):  # its features are the embeddings
        settings["recipe"]["embedding_size"] = cfg.recipe.embedding_size = backbone.num_features
        recipe = instantiate(cfg.recipe)
    loss = instantiate(cfg.loss, num_classes=split.num_classes, embedding_size=recipe.embedding_size)
    part, everything = split.fingerprints
    fingerprints = part, getattr(backbone, "fingerprint", "")
    given = distributed.agreed(places(settings, choices, *fingerprints, everything), "name for this run")
    home, name = given
    if corrected:
        noisy, (home, name) = corrected.noisy, names.corrected(*given, corrected.noisy.labels)
    folder = Path(cfg.output_dir) / name
    if not flag("again", cfg.again) and sweep.running() and distributed.told(lambda: results.whole(folder)):
        console.print(f"done before: {folder}")
        return folder
    model = Embedder(backbone, loss, recipe)
    if corrected and model.embeds:
        console.print(f"model={choices['model']}: corrected labels move no embedding until your model trains")
    untrained = copy.deepcopy(model)  # for the loop, which trains from the same start
    data = DataModule(split, noisy.labels, backbone, recipe, cfg.num_workers, cfg.seed)
    console.print(
        f"{choices['dataset']}: {len(split.train)} training images of {split.num_classes} classes, "
        f"{len(split.query)} queries of {len(split.class_names) - split.num_classes} others"
    )

    rehearsal.of_its_table(choices.get("experiment"), bool(noisy.flipped.any()))
    rehearsal.lopsided(noisy.labels, split.class_names, recipe.sampling)

    # What is asked of the model later is tried on made-up samples now, not after an hour of training.
    target, explainer, detector = instantiate(cfg.target), method(cfg.influence), instantiate(cfg.detector)
    when = When.of(settings["influence"])
    when.check(recipe.epochs)
    attribute.check(explainer, choices["influence"], cfg.params)
    plan = rehearsal.plan_of(counterfactual.Plan, "counterfactual", settings)
    counterfactual.allowed(plan, cfg.params)
    reweight.check(settings["retrain"], cfg.params)
    retraining = instantiate(cfg.retrain)
    reweight.rehearse(retraining, model)
    plan_of_loop = rehearsal.plan_of(loop.Plan, "loop", settings)
    loop.allowed(plan_of_loop, cfg.candidates, model)
    relabel.check(torch.from_numpy(noisy.labels), cfg.neighbours, cfg.candidates)
    page.check(cfg.report)
    rehearsal.rehearse(
        model, target, explainer, detector, cfg.params, cfg.neighbours, cfg.candidates, split.image
    )

    # Train, or find the checkpoint that these settings lead to; earlier ones are explained on the way. With
    # corrected labels, also the model before.
    trainer = instantiate(cfg.trainer)
    where = device(trainer)
    how = explainer, target, cfg.params, where, explanation(settings, choices, everything)
    moments = Moments(when, untrained, data, *how)
    made_with = depends(settings, *fingerprints)
    before = corrected and effect.before(corrected, untrained, data, given[0], trainer, made_with)
    if corrected:
        clock.lap("training before")
    with disk(home):
        logger = None
        if distributed.first():
            logger = instantiate(cfg.logger)(folder=home, name=name, config={**settings, "choices": choices})
        checkpoint, reused = find_or_train(model, data, home, trainer, logger, made_with, moments)
    console.print(f"{'reusing' if reused else 'trained'} {checkpoint}")
    clock.lap("training")

    # One pass of the frozen backbone; from here on everything is a function of features.
    frozen = attribute.freeze(model, data, checkpoint, where)
    clock.lap("features")

    # Who is taken for whom, and how often.
    test = frozen.test_side(split)
    confusions, retrieval = retrieve(test, split.recall_at)
    clock.lap("confusions")
    comparison = corrected and effect.compare(
        corrected, before, effect.Seen(test, confusions, retrieval), split
    )
    retrieval["NMI"] = nmi(F.normalize(test.query, dim=1), test.query_labels, cfg.seed)
    clock.lap("NMI")

    # Which training samples are to blame.
    explained = target(confusions, test)
    influence = attribute.attribute(
        explainer, explained, frozen, model, data, cfg.params, where, kept(checkpoint)
    )
    clock.lap("influence")

    # And how that came about, epoch by epoch.
    over_epochs = None
    if when.asked:
        last = Moment.of(recipe.epochs, retrieval["R@1"], len(confusions), listed(explained), influence)
        over_epochs = moments.trajectory(checkpoint, last)
    if over_epochs is not None:
        clock.lap("epochs")

    # Do the scores say what really happens?
    training = frozen.training
    lds = counterfactual.check(training, frozen.targets(explained), influence, plan, checkpoint)
    if lds is not None:
        clock.lap("counterfactual")

    # Do the explanations help, when the head is trained again by them?
    targets = frozen.targets(explained)
    changes = distributed.told(
        lambda: reweight.reweight(retraining, training, targets, influence, model, data, trainer)
    )
    if changes is not None:
        clock.lap("retraining")

    # Which labels look wrong, and what they should be.
    votes = judge.votes(training, influence, cfg.neighbours, cfg.candidates)
    earlier = attribute.sides(model, data, kept(checkpoint), where)
    judged = judge.judge(detector, training, influence, votes, earlier)
    asked_of = split, noisy, confusions, explained, influence
    found = Findings(*asked_of, judged.suspicion, judged.votes, lds, changes, over_epochs)
    clock.lap("relabelling")

    # Does training on the recommended labels win back what the wrong ones cost?
    rounds = None
    if plan_of_loop.rounds:
        again = functools.partial(loop.train, untrained, data, trainer, where)
        rounds = loop.run(
            plan_of_loop,
            noisy,
            loop.look(model, data, checkpoint, where),
            cfg.neighbours,
            lambda labels: again(
                *(loop.home(home, labels), labels.labels, labels.left_out),
                settings=made_with | {"labels": loop.fingerprint(labels)},
            ),
            lambda: again(
                *(without_noise(settings, choices, *fingerprints), noisy.clean),
                settings=made_with | {"noise": None},  # as a run with noise=none says
            ),
        )
        clock.lap("loop")

    # Keep it, and say it: of several processes the first.
    if not distributed.first():
        return folder
    with one_maker(folder), whole_folder(folder) as partial:
        more = (
            loop.tables(rounds, split, noisy)
            | effect.tables(comparison)
            | clean.tables(found, corrected, rounds)
        )
        unit = attribute.unit(explainer)
        written = results.write(partial, found, choices["influence"], unit, more)
        report = {
            **asked(cfg, choices),
            "data": everything,
            **results.report(found, written, retrieval),
            **extras(found, plan, retraining, rounds, plan_of_loop, comparison),
            **results.provenance(checkpoint, reused, clock.laps, where),
        }
        (partial / "config.yaml").write_text(OmegaConf.to_yaml(cfg, resolve=True), "utf-8")

        def embeddings() -> dict[str, torch.Tensor]:
            sides = {"query": test.query, "gallery": test.gallery}
            sides = {name: F.normalize(z, dim=1) for name, z in sides.items()}
            return {"train": training.embeddings(), **sides}

        content = page.Content(found, report, written, unit, embeddings, votes)
        page.write(partial / "report", folder, content, cfg.report)
        clock.lap("report")
        report = results.finish(partial, report)
    dashboard.publish(tracker.page(logger), report, written, found, folder)
    summary.show(report, str(folder), Console(highlight=False))
    return folder


def begin(seed: int) -> None:
    """Seed all random numbers, and let Lightning say nothing of it."""
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", ".*isinstance.treespec, LeafSpec.*")  # Lightning 2.6 with torch 2.14
    pl.seed_everything(int(within("seed", count("seed", seed, 0), 0, 2**32 - 1)), verbose=False)


def method(influence: DictConfig):
    """The influence method, without the keys that say when it explains."""
    own = copy.deepcopy(influence)
    with open_dict(own):
        for key in trajectory.KEYS:
            own.pop(key, None)
    return instantiate(own)


def asked(cfg: DictConfig, choices: dict[str, str]) -> dict:
    """What metrics.json says of the question."""
    return {
        "choices": choices,
        "params": cfg.params,
        "seed": cfg.seed,
        "processes": distributed.world(),
        "command": f"{invoked('run')} {shlex.join(HydraConfig.get().overrides.task)}".strip(),
    }


def extras(
    found: Findings,
    plan: counterfactual.Plan,
    retraining: reweight.Plan,
    rounds: loop.Loop | None,
    plan_of_loop: loop.Plan,
    comparison: effect.Comparison | None,
) -> dict:
    """What metrics.json says of all that is done only where it was asked for; None where it was not."""
    return {
        "influence_epochs": trajectory.report(found.trajectory, found.noisy.flipped),
        "counterfactual": counterfactual.report(found.lds, plan),
        "retrain": reweight.report(found.retrained, retraining),
        "loop": loop.report(rounds, plan_of_loop),
        "corrections": effect.report(comparison),
    }
