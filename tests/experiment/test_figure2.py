import numpy as np

from deconfuse.experiment import figure2
from tests.finished import finish, noise_report


def ranked(folder, theta, seed, mean, flipped, **settings):
    samples = {"influence_mean": mean, "influence_abs_mean": np.abs(mean), "flipped": flipped}
    return finish(
        folder,
        f"{theta}-{seed}{settings}",
        seed,
        choices={"noise": "flip_10"},
        settings={"influence": {"n_theta": theta, **settings}, "noise": {"ratio": 0.1, "kind": "shift"}},
        noise=noise_report(0.9),
        tables={"samples.csv": samples},
    )


def test_figure2_shares_found(tmp_path):
    # Of ten samples 0 and 9 are flipped: the largest, and the most negative one.
    mean, flipped = np.array([9.0, 1, 2, 3, 4, 3, 2, 1, 0, -8]), np.arange(10) % 9 == 0
    runs = [
        ranked(tmp_path, 1, 0, mean, flipped),
        ranked(tmp_path, 2, 0, mean, flipped),
        ranked(tmp_path, 2, 1, -mean, flipped),
    ]
    assert figure2.sections(runs[:1]) == []
    odd = ranked(tmp_path, 1, 0, mean, flipped, radius=0.5)  # a sweep over something else
    (section,) = figure2.sections([*runs, odd])
    table = section.table.set_index(["N", "ranking"])
    assert list(table.index) == [(1, "by size"), (1, "signed"), (2, "by size"), (2, "signed")]
    assert set(table["noise"]) == {"10 % shift"}
    assert table["models"].tolist() == [1, 1, 2, 2]
    columns = [f"found at {share} %".replace(" %", "%") for share in (5, 10, 20, 50)]
    assert table.loc[(1, "by size"), columns].tolist() == ["0.250", "0.500", "1.000", "1.000"]
    assert table.loc[(1, "signed"), columns].tolist() == ["0.250", "0.500", "0.500", "0.500"]
    assert table.loc[(2, "signed"), "found at 20%"] == "0.500 ± 0.000"
    assert section.picture is not None
