from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from deconfuse.data.build import build
from deconfuse.dataset import folder, glyphs
from deconfuse.subcommands.draw import draw
from deconfuse.system.errors import UserError


def test_the_wrong_ones_are_training_images_and_the_list_says_which(tmp_path):
    root = tmp_path / "letters"
    draw(root, 8, 5, 3)
    wrong = pd.read_csv(root / "wrong.csv")
    split, letters = build(folder.load(str(root)), channels=1), build(glyphs.load(classes=8, seed=3))
    assert len(split.train) + len(split.query) == 8 * 16
    assert len(wrong) == 5
    assert set(wrong["path"]) <= set(split.train.names)
    named = dict(zip(wrong["path"], wrong["label"], strict=True))
    parts = (letters.train, letters.query)
    pictures = {part.image(i).tobytes(): label for part in parts for i, label in enumerate(part.labels)}
    for part in (split.train, split.query):
        for i, name in enumerate(part.names):
            label = pictures[part.image(i).tobytes()]
            assert letters.class_names[label] == named.get(name, Path(name).parent.name)
            assert (name in named) == (letters.class_names[label] != Path(name).parent.name)
    assert np.bincount(split.query.labels)[split.num_classes :].tolist() == [16] * 4


def test_a_folder_that_is_there_is_left_alone(tmp_path):
    with pytest.raises(UserError, match=r"is there already; give the name of a new folder"):
        draw(tmp_path, 8, 5, 0)
    with pytest.raises(UserError, match=r"--wrong=65 is out of range"):
        draw(tmp_path / "new", 8, 65, 0)
    assert not list(tmp_path.iterdir())
