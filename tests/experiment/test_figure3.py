from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from deconfuse.experiment import figure3
from deconfuse.system.errors import UserError
from tests.finished import finish


def drawn(folder, method, scores, **report):
    run = finish(
        folder,
        method,
        choices={"target": "pairs", "influence": method},
        scores=scores,
        tables={"samples.csv": {"class": list("xxyyzzw")}},
        **report,
    )
    Image.new("RGB", (4, 3), "red" if method == "eif" else "blue").save(run.folder / "harmful.png")
    return run


SCORES = {
    "eif": [[7, 6, 5, 4, 3, 2, 1], [1, -1, -1, 2, -1, -1, -1]],
    "if": [[1, 2, 3, 4, 5, 6, 7], [1, -1, -1, -1, 2, -1, -1]],
}


def test_figure3_counts_what_both_methods_name(tmp_path):
    (part,) = figure3.parts([drawn(tmp_path, method, scores) for method, scores in SCORES.items()])
    # Pair 0: samples 0-4 and 2-6 share 2, 3, 4; pair 1: 3, 0 and 4, 0 share 0.
    assert part.table["of five, shared by both"].tolist() == ["2.00", "2.00"]
    assert part.table["classes among five"].tolist() == ["2.50", "2.50"]  # xxyyz, yx; wzzyy, zx
    assert part.table["pairs"].tolist() == [2, 2]
    assert part.picture.size == (4, 6)
    assert [part.picture.getpixel((0, y)) for y in (0, 3)] == [(255, 0, 0), (0, 0, 255)]


def test_figure3_is_of_one_model_and_the_same_pairs(tmp_path):
    eif = drawn(tmp_path, "eif", SCORES["eif"])
    for i, other in enumerate(({"checkpoint": {"sha256": "another"}}, {"scores": SCORES["if"][:1]})):
        run = drawn(tmp_path / str(i), "if", other.pop("scores", SCORES["if"]), **other)
        assert figure3.parts([eif, run]) == []


def test_figure3_is_of_pairs_and_of_the_first_seed(tmp_path):
    runs = [drawn(tmp_path, method, scores) for method, scores in SCORES.items()]
    of_groups = {**runs[0].report["choices"], "target": "groups"}
    groups = [replace(run, report={**run.report, "choices": of_groups}) for run in runs]
    assert figure3.parts(groups) == []
    later = [replace(run, report={**run.report, "seed": 1}) for run in runs]
    (part,) = figure3.parts([*later, *runs])
    assert part.table[["noise", "loss", "seed"]].values.tolist() == [["none", "proxynca", "0"]] * 2


def test_figure3_is_not_lost_to_a_newer_run_of_another_seed(tmp_path):
    runs = [drawn(tmp_path, method, scores) for method, scores in SCORES.items()]
    other = replace(runs[0], report={**runs[0].report, "seed": 7, "format": 9})
    assert len(figure3.parts([other, *runs])) == 1
    newer = replace(runs[0], report={**runs[0].report, "format": 9})
    assert figure3.parts([*runs, newer]) == []  # of one model a newer format and an older are not compared


def test_figure3_of_nothing_explained_has_no_means(tmp_path):
    (part,) = figure3.parts([drawn(tmp_path, method, np.empty((0, 7))) for method in SCORES])
    assert set(part.table["classes among five"]) == set(part.table["of five, shared by both"]) == {"-"}


def test_figure3_names_a_damaged_picture(tmp_path):
    runs = [drawn(tmp_path, method, scores) for method, scores in SCORES.items()]
    path = runs[1].folder / "harmful.png"
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(UserError, match=f"^{path}: can't be read"):
        figure3.parts(runs)
