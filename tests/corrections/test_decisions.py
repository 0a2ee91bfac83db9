import json
import math

import pandas as pd
import pytest

from deconfuse.corrections.decisions import LABEL, PAIR, asked, read
from deconfuse.system.csv_files import write_csv
from deconfuse.system.errors import UserError

PAIRS = [
    {
        "kind": "confusion",
        "query": "x/1.png",
        "neighbour": "y/2.png",
        "query_class": "x",
        "neighbour_class": "y",
        "decision": "agree",
    },
    {
        "kind": "mis_similar",
        "query": "x/1.png",
        "neighbour": "x/7.png",
        "query_class": "x",
        "neighbour_class": "x",
        "decision": "unsure",
    },
]
LABELS = [
    {"path": "a/1.png", "class": "a", "decision": "accept", "label": "b", "recommended": "b", "vote": 0.75},
    {"path": "a/2.png", "class": "a", "decision": "accept", "label": None, "recommended": "c", "vote": 1},
    {"path": "a/3.png", "class": "a", "decision": "other", "label": "d", "recommended": "b", "vote": 0.5},
    {"path": "a/4.png", "class": "a", "decision": "reject", "label": None, "recommended": "b", "vote": 0.5},
    {"path": "a/5.png", "class": "a", "decision": "unsure", "label": None, "recommended": "b", "vote": None},
]


def saved(path, pairs=PAIRS, labels=LABELS, **more):
    content = {"format": 1, "run": "a-run", "checkpoint": "c", "pairs": pairs, "labels": labels, **more}
    path.write_text(json.dumps(content), "utf-8")
    return path


def as_csv(path, cut=",", encoding="utf-8"):
    """The same decisions as CSV."""
    columns = "kind,sample,path,neighbour,class,neighbour_class,decision,label,recommended,vote".split(",")
    lines = [cut.join(columns)]
    for pair in PAIRS:
        row = {**pair, "path": pair["query"], "class": pair["query_class"]}
        lines.append(cut.join(str(row.get(column, "")) for column in columns))
    for label in LABELS:
        row = {"kind": "label", **{key: "" if value is None else value for key, value in label.items()}}
        lines.append(cut.join(str(row.get(column, "")) for column in columns))
    path.write_text("\r\n".join(lines) + "\r\n", encoding, newline="")
    return path


def test_a_review_is_read_as_it_was_decided(tmp_path):
    review = read(saved(tmp_path / "d.json"))
    assert review.run == "a-run"
    assert review.pairs.to_dict("records") == PAIRS
    assert list(review.pairs) == list(PAIR)
    assert list(review.labels) == list(LABEL)
    assert review.labels["decision"].tolist() == ["accept", "accept", "other", "reject", "unsure"]
    assert review.labels["label"].tolist() == ["b", "c", "d", "", ""]
    assert review.labels["vote"].tolist()[:4] == [0.75, 1, 0.5, 0.5]
    assert math.isnan(review.labels["vote"][4])


@pytest.mark.parametrize(("cut", "encoding"), [(",", "utf-8"), (";", "utf-8-sig")])
def test_csv_says_the_same_as_json(tmp_path, cut, encoding):
    one = read(saved(tmp_path / "d.json"))
    other = read(as_csv(tmp_path / "d.csv", cut, encoding))
    assert one.pairs.equals(other.pairs)
    assert one.labels.equals(other.labels)
    assert other.run == ""


def test_no_decision_is_a_review_too(tmp_path):
    review = read(saved(tmp_path / "d.json", [], []))
    assert (len(review.pairs), len(review.labels)) == (0, 0)
    assert asked(tmp_path / "d.json", 0).empty


def test_what_is_asked_of_each_form(tmp_path):
    expected = [
        ("a/1.png", "a", "b", "reviewer"),
        ("a/2.png", "a", "c", "reviewer"),
        ("a/3.png", "a", "d", "reviewer"),
    ]

    def rows(path, least=0.6):
        return list(asked(path, least).itertuples(index=False, name=None))

    assert rows(saved(tmp_path / "d.json")) == rows(as_csv(tmp_path / "d.csv")) == expected
    file = tmp_path / "relabels.csv"
    head = "rank,sample,path,class,recommended,vote_recommended\n"
    file.write_text(f"{head}0,5,a/1.png,007,NA,0.6\n1,6,a/2.png,a,c,0.5999\n\n2,6,a/3.png,a,c,1.0000001\n")
    assert rows(file) == [("a/1.png", "007", "NA", "vote 0.60"), ("a/3.png", "a", "c", "vote 1.00")]
    assert len(rows(file, 0.59)) == 3
    file.write_text('path,label\n"a,1.png",b\n')
    assert rows(file) == [("a,1.png", "", "b", "list")]
    table = pd.DataFrame(
        {
            "path": ["=1.png", "2.png", "3.png"],
            "old_label": ["-a", "a", "'"],
            "new_label": ["@b", "a", ""],
            "evidence": ["vote 0.60", "", ""],
        }
    )
    write_csv(file, table, spreadsheet=True)
    assert rows(file) == [("=1.png", "-a", "@b", "vote 0.60"), ("3.png", "'", "", "list")]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, r"d.json: no decisions of format 1; export it again"),
        ({"pairs": 3}, r"d.json: pairs is no list"),
        ({"labels": [3]}, r"d.json, labels\[0\]: not an object"),
        (
            {"labels": [{**LABELS[0], "decision": "acept"}]},
            r"labels\[0\]: decision=acept is not known; did you mean accept",
        ),
        ({"labels": [{**LABELS[1], "recommended": None}]}, r"labels\[0\]: decision=accept without a label"),
        ({"labels": [{**LABELS[0], "path": ""}]}, r"labels\[0\]: no path; export"),
        ({"labels": [{**LABELS[0], "vote": 7}]}, r"labels\[0\]: vote=7.0 is out of range"),
        ({"labels": [{**LABELS[0], "vote": "much"}]}, r"labels\[0\]: vote=much is not a number"),
        ({"labels": [LABELS[0], {**LABELS[0], "label": "c"}]}, r"decides on a/1.png in two ways"),
        (
            {"pairs": [{**PAIRS[0], "decision": "accept"}]},
            r"pairs\[0\]: decision=accept is not known; .*Valid: agree, disagree, unsure",
        ),
        ({"pairs": [{**PAIRS[0], "kind": "pair"}]}, r"pairs\[0\]: kind=pair is not known"),
        ({"pairs": [PAIRS[0], {**PAIRS[0], "decision": "disagree"}]}, r"x/1.png, y/2.png in two ways"),
    ],
)
def test_bad_decisions_are_named_with_their_place(tmp_path, change, message):
    with pytest.raises(UserError, match=message):
        read(saved(tmp_path / "d.json", **change))


def test_another_label_that_is_not_known_yet_is_counted_and_not_asked_for(tmp_path):
    file = saved(tmp_path / "d.json", labels=[{**LABELS[2], "label": None}, LABELS[0]])
    assert read(file).labels["decision"].tolist() == ["other", "accept"]
    assert asked(file, 0)["path"].tolist() == ["a/1.png"]


def test_saying_the_same_twice_counts_once(tmp_path):
    review = read(saved(tmp_path / "d.json", PAIRS[:1] * 2, LABELS[4:] * 2))
    assert (len(review.pairs), len(review.labels)) == (1, 1)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("d.json", b'{"format": 1', r"d.json: not whole JSON"),
        ("d.json", b"[]", r"d.json: no decisions of format 1"),
        ("d.csv", b"", r"d.csv: its columns are none; known are decisions: kind, path"),
        ("d.csv", b"paths,label\n", r"d.csv: its columns are paths, label; known are"),
        ("d.csv", b"path,label\na.png\n", r"d.csv, line 2: not the 2 cells"),
        ("d.csv", b'path,label\n"a\n.png",b\n\na,b,c\n', r"d.csv, line 5: not the 2 cells"),
        ("d.csv", b"path,Label,LABEL\na,b,c\n", r"d.csv: 2 columns are named label"),
        ("d.csv", b"path,label\na.png,b,c\n", r"d.csv, line 2: not the 2 cells"),
        ("d.csv", b"path,label\n\xe4.png,b\n", r"d.csv: not a readable CSV .*it is not UTF-8 text: save"),
        ("d.csv", b'path,label\n"a.png,b\n', r"d.csv: not a readable CSV"),
        (
            "d.csv",
            b"rank,path,class,recommended,vote_recommended\n0,a,b,c,\n",
            r"line 2: vote_recommended= is not a number",
        ),
        ("d.csv", b"path,label\na.png,\n", r"d.csv, line 2: no label; export it again, or fill it"),
        ("gone.csv", None, r"gone.csv: no such file"),
        ("gone.json", None, r"gone.json: no such file"),
    ],
)
def test_a_file_that_is_none_is_named(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        asked(tmp_path / name, 0.6)


def test_a_list_of_labels_is_no_review(tmp_path):
    (tmp_path / "l.csv").write_text("path,label\n")
    with pytest.raises(UserError, match=r"l.csv: a list, not decisions"):
        read(tmp_path / "l.csv")


HOSTILE = [
    "=1+1",
    "+a",
    "-b",
    "-1",
    "@c",
    "\td",
    "\re",
    "f\rg",
    "'",
    "''",
    "'=h",
    '"',
    "i,j",
    "k;l",
    "m\nn",
    " o",
    "NA",
]


def test_hostile_names_come_back_from_every_table(tmp_path):
    n = len(HOSTILE)
    other = [*HOSTILE[1:], HOSTILE[0]]
    table = {"rank": range(n), "sample": range(n), "path": HOSTILE, "class": HOSTILE, "recommended": other}
    write_csv(tmp_path / "relabels.csv", pd.DataFrame({**table, "vote_recommended": 1.0}))
    wanted = [(*each, "vote 1.00") for each in zip(HOSTILE, HOSTILE, other, strict=True)]
    assert list(asked(tmp_path / "relabels.csv", 0.6).itertuples(index=False, name=None)) == wanted
    table = pd.DataFrame({"path": HOSTILE, "old_label": HOSTILE, "new_label": other, "evidence": "loop 0.90"})
    write_csv(tmp_path / "clean_list.csv", table, spreadsheet=True)
    wanted = [(*each[:3], "loop 0.90") for each in wanted]
    assert list(asked(tmp_path / "clean_list.csv", 0.6).itertuples(index=False, name=None)) == wanted


def test_the_reports_csv_has_the_same_guard(tmp_path):
    """As the page writes it: text in quotes and guarded, numbers not."""
    file = tmp_path / "decisions.csv"
    file.write_text(
        "kind,sample,path,neighbour,class,neighbour_class,decision,label,recommended,vote,run\r\n"
        '"confusion",,"\'=q.png","\'\'n.png","\'-a","b","agree",,,,"\'+run"\r\n'
        '"label",3,"\'@p.png",,"\'-a",,"accept","\'=b","\'=b",0.75,"\'+run"\r\n',
        newline="",
    )
    found = read(file)
    assert found.run == "+run"
    assert found.pairs.values.tolist() == [["confusion", "=q.png", "'n.png", "-a", "b", "agree"]]
    assert found.labels.values.tolist() == [["@p.png", "-a", "accept", "=b", "=b", 0.75]]


def test_decisions_on_test_samples_and_on_classes_are_read_from_both_forms(tmp_path):
    tests = [
        {"kind": "query", "path": "x/1.png", "class": "x", "decision": "other", "label": "y"},
        {"kind": "gallery", "path": "x/2.png", "class": "x", "decision": "exclude", "label": None},
    ]
    classes = [{"class": "a", "with": "b", "decision": "merge"}]
    one = read(saved(tmp_path / "d.json", tests=tests, classes=classes))
    file = tmp_path / "d.csv"
    file.write_text(
        "kind,path,class,neighbour_class,decision,label\nquery,x/1.png,x,,other,y\n"
        "gallery,x/2.png,x,,exclude,\nclasses,,a,b,merge,\n"
    )
    other = read(file)
    assert one.tests.values.tolist() == [
        ["query", "x/1.png", "x", "other", "y"],
        ["gallery", "x/2.png", "x", "exclude", ""],
    ]
    assert one.tests.equals(other.tests)
    assert one.classes.values.tolist() == other.classes.values.tolist() == [["a", "b", "merge"]]
