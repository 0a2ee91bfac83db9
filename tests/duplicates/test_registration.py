import itertools

import numpy as np
import pytest
import torch
from PIL import Image

from deconfuse.duplicates.registration import colour_difference, improve, reduced, worst_field
from tests.duplicates.test_search import scene

HERE = torch.tensor([[1.0, 0.0, 1.0, 0.0]])


def picture(image, side=64):
    return torch.from_numpy(np.array(image.resize((side, side), Image.Resampling.LANCZOS))).float()[None]


@pytest.mark.parametrize("seed", range(4))
def test_a_crop_is_laid_where_it_was_cut_out(seed):
    original = scene(seed)
    crop = original.crop((6, 10, 196, 196))  # in half lengths: x' = 0.95 x + 0.01, y' = 0.93 y + 0.03
    one, other = (reduced(picture(each), 64) for each in (crop, original))
    start = torch.tensor([[0.97, 0.0, 0.96, 0.02]])
    place, correlation = improve(one, other, start, 8)
    assert place[0].tolist() == pytest.approx([0.95, 0.01, 0.93, 0.03], abs=0.003)
    before = improve(one, other, start, 0)[1]
    assert before < correlation
    assert correlation > 0.995
    # The other way round the place is the inverse one, as far as the crop shows it.
    inverse = torch.tensor([[1 / 0.96, 0.0, 1 / 0.95, -0.02]])
    place, _ = improve(other, one, inverse, 8)
    assert place[0].tolist() == pytest.approx([1 / 0.95, -0.01 / 0.95, 1 / 0.93, -0.03 / 0.93], abs=0.006)


def test_the_correlation_is_that_of_the_pixels_whatever_contrast_and_brightness():
    one, other = picture(scene(0)), picture(scene(1))
    _, found = improve(one, other, HERE, 0)
    wanted = np.corrcoef(one.numpy().ravel(), other.numpy().ravel())[0, 1]
    assert found.item() == pytest.approx(wanted, abs=1e-4)
    _, same = improve(one, 0.3 * one + 40, HERE, 0)
    assert same.item() == pytest.approx(1, abs=1e-4)
    assert improve(one, 200 - one, HERE, 2)[1] < 0
    _, none = improve(torch.full_like(one, 90), one, HERE, 3)
    assert none.item() == 0


def test_a_step_that_makes_it_worse_is_not_kept():
    one, other = (torch.cat([picture(scene(i)) for i in some]) for some in ([0, 1, 2], [3, 4, 5]))
    now = [improve(one, other, HERE.repeat(3, 1), steps)[1] for steps in range(5)]
    for fewer, more in itertools.pairwise(now):
        assert (more >= fewer).all()


def test_the_worst_field_is_the_largest_difference_in_one_part_of_the_picture():
    one = picture(scene(2))
    other = one.clone()
    other[0, 16:32, 48:64] += torch.tensor([9.0, -9.0]).repeat(8)
    # The best contrast differs from 1 by little, as the difference has mean 0 and hardly any correlation.
    wanted = 81 / one.var(correction=0).item()
    assert worst_field(one, other, HERE).item() == pytest.approx(wanted, rel=0.05)
    assert worst_field(one, 0.5 * one + 3, HERE).item() == pytest.approx(0, abs=1e-4)


def test_colours_are_compared_without_their_brightness():
    random = torch.Generator().manual_seed(0)
    grey = 200 * torch.rand(1, 1, 8, 8, generator=random)
    red, blue = (grey + torch.tensor(each).view(1, 3, 1, 1) for each in ([60.0, 0, 0], [0.0, 0, 60]))
    assert colour_difference(red, red + 20, HERE).item() == pytest.approx(0, abs=1e-4)
    # ||(60, -60)|| / (60 + 60 + 8) in each pixel
    assert colour_difference(red, blue, HERE).item() == pytest.approx(60 * 2**0.5 / 128, rel=1e-3)
    assert colour_difference(red, grey.repeat(1, 3, 1, 1), HERE).item() == 0


def test_reduced_pictures_keep_the_mean():
    one = picture(scene(1))
    assert reduced(one, 16).shape == (1, 16, 16)
    flat = torch.full((1, 64, 64), 7.0)
    torch.testing.assert_close(reduced(flat, 16), torch.full((1, 16, 16), 7.0))
