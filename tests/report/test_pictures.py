from dataclasses import replace

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from PIL import Image

from deconfuse.data.noise import NoisyLabels
from deconfuse.data.split import ArrayImages, ImageSpec, Part, RowSpec, Split
from deconfuse.labels.relabel import Votes
from deconfuse.report import pictures
from deconfuse.retrieval.confusion import Explained, Pairs
from deconfuse.runs.results import Findings
from deconfuse.system.errors import UserError

GREYS = 20 + 20 * np.arange(11, dtype=np.uint8)  # image i is all of one grey, its own


@pytest.fixture
def found():
    """Seven training images of two classes, four queries; three explained pairs."""
    images = ArrayImages(np.broadcast_to(GREYS[:, None, None], (11, 8, 8)).copy())
    names = tuple(f"{i}.png" for i in range(11))
    labels = np.array([0, 0, 0, 0, 1, 1, 1])
    train = Part(images, np.arange(7), labels, names[:7])
    query = Part(images, np.arange(7, 11), np.array([2, 2, 3, 3]), names[7:])
    split = Split(train, query, query, ("a", "b", "x", "y"), 2, ImageSpec(8, 1, "none"))
    pairs = Pairs(torch.tensor([0, 2, 1]), torch.tensor([2, 1, 3]), torch.tensor([0.1, 0.2, 0.5]))
    influence = torch.tensor([[1.0, -2, 3, 0, 1, 2, 4], [-1, -1, 0, 0, 0, -3, -2], [0, 5, 0, 0, 0, 5, 0]])
    votes = Votes(torch.zeros(7, 1, dtype=torch.long), torch.ones(7, 1), torch.ones(7))
    explained = Explained(tuple(pairs.pairs[:, None].unbind(0)), 1.0, "confusions.csv", pairs)
    return Findings(split, NoisyLabels(labels, labels), pairs, explained, influence, votes.own, votes)


def drawn(path, rows):
    """The images in each row of a PNG, left to right, told by their grey."""
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB")).astype(int)
    grey = np.where((pixels == pixels[..., :1]).all(2), pixels[..., 0], -1)
    found = []
    for band in np.array_split(grey, rows):
        # Letters have edges of any grey, but no areas; colour tables round by one.
        places = {i: np.nonzero(abs(band - int(level)) <= 1)[1] for i, level in enumerate(GREYS)}
        found.append(sorted((i for i in places if len(places[i]) > 2000), key=lambda i: places[i].mean()))
    return found


@pytest.mark.parametrize(
    ("scores", "most", "order"),
    [
        ([1.0, -2, 3, 0, 1, 2, 4], 5, [6, 2, 5, 0, 4]),
        ([1.0, -2, 3, 0, 1, 2, 4], 2, [6, 2]),
        ([1.0, 1, 1, 2, 1, 1, 1, 1], 3, [3, 0, 1]),
        ([0.0, -1, 1e-30], 5, [2]),
        ([0.0, -1], 5, []),
    ],
)
def test_most_harmful_score_above_zero_largest_first_ties_by_index(scores, most, order):
    assert pictures.most_harmful(np.array(scores), most).tolist() == order


def test_a_row_has_the_query_its_neighbour_and_what_harms_it_most(found, tmp_path):
    path = tmp_path / "harmful.png"
    pictures.draw(path, found, 3, "eif")
    assert drawn(path, 3) == [[7, 9, 6, 2, 5, 0, 4], [9, 8], [8, 10, 1, 5]]
    # Seven columns of 1.5 inches, and two inches a row, at 110 dots per inch.
    with Image.open(path) as image:
        assert image.size == (1155, 704)
    pictures.draw(path, found, 1, "eif")
    assert drawn(path, 1) == [[7, 9, 6, 2, 5, 0, 4]]
    assert [file.name for file in tmp_path.iterdir()] == ["harmful.png"]


def test_more_than_was_explained_are_as_many_as_were(found, tmp_path):
    part = replace(found, influence=found.influence[:2], explained=_groups(found, 2))
    pictures.draw(tmp_path / "all.png", part, 50, "eif")
    assert drawn(tmp_path / "all.png", 2) == [[7, 9, 6, 2, 5, 0, 4], [9, 8]]


def _groups(found, n):
    return replace(found.explained, groups=found.explained.groups[:n])


def test_nothing_explained_or_nothing_asked_draws_nothing(found, tmp_path):
    none = replace(found, influence=found.influence[:0], explained=_groups(found, 0))
    pictures.draw(tmp_path / "x.png", none, 3, "eif")
    pictures.draw(tmp_path / "x.png", found, 0, "eif")
    assert not list(tmp_path.iterdir())


def test_of_a_group_the_first_pair_is_drawn(found, tmp_path):
    group = Explained((torch.tensor([[1, 3], [0, 2]]),), 1.0, "groups.csv", found.confusions)
    pictures.draw(tmp_path / "x.png", replace(found, explained=group), 3, "eif")
    assert drawn(tmp_path / "x.png", 1) == [[8, 10, 6, 2, 5, 0, 4]]


def titles(monkeypatch, found, path):
    """What stands above the images."""
    said, set_title = [], Axes.set_title

    def spy(self, label, **settings):
        said.append(label)
        return set_title(self, label, **settings)

    monkeypatch.setattr(Axes, "set_title", spy)
    pictures.draw(path, found, 1, "eif")
    return said


def test_titles_tell_the_class_and_the_score(found, tmp_path, monkeypatch):
    noisy = NoisyLabels(np.array([0, 0, 1, 0, 1, 1, 1]), found.noisy.clean)
    said = titles(monkeypatch, replace(found, noisy=noisy), tmp_path / "x.png")
    assert said == ["query\nx", "nearest\ny", "b\n4", "b\n3", "b\n2", "a\n1", "b\n1"]


def test_the_other_side_of_a_mis_similar_pair_is_the_farthest(found, tmp_path, monkeypatch):
    apart = replace(found, explained=replace(found.explained, sign=-1.0, table="mis_similar.csv"))
    assert titles(monkeypatch, apart, tmp_path / "x.png")[1] == "farthest\ny"


def test_any_class_name_is_drawn_and_a_long_one_is_cut(found, tmp_path, monkeypatch):
    names = ("$\\frac{", "\"quoted\" '$x_1$' 猫", "001.Black_footed_Albatross", "two\nlines 😀")
    split = replace(found.split, class_names=names)
    said = titles(monkeypatch, replace(found, split=split), tmp_path / "x.png")
    assert said[:3] == [
        "query\n001.Black_footed_Albatr…",
        "nearest\ntwo lines 😀",
        "\"quoted\" '$x_1$' 猫\n4",
    ]
    assert said[3] == "$\\frac{\n3"
    assert drawn(tmp_path / "x.png", 1) == [[7, 9, 6, 2, 5, 0, 4]]


@pytest.mark.parametrize(
    ("most", "spec", "message"),
    [
        (-1, ImageSpec(8, 1, "none"), "pictures=-1 is too small; give 0 or more"),
        (1.5, ImageSpec(8, 1, "none"), "pictures=1.5 is not a whole number"),
        (True, ImageSpec(8, 1, "none"), "pictures=True is not a number"),
        ("all", ImageSpec(8, 1, "none"), "pictures=all is not a number"),
        (101, ImageSpec(8, 1, "none"), r"pictures=101 is out of range; give a value in \[0, 100\]"),
        (2, RowSpec(3), "pictures=2: this data set has features and no images; take pictures=0"),
    ],
)
def test_what_cannot_be_drawn_is_said_before_training(most, spec, message):
    with pytest.raises(UserError, match=f"^{message}$"):
        pictures.check(most, spec)


def test_what_can_be_drawn_is_taken():
    pictures.check(0, RowSpec(3))
    pictures.check(100, ImageSpec(8, 3, "none"))
