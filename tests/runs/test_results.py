import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from deconfuse.data.noise import NoisyLabels
from deconfuse.retraining.reweight import Changes
from deconfuse.retrieval.confusion import Explained, Pairs
from deconfuse.runs import results, tables
from deconfuse.runs.columns import COLUMNS
from deconfuse.runs.finished import RESULTS_FORMAT


def test_classes_with_suggestions(found):
    # Harmful and voted elsewhere: sample 0 of class a alone, to c; harmful or not, sample 2 of b to a too.
    table = tables.class_table(found)
    assert table.drop(columns=["lean", "entropy"]).values.tolist() == [
        ["a", 2, 1, 0.5, "c", "centralized", "centralized", "c"]
    ]
    assert list(table) == list(COLUMNS["classes.csv"])
    assert results.class_report(found)["kind"] == {
        "centralized": 1,
        "diversified": 0,
        "individual": 0,
        "others": 0,
    }
    assert results.merge_report(found) is None  # x and y look alike, but train nothing
    alike = replace(found, split=replace(found.split, same_things=((0, 1),)))
    report = results.merge_report(alike)
    assert report["harmful"] == {"joined": 1, "known": 1, "precision": 0, "recall": 0}
    # a with c and b with a join all three.
    assert report["all"] == {"joined": 3, "known": 1, "precision": pytest.approx(1 / 3), "recall": 1}


def test_merges_are_scored_by_both_rules(found, monkeypatch):
    leans = pd.DataFrame({"class": [0, 1], "leans_to": [1, 2]})
    kinds = {"kind": ["centralized", "others"], "kind_by_share": ["others", "centralized"]}
    monkeypatch.setattr(results, "suggestions", lambda found, harmful_only=True: leans.assign(**kinds))
    report = results.merge_report(replace(found, split=replace(found.split, same_things=((0, 1),))))
    assert [report[name]["precision"] for name in ("harmful", "harmful_by_share", "all")] == [1, 0, 1]


def test_class_pairs_count_both_directions(found):
    assert results.class_pairs(tables.confusion_table(found)) == [
        {"classes": ["x", "y"], "confusions": 2, "same_thing": True},
        {"classes": ["x", "z"], "confusions": 1, "same_thing": False},
    ]


def test_noise_report(found):
    report = results.noise_report(found)
    assert report["flipped"] == 3
    # Suspicions 0.7 0.1 0.6 0.2 0.4, flipped 0, 2 and 4: all three lead.
    assert report["detector"] == {"auroc": 1.0, "average_precision": 1.0, "recall": 1.0}
    # |influence| 2 1 4 0 1: 2 and 0 lead, 4 and 1 tie behind them.
    assert report["absolute_influence"]["auroc"] == pytest.approx(5.5 / 6)
    # Harmful and flipped: 0 (its vote is right) and 4 (its vote repeats the label, the second says a).
    assert report["recommended_right"] == 0.5
    # All flipped: 0 is voted c (right), 2 a (right), 4 a by the second vote (b is right).
    assert report["recommended_right_all"] == pytest.approx(2 / 3)
    assert (report["relabels"], report["relabels_right"]) == (1, 1)


def test_a_sample_that_scores_zero_on_average_is_not_harmful(found):
    """Sample 3 scores 0 and its neighbours vote for a, its true class: no table counts it as harmful."""
    votes = replace(found.votes, classes=found.votes.classes.clone())
    votes.classes[3] = torch.tensor([0, 1])
    noisy = NoisyLabels(found.noisy.labels, np.array([2, 0, 0, 0, 1]))
    zero = replace(found, votes=votes, noisy=noisy)
    samples = tables.sample_table(zero)
    assert (samples["influence_mean"][3], samples["recommended"][3]) == (0, "a")
    assert samples["harmful_share"][3] == 0
    assert tables.relabel_table(samples)["sample"].tolist() == [0]
    assert tables.class_table(zero)["class"].tolist() == ["a"]
    assert tables.suggestions(zero, harmful_only=False)["suggestions"].tolist() == [1, 2]
    report = results.noise_report(zero)
    assert (report["relabels"], report["relabels_right"]) == (1, 1)
    # Harmful and flipped are 0 (right) and 4 (wrong); of all flipped ones 0, 2 and 3 are right.
    assert (report["recommended_right"], report["recommended_right_all"]) == (0.5, 0.75)


def test_nothing_flipped_is_no_report(found):
    clean = NoisyLabels(found.noisy.labels, found.noisy.labels)
    quiet = replace(found, noisy=clean)
    assert results.noise_report(quiet) is None
    assert "flipped" not in tables.sample_table(quiet)


def test_written_tables_are_those_of_the_functions(found, tmp_path):
    written = results.write(tmp_path, found, "eif", "nats")
    for name, table in written.items():
        pd.testing.assert_frame_equal(pd.read_csv(tmp_path / name), table, check_dtype=False, rtol=1e-5)
    assert np.array_equal(np.load(tmp_path / "influence.npy"), found.influence.numpy())


def test_mis_similar_pairs_have_a_table_of_their_own(found, tmp_path):
    pairs = Pairs(torch.tensor([0, 4]), torch.tensor([1, 5]), torch.tensor([0.9, 0.4]))
    explained = Explained(tuple(pairs.pairs[:, None].unbind(0)), -1.0, "mis_similar.csv", pairs)
    other = replace(found, explained=explained, influence=found.influence[:2], lds=np.array([0.5, np.nan]))
    written = results.write(tmp_path, other, "eif", "nats")
    assert written["mis_similar.csv"].values.tolist()[0][:4] == [0, "5.png", "6.png", "x"]
    assert written["mis_similar.csv"]["class"].tolist() == ["x", "z"]
    assert len(written["confusions.csv"]) == 3
    index = json.loads((tmp_path / "influence_index.json").read_text())
    assert index["rows"] == "the first 2 rows of mis_similar.csv, in order"
    assert "further apart" in index["sign"]
    assert pd.read_csv(tmp_path / "counterfactual.csv")["lds"].tolist()[0] == 0.5
    described = json.loads((tmp_path / "columns.json").read_text())
    assert list(described["mis_similar.csv"]) == list(written["mis_similar.csv"])


def test_retraining_has_a_table_of_its_own(found, tmp_path):
    changes = Changes(torch.tensor([0.1, -0.25, 0.5]), torch.tensor([0.3, -0.5, 0.5]))
    written = results.write(tmp_path, replace(found, retrained=changes), "eif", "nats")
    assert written["retrained.csv"]["row"].tolist() == [0, 1, 2]
    assert pd.read_csv(tmp_path / "retrained.csv")["change"].tolist() == pytest.approx([0.2, -0.25, 0])
    described = json.loads((tmp_path / "columns.json").read_text())["retrained.csv"]
    assert list(described) == list(written["retrained.csv"]) == ["row", "d_before", "d_after", "change"]
    assert "> 0: the explanation helped" in described["change"]
    assert "retrained.csv" not in results.write(tmp_path / "without", found, "eif", "nats")


def test_the_last_file_says_how_long_the_others_are_so_a_whole_folder_is_known(tmp_path):
    (tmp_path / "a.csv").write_text("abc")
    assert not results.whole(tmp_path)
    report = results.finish(tmp_path, {"seed": 3})
    assert report == {"seed": 3, "format": RESULTS_FORMAT, "files": {"a.csv": 3}}
    assert json.loads((tmp_path / "metrics.json").read_text()) == report
    assert results.whole(tmp_path)
    (tmp_path / "a.csv").write_text("ab")
    assert not results.whole(tmp_path)
