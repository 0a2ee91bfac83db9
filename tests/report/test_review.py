import json

import numpy as np
import pandas as pd
import pytest

from deconfuse.launch.tables import main
from deconfuse.report.review import kappa, sections
from deconfuse.system.csv_files import write_csv
from deconfuse.system.errors import UserError
from tests.finished import finish


def pair(kind, i, decision, name="x"):
    names = {"query": f"{i}.png", "neighbour": f"n{i}.png", "query_class": name, "neighbour_class": "y"}
    return {"kind": kind, **names, "decision": decision}


def label(i, name, decision):
    given = {"label": "z" if decision == "other" else None, "recommended": "b", "vote": 0.5}
    return {"sample": i, "path": f"{i}.png", "class": name, "decision": decision, **given}


def saved(path, pairs, labels, run="reviewed"):
    content = {"format": 1, "run": run, "checkpoint": "c", "pairs": pairs, "labels": labels}
    path.write_text(json.dumps(content), "utf-8")
    return path


PAIRS = [
    *(pair("confusion", i, each) for i, each in enumerate(["agree"] * 5 + ["disagree"] * 2 + ["unsure"])),
    pair("confusion", 8, "disagree", "v"),
    *(pair("mis_similar", i, each) for i, each in enumerate(["agree", "disagree", "disagree"])),
]
LABELS = [
    *(label(i, "a", each) for i, each in enumerate(["accept", "accept", "reject", "other", "unsure"])),
    label(5, "c", "unsure"),
    label(6, "elsewhere", "accept"),
]


@pytest.fixture
def outputs(tmp_path):
    """A reviewed run of cub, whose classes.csv tells the kinds."""
    run = finish(tmp_path, "reviewed", choices={"dataset": "cub"})
    kinds = {"class": ["a", "c"], "kind": ["centralized", "individual"]}
    write_csv(run.folder / "classes.csv", pd.DataFrame(kinds))
    return tmp_path


def test_table4_counts_and_has_the_papers_values_beside(outputs):
    file = saved(outputs / "d.json", PAIRS, LABELS)
    four, classes, _ = sections([file], outputs)
    assert [section.name for section in (four, classes)] == ["table4", "table4_classes"]
    assert four.table.drop(columns="review").values.tolist() == [
        ["cub", "confusion pairs", 5, 3, 1, "62%", "15, 5: 75%"],
        ["cub", "mis-similar pairs", 1, 2, 0, "33%", "11, 9: 55%"],
    ]
    assert classes.table.drop(columns=["dataset", "review"]).values.tolist() == [
        ["confusion pairs", "x", 8, 5, 2, 1, "71%"],
        ["confusion pairs", "v", 1, 0, 1, 0, "0%"],
        ["mis-similar pairs", "x", 3, 1, 2, 0, "33%"],
    ]


def test_table6_counts_by_the_kind_of_the_class(outputs):
    six = sections([saved(outputs / "d.json", PAIRS, LABELS)], outputs)[-1]
    assert six.name == "table6"
    assert six.table.drop(columns=["dataset", "review"]).values.tolist() == [
        ["centralized", 5, 2, 1, 1, 0, 1, "50%", "75%", "100%"],
        ["individual", 1, 0, 0, 0, 0, 1, "-", "-", "66.67%"],
        ["-", 1, 1, 0, 0, 0, 0, "100%", "100%", "-"],
        ["all", 7, 3, 1, 1, 0, 2, "60%", "80%", "-"],
    ]


def test_without_the_run_its_name_tells_the_data_set(tmp_path):
    file = saved(tmp_path / "d.json", PAIRS, LABELS, run="inshop-none-resnet50-x")
    four, _, six = sections([file], tmp_path)
    assert four.table["paper"].tolist() == ["10, 10: 50%", "5, 15: 25%"]
    assert six.table["type"].tolist() == ["-", "all"]
    file = saved(tmp_path / "d.json", PAIRS, LABELS, run="../../elsewhere")
    assert set(sections([file], tmp_path)[0].table["paper"]) == {"-"}


@pytest.mark.parametrize("seed", range(6))
def test_kappa_is_its_formula(seed):
    random = np.random.default_rng(seed)
    words = ["agree", "disagree", "unsure"][: 2 + seed % 2]
    first = random.choice(words, 23)
    second = np.where(random.random(23) < 0.6, first, random.choice(words, 23))
    equal = (first == second).mean()
    chance = sum((first == word).mean() * (second == word).mean() for word in words)
    found = kappa(list(zip(first.tolist(), second.tolist(), strict=True)))
    assert found == pytest.approx((equal - chance) / (1 - chance))


def test_kappa_of_what_chance_explains():
    assert kappa([("agree", "agree")] * 3) is None
    assert kappa([("agree", "agree"), ("agree", "disagree")]) == 0
    assert kappa([("a", "b"), ("b", "a")]) == -1
    assert kappa([("a", "a"), ("b", "b")]) == 1


def test_two_reviewers_are_compared_on_what_both_decided(outputs):
    first = saved(outputs / "a.json", PAIRS, LABELS)
    other = [pair("confusion", 0, "disagree"), *PAIRS[1:6], pair("confusion", 99, "agree")]
    second = saved(outputs / "b.json", other, [label(0, "a", "accept"), label(1, "c", "accept")])
    found = {section.name: section for section in sections([first, second], outputs)}
    table = found["review_agreement"].table
    assert table["of"].tolist() == ["confusion pairs", "labels"]
    assert table["both"].tolist() == [6, 1]
    assert table["same"].tolist() == ["83%", "100%"]
    # p = 5/6; e = (5 * 4 + 1 * 2) / 36.
    assert table["kappa"].tolist() == [f"{(5 / 6 - 22 / 36) / (1 - 22 / 36):.3f}", "-"]
    differences = found["review_differences"].table
    assert differences.drop(columns=["first", "second"]).values.tolist() == [
        ["confusion pairs", "0.png", "n0.png", "agree", "disagree"]
    ]
    assert set(found["table4"].table["review"]) == {str(first), str(second)}


def test_the_command_writes_every_form(outputs, capsys):
    file = saved(outputs / "d.json", PAIRS, LABELS)
    main([str(outputs), "--review", str(file)])
    said = capsys.readouterr().out
    assert "## Table 4" in said
    assert "## Table 6" in said
    for name in ("table4", "table4_classes", "table6"):
        for suffix in ("md", "csv", "tex"):
            assert (outputs / "tables" / f"{name}.{suffix}").stat().st_size > 100
    assert "| cub | " + str(file) + " | confusion pairs | 5 | 3 | 1 | 62% | 15, 5: 75% |" in said
    assert not (outputs / "tables/results.md").exists()
    with pytest.raises(UserError, match=r"d.json: holds no decision"):
        main([str(outputs), "--review", str(saved(file, [], []))])
