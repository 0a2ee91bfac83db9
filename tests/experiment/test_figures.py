import numpy as np
import pandas as pd
import pytest
from PIL import Image

from src.errors import UserError
from src.experiment import figure1, figure2, figure3
from src.part import MISSING
from tests.finished import finish


def test_overlap_by_hand():
    first, second = {"a": "x", "b": "y", "c": "x"}, {"b": "y", "c": "y", "d": "z", "e": "y"}
    found = figure1.overlap(first, second, 10)
    # 2 of 5 queries; 3 x 4 / 10 = 1.2 expected of 5.8; b of b, c; x 2/3 0, y 1/3 3/4, z 0.
    expected = {"same queries": 2 / 5, "by chance": 1.2 / 5.8, "same wrong class": 1 / 2}
    assert found == pytest.approx({**expected, "same class by chance": 1 / 4})


def test_the_chance_level_is_that_of_random_confusions():
    random, classes = np.random.default_rng(0), np.array(list("xxxyz"))

    def draw(size):
        queries = random.permutation(400)[:size].tolist()
        return dict(zip(queries, random.choice(classes, size).tolist(), strict=True))

    found = pd.DataFrame([figure1.overlap(draw(90), draw(130), 400) for _ in range(300)]).mean()
    assert found["same queries"] == pytest.approx(found["by chance"], abs=0.004)
    assert found["same wrong class"] == pytest.approx(found["same class by chance"], abs=0.02)


def model(folder, loss, seed, queries, *, name="", settings=None, **choices):
    return finish(
        folder, name or f"{loss}{seed}{choices}", seed,
        choices={"loss": loss, **choices}, settings=settings,
        checkpoint={"sha256": f"{loss}{seed}{settings}"},
        tables={"confusions.csv": {"query": list(queries), "neighbour_class": ["x"] * len(queries)}},
    )  # fmt: skip


def test_figure1_pairs_each_two_models_of_a_data_set_once(tmp_path):
    runs = [model(tmp_path, "proxynca", 0, "abc"), model(tmp_path, "proxynca", 1, "bcd"),
            model(tmp_path, "softtriple", 0, "abcd"), model(tmp_path, "proxynca", 0, "abc", target="pairs")]  # fmt: skip
    (part,) = figure1.parts(runs)
    table = part.table.set_index("models")
    assert table["pairs of models"].to_dict() == {"proxynca, other seeds": 1, "proxynca and softtriple": 2}
    assert table["same queries"].tolist() == ["0.500", "0.750 ± 0.000"]
    assert table["same wrong class"].tolist() == ["1.000", "1.000 ± 0.000"]
    assert part.picture is not None
    assert figure1.parts(runs[:1]) == []


def test_figure1_keeps_other_data_and_recipes_apart(tmp_path):
    runs = [model(tmp_path, "proxynca", seed, "abc", name=f"{seed}{epochs}", settings={"recipe": {"epochs": epochs}})
            for seed in (0, 1) for epochs in (1, 2)]  # fmt: skip
    (part,) = figure1.parts(runs)
    assert part.table["pairs of models"].tolist() == [1, 1]
    assert figure1.parts(runs[:2]) == []


def test_figure1_without_a_confusion_says_missing(tmp_path):
    (part,) = figure1.parts([model(tmp_path, "proxynca", seed, "") for seed in (0, 1)])
    assert part.table["same queries"].tolist() == [MISSING]


def ranked(folder, theta, seed, mean, flipped, **settings):
    samples = {"influence_mean": mean, "influence_abs_mean": np.abs(mean), "flipped": flipped}
    return finish(
        folder, f"{theta}-{seed}{settings}", seed, choices={"noise": "flip_10"},
        settings={"influence": {"n_theta": theta, **settings}, "noise": {"ratio": 0.1, "kind": "shift"}},
        noise={"absolute_influence": {"auroc": 1.0}}, tables={"samples.csv": samples},
    )  # fmt: skip


def test_figure2_shares_found(tmp_path):
    # Of ten samples 0 and 9 are flipped: the largest, and the most negative one.
    mean, flipped = np.array([9.0, 1, 2, 3, 4, 3, 2, 1, 0, -8]), np.arange(10) % 9 == 0
    runs = [ranked(tmp_path, 1, 0, mean, flipped), ranked(tmp_path, 2, 0, mean, flipped),
            ranked(tmp_path, 2, 1, -mean, flipped)]  # fmt: skip
    assert figure2.parts(runs[:1]) == []
    odd = ranked(tmp_path, 1, 0, mean, flipped, radius=0.5)  # a sweep over something else
    (part,) = figure2.parts([*runs, odd])
    table = part.table.set_index(["N", "ranking"])
    assert list(table.index) == [(1, "by size"), (1, "signed"), (2, "by size"), (2, "signed")]
    assert set(table["noise"]) == {"10 % shift"}
    assert table["models"].tolist() == [1, 1, 2, 2]
    columns = [f"found at {share} %".replace(" %", "%") for share in (5, 10, 20, 50)]
    assert table.loc[(1, "by size"), columns].tolist() == ["0.250", "0.500", "1.000", "1.000"]
    assert table.loc[(1, "signed"), columns].tolist() == ["0.250", "0.500", "0.500", "0.500"]
    assert table.loc[(2, "signed"), "found at 20%"] == "0.500 ± 0.000"
    assert part.picture is not None


def drawn(folder, method, scores, **report):
    run = finish(
        folder, method, choices={"target": "pairs", "influence": method}, scores=scores,
        tables={"samples.csv": {"class": list("xxyyzzw")}}, **report,
    )  # fmt: skip
    Image.new("RGB", (4, 3), "red" if method == "eif" else "blue").save(run.folder / "harmful.png")
    return run


SCORES = {"eif": [[7, 6, 5, 4, 3, 2, 1], [1, -1, -1, 2, -1, -1, -1]],
          "if": [[1, 2, 3, 4, 5, 6, 7], [1, -1, -1, -1, 2, -1, -1]]}  # fmt: skip


def test_figure3_counts_what_both_methods_name(tmp_path):
    (part,) = figure3.parts([drawn(tmp_path, method, scores) for method, scores in SCORES.items()])
    # Pair 0: samples 0-4 and 2-6 share 2, 3, 4; pair 1: 3, 0 and 4, 0 share 0.
    assert part.table["of five, shared by both"].tolist() == ["2.00", "2.00"]
    assert part.table["classes among five"].tolist() == ["2.50", "2.50"]  # xxyyz, yx; wzzyy, zx
    assert part.table["pairs"].tolist() == [2, 2]
    assert part.picture.size == (4, 6)
    assert [part.picture.getpixel((0, y)) for y in (0, 3)] == [(255, 0, 0), (0, 0, 255)]


def test_figure3_is_of_one_model_and_the_same_pairs(tmp_path):
    eif = drawn(tmp_path, "eif", SCORES["eif"])
    for i, other in enumerate(({"checkpoint": {"sha256": "another"}}, {"scores": SCORES["if"][:1]})):
        run = drawn(tmp_path / str(i), "if", other.pop("scores", SCORES["if"]), **other)
        assert figure3.parts([eif, run]) == []


def test_figure3_names_a_damaged_picture(tmp_path):
    runs = [drawn(tmp_path, method, scores) for method, scores in SCORES.items()]
    path = runs[1].folder / "harmful.png"
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(UserError, match=f"^{path}: can't be read"):
        figure3.parts(runs)
