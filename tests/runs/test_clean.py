import errno
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from PIL import Image
from torchvision.datasets import ImageFolder

from deconfuse.corrections.corrections import Corrections
from deconfuse.data.build import build
from deconfuse.data.images import ArrayImages
from deconfuse.data.noise import NoisyLabels
from deconfuse.data.split import ImageSpec, Part, Split
from deconfuse.dataset import folder
from deconfuse.dataset import table as table_data
from deconfuse.labels.loop import Labels, Loop
from deconfuse.labels.relabel import Votes
from deconfuse.retrieval.confusion import Explained, Pairs
from deconfuse.runs import clean
from deconfuse.runs.clean import links, places, tables
from deconfuse.runs.columns import COLUMNS
from deconfuse.runs.tables import Findings
from deconfuse.system.csv_files import unguarded, write_csv
from deconfuse.system.errors import UserError
from deconfuse.system.files import short_hash
from tests.findings import sure

GIVEN = np.array([0, 0, 1, 1, 2])


def found(labels):
    """Of a run that trained with these labels."""
    images = ArrayImages(np.zeros((7, 8, 8), np.uint8))
    names = ("=1.png", "b.png", "c.png", "d.png", "'e.png")
    train = Part(images, np.arange(5), GIVEN, names)
    query = Part(images, np.arange(5, 7), np.array([3, 3]), ("q", "r"))
    split = Split(train, query, query, ("+a", "ß", "c", "x"), 3, ImageSpec(8, 1, "none"))
    none, votes = torch.empty(0, dtype=torch.int64), torch.zeros(5, 1)
    pairs = Pairs(none, none, torch.empty(0))
    explained = Explained((), 1.0, "confusions.csv", pairs)
    votes = Votes(votes.long(), votes, votes[:, 0])
    noisy = NoisyLabels(np.array(labels), np.array(labels))
    return Findings(
        split, noisy, pairs, explained, torch.zeros(0, 5), torch.zeros(5), votes, sure(noisy.labels)
    )


def corrections(labels):
    evidence = np.where(np.array(labels) != GIVEN, "reviewer", "").astype(object)
    return Corrections(
        "d", NoisyLabels(GIVEN, GIVEN), NoisyLabels(np.array(labels), GIVEN), evidence, 0, np.zeros(5, bool)
    )


def looped(labels, left_out, evidence=(0.9, 0.8, 0.3, 0.6, 0.55)):
    return Loop(pd.DataFrame(), Labels(np.array(labels), np.array(left_out), np.array(evidence)), None)


def test_the_list_has_all_samples_changes_first(tmp_path):
    new = [0, 1, 1, 2, 2]
    (table,) = tables(found(new), corrections(new), None).values()
    assert list(table) == list(COLUMNS["clean_list.csv"])
    assert table.values.tolist() == [
        ["b.png", "+a", "ß", "relabelled", "reviewer"],
        ["d.png", "ß", "c", "relabelled", "reviewer"],
        ["=1.png", "+a", "+a", "kept", ""],
        ["c.png", "ß", "ß", "kept", ""],
        ["'e.png", "c", "c", "kept", ""],
    ]
    # A spreadsheet knows its encoding, and computes nothing; what was written is got back.
    write_csv(tmp_path / "l.csv", table, spreadsheet=True)
    raw = (tmp_path / "l.csv").read_bytes()
    assert raw.startswith(b"\xef\xbb\xbfpath,old_label,new_label,change,evidence\nb.png,'+a,")
    back = pd.read_csv(tmp_path / "l.csv", dtype=str, keep_default_na=False)
    assert not back.map(lambda cell: cell.startswith(tuple("=+-@"))).any(axis=None)
    pd.testing.assert_frame_equal(back.map(unguarded), table, check_dtype=False)


def test_the_loops_labels_come_after_the_reviewers():
    new, last = [0, 1, 1, 2, 2], [2, 1, 1, 2, 2]
    left_out = [False, False, True, False, False]
    (table,) = tables(found(new), corrections(new), looped(last, left_out)).values()
    rows = {row[0]: row[1:] for row in table.values.tolist()}
    assert rows["=1.png"] == ["+a", "c", "relabelled", "loop 0.90"]
    assert rows["b.png"] == ["+a", "ß", "relabelled", "reviewer"]
    assert rows["c.png"] == ["ß", "", "left out", "loop 0.70"]
    assert rows["'e.png"] == ["c", "c", "kept", ""]
    (alone,) = tables(found(GIVEN), None, looped(last, left_out)).values()
    assert alone["change"].tolist() == ["relabelled", "relabelled", "left out", "relabelled", "kept"]
    assert alone["evidence"].tolist() == ["loop 0.90", "loop 0.80", "loop 0.70", "loop 0.60", ""]


def test_a_run_that_corrects_nothing_has_no_list():
    assert tables(found(GIVEN), None, None) == {}


def test_no_two_images_share_a_place_and_none_leads_out():
    images = [
        ("a/b", "1.png", "p/1.png"),
        ("a:b", "1.png", "q/1.png"),
        ("..", "2.png", "2.png"),
        ("A", "X.png", "r/X.png"),
        ("A", "x.png", "s/x.png"),
        ("A", "y.png", "y.png"),
        ("é" * 200, "n" * 250 + ".jpeg", "long"),
        (".x", ".hidden", "h"),
    ]
    found = places(images)
    assert found[:6] == [
        f"a_b-{short_hash('a/b')}/1.png",
        f"a_b-{short_hash('a:b')}/1.png",
        "_/2.png",
        f"A/X-{short_hash('r/X.png')}.png",
        f"A/x-{short_hash('s/x.png')}.png",
        "A/y.png",
    ]
    assert len({place.casefold() for place in found}) == len(images)
    for place in found:
        assert place.count("/") == 1
        assert all(0 < len(step.encode()) <= 230 and step[0] != "." for step in place.split("/"))
    assert found[6].endswith(".jpeg")
    assert found[7] == "_.x/_.hidden"


@pytest.fixture
def run(tmp_path):
    """A run's folder over images of four classes, one of which was relabelled and one left out."""
    root = tmp_path / "photos"
    for c in "abcd":
        for i in range(3):
            (root / c / f"s{i % 2}").mkdir(parents=True, exist_ok=True)
            Image.new("L", (8, 8), 60 * "abcd".index(c) + i).save(root / c / f"s{i % 2}" / "same.png")
            Image.new("L", (8, 8), 60 * "abcd".index(c) + i).save(root / c / f"{i}.png")
    settings = {"_target_": "deconfuse.dataset.folder.load", "root": str(root), "test_classes": ["d"]}
    home = tmp_path / "run"
    home.mkdir()
    (home / "config.yaml").write_text(yaml.safe_dump({"dataset": settings}))
    (home / "metrics.json").write_text("{}")
    names = build(folder.load(str(root), ["d"])).train.names
    rows = [(name, name[0], {"a/0.png": "b", "a/1.png": ""}.get(name, name[0]), "", "") for name in names]
    write_csv(home / "clean_list.csv", pd.DataFrame(rows, columns=list(COLUMNS["clean_list.csv"])), True)
    return home


def shade(path):
    return Image.open(path).getpixel((0, 0))


def test_the_folder_is_read_by_imagefolder_and_as_a_table(run, tmp_path):
    out = tmp_path / "clean"
    assert links(run, out) == (19, 0)
    moved = [path for path in (out / "train/b").glob("0*.png") if shade(path) == 0]
    assert len(moved) == 1
    assert moved[0].is_symlink()
    assert os.readlink(moved[0]) == str(tmp_path / "photos/a/0.png")
    data = ImageFolder(out / "train")
    assert data.classes == ["a", "b", "c"]
    assert np.bincount(data.targets).tolist() == [3, 6, 5]
    assert len(list((out / "test/d").iterdir())) == 5
    split = build(table_data.load(str(out / "list.csv")))
    assert split.class_names == ("a", "b", "c", "d")
    assert (len(split.train), len(split.query), split.num_classes) == (14, 5, 3)
    assert np.bincount(split.train.labels).tolist() == [3, 6, 5]
    # Both files called same.png of a class are there, each with its own picture.
    assert len({path.name for path in (out / "train/c").glob("same-*.png")}) == 2


def test_where_there_are_no_links_images_are_copied(run, tmp_path, monkeypatch):
    def refuse(self, target):
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    assert links(run, tmp_path / "clean") == (19, 19)
    assert not any(path.is_symlink() for path in (tmp_path / "clean").rglob("*"))
    assert ImageFolder(tmp_path / "clean/train").classes == ["a", "b", "c"]


def test_a_full_disk_leaves_nothing(run, tmp_path, monkeypatch):
    def refuse(self, target):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    with pytest.raises(UserError, match=r"could not write .*clean \(No space left on device\)"):
        links(run, tmp_path / "clean")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["photos", "run"]


def change(path, old, new):
    path.write_text(path.read_text("utf-8-sig").replace(old, new), "utf-8")


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda run: (run / "metrics.json").unlink(), r"run: no finished run \(no metrics.json\)"),
        (lambda run: (run / "clean_list.csv").unlink(), r"corrected no label \(no clean_list.csv\)"),
        (lambda run: (run.parent / "photos/c/2.png").unlink(), r"1 image is not in both .*c/2.png"),
        (lambda run: change(run / "clean_list.csv", "new_label", "new"), r"its columns are path, old_label"),
        (
            lambda run: change(run / "config.yaml", "deconfuse.dataset", "os.path"),
            r"does not say which data set",
        ),
        (lambda run: (run / "config.yaml").write_text("{"), r"does not say which data set"),
        (lambda run: (run.parent / "clean").mkdir() or (run.parent / "clean/x").touch(), r"is there already"),
        (lambda run: (run.parent / "clean").touch(), r"is there already; give the name of a new folder"),
    ],
)
def test_what_keeps_the_folder_from_being_made_is_named(run, harm, message):
    harm(run)
    with pytest.raises(UserError, match=message):
        links(run, run.parent / "clean")


def test_the_data_itself_is_no_place_for_links(run, tmp_path):
    with pytest.raises(UserError, match=r"is inside the data, .*photos"):
        links(run, tmp_path / "photos/clean")
    assert not (tmp_path / "photos/clean").exists()
    (tmp_path / "elsewhere").symlink_to(tmp_path / "photos", target_is_directory=True)
    for way in ("run/../photos/clean", "elsewhere/clean"):
        with pytest.raises(UserError, match=r"is inside the data, .*photos"):
            links(run, tmp_path / way)


def test_data_without_files_has_no_links(tmp_path):
    settings = {"_target_": "deconfuse.dataset.glyphs.load", "classes": 4, "image_size": 8}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"dataset": settings}))
    (tmp_path / "metrics.json").touch()
    (tmp_path / "clean_list.csv").write_text("path,old_label,new_label\n")
    with pytest.raises(UserError, match=r"its data is no image files to link"):
        links(tmp_path, tmp_path / "clean")


def test_the_command_says_what_it_made(run, tmp_path, capsys):
    clean.main([str(run), str(tmp_path / "clean")])
    out = capsys.readouterr().out
    assert out.startswith(f"19 images in {tmp_path / 'clean'}/ (links); ")
    assert out.endswith(f"dataset=table dataset.csv={tmp_path / 'clean'}/list.csv\n")
