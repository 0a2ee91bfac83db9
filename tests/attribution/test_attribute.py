import pytest
import torch

from deconfuse.attribution.look import Frozen
from deconfuse.influence import tracin
from deconfuse.retrieval.confusion import Explained, Pairs
from tests.influence.test_tracin import by_hand


@pytest.mark.parametrize(("sign", "table"), [(1.0, "confusions.csv"), (-1.0, "mis_similar.csv")])
def test_targets_have_the_sign_of_what_is_explained(tmp_path, sign, table):
    training, targets = by_hand(1.0)
    pairs = Pairs(torch.tensor([0]), torch.tensor([1]), torch.tensor([2.0]))
    explained = Explained((torch.tensor([[0, 1]]),), sign, table, pairs)
    found = Frozen(training, targets.query, targets.gallery, tmp_path).targets(explained)
    assert (found.sign, found.folder) == (sign, tmp_path)
    assert torch.equal(found.query, targets.query)
    assert torch.equal(found.gallery, targets.gallery)
    # What brings the pair closer harms a confusion, and helps a mis-similar pair.
    want = sign * torch.tensor([[-2.0, -30.0, -2.0]], dtype=torch.float64)
    torch.testing.assert_close(tracin.scores(training, found), want)
