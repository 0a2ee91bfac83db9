from dataclasses import replace

import numpy as np
import pytest
from matplotlib.axes import Axes

from deconfuse.experiment import figure3
from deconfuse.report import facts, page
from deconfuse.system.errors import UserError
from tests.findings import GREYS, found  # noqa: F401 - a fixture
from tests.finished import finish


@pytest.fixture
def drawn(found):  # noqa: F811 - the fixture
    """Makes finished runs whose reports have the images of the made-up findings."""

    def make(folder, method, scores, names=("x", "y"), **report):
        confusions = {"query_class": [names[0]] * 3, "neighbour_class": [names[1]] * 3}
        run = finish(
            folder,
            method,
            choices={"target": "pairs", "influence": method},
            scores=scores,
            tables={"samples.csv": {"class": list("xxyyzzw")}, "confusions.csv": confusions},
            **report,
        )
        parts, data = {"train": found.split.train, "query": found.split.query}, run.folder / "report" / "data"
        images, places = page.thumbnails(run.folder / "report" / "thumbs", found, parts)
        page.put(data, "run", {"images": images, "parts": {name: len(part) for name, part in parts.items()}})
        page.put(data, "confusion", facts.pairs(found.confusions))
        for name in parts:
            page.put(data, name, places[name])
        return run

    return make


def greys(picture, rows):
    """The made-up images in each row of a picture, left to right, told by their grey."""
    pixels = np.asarray(picture).astype(int)
    grey = np.where((pixels == pixels[..., :1]).all(2), pixels[..., 0], -1)
    told = []
    for band in np.array_split(grey, rows):
        # Letters have edges of any grey, but no areas; colour tables round by one.
        places = {i: np.nonzero(abs(band - int(level)) <= 1)[1] for i, level in enumerate(GREYS)}
        told.append(sorted((i for i in places if len(places[i]) > 8000), key=lambda i: places[i].mean()))
    return told


SCORES = {
    "eif": [[7, 6, 5, 4, 3, 2, 1], [1, -1, -1, 2, -1, -1, -1]],
    "if": [[1, 2, 3, 4, 5, 6, 7], [1, -1, -1, -1, 2, -1, -1]],
}


def test_figure3_counts_what_both_methods_name(tmp_path, drawn):
    (section,) = figure3.sections([drawn(tmp_path, method, scores) for method, scores in SCORES.items()])
    # Pair 0: samples 0-4 and 2-6 share 2, 3, 4; pair 1: 3, 0 and 4, 0 share 0.
    assert section.table["of five, shared by both"].tolist() == ["2.00", "2.00"]
    assert section.table["classes among five"].tolist() == ["2.50", "2.50"]  # xxyyz, yx; wzzyy, zx
    assert section.table["pairs"].tolist() == [2, 2]
    # Queries are images 7 to 10: pairs (7, 9) and (9, 8), by EIF and then by IF.
    assert greys(section.picture, 4) == [
        [7, 9, 0, 1, 2, 3, 4],
        [9, 8, 3, 0],
        [7, 9, 6, 5, 4, 3, 2],
        [9, 8, 4, 0],
    ]


def test_figure3_draws_the_three_closest_pairs_with_classes_and_scores(tmp_path, drawn, monkeypatch):
    said, set_title = [], Axes.set_title

    def spy(self, label, **settings):
        said.append(label)
        return set_title(self, label, **settings)

    monkeypatch.setattr(Axes, "set_title", spy)
    names = ("001.Black_footed_Albatross", "$\\frac{\n猫")
    scores = [[0, 0, 0, 0, 0, 0, 0.125], *[[0] * 7] * 2]
    (section,) = figure3.sections([drawn(tmp_path, method, scores, names) for method in SCORES])
    assert greys(section.picture, 6) == [[7, 9, 6], [9, 8], [8, 10]] * 2
    assert said[:3] == ["query\n001.Black_footed_Albatr…", "nearest\n$\\frac{ 猫", "w\n0.12"]


def test_figure3_is_of_one_model_and_the_same_pairs(tmp_path, drawn):
    eif = drawn(tmp_path, "eif", SCORES["eif"])
    for i, other in enumerate(({"checkpoint": {"sha256": "another"}}, {"scores": SCORES["if"][:1]})):
        run = drawn(tmp_path / str(i), "if", other.pop("scores", SCORES["if"]), **other)
        assert figure3.sections([eif, run]) == []


def test_figure3_is_of_pairs_and_of_the_first_seed(tmp_path, drawn):
    runs = [drawn(tmp_path, method, scores) for method, scores in SCORES.items()]
    of_groups = {**runs[0].report["choices"], "target": "groups"}
    groups = [replace(run, report={**run.report, "choices": of_groups}) for run in runs]
    assert figure3.sections(groups) == []
    later = [replace(run, report={**run.report, "seed": 1}) for run in runs]
    (section,) = figure3.sections([*later, *runs])
    assert section.table[["noise", "loss", "seed"]].values.tolist() == [["none", "proxynca", "0"]] * 2


def test_figure3_is_not_lost_to_a_run_of_another_seed(tmp_path, drawn):
    runs = [drawn(tmp_path, method, scores) for method, scores in SCORES.items()]
    other = replace(runs[0], report={**runs[0].report, "seed": 7})
    assert len(figure3.sections([other, *runs])) == 1


def test_figure3_of_nothing_explained_has_no_means(tmp_path, drawn):
    (section,) = figure3.sections([drawn(tmp_path, method, np.empty((0, 7))) for method in SCORES])
    assert section.picture is None
    assert set(section.table["classes among five"]) == set(section.table["of five, shared by both"]) == {"-"}


@pytest.mark.parametrize("name", ["thumbs/0.png", "data/train.js"])
def test_figure3_names_a_damaged_file_of_a_report(tmp_path, drawn, name):
    runs = [drawn(tmp_path, method, scores) for method, scores in SCORES.items()]
    path = runs[1].folder / "report" / name
    path.write_bytes(path.read_bytes()[:30])
    with pytest.raises(UserError, match=f"^{path}: can't be read"):
        figure3.sections(runs)


def test_figure3_is_of_runs_whose_reports_have_images(tmp_path, drawn):
    runs = [drawn(tmp_path, method, scores) for method, scores in SCORES.items()]
    for path in (runs[1].folder / "report" / "thumbs").iterdir():
        path.unlink()
    (runs[1].folder / "report" / "thumbs").rmdir()
    assert figure3.sections(runs) == []
