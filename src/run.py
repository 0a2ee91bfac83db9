"""The story of a run: train, find who is confused with whom, and which training samples are to blame."""

import logging
import os
import sys
import time
import warnings
from importlib.metadata import version
from pathlib import Path

import hydra
import pytorch_lightning as pl
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from src import command_line, results, summary, tracker
from src.artifacts import file_hash, short_hash, whole_folder, write_json
from src.confusion import find
from src.datamodule import DataModule
from src.embedder import Embedder
from src.errors import count
from src.features import find_or_extract
from src.head import Targets, Training
from src.progress import console
from src.relabel import vote
from src.results import Findings
from src.retrieval import metrics
from src.train import find_or_train

# What a model's weights depend on; everything else is looked at afterwards.
TRAINING_KEYS = ("dataset", "model", "loss", "noise", "recipe", "seed")
# What changes neither weights nor findings.
COSMETIC_KEYS = ("output_dir", "num_workers", "logger")


failures: list[str] = []  # jobs of this process that ended with an error, in their own words


@hydra.main(version_base="1.3", config_path=str(command_line.CONF), config_name="config")
def main(cfg: DictConfig) -> None:
    """One job; an error of the user's is said in a line, and the jobs after it go on."""
    words = list(HydraConfig.get().overrides.task)
    try:
        run(cfg)
    except Exception as error:
        message, _ = command_line.explain(error, words)
        if traceback_wanted or message is None:
            raise
        print(message, file=sys.stderr)
        failures.append(" ".join(words))


def run(cfg: DictConfig) -> None:
    """Run once with one configuration; see `python -m src.run --help`."""
    clock = Clock()
    settings = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    chosen = HydraConfig.get().runtime.choices.items()
    choices = {group: choice for group, choice in chosen if "/" not in group and choice is not None}
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", ".*isinstance.treespec, LeafSpec.*")  # Lightning 2.6 with torch 2.14
    pl.seed_everything(count("seed", cfg.seed, 0), verbose=False)

    # The data, and a model for it.
    split = instantiate(cfg.dataset)
    noisy = instantiate(cfg.noise, labels=split.train.labels, num_classes=split.num_classes)
    recipe = instantiate(cfg.recipe)
    backbone = instantiate(cfg.model, in_channels=split.image.channels)
    loss = instantiate(cfg.loss, num_classes=split.num_classes, embedding_size=recipe.embedding_size)
    model = Embedder(backbone, loss, recipe)
    data = DataModule(split, noisy.labels, backbone, recipe, cfg.num_workers, cfg.seed)
    console.print(
        f"{choices['dataset']}: {len(split.train)} training images of {split.num_classes} classes, "
        f"{len(split.query)} queries of {len(split.class_names) - split.num_classes} others"
    )

    # What is asked of the model later is tried on made-up samples now, not after an hour of training.
    explainer, detector = instantiate(cfg.influence), instantiate(cfg.detector)
    rehearse(model, explainer, detector, cfg.neighbours)

    # Train, or find the checkpoint that these settings lead to.
    home, name = places(settings, choices, split.fingerprint())
    logger = instantiate(cfg.logger)(folder=home, name=name, config={**settings, "choices": choices})
    checkpoint, reused = find_or_train(model, data, home, instantiate(cfg.trainer), logger)
    console.print(f"{'reusing' if reused else 'trained'} {checkpoint}")
    clock.lap("training")

    # One pass of the frozen backbone; from here on everything is a function of features.
    parts = {"train": split.train, "query": split.query}
    parts |= {} if split.shared_gallery else {"gallery": split.gallery}
    features = find_or_extract(
        model.eval(), {name: data.in_order(part) for name, part in parts.items()}, checkpoint
    )
    clock.lap("features")

    # Who is taken for whom.
    head = model.head.weight.detach().cpu(), model.head.bias.detach().cpu()
    query = torch.nn.functional.linear(features["query"], *head)
    gallery = query if split.shared_gallery else torch.nn.functional.linear(features["gallery"], *head)
    labels = torch.from_numpy(split.query.labels), torch.from_numpy(split.gallery.labels)
    confusions = find(query, gallery, *labels, same=split.shared_gallery)
    unit = torch.nn.functional.normalize(query, dim=1), torch.nn.functional.normalize(gallery, dim=1)
    retrieval = metrics(*unit, *labels, same=split.shared_gallery)
    clock.lap("confusions")

    # Which training samples are to blame.
    training = Training(
        features["train"], torch.from_numpy(noisy.labels), *head, model.loss.cpu().requires_grad_(False)
    )
    targets = Targets.pairs(features["query"], features.get("gallery", features["query"]), confusions.pairs)
    influence = explainer(training, targets)
    clock.lap("influence")

    # Which labels look wrong, and what they should be.
    votes = vote(torch.nn.functional.normalize(training.z, dim=1), training.labels, cfg.neighbours)
    suspicion = detector(training, influence, votes)
    found = Findings(split, noisy, confusions, influence, suspicion, votes)
    clock.lap("relabelling")

    # Keep it, and say it.
    folder = Path(cfg.output_dir) / name
    with whole_folder(folder) as partial:
        tables = results.write(partial, found, choices["influence"])
        report = {
            "choices": choices,
            "seed": cfg.seed,
            "command": " ".join(["python -m src.run", *HydraConfig.get().overrides.task]),
            "retrieval": retrieval,
            "queries": len(query),
            "confusions": len(confusions),
            "confused_most": results.class_pairs(tables["confusions.csv"]),
            "noise": results.noise_report(found),
            "relabels": len(tables["relabels.csv"]),
            "checkpoint": {"path": str(checkpoint), "sha256": file_hash(checkpoint), "reused": reused},
            "seconds": clock.laps,
            "versions": {
                package: version(package) for package in ("deconfuse", "torch", "pytorch-lightning")
            },
        }
        write_json(partial / "metrics.json", report)
        (partial / "config.yaml").write_text(OmegaConf.to_yaml(cfg, resolve=True))
    tracker.publish(logger, report, tables)
    summary.show(report, str(folder), Console(highlight=False))


def rehearse(model: Embedder, explainer, detector, neighbours: int | None) -> None:
    """Explain one pair by four made-up samples with the untrained head: bad settings show at once."""
    if neighbours is not None:
        count("neighbours", neighbours, 1)
    weight, bias = model.head.weight.detach(), model.head.bias.detach()
    phi = torch.randn(4, weight.shape[1], generator=torch.Generator().manual_seed(0))
    training = Training(phi, torch.zeros(4, dtype=torch.long), weight, bias, model.loss)
    influence = explainer(training, Targets.pairs(phi, phi, torch.tensor([[0, 1]])))
    detector(training, influence, vote(training.z, training.labels, 1))


def places(settings: dict, choices: dict[str, str], data: str) -> tuple[Path, str]:
    """(the checkpoint's folder, the run's name).

    Both names end in a hash: of everything the weights depend on (the settings under TRAINING_KEYS, the
    data's fingerprint, the precision), and of that and how the model is looked at.
    """
    weights = {key: settings[key] for key in TRAINING_KEYS}
    weights["dataset"] = {
        key: value for key, value in weights["dataset"].items() if key not in ("root", "csv")
    }
    weights |= {"data": data, "precision": settings["trainer"]["precision"]}
    key = short_hash(weights)
    words = [choices[group] for group in ("dataset", "noise", "model", "loss")]
    looks = {key: value for key, value in settings.items() if key not in (*TRAINING_KEYS, *COSMETIC_KEYS)}
    seed = f"seed{settings['seed']}"
    home = Path(settings["output_dir"]) / "checkpoints" / "-".join([*words, seed, key])
    asked = [choices["influence"], choices["detector"], seed, short_hash([key, looks])]
    return home, "-".join([*words, *asked])


class Clock:
    """Seconds of each step."""

    def __init__(self):
        self.laps: dict[str, float] = {}
        self.before = time.perf_counter()

    def lap(self, step: str) -> None:
        """The step that ends now."""
        now = time.perf_counter()
        self.laps[step], self.before = round(now - self.before, 2), now


# Hydra would print errors itself; here they come back, to be said in one line.
traceback_wanted = os.environ.get("HYDRA_FULL_ERROR") == "1"

if __name__ == "__main__":
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        main()
    except BaseException as error:
        message, code = command_line.explain(error, sys.argv[1:])
        if traceback_wanted or message is None:
            raise
        print(message, file=sys.stderr)
        sys.exit(code)
    if failures and {"-m", "--multirun"} & set(sys.argv):
        print(f"error: {len(failures)} job(s) failed: {'; '.join(failures)}", file=sys.stderr)
    sys.exit(1 if failures else 0)
