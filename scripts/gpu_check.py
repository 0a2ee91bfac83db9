"""Check and measure the engine on a GPU: python -m scripts.gpu_check. One table, and benchmarks/gpu.json.

Golden vectors and float64 on the device; EIF a pair beside the processor in the same run and beside the
direct way on the device; IF, nearest neighbours, heads trained side by side; ResNet-50's bare forward pass
and training step in float32 and bfloat16, and ours as shares of them; peak memory; and the main job. Random
features and weights, medians. --device cpu measures the processor and says so; --quick takes small sizes, to
try the script.
"""

import argparse
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader
from torchvision.models import resnet50

from deconfuse.attribution.features import extract
from deconfuse.attribution.head import Targets, Training
from deconfuse.attribution.rows import in_float64
from deconfuse.compute.placement import exact, mixed
from deconfuse.influence import eif, influence_function
from deconfuse.loss.proxynca import ProxyNCA
from deconfuse.retraining.parallel_heads import Heads
from deconfuse.retrieval.neighbours import nearest
from deconfuse.system.files import write_json
from deconfuse.system.progress import console
from deconfuse.training.embedder import Embedder
from deconfuse.training.recipe import Recipe
from scripts import check_golden
from scripts.bench import CUB, INSHOP, groups, made

SOP = {"n": 59551, "D": 2048, "m": 512, "c": 11318}
QUICK = {"n": 999, "D": 64, "m": 32, "c": 20}
GOLDEN = Path("../shared/golden")
FOLDER = Path("benchmarks")


def moved(training: Training, device: torch.device) -> Training:
    """The side with everything on the device."""
    loss = ProxyNCA(*training.loss.proxies.shape).requires_grad_(False)
    loss.load_state_dict(training.loss.state_dict())
    parts = (training.features, training.labels, training.weight, training.bias)
    return Training(*(each.to(device) for each in parts), loss.to(device))


def at(targets: Targets, device: torch.device) -> Targets:
    """The targets with their features on the device."""
    return replace(targets, query=targets.query.to(device), gallery=targets.gallery.to(device))


def seconds(work: Callable[[], object], device: torch.device, times: int = 3) -> float:
    """The median of several runs, after one that is not counted; the device has finished each."""

    def lap() -> float:
        start = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - start

    lap()
    return statistics.median(lap() for _ in range(times))


class Table:
    """Rows that are printed as they are measured."""

    def __init__(self):
        self.rows: list[dict] = []

    def add(self, case: str, value: float, unit: str, aim: str = "-") -> None:
        """One measured number, and what was aimed at on an H100."""
        self.rows.append({"case": case, "value": value, "unit": unit, "aim": aim})
        print(f"{case:<58}{value:>11.4g} {unit:<18} {aim}", flush=True)


def golden(table: Table, device: torch.device) -> None:
    """The largest error of the authors' scripts' scores on the device, as a share of the largest score."""
    files = sorted(GOLDEN.glob("*.npz"))
    if not files:
        print(f"{GOLDEN} is not there: the golden vectors were not compared")
    for file in files:
        try:
            data, side, test = check_golden.load(file)
        except Exception:
            continue  # a file of something else
        side, test = moved_like(side, device), test.to(device)
        pairs = Targets.pairs(test, test, torch.from_numpy(data["pairs"]))
        found = eif.scores(side, pairs, **check_golden.EIF).cpu().numpy()
        want = data["eif_theta1"]
        table.add(f"golden, {file.stem}: EIF", error(found, want), "of the largest", "<= 1e-4")


def moved_like(training: Training, device: torch.device) -> Training:
    """As `moved`, for a side of any loss."""
    parts = (training.features, training.labels, training.weight, training.bias)
    return Training(*(each.to(device) for each in parts), training.loss.to(device))


def error(found: np.ndarray, want: np.ndarray) -> float:
    """The largest difference as a share of the largest number."""
    return float(np.abs(found - want).max() / np.abs(want).max())


def influence(table: Table, device: torch.device, sizes: dict[str, dict]) -> None:
    """EIF: its error against float64, seconds a pair, beside the processor and the direct way; IF by CG."""
    for name, size in sizes.items():
        here = made(**size)
        there, pairs = moved(here, device), groups(here, 100)
        on_device = at(pairs, device)
        few = replace(on_device, groups=on_device.groups[:8])
        precise = replace(few, query=few.query.double(), gallery=few.gallery.double())
        want = eif.scores(in_float64(there), precise).cpu().numpy()
        for one_pass in (False, True):
            found = eif.scores(there, few, one_pass=one_pass).cpu().numpy()
            how = "one pass" if one_pass else "operators"
            table.add(f"EIF, {name}, {how}: error", error(found, want), "of the largest", "<= 1e-5")
        pair = seconds(partial(eif.scores, there, on_device, one_pass=True), device) / 100
        table.add(
            f"EIF, {name}, a pair", 1e3 * pair, "ms", {"In-shop": "<= 0.2", "CUB": "<= 0.03"}.get(name, "-")
        )
        plain = seconds(partial(eif.scores, there, on_device, one_pass=False), device) / 100
        table.add(f"EIF, {name}, a pair by torch's operators", 1e3 * plain, "ms")
        weight = there.weight + 1e-3

        def direct(there: Training = there, weight: torch.Tensor = weight) -> torch.Tensor:
            z = nn.functional.linear(there.features, weight, there.bias)
            return there.loss(z, there.labels)

        table.add(f"EIF, {name}, a pair", seconds(direct, device) / pair, "x direct, device")
        if device.type != "cpu" and name != "SOP":
            some = replace(pairs, groups=pairs.groups[:4])
            slow = seconds(partial(eif.scores, here, some), torch.device("cpu"), 1) / 4
            table.add(
                f"EIF, {name}, a pair",
                slow / pair,
                "x this processor",
                ">= 300" if name == "In-shop" else "-",
            )
        if name == next(iter(sizes)):
            solved = seconds(partial(influence_function.scores, there, few), device, 1) / len(few)
            table.add(f"IF by CG, {name}, a pair", 1e3 * solved, "ms")
            heads(table, there, device)
        del here, there


def heads(table: Table, training: Training, device: torch.device) -> None:
    """A step of many heads on one batch."""
    number, batch = (200, 128) if len(training) > 1000 else (8, 16)
    many = Heads.start(training, torch.ones(number, len(training)), device)
    optimizer, rows = many.optimizer(torch.optim.Adam), torch.arange(batch)
    phi, labels = training.features[:batch], training.labels[:batch]
    taken = seconds(lambda: many.learn(optimizer, phi, labels, rows), device)
    table.add(f"{number} heads, a batch of {batch}", 1e3 * taken, "ms")


def search(table: Table, device: torch.device, n: int, m: int) -> None:
    """The exact nearest neighbours beside the plain float32 product and its largest entries."""
    z = nn.functional.normalize(torch.randn(n, m, generator=torch.Generator().manual_seed(0))).to(device)
    exact_ = seconds(lambda: nearest(z, z, 1, same=True, unit=True), device)

    def plain() -> list[torch.Tensor]:
        return [(some @ z.T).topk(2, dim=1).indices for some in z.split(4096)]

    table.add(f"nearest of {n:,} x {m}", exact_, "s")
    table.add(f"nearest of {n:,} x {m}", exact_ / seconds(plain, device), "x plain product")


def network(table: Table, device: torch.device, batch: int, side: int) -> None:
    """ResNet-50's forward pass and training step, in float32 and bfloat16, images a second."""
    model = resnet50(num_classes=64).to(device)
    images = torch.randn(batch, 3, side, side, device=device)
    optimizer = torch.optim.SGD(model.parameters(), 1e-3)
    for dtype in (None, torch.bfloat16) if device.type == "cuda" else (None,):
        name = "float32, TF32 off" if dtype is None else "bfloat16"

        def cast(dtype: torch.dtype | None = dtype) -> torch.autocast:
            return torch.autocast(device.type, dtype or torch.bfloat16, enabled=dtype is not None)

        def forward(cast: Callable = cast) -> torch.Tensor:
            with torch.no_grad(), cast():
                return model.eval()(images)

        def step(cast: Callable = cast) -> None:
            with cast():
                loss = model.train()(images).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

        for what, work in (("forward", forward), ("training step", step)):
            table.add(
                f"ResNet-50 at {side}, {what}, {name}", batch / seconds(work, device), "images a second"
            )


def passes(table: Table, device: torch.device, batch: int, side: int) -> None:
    """Our feature pass and training step of ResNet-50, as shares of the bare ones on batches on the device.

    The feature pass has its loader, whose batches are copied to the device, and checks its first batch.
    """
    backbone = resnet50()
    backbone.num_features, backbone.fc = backbone.fc.in_features, nn.Identity()
    made_for = {
        "epochs": 1,
        "classes_per_batch": 8,
        "per_class": 4,
        "embedding_size": 512,
        "lr_backbone": 0.0,
    }
    made_for |= {"lr_head": 0.0, "lr_proxies": 0.0, "schedule": "constant", "warmup_epochs": 0}
    made_for |= {"freeze_batchnorm": True, "clip_norm": None, "validate_every": 1, "eval_batch_size": batch}
    model = Embedder(backbone, ProxyNCA(64, 512), Recipe(optimizer=torch.optim.SGD, **made_for)).to(device)
    model.log = lambda *args, **keys: None  # no Trainer is there to keep it
    images = torch.randn(batch, 3, side, side)
    labels, rows = torch.arange(batch) % 64, torch.arange(batch)
    here = images.to(device)
    shown = here if device.type == "cuda" else here.contiguous(memory_format=torch.channels_last)
    batches = [(images, labels, rows)] * 20  # the first one is passed twice, to check it
    loader = DataLoader(batches, batch_size=None, pin_memory=device.type == "cuda")
    optimizer = torch.optim.SGD(model.parameters(), 0.0)
    for precision in ("32-true", "bf16-mixed"):
        model.precision = precision

        def bare(precision: str = precision) -> None:
            with torch.no_grad(), mixed(precision, device):
                model.eval()
                for _ in batches:
                    backbone(shown)

        def whole() -> None:
            for _ in extract(model, loader, "check"):
                pass

        def step(inputs: torch.Tensor, precision: str = precision, own: bool = True) -> None:
            with mixed(precision, device):
                z = None if own else model.head(backbone(inputs))
                loss = model.training_step((inputs, labels.to(device), rows), 0) if own else z.square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

        share = seconds(bare, device) / seconds(whole, device)
        table.add(f"ResNet-50 at {side}, feature pass, {precision}", share, "of bare forward", ">= 0.9")
        model.train()
        share = seconds(partial(step, here, own=False), device) / seconds(partial(step, here), device)
        table.add(f"ResNet-50 at {side}, training step, {precision}", share, "of bare step")


def main_job(table: Table, device: torch.device, quick: bool) -> None:
    """The command of the README, in a folder of its own."""
    accelerator = "gpu" if device.type == "cuda" else "cpu"
    words = ["noise=flip_10", f"trainer.accelerator={accelerator}", "logger=none"]
    words += ["recipe.epochs=1", "dataset.classes=12", "report=false"] if quick else []
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        command = [sys.executable, "-m", "src.run", *words, f"output_dir={folder}"]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"the main job failed:\n{done.stderr}")
    table.add("the main job, the whole command", time.perf_counter() - start, "s")
    lines = [line for line in done.stdout.splitlines() if line.startswith(("Recall@1", "Confusions", "Time"))]
    print("\n".join(f"    {line}" for line in lines))


def measured(device: torch.device, quick: bool) -> Iterator[Callable[[Table], None]]:
    """The parts, in order."""
    sizes = {"quick": QUICK} if quick else {"CUB": CUB, "In-shop": INSHOP, "SOP": SOP}
    yield lambda table: golden(table, device)
    yield lambda table: influence(table, device, sizes)
    yield lambda table: search(table, device, *((2000, 64) if quick else (60_000, 512)))
    yield lambda table: network(table, device, *((2, 64) if quick else (128, 224)))
    yield lambda table: passes(table, device, *((2, 64) if quick else (128, 224)))
    yield lambda table: main_job(table, device, quick)


def main(words: list[str]) -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--quick", action="store_true", help="small sizes, to try the script")
    asked = parser.parse_args(words)
    if asked.device == "cuda" and not torch.cuda.is_available():
        sys.exit("there is no GPU here; --device cpu measures the processor")
    device, console.quiet = torch.device(asked.device), True
    name = torch.cuda.get_device_name() if device.type == "cuda" else "the processor (--device cpu)"
    print(f"{name}, torch {torch.__version__}")
    table, start = Table(), time.perf_counter()
    with exact():
        for part in measured(device, asked.quick):
            part(table)
    if device.type == "cuda":
        table.add("peak memory", torch.cuda.max_memory_allocated() / 2**30, "GiB")
    machine = {"device": name, "torch": torch.__version__, "python": platform.python_version()}
    content = {"machine": machine, "seconds": time.perf_counter() - start, "rows": table.rows}
    if device.type == "cuda" and not asked.quick:
        FOLDER.mkdir(exist_ok=True)
        write_json(FOLDER / "gpu.json", content)
        print(f"written to {FOLDER}/gpu.json")


if __name__ == "__main__":
    main(sys.argv[1:])
