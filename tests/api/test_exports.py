import json

import numpy as np
import pytest
from PIL import Image

import deconfuse as dc
from deconfuse.system.errors import UserError
from tests.api.data import rows

TRAIN, TEST = rows(70, 5, 0), rows(47, 4, 1, first=5)


@pytest.mark.parametrize("detector", ["knn", "margin"])
def test_label_issues_are_in_the_form_of_cleanlab(detector):
    found = dc.explain(train=TRAIN, test=TEST, detector=detector)
    issues = found.to_cleanlab()
    assert list(issues) == ["is_label_issue", "label_score", "given_label", "predicted_label"]
    assert issues["is_label_issue"].dtype.kind == "b"
    assert np.flatnonzero(issues["is_label_issue"]).tolist() == sorted(found.relabels["sample"])
    assert issues["label_score"].between(0, 1).all()
    order = np.argsort(issues["label_score"].to_numpy(), kind="stable")
    suspicion = found.samples["suspicion"].to_numpy()[order]
    assert (np.diff(suspicion) <= 1e-6).all()  # the lower the score, the more suspicious
    if detector == "knn":
        np.testing.assert_allclose(issues["label_score"], found.samples["vote_current"], rtol=1e-6)


def test_the_columns_are_those_of_datalab_itself():
    """The issues that Datalab finds in the same labels have the same columns and types."""
    pytest.importorskip("datasets")
    from cleanlab import Datalab

    found = dc.explain(train=TRAIN, test=TEST)
    lab = Datalab({"label": TRAIN[1].tolist()}, label_name="label", verbosity=0)
    share = np.full((70, 5), 0.05) + 0.75 * np.eye(5)[TRAIN[1]]
    lab.find_issues(pred_probs=share, issue_types={"label": {}})
    theirs, own = lab.get_issues("label"), found.to_cleanlab()
    assert list(own) == list(theirs)
    assert own["is_label_issue"].dtype == theirs["is_label_issue"].dtype
    assert own["label_score"].dtype == theirs["label_score"].dtype


@pytest.fixture(scope="module")
def pictured(tmp_path_factory):
    """What is found of pictures that are files, but the first, which is an array."""
    folder, images = tmp_path_factory.mktemp("pictures"), {}
    for side, data in (("train", TRAIN), ("test", TEST)):
        images[side] = [folder / f"{side}{i}.png" for i in range(len(data[1]))]
        for i, path in enumerate(images[side]):
            Image.new("L", (9, 7), 3 * i).save(path)
    images["train"][0] = np.zeros((7, 9), np.uint8)
    return dc.explain(train=TRAIN, test=TEST, images=images, influence="random"), images["train"]


def test_tasks_of_label_studio_have_the_recommended_labels(pictured):
    found, files = pictured
    tasks = json.loads(json.dumps(found.to_label_studio()))
    assert [task["data"]["image"] for task in tasks] == ["train/000000", *map(str, files[1:])]
    said = [task["predictions"][0]["result"][0]["value"]["choices"] for task in tasks]
    assert said == [[str(name)] for name in found.samples["recommended"]]
    assert all(task["annotations"] == [] for task in tasks)


def test_a_data_set_of_fiftyone_has_the_pictures_and_their_labels(pictured, tmp_path):
    found, files = pictured
    folder = found.to_fiftyone(tmp_path / "fiftyone")
    content = json.loads((folder / "labels.json").read_text())
    data = sorted((folder / "data").iterdir())
    assert [path.stem for path in data] == sorted(content["labels"])
    assert [content["classes"][content["labels"][path.stem]["label"]] for path in data] == [
        str(name) for name in found.samples["class"]
    ]
    assert data[5].resolve() == files[5].resolve()
    np.testing.assert_array_equal(np.asarray(Image.open(data[0])), files[0])
    with pytest.raises(UserError, match="is there already"):
        found.to_fiftyone(folder)


def test_without_pictures_there_is_no_data_set_of_fiftyone(tmp_path):
    with pytest.raises(UserError, match="to_fiftyone: there are no pictures; give"):
        dc.explain(train=TRAIN, test=TEST, influence="random").to_fiftyone(tmp_path / "fiftyone")
