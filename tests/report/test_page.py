import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from deconfuse.report import page
from deconfuse.system.errors import UserError
from tests.test_story import FEATURES, TINY, go


def value(folder, name):
    """What one of the report's data files hands to the page."""
    text = (folder / "report" / "data" / f"{name}.js").read_text("ascii")
    found = re.fullmatch(r'deconfuse\.put\("([^"]+)",(.*)\);\n', text, re.DOTALL)
    assert found[1] == name
    return json.loads(found[2])


def rows(folder, prefix):
    """A chunked column set, put together: a dict for each row."""
    paths = (folder / "report" / "data").glob(f"{prefix}-*.js")
    told = []
    for path in sorted(paths, key=lambda path: int(path.stem.rpartition("-")[2])):
        chunk = value(folder, path.stem)
        told += [dict(zip(chunk, row, strict=True)) for row in zip(*chunk.values(), strict=True)]
    return told


@pytest.fixture(scope="module")
def run(reported):
    return reported


def test_the_pages_have_the_numbers_of_the_tables(run):
    told, samples = value(run, "train"), pd.read_csv(run / "samples.csv")
    names, relabels = value(run, "run")["class_names"], pd.read_csv(run / "relabels.csv")
    for column in ("influence_mean", "influence_abs_mean", "harmful_share", "suspicion"):
        np.testing.assert_allclose(told[column], samples[column], rtol=1e-6)
    for column in ("vote_current", "vote_recommended"):
        np.testing.assert_allclose(told[column], samples[column], rtol=1e-6)
    assert told["names"] == samples["path"].tolist()
    assert [names[c] for c in told["labels"]] == samples["class"].tolist()
    assert [names[c] for c in told["recommended"]] == samples["recommended"].tolist()
    assert [names[c] for c in told["clean"]] == samples["true_class"].tolist()
    other = samples[samples["recommended"] != samples["class"]]
    first = other.assign(first=other["p_wrong"] > 0.5)
    ranked = first.sort_values(["first", "suspicion", "sample"], ascending=[False, False, True])
    ranked = ranked["sample"].tolist()
    assert set(ranked[: told["wrong"]]) == set(other["sample"][other["p_wrong"] > 0.5])
    assert told["suspects"] == ranked
    assert set(relabels["sample"]) <= set(ranked)
    assert 0 < told["wrong"] <= told["stop"] <= len(ranked)
    pairs, query, table = value(run, "confusion"), value(run, "query"), pd.read_csv(run / "confusions.csv")
    assert [query["names"][i] for i in pairs["query"]] == table["query"].tolist()
    assert [query["names"][i] for i in pairs["neighbour"]] == table["neighbour"].tolist()
    assert [names[query["labels"][i]] for i in pairs["neighbour"]] == table["neighbour_class"].tolist()
    np.testing.assert_allclose(pairs["distance"], table["distance"], rtol=1e-6)
    assert pairs["known"] == table["same_thing"].astype(int).tolist()


def test_the_first_page_has_the_numbers_of_the_run(run):
    told, metrics = value(run, "run"), json.loads((run / "metrics.json").read_text())
    for key in ("retrieval", "queries", "confusions", "relabels", "noise", "command", "seed"):
        assert told[key] == metrics[key]
    assert sum(edge[2] + edge[3] for edge in told["edges"]) == metrics["confusions"]
    assert told["run"] == run.name
    assert told["checkpoint_name"] == Path(metrics["checkpoint"]["path"]).parent.name
    classes = pd.read_csv(run / "classes.csv")
    assert [told["class_names"][line[0]] for line in told["taxonomy"]] == classes["class"].tolist()
    assert [line[2] for line in told["taxonomy"]] == classes["suggestions"].tolist()
    assert metrics["seconds"]["report"] > 0


def test_every_method_that_was_run_has_its_ends_of_each_row(run):
    other = next(path for path in run.parent.glob("*/influence.npy") if path.parent != run).parent
    told = value(run, "run")["methods"]
    assert [(method["name"], method["run"]) for method in told] == [("eif", run.name), ("random", other.name)]
    for number, folder in enumerate((run, other)):
        scores = np.load(folder / "influence.npy")
        found = rows(run, f"explained-{number}")
        assert len(found) == len(scores)
        for row, mine in zip(scores, found, strict=True):
            harmful = [k for k in np.argsort(-row)[:10].tolist() if row[k] > 0]
            helpful = [k for k in np.argsort(row)[:10].tolist() if row[k] < 0]
            np.testing.assert_allclose(row[mine["harmful"]], row[harmful])
            np.testing.assert_allclose(row[mine["helpful"]], row[helpful])
            np.testing.assert_allclose(mine["harmful_scores"], row[harmful], rtol=1e-4)
            np.testing.assert_allclose(mine["helpful_scores"], row[helpful], rtol=1e-4)


def test_every_sample_has_its_neighbours_and_what_it_harms(run):
    scores, samples = np.load(run / "influence.npy"), rows(run, "sample")
    assert len(samples) == scores.shape[1] == 96
    for k, sample in enumerate(samples):
        assert len(sample["near"]) == 8
        assert k not in sample["near"]
        assert sample["distance"] == sorted(sample["distance"])
        best = np.sort(scores[:, k])[::-1][:10]
        np.testing.assert_allclose(sample["scores"], best[best > 0], rtol=1e-4)
        np.testing.assert_allclose(scores[sample["harms"], k], best[best > 0])
    told, table = value(run, "train"), pd.read_csv(run / "samples.csv")
    for k, sample in enumerate(samples):
        assert sample["likely"][0] == told["recommended"][k]
        assert sample["votes"][0] == pytest.approx(table["vote_recommended"][k], rel=1e-3)
        assert sample["votes"][1:] == sorted(sample["votes"][1:], reverse=True)  # after the recommended one
        assert len(set(sample["likely"])) == len(sample["likely"]) <= 5
        if told["labels"][k] in sample["likely"]:
            at = sample["likely"].index(told["labels"][k])
            assert sample["votes"][at] == pytest.approx(table["vote_current"][k], rel=1e-3)


def test_every_query_has_its_neighbours_and_every_class_its_typical_samples(run):
    queries, pairs = rows(run, "query"), value(run, "confusion")
    for query, neighbour, distance in zip(pairs["query"], pairs["neighbour"], pairs["distance"], strict=True):
        assert queries[query]["near"][0] == neighbour
        assert queries[query]["distance"][0] == pytest.approx(distance, rel=1e-3)
    told, train = value(run, "typical"), value(run, "train")
    for c, mine in enumerate(told["train"]):
        assert {train["labels"][k] for k in mine} == {c}
        wrong = set(train["suspects"][: train["wrong"]])
        assert not set(mine) & wrong or set(mine) <= wrong


def test_the_same_run_again_keeps_the_decisions_made(run):
    before = value(run, "run")["fingerprint"]
    again = go(run.parent, *TINY, "noise=flip_10", "noise.ratio=0.25")
    assert again == run
    assert value(run, "run")["fingerprint"] == before
    assert len(before) == 8


def test_a_run_without_a_report_has_none(run):
    other = next(path for path in run.parent.glob("*/metrics.json") if path.parent != run).parent
    assert sorted(path.name for path in other.iterdir() if path.is_dir()) == []
    assert (other / "samples.csv").exists()


def test_any_name_is_text_in_a_script(tmp_path):
    names = ["</script><img src=x onerror=alert(1)>", 'a"b\\', "__proto__", "\u2028 😀 שלום", "\ud800"]
    page.put(tmp_path, "x", {"names": names})
    text = (tmp_path / "x.js").read_bytes()
    assert text.isascii()
    assert json.loads(text.decode().removeprefix('deconfuse.put("x",').removesuffix(");\n")) == {
        "names": names
    }


def test_maps_keep_their_shape_and_query_comes_before_gallery(tmp_path):
    # Directions of a rectangle far along a third axis, which keep its shape to 1e-6.
    train = torch.tensor([[-2.0, -1, 3e3], [2, -1, 3e3], [2, 1, 3e3], [-2, 1, 3e3]], dtype=torch.float64)
    sides = {"train": train, "query": train[:3] * 5, "gallery": train[3:] * 5}
    told = page.maps(tmp_path, sides, True, 0)
    assert [(one["side"], one["way"]) for one in told] == [("train", "pca"), ("test", "pca")]
    assert told[0]["share"] == pytest.approx([0.8, 0.2])
    for side in ("train", "test"):
        text = (tmp_path / f"map-{side}-pca.js").read_text()
        at = json.loads(text.partition(",")[2].removesuffix(");\n"))
        x, y = np.array(at["x"]), np.array(at["y"])
        # A rectangle of 4 by 2, its longer side all of the grid.
        assert (sorted(x), sorted(y)) == ([0, 0, 10000, 10000], [0, 0, 5000, 5000])
        assert x[0] == x[3]
        assert x[1] == x[2]
        assert y[0] == y[1]


@pytest.mark.parametrize("wanted", ["maybe", 1, None, "True"])
def test_what_is_no_report_is_said_before_training(wanted):
    with pytest.raises(UserError, match=f"^report={wanted} is not known; give true, false, umap for"):
        page.check(wanted)


def test_a_map_that_needs_an_extra_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(page, "has_umap", lambda: False)
    with pytest.raises(UserError, match=r"pip install 'deconfuse\[umap\]'"):
        page.check("umap")
    for wanted in (True, False):
        page.check(wanted)


def test_a_page_loads_every_script_there_is_and_no_other():
    html = (page.WEB / "index.html").read_text()
    named = re.findall(r'<script src="([^"]+)">', html)
    there = {path.name for path in page.WEB.glob("*.js")}
    assert set(named) == there | {"data/run.js"}
    assert "<script>" not in html
    for path in page.WEB.glob("*.js"):
        code = path.read_text()
        for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "http://"):
            assert word not in code.replace("http://www.w3.org/2000/svg", ""), (path.name, word)


def test_queries_without_an_image_of_their_class_are_counted_on_the_page(tmp_path):
    random = np.random.default_rng(0)
    labels = np.arange(90) % 9
    split = np.where(labels < 3, "train", np.where(np.arange(90) < 45, "query", "gallery"))
    split[labels == 8] = "query"  # ten queries of a class that is in no gallery
    rows = random.normal(size=(9, 6))[labels] + 0.8 * random.normal(size=(90, 6))
    np.savez(tmp_path / "data.npz", features=rows, labels=labels, split=split)
    words = [*FEATURES, "model=as_is", f"dataset.path={tmp_path / 'data.npz'}"]
    folder = go(tmp_path / "out", *words)
    e = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    query, gallery = split == "query", split == "gallery"
    near = labels[gallery][(e[query] @ e[gallery].T).argmax(1)]
    wrong = (near != labels[query]) & (labels[query] != 8)
    metrics, told = json.loads((folder / "metrics.json").read_text()), value(folder, "run")
    assert (
        (metrics["queries"], metrics["lone_queries"]) == (told["queries"], told["lone_queries"]) == (35, 10)
    )
    assert metrics["confusions"] == told["confusions"] == wrong.sum() > 0
    assert metrics["retrieval"]["R@1"] == pytest.approx(1 - wrong.sum() / 25)
