import numpy as np
import pytest
import torch
import torch.nn.functional as F

from deconfuse.frozen import start_derivative as module
from deconfuse.frozen.start import class_means, placed
from deconfuse.frozen.start_derivative import Adjoints, Samples, Whitened, weight_derivatives
from deconfuse.frozen.whitening import scatter, whitening

N, D, C, K, STEP = 41, 6, 4, 3, 1e-5


def samples(n=N, d=D, each=1, m=4, spread=1.0, out=(5, 17)):
    """Samples of C classes, some of which take no part, with c * each random proxies."""
    draw = torch.Generator().manual_seed(2)
    labels = torch.arange(n) % C
    inside = spread * torch.randn(n, d, generator=draw, dtype=torch.float64) * torch.linspace(0.5, 2, d)
    features = 2 * torch.randn(C, d, generator=draw, dtype=torch.float64)[labels] + inside + 3
    weights = torch.ones(n, dtype=torch.float64)
    weights[list(out)] = 0
    random = torch.randn(C * each, m, generator=draw, dtype=torch.float64)
    return Samples(features, labels, weights, random, C)


def start_at(given, weights, m, shrink, like=None):
    """(W, b, proxies) by the functions that make the start, with the signs of `like`."""
    weight, bias = whitening(scatter(given.features, given.labels, given.weights * weights), m, shrink)
    if like is not None:
        signs = torch.where((weight * like).sum(1) < 0, -1.0, 1.0)
        weight, bias = signs[:, None] * weight, signs * bias
    means = class_means(given.features, given.labels, weight, bias, C, given.weights * weights)
    return weight, bias, placed(given.random, means)


def values(start, last):
    return sum((a * b).flatten(1).sum(1) for a, b in zip(start, last, strict=True))


def by_differences(given, last, m, shrink):
    """dv/dw_i by central differences of the whole start, which cost 1e-9 of rounding."""
    ones, found = torch.ones(len(given.labels), dtype=torch.float64), []
    like, *_ = start_at(given, ones, m, shrink)
    for row in STEP * torch.eye(len(ones), dtype=torch.float64):
        up, down = (start_at(given, ones + sign * row, m, shrink, like) for sign in (1, -1))
        found.append((values(up, last) - values(down, last)) / (2 * STEP))
    return torch.stack(found, 1)


def made(given, m, shrink):
    """(the whitened start, adjoints of K values, which are random)."""
    draw = torch.Generator().manual_seed(3)
    like, _ = whitening(scatter(given.features, given.labels, given.weights), m, shrink)
    shapes = (K, *like.shape), (K, m), (K, *given.random.shape)
    last = [torch.randn(*shape, generator=draw, dtype=torch.float64) for shape in shapes]
    return Whitened.of(scatter(given.features, given.labels, given.weights), shrink, like), last


@pytest.mark.parametrize("each", [1, 3])
@pytest.mark.parametrize(
    ("m", "shrink", "spread"), [(3, 0.3, 1.0), (6, 0.3, 1.0), (9, 0.1, 1.0), (3, 0.0, 1.0), (2, 0.3, 0.0)]
)
def test_equals_differences_of_the_whole_start(m, shrink, spread, each):
    """Fewer, as many and more directions than features, without shrinkage, without spread in classes."""
    given = samples(m=m, each=each, spread=spread)
    start, last = made(given, m, shrink)
    found = weight_derivatives(given, start, Adjoints(*last))
    # With m > D the last rows of W are 0 whatever the weights, and so are their derivatives.
    want = by_differences(given, last, m, shrink)
    torch.testing.assert_close(found, want, rtol=1e-5, atol=1e-6 * want.abs().max().item())
    assert (found[:, [5, 17]] == 0).all()
    assert want.abs().max() > 1e-3


@pytest.mark.parametrize("part", [0, 1, 2])
def test_each_of_weight_bias_and_proxies(part):
    given = samples(m=3)
    start, last = made(given, 3, 0.3)
    last = [each if i == part else torch.zeros_like(each) for i, each in enumerate(last)]
    found, want = weight_derivatives(given, start, Adjoints(*last)), by_differences(given, last, 3, 0.3)
    torch.testing.assert_close(found, want, rtol=1e-5, atol=1e-6 * want.abs().max().item())


def test_the_angle_of_one_direction_in_the_plane():
    """Without spread inside the classes W is the direction of the largest variance, at the angle theta with
    tan(2 theta) = 2 s_12 / (s_11 - s_22), and b = -W mean."""
    points = torch.tensor([[0.0, 0.0], [4.0, 1.0], [1.0, 2.0]]).double()
    labels = torch.tensor([0, 1, 2, 1, 1, 2])
    x, n = points[labels], 6
    given = Samples(x, labels, torch.ones(n).double(), torch.ones(3, 1).double(), 3)
    s = scatter(x, labels)
    theta = 0.5 * np.arctan2(2 * s.total[0, 1].item(), (s.total[0, 0] - s.total[1, 1]).item())
    weight = torch.tensor([[np.cos(theta), np.sin(theta)]])
    start = Whitened.of(s, 0.3, weight)
    torch.testing.assert_close(start.weight, weight, rtol=1e-12, atol=1e-12)
    apart = x - s.mean
    a, b = (s.total[0, 0] - s.total[1, 1]).item(), s.total[0, 1].item()
    own = apart[:, 0] * apart[:, 1], apart[:, 0].square() - apart[:, 1].square()
    turn = (a * own[0] - b * own[1]) / (a**2 + 4 * b**2) / n  # d theta / dw_i
    across = torch.tensor([[-np.sin(theta), np.cos(theta)]])
    last = Adjoints(across[None], torch.zeros(1, 1).double(), torch.zeros(1, 3, 1).double())
    torch.testing.assert_close(weight_derivatives(given, start, last)[0], turn, rtol=1e-10, atol=1e-13)
    last = Adjoints(torch.zeros(1, 1, 2).double(), torch.ones(1, 1).double(), last.proxies)
    want = -(across @ s.mean) * turn - apart @ weight[0] / n
    torch.testing.assert_close(weight_derivatives(given, start, last)[0], want, rtol=1e-10, atol=1e-13)


def square():
    """Four classes at the corners of a square, whose two directions vary alike; a third varies less."""
    corners = torch.tensor([[1.0, 0, 0.5], [-1, 0, 0.5], [0, 1, -0.5], [0, -1, -0.5]]).double()
    inside = torch.tensor([[1.0, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]]).double()
    x = (4 * corners[:, None] + inside).flatten(0, 1)
    return Samples(x, torch.arange(24) // 6, torch.ones(24).double(), torch.ones(4, 2).double(), 4)


def test_tied_directions_of_w_turn_but_distances_have_their_derivative():
    """||W delta||^2 does not depend on how the two tied directions are turned against each other."""
    given, m = square(), 2
    start, _ = made(given, m, 0.3)
    assert start.values[0] - start.values[1] < 1e-9 < start.values[1] - start.values[2]
    assert not start.cut
    delta = torch.tensor([[1.0, 0.3, 0.2], [0.1, -2, 1]]).double()
    last = Adjoints(
        2 * (delta @ start.weight.T)[:, :, None] * delta[:, None],
        torch.zeros(2, m).double(),
        torch.zeros(2, 4, m).double(),
    )
    ones, want = torch.ones(24).double(), []
    for row in STEP * torch.eye(24).double():
        up, down = (start_at(given, ones + sign * row, m, 0.3)[0] @ delta.T for sign in (1, -1))
        want.append((up.square().sum(0) - down.square().sum(0)) / (2 * STEP))
    want = torch.stack(want, 1)
    found = weight_derivatives(given, start, last)
    torch.testing.assert_close(found, want, rtol=1e-5, atol=1e-6 * want.abs().max().item())


def test_a_tie_between_what_is_kept_and_what_is_cut_off_is_known_and_finite():
    given = square()
    given = Samples(given.features, given.labels, given.weights, given.random[:, :1], 4)
    start, last = made(given, 1, 0.3)
    assert start.cut
    assert weight_derivatives(given, start, Adjoints(*last)).isfinite().all()


@pytest.mark.parametrize("m", [3, 6])
def test_blur_is_the_mean_over_shifted_gaps(m):
    """Against Cauchy's distribution on a grid of 200,000 quantiles, for each pair of directions by itself."""
    given = samples(m=m)
    start, _ = made(given, m, 0.3)
    values, k, blur = start.values, start.kept, 0.2
    g = torch.randn(1, m, D, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    f, r = module._of_moments(start, g, blur)
    exact, _ = module._of_moments(start, g, 0.0)
    q = (torch.arange(200_000).double() + 0.5) / 200_000
    quantiles = torch.tan(torch.pi * (q - 0.5))
    for b, a in ((0, 1), (1, 0), (2, 1), (5, 2)):
        gap, half = (values[a] - values[b]).item(), blur * (values[a] + values[b]).item() / 2
        shifted = gap + half * quantiles
        near = shifted.abs() > 1e-3 * half  # a principal value: both sides of the pole cancel
        mean = (1 / shifted[near]).mean().item() * near.double().mean().item()
        kept = f[0, b, a] / exact[0, b, a]
        assert kept.item() == pytest.approx(mean * gap, abs=0.02)
        whole, none = values[a] * exact[0, b, a], exact[0, b, a] * gap / 2  # g / 2 = F gap / 2
        want = kept * whole + (1 - kept) * none
        torch.testing.assert_close(r[0, b, a], want, rtol=1e-10, atol=1e-12)
    assert (f[0].diagonal()[:k] == 0).all()


def test_blur_changes_little_where_it_is_small():
    given = samples(m=3)
    start, last = made(given, 3, 0.3)
    exact, little, much = (weight_derivatives(given, start, Adjoints(*last), blur) for blur in (0, 1e-5, 1.0))
    torch.testing.assert_close(little, exact, rtol=1e-4, atol=1e-6)
    assert (much - exact).norm() > 0.1 * exact.norm()


def test_does_not_depend_on_how_many_rows_are_taken_at_once(monkeypatch):
    given = samples(m=3)
    start, last = made(given, 3, 0.3)
    want = weight_derivatives(given, start, Adjoints(*last))
    for name, value in (("OWN_BYTES", 1), ("ROWS", 7)):
        monkeypatch.setattr(module, name, value)
        found = weight_derivatives(given, start, Adjoints(*last))
        torch.testing.assert_close(found, want, rtol=1e-10, atol=1e-13)


def test_a_class_without_any_sample_and_a_sample_in_the_middle_have_finite_derivatives():
    """Class 3 has no sample; sample 0 is the mean, whose embedding has no direction."""
    given = samples(m=3, out=tuple(range(3, N, 4)))
    x = given.features.clone()
    used = given.weights > 0
    used[0] = False
    x[0] = x[used].mean(0)
    given = Samples(x, given.labels, given.weights, given.random, C)
    start, last = made(given, 3, 0.3)
    found = weight_derivatives(given, start, Adjoints(*last))
    assert found.isfinite().all()
    assert F.linear(x[:1], start.weight, start.bias).norm() < 1e-12
