"""Review a run as a person would, in a browser, and measure it: python -m scripts.bench_review WORDS

WORDS are those of a run whose true labels are known, such as noise=flip_05 dataset=glyphs. The run is made,
its report opened, and the whole way gone: find, decide item after item by keys, accept many at once in the
grid, exclude one, export, train with the file, open the new report, and read what it changed. The reviewer
knows the true labels. Printed are the share of the truly wrong labels that were mended by the first items,
the keys that a decision took, and what the new report says.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd

from deconfuse.system.errors import UserError
from scripts import browsers
from scripts.browsers import ENTER

ROOT = Path(__file__).resolve().parent.parent
ITEM = "Number(document.querySelector('.review-card .picture').dataset.i)"
LIKELY = (
    "[...document.querySelectorAll('.review-card .likely-name')].map((one) => one.firstChild.textContent)"
)
TOP = "document.querySelector('#progress').innerText"
SAID = "document.querySelector('#said').innerText"
CHANGES = """[...document.querySelectorAll('#corrected tbody tr')]
    .map((row) => [...row.children].map((cell) => cell.innerText))"""


def run(words: list[str], output: Path) -> Path:
    """The folder of the run of these words."""
    command = [sys.executable, "-m", "src.run", *words, f"output_dir={output}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise UserError(f"the run failed: {done.stderr.strip()[-900:]}")
    return ROOT / done.stdout.split("\nResults")[1].split()[0]


class Reviewer:
    """Somebody who knows the true labels, at the keyboard. keys: how many each decision took, in order."""

    def __init__(self, tab, folder: Path):
        table = pd.read_csv(folder / "samples.csv", keep_default_na=False)
        self.tab, self.keys = tab, {}
        self.now, self.true = table["class"].tolist(), table["true_class"].tolist()
        self.recommended = table["recommended"].tolist()

    @property
    def wrong(self) -> set[int]:
        """The samples whose label is not the true one."""
        return {i for i, label in enumerate(self.now) if label != self.true[i]}

    def decide(self) -> None:
        """Decide on the item that is shown, by as few keys as it takes."""
        i, before = int(self.tab.run(ITEM)), self.tab.run(TOP)
        label = self.true[i]
        if label in (self.now[i], self.recommended[i]):
            typed = "r" if label == self.now[i] else "a"
            self.tab.press(typed)
        else:
            self.tab.wait("document.querySelector('.review-card .likely-name')")
            names = self.tab.run(LIKELY)
            typed = str(names.index(label) + 1) if label in names else f"o{label}{ENTER}"
            self.tab.press(typed[0])
            if len(typed) > 1:
                self.tab.wait("document.activeElement.matches('.asked input')")
                self.tab.press(typed[1:])
        self.tab.wait(f"{TOP} !== {json.dumps(before)}")
        self.keys[i] = len(typed)


def review(tab, folder: Path, items: int) -> tuple[Path, list[str]]:
    """Go through the report; returns (decisions.json, lines to print)."""
    home, person = (folder / "report" / "index.html").as_uri(), Reviewer(tab, folder)
    lines = [f"first view          {browsers.first_view(tab, home):.2f} s"]
    lines.append(f"the page says       {tab.run('document.querySelector(`.headline`).innerText')}")
    tab.press("l")
    tab.wait("location.hash.startsWith('#/review') && document.querySelector('.review-card .picture')")
    stop = int(tab.run(TOP).split()[2].replace(",", ""))
    start = time.perf_counter()
    while len(person.keys) < min(items, stop):
        person.decide()
    seconds = time.perf_counter() - start
    mended, keys, wrong = person.wrong & set(person.keys), list(person.keys.values()), len(person.wrong)
    lines += [
        f"truly wrong         {wrong} of {len(person.now)} training labels; where to stop: {stop}",
        f"reached and mended  {len(mended)} by the first {len(keys)} items, "
        f"{len(mended) / max(1, wrong):.0%} of all, "
        f"{len(mended) / max(1, min(wrong, len(keys))):.0%} of what {len(keys)} items can be",
        f"keys                {keys.count(1)} of {len(keys)} by one; mean {sum(keys) / len(keys):.1f}",
        f"the page answered   in {1000 * seconds / len(keys):.0f} ms a decision, the driver's part included",
    ]
    tab.goto(f"{home}#/grid?only=other")
    tab.run("document.querySelector('[data-name=vote]').click()")
    tab.press("a")
    lines.append(f"in the grid         {tab.run(SAID)}")
    tab.goto(f"{home}#/review?all=1&open=1")
    tab.press("x")
    lines.append(f"excluded            {tab.run(SAID)}")
    tab.wait("document.querySelector('[data-name=json]')")
    file = tab.download("[data-name=json]", "decisions.json")
    tab.wait("document.querySelector('.review-after code')")
    lines.append(f"the page says       {tab.run('document.querySelector(`.review-after code`).innerText')}")
    return file, lines


def main() -> None:
    """What the command line does."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("words", nargs="+", help="of the run, such as noise=flip_05")
    parser.add_argument("--items", type=int, default=50, help="labels that are decided one by one")
    parser.add_argument("--browser", choices=list(browsers.KINDS), nargs="+", default=browsers.there())
    parser.add_argument("--output", type=Path, help="output_dir of the runs; by default a folder that goes")
    parser.add_argument("--pictures", type=Path, help="a folder for pictures of the screen")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        output = (asked.output or Path(place) / "outputs").absolute()
        folder = run(asked.words, output)
        for name in asked.browser:
            with browsers.opened(name, Path(place) / name) as tab:
                file, lines = review(tab, folder, asked.items)
                print(f"{name}: {folder.name}", *lines, sep="\n  ", flush=True)
                new = run([*asked.words, f"relabels={file}"], output)
                tab.goto((new / "report" / "index.html").as_uri())
                for measure, before, after, change in tab.run(CHANGES):
                    print(f"  {measure:<20}{before} -> {after} ({change})")
                if asked.pictures:
                    asked.pictures.mkdir(exist_ok=True)
                    tab.picture(asked.pictures / f"{name}.png")


if __name__ == "__main__":
    main()
