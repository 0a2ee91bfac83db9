import numpy as np
import pytest

from deconfuse.experiment import closed_loop
from tests.finished import finish, noise_report

FLIPPED = {"choices": {"noise": "flip_10"}, "settings": {"noise": {"ratio": 0.1, "kind": "symmetric"}}}


def looped(folder, seed, recalls, clean=None, wrong=9, asked=2):
    rounds = [
        {
            "round": i,
            "R@1": r,
            "MAP@R": r / 2,
            "relabelled": i,
            "left_out": 0,
            "wrong": wrong,
            "broken": wrong,
        }
        for i, r in enumerate(recalls)
    ]
    clean = clean and {"R@1": clean, "MAP@R": clean / 2}
    settings = {**FLIPPED["settings"], "loop": {"rounds": asked, "sure": 0.9}}
    loop = {"rounds": rounds, "clean": clean}
    name, report = f"loop{seed}-{asked}", {"noise": noise_report(0.9), "loop": loop}
    return finish(folder, name, seed, **{**FLIPPED, "settings": settings}, **report)


def test_the_loop_wins_back_a_share_of_the_mean_loss(tmp_path):
    # Lost: 0.3 and 0.1; won after one round: 0.2 and 0.1; the second loop ended there.
    (section,) = closed_loop.sections(
        [looped(tmp_path, 0, (0.5, 0.7, 0.74), 0.8), looped(tmp_path, 1, (0.6, 0.7), 0.7)]
    )
    table = section.table.set_index("round")
    assert list(table.index) == ["0", "1", "2", "clean labels"]
    assert table["R@1 won back"].tolist() == ["-", "75%", "85%", "-"]
    assert table.loc["2", "R@1"] == "0.720 ± 0.028"
    assert table.loc["clean labels", "R@1"] == "0.750 ± 0.071"
    assert table.loc["clean labels", "relabelled"] == "-"
    assert set(table["noise"]) == {"10 % symmetric"}


@pytest.mark.parametrize(
    ("clean", "cell"), [(None, "-"), (0.4, "nothing was lost"), (0.5, "nothing was lost")]
)
def test_without_a_loss_nothing_is_won_back(tmp_path, clean, cell):
    (section,) = closed_loop.sections([looped(tmp_path, 0, (0.5, 0.7), clean, wrong=None)])
    table = section.table.set_index("round")
    assert table.loc["1", "MAP@R won back"] == cell
    assert table.loc["1", "wrong"] == "-"


def test_a_loop_that_was_asked_for_fewer_rounds_counts_in_those(tmp_path):
    (section,) = closed_loop.sections(
        [
            looped(tmp_path, 0, (0.5, 0.7, 0.74), 0.8),
            looped(tmp_path, 1, (0.6, 0.7), 0.7, asked=1),
            looped(tmp_path, 0, (0.5, 0.7), 0.8, asked=1),  # the same seed with fewer rounds
        ]
    )
    table = section.table.set_index("round")
    assert table["models"].tolist() == [2, 2, 1, 2]
    assert table["R@1 won back"].tolist() == ["-", "75%", "80%", "-"]


def test_the_picture_has_a_line_for_each_seed_and_their_mean(tmp_path):
    (section,) = closed_loop.sections(
        [looped(tmp_path, 0, (0.5, 0.7, 0.74), 0.8), looped(tmp_path, 1, (0.6, 0.7), 0.7)]
    )
    recall, map_at_r = section.picture.axes
    assert (recall.get_ylabel(), map_at_r.get_ylabel()) == ("R@1", "MAP@R")
    assert recall.get_title() == "glyphs, proxynca, 10 % symmetric noise"
    for axis, of in ((recall, 1.0), (map_at_r, 0.5)):
        one, other, mean, clean = (np.array(line.get_ydata()) / of for line in axis.lines)
        np.testing.assert_allclose(one, [0.5, 0.7, 0.74])
        np.testing.assert_allclose(other, [0.6, 0.7])
        np.testing.assert_allclose(mean, [0.55, 0.7, 0.72])  # what ended early stays where it is
        np.testing.assert_allclose(clean, [0.75, 0.75])


def test_the_mean_in_the_picture_is_of_the_same_models_all_along(tmp_path):
    (section,) = closed_loop.sections(
        [looped(tmp_path, 0, (0.5, 0.7, 0.74)), looped(tmp_path, 1, (0.6, 0.7), asked=1)]
    )
    *lines, mean = section.picture.axes[0].lines
    assert [len(line.get_ydata()) for line in lines] == [3, 2]
    np.testing.assert_allclose(mean.get_ydata(), [0.55, 0.7])
