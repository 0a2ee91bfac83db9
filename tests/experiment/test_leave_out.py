import numpy as np
import pytest
from scipy.stats import ttest_rel

from deconfuse.experiment import leave_out
from tests.finished import finish


def made(folder, method, d, confused):
    """A run of 4 confusions, one share, 2 seeds; d with all samples is 0.5, all are confused."""
    table = {
        "row": np.repeat(np.arange(4), 2),
        "share": 0.02,
        "left_out": 7,
        "seed": np.tile([0, 1], 4),
        "d_kept": 0.5,
        "d": np.repeat(d, 2),
        "confused_kept": True,
        "confused": np.repeat(confused, 2),
    }
    return finish(
        folder,
        method,
        choices={"influence": method},
        tables={"left_out.csv": table},
        leave_out={"spread": 0.1},
    )


def test_methods_against_random_samples(tmp_path):
    eif, tracin, chance = [0.9, 0.7, 0.8, 0.65], [0.6, 0.7, 0.5, 0.55], [0.5, 0.52, 0.47, 0.5]
    (section,) = leave_out.sections(
        [
            made(tmp_path, "eif", eif, [False, False, False, True]),
            made(tmp_path, "tracin", tracin, [True] * 4),
            made(tmp_path, "random", chance, [True] * 4),
        ]
    )
    table = section.table.set_index("method")
    assert table.loc["eif", ["left out", "change of d", "in sd"]].tolist() == ["2.0% (7)", "+0.2625", "+2.62"]
    assert table.loc["eif", "mended"] == "3 of 4 [30%, 95%]"
    assert table.loc["random", ["over random", "p"]].tolist() == ["-", "-"]
    p = [ttest_rel(each, chance, alternative="greater").pvalue for each in (eif, tracin)]
    smaller = 2 * min(p)
    assert float(table.loc["eif", "p"]) == pytest.approx(
        smaller if p[0] < p[1] else max(smaller, p[0]), rel=0.05
    )
    assert float(table.loc["tracin", "p"]) == pytest.approx(max(p[1], smaller), rel=0.05)
    assert section.picture is not None


def test_runs_that_left_nothing_out_make_no_table(tmp_path):
    assert leave_out.sections([finish(tmp_path, "a")]) == []
