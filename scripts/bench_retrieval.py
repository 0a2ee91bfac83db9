"""Measure nearest neighbours: python -m scripts.bench_retrieval, on a quiet machine.

Random rows of length one, float32, by this project and by faiss's exact index in one process, turn about;
then the memory beyond the rows. Needs pip install 'deconfuse[bench]'. Ratios below 1: faster than faiss.
"""

import argparse
import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F

from deconfuse.retrieval.neighbours import nearest
from scripts.bench import apart, peak_of


def made(n: int, m: int, seed: int) -> torch.Tensor:
    """n random rows of length one."""
    return F.normalize(torch.randn(n, m, generator=torch.Generator().manual_seed(seed)), dim=1)


def by_faiss(query: torch.Tensor, gallery: torch.Tensor, same: bool) -> torch.Tensor:
    """The nearest gallery row of each query; where both are the same rows, the second of two."""
    import faiss

    faiss.omp_set_num_threads(torch.get_num_threads())
    index = faiss.IndexFlatL2(gallery.shape[1])
    index.add(gallery.numpy())
    return torch.from_numpy(index.search(query.numpy(), 1 + same)[1])[:, -1]


def by_turns(first: Callable[[], torch.Tensor], second: Callable[[], torch.Tensor], times: int) -> None:
    """Print the median seconds of each, their ratio and the share of equal results."""
    laps, found = ([], []), [None, None]
    for _ in range(times):
        for i, work in enumerate((first, second)):
            start = time.perf_counter()
            found[i] = work()
            laps[i].append(time.perf_counter() - start)
    ours, theirs = map(statistics.median, laps)
    for name, value, each in (("nearest", ours, laps[0]), ("faiss", theirs, laps[1])):
        print(f"  {name:<10}{value:>8.1f} s   ({min(each):.1f} to {max(each):.1f})")
    equal = (found[0] == found[1]).double().mean().item()
    print(f"  ratio     {ours / theirs:>8.2f}     aim <= 1   ({equal:.3%} the same neighbours)", flush=True)


def peak(result: multiprocessing.Queue, n: int, m: int) -> None:
    """Largest memory of the nearest other row of each, beyond the rows, in GiB."""
    z = made(n, m, 0)
    result.put(peak_of(lambda: nearest(z, z, 1, same=True)))


def main(words: list[str]) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m scripts.bench_retrieval", description=__doc__)
    parser.add_argument("--rows", type=int, default=60_000)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--times", type=int, default=3)
    options = parser.parse_args(words)
    try:
        import faiss  # noqa: F401 - missing is said before anything is measured
    except ImportError:
        sys.exit("error: this needs faiss; install it with pip install 'deconfuse[bench]'")
    query, gallery = (made(options.rows, options.size, seed) for seed in (0, 1))
    print(f"{options.rows} x {options.size}, {torch.get_num_threads()} threads, medians of {options.times}")
    for same, other, case in ((True, query, "the nearest other row"), (False, gallery, "in another gallery")):
        print(case)
        by_turns(
            lambda other=other, same=same: nearest(query, other, 1, same=same)[1][:, 0],
            lambda other=other, same=same: by_faiss(query, other, same),
            options.times,
        )
    print(f"memory      {apart(peak, options.rows, options.size):>8.2f} GiB beyond the rows, aim <= 1")


if __name__ == "__main__":
    main(sys.argv[1:])
