import pytest
import torch

from deconfuse.attribution import rows, scores
from deconfuse.attribution.scores import acting, room, unscored, unsound
from deconfuse.system import distributed
from tests.team import team


@pytest.fixture
def on_disk(monkeypatch, tmp_path):
    """Scores of more than 100 bytes lie on the disk, and are looked at three float32 rows of 23 at a time."""
    monkeypatch.setattr(scores, "HELD_BYTES", 100)
    monkeypatch.setattr(scores, "BLOCK_BYTES", 3 * 23 * 4)
    return tmp_path


def made(dtype=torch.float32):
    return torch.randn(11, 23, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_large_scores_lie_on_the_disk_and_are_the_same(on_disk, dtype):
    cpu, values = torch.device("cpu"), made(dtype)
    held, large = room(2, 3, dtype, cpu, on_disk), room(11, 23, dtype, cpu, on_disk)
    assert large.dtype == held.dtype == dtype
    large[:, 5:] = values[:, 5:]
    large += 1
    assert torch.equal(large[:, 5:], values[:, 5:] + 1)
    assert torch.equal(large[:, :5], torch.ones(11, 5, dtype=dtype))
    assert not list(on_disk.iterdir())


def test_means_in_blocks_are_the_means(on_disk):
    values = made()
    found = acting(values)
    torch.testing.assert_close(found.mean, values.double().mean(0).float(), rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(found.absolute, values.double().abs().mean(0).float(), rtol=1e-6, atol=1e-7)
    assert torch.equal(found.harmful, ((values > 0).sum(0) / 11))


def test_few_scores_have_the_means_that_torch_has():
    values = made()
    found = acting(values)
    assert torch.equal(found.mean, values.mean(0))
    assert torch.equal(found.absolute, values.abs().mean(0))
    assert torch.equal(found.harmful, (values > 0).float().mean(0))
    assert acting(values[:0]).mean.isnan().all()


def test_explanations_that_are_not_finite_are_counted_in_every_block(on_disk):
    values = made()
    assert unsound(values) == 0
    values[0, 3] = values[7, 22] = torch.nan
    values[7, 0] = values[10, 1] = torch.inf
    assert unsound(values) == 3


def test_explanations_without_a_score_are_counted_in_every_block(on_disk):
    values = made()
    assert unscored(values) == 0
    values[[0, 4, 10]] = 0
    values[4, 22] = -1e-30
    assert unscored(values) == 2


def of_uneven_parts(folder):
    """A process's samples of `made()`, and the scores of all of them."""
    scores.HELD_BYTES, scores.BLOCK_BYTES = 100, 3 * 23 * 4
    whole = made()
    found = rows.of_all(whole[:, list(distributed.share(23))], 23, folder, whole.dtype)
    return torch.equal(found, whole), found.is_contiguous(), len(list(folder.iterdir()))


def test_scores_of_several_processes_lie_on_the_disk_too(tmp_path):
    assert team(tmp_path, 3, of_uneven_parts, tmp_path / "home") == [(True, True, 0)] * 3
