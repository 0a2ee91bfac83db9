from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from deconfuse.attribution.head import Training
from deconfuse.data.noise import NoisyLabels
from deconfuse.labels import loop
from deconfuse.labels.evidence import evidence
from deconfuse.labels.loop import Labels, Relabelling, Trained
from deconfuse.loss.proxynca import ProxyNCA
from deconfuse.system.errors import UserError
from tests.made import model_and_data


def clouds(labels, seed=0, spread=0.15):
    """Three clouds of nine samples along the axes, whatever the labels say; the head is the identity."""
    random = torch.Generator().manual_seed(seed)
    where = torch.arange(27) // 9
    features = torch.eye(3)[where] + spread * torch.randn(27, 3, generator=random)
    loss = ProxyNCA(3, 3).requires_grad_(False)
    loss.proxies.data = torch.eye(3)
    return Training(features, torch.from_numpy(labels), torch.eye(3), torch.zeros(3), loss)


CLEAN = np.arange(27) // 9
NOISY = NoisyLabels(np.where(np.isin(np.arange(27), [2, 13, 20]), (CLEAN + 1) % 3, CLEAN), CLEAN)


def test_rounds_and_candidates_exclude_each_other():
    model, _ = model_and_data()
    loop.allowed(Relabelling(0, 0.9, False), 10, model)
    loop.allowed(Relabelling(2, 0.9, False), None, model)
    with pytest.raises(UserError, match=r"^loop.rounds=2 judges every sample, but candidates=10 asks few"):
        loop.allowed(Relabelling(2, 0.9, False), 10, model)


@pytest.mark.parametrize(
    ("sure", "left_out", "kept_against"), [(0.5, 0, 0), (0.8, 0, 3), (0.9, 4, 3), (0.99, 0, 7)]
)
def test_correct_is_the_rule_written_out(sure, left_out, kept_against):
    sides = [clouds(NOISY.labels, seed, 0.9) for seed in (1, 2)]
    some, everyone = torch.ones(27, dtype=torch.bool), torch.ones(27, dtype=torch.bool)
    some[[4, 20]] = False
    found = loop.correct(sides, [some, everyone], NOISY.labels, sure, 5)
    given = torch.from_numpy(NOISY.labels)
    votes = evidence(sides, 5, labels=given, voters=[some, everyone])
    dense = torch.zeros(27, 3).scatter(1, votes.classes, votes.share).numpy()
    against = 0
    for i, y in enumerate(NOISY.labels):
        own, rest = dense[i, y], {c: dense[i, c] for c in range(3) if c != y}
        other = max(rest, key=rest.get)
        share = rest[other] / (rest[other] + own)
        taken = share >= sure and share > 0.5
        assert found.labels[i] == (other if taken else y)
        assert found.left_out[i] == (not taken and share / (1 - share) > (sure / (1 - sure)) ** 0.5)
        assert found.evidence[i] == pytest.approx(share if taken else 1 - share, abs=1e-5)
        against += share > 0.5 and not taken and not found.left_out[i]
    assert (found.left_out.sum(), against) == (left_out, kept_against)


def test_an_even_vote_speaks_for_the_label_given(monkeypatch):
    zero = torch.tensor([0.0, -1e-8, 1e-6])
    monkeypatch.setattr(loop, "evidence", lambda *_, **__: SimpleNamespace(cpu=lambda: None))
    monkeypatch.setattr(loop, "odds", lambda *_: (torch.tensor([1, 1, 1]), zero))
    found = loop.correct([clouds(CLEAN)], [], np.zeros(3, dtype=np.int64), 0.5, 5)
    assert found.labels.tolist() == [0, 0, 1]


def test_the_rounds_find_the_clean_labels_and_say_what_was_won_back(tmp_path):
    seen, measures = [], iter([0.7, 0.85])

    def train(labels):
        seen.append(labels)
        return Trained(tmp_path, [clouds(labels.labels)], {"R@1": next(measures), "MAP@R": 0.5})

    start = Trained(tmp_path, [clouds(NOISY.labels)], {"R@1": 0.6, "MAP@R": 0.5})
    clean = Trained(tmp_path, [], {"R@1": 0.8, "MAP@R": 0.5})
    found = loop.run(Relabelling(3, 0.7, True), NOISY, start, None, train, lambda: clean)
    # The first round's labels are right; the second would train with them again.
    assert len(seen) == 1
    assert seen[0].labels.tolist() == CLEAN.tolist()
    assert found.labels is seen[0]
    first, second = found.rounds.to_dict("records")
    assert (first["wrong"], first["broken"], first["relabelled"], first["won_back_R@1"]) == (3, 0, 0, 0)
    assert (second["wrong"], second["broken"], second["relabelled"]) == (0, 0, 3)
    assert second["won_back_R@1"] == pytest.approx(0.5)
    assert np.isnan(second["won_back_MAP@R"])  # nothing was lost
    assert found.clean == clean.found


def test_a_round_decides_with_all_models_so_far_and_those_who_took_part_in_each(monkeypatch, tmp_path):
    start = Trained(tmp_path, [clouds(NOISY.labels), clouds(NOISY.labels, 1)], {"R@1": 0.6, "MAP@R": 0.5})
    asked, real = [], loop.correct

    def correct(sides, voters, *rest):
        asked.append(
            ([side.labels.tolist() for side in sides], [len(who) - int(who.sum()) for who in voters])
        )
        found = real(sides, voters, *rest)
        return Labels(found.labels, np.arange(27) < len(asked), found.evidence)  # another each time

    monkeypatch.setattr(loop, "correct", correct)
    train = lambda labels: Trained(tmp_path, [clouds(labels.labels, 2)], start.found)  # noqa: E731
    loop.run(Relabelling(2, 0.7, False), NOISY, start, 5, train, None)
    given, clean = NOISY.labels.tolist(), CLEAN.tolist()
    assert asked == [([given] * 2, [0, 0]), ([given, given, clean], [0, 0, 1])]


def test_wrong_and_broken_count_only_what_is_trained_with():
    seen = Trained(Path(), [], {"R@1": 0.5, "MAP@R": 0.4})
    left_out = np.isin(np.arange(27), [13, 5])
    labels = NOISY.labels.copy()
    labels[[0, 5]] = 2  # both were right; the second is left out
    line = loop.row(1, seen, Labels(labels, left_out, np.ones(27)), NOISY, seen.found, None)
    assert (line["wrong"], line["broken"], line["relabelled"], line["left_out"]) == (3, 1, 1, 2)
    assert np.isnan(line["won_back_R@1"])


def test_without_noise_nothing_is_said_about_right_and_wrong(tmp_path):
    def never():
        raise AssertionError("there is no noise to train without")

    start = Trained(tmp_path, [clouds(NOISY.labels)], {"R@1": 0.6, "MAP@R": 0.5})
    train = lambda labels: Trained(tmp_path, [clouds(labels.labels)], start.found)  # noqa: E731
    unknown = NoisyLabels(NOISY.labels, NOISY.labels)
    found = loop.run(Relabelling(1, 0.7, True), unknown, start, None, train, never)
    assert found.rounds["relabelled"].tolist() == [0, 3]
    report = loop.report(found, Relabelling(1, 0.7, True))
    assert [line["wrong"] for line in report["rounds"]] == [None, None]
    assert report["clean"] is None


def test_a_round_that_would_leave_one_class_is_not_trained(monkeypatch, tmp_path, capsys):
    start = Trained(tmp_path, [clouds(NOISY.labels)], {"R@1": 0.6, "MAP@R": 0.5})
    one = Labels(np.zeros(27, np.int64), np.zeros(27, bool), np.ones(27))
    monkeypatch.setattr(loop, "correct", lambda *_: one)
    found = loop.run(Relabelling(2, 0.7, False), NOISY, start, None, None, None)
    assert len(found.rounds) == 1
    assert "fewer than two classes" in capsys.readouterr().err


def test_a_home_is_of_the_first_model_and_of_what_is_trained_with():
    first, ones = Path("out/checkpoints/glyphs-x-y-z-seed0-12345678"), np.ones(27)
    left_out = np.isin(np.arange(27), [3])
    homes = {
        loop.home(first, Labels(NOISY.labels, ~left_out, ones)),
        loop.home(first, Labels(NOISY.labels, left_out, ones)),
        loop.home(first, Labels(CLEAN, left_out, ones)),
        loop.home(first.with_name("glyphs-x-y-z-seed0-87654321"), Labels(CLEAN, left_out, ones)),
    }
    assert len(homes) == 4
    assert all(path.name.startswith("glyphs-x-y-z-seed0-loop-") for path in homes)
    assert loop.home(first, Labels(CLEAN, left_out, 0 * ones)) in homes


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        ((-1, 0.9, False), r"loop.rounds=-1 is too small"),
        ((1, 0.4, False), r"loop.sure=0.4 is out of range"),
        ((1, 0.9, "no"), r"loop.clean=no is neither true nor false"),
    ],
)
def test_bad_settings_are_named(plan, message):
    with pytest.raises(UserError, match=message):
        Relabelling(*plan)
