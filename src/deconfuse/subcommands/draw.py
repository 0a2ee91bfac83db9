"""Draw letters into a folder of images, some of them in the wrong class, to try a review on.

    deconfuse draw letters

makes letters/CLASS/NUMBER.png for dataset=folder dataset.root=letters. The images in a wrong class are
training images of the split that dataset=folder makes by default; letters/wrong.csv lists their paths and
right labels.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from deconfuse.data.build import build
from deconfuse.dataset import folder, glyphs
from deconfuse.system.csv_files import write_csv
from deconfuse.system.errors import UserError, invoked, within
from deconfuse.system.files import whole_folder
from deconfuse.system.words import many


def draw(root: Path, classes: int, wrong: int, seed: int) -> None:
    """Write the folder completely or not at all; UserError where it exists or `wrong` is too large."""
    if root.exists():
        raise UserError(f"{root}: is there already; give the name of a new folder")
    letters = build(glyphs.load(classes=classes, seed=seed))
    random, parts = np.random.default_rng([seed, 0x6472]), (letters.train, letters.query)
    numbers = random.permutation(sum(len(part) for part in parts)).tolist()
    with whole_folder(root, "another FOLDER") as partial:
        for part in parts:
            for i, label in enumerate(part.labels):
                home = partial / letters.class_names[label]
                home.mkdir(exist_ok=True)
                part.image(i).save(home / f"{numbers.pop():04d}.png")
        train = build(folder.load(str(partial))).train
        names = sorted({name.split("/")[0] for name in train.names})
        within("--wrong", wrong, 0, len(train))
        rows = []
        for i in sorted(random.permutation(len(train))[:wrong].tolist()):
            right, file = train.names[i].split("/")
            taken_for = random.choice([name for name in names if name != right])
            (partial / right / file).rename(partial / taken_for / file)
            rows.append((f"{taken_for}/{file}", right))
        write_csv(partial / "wrong.csv", pd.DataFrame(rows, columns=["path", "label"]))


def main(words: list[str]) -> None:
    """Make the folder, and print what is in it."""
    parser = argparse.ArgumentParser(
        prog=invoked("draw"),
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", type=Path, help="a new folder")
    parser.add_argument("--classes", type=int, default=60, help="letters, half of them to test with (60)")
    parser.add_argument("--wrong", type=int, default=24, help="training images put in a wrong class (24)")
    parser.add_argument("--seed", type=int, default=0, help="which letters, and which are wrong (0)")
    asked = parser.parse_args(words)
    draw(asked.folder, asked.classes, asked.wrong, asked.seed)
    print(
        f"{many(asked.classes, 'letter')}, 16 images each, {asked.wrong} in a wrong class: "
        f"{asked.folder}/wrong.csv"
    )
