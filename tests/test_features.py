import numpy as np
import torch

from src.artifacts import read_arrays
from src.features import extract, find_or_extract
from tests.made import model_and_data


def side(tmp_path):
    model, data = model_and_data()
    checkpoint = tmp_path / "model.ckpt"
    torch.save(model.state_dict(), checkpoint)
    return model.eval(), {"train": data.in_order(data.split.train)}, checkpoint, data


def test_features_are_the_backbones_in_order_for_any_batch_size(tmp_path):
    model, loaders, _, data = side(tmp_path)
    found = extract(model.train(), loaders["train"], "train")
    with torch.no_grad():
        model.eval()
        one_by_one = torch.cat(
            [model.backbone(data.in_order(data.split.train).dataset[i][0][None]) for i in range(96)]
        )
    torch.testing.assert_close(found, one_by_one, rtol=1e-5, atol=1e-5)


def test_the_second_time_they_come_from_the_file(tmp_path, monkeypatch):
    model, loaders, checkpoint, _ = side(tmp_path)
    first = find_or_extract(model, loaders, checkpoint)
    monkeypatch.setattr("src.features.extract", lambda *args: 1 / 0)
    assert torch.equal(find_or_extract(model, loaders, checkpoint)["train"], first["train"])


def test_another_checkpoint_or_a_damaged_file_means_another_pass(tmp_path):
    model, loaders, checkpoint, _ = side(tmp_path)
    path = tmp_path / "model.features.npz"
    first = find_or_extract(model, loaders, checkpoint)["train"]
    path.write_bytes(path.read_bytes()[:-100])
    assert torch.equal(find_or_extract(model, loaders, checkpoint)["train"], first)
    before = str(read_arrays(path)["checkpoint"])
    torch.save({"other": torch.zeros(1)}, checkpoint)
    find_or_extract(model, loaders, checkpoint)
    assert str(read_arrays(path)["checkpoint"]) != before
    assert np.array_equal(read_arrays(path)["train"], first.numpy())
