"""Measure the core: python -m scripts.bench. Ratios from one run, beside what was aimed at.

Random features, float32. Direct is: move W, pass all cached features through it, take every loss again.
The second column of numbers is what benchmarks/results.json has from the commit at its head. Writes that file
and benchmarks/ratios.png.
"""

import argparse
import multiprocessing
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import matplotlib.pyplot as plt
import torch

from deconfuse.attribution.curvature import bend_of, hvp
from deconfuse.attribution.head import Targets, Training
from deconfuse.influence import eif, influence_function, tracin, unrolled
from deconfuse.loss.proxynca import ProxyNCA
from deconfuse.system.files import read_json, whole_file, write_json
from deconfuse.system.progress import console
from deconfuse.unrolling import plans

CUB = {"n": 5864, "D": 2048, "m": 512, "c": 100}
INSHOP = {"n": 25882, "D": 2048, "m": 512, "c": 3997}
GOLDEN = {"n": 480, "D": 196, "m": 32, "c": 40}
FOLDER = Path("benchmarks")


def made(n: int, D: int, m: int, c: int) -> Training:
    """A training side of random numbers."""
    torch.manual_seed(0)
    labels, weight = torch.randint(0, c, (n,)), torch.randn(m, D) / D**0.5
    loss = ProxyNCA(c, m).requires_grad_(False)
    return Training(torch.randn(n, D), labels, weight, torch.zeros(m), loss)


def groups(training: Training, number: int, size: int = 1) -> Targets:
    """Groups of `size` pairs of random test samples."""
    test = torch.randn(2 * number * size, training.features.shape[1])
    rows = torch.arange(2 * number * size).view(number, size, 2)
    return Targets(test, test, tuple(rows.unbind(0)))


def seconds(work: Callable[[], object], times: int = 3) -> float:
    """The median of several runs, after one that is not counted."""
    work()
    laps = []
    for _ in range(times):
        start = time.perf_counter()
        work()
        laps.append(time.perf_counter() - start)
    return statistics.median(laps)


def direct(training: Training) -> float:
    """Seconds of one direct pass."""
    moved = training.weight + 1e-3 * torch.randn_like(training.weight)

    def work() -> torch.Tensor:
        z = torch.nn.functional.linear(training.features, moved, training.bias)
        return training.loss(z, training.labels)

    return seconds(work)


def peak(result: multiprocessing.Queue) -> None:
    """Largest memory of EIF at In-shop size, beyond features and scores, in GiB."""
    training = made(**INSHOP)
    targets = groups(training, 100)
    result.put(peak_of(lambda: eif.scores(training, targets)) - 4 * len(targets) * len(training) / 2**30)


def peak_of(work: Callable[[], object]) -> float:
    """Largest memory while a call runs, beyond what was held before it, in GiB (Linux only)."""
    before = _status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak of what came before
    work()
    return _status("VmHWM") - before


def _status(key: str) -> float:
    """A line of /proc/self/status, in GiB (Linux only)."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines[key].split()[0]) / 2**20


def apart(work: Callable, *args: object) -> float:
    """What work(queue, *args) puts into its queue, in a process of its own."""
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=work, args=(queue, *args))
    process.start()
    result = queue.get()
    process.join()
    return result


def described() -> dict[str, str | int]:
    """What the numbers were measured on."""
    return {
        "processor": platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "commit": commit(),
    }


def commit() -> str:
    """The commit that the checkout is at, with + if files differ from it; unknown where there is no git."""
    asked = ["git", "describe", "--always", "--dirty=+", "--exclude=*"]
    try:
        return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def a_step_back(pairs: int = 16) -> float:
    """Seconds of influence=unrolled per pair and step of 64 samples, on a head of CUB's size.

    The number of rows counts by the number of steps alone: 100 pairs and the 94 steps of CUB's epoch are
    9,400 of these, which at 64 ms take ten minutes.
    """
    few = made(**{**CUB, "n": 400})
    steps = len(plans.again(few, unrolled.EPOCH))
    return seconds(lambda: unrolled.scores(few, groups(few, pairs)), 1) / (pairs * steps)


def measure(before: dict[str, float]) -> list[dict]:
    """One row per case: name, value, unit, what was aimed at and whether less or more is better.

    before: what an earlier commit measured, by the case and its unit.
    """
    rows = []

    def add(case: str, value: float, unit: str, aim: str) -> None:
        earlier = f"{before[case + unit]:>10.3g}" if case + unit in before else f"{'-':>10}"
        rows.append({"case": case, "value": value, "unit": unit, "aim": aim})
        print(f"{case:<46}{value:>10.3g}{earlier} {unit:<22} aim {aim}", flush=True)

    cub = made(**CUB)
    slow = direct(cub)
    pair = seconds(lambda: eif.scores(cub, groups(cub, 100))) / 100
    add("EIF, 100 pairs, CUB size", slow / pair, "x direct", ">= 100")
    add("  per pair", 1e3 * pair, "ms", "2.46 (a quick version)")
    grouped = seconds(lambda: eif.scores(cub, groups(cub, 30, 50)), 1) / 30
    add("EIF, 30 groups of 50 pairs, CUB size", grouped / pair, "x a pair, each", "<= 20")
    some = groups(cub, 100)
    product = seconds(lambda: cub.features @ some.query.T)
    add(
        "TracIn, 100 pairs, CUB size",
        seconds(lambda: tracin.scores(cub, some)) / product,
        "x phi U",
        "<= 1.5",
    )
    bend, few = bend_of(cub), groups(cub, 32)
    once = seconds(lambda: hvp(cub, torch.ones(1, *cub.weight.shape), bend))
    solved = seconds(lambda: influence_function.scores(cub, few, damping=1e-2), 1) / 32
    add("IF by CG to 1e-3, damping 1e-2, 32 pairs", solved / once, "HVPs per pair", "<= 8")
    del cub
    add("Unrolled, CUB size, a pair through a step", 1e3 * a_step_back(), "ms", "<= 64")
    golden = made(**GOLDEN)
    add(
        "EIF, golden size, per pair",
        1e3 * seconds(lambda: eif.scores(golden, groups(golden, 8))) / 8,
        "ms",
        "-",
    )
    shop = made(**INSHOP)
    slow = direct(shop)
    pair = seconds(lambda: eif.scores(shop, groups(shop, 10)), 1) / 10
    add("EIF, 10 pairs, In-shop size", slow / pair, "x direct", ">= 20")
    add("  per pair", pair, "s", "0.11 (a quick version)")
    del shop
    add("EIF, 100 pairs, In-shop size: memory", apart(peak), "GiB", "<= 1")
    per_row = []
    for n in (10**4, 10**5, 10**6):
        long = made(n=n, D=256, m=64, c=100)
        per_row.append(1e9 * seconds(lambda long=long: eif.scores(long, groups(long, 10))) / n / 10)
        add(f"EIF, n = {n:,}, D 256, c 100", per_row[-1], "ns per row and pair", "flat within 10 %")
    add("  slowest to fastest", max(per_row) / min(per_row), "x", "<= 1.1")
    return rows


def draw(rows: list[dict], path: Path) -> None:
    """Bars of the ratios that have an aim, as a multiple of it: right of 1 is better."""
    shown = []
    for row in rows:
        sign, _, aim = row["aim"].partition("= ")
        if sign in (">", "<"):
            ratio = row["value"] / float(aim)
            shown.append((row["case"].strip(), ratio if sign == ">" else 1 / ratio))
    figure, axes = plt.subplots(figsize=(8, 0.5 * len(shown) + 1.2))
    axes.barh([name for name, _ in shown], [value for _, value in shown], color="#3b6ea5")
    axes.axvline(1, color="black", linewidth=1)
    axes.set_xscale("log")
    axes.set_xlabel("measured, as a multiple of the aim (right of 1: reached)")
    axes.invert_yaxis()
    figure.tight_layout()
    with whole_file(path) as partial:
        figure.savefig(partial, format="png", dpi=120)


def main(words: list[str]) -> None:
    """Measure, print, write."""
    argparse.ArgumentParser(prog="python -m scripts.bench", description=__doc__).parse_args(words)
    console.quiet = True
    machine = described()
    print(f"torch {machine['torch']}, {machine['threads']} threads; medians")
    last = read_json(FOLDER / "results.json") if (FOLDER / "results.json").exists() else {}
    there = last.get("machine", {}).get("commit", "unknown")
    print(f"{'case':<46}{machine['commit'][:9]:>10}{there[:9]:>10}")
    rows = measure({row["case"] + row["unit"]: row["value"] for row in last.get("rows", ())})
    write_json(FOLDER / "results.json", {"machine": machine, "rows": rows})
    draw(rows, FOLDER / "ratios.png")
    print(f"written to {FOLDER}/results.json and {FOLDER}/ratios.png")


if __name__ == "__main__":
    main(sys.argv[1:])
