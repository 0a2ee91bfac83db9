import numpy as np
import pytest

import deconfuse as dc
from tests.api.data import rows

TRAIN, TEST = rows(70, 5, 0), rows(47, 4, 1, first=5)


@pytest.mark.parametrize("detector", ["knn", "margin"])
def test_label_issues_are_in_the_form_of_cleanlab(detector):
    found = dc.explain(train=TRAIN, test=TEST, detector=detector)
    issues = found.to_cleanlab()
    assert list(issues) == ["is_label_issue", "label_score", "given_label", "predicted_label"]
    assert issues["is_label_issue"].dtype.kind == "b"
    assert np.flatnonzero(issues["is_label_issue"]).tolist() == sorted(found.relabels["sample"])
    assert issues["label_score"].between(0, 1).all()
    order = np.argsort(issues["label_score"].to_numpy(), kind="stable")
    suspicion = found.samples["suspicion"].to_numpy()[order]
    assert (np.diff(suspicion) <= 1e-6).all()  # the lower the score, the more suspicious
    if detector == "knn":
        np.testing.assert_allclose(issues["label_score"], found.samples["vote_current"], rtol=1e-6)


def test_the_columns_are_those_of_datalab_itself():
    """The issues that Datalab finds in the same labels have the same columns and types."""
    pytest.importorskip("datasets")
    from cleanlab import Datalab

    found = dc.explain(train=TRAIN, test=TEST)
    lab = Datalab({"label": TRAIN[1].tolist()}, label_name="label", verbosity=0)
    share = np.full((70, 5), 0.05) + 0.75 * np.eye(5)[TRAIN[1]]
    lab.find_issues(pred_probs=share, issue_types={"label": {}})
    theirs, own = lab.get_issues("label"), found.to_cleanlab()
    assert list(own) == list(theirs)
    assert own["is_label_issue"].dtype == theirs["is_label_issue"].dtype
    assert own["label_score"].dtype == theirs["label_score"].dtype
