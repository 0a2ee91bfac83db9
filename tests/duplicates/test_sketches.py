import imagehash
import numpy as np
from PIL import Image

from deconfuse.data.images import ArrayImages, LazyImages
from deconfuse.data.split import Part
from deconfuse.duplicates.sketches import AT_ONCE, COLOURS, SIDE, draw, flatness, phash
from deconfuse.system.errors import UserError
from tests.duplicates.test_search import scene


def part(images):
    n = len(images)
    return Part(images, np.arange(n), np.zeros(n, int), tuple(map(str, range(n))))


def test_each_picture_is_read_once_and_kept_small_in_its_place():
    read = []

    def get(i):
        read.append(i)
        return scene(i, 90).convert("RGB")

    found = draw([part(ArrayImages(np.stack([np.asarray(scene(7, 64))]))), part(LazyImages(get, None, 5))])
    assert read == list(range(5))
    assert found.grey.shape == (6, SIDE, SIDE)
    wanted = scene(2, 90).resize((SIDE, SIDE), Image.Resampling.LANCZOS)
    np.testing.assert_array_equal(found.grey[3], np.asarray(wanted))
    assert found.colour[0].max() == 0  # a grey picture has no colours
    left = np.asarray(scene(2, 90), float)[: 90 // COLOURS, : 90 // COLOURS].mean()
    assert abs(found.colour[3, 0, 0, 1] - left) < 4  # a field is the mean of some 11 x 11 pixels


def test_pictures_that_cannot_be_read_are_of_one_grey():
    def get(i):
        if i == 1:
            raise UserError("gone")
        return scene(i)

    found = draw([part(LazyImages(get, None, 3))])
    assert [bool(each.any()) for each in found.grey] == [True, False, True]


def test_more_pictures_than_are_read_at_once_keep_their_order():
    n = 2 * AT_ONCE + 3
    pixels = np.arange(n)[:, None, None].astype(np.uint8).repeat(8, 1).repeat(8, 2)
    np.testing.assert_array_equal(draw([part(ArrayImages(pixels))]).grey[:, 5, 5], pixels[:, 0, 0])


def test_the_hash_of_a_sketch_is_imagehashs_of_the_picture():
    for i in range(12):
        image = scene(i, 71 + i)
        small = np.asarray(image.resize((SIDE, SIDE), Image.Resampling.LANCZOS))
        np.testing.assert_array_equal(phash(small), imagehash.phash(image, hash_size=16).hash.ravel())


def test_a_ground_is_the_share_of_the_commonest_grey():
    drawing = np.full((64, 64), 255, np.uint8)
    drawing[10:30, 10:30] = 0
    assert flatness(drawing) == 1 - 400 / 64**2
    ramp = np.repeat(np.arange(256, dtype=np.uint8), 16).reshape(64, 64)
    assert flatness(ramp) == 2 / 64
