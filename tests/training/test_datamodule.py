from functools import partial

import numpy as np
import pytest
import pytorch_lightning as pl
import torch

from deconfuse.data.build import build
from deconfuse.data.images import ArrayImages, FeatureRows
from deconfuse.data.listing import Listing
from deconfuse.data.sampler import BalancedBatches
from deconfuse.data.transforms import ImageDataset
from deconfuse.loss.proxynca import ProxyNCA
from deconfuse.model.identity import Identity
from deconfuse.model.small_cnn import SmallCNN
from deconfuse.system.errors import UserError
from deconfuse.training.datamodule import DataModule, together
from deconfuse.training.embedder import Embedder
from deconfuse.training.recipe import Recipe
from deconfuse.training.train import fit
from tests.made import model_and_data


def test_a_batch_of_no_sample_has_the_shapes_of_one():
    images, labels, rows = together([], (3, 8, 9))
    assert images.shape == (0, 3, 8, 9)
    assert (labels.dtype, rows.dtype, len(labels), len(rows)) == (torch.long, torch.long, 0, 0)


def rows_of(batches):
    return [[row for row, _ in batch] for batch in batches]


def recipe(**changes):
    good = {
        "epochs": 2,
        "classes_per_batch": 3,
        "per_class": 2,
        "embedding_size": 4,
        "optimizer": torch.optim.SGD,
        "lr_backbone": 1e-3,
        "lr_head": 1e-3,
        "lr_proxies": 1e-3,
        "schedule": "constant",
        "warmup_epochs": 0,
        "freeze_batchnorm": False,
        "clip_norm": None,
        "validate_every": 9,
        "eval_batch_size": 5,
    }
    return Recipe(**{**good, **changes})


def made(num_workers=0, *, seed=5, gallery=False, augment="drawing"):
    """20 training images of 4 classes, 13 queries, and where wanted 5 of the gallery."""
    parts = ["train"] * 20 + ["query" if gallery else "test"] * 13 + ["gallery"] * 5 * gallery
    classes = [f"{part[0] == 't' and part != 'test'}{i % 4}" for i, part in enumerate(parts)]
    pixels = np.random.default_rng(0).integers(0, 256, (len(parts), 16, 16), dtype=np.uint8)
    listing = Listing(ArrayImages(pixels), classes, parts, [str(i) for i in range(len(parts))], "made")
    split = build(listing, image_size=16, channels=1, augment=augment)
    backbone = SmallCNN(1, width=2)
    return DataModule(split, split.train.labels, backbone, recipe(), num_workers, seed), backbone


def test_training_batches_are_the_balanced_ones_with_augmented_images():
    data, _ = made()
    wanted = list(BalancedBatches(data.labels, 3, 2, 5, 0))
    batches = list(data.train_dataloader())
    assert len(batches) == len(wanted) == 4
    images = ImageDataset(data.split.train, data.labels, data.training, 1)
    for (shown, labels, rows), keys in zip(batches, wanted, strict=True):
        assert rows.tolist() == [row for row, _ in keys]
        assert labels.tolist() == data.labels[rows].tolist()
        assert torch.equal(shown, torch.stack([images[key][0] for key in keys]))


def test_training_believes_the_given_labels():
    data, backbone = made()
    wrong = (data.split.train.labels + 1) % 4
    other = DataModule(data.split, wrong, backbone, data.recipe, 0, 5)
    for _, labels, rows in other.train_dataloader():
        assert labels.tolist() == wrong[rows].tolist()


@pytest.mark.parametrize("augment", ["drawing", "photo"])
def test_worker_processes_change_no_batch(augment):
    loaders = [made(workers, augment=augment)[0].train_dataloader() for workers in (0, 2)]
    for alone, shared in zip(*loaders, strict=True):
        for one, other in zip(alone, shared, strict=True):
            assert torch.equal(one, other)


def test_evaluation_is_in_order_without_augmentation():
    data, _ = made()
    batches = list(data.in_order(data.split.train))
    assert [len(rows) for _, _, rows in batches] == [5, 5, 5, 5]
    assert torch.cat([rows for _, _, rows in batches]).tolist() == list(range(20))
    assert torch.cat([labels for _, labels, _ in batches]).tolist() == data.split.train.labels.tolist()
    shown = torch.cat([images for images, _, _ in batches])[:, 0].numpy()
    np.testing.assert_allclose(shown, data.split.train.images.pixels[:20] / 127.5 - 1, atol=1e-6)


def test_validation_has_a_loader_for_each_part_the_data_set_has():
    shared, own = made()[0], made(gallery=True)[0]
    assert [len(loader.dataset) for loader in shared.val_dataloader()] == [13]
    assert [len(loader.dataset) for loader in own.val_dataloader()] == [13, 5]
    assert [loader.dataset.part for loader in own.val_dataloader()] == [own.split.query, own.split.gallery]


def test_the_last_evaluation_batch_is_what_is_left():
    loader = made()[0].val_dataloader()[0]
    assert [len(rows) for _, _, rows in loader] == [5, 5, 3]


@pytest.mark.parametrize(
    ("workers", "words"),
    [
        (-1, "is too small; give 0 or more"),
        (1.5, "is not a whole number"),
        ("four", "is neither auto nor a number; give auto, or 0 or more"),
    ],
)
def test_the_number_of_workers_is_checked(workers, words):
    with pytest.raises(UserError, match=rf"^num_workers={workers} {words}$"):
        made(workers)


def test_a_resumed_training_starts_with_the_batches_of_its_epoch():
    data, _ = made()
    data.first_epoch = 2
    rows = [rows.tolist() for _, _, rows in data.train_dataloader()]
    assert rows == rows_of(BalancedBatches(data.labels, 3, 2, 5, 2))


def test_rows_of_features_are_batched_like_images_and_need_no_transform():
    values = np.random.default_rng(0).normal(size=(33, 5)).astype(np.float32)
    labels, parts = [f"{i // 20}{i % 4}" for i in range(33)], ["train"] * 20 + ["test"] * 13
    names = [str(i) for i in range(33)]
    split = build(Listing(FeatureRows(values), labels, parts, names, "made"))
    data = DataModule(split, split.train.labels, Identity(5), recipe(), 0, 5)
    wanted = rows_of(BalancedBatches(data.labels, 3, 2, 5, 0))
    for (shown, given, rows), keys in zip(data.train_dataloader(), wanted, strict=True):
        assert rows.tolist() == keys
        np.testing.assert_array_equal(shown.numpy(), values[keys])
        assert given.tolist() == data.labels[keys].tolist()
    (loader,) = data.val_dataloader()
    np.testing.assert_array_equal(torch.cat([shown for shown, _, _ in loader]).numpy(), values[20:])


class Witness(Embedder):
    """Trains as usual and remembers which samples each step of each epoch saw, and how they looked."""

    def training_step(self, batch, batch_idx):
        images, _, rows = batch
        self.seen.setdefault(self.current_epoch, []).append((rows.tolist(), images.double().sum().item()))
        return super().training_step(batch, batch_idx)


def trained(folder, workers):
    data, backbone = made(workers)
    model = Witness(backbone, ProxyNCA(4, 4), data.recipe)
    model.seen = {}
    fit(model, data, folder, partial(pl.Trainer, accelerator="cpu", devices=1), None, None)
    return data, model.seen


@pytest.mark.parametrize("workers", [0, 2])
def test_training_sees_each_epochs_own_batches(tmp_path, workers):
    data, seen = trained(tmp_path, workers)
    images = ImageDataset(data.split.train, data.labels, data.training, 1)
    assert sorted(seen) == [0, 1]
    for epoch, steps in seen.items():
        wanted = list(BalancedBatches(data.labels, 3, 2, 5, epoch))
        assert [rows for rows, _ in steps] == rows_of(wanted), f"epoch {epoch}"
        looks = [sum(images[key][0].double().sum().item() for key in keys) for keys in wanted]
        assert [look for _, look in steps] == pytest.approx(looks, abs=1e-6)


def test_the_recipe_says_how_training_samples_are_drawn():
    uneven = np.array([0] * 80 + [1] * 10 + [2] * 6)
    drawn = {}
    for sampling in ("instance_balanced", "class_balanced"):
        model, data = model_and_data(sampling=sampling)
        own = DataModule(data.split, uneven, model.backbone, data.recipe, 0, 0)
        drawn[sampling] = np.bincount(torch.cat([batch[1] for batch in own.train_dataloader()]))
    assert drawn["instance_balanced"].tolist() == [80, 10, 6]
    assert drawn["class_balanced"].tolist() == [32, 32, 32]


def test_a_sample_left_out_is_in_no_batch_and_keeps_its_place():
    model, data = model_and_data()
    left_out = np.isin(np.arange(96), [3, 17, *range(32, 48)])
    own = DataModule(data.split, data.labels, model.backbone, data.recipe, 0, 0, left_out)
    indices = torch.cat([batch[2] for batch in own.train_dataloader()])
    assert sorted(set(indices.tolist())) == np.flatnonzero(~left_out).tolist()
    labels = torch.cat([batch[1] for batch in own.train_dataloader()])
    assert labels.tolist() == data.labels[indices].tolist()
    assert len(own.in_order(own.split.train).dataset) == 96
