import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageOps

from deconfuse.data.images import LazyImages
from deconfuse.data.split import Part
from deconfuse.duplicates import confirm
from deconfuse.duplicates.confirm import likeness
from deconfuse.duplicates.proposals import Pairs
from deconfuse.duplicates.sketches import draw
from tests.duplicates.test_search import jpeg, scene


def alike(one, other, flip=False):
    images = LazyImages([one, other].__getitem__, None, 2)
    sketches = draw([Part(images, np.arange(2), np.zeros(2, int), ("a", "b"))])
    here = torch.tensor([[1.0, 0.0, 1.0, 0.0]])
    pairs = Pairs(torch.tensor([0]), torch.tensor([1]), torch.tensor([flip]), here)
    return likeness(pairs, sketches, torch.device("cpu"))[0]


def letter(shift, wide=14):
    image = Image.new("L", (96, 96), 255)
    ImageDraw.Draw(image).rectangle((30 + shift, 15, 30 + shift + wide, 80), 0)
    ImageDraw.Draw(image).rectangle((30 + shift, 15, 70 + shift, 28), 0)
    return image


@pytest.mark.parametrize("seed", range(3))
def test_copies_are_alike_and_other_pictures_are_not(seed):
    image = scene(seed)
    assert alike(image, jpeg(image)) > 0.999
    assert alike(image, image.crop((4, 2, 198, 196))) > 0.98
    assert alike(image, ImageOps.mirror(image)) == 0
    assert alike(image, ImageOps.mirror(image), flip=True) > 0.999
    assert alike(image, scene(seed + 50)) == 0


def test_one_shape_in_two_colours_is_no_copy():
    mask = scene(0)
    red, blue = (ImageOps.colorize(mask, "black", colour) for colour in ((255, 90, 90), (90, 90, 255)))
    assert alike(red, blue) == 0
    assert alike(red, jpeg(red).convert("L")) > 0.98


def test_a_part_that_differs_makes_another_picture_of_it():
    image = scene(1)
    changed = image.copy()
    pixels = np.asarray(image, float).std()
    ImageDraw.Draw(changed).rectangle((20, 20, 44, 44), int(128 + pixels))
    ImageDraw.Draw(changed).rectangle((26, 26, 38, 38), int(128 - pixels))
    assert alike(image, changed) == 0


def test_drawings_may_differ_less_than_photographs(monkeypatch):
    assert alike(letter(0), jpeg(letter(0), 90)) > 0.995
    assert alike(letter(0), letter(0, wide=16)) == 0
    monkeypatch.setattr(confirm, "DRAWN", 1.0)
    assert alike(letter(0), letter(0, wide=16)) > 0.98


def test_parts_of_any_size_find_the_same(monkeypatch):
    images = LazyImages(lambda i: scene(i % 5).crop((0, 0, 200 - 2 * (i // 5), 200)), None, 15)
    sketches = draw([Part(images, np.arange(15), np.zeros(15, int), ("",) * 15)])
    a, b = (each.flatten() for each in torch.triu_indices(15, 15, 1))
    place = torch.tensor([[1.0, 0.0, 1.0, 0.0]]).repeat(len(a), 1)
    pairs = Pairs(a, b, torch.zeros(len(a), dtype=torch.bool), place)
    whole = likeness(pairs, sketches, torch.device("cpu"))
    monkeypatch.setattr(confirm, "AT_ONCE", 7)
    np.testing.assert_allclose(likeness(pairs, sketches, torch.device("cpu")), whole, atol=1e-4)
    same = (a % 5 == b % 5).numpy()
    np.testing.assert_array_equal(whole > 0, same)
