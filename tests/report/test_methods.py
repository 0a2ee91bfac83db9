import numpy as np

from deconfuse.report.methods import Method, methods
from deconfuse.system.files import write_json
from tests.findings import found  # noqa: F401 - a fixture
from tests.finished import finish


def other(folder, name, scores, sha="same", method="if", table="confusions.csv", **choices):
    finish(
        folder,
        name,
        choices={"influence": method, **choices},
        settings={},
        scores=scores,
        checkpoint={"sha256": sha},
        explained={"table": table, "rows": len(scores)},
    )
    write_json(folder / name / "influence_index.json", {"unit": f"unit of {method}"})


def test_methods_are_the_runs_that_explain_the_same_by_other_scores(found, tmp_path):  # noqa: F811
    own = Method("eif", "this", "nats", found.influence)
    other(tmp_path, "a-if", (found.influence + 1).tolist())
    other(tmp_path, "b-copy", found.influence.tolist(), method="eif")
    other(tmp_path, "c-other-model", (found.influence + 2).tolist(), sha="another")
    other(tmp_path, "d-groups", (found.influence + 3).tolist(), table="groups.csv")
    other(tmp_path, "e-fewer", (found.influence[:2] + 4).tolist(), method="tracin")
    other(tmp_path, "f-other-data", (found.influence[:, :5] + 5).tolist())
    other(tmp_path, "this", (found.influence + 6).tolist())
    (tmp_path / "g-damaged").mkdir()
    (tmp_path / "g-damaged" / "metrics.json").write_text("{")
    taken = methods(tmp_path, own, {"sha256": "same"}, found)
    assert [(m.name, m.run, m.unit, len(m.scores)) for m in taken] == [
        ("eif", "this", "nats", 3),
        ("if", "a-if", "unit of if", 3),
        ("tracin", "e-fewer", "unit of tracin", 2),
    ]
    np.testing.assert_allclose(taken[1].scores, found.influence + 1)


def test_two_settings_of_one_method_are_told_apart_by_their_runs(found, tmp_path):  # noqa: F811
    other(tmp_path, "run-11111111", (found.influence + 1).tolist(), method="eif")
    own = Method("eif", "run-00000000", "nats", found.influence)
    taken = methods(tmp_path, own, {"sha256": "same"}, found)
    assert [m.name for m in taken] == ["eif (00000000)", "eif (11111111)"]
