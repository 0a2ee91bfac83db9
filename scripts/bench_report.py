"""How quick the report is with 5,000 confusions and 60,000 training samples: python -m scripts.bench_report

Writes a made-up report of that size, opens it in the system's Chromium and Firefox, and prints the seconds
that writing took, the time to the first view of each page, and the longest frame while a list is scrolled.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from deconfuse.data.images import ArrayImages
from deconfuse.data.noise import NoisyLabels
from deconfuse.data.split import ImageSpec, Part, Split
from deconfuse.labels.relabel import Votes
from deconfuse.labels.wrong import Doubt
from deconfuse.report import page
from deconfuse.retrieval.confusion import Explained, Pairs
from deconfuse.runs import results
from deconfuse.runs.tables import Findings
from deconfuse.system.errors import UserError
from scripts import browsers

PAGES = ("overview", "review", "samples", "grid", "confusions", "classes", "map", "map?side=train")
SCROLL = """new Promise((done) => {
    const list = document.querySelector(".list");
    let [longest, before, turn] = [0, performance.now(), 0];
    const step = (now) => {
        longest = Math.max(longest, now - before);
        before = now;
        list.scrollTop += 400;
        if (++turn < 120) requestAnimationFrame(step);
        else done([longest, list.querySelectorAll(".row, .cell-box").length]);
    };
    requestAnimationFrame(step);
})"""


def made_up(n: int, p: int, classes: int, rows: int) -> tuple[Findings, dict[str, torch.Tensor], Votes]:
    """n training samples of `classes` classes, p confusions among 2 p queries, `rows` of them explained."""
    random = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (64, 64, 64), generator=random, dtype=torch.uint8).numpy()
    images = ArrayImages(pixels)
    labels = np.sort(np.arange(n) % classes)
    test = np.sort(np.arange(2 * p) % classes) + classes
    train = Part(
        images, np.arange(n) % 64, labels, tuple(f"train/{i // 100:04d}/{i:06d}.jpg" for i in range(n))
    )
    query = Part(
        images, np.arange(2 * p) % 64, test, tuple(f"test/{i // 100:04d}/{i:06d}.jpg" for i in range(2 * p))
    )
    names = tuple(f"class {c:05d}" for c in range(2 * classes))
    split = Split(train, query, query, names, classes, ImageSpec(64, 1, "none"))
    pairs = Pairs(torch.arange(p), torch.arange(p, 2 * p), torch.linspace(0, 1, p))
    explained = Explained(tuple(pairs.pairs[:rows, None].unbind(0)), 1.0, "confusions.csv", pairs)
    influence = torch.randn(rows, n, generator=random)
    index = (torch.arange(n)[:, None] + torch.arange(1, 9)) % n
    share, noisy = torch.rand(n, 8, generator=random), NoisyLabels(labels, labels)
    votes = Votes(torch.from_numpy(labels)[index], share, share[:, 0], index)
    chance = torch.rand(n, generator=random, dtype=torch.float64) ** 8  # a twelfth of them is above 1/2
    share_wrong, used = chance.mean().item(), torch.ones(n, dtype=torch.bool)
    doubt = Doubt(chance, votes.classes[:, 0], share_wrong, 0.0, 1.0, 0.9, None, votes, used)
    found = Findings(split, noisy, pairs, explained, influence, torch.rand(n, generator=random), votes, doubt)
    sides = {"train": n, "query": 2 * p}
    e = {side: F.normalize(torch.randn(k, 64, generator=random), dim=1) for side, k in sides.items()}
    return found, e, votes


def write(folder: Path, found: Findings, e: dict[str, torch.Tensor], votes: Votes) -> float:
    """Write the report into a run's folder, and return the seconds that it took."""
    tables = results.write(folder, found, "eif", "d times nats")
    queries = len(found.split.query)
    right = 1 - len(found.confusions) / queries
    metrics = {
        "choices": {
            "dataset": "made up",
            "model": "none",
            "loss": "none",
            "influence": "eif",
            "detector": "knn",
        },
        "params": "head",
        "seed": 0,
        "command": "python -m scripts.bench_report",
        **results.report(found, tables, {"R@1": right}),
        "checkpoint": {"path": "checkpoints/none/model.ckpt", "sha256": ""},
        "corrections": None,
        "seconds": {},
        "versions": {},
        "machine": {},
    }
    start = time.perf_counter()
    content = page.Content(found, metrics, tables, "d times nats", lambda: e, votes)
    page.write(folder / "report", folder, content, True)
    return time.perf_counter() - start


def look(folder: Path, name: str) -> None:
    """Open each page anew, and print how long its first view and its longest frame took."""
    home = (folder / "report" / "index.html").as_uri()
    with browsers.opened(name, folder.parent / name, width=1440, height=900) as tab:
        for view in PAGES:
            line = f"{name:<9} {view:<15} first view {browsers.first_view(tab, f'{home}#/{view}'):.2f} s"
            if view in ("confusions", "samples", "grid"):
                longest, rows = tab.run_async(SCROLL)
                line += (
                    f", longest frame of 120 while scrolling {longest:.0f} ms, {rows} rows in the document"
                )
            print(line, flush=True)


def main() -> None:
    """What the command line does."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=60_000)
    parser.add_argument("--confusions", type=int, default=5_000)
    parser.add_argument("--explained", type=int, default=500, help="rows of scores; all would take 1.2 GB")
    parser.add_argument("--classes", type=int, default=2_000)
    parser.add_argument("--browser", choices=list(browsers.KINDS), nargs="+", default=browsers.there())
    words = parser.parse_args()
    if not words.browser:
        raise UserError("no browser is installed; apt-get install chromium firefox-esr")
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "run"
        folder.mkdir()
        rows = min(words.explained, words.confusions)
        took = write(folder, *made_up(words.samples, words.confusions, words.classes, rows))
        files = [path for path in (folder / "report").rglob("*") if path.is_file()]
        size = sum(path.stat().st_size for path in files) / 1e6
        print(f"{words.samples} samples, {words.confusions} confusions, {rows} explained")
        print(f"written in {took:.1f} s: {len(files)} files, {size:.0f} MB")
        for name in words.browser:
            look(folder, name)


if __name__ == "__main__":
    main()
