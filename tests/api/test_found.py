import json
import re

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import deconfuse as dc
from deconfuse.system.errors import UserError
from tests.api.data import Small, images, rows

TRAIN, TEST = rows(70, 5, 0), rows(47, 4, 1, first=5)


@pytest.fixture(scope="module")
def found():
    return dc.explain(train=TRAIN, test=TEST)


@pytest.fixture(scope="module")
def pictured():
    torch.manual_seed(0)
    classes = ["a<b>", "b&c", "c", "d", "e", 'f"g', "h"]
    return dc.explain(Small(), train=images(40, 4, 0), test=images(21, 3, 1, first=4), classes=classes)


def test_it_says_in_one_line_what_it_is(found):
    said = re.sub(r"\d+", "1", repr(found))
    assert said == ("Found(R@1 1.1, 1 confusions of 1 queries, 1 explained by eif, 1 relabels of 1 samples)")
    assert f"{len(found.confusions)} confusions of 47 queries" in repr(found)


def test_the_tables_fit_each_other(found):
    assert found.influence.shape == (len(found.confusions), len(found.samples)) != (0, 70)
    np.testing.assert_allclose(found.samples["influence_mean"], found.influence.mean(0), rtol=1e-4, atol=1e-6)
    chosen = found.samples[found.samples["p_wrong"] > 0.5]
    assert sorted(found.relabels["sample"]) == chosen["sample"].tolist()
    assert found.groups["confusions"].sum() == len(found.confusions)


def test_another_method_scores_the_same_explanations(found):
    tracin = found.score("tracin")
    assert tracin.shape == found.influence.shape
    np.testing.assert_array_equal(tracin, dc.explain(train=TRAIN, test=TEST, influence="tracin").influence)
    with pytest.raises(UserError, match="did you mean tracin"):
        found.score("tracn")


def test_the_page_for_jupyter_escapes_every_name_and_has_pictures(pictured):
    page = pictured._repr_html_()
    assert "a<b>" not in page
    assert 'f"g' not in page
    assert "a&lt;b&gt;" in page
    assert page.count("data:image/png;base64,") >= 4
    assert "<script" not in page
    assert "http" not in page


def test_the_page_of_rows_has_no_pictures(found):
    page = found._repr_html_()
    assert "<img" not in page
    assert f"R@1 {found.retrieval['R@1']:.3f}" in page


def test_a_page_without_confusions_is_one(capsys):
    x, y = np.repeat(np.eye(4, dtype=np.float32), 5, 0), np.repeat(np.arange(4), 5)
    found = dc.explain(train=(x, y), test=(x, y))
    assert len(found.confusions) == 0
    assert found.influence.shape == (0, 20)
    assert "0 of 20 queries" in found._repr_html_()


def test_the_report_is_a_folder_with_its_tables(pictured, tmp_path):
    page = pictured.report(tmp_path / "report")
    assert page == tmp_path / "report/index.html"
    assert page.is_file()
    assert list((tmp_path / "report/thumbs").glob("*.png"))
    np.testing.assert_array_equal(np.load(tmp_path / "report/tables/influence.npy"), pictured.influence)
    metrics = json.loads((tmp_path / "report/tables/metrics.json").read_text())
    assert metrics["retrieval"] == pictured.retrieval
    assert metrics["choices"]["model"] == "Small"
    read = pd.read_csv(tmp_path / "report/tables/samples.csv")
    assert read["recommended"].tolist() == pictured.samples["recommended"].tolist()
    with pytest.raises(UserError, match="is there already"):
        pictured.report(tmp_path / "report")


def test_two_models_are_compared_on_the_same_test_side(found):
    weights = torch.linalg.qr(torch.randn(12, 12, generator=torch.Generator().manual_seed(0)))[0]
    turned = dc.explain(
        train=TRAIN, test=TEST, head=(weights, torch.zeros(12))
    )  # a rotation changes no distance
    same = found.compare(turned)
    assert (same.vanished, same.appeared, same.moved, same.p) == (0, 0, 0, 1.0)
    assert same.metrics.loc["R@1", "change"] == pytest.approx(0, abs=1e-9)
    half = dc.explain(train=(TRAIN[0][:, :6], TRAIN[1]), test=(TEST[0][:, :6], TEST[1]))
    worse = found.compare(half)
    change = (worse.vanished - worse.appeared) / 47
    assert worse.metrics.loc["R@1", "change"] == pytest.approx(change)
    assert worse.appeared > worse.vanished
    assert 0 < worse.p < 1
    assert len(worse.changes) == worse.vanished + worse.appeared + worse.moved
    assert "appeared" in worse._repr_html_()
    with pytest.raises(UserError, match="different test samples"):
        found.compare(dc.explain(train=TRAIN, test=rows(40, 4, 3, first=5)))


def test_duplicates_are_found_among_pictures_and_among_embeddings(found):
    train, test = images(40, 4, 0, size=32), images(21, 3, 1, first=4, size=32)
    train.tensors[0][17], test.tensors[0][3] = train.tensors[0][2], train.tensors[0][2]
    torch.manual_seed(0)
    pictured = dc.explain(Small(), train=train, test=test, influence="tracin", progress=False)
    columns = ["group", "kind", "part", "row", "class"]
    assert pictured.duplicates[columns].to_numpy().tolist() == [
        [0, "two labels", "train", 2, "2"],
        [0, "two labels", "train", 17, "1"],
        [0, "two labels", "query", 3, "4"],
    ]
    assert (pictured.duplicates["bits"] == 0).all()
    assert pictured.metrics["duplicates"]["two labels"] == 1
    assert found.duplicates.empty
    x = np.concatenate([TRAIN[0], 3 * TRAIN[0][4:5]])  # one direction, another length
    twice = dc.explain(train=(x, np.append(TRAIN[1], TRAIN[1][4])), test=TEST, influence="tracin")
    assert twice.duplicates[["kind", "row"]].to_numpy().tolist() == [["copies", 4], ["copies", 70]]
    without = dc.explain(train=TRAIN, test=TEST, influence="tracin", duplicates=False)
    with pytest.raises(UserError, match="duplicates were not looked for; call explain with duplicates=True"):
        without.duplicates  # noqa: B018


def test_previews_and_originals_are_found_from_the_reports_page(tmp_path):
    files = {}
    for side, n in (("train", 70), ("test", 47)):
        (tmp_path / "photos" / side).mkdir(parents=True)
        random = np.random.default_rng(n)
        files[side] = [tmp_path / "photos" / side / f"{i}.png" for i in range(n)]
        for file in files[side]:
            Image.fromarray(random.integers(0, 255, (200, 160, 3), np.uint8)).save(file)
    names = [[f"{i}.png" for i in range(n)] for n in (70, 47)]
    found = dc.explain(train=(*TRAIN, names[0]), test=(*TEST, names[1]), images=files, influence="tracin")
    page = found.report(tmp_path / "deep" / "report")

    def told(name):
        text = (page.parent / "data" / f"{name}.js").read_text("utf-8")
        return json.loads(re.search(r"[\[{].*[\]}]", text, re.DOTALL)[0])

    prefix = told("run")["previews"]["train"]["prefix"]
    assert (page.parent / prefix / "3.png").resolve() == files["train"][3].resolve()
    sizes = told("previews")
    assert sizes["train"]
    for name, some in sizes.items():
        for row, size in some.items():
            assert size == [160, 200]
            assert (page.parent / "previews" / f"{name}-{row}.webp").is_file()
