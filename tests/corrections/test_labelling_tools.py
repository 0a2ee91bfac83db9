import json

import pytest

from deconfuse.corrections.decisions import asked
from deconfuse.corrections.labelling_tools import stem
from deconfuse.system.errors import UserError
from tests.corrections.test_corrections import GIVEN, SPLIT, Source, read

# The training samples of SPLIT: 0/0.png apple, 0/1.png apple, 1/2.png bear, 1/3.png bear, 2/4.png cat.


def annotation(label, control="label", **more):
    result = {"from_name": control, "to_name": "image", "type": "choices", "value": {"choices": [label]}}
    return {"result": [result], "was_cancelled": False, "ground_truth": False, "completed_by": 1, **more}


def task(path, *annotations, **more):
    """As Label Studio's export JSON has it."""
    data = {"image": f"/data/local-files/?d=srv/{path}", "path": path, "label_now": "apple", **more}
    return {"id": 7, "data": data, "annotations": list(annotations), "predictions": [], "meta": {}}


def saved(path, content):
    path.write_text(json.dumps(content), "utf-8")
    return path


def labels(file):
    """The labels that a run with relabels=file trains on, -1 for a sample that it leaves out."""
    found = read(Source(str(file), 0.6), SPLIT, GIVEN)
    return [-1 if out else int(label) for out, label in zip(found.left_out, found.noisy.labels, strict=True)]


def test_label_studios_json_gives_the_labels_of_its_annotations(tmp_path):
    tasks = [
        task("0/0.png", annotation("bear")),
        task("0/1.png", annotation("cat"), annotation("bear", ground_truth=True)),
        task("1/2.png", annotation("cat", was_cancelled=True), label_now="bear"),  # skipped
        task("1/3.png", annotation("exclude", "decision"), label_now="bear"),
        task("2/4.png", label_now="cat"),
    ]
    file = saved(tmp_path / "l.json", tasks)
    assert asked(file, 0.6).values.tolist() == [
        ["0/0.png", "apple", "bear", "Label Studio"],
        ["0/1.png", "apple", "bear", "Label Studio"],
        ["1/3.png", "bear", "", "Label Studio"],
    ]
    assert labels(file) == [1, 1, 1, -1, 2]


def test_label_studios_short_json_and_csv_give_the_same(tmp_path):
    short = [
        {"id": 1, "image": "/data/local-files/?d=srv/0/0.png", "label": "bear", "annotator": 1},
        {"id": 2, "image": "x", "path": "1/2.png", "label_now": "bear", "decision": "exclude"},
        {"id": 3, "image": "x", "path": "1/3.png", "label_now": "bear", "label": {"choices": ["cat"]}},
        {"id": 4, "image": "x", "path": "2/4.png", "label_now": "cat"},
    ]
    assert labels(saved(tmp_path / "l.json", short)) == [1, 0, -1, 2, 2]
    (tmp_path / "l.csv").write_text("image,path,label_now,id,label,annotator\nx,0/0.png,apple,1,bear,1\n")
    assert labels(tmp_path / "l.csv") == [1, 0, 1, 1, 2]


def test_fiftyones_labels_json_is_matched_by_marks_paths_and_attributes(tmp_path):
    content = {
        "classes": ["apple", "bear", "cat"],
        "labels": {
            stem(3, "0/0.png", "apple"): 1,
            stem(0, "0/1.png", "apple") + "-2": {"label": 2, "attributes": {"label_now": "apple"}},
            "another name": {"label": "bear", "attributes": {"path": "2/4.png", "label_now": "cat"}},
            "/srv/photos/1/2.png": 0,  # abs_paths=True
            stem(1, "1/3.png", "bear"): None,
        },
    }
    assert labels(saved(tmp_path / "labels.json", content)) == [1, 2, 0, 1, 1]
    content["classes"] = None  # labels as they are, which dataset.export writes for a view
    content["labels"] = {stem(3, "0/0.png", "apple"): ["cat"]}
    assert labels(saved(tmp_path / "labels.json", content)) == [2, 0, 1, 1, 2]


def test_fiftyones_whole_data_set_gives_labels_and_what_is_excluded(tmp_path):
    def sample(path, label, **more):
        labelled = {"_id": {"$oid": "0"}, "_cls": "Classification", "tags": [], "label": label}
        return {"filepath": f"data/{stem(0, path, 'x')}.png", "ground_truth": labelled, "tags": [], **more}

    samples = [
        sample("0/0.png", "cat", prediction={"_cls": "Classification", "label": "bear"}),
        sample("1/2.png", "bear", tags=["exclude"]),
        {"filepath": "data/none.png", "tags": [], "ground_truth": None},
    ]
    assert labels(saved(tmp_path / "samples.json", {"samples": samples})) == [2, 0, -1, 1, 2]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([task("0/0.png", annotation("bear"), annotation("cat"))], "task 0, 0/0.png: labelled bear and cat"),
        ([task("0/9.png", annotation("bear"))], "0/9.png; did you mean 0/"),
        ([task("0/0.png", annotation("pear"))], "no class pear; did you mean bear"),
        ([task("0/0.png", annotation("cat"), label_now="bear")], "apple here, bear in the file"),
        ([{"data": {"text": "x"}, "annotations": []}], "task 0: its data has neither path nor image"),
        ([3], "task 0: not a task"),
        ([], "no decisions of format 1"),
        ({"classes": ["apple"], "labels": {"0/0": 1}}, "0/0: label 1 is not one of its 1 classes"),
        ({"classes": ["apple"], "labels": {"0/0": [0, 0]}}, "has 2 labels; keep one"),
        ({"labels": []}, "neither decisions nor FiftyOne"),
        ({"samples": [{"filepath": "a", **{k: {"_cls": "Classification"} for k in "ab"}}]}, "labels in a, b"),
    ],
)
def test_what_cannot_be_used_is_named(tmp_path, content, message):
    with pytest.raises(UserError, match=message):
        labels(saved(tmp_path / "l.json", content))
