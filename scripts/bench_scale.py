"""Measure how a run grows: python -m scripts.bench_scale, or make scale. The command line, end to end.

For each n, features of n training rows and 4,000 test rows are drawn and written to a folder, and
`python -m src.run dataset=features` trains a head on them for one epoch, explains 50 confusion pairs, votes
on 2,000 candidates and writes its tables. Memory is the largest resident set that the system has seen of that
process; anonymous memory, which no file holds, is looked at twenty times a second (Linux only). Everything
is deleted afterwards; 2,000,000 rows of 128 take 6 GB on the way. Writes benchmarks/scale.json.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from deconfuse.system.files import write_json
from scripts.bench import described

SIZES = (125_000, 250_000, 500_000, 1_000_000, 2_000_000)
CLASSES, TEST_CLASSES, TEST = 250, 20, 4000
ROWS = 2**16  # drawn at once
RESULT = Path("benchmarks/scale.json")
WORDS = (
    *(
        "noise=flip_1",
        "target=pairs",
        "target.most=50",
        "candidates=2000",
        "neighbours=200",
        "trainer=cpu",
        "recipe.epochs=1",
    ),
    *("recipe.classes_per_batch=256", "recipe.per_class=16", "recipe.eval_batch_size=8192"),
    *("recipe.checkpoints=1", "logger=none"),
)


def draw(folder: Path, n: int, width: int) -> None:
    """n training rows and TEST test rows around their classes' centres, as wide as confuses some."""
    folder.mkdir()
    random = np.random.default_rng(0)
    centres = random.normal(size=(CLASSES + TEST_CLASSES, width)).astype(np.float32)
    labels = np.concatenate([np.arange(n) % CLASSES, CLASSES + np.arange(TEST) % TEST_CLASSES])
    np.save(folder / "labels.npy", labels)
    np.save(folder / "split.npy", np.where(np.arange(n + TEST) < n, "train", "test"))
    shape = (n + TEST, width)
    features = np.lib.format.open_memmap(folder / "features.npy", "w+", np.float32, shape)
    for start in range(0, len(labels), ROWS):
        of = labels[start : start + ROWS]
        features[start : start + ROWS] = centres[of] + 2 * random.standard_normal(
            (len(of), width), dtype=np.float32
        )


def run(folder: Path, output: Path, words: list[str]) -> dict[str, float]:
    """Seconds, and peak and anonymous memory (GiB), of the command line on a folder of features."""
    command = [sys.executable, "-m", "src.run", "dataset=features", f"dataset.path={folder}"]
    start, anonymous = time.perf_counter(), 0
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            [*command, f"output_dir={output}", *WORDS, *words], stdout=said, stderr=subprocess.STDOUT
        )
        while (ended := os.wait4(process.pid, os.WNOHANG))[0] == 0:
            anonymous = max(anonymous, _anonymous(process.pid))
            time.sleep(0.05)
        seconds, (_, status, used) = time.perf_counter() - start, ended
        if status:
            said.seek(0)
            sys.exit(f"error: the run failed: {said.read().decode()[-2000:]}")
    return {"seconds": seconds, "peak": used.ru_maxrss / 2**20, "anonymous": anonymous / 2**20}


def _anonymous(process: int) -> int:
    """KiB that no file holds; 0 once the process has ended."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))


def measure(n: int, width: int, home: Path, words: list[str]) -> dict:
    """One size: what the run took, the seconds of its steps, and the bytes of what it wrote."""
    rows, output = home / "rows", home / "out"
    try:
        draw(rows, n, width)
        found = run(rows, output, words)
        (path,) = output.glob("*/metrics.json")
        report = json.loads(path.read_text())
        files = {file.name: file.stat().st_size for file in output.rglob("*") if file.is_file()}
    finally:
        for folder in (rows, output):
            shutil.rmtree(folder, ignore_errors=True)
    kept = {key: report[key] for key in ("confusions", "explained", "relabels", "noise")}
    return {"n": n, "D": width, **found, "steps": report["seconds"], **kept, "bytes": files}


def table(rows: list[dict]) -> str:
    """A line per size, with how much each took beside the size before."""
    lines = ["        n  seconds   x  peak GiB     x  anonymous GiB  influence s  relabelling s  disk GB"]
    before = None
    for row in rows:
        ratios = [row[key] / before[key] if before else float("nan") for key in ("seconds", "peak")]
        lines.append(
            f"{row['n']:>9,}{row['seconds']:>9.0f}{ratios[0]:>4.1f}{row['peak']:>10.2f}{ratios[1]:>6.2f}"
            f"{row['anonymous']:>15.2f}{row['steps']['influence']:>13.1f}{row['steps']['relabelling']:>15.1f}"
            f"{sum(row['bytes'].values()) / 1e9:>9.2f}"
        )
        before = row
    return "\n".join(lines)


def main(words: list[str]) -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(prog="python -m scripts.bench_scale", description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=SIZES)
    parser.add_argument("--size", type=int, default=128, help="D, numbers of a row")
    parser.add_argument("--folder", default=None, help="where to put what is deleted afterwards")
    options, more = parser.parse_known_args(words)
    found = []
    with tempfile.TemporaryDirectory(dir=options.folder) as home:
        for n in options.rows:
            found.append(measure(n, options.size, Path(home), more))
            print(table(found) if len(found) == 1 else table(found).splitlines()[-1], flush=True)
    write_json(RESULT, {"machine": described(), "words": [*WORDS, *more], "rows": found})
    print(f"written to {RESULT}")


if __name__ == "__main__":
    main(sys.argv[1:])
