"""Measure the core against the direct way: python -m scripts.bench. Ratios from one run, no verdict.

Direct: move W, pass all cached features through it, take every loss again. Random features, float32.
"""

import statistics
import time
from collections.abc import Callable

import torch

from src.head import Targets, Training
from src.influence import eif
from src.loss.proxynca import ProxyNCA

# name, training samples n, features D, embedding m, classes c, pairs, direct passes to measure
CASES = (("CUB size", 5864, 2048, 512, 100, 100, 5), ("In-shop size", 25882, 2048, 512, 3997, 10, 3))


def made(n: int, D: int, m: int, c: int) -> Training:
    """A training side of random numbers."""
    torch.manual_seed(0)
    labels = torch.randint(0, c, (n,))
    weight, bias = torch.randn(m, D) / D**0.5, torch.zeros(m)
    return Training(torch.randn(n, D), labels, weight, bias, ProxyNCA(c, m).requires_grad_(False))


def seconds(work: Callable[[], object], times: int) -> float:
    """The median of several runs, after one that is not counted."""
    work()
    laps = []
    for _ in range(times):
        start = time.perf_counter()
        work()
        laps.append(time.perf_counter() - start)
    return statistics.median(laps)


def main() -> None:
    """Print one line per case."""
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads; milliseconds per pair, medians")
    print(f"{'case':<14}{'direct':>10}{'low rank':>10}{'ratio':>8}")
    for name, n, D, m, c, pairs, times in CASES:
        training = made(n, D, m, c)
        test = torch.randn(2 * pairs, D)
        targets = Targets.pairs(test, test, torch.arange(2 * pairs).view(pairs, 2))
        moved = training.weight + 1e-3 * torch.randn(m, D)

        def direct(training=training, moved=moved) -> torch.Tensor:
            z = torch.nn.functional.linear(training.features, moved, training.bias)
            return training.loss(z, training.labels)

        def low_rank(training=training, targets=targets) -> torch.Tensor:
            return eif.scores(training, targets)

        slow, fast = 1e3 * seconds(direct, times), 1e3 * seconds(low_rank, 3) / pairs
        print(f"{name:<14}{slow:>10.2f}{fast:>10.2f}{slow / fast:>7.0f}x")


if __name__ == "__main__":
    main()
