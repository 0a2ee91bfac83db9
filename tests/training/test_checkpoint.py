import pytest
import torch

from deconfuse.system.errors import UserError
from deconfuse.training.checkpoint import epoch_of, forget, keep, kept, kept_at, load, path_at, read, save
from tests.made import model_and_data


def test_a_damaged_or_foreign_checkpoint_is_named(tmp_path):
    model, _ = model_and_data()
    path = tmp_path / "model.ckpt"
    torch.save(model.state_dict(), path)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(UserError, match=r"model.ckpt: not a whole checkpoint of this model"):
        load(model, path)
    torch.save({"other": torch.zeros(1)}, path)
    with pytest.raises(UserError, match=r"model.ckpt: not a whole checkpoint of this model"):
        load(model, path)


def test_an_epochs_checkpoint_is_the_kept_one_or_one_for_its_explanation(tmp_path):
    save({"kept": torch.ones(1)}, path_at(tmp_path, 2))
    assert keep(tmp_path, {"new": torch.zeros(1)}, 2) == kept_at(tmp_path, 2) == path_at(tmp_path, 2)
    assert list(read(path_at(tmp_path, 2))) == ["kept"]
    other = keep(tmp_path, {"new": torch.zeros(1)}, 3)
    assert list(read(other)) == ["new"]
    assert kept_at(tmp_path, 3) == other != path_at(tmp_path, 3)
    assert (epoch_of(other), epoch_of(path_at(tmp_path, 2))) == (3, 2)
    assert kept(tmp_path / "model.ckpt") == [path_at(tmp_path, 2)]


def test_an_epoch_is_forgotten_with_all_made_from_it_unless_it_is_kept(tmp_path):
    save({}, path_at(tmp_path, 2))
    save({}, path_at(tmp_path, 3))
    keep(tmp_path, {}, 4)
    (tmp_path / "explained_0004.eif.npz").write_bytes(b"")
    (tmp_path / "explained_0004.features").mkdir()
    for epoch in (3, 4):
        forget(tmp_path, epoch)
    assert sorted(tmp_path.iterdir()) == [path_at(tmp_path, 2), path_at(tmp_path, 3)]
