import pytest
import torch

from deconfuse.retrieval.confusion import find
from deconfuse.retrieval.queries import Queries
from deconfuse.system.errors import UserError
from deconfuse.target import groups, mis_similar, pairs


@pytest.fixture
def test_side():
    """40 samples of 7 classes with their confusions."""
    z = torch.nn.functional.normalize(torch.randn(40, 3, generator=torch.Generator().manual_seed(0)), dim=1)
    labels = torch.arange(40) % 7
    test = Queries(z, z, labels, labels, same=True)
    return find(test), test


@pytest.mark.parametrize("most", [None, 1, 5, 999])
def test_pairs_are_the_closest_confusions_each_alone(test_side, most):
    confusions = test_side[0]
    found = pairs.choose(*test_side, most=most)
    assert [group.tolist() for group in found.groups] == [[pair] for pair in confusions.pairs.tolist()][:most]
    assert (found.sign, found.table) == (1.0, "confusions.csv")


def test_groups_are_all_confusions_of_a_class(test_side):
    confusions, labels = test_side[0], test_side[1].query_labels
    found = groups.choose(*test_side, most=4)
    sizes = torch.bincount(labels[confusions.query]).sort(descending=True).values
    assert [len(group) for group in found.groups] == sizes[:4].tolist()
    for group in found.groups:
        assert len(set(labels[group[:, 0]].tolist())) == 1
    everything = groups.choose(*test_side).groups
    assert sorted(torch.cat(everything).tolist()) == sorted(confusions.pairs.tolist())


def test_mis_similar_pairs_have_one_class_and_the_other_sign(test_side):
    labels = test_side[1].query_labels
    found = mis_similar.choose(*test_side, most=6)
    assert (found.sign, found.table, len(found.groups), len(found.pairs)) == (-1.0, "mis_similar.csv", 6, 6)
    for group in found.groups:
        assert labels[group[0, 0]] == labels[group[0, 1]]
    assert (found.pairs.distance.diff() <= 0).all()


@pytest.mark.parametrize("choose", [pairs.choose, groups.choose, mis_similar.choose])
def test_how_many_has_to_be_a_number_of_them(test_side, choose):
    with pytest.raises(UserError, match=r"target.most=0 is too small"):
        choose(*test_side, most=0)
