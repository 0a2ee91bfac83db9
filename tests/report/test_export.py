import json
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

from deconfuse.corrections import corrections, decisions
from deconfuse.corrections.labelling_tools import LOCAL
from deconfuse.data import build
from deconfuse.report import export
from deconfuse.runs.clean import settings_of
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
    assert there == ["fiftyone", "labelstudio.json", "labelstudio.xml", "suspects"]
    tasks = json.loads((tmp_path / "out" / "labelstudio.json").read_text())
    ranked = table.sort_values("suspicion", ascending=False, kind="stable")["path"].tolist()
    assert [task["data"]["path"] for task in tasks] == ranked
    given = {
        task["data"]["path"]: one["result"][0]["value"]["choices"][0]
        for task in tasks
        for one in task["annotations"]
    }
    assert given == {table["path"][0]: "=dog", table["path"][1]: "cat", table["path"][2]: "exclude"}
    assert tasks[1]["predictions"][0]["result"][0]["value"]["choices"] == ["=dog"]  # of row 4, suspicion 0.8
    for task in tasks:
        place = Path("/" + unquote(task["data"]["image"].removeprefix(LOCAL)))
        assert place.is_file()
        assert place.as_posix().endswith(task["data"]["path"])
    # As FiftyOne's documented reader takes it: names of files without endings, positions in classes.
    labels = json.loads((tmp_path / "out" / "fiftyone" / "labels.json").read_text())
    files = {path.stem: path for path in (tmp_path / "out" / "fiftyone" / "data").iterdir()}
    assert files.keys() == labels["labels"].keys()
    read = {one["attributes"]["path"]: labels["classes"][one["label"]] for one in labels["labels"].values()}
    assert read == {table["path"][i]: "=dog" if i == 0 else "cat" for i in (0, 1, 3, 4, 5)}
    for path in files.values():
        assert path.is_symlink()
        with Image.open(path) as image:
            assert image.size == (10, 12)
    names = sorted(path.name for path in (tmp_path / "out" / "suspects").iterdir())
    assert names == ["00000 _dog_to_cat.png", "00001 cat_to_dog.png"]


def asked(file):
    return {tuple(row[:3]) for row in decisions.asked(file, 0.6).itertuples(index=False)}


def test_label_studios_own_library_takes_the_tasks_and_gives_labels_back(run, tmp_path):
    sdk = pytest.importorskip("label_studio_sdk", reason="label-studio-sdk is not installed")
    from label_studio_sdk.converter import Converter
    from label_studio_sdk.label_interface import LabelInterface

    assert sdk.__version__
    folder, table = run
    file = decided(tmp_path / "d.json", table, [(1, "other", "cat"), (2, "exclude", None)])
    export.write(folder, tmp_path / "out", file)
    config = (tmp_path / "out" / "labelstudio.xml").read_text("utf-8")
    interface = LabelInterface(config)
    interface.validate()
    assert {frozenset(one) for one in interface.labels} == {
        frozenset(["cat", "=dog"]),
        frozenset(["exclude"]),
    }
    tasks = json.loads((tmp_path / "out" / "labelstudio.json").read_text())
    for i, task in enumerate(tasks):
        assert interface.validate_task({"data": task["data"]})
        assert all(map(interface.validate_prediction, task["predictions"]))
        assert all(map(interface.validate_annotation, task["annotations"]))
        task |= {"id": i}
        for one in task["annotations"]:
            one |= {"completed_by": {"email": "ann@localhost"}, "was_cancelled": False, "id": i}
    (tmp_path / "in.json").write_text(json.dumps(tasks))
    wanted = {(table["path"][1], table["class"][1], "cat"), (table["path"][2], table["class"][2], "")}
    assert asked(tmp_path / "in.json") == wanted
    converter = Converter(config, str(tmp_path), download_resources=False)
    converter.convert_to_json_min(str(tmp_path / "in.json"), str(tmp_path / "min"), is_dir=False)
    assert asked(tmp_path / "min" / "result.json") == wanted


def test_fiftyones_own_library_takes_the_labels_and_gives_them_back(run, tmp_path, monkeypatch):
    monkeypatch.setenv("FIFTYONE_DISABLE_SERVICES", "1")  # reading and writing files needs no database
    data = pytest.importorskip("fiftyone.utils.data", reason="fiftyone is not installed")
    folder, table = run
    export.write(folder, tmp_path / "out", None)
    importer = data.FiftyOneImageClassificationDatasetImporter(dataset_dir=str(tmp_path / "out" / "fiftyone"))
    exporter = data.FiftyOneImageClassificationDatasetExporter(
        export_dir=str(tmp_path / "back"), export_media="symlink"
    )
    with importer, exporter:
        assert len(importer) == len(table)
        for i, (path, _, label) in enumerate(importer):
            assert label.label == label.label_now == table.set_index("path")["class"][label.path]
            if i < 2:  # the two that are recommended another label come first
                label.label = label.recommended
            exporter.export_sample(path, label)
    found = decisions.asked(tmp_path / "back" / "labels.json", 0.6)
    split = build.load(settings_of(folder / "config.yaml"))
    rows, given = corrections.match(
        corrections._spelt_as_here(found, folder, split), folder, split, split.train.labels
    )
    ranked = table.sort_values("suspicion", ascending=False, kind="stable")
    classes = [split.class_names[c] for c in given[np.argsort(rows)]]
    wanted = table["class"].where(~table.index.isin(ranked.index[:2]), table["recommended"])
    assert classes == wanted.tolist()


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
