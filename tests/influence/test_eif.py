import inspect
from dataclasses import asdict

import numpy as np
import pytest
import torch

from deconfuse.attribution import head
from deconfuse.attribution.head import Targets, Training, chunks
from deconfuse.compute import exp_sums
from deconfuse.influence.eif import Around, RawSteps, Space, Sphere, climb, scores
from deconfuse.loss.proxynca import ProxyNCA
from deconfuse.loss.softtriple import SoftTriple
from deconfuse.retrieval.confusion import distance
from deconfuse.system.errors import UserError
from scripts.check_golden import groups as golden_groups
from tests.defaults import in_code, in_yaml
from tests.networks import only_a_head

CODE = {"path": RawSteps(), "normalise": False}


def slow(
    training, test, group, *, signs=(1,), radius=None, steps=50, step_size=1e-3, normalise=False, max_change=1
):
    """Eq. 6 by autograd on the whole weight matrix, one group, no low-rank form."""
    a, b = test[group[:, 0]], test[group[:, 1]]

    def d(weight):
        return distance(a @ weight.T + training.bias, b @ weight.T + training.bias).mean()

    def losses(weight):
        return training.loss(training.features @ weight.T + training.bias, training.labels)

    start, total = training.weight, 0
    for sign in signs:
        weight = start.clone()
        for _ in range(steps):
            leaf = weight.clone().requires_grad_()
            (gradient,) = torch.autograd.grad(d(leaf), leaf)
            if radius is None:
                if (d(weight) - d(start)).abs() >= max_change:
                    break
                weight = weight + sign * step_size * gradient
            else:
                length = radius * start.norm()
                weight = weight + sign * length / steps * gradient / gradient.norm()
        if radius is not None:
            weight = start + length * (weight - start) / (weight - start).norm()
        score = (d(weight) - d(start)) * (losses(weight) - losses(start))
        total = total + (score / (weight - start).norm() if normalise else score)
    return total / len(signs)


GROUPS = (torch.tensor([[0, 1]]), torch.tensor([[2, 3], [4, 2], [5, 6]]), torch.tensor([[7, 8], [1, 7]]))


@pytest.mark.parametrize("n_theta", [1, 2])
@pytest.mark.parametrize("radius", [None, 0.05, 0.5])
def test_equals_autograd_on_the_whole_weight(toy, n_theta, radius):
    training, test = toy
    path = RawSteps(step_size=0.01, steps=20) if radius is None else Sphere(radius, steps=20)
    normalise = radius is not None
    found = scores(training, Targets(test, test, GROUPS), n_theta=n_theta, path=path, normalise=normalise)
    settings = {"radius": radius, "steps": 20, "step_size": 0.01, "normalise": normalise}
    want = [slow(training, test, group, signs=(1, -1)[:n_theta], **settings) for group in GROUPS]
    torch.testing.assert_close(found, torch.stack(want), rtol=1e-7, atol=1e-9)


def test_raw_steps_end_once_d_has_moved_enough(toy):
    training, test = toy
    steps = {"steps": 40, "step_size": 0.05}
    targets, settings = Targets(test, test, GROUPS), {"n_theta": 2, "normalise": False}
    found = scores(training, targets, path=RawSteps(**steps, max_change=0.2), **settings)
    want = [slow(training, test, group, signs=(1, -1), max_change=0.2, **steps) for group in GROUPS]
    torch.testing.assert_close(found, torch.stack(want), rtol=1e-7, atol=1e-9)
    assert (found - scores(training, targets, path=RawSteps(**steps), **settings)).abs().max() > 1e-3


def test_the_seed_chooses_the_directions_beyond_two_alone(toy):
    training, test = toy
    targets = Targets.pairs(test, test, torch.tensor([[0, 1], [2, 3]]))
    two, three = ([scores(training, targets, n_theta=n, seed=seed) for seed in (4, 5)] for n in (2, 3))
    assert torch.equal(*two)
    assert (three[0] - three[1]).abs().max() > 1e-6
    # Of forty groups with the same pair each has directions of its own.
    alike = scores(training, Targets.pairs(test, test, torch.tensor([[0, 1]] * 40)), n_theta=3)
    apart = (alike[:, None] - alike).abs().amax(2) + torch.eye(40)
    assert apart.min() > 1e-9
    assert scores(training, targets, n_theta=10).isfinite().all()  # as many as d depends on


@pytest.mark.parametrize("path", [RawSteps(0.01, 20, 0.2), Sphere(0.1, 20)])
def test_the_climb_in_coordinates_of_the_span_is_the_climb(toy, path):
    training, test = toy
    pairs = Targets.pairs(test, test, torch.tensor([[0, 1], [2, 3], [4, 4]]))
    (sides,) = chunks(pairs, len(training), 3)
    space = Space.of(training, sides)
    assert space.z.shape == (3, 2, 5)  # two sides, five dimensions: the span is smaller
    torch.testing.assert_close(space.climb(-1, path, 3.0), climb(space, -1, path, 3.0), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("n_theta", [1, 2, 5])
def test_the_sizes_of_chunks_and_tiles_change_no_score(toy, n_theta, monkeypatch):
    training, test = toy
    targets, settings = Targets(test, test, GROUPS), {"n_theta": n_theta, "path": Sphere(0.1)}
    whole = scores(training, targets, **settings)
    for chunk, tile in ((1, 5), (2, 1), (3, 23)):  # groups, and training samples, at a time
        monkeypatch.setattr(head, "CHUNK_BYTES", 4 * 23 * 2 * 3 * chunk)
        for module in (exp_sums, head):  # of a softmax of cosines, and of other losses
            monkeypatch.setattr(module, "TILE_BYTES", 4 * len(training.proxies) * tile)
        torch.testing.assert_close(scores(training, targets, **settings), whole)


def golden_side(data, name):
    loss = (ProxyNCA if name == "proxynca" else SoftTriple)(40, 32)
    loss.proxies.data = torch.from_numpy(data["proxies"])
    tensors = [torch.from_numpy(data[key]) for key in ("train_features", "train_labels", "weight", "bias")]
    return Training(*tensors, loss.requires_grad_(False)), torch.from_numpy(data["test_features"])


@pytest.mark.parametrize("name", ["proxynca", "softtriple"])
def test_golden_pairs_and_groups(golden, name):
    data = golden(name)
    training, test = golden_side(data, name)
    pairs = Targets.pairs(test, test, torch.from_numpy(data["pairs"]))
    cases = {
        "eif_theta1": scores(training, pairs, **CODE),
        "eif_theta2": scores(training, pairs, n_theta=2, **CODE),
        "group_eif": scores(training, Targets(test, test, golden_groups(data)), **CODE),
    }
    for key, found in cases.items():
        error = np.abs(found.numpy() - data[key]).max() / np.abs(data[key]).max()
        assert error < 1e-5, key


def test_a_sample_that_pulls_the_pair_together_is_harmful():
    """Two test samples at +-45 degrees to axis 1. Raising d turns them away from it, so a training
    sample on their middle, whose class's proxy is there, loses: d and l rise together, score > 0. One
    whose proxy is a side's own direction gains: score < 0."""
    test = torch.tensor([[1.0, 0.6], [1.0, -0.6]], dtype=torch.float64)
    loss = ProxyNCA(2, 2).double()
    loss.proxies.data = torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    features = torch.tensor([[1.0, 0.5], [0.5, 1.0]], dtype=torch.float64)
    identity, zero = torch.eye(2, dtype=torch.float64), torch.zeros(2, dtype=torch.float64)
    training = Training(features, torch.tensor([0, 1]), identity, zero, loss.requires_grad_(False))
    found = scores(training, Targets.pairs(test, test, torch.tensor([[0, 1]])), path=Sphere(0.01))
    assert found[0, 0] > 0
    assert found[0, 1] < 0


def test_thetas_beyond_two_are_at_right_angles_on_the_same_sphere(toy):
    training, test = toy
    (sides,) = chunks(Targets(test, test, GROUPS), len(training), 3)
    space = Space.of(training, sides)
    length = 0.1 * training.weight.norm()
    moves = [space.climb(+1, Sphere(0.1, 10), training.weight.norm().item())]
    for _ in range(4):
        moves.append(space.orthogonal(moves, 3, sides.rows))
    for b in range(3):
        full = [move[b].T @ sides.features[b] for move in moves]  # (m, D) each
        for i, one in enumerate(full):
            assert one.norm().item() == pytest.approx(length.item(), rel=1e-9)
            for other in full[:i]:
                assert abs((one * other).sum().item()) < 1e-9


def test_a_theta_beyond_two_is_as_far_away_as_theta_max(toy):
    """By raw steps theta_max and theta_min are not equally far away."""
    training, test = toy
    (sides,) = chunks(Targets(test, test, GROUPS), len(training), 3)
    space = Space.of(training, sides)
    moves = [space.climb(sign, RawSteps(0.05, 20), 1.0) for sign in (+1, -1)]
    up, down, beyond = (space.norm(move) for move in (*moves, space.orthogonal(moves, 3, sides.rows)))
    assert (up / down - 1).abs().min() > 1e-3
    torch.testing.assert_close(beyond, up, rtol=1e-9, atol=0)


def test_a_move_that_cancels_has_length_zero_and_no_direction(toy):
    """Of two sides with features u and 3 u, moves of 3 a and -a add up to nothing, rounding apart."""
    _, test = toy
    random = torch.Generator().manual_seed(0)
    for u in test:
        features = torch.stack([u, 3 * u])[None]
        space = Space(features @ features.transpose(1, 2), torch.zeros(1, 2, 5).double(), torch.ones(1, 1))
        for _ in range(20):
            a = torch.randn(5, generator=random, dtype=torch.float64)
            # A square of 1e-16 of the terms, of either sign.
            assert space.norm(torch.stack([3 * a, -a])[None]).item() < 1e-7 * a.norm() * u.norm()
    nothing = torch.zeros(1, 2, 5, dtype=torch.float64)
    assert space.unit(nothing).tolist() == nothing.tolist()


@pytest.mark.parametrize(("angle", "apart"), [(0.9e-10, 0.0), (1.1e-10, 1.0)])
def test_a_pair_counts_as_copies_up_to_d_1e_20(angle, apart):
    """d of unit vectors at a small angle is its square."""
    weight, bias = torch.eye(2, dtype=torch.float64), torch.zeros(2, dtype=torch.float64)
    test = torch.tensor([[1.0, 0.0], [1.0, angle]], dtype=torch.float64)
    training = Training(test, torch.tensor([0, 1]), weight, bias, ProxyNCA(2, 2).double())
    (sides,) = chunks(Targets.pairs(test, test, torch.tensor([[0, 1]])), 2, 1)
    assert Space.of(training, sides).share.tolist() == [[apart]]


def test_no_groups_and_coinciding_samples_give_zero_not_nan(toy):
    training, test = toy
    assert scores(training, Targets(test, test, ())).shape == (0, 23)
    twice = Targets.pairs(test, test, torch.tensor([[3, 3]]))
    assert scores(training, twice).abs().max() < 1e-12


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_theta": 0}, "influence.n_theta=0 is too small"),
        ({"n_theta": 11}, "influence.n_theta=11: d depends on 10 directions only"),
    ],
)
def test_bad_settings_are_named(toy, settings, message):
    training, test = toy
    with pytest.raises(UserError, match=f"^{message}"):
        scores(training, Targets.pairs(test, test, torch.tensor([[0, 1]])), **settings)


@pytest.mark.parametrize(
    ("path", "settings", "message"),
    [
        (Sphere, {"radius": -1}, "influence.path.radius=-1 is not positive"),
        (Sphere, {"radius": 0}, "influence.path.radius=0 is not positive"),
        (Sphere, {"steps": 0}, "influence.path.steps=0 is too small"),
        (RawSteps, {"steps": 0}, "influence.path.steps=0 is too small"),
        (RawSteps, {"step_size": -1e-3}, "influence.path.step_size=-0.001 is too small; give 0 or more"),
        (RawSteps, {"max_change": 0}, "influence.path.max_change=0 is too small; give 1e-12 or more"),
    ],
)
def test_bad_paths_are_named(path, settings, message):
    with pytest.raises(UserError, match=f"^{message}"):
        path(**settings)


def test_the_least_values_are_allowed():
    assert (Sphere(1e-9, 1).steps, RawSteps(0, 1, 1e-12).steps) == (1, 1)
    with pytest.raises(UserError, match=r"^influence.path.max_change=9e-13 is too small; give 1e-12 or more"):
        RawSteps(max_change=9e-13)


def test_normalise_is_true_or_false(toy):
    training, test = toy
    with pytest.raises(UserError, match=r"^influence.normalise=no is neither true nor false"):
        inspect.unwrap(scores)(training, Targets(test, test, GROUPS), normalise="no")


def test_a_path_that_is_a_word_and_no_group_is_named(toy):
    training, test = toy
    with pytest.raises(
        UserError, match=r"influence.path=0.1 is not a group of keys; give influence.path.rad"
    ):
        inspect.unwrap(scores)(training, Targets(test, test, GROUPS), path=0.1)


def test_the_defaults_are_those_of_the_command_line(toy):
    paper, code = in_yaml("influence/eif"), in_yaml("influence/eif_code")
    for settings, path in ((paper, Sphere()), (code, RawSteps())):
        keys = {"_target_": f"deconfuse.influence.eif.{type(path).__name__}", **asdict(path)}
        assert settings.pop("path") == keys
    assert in_code(scores, paper) == paper
    assert in_code(scores, ["path"]) == {"path": Sphere()}
    training, test = toy
    targets = Targets(test, test, GROUPS)
    assert torch.equal(scores(training, targets, n_theta=3), scores(training, targets, n_theta=3, seed=0))


@pytest.mark.parametrize(
    "settings",
    [
        {"path": Sphere(steps=4)},
        {"path": Sphere(steps=4), "n_theta": 2},
        {"path": RawSteps(0.01, 4), "normalise": False, "n_theta": 2},
    ],
)
def test_a_network_that_is_only_a_head_has_the_heads_scores(toy, settings):
    training, test = toy
    targets, network = Targets(test, test, GROUPS, -1.0), only_a_head(training, test, "all", size=23)
    want, found = scores(training, targets, **settings), scores(network, targets, **settings)
    torch.testing.assert_close(found, want, rtol=1e-7, atol=1e-10 * want.abs().max().item())


def test_a_networks_pair_of_one_image_has_scores_of_zero_and_no_move_no_direction(toy):
    training, test = toy
    network, pair = only_a_head(training, test, "all", size=23), (torch.tensor([[3, 3]]),)
    targets = Targets(test, test, pair)
    assert scores(network, targets, path=Sphere(steps=4), n_theta=2).abs().max() < 1e-12
    space = Around(network, *network.sides(targets, 0))
    nothing = torch.zeros_like(space.z)
    assert not space.unit(nothing).any()
    assert space.norm(nothing).tolist() == space.change(nothing).tolist() == [0]
    assert space.unit(nothing + 2).norm().item() == pytest.approx(1)


def test_a_network_has_no_more_than_two_thetas(toy):
    training, test = toy
    network, targets = only_a_head(training, test, "all", size=23), Targets(test, test, GROUPS)
    with pytest.raises(UserError, match=r"influence.n_theta=3: .* take 1 or 2, or params=head"):
        scores(network, targets, n_theta=3)
