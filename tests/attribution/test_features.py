import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from deconfuse.attribution.features import extract, find_or_extract
from deconfuse.model.timm import TimmBackbone
from deconfuse.system.arrays import read_arrays
from deconfuse.system.errors import UserError
from tests.made import model_and_data


def side(tmp_path):
    model, data = model_and_data()
    checkpoint = tmp_path / "model.ckpt"
    torch.save(model.state_dict(), checkpoint)
    return model.eval(), {"train": data.in_order(data.split.train)}, checkpoint, data


def test_features_are_the_backbones_in_order_for_any_batch_size(tmp_path):
    model, loaders, _, data = side(tmp_path)
    found = torch.cat(list(extract(model.train(), loaders["train"], "train")))
    with torch.no_grad():
        model.eval()
        one_by_one = torch.cat(
            [model.backbone(data.in_order(data.split.train).dataset[i][0][None]) for i in range(96)]
        )
    torch.testing.assert_close(found, one_by_one, rtol=1e-5, atol=1e-5)


def test_in_mixed_precision_products_are_of_bfloat16_and_features_float32(tmp_path):
    model, loaders, _, _ = side(tmp_path)
    images = torch.cat([batch[0] for batch in loaders["train"]])
    exact = torch.cat(list(extract(model, loaders["train"], "train")))
    model.precision = "bf16-mixed"
    found = torch.cat(list(extract(model, loaders["train"], "train")))
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        want = model.backbone(images).float()
    assert found.dtype == torch.float32
    # Batches of another size may round otherwise; bfloat16 keeps 8 bits.
    torch.testing.assert_close(found, want, rtol=0, atol=2e-2 * float(want.abs().max()))
    off = (found - exact).abs().max() / exact.abs().max()
    assert 1e-5 < off < 0.05


def test_the_second_time_they_come_from_the_file(tmp_path, monkeypatch):
    model, loaders, checkpoint, _ = side(tmp_path)
    first = find_or_extract(model, loaders, checkpoint)
    monkeypatch.setattr("deconfuse.attribution.features.extract", lambda *args: 1 / 0)
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


class Noisy(nn.Module):
    """Adds a little to one number of each row's features, in eval mode too."""

    def __init__(self, inner):
        super().__init__()
        self.inner, self.num_features = inner, inner.num_features

    def forward(self, images):
        noise = torch.zeros(len(images), self.num_features)
        noise[:, 0] = 1e-5 * torch.rand(len(images))
        return self.inner(images) + noise


class NoisyInCrowds(Noisy):
    """As Noisy, but only from ten rows on."""

    def forward(self, images):
        return super().forward(images) if len(images) > 9 else self.inner(images)


class Stubborn(nn.Module):
    """Its batch norms never hear of eval mode."""

    def __init__(self, inner):
        super().__init__()
        self.inner, self.num_features = inner, inner.num_features

    def train(self, mode=True):
        return super().train(True)

    def forward(self, images):
        return self.inner(images)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (Noisy, r"features \(train\): the same images give others .*apart.*random numbers in eval mode"),
        (NoisyInCrowds, r"features \(train\): the same images give others .*random numbers in eval mode"),
        (
            Stubborn,
            r"features \(train\): an image's depend on the other images .*BatchNorm .* stays in train mode",
        ),
    ],
)
def test_features_that_are_not_the_images_alone_are_refused_and_not_kept(tmp_path, spoil, message):
    model, loaders, checkpoint, _ = side(tmp_path)
    model.backbone = spoil(model.backbone)
    with pytest.raises(UserError, match=message):
        find_or_extract(model, loaders, checkpoint)
    assert not (tmp_path / "model.features.npz").exists()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_features_that_are_not_finite_are_refused_and_not_kept(tmp_path, value):
    model, loaders, checkpoint, _ = side(tmp_path)
    with torch.no_grad():
        next(iter(model.backbone.parameters()))[0] = value
    with pytest.raises(
        UserError, match=r"^features \(train\): not finite for some samples, so they are not kept"
    ):
        find_or_extract(model, loaders, checkpoint)
    assert not (tmp_path / "model.features.npz").exists()


def in_memory(inputs, size):
    return DataLoader([(row, 0, i) for i, row in enumerate(inputs)], batch_size=size)


@pytest.mark.parametrize(
    ("name", "side"), [("test_resnet", 40), ("test_efficientnet", 33), ("test_vit", 160)]
)
def test_the_layout_of_images_and_kernels_changes_rounding_at_most(name, side):
    model, _ = model_and_data()
    model.backbone = TimmBackbone(name, weights="none", pool="avg").eval()
    images = torch.randn(7, 3, side, side)
    with torch.no_grad():
        want = model.backbone(images)
    found = torch.cat(list(extract(model, in_memory(images, 3), "train")))
    torch.testing.assert_close(found, want, rtol=1e-4, atol=1e-5)


def test_features_can_be_differentiated_through_later():
    model, data = model_and_data()
    found = torch.cat(list(extract(model, data.in_order(data.split.train), "train")))
    weight = torch.zeros(3, found.shape[1], requires_grad=True)
    (found @ weight.T).sum().backward()
    torch.testing.assert_close(weight.grad, found.sum(0).expand(3, -1))


@pytest.mark.parametrize("n", [1, 2, 9])
def test_few_rows_and_inputs_that_are_no_images(n):
    model, _ = model_and_data()
    model.backbone = nn.Linear(5, 4)
    rows = torch.randn(n, 5)
    found = torch.cat(list(extract(model, in_memory(rows, 4), "train")))
    torch.testing.assert_close(found, model.backbone(rows).detach())
