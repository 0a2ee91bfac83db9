import numpy as np
import pytest
from scipy import stats

from deconfuse.runs.comparison import changes, compared, improvements, middle, retrained, versus
from tests.finished import finish

RANDOM = np.random.default_rng(5)
BEFORE = np.sort(RANDOM.uniform(0.1, 0.5, 13))
CHANGES = {
    (method, seed): RANDOM.normal(mean, 0.01, 13)
    for seed in (0, 1)
    for method, mean in (("eif", 0.012), ("if", 0.005), ("random", 0.0))
}


def made(folder, method, seed, *, change=None, before=BEFORE, target="pairs", table="confusions.csv", name="",
         settings=None, **report):  # fmt: skip
    change = CHANGES[method, seed] if change is None else np.asarray(change)
    columns = {"row": range(len(change)), "d_before": before[: len(change)], "change": change}
    return finish(
        folder,
        name or f"{target}-{method}-{seed}",
        seed,
        choices={"target": target, "influence": method},
        settings=settings or {"influence": {"_target_": method}, "retrain": {"mode": "cached", "lr": 4e-5}},
        tables={"retrained.csv": columns},
        **{"retrain": {"mean": float(change.mean()), "lr": 4e-5}, "explained": {"table": table}, **report},
    )


@pytest.fixture
def runs(tmp_path):
    return [made(tmp_path, method, seed) for method, seed in CHANGES]


def test_methods_are_paired_model_by_model(runs):
    found = {(methods, most): tests for _, methods, most, tests in compared(runs, (5, 13, 14))}
    assert set(found) == {(m, n) for m in ("eif > if", "eif > random", "if > random") for n in (5, 13)}
    for (methods, most), tests in found.items():
        first, _, second = methods.split()
        assert len(tests) == 2
        for seed, test in enumerate(tests):
            pair = CHANGES[first, seed][:most], CHANGES[second, seed][:most]
            assert test["improvement"] == pytest.approx((pair[0] - pair[1]).mean(), rel=1e-5)
            assert test["p_t"] == pytest.approx(
                stats.ttest_rel(*pair, alternative="greater").pvalue, rel=1e-4
            )
            wilcoxon = stats.wilcoxon(*pair, alternative="greater").pvalue
            assert test["p_wilcoxon"] == pytest.approx(wilcoxon)
    run, methods, *_ = next(compared(runs, (5,)))
    assert (run.where, methods) == ({"dataset": "glyphs", "noise": "none", "loss": "proxynca"}, "eif > if")


@pytest.mark.parametrize(
    "other",
    [
        {"checkpoint": {"sha256": "another"}},
        {"before": BEFORE[::-1]},
        {"change": np.ones(12)},
        {"settings": {"influence": {}, "retrain": {"mode": "cached", "lr": 4e-5}, "recipe": {"epochs": 2}}},
    ],
)
def test_what_is_not_of_the_same_explanations_is_not_paired(tmp_path, other):
    both = [made(tmp_path, "eif", 0), made(tmp_path, "if", 0, **other)]
    assert list(compared(both, (5,))) == []


def test_a_seed_that_one_method_lacks_is_left_out(runs):
    found = list(compared([run for run in runs if run.folder.name != "pairs-if-1"], (5,)))
    assert [(methods, len(tests)) for _, methods, _, tests in found] == [
        ("eif > if", 1), ("eif > random", 2), ("if > random", 1),
    ]  # fmt: skip


def test_only_what_was_retrained_by_these_explanations_with_the_usual_settings(tmp_path, runs):
    plan = {"mode": "cached", "lr": 4e-5}
    odd = [
        made(tmp_path, "eif", 0, name="wide", settings={"influence": {"radius": 0.16}, "retrain": plan}),
        made(tmp_path, "eif", 0, name="fast",
             settings={"influence": {"_target_": "eif"}, "retrain": {**plan, "lr": 1}}),
        made(tmp_path, "eif", 0, name="few",
             settings={"influence": {"_target_": "eif"}, "retrain": plan, "target": {"most": 5}}),
        made(tmp_path, "eif", 0, target="groups", table="groups.csv"),
        made(tmp_path, "eif", 0, target="all"),
        made(tmp_path, "eif", 1, name="none", retrain=None),
    ]  # fmt: skip
    assert {run.folder for run in retrained(runs + odd, "confusions.csv")} == {run.folder for run in runs}
    assert [run.folder.name for run in retrained(runs + odd, "groups.csv")] == ["groups-eif-0"]


def test_each_methods_own_change(runs):
    (part,) = changes(runs, "name", "title")
    assert part.table["method"].tolist() == ["eif", "if", "random"]
    assert part.table["models"].tolist() == [2, 2, 2]
    both = np.array([[CHANGES[m, s] for s in (0, 1)] for m in ("eif", "if", "random")])
    for row, cell, share in zip(both, part.table["change of d"], part.table["share > 0"], strict=True):
        means, above = row.mean(1), (row > 0).mean(1)
        assert cell == f"{means.mean():.4f} ± {means.std(ddof=1):.4f}"
        assert share == f"{above.mean():.2f} ± {above.std(ddof=1):.2f}"
    assert changes([], "name", "title") == []


def test_another_recipes_row_says_so(tmp_path):
    wide = {"influence": {}, "retrain": {"mode": "cached", "lr": 4e-5}, "model": {"width": 8}}
    runs = [
        made(tmp_path, method, 0, name=f"{method}{len(settings)}", settings=settings)
        for method in ("eif", "if")
        for settings in (wide, {**wide, "model": {"width": 4}, "recipe": {"epochs": 2}})
    ]
    table = improvements(runs, "pairs", {5: "0.1, 0.2"}, lambda tests: {})
    assert sorted(table["setting"]) == [
        "model.width=4, recipe.epochs=2", "model.width=8, recipe.epochs=null",
    ]  # fmt: skip
    assert list(table)[:6] == ["dataset", "noise", "loss", "methods", "pairs", "setting"]
    assert "setting" not in improvements(runs[::2], "pairs", {5: "0.1, 0.2"}, lambda tests: {})


def test_the_model_in_the_middle():
    tests = [{"effect": e, "low": e - 1, "high": e + 1} for e in (2.0, float("nan"), 0.5, 1.25)]
    assert middle(tests) == "1.25 [0.25, 2.25]"
    assert middle(tests[:2]) == "2.00 [1.00, 3.00]"
    assert middle([tests[1]]) == middle([]) == "-"


def test_the_picture_has_a_dot_for_each_model(runs):
    (part,) = changes(runs, "name", "Title")
    (axis,) = part.picture.axes
    assert [tick.get_text() for tick in axis.get_yticklabels()] == ["eif", "if", "random"]
    dots = axis.lines[0]
    np.testing.assert_allclose(dots.get_xdata(), [CHANGES["eif", seed].mean() for seed in (0, 1)])
    assert axis.lines[1].get_xdata()[0] == pytest.approx(np.mean(dots.get_xdata()))
    assert axis.get_title() == "glyphs, proxynca, clean labels"
    (legend,) = part.picture.legends
    assert [text.get_text() for text in legend.get_texts()] == ["a model", "their mean"]


def test_every_method_is_compared_with_eif_and_with_random_and_scripts_with_scripts():
    standard = ("random", "tracin", "if_code", "if", "eif_code", "eif")
    assert versus(standard) == [
        ("eif", "if"), ("eif", "tracin"), ("eif", "random"), ("eif_code", "if_code"),
        ("if", "random"), ("tracin", "random"),
    ]  # fmt: skip
    assert versus(["mine", "eif"]) == [("eif", "mine")]  # a new method needs to be listed nowhere
    assert versus(["mine", "random", "eif_code"]) == [("mine", "random")]
    assert versus(["eif"]) == versus([]) == []
