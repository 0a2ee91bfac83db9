import json

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

from deconfuse.report import export
from deconfuse.system.csv_files import write_csv
from deconfuse.system.errors import UserError
from tests.finished import finish

NAMES = [f"{c}/{i}.png" for c in ("cat", "=dog") for i in range(3)]


@pytest.fixture
def run(tmp_path):
    """A run on a folder of six training images, of which two are recommended another label."""
    for side, classes in (("train", ("cat", "=dog")), ("test", ("owl", "yak"))):
        for c in classes:
            (tmp_path / "data" / side / c).mkdir(parents=True)
            for i in range(3):
                pixels = np.full((12, 10, 3), 10 * i, np.uint8)
                Image.fromarray(pixels).save(tmp_path / "data" / side / c / f"{i}.png")
    settings = {"_target_": "deconfuse.dataset.folder.load", "root": str(tmp_path / "data"), "image_size": 8}
    run = finish(tmp_path, "run")
    saved = yaml.safe_load((run.folder / "config.yaml").read_text())
    (run.folder / "config.yaml").write_text(yaml.safe_dump({**saved, "dataset": settings}))
    from deconfuse.data import build

    part = build.load(settings).train
    classes = ["cat" if "cat" in name else "=dog" for name in part.names]
    table = pd.DataFrame(
        {
            "path": part.names,
            "class": classes,
            "suspicion": [0.1, 0.9, 0.2, 0.3, 0.8, 0.4],
            "recommended": ["=dog", "cat", "=dog", "cat", "=dog", "cat"],
            "vote_recommended": 0.75,
        }
    )
    write_csv(run.folder / "samples.csv", table)
    return run.folder, table


def decided(path, table, decisions):
    labels = [
        {
            "path": table["path"][i],
            "class": table["class"][i],
            "decision": decision,
            "label": label,
            "recommended": "cat",
        }
        for i, decision, label in decisions
    ]
    path.write_text(json.dumps({"format": 1, "run": "run", "pairs": [], "labels": labels}))
    return path


def test_each_tool_gets_the_labels_that_were_decided(run, tmp_path):
    folder, table = run
    file = decided(
        tmp_path / "d.json", table, [(0, "reject", None), (1, "other", "cat"), (2, "exclude", None)]
    )
    there = export.write(folder, tmp_path / "out", file)
    assert there == ["fiftyone", "labelstudio.json", "suspects"]
    tasks = json.loads((tmp_path / "out" / "labelstudio.json").read_text())
    assert [task["data"]["path"] for task in tasks] == table["path"].tolist()
    given = [[one["result"][0]["value"]["choices"][0] for one in task["annotations"]] for task in tasks]
    assert given == [["=dog"], ["cat"], [], [], [], []]
    assert tasks[4]["predictions"][0]["result"][0]["value"]["choices"] == ["=dog"]
    # As FiftyOne's documented reader takes it: names of files without endings, positions in classes.
    labels = json.loads((tmp_path / "out" / "fiftyone" / "labels.json").read_text())
    files = {path.stem: path for path in (tmp_path / "out" / "fiftyone" / "data").iterdir()}
    assert files.keys() == labels["labels"].keys()
    read = {name: labels["classes"][at] for name, at in labels["labels"].items()}
    assert read == {"000000": "=dog", **dict.fromkeys(("000001", "000003", "000004", "000005"), "cat")}
    for path in files.values():
        assert path.is_symlink()
        with Image.open(path) as image:
            assert image.size == (10, 12)
    names = sorted(path.name for path in (tmp_path / "out" / "suspects").iterdir())
    assert names == ["00000 _dog_to_cat.png", "00001 cat_to_dog.png"]


def test_what_does_not_fit_is_named(run, tmp_path):
    folder, table = run
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "x").write_text("")
    with pytest.raises(UserError, match="is there already"):
        export.write(folder, tmp_path / "out", None)
    other = table.assign(path=["elsewhere.png", *table["path"][1:]])
    with pytest.raises(UserError, match=r"elsewhere.png is no training sample of this run"):
        export.write(folder, tmp_path / "new", decided(tmp_path / "d.json", other, [(0, "reject", None)]))
    moved = table.assign(**{"class": "bird"})
    with pytest.raises(UserError, match=r"is =dog in this run"):
        export.write(folder, tmp_path / "new", decided(tmp_path / "d.json", moved, [(0, "reject", None)]))
    assert not (tmp_path / "new").exists()
