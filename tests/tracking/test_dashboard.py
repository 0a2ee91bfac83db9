import io
import json
import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
import wandb
from PIL import Image

from deconfuse.data.images import ArrayImages
from deconfuse.data.noise import NoisyLabels
from deconfuse.data.split import ImageSpec, Part, RowSpec, Split
from deconfuse.labels.relabel import Votes
from deconfuse.retrieval.confusion import Explained, Pairs
from deconfuse.runs import results
from deconfuse.runs.tables import Findings
from deconfuse.system.csv_files import write_csv
from deconfuse.system.files import file_hash
from deconfuse.tracking import artifacts, dashboard, tracker
from tests import offline
from tests.findings import sure

GREYS = 20 + 20 * np.arange(11, dtype=np.uint8)  # image i is all of one grey, its own
CHOICES = {
    "dataset": "greys",
    "model": "small_cnn",
    "loss": "proxynca",
    "noise": "flip_10",
    "target": "all",
    "influence": "eif",
    "detector": "knn",
}
CONFIG = {"seed": 3, "noise": {"_target_": "deconfuse.data.noise.flip", "ratio": 0.1}, "choices": CHOICES}


def findings(channels=1, side=8):
    """Seven training images of two classes, two of them flipped; four queries, three explained pairs."""
    shape = (11, side, side) if channels == 1 else (11, side, side, 3)
    grey = GREYS.reshape(11, *[1] * (len(shape) - 1))
    images = ArrayImages(np.broadcast_to(grey, shape).copy())
    names = tuple(f"{i}.png" for i in range(11))
    clean, labels = np.array([0, 0, 0, 0, 1, 1, 1]), np.array([0, 0, 1, 0, 1, 1, 0])
    train = Part(images, np.arange(7), labels, names[:7])
    query = Part(images, np.arange(7, 11), np.array([2, 2, 3, 3]), names[7:])
    split = Split(train, query, query, ("a", "b", "x", "y"), 2, ImageSpec(side, channels, "none"))
    pairs = Pairs(torch.tensor([0, 2, 1]), torch.tensor([2, 1, 3]), torch.tensor([0.1, 0.2, 0.5]))
    influence = torch.tensor([[1.0, -2, 3, 0, 1, 2, 4], [-1, -1, 0, 0, 0, -3, -2], [0, 5, 0, 0, 0, 5, 0]])
    votes = Votes(torch.zeros(7, 1, dtype=torch.long), torch.ones(7, 1), 1 - torch.ones(7))
    explained = Explained(tuple(pairs.pairs[:, None].unbind(0)), 1.0, "confusions.csv", pairs)
    suspicion = torch.tensor([0.1, 0.2, 0.9, 0.3, 0.6, 0.0, 0.5])
    noisy = NoisyLabels(labels, clean)
    return Findings(split, noisy, pairs, explained, influence, suspicion, votes, sure(labels, [2, 4, 5]))


def publish(output, found, *, reused, history=True, **choices):
    """Publish made-up findings as a run of their own; returns what W&B was told."""
    home, folder = output / "checkpoints" / "greys-seed3-abc", output / "greys-eif-knn-seed3-def"
    folder.mkdir(parents=True, exist_ok=True)
    home.mkdir(parents=True, exist_ok=True)
    (home / "model.ckpt").write_bytes(b"weights")
    if history:
        write_csv(
            home / "history.csv",
            pd.DataFrame({"epoch": [1, 3], "loss": [2.5, 1.5], "R@1": [0.25, 0.5], "MAP@R": [0.1, 0.2]}),
        )
    config = {**CONFIG, "choices": {**CHOICES, **choices}}
    run = tracker.page(tracker.wandb(home, folder.name, config, "tests"))
    written = results.write(folder, found, "eif", "unit")
    report = {
        "choices": config["choices"],
        "seed": 3,
        **results.report(found, written, {"R@1": 0.25, "MAP@R": 0.125}),
        "checkpoint": {
            "path": str(home / "model.ckpt"),
            "sha256": file_hash(home / "model.ckpt"),
            "reused": reused,
        },
        "files": {"influence.npy": 212},
    }
    dashboard.publish(run, report, written, found, folder)
    return offline.pages(output)[-1]


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    return tmp_path_factory.mktemp("outputs")


@pytest.fixture(scope="module")
def page(output):
    return publish(output, findings(), reused=False)


def row_of(picture):
    """Which image a picture shows."""
    with Image.open(io.BytesIO(picture)) as image:
        (grey,) = {level for _, level in image.getcolors()}
    return int(np.flatnonzero(grey == GREYS)[0])


def shown(page, name):
    """A table as it is shown: {column: values}, a picture as its row of GREYS."""
    columns, rows = page.table(f"tables{name}")
    values = [[row_of(item) if isinstance(item, bytes) else item for item in row] for row in rows]
    return {column: [row[i] for row in values] for i, column in enumerate(columns)}


def test_a_sweep_is_grouped_and_filtered_by_what_was_trained_and_how_it_was_looked_at(page):
    assert page.run.display_name == "greys-eif-knn-seed3-def"
    assert page.run.run_group == "greys-flip_10-small_cnn-proxynca"
    assert page.run.job_type == "eif"
    assert page.run.project == "tests"
    assert {"dataset:greys", "loss:proxynca", "noise:flip_10", "influence:eif"} < set(page.run.tags)
    assert page.config["choices"]["influence"] == "eif"
    assert page.config["noise"] == {"ratio": 0.1}
    assert page.config["run"] == page.run.display_name
    assert page.code == 0


def test_epochs_are_those_of_the_file_over_its_epochs(page):
    epochs = [line for line in page.history if "epochs/epoch" in line]
    names = ("epochs/epoch", "epochs/loss", "epochs/R@1")
    assert [[line[name] for name in names] for line in epochs] == [[1, 2.5, 0.25], [3, 1.5, 0.5]]
    assert page.steps["epochs/R@1"] == page.steps["epochs/loss"] == "epochs/epoch"


def test_summary_numbers_are_flat_and_no_table_takes_their_names(page):
    assert page.summary["retrieval/R@1"] == 0.25
    assert page.summary["confusions"] == 3
    # Flipped samples 2 and 6 are first and third of seven.
    assert page.summary["noise/detector/auroc"] == pytest.approx(1 - 1 / 10)
    assert not [key for key in page.summary if key.startswith(("files", "choices"))]


def test_confusions_with_the_pictures_of_both_sides(page):
    table = shown(page, "confusions")
    assert table["query_picture"] == [7, 9, 8]
    assert table["neighbour_picture"] == [9, 8, 10]
    assert table["query"] == ["7.png", "9.png", "8.png"]
    assert table["neighbour"] == ["9.png", "8.png", "10.png"]
    assert table["distance"] == pytest.approx([0.1, 0.2, 0.5])
    assert table["query_class"] == ["x", "y", "x"]


def test_harmful_samples_of_each_explanation_most_harmful_first(page):
    table = shown(page, "harmful")
    assert table["explanation"] == [0, 0, 0, 0, 0, 2, 2]  # nothing is harmful to the second
    assert table["rank"] == [0, 1, 2, 3, 4, 0, 1]
    assert table["sample"] == table["picture"] == [6, 2, 5, 0, 4, 1, 5]
    assert table["score"] == [4, 3, 2, 1, 1, 5, 5]
    assert table["class"] == ["a", "b", "b", "a", "b", "a", "b"]
    assert table["true_class"] == ["b", "a", "b", "a", "b", "a", "b"]
    assert table["flipped"] == [True, True, False, False, False, False, False]
    assert table["query_picture"] == [7] * 5 + [8] * 2
    assert table["neighbour_picture"] == [9] * 5 + [10] * 2


def test_relabels_with_their_picture(page):
    table = shown(page, "relabels")
    # 2, 4 and 5 have label b, are probably wrong, and all neighbours say a.
    assert table["sample"] == table["picture"] == [2, 4, 5]
    assert table["recommended"] == ["a"] * 3
    assert table["vote_recommended"] == [1.0] * 3
    assert table["class"] == ["b"] * 3


def test_histograms_count_every_sample_once_flipped_apart_on_the_same_bins(page):
    (line,) = [line for line in page.history if "histograms/suspicion/values" in line]
    for name, suspicion in (("suspicion", True), ("influence_mean", False)):
        parts = [line[f"histograms/{name}{part}/values"] for part in ("", "_flipped", "_not_flipped")]
        assert np.array_equal(np.sum(parts[1:], 0), parts[0])
        assert [sum(part) for part in parts] == [7, 2, 5]
        edges = line[f"histograms/{name}/bins"]
        assert line[f"histograms/{name}_flipped/bins"] == edges
        assert len(edges) == dashboard.BINS + 1
        if suspicion:
            assert (edges[0], edges[-1]) == pytest.approx((0.0, 0.9))
            assert parts[1][-1] == 1  # the most suspicious of all, 0.9, is flipped


def test_detection_curve_of_detector_influence_and_chance(page):
    columns, rows = page.table("detection_curve")
    assert columns == ["step", "lineKey", "lineVal"]
    lines = {}
    for checked, key, found in rows:
        lines.setdefault(key, []).append((checked, found))
    sevenths = [i / 7 for i in range(8)]
    assert [x for x, _ in lines["knn"]] == pytest.approx(sevenths)
    assert [y for _, y in lines["knn"]] == [0, 0.5, 0.5, 1, 1, 1, 1, 1]  # order 2 4 6 3 1 0 5; 2, 6 flipped
    # Mean |influence| x 3: 2 8 3 0 1 10 6, so the order is 5 1 6 2 0 4 3.
    assert [y for _, y in lines["|influence|"]] == [0, 0, 0, 0.5, 1, 1, 1, 1]
    assert [y for _, y in lines["random order"]] == pytest.approx(sevenths)
    assert "lineseries" in json.dumps(page.config["_wandb/visualize/detection_curve"])


def test_curves_have_both_ends_and_at_most_so_many_points():
    n = 1234
    samples = pd.DataFrame({"suspicion": -np.arange(float(n)), "influence_abs_mean": [math.nan] * n})
    flipped = np.arange(n) < 617
    lines = dashboard.curves(samples, flipped, "loss")
    assert list(lines) == ["loss", "random order"]  # nothing was explained
    checked, found = lines["loss"]
    assert len(checked) == dashboard.POINTS + 1
    assert (checked[0], checked[-1], found[-1]) == (0, 1, 1)
    np.testing.assert_allclose(found, np.minimum(2 * checked, 1), atol=1e-12)


def test_rows_beyond_the_bound_have_no_picture_and_then_are_left_out(output, monkeypatch):
    monkeypatch.setattr(dashboard, "PICTURED", 1)
    monkeypatch.setattr(dashboard, "ROWS", 2)
    monkeypatch.setattr(dashboard, "EXPLAINED", 1)
    page = publish(output, findings(), reused=True)
    assert shown(page, "confusions")["query_picture"] == [7, None]
    assert shown(page, "relabels")["picture"] == [2, None]
    assert shown(page, "harmful")["explanation"] == [0] * 5


def test_photos_are_small_and_without_noise_nothing_is_said_of_it(output, monkeypatch):
    found = findings(channels=3, side=200)
    page = publish(
        output, replace(found, noisy=NoisyLabels(found.noisy.labels, found.noisy.labels)), reused=True
    )
    _, rows = page.table("tablesconfusions")
    with Image.open(io.BytesIO(rows[0][0])) as image:
        assert (image.format, image.size) == ("JPEG", (96, 96))
    keys = {key for line in page.history for key in line}
    assert "histograms/suspicion/values" in keys
    assert not [key for key in keys if "flipped" in key or "detection" in key]


def test_features_have_tables_without_pictures(output):
    found = findings()
    rows = replace(found, split=replace(found.split, image=RowSpec(5)))
    table = shown(publish(output, rows, reused=True), "harmful")
    assert not [column for column in table if "picture" in column]
    assert table["sample"] == [6, 2, 5, 0, 4, 1, 5]


def test_nothing_explained_and_no_epoch_measured(tmp_path):
    found = findings()
    none = torch.empty(0, dtype=torch.long)
    empty = Explained((), 1.0, "confusions.csv", Pairs(none, none, torch.empty(0)))
    found = replace(found, explained=empty, confusions=empty.pairs, influence=torch.empty(0, 7))
    page = publish(tmp_path, found, reused=False, history=False)
    keys = {key for line in page.history for key in line}
    assert shown(page, "confusions")["distance"] == []
    assert not [key for key in keys if key.startswith(("epochs", "histograms/influence"))]
    assert "histograms/suspicion/values" in keys
    assert {row[1] for row in page.table("detection_curve")[1]} == {"knn", "random order"}


@pytest.mark.parametrize("error", [OSError, ValueError, wandb.errors.CommError])
def test_where_w_and_b_fails_the_run_is_ended_and_one_line_says_so(tmp_path, monkeypatch, capsys, error):
    def fail(*args):
        raise error("no space left\nor so")

    monkeypatch.setattr(artifacts, "log", fail)
    page = publish(tmp_path, findings(), reused=False)
    assert page.code == 0
    said = capsys.readouterr().err.splitlines()
    assert said[-2].startswith("W&B did not get all of this run (no space left); ")
    assert said[-1].startswith("W&B kept this run offline; send it with: wandb sync ")


def test_nothing_is_sent_where_nothing_follows(tmp_path):
    dashboard.publish(None, {}, {}, findings(), tmp_path)
    assert list(tmp_path.iterdir()) == []
