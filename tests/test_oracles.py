"""`influence=if` against libraries that were written without knowing of it: dattri and captum.

Both attribute a loss of a sample to the training samples. Here a sample is two rows of features (2, D): a
test sample is a pair, and its loss is the pair's distance d; a training sample is its features twice, and
its loss takes the first row. So both libraries compute grad d^T (H + lambda I)^-1 grad l, our score with
our sign, from their own gradients, Hessian and solve.
"""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call
from torch.utils.data import DataLoader, TensorDataset

from deconfuse.attribution.curvature import explicit, gradient_z
from deconfuse.attribution.head import Targets, Training, chunks, weight_gradient
from deconfuse.influence.influence_function import Solver, scores
from tests.damping import share_of_largest
from tests.influence.test_eif import GROUPS

DAMPING = 30.0  # enough that H + lambda I is positive definite: captum drops what is not
CLOSE = 1e-10  # of the largest score
INSTALL = "needs {}: make oracles, or pip install -e '.[oracles]'"


@pytest.fixture(autouse=True)
def float64():
    """The libraries fill in identity matrices and results of torch's default type."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


class Head(nn.Module):
    """z of both rows; W alone is a parameter, as W alone is attributed."""

    def __init__(self, training: Training):
        super().__init__()
        m, dims = training.weight.shape
        self.linear = nn.Linear(dims, m, bias=False)
        self.linear.weight = nn.Parameter(training.weight.clone())
        self.register_buffer("bias", training.bias)

    def forward(self, rows):
        return self.linear(rows) + self.bias  # (b, 2, m)


def losses(training):
    """(training loss, test loss) of z (b, 2, m) and labels (b,), a value per sample."""
    classes = range(int(training.labels.max()) + 1)

    def of_first_row(z, labels):
        # For every class, then the label's: torch.vmap allows no one-hot of the labels themselves.
        every = [training.loss(z[:, 0], torch.full((len(z),), c)) for c in classes]
        return torch.stack(every, 1).gather(1, labels[:, None])[:, 0]

    def distance(z, labels):
        return 2 - 2 * F.cosine_similarity(z[:, 0], z[:, 1])

    of_first_row.reduction = distance.reduction = "none"  # captum asks
    return of_first_row, distance


def samples(training, test):
    """The training samples and all pairs of all groups, as the libraries read them; pairs have no label."""
    pairs = torch.cat(GROUPS)
    twice = training.features[:, None].repeat(1, 2, 1)
    return TensorDataset(twice, training.labels), TensorDataset(test[pairs], torch.zeros(len(pairs)).long())


def of_groups(by_pair):
    """A group's d is the mean of its pairs' d, and so is its score, which is linear in grad d."""
    return torch.stack([part.mean(0) for part in by_pair.split([len(group) for group in GROUPS])])


def ours(training, test):
    damping = share_of_largest(training, DAMPING)
    return scores(training, Targets(test, test, GROUPS), solver=Solver("explicit"), damping=damping)


def by_dattri(training, test, batch):
    """dattri's scores (groups, n); batch: samples at a time where it takes the Hessian."""
    reason = INSTALL.format("dattri")
    task = pytest.importorskip("dattri.task", reason=reason)
    influence = pytest.importorskip("dattri.algorithm.influence_function", reason=reason)
    head = Head(training)
    train, pairs = samples(training, test)

    def mean_of(loss):
        def value(parameters, data):
            rows, labels = data
            return loss(functional_call(head, parameters, (rows,)), labels).mean()

        return value

    loss, distance = losses(training)
    # Its H is that of the loss it is given on a batch, here the mean as in ours: lambda as it is, sign +.
    attributor = influence.IFAttributorExplicit(
        task.AttributionTask(mean_of(loss), head, head.state_dict(), mean_of(distance)),
        regularization=DAMPING,
    )
    attributor.cache(DataLoader(train, batch))
    by_pair = attributor.attribute(DataLoader(train, len(train)), DataLoader(pairs, len(pairs)))
    return of_groups(by_pair.T)


def by_captum(training, test):
    """captum's scores (groups, n)."""
    influence = pytest.importorskip(
        "captum.influence._core.influence_function", reason=INSTALL.format("captum")
    )
    head, (loss, distance) = Head(training), losses(training)
    train, pairs = samples(training, test)
    n = len(train)
    naive = influence.NaiveInfluenceFunction(
        head,
        train,
        checkpoint="",
        checkpoints_load_func=lambda model, path: 0.0,  # the model comes with its weights
        loss_fn=loss,
        test_loss_fn=distance,
        batch_size=n,
        projection_dim=training.weight.numel(),  # all directions: no low-rank approximation
        hessian_reg=DAMPING * n,
        hessian_inverse_tol=0.0,
    )
    # Its H is the sum over the samples, ours the mean: (n H + n lambda I)^-1 = (H + lambda I)^-1 / n. Sign +.
    return of_groups(n * naive.influence(pairs.tensors))


def assert_same(found, want):
    assert (found - want).abs().max() <= CLOSE * want.abs().max()


# torch's forward-mode derivatives, which dattri's Hessian takes, bring up their own scripted functions.
@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:FutureWarning")
def test_dattri_with_one_batch_agrees(toy):
    assert_same(by_dattri(*toy, batch=23), ours(*toy))


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:FutureWarning")
def test_dattri_with_several_batches_sums_inverses_and_is_wrong(toy):
    """sum_b (H_b + lambda I)^-1 over batches b, not the inverse of their mean: why one batch is asked for."""
    training, test = toy
    found = by_dattri(training, test, batch=9)
    parts = [
        Training(phi, labels, training.weight, training.bias, training.loss)
        for phi, labels in zip(training.features.split(9), training.labels.split(9), strict=True)
    ]
    assert [len(part) for part in parts] == [9, 9, 5]
    summed = sum(torch.linalg.inv(explicit(part) + DAMPING * torch.eye(55)) for part in parts)
    gradients = torch.func.vmap(torch.outer)(gradient_z(training, training.z), training.features).flatten(1)
    (sides,) = chunks(Targets(test, test, GROUPS), 23)
    assert_same(found, weight_gradient(training, sides).flatten(1) @ summed @ gradients.T)
    right = ours(training, test)
    assert (found - right).abs().max() > right.abs().max()


def test_captum_with_all_directions_agrees(toy):
    assert_same(by_captum(*toy), ours(*toy))
