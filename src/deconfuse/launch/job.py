"""Prepare a job: everything that one run is made of, built from its settings and tried before training.

Nothing is written back into the settings; a backbone whose features are the embeddings decides the embedding
size, and from then on the job has settings that say so.
"""

import copy
import dataclasses
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, OmegaConf

from deconfuse.attribution import attribute
from deconfuse.attribution.epochs import Moments
from deconfuse.attribution.look import Subject
from deconfuse.attribution.trajectory import When, method
from deconfuse.compute import memory
from deconfuse.corrections import corrections
from deconfuse.corrections import tested as tested_labels
from deconfuse.corrections.corrections import Corrections, Tested
from deconfuse.data import build
from deconfuse.data.noise import CONFUSED, NoisyLabels
from deconfuse.data.split import Split
from deconfuse.duplicates import search as duplicates
from deconfuse.frozen.start import confusion
from deconfuse.labels import loop, relabel
from deconfuse.launch import backbone, names, rehearsal, sweep
from deconfuse.model import timm
from deconfuse.report import page
from deconfuse.retraining import counterfactual, leave_out, reweight
from deconfuse.runs import results
from deconfuse.system import distributed
from deconfuse.system.errors import UserError, count, flag, invoked, within
from deconfuse.system.files import disk
from deconfuse.system.progress import console
from deconfuse.system.words import many
from deconfuse.training.datamodule import DataModule
from deconfuse.training.devices import device
from deconfuse.training.embedder import Embedder
from deconfuse.training.train import Start
from deconfuse.unrolling import damping
from deconfuse.unrolling.subsets import SubsetRetraining


@dataclass(frozen=True)
class Analyses:
    """What is asked of the trained model, as the settings target=, influence=, detector= and others say."""

    target: Callable
    explainer: Callable
    detector: Callable
    when: When
    subsets: SubsetRetraining
    leaving: leave_out.LeaveOut
    retraining: reweight.Retraining
    relabelling: loop.Relabelling
    duplicates: duplicates.Search
    params: str
    neighbours: int | None
    candidates: int | None
    weights: str
    report: bool | str

    @classmethod
    def of(cls, cfg: DictConfig, settings: dict) -> "Analyses":
        """Build each part; UserError where its keys are wrong."""
        reweight.check(settings["retrain"], cfg.params)
        return cls(
            instantiate(cfg.target),
            instantiate(OmegaConf.create(method(settings["influence"]))),
            instantiate(cfg.detector),
            When.of(settings["influence"]),
            built(cfg, "counterfactual"),
            built(cfg, "leave_out"),
            built(cfg, "retrain"),
            built(cfg, "loop"),
            built(cfg, "duplicates"),
            cfg.params,
            cfg.neighbours,
            cfg.candidates,
            cfg.relabel.weights,
            cfg.report,
        )

    def check(self, model: Embedder, labels: torch.Tensor, spec, method: str) -> None:
        """UserError where a part does not fit the others, or does not work on made-up samples: what would
        fail after training fails now. method: the choice of influence=."""
        self.when.check(model.recipe.epochs)
        attribute.check(self.explainer, method, self.params)
        counterfactual.check(self.subsets, self.params, model.recipe)
        damping.check(self.explainer, self.params, model.recipe)
        leave_out.check(self.leaving, model, self.params)
        reweight.rehearse(self.retraining, model)
        loop.allowed(self.relabelling, self.candidates, model)
        relabel.check(labels, self.neighbours, self.candidates)
        page.check(self.report)
        rehearsal.rehearse(model, self, spec)


@dataclass(frozen=True)
class Job:
    """One run, prepared.

    settings: all of them, as plain values; choices: the option chosen of each group; start: the untrained
    model, its data and the trainer; subject: the model that is trained, looked at and explained; home: the
    checkpoint's folder; given_home: that of the labels before corrections; tested: what
    relabels= decides on the test side; everything: the fingerprint of all images; fingerprints: of the
    training images and of the weights that training starts from.
    """

    settings: dict[str, Any]
    choices: dict[str, str]
    split: Split
    noisy: NoisyLabels
    corrected: Corrections | None
    tested: Tested | None
    ask: Analyses
    start: Start
    subject: Subject
    home: Path
    given_home: Path
    folder: Path
    fingerprints: tuple[str, str]
    everything: str

    @cached_property
    def done(self) -> bool:
        """True in a sweep where this run's results are whole already, unless again=true asks for more."""
        again = flag("again", self.settings["again"])
        return not again and sweep.running() and distributed.told(lambda: results.whole(self.folder))

    @cached_property
    def made_with(self) -> dict:
        """What the weights of this job's model depend on; checkpoints are stamped with it."""
        return names.depends(self.settings, *self.fingerprints)

    @property
    def without_noise(self) -> Path:
        """The folder of the checkpoint of the same settings with every label as it was before noise=."""
        return names.without_noise(self.settings, self.choices, *self.fingerprints)

    @cached_property
    def moments(self) -> Moments:
        """How earlier epochs are explained."""
        untrained = dataclasses.replace(self.subject, model=self.start.untrained)
        name = names.explanation(self.settings, self.choices, self.everything)
        return Moments(self.ask.when, untrained, self.ask.explainer, self.ask.target, name)

    @property
    def asked(self) -> dict:
        """What metrics.json says of the question."""
        return {
            "choices": self.choices,
            "params": self.ask.params,
            "seed": self.settings["seed"],
            "processes": distributed.world(),
            "command": f"{invoked('run')} {shlex.join(HydraConfig.get().overrides.task)}".strip(),
        }


def prepare(cfg: DictConfig) -> Job:
    """Read the data, build the model and the methods, and try them; UserError where something is wrong."""
    settings = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    chosen = HydraConfig.get().runtime.choices.items()
    choices = {group: choice for group, choice in chosen if "/" not in group and choice is not None}
    begin(cfg.seed)

    source = built(cfg, "relabels")
    split, tested = tested_labels.corrected(source, sweep.shared(cfg.dataset, build.load))
    rehearsal.answerable(split)
    model, settings = _model(cfg, settings, choices, split)
    trainer, start = instantiate(cfg.trainer), getattr(model.backbone, "fingerprint", "")

    def in_features() -> Split:
        return backbone.in_features(split, model, Path(cfg.output_dir), cfg.num_workers, device(trainer))

    given = _noise(cfg, split, in_features)
    corrected = corrections.read(source, split, given, tested)
    noisy, left_out = (corrected.noisy, corrected.left_out) if corrected else (given, None)
    fed = in_features() if model.recipe.frozen else split
    model = backbone.alone(model) if model.recipe.frozen else model
    data = DataModule(fed, noisy.labels, model.backbone, model.recipe, cfg.num_workers, cfg.seed, left_out)
    untrained = Start(copy.deepcopy(model), data, trainer)
    used = torch.from_numpy(~left_out).nonzero()[:, 0] if left_out is not None and left_out.any() else None
    subject = Subject(model, data, cfg.params, device(trainer), used)
    data.pinned = subject.device.type == "cuda"

    part, everything = split.fingerprints
    fingerprints = part, start
    places = names.places(settings, choices, *fingerprints, everything)
    home, name = given_home, _ = distributed.agreed(places, "name for this run")
    if corrected and corrected.trains:
        home, name = names.corrected(home, name, noisy.labels, left_out)
    job = Job(
        settings,
        choices,
        split,
        noisy,
        corrected,
        tested,
        Analyses.of(cfg, settings),
        untrained,
        subject,
        home,
        given_home,
        Path(cfg.output_dir) / name,
        fingerprints,
        everything,
    )
    if not job.done:
        _say(job)
        job.ask.check(model, torch.from_numpy(noisy.labels), fed.image, choices["influence"])
    return job


def _model(
    cfg: DictConfig, settings: dict, choices: dict[str, str], split: Split
) -> tuple[Embedder, dict[str, Any]]:
    """(the untrained model, the settings with the embedding size that it has)."""
    size = rehearsal.input_size(split.image, get_object(cfg.model._target_), choices)
    recipe = instantiate(cfg.recipe)
    network = instantiate(cfg.model, **size, **timm.meant(cfg.model, recipe.frozen))
    if getattr(network, "embeds", False):  # its features are the embeddings
        m = network.num_features
        settings = {**settings, "recipe": {**settings["recipe"], "embedding_size": m}}
        recipe = dataclasses.replace(recipe, embedding_size=m)
    loss = instantiate(cfg.loss, num_classes=split.num_classes, embedding_size=recipe.embedding_size)
    model = Embedder(network, loss, recipe)
    model.precision = cfg.trainer.get("precision")
    return model, settings


def _noise(cfg: DictConfig, split: Split, in_features: Callable[[], Split]) -> NoisyLabels:
    """The training labels with noise=; the untrained backbone says which classes are confused."""
    more = {}
    if cfg.noise.ratio and cfg.noise.get("kind") == CONFUSED:
        with disk(Path(cfg.output_dir)):
            more["confusion"] = confusion(in_features(), Path(cfg.output_dir))
    return instantiate(cfg.noise, labels=split.train.labels, num_classes=split.num_classes, **more)


def _say(job: Job) -> None:
    """Print what the data is, and what a user may not expect of it."""
    split, choices = job.split, job.choices
    if job.tested and job.tested.decided and not job.tested.applied:
        console.print(
            f"{job.corrected.file}: {job.tested.decided} decision(s) on test samples are not applied; "
            "relabels.test=true measures on the corrected test labels"
        )
    if job.corrected and job.start.untrained.embeds:
        console.print(f"model={choices['model']}: corrected labels move no embedding until your model trains")
    console.print(
        f"{choices['dataset']}: {many(len(split.train), 'training image')} of "
        f"{many(split.num_classes, 'class')}, {many(len(split.query), 'query')} of "
        f"{many(len(split.class_names) - split.num_classes, 'other')}"
    )
    rehearsal.of_its_table(choices.get("experiment"), bool(job.noisy.flipped.any()))
    rehearsal.lopsided(job.noisy.labels, split.class_names, job.start.untrained.recipe.sampling)


def built(cfg: DictConfig, key: str) -> Any:
    """The dataclass that a group of keys describes; UserError where it is no group, or has other keys."""
    given = cfg[key]
    if not isinstance(given, DictConfig):
        raise UserError(f"{key}={given} is not a group of keys; give one of them: {key}.KEY=VALUE")
    fields = [field.name for field in dataclasses.fields(get_object(given._target_))]
    odd = sorted(given.keys() - {"_target_"} ^ set(fields))
    if odd:
        raise UserError(f"{key} has the keys {', '.join(fields)}; look at {', '.join(odd)}")
    return instantiate(given)


def begin(seed: int) -> None:
    """Seed all random numbers, and let freed memory be used again."""
    memory.keep_freed()
    pl.seed_everything(int(within("seed", count("seed", seed, 0), 0, 2**32 - 1)), verbose=False)
