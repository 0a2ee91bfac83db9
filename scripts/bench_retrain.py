"""Measure retraining by explanations: python -m scripts.bench_retrain, on a quiet machine.

CUB size, batches of 8 x 4, random features and scores, float32, Adam. Heads at once is what a run does, on a
full chunk; pair by pair is one nn.Linear each, torch.optim.Adam as it comes and autograd through W. Both see
the same batches, turn about. Other work on the machine lengthens seconds, and with more than one thread
processor time too. An epoch's seconds are a batch's, times the batches. Writes benchmarks/retrain.json.
"""

import argparse
import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from deconfuse.attribution.head import Training
from deconfuse.data.sampler import BalancedBatches
from deconfuse.retraining.parallel_heads import Heads, chunk_size
from deconfuse.system.files import write_json
from deconfuse.system.progress import console
from scripts.bench import CUB, apart, described, made, peak_of

BATCH = 8, 4
PAIRS, METHODS = 100, 2
ADAM = partial(torch.optim.Adam, lr=4e-5)
FILE = Path("benchmarks") / "retrain.json"


def drawn(training: Training, g: int) -> Tensor:
    """Weights (g, n) of 0 and 2, as random scores would give."""
    return 2.0 * torch.randint(0, 2, (g, len(training)), generator=torch.Generator().manual_seed(0))


def rows_of(training: Training, batches: int) -> list[Tensor]:
    """The rows of the first batches of an epoch."""
    sampler = BalancedBatches(training.labels.numpy(), *BATCH, seed=0)
    return [
        torch.tensor([row for row, _ in batch]) for batch, _ in zip(sampler, range(batches), strict=False)
    ]


def at_once(training: Training, make: Callable, g: int) -> Callable[[Tensor], None]:
    """A step of g heads on the rows of a batch."""
    heads = Heads.start(training, drawn(training, g))
    optimizer = heads.optimizer(make)

    def step(rows: Tensor) -> None:
        heads.learn(optimizer, training.features[rows], training.labels[rows], rows)

    return step


def pair_by_pair(training: Training, g: int) -> Callable[[Tensor], None]:
    """The same, one head after the other."""
    weights, heads = drawn(training, g), []
    for mine in weights:
        head = nn.Linear(*training.weight.T.shape)
        head.load_state_dict({"weight": training.weight, "bias": training.bias})
        heads.append((head, mine, ADAM([head.weight])))

    def step(rows: Tensor) -> None:
        for head, mine, optimizer in heads:
            losses = training.loss(head(training.features[rows]), training.labels[rows])
            optimizer.zero_grad()
            ((mine[rows] * losses).sum() / len(rows)).backward()
            optimizer.step()

    return step


def by_turns(steps: list[Callable[[Tensor], None]], batches: list[Tensor]) -> list[tuple[float, float]]:
    """Median (seconds, processor seconds) of each on a batch, after one that is not counted."""
    laps = [[] for _ in steps]
    for rows in batches:
        for step, mine in zip(steps, laps, strict=True):
            start = time.perf_counter(), time.process_time()
            step(rows)
            mine.append((time.perf_counter() - start[0], time.process_time() - start[1]))
    return [tuple(map(statistics.median, zip(*mine[1:], strict=True))) for mine in laps]


def peak(result: multiprocessing.Queue) -> None:
    """Largest memory of a full chunk over three batches, beyond the training side, in GiB."""
    training = made(**CUB)

    def work() -> None:
        step = at_once(training, ADAM, chunk_size(training, BATCH[0] * BATCH[1]))
        for rows in rows_of(training, 3):
            step(rows)

    result.put(peak_of(work))


def measure(batches: int, alone: int) -> list[dict]:
    """One row per case: name, value, unit and what was aimed at."""
    rows = []

    def add(case: str, value: float, unit: str, aim: str) -> None:
        rows.append({"case": case, "value": value, "unit": unit, "aim": aim})
        print(f"{case:<46}{value:>10.3g} {unit:<22} aim {aim}", flush=True)

    cub = made(**CUB)
    epoch = len(BalancedBatches(cub.labels.numpy(), *BATCH, seed=0))
    g = chunk_size(cub, BATCH[0] * BATCH[1])
    plain = partial(ADAM, fused=False)
    steps = [at_once(cub, ADAM, g), pair_by_pair(cub, alone)]
    ours, theirs = by_turns(steps, rows_of(cub, batches))
    for kind, our, their in zip(("", ", processor time"), ours, theirs, strict=True):
        add(f"{g} heads at once, CUB size{kind}", their / alone / (our / g), "x pair by pair", "-")
        add("  per head and batch", 1e3 * our / g, "ms", "-")
        add("  pair by pair", 1e3 * their / alone, "ms", "-")
        whole = our / g * epoch * PAIRS * METHODS
        add(f"  {PAIRS} pairs x {METHODS} methods, {epoch} batches", whole / 60, "min", "<= 5")
    del steps
    fused, single = by_turns(
        [at_once(cub, make, g // 2) for make in (ADAM, plain)], rows_of(cub, batches // 2)
    )
    add("  without Adam's fused form", single[1] / fused[1], "x processor time", "-")
    add("  memory of a chunk", apart(peak), "GiB", "<= 0.6")
    return rows


def main(words: list[str]) -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(prog="python -m scripts.bench_retrain", description=__doc__)
    parser.add_argument("--batches", type=int, default=24, help="of an epoch that are measured, 6 or more")
    parser.add_argument("--alone", type=int, default=8, help="heads of pair by pair")
    options = parser.parse_args(words)
    if options.batches < 6 or options.alone < 1:
        parser.error("give 6 batches and 1 head, or more")
    console.quiet = True
    machine = described()
    print(f"torch {machine['torch']}, {machine['threads']} threads; medians of {options.batches - 1} batches")
    write_json(FILE, {"machine": machine, "rows": measure(options.batches, options.alone)})
    print(f"written to {FILE}")


if __name__ == "__main__":
    main(sys.argv[1:])
