import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import InterpolationMode, v2

from deconfuse.data.images import ArrayImages, FeatureRows, FileImages
from deconfuse.data.pixels import as_mode
from deconfuse.data.readable import readable
from deconfuse.data.split import ImageSpec, Part
from deconfuse.data.transforms import ImageDataset, RowDataset, transforms
from deconfuse.system.errors import UserError

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


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


@pytest.mark.parametrize(("side", "channels"), [(32, 1), (29, 3)])
def test_a_drawing_is_moved_as_torchvision_moves_it_pixel_by_pixel(side, channels):
    bilinear, mean = InterpolationMode.BILINEAR, (0.5,) * channels
    theirs = v2.Compose(
        [
            v2.Resize((side, side), bilinear),
            v2.RandomAffine(8, translate=(0.06, 0.06), scale=(0.9, 1.1), shear=6, interpolation=bilinear),
            v2.PILToTensor(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(mean, mean),
        ]
    )
    ours, _ = transforms(ImageSpec(side, channels, "drawing"), mean, mean)
    random = np.random.default_rng(0)
    for seed in range(60):
        shape = (side, side + seed % 2, *([3] * (channels == 3)))  # a square, and what is squeezed into one
        image = Image.fromarray(random.integers(0, 256, shape, dtype=np.uint8))
        torch.manual_seed(seed)
        want, after = theirs(image), torch.get_rng_state()
        torch.manual_seed(seed)
        assert torch.equal(ours(image), want)
        assert torch.equal(torch.get_rng_state(), after)


@pytest.mark.parametrize("augment", ["drawing", "photo", "none"])
def test_a_batch_is_its_images_one_by_one(augment):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 20, 17), dtype=np.uint8)
    part = Part(ArrayImages(pixels), np.arange(5), np.array([0, 0, 1, 1, 2]), tuple("abcde"))
    images = ImageDataset(part, part.labels, transforms(ImageSpec(16, 3, augment), MEAN, STD)[0], 3)
    keys = [(4, 7), (0, 2**61), (4, 8), 3]
    before = torch.get_rng_state()
    shown, labels, rows = images.__getitems__(keys)
    assert torch.equal(torch.get_rng_state(), before)
    assert (labels.tolist(), rows.tolist()) == ([2, 0, 2, 1], [4, 0, 4, 3])
    assert (shown.shape, shown.dtype, shown.is_contiguous()) == ((4, 3, 16, 16), torch.float32, True)
    assert torch.equal(shown, torch.stack([images[key][0] for key in keys]))
    assert images.__getitems__([]) == []


def test_an_unknown_augmentation_is_answered_with_the_nearest():
    with pytest.raises(UserError) as caught:
        transforms(ImageSpec(16, 1, "foto"), (0.5,), (0.5,))
    assert str(caught.value) == (
        "dataset.augment=foto is not known; did you mean photo? Valid: drawing, none, photo"
    )


def part_of(n, side=16, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (n, side, side), dtype=np.uint8)
    return Part(ArrayImages(pixels), np.arange(n)[::-1], np.arange(n) % 3, tuple(map(str, range(n))))


def augmented(n=7, **options):
    training, _ = transforms(ImageSpec(16, 1, "drawing"), (0.5,), (0.5,))
    part = part_of(n)
    return ImageDataset(part, options.pop("labels", part.labels), training, 1)


def test_an_item_is_image_label_and_its_own_number():
    images = augmented(labels=np.array([9, 8, 7, 6, 5, 4, 3]))
    image, label, i = images[2, 11]
    assert (image.shape, label, i) == ((1, 16, 16), 7, 2)
    assert (type(label), type(i)) == (int, int)
    assert len(images) == 7


def test_an_item_is_the_sample_of_its_row():
    part = part_of(7)
    _, evaluation = transforms(ImageSpec(16, 1, "none"), (0.0,), (1.0,))
    images = ImageDataset(part, part.labels, evaluation, 1)
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
        ImageDataset(part, part.labels, training, 1)[0, 3]
    assert torch.equal(torch.get_rng_state(), before)


def single(path, channels):
    images = FileImages([path])
    readable(images, "raise")  # finds the value of white
    part = Part(images, np.array([0]), np.array([0]), (path.name,))
    _, evaluation = transforms(ImageSpec(8, channels, "none"), (0.0,) * channels, (1.0,) * channels)
    return ImageDataset(part, part.labels, evaluation, channels)[0][0].numpy()


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


def test_a_row_is_fed_as_it_is_whatever_the_seed():
    values = np.random.default_rng(0).normal(size=(7, 3))
    part = Part(FeatureRows(values), np.array([6, 2, 4]), np.array([1, 0, 1]), ("a", "b", "c"))
    rows = RowDataset(part, np.array([9, 8, 7]))
    assert len(rows) == 3
    for key in (1, (1, 5), (1, 2**61)):
        row, label, i = rows[key]
        assert row.dtype == torch.float32
        assert (row.tolist(), label, i) == (values[2].astype(np.float32).tolist(), 8, 1)
