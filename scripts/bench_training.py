"""Measure training on a CPU: python -m scripts.bench_training, on a quiet machine. Ratios from one run.

Networks: steps of a bare loop on random images (forward, ProxyNCA, backward, clipping, AdamW; BatchNorm is
frozen, but not in small_cnn). Each way has one setting more, from Lightning's deterministic mode to a run's.
The allocator's setting can't be taken back, so each way is a process of its own, all alive, taking steps by
turns. Glyphs: a run's training, with Lightning, loaders and augmentation, beside a bare loop over the same
batches as tensors. Processor time counts less of what else the machine does. Writes benchmarks/training.json.
"""

import argparse
import logging
import multiprocessing
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from itertools import islice
from multiprocessing.connection import Connection
from pathlib import Path

import pytorch_lightning as pl
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from torch import nn

from deconfuse.compute import memory
from deconfuse.data import build
from deconfuse.launch.command_line import CONF
from deconfuse.loss.proxynca import ProxyNCA
from deconfuse.model import efficientnet_lite0
from deconfuse.model.small_cnn import SmallCNN
from deconfuse.model.timm import TimmBackbone
from deconfuse.system.files import write_json
from deconfuse.system.progress import console
from deconfuse.training.datamodule import DataModule
from deconfuse.training.embedder import Embedder
from deconfuse.training.train import fit
from scripts.bench import _status, described

FILE = Path("benchmarks") / "training.json"
WAYS = ("filled", "not filled", "+ channels_last", "+ allocator")
TODAY = WAYS[1]  # of recipe=photo before channels_last and the allocator
# network: how it is made, side, channels, images in a batch, steps that are timed
NETWORKS = {
    "small_cnn": (lambda: SmallCNN(1), 32, 1, 64, 30),
    "efficientnet_lite0": (efficientnet_lite0.load, 128, 3, 32, 6),
    "resnet50": (lambda: TimmBackbone("resnet50", weights="none"), 128, 3, 32, 3),
    "vit_tiny_patch16_224": (lambda: TimmBackbone("vit_tiny_patch16_224", weights="none"), 224, 3, 16, 4),
}


def step_of(name: str, way: str) -> Callable[[], None]:
    """One training step of a network with the settings of a way."""
    make, side, channels, batch, _ = NETWORKS[name]
    torch.manual_seed(0)
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = way == WAYS[0]
    if way == WAYS[3]:
        memory.keep_freed()
    backbone = make().train()
    images = torch.randn(batch, channels, side, side)
    if way in WAYS[2:]:
        backbone.to(memory_format=torch.channels_last)
        images = images.contiguous(memory_format=torch.channels_last)
    for module in backbone.modules():
        if isinstance(module, nn.BatchNorm2d) and name != "small_cnn":
            module.eval()
    head, loss = nn.Linear(backbone.num_features, 512), ProxyNCA(100, 512)
    parameters = [p for module in (backbone, head, loss) for p in module.parameters()]
    optimizer, labels = torch.optim.AdamW(parameters, lr=1e-4), torch.arange(batch) // 4

    def step() -> None:
        optimizer.zero_grad()
        loss(head(backbone(images)), labels).mean().backward()
        nn.utils.clip_grad_norm_(parameters, 10.0)
        optimizer.step()

    return step


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """(seconds, processor seconds) of a call."""
    start = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - start[0], time.process_time() - start[1]


def steps(pipe: Connection, name: str, way: str) -> None:
    """A way's process: a step for every word; after the last one, None, its largest memory in GiB."""
    step = step_of(name, way)
    step()
    pipe.send(None)
    while pipe.recv():
        pipe.send(timed(step))
    pipe.send(_status("VmHWM"))


def network(name: str) -> list[dict]:
    """Images a second, processor milliseconds an image and largest memory of each way."""
    context, batch, turns = multiprocessing.get_context("spawn"), *NETWORKS[name][3:]
    pipes, processes = [], []
    for way in WAYS:
        mine, its = context.Pipe()
        processes.append(context.Process(target=steps, args=(its, name, way)))
        processes[-1].start()
        mine.recv()  # one after the other, so that none is timed while another one starts
        pipes.append(mine)
    laps: list[list[tuple[float, float]]] = [[] for _ in WAYS]
    for _ in range(turns):
        for pipe, mine in zip(pipes, laps, strict=True):
            pipe.send(True)
            mine.append(pipe.recv())
    rows = []
    for way, pipe, process, mine in zip(WAYS, pipes, processes, laps, strict=True):
        pipe.send(False)
        wall, cpu = map(statistics.median, zip(*mine, strict=True))
        rows.append({"network": name, "way": way, "images_per_second": batch / wall})
        rows[-1] |= {"cpu_ms_per_image": 1e3 * cpu / batch, "peak_gib": pipe.recv()}
        process.join()
    return rows


class Laps(pl.Callback):
    """The seconds of each epoch's batches, the first one's left out, and processor seconds."""

    def __init__(self):
        self.laps: list[tuple[float, float]] = []

    def on_train_epoch_start(self, trainer, pl_module) -> None:
        """Start the clocks."""
        self.start = time.perf_counter(), time.process_time()

    def on_train_epoch_end(self, trainer, pl_module) -> None:
        """Stop them."""
        end = time.perf_counter(), time.process_time()
        self.laps.append(tuple(b - a for a, b in zip(self.start, end, strict=True)))


def glyphs(epochs: int, most: int) -> dict:
    """A run's training on glyphs as a share of the bare loop, by seconds and by processor seconds."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("config", [f"recipe.epochs={epochs}", f"recipe.validate_every={epochs + 1}"])
    torch.manual_seed(0)
    split, recipe = build.load(cfg.dataset), instantiate(cfg.recipe)
    model = Embedder(
        SmallCNN(1), instantiate(cfg.loss, num_classes=split.num_classes, embedding_size=64), recipe
    )
    data = DataModule(split, split.train.labels, model.backbone, recipe, cfg.num_workers, 0)
    batches = list(islice(data.train_dataloader(), most))
    parameters = [each for each in model.parameters() if each.requires_grad]
    optimizer = recipe.optimizer(parameters, lr=1e-3)

    def bare() -> None:
        model.train()
        for images, labels, _ in batches:
            loss = model.loss(model(images), labels).mean() + model.loss.regulariser()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    clock = Laps()

    def trainer(**settings) -> pl.Trainer:
        settings["callbacks"] = [*settings["callbacks"], clock]
        return pl.Trainer(
            accelerator="cpu", deterministic="warn", limit_train_batches=len(batches), **settings
        )

    bare()
    alone = [timed(bare) for _ in range(2)]
    with tempfile.TemporaryDirectory() as folder:
        fit(model, data, Path(folder), trainer, None, None)
    alone += [timed(bare) for _ in range(2)]
    n = sum(len(labels) for _, labels, _ in batches)
    (bare_wall, bare_cpu), (wall, cpu) = (
        map(statistics.median, zip(*laps, strict=True)) for laps in (alone, clock.laps[1:])
    )
    return {
        "bare_images_per_second": n / bare_wall,
        "run_images_per_second": n / wall,
        "share": bare_wall / wall,
        "share_by_cpu": bare_cpu / cpu,
    }


def main(words: list[str]) -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(prog="python -m scripts.bench_training", description=__doc__)
    parser.add_argument("--only", nargs="*", default=[*NETWORKS, "glyphs"], help="networks, or glyphs")
    parser.add_argument("--epochs", type=int, default=4, help="of glyphs, the first of which is not counted")
    parser.add_argument("--batches", type=int, default=30, help="of each epoch of glyphs, at most 30")
    options = parser.parse_args(words)
    console.quiet = True
    for name in ("pytorch_lightning", "lightning_fabric", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", ".*isinstance.treespec, LeafSpec.*")
    machine = described()
    print(f"torch {machine['torch']}, {machine['threads']} threads")
    found: dict = {"machine": machine, "rows": []}
    for name in (name for name in options.only if name in NETWORKS):
        rows = network(name)
        today = next(row for row in rows if row["way"] == TODAY)
        for row in rows:
            row["speed_to_today"] = row["images_per_second"] / today["images_per_second"]
            row["cpu_to_today"] = today["cpu_ms_per_image"] / row["cpu_ms_per_image"]
            print(
                f"{name:<22}{row['way']:<17}{row['images_per_second']:8.1f} images/s, "
                f"{row['speed_to_today']:5.2f}x of today, by processor time {row['cpu_to_today']:5.2f}x, "
                f"peak {row['peak_gib']:.2f} GiB",
                flush=True,
            )
        found["rows"] += rows
    if "glyphs" in options.only:
        found["glyphs"] = glyphs(options.epochs, options.batches)
        print("glyphs: " + ", ".join(f"{key} {value:.3g}" for key, value in found["glyphs"].items()))
    write_json(FILE, found)
    print(f"written to {FILE}")


if __name__ == "__main__":
    main(sys.argv[1:])
