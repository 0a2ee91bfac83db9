import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from deconfuse.duplicates import proposals
from deconfuse.duplicates.proposals import ORDER, WHOLE, cosines, frequencies, proposed
from deconfuse.duplicates.sketches import SIDE
from tests.duplicates.test_search import scene

CPU = torch.device("cpu")


def small(image):
    return np.array(image.resize((SIDE, SIDE), Image.Resampling.LANCZOS))


def pairs(grey, mirrored=False):
    found = proposed(np.stack(grey), mirrored, CPU)
    return list(zip(found.a.tolist(), found.b.tolist(), found.flip.tolist(), strict=True)), found


def test_the_frequencies_of_the_whole_are_those_of_the_cosine_transform():
    from scipy.fft import dct

    grey = small(scene(3))[None]
    wanted = dct(dct(grey[0].astype(float), axis=0), axis=1)[:ORDER, :ORDER] / (2 * SIDE) ** 2
    found = frequencies(grey, WHOLE, CPU)[0]
    np.testing.assert_allclose(found, wanted.ravel()[1:], rtol=1e-4, atol=1e-4)


def test_the_frequencies_of_a_window_are_those_of_the_picture_cut_out():
    grey = small(scene(5))
    cut = np.array(Image.fromarray(grey[8:56, 4:52]).resize((SIDE, SIDE), Image.Resampling.BICUBIC))
    window = (8 / 64, 48 / 64), (4 / 64, 48 / 64)
    one, other = frequencies(grey[None], window, CPU)[0], frequencies(cut[None], WHOLE, CPU)[0]
    assert torch.corrcoef(torch.stack([one, other]))[0, 1] > 0.999


def test_a_pixel_counts_by_its_share_of_the_window():
    rows = cosines(0.5 / SIDE, 3 / SIDE)
    np.testing.assert_allclose(rows[0, :5], np.array([0.5, 1, 1, 0.5, 0]) / 3, atol=1e-12)


def test_a_crop_is_proposed_with_its_place_whichever_of_the_two_comes_first():
    originals = [small(scene(i)) for i in range(20)]
    crop = small(scene(4).crop((12, 0, 200, 188)))  # 94 % of both sides, at the right and at the top
    for grey, of in (([*originals, crop], 4), ([crop, *originals], 5)):
        known, found = pairs(grey)
        ends = (of, 20, False) if of == 4 else (0, of, False)
        at = known.index(ends)
        x, y = (0.94, 0.06), (0.94, -0.06)
        if of == 4:  # where in the crop a point of the original is
            x, y = (1 / x[0], -x[1] / x[0]), (1 / y[0], -y[1] / y[0])
        assert found.place[at].tolist() == pytest.approx([*x, *y], abs=1e-6)


def test_a_mirror_image_is_proposed_where_that_is_asked_with_the_place_in_it():
    grey = [small(scene(i)) for i in range(20)]
    grey.append(small(ImageOps.mirror(scene(6).crop((12, 0, 200, 188)))))
    known, found = pairs(grey, mirrored=True)
    assert (6, 20, False) not in known
    place = found.place[known.index((6, 20, True))].tolist()
    # Mirrored, what was cut off at the left is missing at the right.
    assert place == pytest.approx([1 / 0.94, 0.06 / 0.94, 1 / 0.94, 0.06 / 0.94], abs=1e-6)
    assert (6, 20, True) not in pairs(grey)[0]


def test_tiles_of_any_size_propose_the_same(monkeypatch):
    grey = [small(scene(i % 17).crop((0, 0, 200 - 4 * (i // 17), 200))) for i in range(41)]
    whole, _ = pairs(grey)
    monkeypatch.setattr(proposals, "TILE_BYTES", 8 * 41 * 3)
    monkeypatch.setattr(proposals, "CHUNK", 5)
    assert pairs(grey)[0] == whole
    assert {(i, i + 17, False) for i in range(17)} <= set(whole)


def test_pictures_of_one_grey_are_like_nothing():
    grey = [np.full((SIDE, SIDE), v, np.uint8) for v in (0, 0, 90, 255)]
    assert pairs(grey)[0] == []
    assert pairs([*grey, small(scene(0)), small(scene(0))])[0] == [(4, 5, False)]
