"""Measure the search for copies: python -m scripts.bench_duplicates LIST.csv (columns path and label).

To each kind of copy below so many of the pictures are chosen at random, and a copy of each is added. Said are
the share of copies that are found (in one group with their original), and the groups that hold pictures of
which none is a made-up copy of the other: those have to be looked at, as the data may have copies of its own.
"""

import argparse
import io
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image, ImageOps

from deconfuse.data.images import LazyImages
from deconfuse.data.split import ImageSpec, Part, Split
from deconfuse.duplicates.search import Search, search

Make = Callable[[Image.Image, np.random.Generator], Image.Image]


def resized(image: Image.Image, share: float = 0.6) -> Image.Image:
    """The picture with sides of that share."""
    return image.resize([max(8, round(share * side)) for side in image.size], Image.Resampling.LANCZOS)


def cropped(image: Image.Image, random: np.random.Generator, share: float) -> Image.Image:
    """A window of that share of both sides, at a random place."""
    width, height = (round(share * side) for side in image.size)
    x, y = random.integers(0, image.width - width + 1), random.integers(0, image.height - height + 1)
    return image.crop((x, y, x + width, y + height))


def middle(image: Image.Image, edge: float) -> Image.Image:
    """The picture without that share at each of its four sides."""
    x, y = round(edge * image.width), round(edge * image.height)
    return image.crop((x, y, image.width - x, image.height - y))


def jpeg(image: Image.Image, quality: int = 40) -> Image.Image:
    """The picture as a JPEG file shows it."""
    file = io.BytesIO()
    image.convert("RGB").save(file, "JPEG", quality=quality)
    return Image.open(file).convert(image.mode)


COPIES: dict[str, Make] = {
    "resized to 60 %": lambda image, random: resized(image),
    "JPEG of quality 40": lambda image, random: jpeg(image),
    "cropped by 5 %, anywhere": lambda image, random: cropped(image, random, 0.95),
    "cropped by 2.5 % at each side": lambda image, random: middle(image, 0.025),
    "cropped by 5 % at each side": lambda image, random: middle(image, 0.05),
    "cropped by 10 %, anywhere": lambda image, random: cropped(image, random, 0.9),
    "cropped by 5 %, resized, JPEG": lambda image, random: jpeg(resized(cropped(image, random, 0.95))),
    "in grey, JPEG": lambda image, random: jpeg(image.convert("L").convert("RGB")),
}
MIRRORED: dict[str, Make] = {
    "mirrored": lambda image, random: ImageOps.mirror(image),
    "mirrored, cropped by 5 %, JPEG": lambda image, random: jpeg(
        ImageOps.mirror(cropped(image, random, 0.95))
    ),
}


def main(words: list[str]) -> None:
    """Make copies, search, and print what was found."""
    parser = argparse.ArgumentParser(prog="python -m scripts.bench_duplicates", description=__doc__)
    parser.add_argument("list", type=Path)
    parser.add_argument("--each", type=int, default=200, help="copies of each kind")
    parser.add_argument("--mirrored", action="store_true", help="also look for mirrored copies")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args(words)
    table, random = pd.read_csv(asked.list), np.random.default_rng(asked.seed)
    n, kinds = len(table), COPIES | (MIRRORED if asked.mirrored else {})

    def original(i: int) -> Image.Image:
        return Image.open(asked.list.parent / table["path"][i]).convert("RGB")

    chosen = [(int(i), kind) for kind in kinds for i in random.choice(n, asked.each, replace=False)]
    made = [kinds[kind](original(i), random) for i, kind in chosen]
    images = LazyImages(lambda i: original(i) if i < n else made[i - n], lambda i: b"", n + len(made))
    of = np.concatenate([np.arange(n), [i for i, _ in chosen]])
    label = np.unique(table["label"], return_inverse=True)[1][of]
    part = Part(images, np.arange(len(of)), label, tuple(map(str, of)))
    query = Part(images, np.arange(0), label[:0], ())
    split = Split(
        part, query, query, tuple(sorted(set(table["label"]))), label.max() + 1, ImageSpec(64, 3, "none")
    )
    none = torch.zeros(len(of), 2)
    start = time.perf_counter()
    found = search(Search(True, asked.mirrored), split, {"train": none, "query": none[:0]})
    took = time.perf_counter() - start
    print(f"{len(of):,} pictures, {len(made):,} of them copies: {took:.1f} s")
    group = np.full(len(of), -1)
    group[found.row] = found.group
    for kind in kinds:
        rows = [n + k for k, (_, its) in enumerate(chosen) if its == kind]
        hit = np.mean([group[k] >= 0 and group[k] == group[of[k]] for k in rows])
        print(f"  {kind:<32}{hit:>8.1%}")
    families = pd.Series(of[found.row]).groupby(found.group).unique()
    odd = [each for each in families if len(each) > 1]
    print(f"{len(odd)} groups of different pictures, {1000 * len(odd) / n:.1f} in 1,000:")
    for each in odd:
        print("  " + ", ".join(f"{table['path'][i]} ({table['label'][i]})" for i in each))


if __name__ == "__main__":
    main(sys.argv[1:])
