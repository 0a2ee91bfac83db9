import torch
import torch.nn.functional as F

from deconfuse.attribution.head import Targets
from deconfuse.influence.nearest import scores
from tests.influence.test_eif import GROUPS


def test_the_mean_cosine_with_the_sides_of_a_group(toy):
    training, test = toy
    found = scores(training, Targets(test, test, GROUPS, sign=-1.0))
    e, t = (
        F.normalize(F.linear(x, training.weight, training.bias), dim=1) for x in (training.features, test)
    )
    for group, row in zip(GROUPS, found, strict=True):
        want = torch.stack([(e @ t[q] + e @ t[g]) / 2 for q, g in group.tolist()]).mean(0)
        torch.testing.assert_close(row, want, rtol=1e-9, atol=1e-12)
