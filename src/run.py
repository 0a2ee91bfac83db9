"""The story of a run: train, find who is confused with whom, and which training samples are to blame."""

import copy
import dataclasses
import functools
import importlib
import logging
import shlex
import sys
import time
import warnings
from inspect import signature
from pathlib import Path

import hydra
import pytorch_lightning as pl
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, OmegaConf, open_dict
from rich.console import Console

from src import (
    attribute,
    clean,
    corrections,
    counterfactual,
    dashboard,
    effect,
    loop,
    names,
    pictures,
    processes,
    relabel,
    results,
    reweight,
    shards,
    summary,
    sweep,
    tracker,
    trajectory,
)
from src import report as pages
from src.artifacts import disk, whole_folder, write_json
from src.command_line import CONF
from src.confusion import Queries, find
from src.datamodule import DataModule
from src.embedder import Embedder
from src.errors import UserError, count, flag, within
from src.head import Training
from src.lock import one_maker
from src.moments import Moments
from src.names import depends, explanation, places, without_noise
from src.progress import console
from src.results import Findings
from src.retrieval import metrics, nmi
from src.split import ImageSpec, RowSpec, Split
from src.train import device, find_or_train, kept
from src.trajectory import Moment, When, listed


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")
def main(cfg: DictConfig) -> None:
    """One job of the command line, in one process or several."""
    sweep.job(functools.partial(processes.together, run), cfg)


@tracker.followed
def run(cfg: DictConfig) -> Path:
    """The whole story with one configuration, and the folder it ends in; see `python -m src.run --help`."""
    settings = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    chosen = HydraConfig.get().runtime.choices.items()
    choices = {group: choice for group, choice in chosen if "/" not in group and choice is not None}
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", ".*isinstance.treespec, LeafSpec.*")  # Lightning 2.6 with torch 2.14
    pl.seed_everything(int(within("seed", count("seed", cfg.seed, 0), 0, 2**32 - 1)), verbose=False)
    clock = Clock()

    # The data, and a model for it.
    split = read(cfg.dataset)
    noisy = instantiate(cfg.noise, labels=split.train.labels, num_classes=split.num_classes)
    corrected = corrections.read(plan_of(corrections.Plan, "relabels", settings), split, noisy)
    recipe = instantiate(cfg.recipe)
    backbone = instantiate(cfg.model, **input_size(split.image, cfg.model, choices))
    loss = instantiate(cfg.loss, num_classes=split.num_classes, embedding_size=recipe.embedding_size)
    fingerprints = split.fingerprint(), getattr(backbone, "fingerprint", "")
    home, name = given = shards.agreed(places(settings, choices, *fingerprints), "name for this run")
    if corrected:
        noisy, (home, name) = corrected.noisy, names.corrected(*given, corrected.noisy.labels)
    folder = Path(cfg.output_dir) / name
    if not flag("again", cfg.again) and sweep.running() and shards.told(lambda: results.whole(folder)):
        console.print(f"done before: {folder}")
        return folder
    model = Embedder(backbone, loss, recipe)
    untrained = copy.deepcopy(model)  # for the loop, which trains from the same start
    data = DataModule(split, noisy.labels, backbone, recipe, cfg.num_workers, cfg.seed)
    console.print(
        f"{choices['dataset']}: {len(split.train)} training images of {split.num_classes} classes, "
        f"{len(split.query)} queries of {len(split.class_names) - split.num_classes} others"
    )

    # What is asked of the model later is tried on made-up samples now, not after an hour of training.
    target, explainer, detector = instantiate(cfg.target), method(cfg.influence), instantiate(cfg.detector)
    when = When.of(settings["influence"])
    when.check(recipe.epochs)
    attribute.check(explainer, choices["influence"], cfg.params)
    plan = plan_of(counterfactual.Plan, "counterfactual", settings)
    counterfactual.allowed(plan, cfg.params)
    reweight.check(settings["retrain"], cfg.params)
    retraining = instantiate(cfg.retrain)
    reweight.rehearse(retraining, model)
    plan_of_loop = plan_of(loop.Plan, "loop", settings)
    loop.allowed(plan_of_loop, cfg.candidates)
    relabel.check(torch.from_numpy(noisy.labels), cfg.neighbours, cfg.candidates)
    pictures.check(cfg.pictures, split.image)
    pages.check(cfg.report)
    rehearse(model, target, explainer, detector, cfg.params, cfg.neighbours, cfg.candidates, split.image)

    # Train, or find the checkpoint that these settings lead to; earlier ones are explained on the way. With
    # corrected labels, also the model before.
    trainer = instantiate(cfg.trainer)
    where = device(trainer)
    how = explainer, target, cfg.params, where, explanation(settings, choices)
    moments = Moments(when, untrained, data, *how)
    before = corrected and effect.before(corrected, untrained, data, given[0], trainer)
    if corrected:
        clock.lap("training before")
    with disk(home):
        logger = None
        if shards.first():
            logger = instantiate(cfg.logger)(folder=home, name=name, config={**settings, "choices": choices})
        made_with = depends(settings, *fingerprints)
        checkpoint, reused = find_or_train(model, data, home, trainer, logger, made_with, moments)
    console.print(f"{'reusing' if reused else 'trained'} {checkpoint}")
    clock.lap("training")

    # One pass of the frozen backbone; from here on everything is a function of features.
    frozen = attribute.freeze(model, data, checkpoint, where)
    clock.lap("features")

    # Who is taken for whom, and how often.
    test = frozen.test_side(split)
    confusions = find(*test.parts, same=test.same)
    retrieval = metrics(*test.parts, same=test.same, ranks=split.recall_at)
    clock.lap("confusions")
    comparison = corrected and effect.compare(
        corrected, before, effect.Seen(test, confusions, retrieval), split
    )
    retrieval["NMI"] = nmi(test.query, test.query_labels, cfg.seed)
    clock.lap("NMI")

    # Which training samples are to blame.
    explained = target(confusions, test)
    influence = attribute.attribute(
        explainer, explained, frozen, model, data, cfg.params, where, kept(checkpoint)
    )
    clock.lap("influence")

    # And how that came about, epoch by epoch.
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
    changes = shards.told(
        lambda: reweight.reweight(retraining, training, targets, influence, model, data, trainer)
    )
    if changes is not None:
        clock.lap("retraining")

    # Which labels look wrong, and what they should be.
    votes = attribute.votes(training, influence, cfg.neighbours, cfg.candidates)
    earlier = attribute.sides(model, data, kept(checkpoint), where)
    judged = attribute.judge(detector, training, influence, votes, earlier)
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
            lambda labels: again(loop.home(home, labels), labels.labels, labels.left_out),
            lambda: again(without_noise(settings, choices, *fingerprints), noisy.clean),
        )
        clock.lap("loop")

    # Keep it, and say it: of several processes the first.
    if not shards.first():
        return folder
    with one_maker(folder), whole_folder(folder) as partial:
        written = results.write(
            partial,
            found,
            choices["influence"],
            unit_of(explainer),
            {
                **loop.tables(rounds, found),
                **effect.tables(comparison),
                **clean.tables(found, corrected, rounds),
            },
        )
        pictures.draw(partial / "harmful.png", found, cfg.pictures, choices["influence"])
        report = {
            "choices": choices,
            "params": cfg.params,
            "seed": cfg.seed,
            "processes": shards.world(),
            "command": shlex.join(["python", "-m", "src.run", *HydraConfig.get().overrides.task]),
            **results.report(found, written, retrieval),
            "influence_epochs": trajectory.report(over_epochs, noisy.flipped),
            "counterfactual": counterfactual.report(lds, plan),
            "retrain": reweight.report(changes, retraining),
            "loop": loop.report(rounds, plan_of_loop),
            "corrections": effect.report(comparison),
            **results.provenance(checkpoint, reused, clock.laps, where),
        }
        (partial / "config.yaml").write_text(OmegaConf.to_yaml(cfg, resolve=True), "utf-8")
        seen = {"train": training.embeddings(), "query": test.query, "gallery": test.gallery}
        pages.write(
            partial / "report", folder, found, report, written, unit_of(explainer), seen, votes, cfg.report
        )
        clock.lap("report")
        report |= {"format": results.RESULTS_FORMAT, "files": results.sizes(partial)}
        write_json(partial / "metrics.json", report)
    dashboard.publish(tracker.page(logger), report, written, found, folder)
    summary.show(report, str(folder), Console(highlight=False))
    return folder


splits: dict[str, Split] = {}  # what jobs of a sweep in this process have read, by its settings


def read(dataset: DictConfig) -> Split:
    """The data set; the jobs of a sweep share it."""
    if not sweep.running():
        return instantiate(dataset)
    key = OmegaConf.to_yaml(dataset, resolve=True)
    if key not in splits:
        splits[key] = instantiate(dataset)
    return splits[key]


def method(influence: DictConfig):
    """The influence method, without the keys that say when it explains."""
    own = copy.deepcopy(influence)
    with open_dict(own):
        for key in trajectory.KEYS:
            own.pop(key, None)
    return instantiate(own)


def input_size(spec: ImageSpec | RowSpec, model: DictConfig, choices: dict[str, str]) -> dict[str, int]:
    """The keyword that tells the model how large an input is; UserError where it takes another kind."""
    if not spec.model_size.keys() <= signature(get_object(model._target_)).parameters.keys():
        data, chosen = f"dataset={choices['dataset']}", f"model={choices['model']}"
        if isinstance(spec, RowSpec):
            raise UserError(f"{data} has no images for {chosen}; add model=identity")
        raise UserError(
            f"{data} has images, which {chosen} does not take; add model=small_cnn or model=resnet50"
        )
    return spec.model_size


def plan_of(kind: type, key: str, settings: dict):
    """A dataclass of the keys below one; UserError where that is no group, or has other keys."""
    given, names = settings[key], [field.name for field in dataclasses.fields(kind)]
    if not isinstance(given, dict):
        raise UserError(f"{key}={given} is not a group of keys; give {key}.{names[0]}=VALUE")
    odd = sorted(given.keys() ^ set(names))
    if odd:
        raise UserError(f"{key} has the keys {', '.join(names)}; look at {', '.join(odd)}")
    return kind(**given)


def rehearse(
    model: Embedder,
    target,
    explainer,
    detector,
    params: str,
    neighbours: int | None,
    candidates: int | None,
    spec: ImageSpec | RowSpec,
) -> None:
    """Explain one pair by four made-up samples with the untrained model: bad settings show at once."""
    if neighbours is not None:
        count("neighbours", neighbours, 1)
    phi, labels = torch.eye(4, model.head.in_features), torch.zeros(4, dtype=torch.long)
    training = Training(phi, labels, model.head.weight.detach(), model.head.bias.detach(), model.loss)
    console.quiet = True  # what is said of made-up samples would only mislead
    try:
        target(find(phi, phi, labels, labels, same=True), Queries(phi, phi, labels, labels, True))
        attribute.rehearse(explainer, model, params, spec.shape)
        scores = torch.zeros(1, 4)
        detector(training, scores, attribute.votes(training, scores, 1, candidates))
    except (TypeError, ValueError) as error:
        raise UserError(
            f"target, influence or detector: {str(error).splitlines()[0]} (check the keys under them)"
        ) from error
    finally:
        console.quiet = not shards.first()


def unit_of(explainer) -> str:
    """What an influence method's docstring says of its unit."""
    text = " ".join((sys.modules[explainer.func.__module__].__doc__ or "").split())
    return text.partition("Unit: ")[2].partition(". ")[0].rstrip(".") or "not stated"


class Clock:
    """Seconds of each step."""

    def __init__(self):
        self.laps: dict[str, float] = {}
        self.before = time.perf_counter()

    def lap(self, step: str) -> None:
        """The step that ends now."""
        now = time.perf_counter()
        self.laps[step], self.before = round(now - self.before, 2), now


if __name__ == "__main__":
    # Jobs in other processes look `run` up in src.run, which __main__ is not.
    sys.exit(sweep.command(importlib.import_module("src.run").main))
