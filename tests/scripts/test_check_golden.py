import numpy as np
import pytest

from deconfuse.system.arrays import read_arrays, write_arrays
from deconfuse.system.errors import UserError
from scripts.check_golden import main
from tests.conftest import SHARED


@pytest.fixture
def recorded(golden):
    golden("softtriple")  # skips where there is none
    return SHARED / "golden" / "omniglot_softtriple.npz"


def test_recorded_files_agree(recorded, capsys):
    assert main([str(recorded), str(recorded.with_name("omniglot_proxynca.npz"))]) == 0
    said = capsys.readouterr().out
    for key in ("eif_theta1", "eif_theta2", "group_eif", "if_lissa", "group_if_lissa", "knn_prob"):
        assert said.count(f"  {key} ") == 2
    assert "agrees" in said


def test_a_changed_score_is_noticed(recorded, tmp_path, capsys):
    data = read_arrays(recorded)
    data["if_lissa"] = data["if_lissa"].copy()
    data["if_lissa"][3, 7] += 1e-3 * np.abs(data["if_lissa"]).max()
    path = tmp_path / "changed_softtriple.npz"
    write_arrays(path, **data)
    assert main([str(path)]) == 1
    assert "DIFFERS: largest 1.0e-03" in capsys.readouterr().out


def test_what_is_missing_is_named(tmp_path):
    with pytest.raises(UserError, match=r"nothing.npz: no such file"):
        main([str(tmp_path / "nothing.npz")])
    write_arrays(tmp_path / "x.npz", weight=np.zeros(2))
    with pytest.raises(UserError, match=r"x.npz: no array train_features"):
        main([str(tmp_path / "x.npz")])
    with pytest.raises(UserError, match=r"give the files"):
        main([])
