import numpy as np
import pandas as pd
import pytest
from PIL import Image

from deconfuse.data.build import build, load
from deconfuse.dataset import huggingface
from deconfuse.system.errors import UserError

datasets = pytest.importorskip("datasets", reason="the library datasets is an extra")


def table(n=24, classes=4, first=0, names=("ant", "bee", "cat", "dog", "eel", "fox", "gnu", "hen")):
    random = np.random.default_rng(first)
    labels = [first + i % classes for i in range(n)]
    images = [Image.fromarray(random.integers(0, 255, (12, 10, 3), dtype=np.uint8)) for _ in range(n)]
    features = datasets.Features({"photo": datasets.Image(), "kind": datasets.ClassLabel(names=list(names))})
    return datasets.Dataset.from_dict({"photo": images, "kind": labels}, features=features), images, labels


def test_a_saved_folder_is_read_with_its_class_names(tmp_path):
    own, images, labels = table()
    own.save_to_disk(str(tmp_path / "saved"))
    listing = huggingface.load(str(tmp_path / "saved"), seed=1)
    assert list(listing.classes) == [["ant", "bee", "cat", "dog"][i] for i in labels]
    for i in (0, 7, 23):
        np.testing.assert_array_equal(np.asarray(listing.images[i]), np.asarray(images[i]))
    tested = {c for c, part in zip(listing.classes, listing.parts, strict=True) if part == "test"}
    assert len(tested) == 2
    again = huggingface.load(str(tmp_path / "saved"), test_classes=["bee"])
    assert {c for c, part in zip(again.classes, again.parts, strict=True) if part == "test"} == {"bee"}


def test_splits_of_disjoint_classes_stay_and_others_are_put_together(tmp_path):
    train, test = table()[0], table(first=4)[0]
    datasets.DatasetDict({"train": train, "test": test}).save_to_disk(str(tmp_path / "apart"))
    listing = huggingface.load(str(tmp_path / "apart"))
    assert list(listing.parts) == ["train"] * 24 + ["test"] * 24
    datasets.DatasetDict({"train": train, "test": table(8)[0]}).save_to_disk(str(tmp_path / "shared"))
    mixed = huggingface.load(str(tmp_path / "shared"))
    train_, test_ = (
        {c for c, p in zip(mixed.classes, mixed.parts, strict=True) if p == part}
        for part in ("train", "test")
    )
    assert not train_ & test_
    assert len(mixed.classes) == 32


def test_parquet_files_are_read_and_images_decide_the_fingerprint(tmp_path):
    own, images, _ = table()
    own.to_parquet(tmp_path / "train-00000.parquet")
    split = load({"_target_": "deconfuse.dataset.huggingface.load", "path": str(tmp_path), "image_size": 16})
    assert len(split.train) + len(split.query) == 24
    other = build(huggingface.load(str(tmp_path)), image_size=16)
    assert split.fingerprints == other.fingerprints
    changed, _, _ = table(first=0)
    values = [np.asarray(image).copy() for image in images]
    values[3][0, 0, 0] ^= 1
    rows = changed.to_dict() if isinstance(changed.to_dict(), dict) else {}
    new = datasets.Dataset.from_dict(
        {"photo": [Image.fromarray(value) for value in values], "kind": rows["kind"]},
        features=changed.features,
    )
    new.to_parquet(tmp_path / "train-00000.parquet")
    assert build(huggingface.load(str(tmp_path)), image_size=16).fingerprints[1] != split.fingerprints[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"label": "kinds"}, r"^dataset.label=kinds is no column of .*; did you mean kind\?"),
        ({"image": "photos"}, r"^dataset.image=photos is no column"),
        ({"test_classes": ["bees"]}, r"^dataset.test_classes: no class bees in .*; did you mean bee"),
    ],
)
def test_a_wrong_column_or_class_is_one_line(tmp_path, arguments, message):
    table()[0].save_to_disk(str(tmp_path / "saved"))
    with pytest.raises(UserError, match=message):
        huggingface.load(str(tmp_path / "saved"), **arguments)


def test_a_folder_without_a_data_set_is_one_line(tmp_path):
    pd.DataFrame({"a": [1]}).to_csv(tmp_path / "a.csv")
    with pytest.raises(UserError, match="no Parquet or Arrow files of one kind"):
        huggingface.load(str(tmp_path))


def test_without_images_the_columns_are_named(tmp_path):
    datasets.Dataset.from_dict({"text": ["a", "b"], "label": [0, 1]}).save_to_disk(str(tmp_path / "saved"))
    with pytest.raises(
        UserError,
        match=r"no column is an image; name it as dataset.image=COLUMN \(its columns: text, label\)",
    ):
        huggingface.load(str(tmp_path / "saved"))
