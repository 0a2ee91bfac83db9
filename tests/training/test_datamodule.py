import math
from functools import partial
from itertools import chain

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from PIL import Image

from deconfuse.data.build import build
from deconfuse.data.images import ArrayImages, FeatureRows, FileImages
from deconfuse.data.pixels import as_mode
from deconfuse.data.sampler import BalancedBatches
from deconfuse.data.split import ImageSpec, Part, RowSpec
from deconfuse.data.transforms import Images, Rows, transforms
from deconfuse.loss.proxynca import ProxyNCA
from deconfuse.model.identity import Identity
from deconfuse.model.small_cnn import SmallCNN
from deconfuse.system.errors import UserError
from deconfuse.training.datamodule import DataModule, together
from deconfuse.training.embedder import Embedder
from deconfuse.training.recipe import Recipe
from deconfuse.training.train import fit
from tests.made import model_and_data

SIZES = [1, 3, 7, 23]
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def labels_of(sizes, seed=0):
    return np.random.default_rng(seed).permutation(np.repeat(np.arange(len(sizes)), sizes))


def rows_of(batches):
    return [[row for row, _ in batch] for batch in batches]


# --- BalancedBatches


SHAPES = [
    (SIZES, 3, 4),
    (SIZES, 4, 1),
    (SIZES, 2, 5),
    (SIZES, 1, 2),
    (SIZES, 9, 3),
    ([5] * 11, 4, 2),
    ([20] * 7, 3, 4),
    ([1, 1, 1], 2, 3),
    ([40, 2, 2, 2], 3, 2),
    ([17], 4, 3),
]
every_shape = pytest.mark.parametrize(("sizes", "classes", "per_class"), SHAPES)


@every_shape
def test_every_sample_occurs_in_every_epoch(sizes, classes, per_class):
    labels = labels_of(sizes)
    for epoch in range(3):
        rows = np.concatenate(rows_of(BalancedBatches(labels, classes, per_class, 5, epoch)))
        assert set(rows.tolist()) == set(range(len(labels)))


@every_shape
def test_a_batch_repeats_a_class_only_where_there_are_too_few_batches_for_it(sizes, classes, per_class):
    labels = labels_of(sizes)
    left = np.array([math.ceil(size / per_class) for size in sizes])
    batches = rows_of(BalancedBatches(labels, classes, per_class, 5))
    for i, batch in enumerate(batches):
        counts = np.bincount(labels[batch], minlength=len(sizes))
        assert per_class <= counts.sum() <= per_class * min(classes, len(sizes))
        assert (counts % per_class == 0).all()
        assert (counts // per_class <= np.ceil(left / (len(batches) - i))).all()
        left -= counts // per_class
    assert not left.any()


@every_shape
def test_an_epoch_draws_no_more_than_filling_the_last_share_takes(sizes, classes, per_class):
    labels = labels_of(sizes)
    rows = np.concatenate(rows_of(BalancedBatches(labels, classes, per_class, 5)))
    drawn = np.bincount(labels[rows])
    assert drawn.tolist() == [math.ceil(size / per_class) * per_class for size in sizes]
    # A class that has enough samples repeats none of them more than once.
    times = np.bincount(rows, minlength=len(labels))
    for c, size in enumerate(sizes):
        assert times[labels == c].min() >= 1
        if size >= per_class:
            assert times[labels == c].max() <= 2


@every_shape
def test_the_length_is_the_number_of_batches_and_the_least_possible(sizes, classes, per_class):
    batches = BalancedBatches(labels_of(sizes), classes, per_class, 5)
    shares = sum(math.ceil(size / per_class) for size in sizes)
    assert len(batches) == len(list(batches)) == math.ceil(shares / min(classes, len(sizes)))


def test_a_class_that_is_most_of_the_data_is_as_much_of_every_batch():
    """1,000 of one class beside nine of 100, four at a time: 250 + 9 x 25 shares, 48 batches of ten."""
    labels = labels_of([1000] + [100] * 9)
    for epoch in range(3):
        batches = rows_of(BalancedBatches(labels, 16, 4, 0, epoch))
        counts = np.array([np.bincount(labels[batch], minlength=10) for batch in batches]) // 4
        assert counts.sum(axis=1).tolist() == [10] * 47 + [5]
        assert set(counts[:-1, 0].tolist()) == {5, 6}
        assert counts[-1, 0] == 5
        assert set(counts[:-1, 1:].sum(axis=1).tolist()) == {4, 5}
        assert counts[:, 1:].max() == 1


@every_shape
def test_class_balanced_epochs_are_as_long_and_have_each_class_equally_often(sizes, classes, per_class):
    labels = labels_of(sizes)
    batches = BalancedBatches(labels, classes, per_class, 5, class_balanced=True)
    assert len(batches) == len(BalancedBatches(labels, classes, per_class, 5)) == len(list(batches))
    rows = rows_of(batches)
    for batch in rows:  # no class twice in a batch
        assert set(np.bincount(labels[batch]).tolist()) <= {0, per_class}
    shares = sum(math.ceil(size / per_class) for size in sizes)
    drawn = np.concatenate(rows)
    found = np.bincount(labels[drawn]) // per_class
    assert found.sum() == shares
    assert set(found.tolist()) <= {shares // len(sizes), -(-shares // len(sizes))}
    times = np.bincount(drawn, minlength=len(labels))
    for c in range(len(sizes)):  # within a class no sample more than once oftener than another
        assert np.ptp(times[labels == c]) <= 1


def test_class_balanced_epochs_show_other_samples_of_a_large_class():
    labels = labels_of([1000] + [100] * 9)
    seen = set()
    for epoch in range(12):
        rows = np.concatenate(rows_of(BalancedBatches(labels, 10, 4, 0, epoch, class_balanced=True)))
        assert (labels[rows] == 0).sum() in (47 * 4, 48 * 4)  # 475 shares, 47.5 of each class
        seen |= set(rows[labels[rows] == 0].tolist())
    # 1000 x (1 - (1 - 190 / 1000)^12) = 920 are expected
    assert 890 < len(seen) < 950


def test_batches_of_equal_classes_are_full_but_for_the_last():
    batches = rows_of(BalancedBatches(labels_of([6] * 11), 4, 3, 0))
    assert [len(batch) for batch in batches] == [12, 12, 12, 12, 12, 6]


def one_batch_after_the_other(labels, classes, per_class, seed):
    """The fullest classes first until nothing is left, written out; the last batch has what remains."""
    random = np.random.default_rng([seed, 0])
    shares = []
    for c in np.unique(labels):
        rows = np.flatnonzero(labels == c)
        missing = -len(rows) % per_class
        extra = random.choice(rows, missing, replace=missing > len(rows))
        shares.append(np.concatenate([random.permutation(rows), extra]).reshape(-1, per_class).tolist())
    while any(shares):
        chance = random.random(len(shares))
        order = sorted(range(len(shares)), key=lambda c: (-len(shares[c]), chance[c]))[:classes]
        batch = [row for c in order if shares[c] for row in shares[c].pop()]
        random.integers(2**62, size=len(batch))
        yield batch


@pytest.mark.parametrize(
    ("sizes", "classes"),
    [([4] * 12, 4), ([4] * 10, 4), ([4] * 7 + [8, 8], 4), ([12, 12, 12, 3], 4), ([5] * 9, 6)],
)
def test_a_last_batch_of_half_the_classes_or_more_stays(sizes, classes):
    labels = labels_of(sizes)
    found = rows_of(BalancedBatches(labels, classes, 4, 7))
    assert found == list(one_batch_after_the_other(labels, classes, 4, 7))


@pytest.mark.parametrize(
    ("sizes", "classes", "expected"),
    [
        ([4] * 13, 4, [4, 3, 3, 3]),  # would be 4, 4, 4, 1
        ([4] * 33, 16, [11, 11, 11]),  # would be 16, 16, 1
        ([12, 12, 12, 12, 4, 4], 6, [5, 5, 4]),  # would be 6, 4, 4
    ],
)
def test_a_smaller_last_batch_is_shared_among_all(sizes, classes, expected):
    labels = labels_of(sizes)
    for epoch in range(4):
        batches = rows_of(BalancedBatches(labels, classes, 4, 3, epoch))
        assert [len(np.unique(labels[batch])) for batch in batches] == expected
        assert [len(batch) for batch in batches] == [4 * n for n in expected]
        assert sorted(chain(*batches)) == list(range(len(labels)))


def test_a_class_of_one_fills_its_share_with_itself():
    labels = np.array([0, 1, 1, 1, 1])
    for epoch in range(5):
        rows = np.concatenate(rows_of(BalancedBatches(labels, 2, 4, 0, epoch)))
        assert sorted(rows.tolist()) == [0, 0, 0, 0, 1, 2, 3, 4]


def test_labels_need_not_be_consecutive():
    labels = np.array([7, 90, 7, 90, 7])
    batches = rows_of(BalancedBatches(labels, 5, 2, 0))
    assert [len(batch) for batch in batches] == [4, 2]
    assert set(np.concatenate(batches).tolist()) == set(range(5))


def test_seed_and_epoch_alone_decide_batches_and_seeds():
    labels = labels_of(SIZES)
    first, again = BalancedBatches(labels, 3, 4, 5, 2), BalancedBatches(labels, 3, 4, 5, 2)
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002 - the old global state is what must not matter
    one = list(first)
    torch.manual_seed(2)
    np.random.seed(2)  # noqa: NPY002
    assert one == list(again) == list(first)


def test_epochs_and_seeds_differ():
    labels = labels_of(SIZES)
    epochs = [str(list(BalancedBatches(labels, 3, 4, seed, epoch))) for seed in (5, 6) for epoch in range(4)]
    assert len(set(epochs)) == 8


def test_set_epoch_is_being_born_in_that_epoch():
    labels = labels_of(SIZES)
    batches = BalancedBatches(labels, 3, 4, 5)
    assert list(batches) == list(BalancedBatches(labels, 3, 4, 5, 0))
    batches.set_epoch(3)
    assert list(batches) == list(BalancedBatches(labels, 3, 4, 5, 3))


@pytest.mark.parametrize("processes", [2, 3, 7])
def test_the_parts_of_several_processes_are_the_batches_of_one(processes):
    labels = labels_of(SIZES)
    parts = [list(BalancedBatches(labels, 3, 4, 8, 1, (i, processes))) for i in range(processes)]
    whole = list(BalancedBatches(labels, 3, 4, 8, 1))
    assert [list(chain(*batch)) for batch in zip(*parts, strict=True)] == whole
    sizes = np.array([[len(batch) for batch in part] for part in parts])
    assert (np.ptp(sizes, axis=0) <= 1).all()
    assert np.ptp(sizes) > 0


def test_a_batch_of_no_sample_has_the_shapes_of_one():
    images, labels, rows = together([], (3, 8, 9))
    assert images.shape == (0, 3, 8, 9)
    assert (labels.dtype, rows.dtype, len(labels), len(rows)) == (torch.long, torch.long, 0, 0)


def test_every_draw_has_a_seed_of_its_own():
    seeds = [seed for batch in BalancedBatches(labels_of([20] * 9), 4, 4, 0) for _, seed in batch]
    assert len(set(seeds)) == len(seeds) == 180
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_which_classes_meet_is_left_to_chance():
    labels = labels_of([4] * 9)
    met = np.zeros((9, 9))
    for epoch in range(200):
        for batch in rows_of(BalancedBatches(labels, 3, 4, 0, epoch)):
            found = np.unique(labels[batch])
            met[np.ix_(found, found)] += 1
    off = met[~np.eye(9, dtype=bool)]
    # Each pair meets in a quarter of the 200 epochs: 50, standard deviation 6; four of them.
    assert 25 < off.min() <= off.max() < 75
    assert (np.diag(met) == 200).all()


# --- transforms


def evaluated(spec, image, mean, std):
    return transforms(spec, mean, std)[1](image)


@pytest.mark.parametrize("augment", ["drawing", "photo", "none"])
@pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("RGB", 3)])
@pytest.mark.parametrize("size", [32, 17])
def test_both_transforms_give_float_squares(augment, mode, channels, size):
    image = Image.new(mode, (41, 29))
    for transform in transforms(ImageSpec(size, channels, augment), MEAN[:channels], STD[:channels]):
        result = transform(image)
        assert result.shape == (channels, size, size)
        assert result.dtype == torch.float32


@pytest.mark.parametrize("augment", ["drawing", "photo", "none"])
def test_evaluation_normalises_each_channel(augment):
    image = Image.new("RGB", (50, 40), (0, 51, 255))
    result = evaluated(ImageSpec(16, 3, augment), image, MEAN, STD)
    for c, value in enumerate((0.0, 0.2, 1.0)):
        expected = (value - MEAN[c]) / STD[c]
        torch.testing.assert_close(result[c], torch.full((16, 16), expected), atol=1e-6, rtol=0)


def test_evaluation_of_grey_with_half_and_half_runs_from_minus_one_to_one():
    pixels = np.arange(64, dtype=np.uint8).reshape(8, 8) * 4
    pixels[-1, -1] = 255
    result = evaluated(ImageSpec(8, 1, "drawing"), Image.fromarray(pixels), (0.5,), (0.5,))
    expected = torch.from_numpy(pixels.astype(np.float32)) / 255 * 2 - 1
    torch.testing.assert_close(result, expected[None], atol=1e-6, rtol=0)


@pytest.mark.parametrize("augment", ["drawing", "none"])
def test_evaluation_shows_the_whole_image_squeezed_into_a_square(augment):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (29, 41), dtype=np.uint8))
    result = evaluated(ImageSpec(16, 1, augment), image, (0.0,), (1.0,))
    expected = np.asarray(image.resize((16, 16), Image.Resampling.BILINEAR), dtype=np.float32) / 255
    np.testing.assert_allclose(result[0].numpy(), expected, atol=1e-6)


def test_evaluation_of_a_photo_is_the_middle_224_of_256():
    # The field's numbers: the shorter side becomes 256, and the middle 224 are kept.
    pixels = np.random.default_rng(0).integers(0, 256, (256, 300), dtype=np.uint8)
    result = evaluated(ImageSpec(224, 1, "photo"), Image.fromarray(pixels), (0.0,), (1.0,))
    np.testing.assert_allclose(result[0].numpy(), pixels[16:240, 38:262].astype(np.float32) / 255, atol=1e-6)


def test_what_a_photo_is_resized_to_is_the_data_sets():
    pixels = np.random.default_rng(0).integers(0, 256, (288, 300), dtype=np.uint8)
    image, side = Image.fromarray(pixels), slice(16, 272)
    result = evaluated(ImageSpec(256, 1, "photo", 288), image, (0.0,), (1.0,))
    want = pixels[side, 22:278].astype(np.float32) / 255
    np.testing.assert_allclose(result[0].numpy(), want, atol=1e-6)
    with pytest.raises(UserError, match=r"dataset.image_resize=200 is too small; give 256 or more"):
        ImageSpec(256, 1, "photo", 200)


def test_a_photo_taken_sideways_is_turned_upright():
    image = Image.new("L", (4, 2))
    image.putpixel((0, 0), 255)
    image.getexif()[0x0112] = 6  # the camera was turned by 90 degrees
    upright = as_mode(image, "L")
    assert upright.size == (2, 4)
    assert upright.getpixel((1, 0)) == 255


def test_evaluation_of_a_photo_keeps_its_proportions():
    pixels = np.zeros((64, 640), dtype=np.uint8)
    pixels[:, 320:] = 255
    result = evaluated(ImageSpec(56, 1, "photo"), Image.fromarray(pixels), (0.0,), (1.0,))
    np.testing.assert_array_equal(result[0, :, :27], 0)
    np.testing.assert_array_equal(result[0, :, 29:], 1)


def test_evaluation_is_the_same_every_time_and_none_trains_as_it_evaluates():
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (29, 41), dtype=np.uint8))
    for augment in ("drawing", "photo", "none"):
        training, evaluation = transforms(ImageSpec(16, 1, augment), (0.5,), (0.5,))
        assert torch.equal(evaluation(image), evaluation(image))
        assert torch.equal(training(image), evaluation(image)) == (augment == "none")


def mirrored_share(augment):
    """How often training shows a bright right half on the left."""
    pixels = np.zeros((32, 32), dtype=np.uint8)
    pixels[:, 16:] = 255
    training, _ = transforms(ImageSpec(16, 1, augment), (0.5,), (0.5,))
    torch.manual_seed(0)
    shown = [training(Image.fromarray(pixels))[0] for _ in range(120)]
    return np.mean([image[:, :5].mean().item() > image[:, -5:].mean().item() for image in shown])


def test_drawings_are_never_mirrored_and_photos_half_of_the_time():
    assert mirrored_share("drawing") == 0
    assert 0.3 < mirrored_share("photo") < 0.7


def test_drawings_move_only_a_little():
    pixels = np.zeros((32, 32), dtype=np.uint8)
    pixels[14:18, 14:18] = 255
    training, _ = transforms(ImageSpec(32, 1, "drawing"), (0.0,), (1.0,))
    torch.manual_seed(0)
    centres = []
    for _ in range(60):
        shown = training(Image.fromarray(pixels))[0].numpy()
        weight = shown / shown.sum()
        centres.append([(weight.sum(1) * np.arange(32)).sum(), (weight.sum(0) * np.arange(32)).sum()])
    away = np.abs(np.array(centres) - 15.5).max(0)
    assert (away > 0.5).all()
    assert (away < 0.06 * 32 + 0.5).all()


def test_an_unknown_augmentation_is_answered_with_the_nearest():
    with pytest.raises(UserError) as caught:
        transforms(ImageSpec(16, 1, "foto"), (0.5,), (0.5,))
    assert str(caught.value) == (
        "dataset.augment=foto is not known; did you mean photo? Valid: drawing, none, photo"
    )


# --- Images


def part_of(n, side=16, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (n, side, side), dtype=np.uint8)
    return Part(ArrayImages(pixels), np.arange(n)[::-1], np.arange(n) % 3, tuple(map(str, range(n))))


def augmented(n=7, **options):
    training, _ = transforms(ImageSpec(16, 1, "drawing"), (0.5,), (0.5,))
    part = part_of(n)
    return Images(part, options.pop("labels", part.labels), training, 1)


def test_an_item_is_image_label_and_its_own_number():
    images = augmented(labels=np.array([9, 8, 7, 6, 5, 4, 3]))
    image, label, i = images[2, 11]
    assert (image.shape, label, i) == ((1, 16, 16), 7, 2)
    assert (type(label), type(i)) == (int, int)
    assert len(images) == 7


def test_an_item_is_the_sample_of_its_row():
    part = part_of(7)
    _, evaluation = transforms(ImageSpec(16, 1, "none"), (0.0,), (1.0,))
    images = Images(part, part.labels, evaluation, 1)
    for i in range(7):
        expected = part.images.pixels[6 - i].astype(np.float32) / 255
        np.testing.assert_allclose(images[i][0][0].numpy(), expected, atol=1e-6)


def test_an_item_depends_on_its_number_and_seed_alone():
    images = augmented()
    torch.manual_seed(0)
    first = [images[i, seed][0] for i in (3, 4) for seed in (5, 2**61 + 1)]
    torch.manual_seed(99)
    torch.rand(17)
    again = [images[i, seed][0] for i in (4, 3) for seed in (2**61 + 1, 5)][::-1]
    for one, other in zip(first, again, strict=True):
        assert torch.equal(one, other)
    assert not torch.equal(first[0], first[1])
    assert torch.equal(images[3][0], images[3, 0][0])


def test_an_item_leaves_the_global_random_state_alone():
    images = augmented()
    torch.manual_seed(7)
    before = torch.get_rng_state()
    images[0, 3]
    assert torch.equal(torch.get_rng_state(), before)


def test_the_global_random_state_is_put_back_when_an_image_cannot_be_read(tmp_path):
    part = Part(FileImages([tmp_path / "gone.png"]), np.array([0]), np.array([0]), ("gone.png",))
    training, _ = transforms(ImageSpec(16, 1, "drawing"), (0.5,), (0.5,))
    before = torch.get_rng_state()
    with pytest.raises(UserError, match=r"gone\.png: the image is gone"):
        Images(part, part.labels, training, 1)[0, 3]
    assert torch.equal(torch.get_rng_state(), before)


def single(path, channels):
    part = Part(FileImages([path]), np.array([0]), np.array([0]), (path.name,))
    _, evaluation = transforms(ImageSpec(8, channels, "none"), (0.0,) * channels, (1.0,) * channels)
    return Images(part, part.labels, evaluation, channels)[0][0].numpy()


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK"])
def test_images_of_any_mode_become_grey_or_rgb(tmp_path, mode):
    path = tmp_path / "x.tif"
    Image.new("RGB", (8, 8), (255, 255, 255)).convert(mode).save(path)
    for channels in (1, 3):
        np.testing.assert_allclose(single(path, channels), np.ones((channels, 8, 8)), atol=0.02)


def test_grey_is_the_weighted_mean_of_the_colours_and_rgb_of_grey_repeats_it(tmp_path):
    Image.new("RGB", (8, 8), (200, 100, 50)).save(tmp_path / "c.png")
    Image.new("L", (8, 8), 77).save(tmp_path / "g.png")
    grey = (0.299 * 200 + 0.587 * 100 + 0.114 * 50) / 255
    np.testing.assert_allclose(single(tmp_path / "c.png", 1), np.full((1, 8, 8), grey), atol=1 / 255)
    np.testing.assert_allclose(single(tmp_path / "g.png", 3), np.full((3, 8, 8), 77 / 255), atol=1e-6)


def test_sixteen_bit_grey_keeps_its_shades(tmp_path):
    # Microscopes and X-rays; cut off at 255, nearly every pixel would be white.
    path = tmp_path / "deep.png"
    pixels = np.arange(64, dtype=np.uint16).reshape(8, 8) * 1040
    Image.fromarray(pixels).save(path)
    np.testing.assert_allclose(single(path, 1)[0], pixels / 65535, atol=1 / 255)


# --- Rows


def test_a_row_is_fed_as_it_is_whatever_the_seed():
    values = np.random.default_rng(0).normal(size=(7, 3))
    part = Part(FeatureRows(values), np.array([6, 2, 4]), np.array([1, 0, 1]), ("a", "b", "c"))
    rows = Rows(part, np.array([9, 8, 7]))
    assert len(rows) == 3
    for key in (1, (1, 5), (1, 2**61)):
        row, label, i = rows[key]
        assert row.dtype == torch.float32
        assert (row.tolist(), label, i) == (values[2].astype(np.float32).tolist(), 8, 1)


# --- DataModule


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
    split = build(
        ArrayImages(pixels),
        classes,
        parts,
        [str(i) for i in range(len(parts))],
        source="dataset made",
        image=ImageSpec(16, 1, augment),
    )
    backbone = SmallCNN(1, width=2)
    return DataModule(split, split.train.labels, backbone, recipe(), num_workers, seed), backbone


def test_training_batches_are_the_balanced_ones_with_augmented_images():
    data, _ = made()
    wanted = list(BalancedBatches(data.labels, 3, 2, 5, 0))
    batches = list(data.train_dataloader())
    assert len(batches) == len(wanted) == 4
    images = Images(data.split.train, data.labels, data.training, 1)
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
    ("workers", "words"), [(-1, "is too small; give 0 or more"), (1.5, "is not a whole number")]
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
    split = build(FeatureRows(values), labels, parts, names, source="made", image=RowSpec(5))
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
    images = Images(data.split.train, data.labels, data.training, 1)
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
