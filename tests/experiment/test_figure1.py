import numpy as np
import pandas as pd
import pytest

from deconfuse.experiment import figure1
from deconfuse.runs.section import MISSING
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
        folder,
        name or f"{loss}{seed}{choices}",
        seed,
        choices={"loss": loss, **choices},
        settings=settings,
        checkpoint={"sha256": f"{loss}{seed}{settings}"},
        tables={"confusions.csv": {"query": list(queries), "neighbour_class": ["x"] * len(queries)}},
    )


def test_figure1_pairs_each_two_models_of_a_data_set_once(tmp_path):
    runs = [
        model(tmp_path, "proxynca", 0, "abc"),
        model(tmp_path, "proxynca", 1, "bcd"),
        model(tmp_path, "softtriple", 0, "abcd"),
        model(tmp_path, "proxynca", 0, "abc", target="pairs"),
    ]
    (section,) = figure1.sections(runs)
    table = section.table.set_index("models")
    assert table["pairs of models"].to_dict() == {"proxynca, other seeds": 1, "proxynca and softtriple": 2}
    assert table["same queries"].tolist() == ["0.500", "0.750 ± 0.000"]
    assert table["same wrong class"].tolist() == ["1.000", "1.000 ± 0.000"]
    assert section.picture is not None
    assert figure1.sections(runs[:1]) == []


def test_figure1_names_recipes_and_not_what_its_models_were_asked(tmp_path):
    runs = []
    for epochs, methods in ((5, ("if", "eif")), (9, ("eif", "if"))):
        for seed, method in enumerate(methods):
            cells = {"name": f"{epochs}-{seed}", "settings": {"recipe": {"epochs": epochs}}}
            runs.append(model(tmp_path, "proxynca", seed, "abc", influence=method, **cells))
    (section,) = figure1.sections(runs)
    assert sorted(section.table["setting"]) == ["recipe.epochs=5", "recipe.epochs=9"]
    labels = [tick.get_text() for tick in section.picture.axes[0].get_yticklabels()]
    assert "glyphs: proxynca, other seeds: recipe.epochs=5" in labels


def test_figure1_takes_the_usual_loss(tmp_path):
    def made(seed, gamma, queries):
        name, settings = f"{seed}-{gamma}", {"loss": {"gamma": gamma}}
        return model(tmp_path, "softtriple", seed, queries, name=name, settings=settings)

    runs = [made(0, 1, "abc"), made(1, 1, "abcd"), made(1, 99, "xyz")]
    for order in (runs, runs[::-1]):
        (section,) = figure1.sections(order)
        assert section.table["same queries"].tolist() == ["0.750"]


def test_figure1_keeps_other_data_and_recipes_apart(tmp_path):
    runs = [
        model(
            tmp_path, "proxynca", seed, "abc", name=f"{seed}{epochs}", settings={"recipe": {"epochs": epochs}}
        )
        for seed in (0, 1)
        for epochs in (1, 2)
    ]
    (section,) = figure1.sections(runs)
    assert section.table["pairs of models"].tolist() == [1, 1]
    assert figure1.sections(runs[:2]) == []


def test_figure1_without_a_confusion_says_missing(tmp_path):
    (section,) = figure1.sections([model(tmp_path, "proxynca", seed, "") for seed in (0, 1)])
    assert section.table["same queries"].tolist() == [MISSING]
