import hashlib
import unicodedata
from itertools import combinations

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from deconfuse.dataset import glyphs
from deconfuse.dataset.glyphs import CANVAS, FACES, HOMOGLYPHS, _font_path, draw, letters, readable_name
from deconfuse.system.errors import UserError
from tests.samples import reader

load = reader(glyphs.load)


@pytest.fixture(scope="module")
def default():
    return load()


def pixels_of(split):
    return split.train.images.pixels


# --- letters and names


def test_there_are_330_letters_of_three_scripts_in_code_point_order():
    found = letters()
    assert len(found) == len(set(found)) == 330
    assert found == sorted(found)
    assert {unicodedata.name(letter).split()[0] for letter in found} == {"LATIN", "GREEK", "CYRILLIC"}
    assert not any(unicodedata.normalize("NFKD", letter) != letter for letter in found)


def test_there_are_16_faces():
    assert len(FACES) == len(set(FACES)) == 16


@pytest.mark.parametrize(
    ("letter", "name"),
    [
        ("Μ", "Μ Greek Mu"),
        ("а", "а Cyrillic small A"),
        ("A", "A Latin A"),
        ("z", "z Latin small Z"),
        ("Ђ", "Ђ Cyrillic Dje"),
        ("ς", "ς Greek small Final Sigma"),
    ],
)
def test_readable_names(letter, name):
    assert readable_name(letter) == name


def test_readable_names_are_different_for_all_letters():
    assert len({readable_name(letter) for letter in letters()}) == 330


# --- homoglyphs


def plain(letter, font):
    """A letter without jitter, (96, 96) int."""
    canvas = Image.new("L", (96, 96))
    ImageDraw.Draw(canvas).text((48, 65), letter, font=font, fill=255, anchor="ms")
    return np.asarray(canvas).astype(np.int32)


def font_of(face):
    return ImageFont.truetype(_font_path(face), 48)


def components(pairs):
    """Sets of what is joined by pairs, directly or through others."""
    groups = []
    for pair in pairs:
        joined = [group for group in groups if group & set(pair)]
        groups = [group for group in groups if group not in joined] + [set(pair).union(*joined)]
    return {frozenset(group) for group in groups}


def test_homoglyphs_are_what_drawing_all_letters_finds():
    alphabet = letters()
    agreed = np.zeros((330, 330), dtype=int)
    for face in FACES:
        font = font_of(face)
        drawn = np.stack([plain(letter, font).ravel() for letter in alphabet])
        ink = drawn.sum(1)
        limit = 0.02 * np.maximum(ink, 255)
        # |sum a - sum b| <= sum |a - b|: only pairs of nearly the same ink can agree.
        for i, j in np.argwhere(np.triu(np.abs(ink[:, None] - ink) < limit[:, None], k=1)):
            agreed[i, j] += np.abs(drawn[i] - drawn[j]).sum() < limit[i]
    pairs = [(alphabet[i], alphabet[j]) for i, j in np.argwhere(agreed >= 4)]
    assert components(pairs) == {frozenset(group) for group in HOMOGLYPHS}


def test_homoglyph_groups_are_disjoint_groups_of_letters():
    everything = "".join(HOMOGLYPHS)
    assert len(everything) == len(set(everything))
    assert set(everything) <= set(letters())
    assert all(len(group) >= 2 for group in HOMOGLYPHS)


# --- drawing


def test_a_drawing_without_jitter_is_the_letter_reduced_by_averaging():
    drawn = draw("Ж", "DejaVuSerif", 32, 0.5, (0, 0), 0)
    expected = plain("Ж", font_of("DejaVuSerif")).reshape(32, 3, 32, 3).mean((1, 3))
    assert drawn.dtype == np.uint8
    assert drawn.shape == (32, 32)
    assert CANVAS == 96
    np.testing.assert_allclose(drawn, expected, atol=1)


def test_a_shift_moves_right_and_down():
    middle, moved = (draw("o", "DejaVuSans", 96, 0.5, shift, 0) for shift in ((0, 0), (1 / 16, 1 / 32)))
    np.testing.assert_array_equal(moved[3:, 6:], middle[:-3, :-6])


# --- the data set


def test_the_default_is_240_classes_of_16_images_half_of_them_to_train(default):
    assert len(default.class_names) == len(set(default.class_names)) == 240
    assert default.num_classes == 120
    assert (len(default.train), len(default.query)) == (1920, 1920)
    assert default.shared_gallery
    np.testing.assert_array_equal(np.bincount(default.train.labels), np.full(120, 16))
    np.testing.assert_array_equal(np.bincount(default.query.labels - 120), np.full(120, 16))
    assert default.class_names[:120] == tuple(sorted(default.class_names[:120]))
    assert default.class_names[120:] == tuple(sorted(default.class_names[120:]))


def test_images_are_grey_32_by_32_bytes_none_empty(default):
    assert pixels_of(default).shape == (3840, 32, 32)
    assert pixels_of(default).dtype == np.uint8
    assert pixels_of(default).reshape(3840, -1).max(1).min() > 60
    assert (default.image.size, default.image.channels, default.image.augment) == (32, 1, "drawing")


def test_each_class_is_drawn_once_by_each_face_under_its_code_point(default):
    letter_of = {readable_name(letter): letter for letter in letters()}
    for part in (default.train, default.query):
        named = [f"U+{ord(letter_of[default.class_names[c]]):04X}" for c in part.labels]
        assert [name.split("/")[0] for name in part.names] == named
        faces = {}
        for code, name in zip(named, part.names, strict=True):
            faces.setdefault(code, []).append(name.split("/")[1])
        assert all(tuple(found) == FACES for found in faces.values())


def test_letters_stay_inside_the_canvas(default):
    edge = pixels_of(default).copy()
    edge[:, 1:-1, 1:-1] = 0
    assert (edge.reshape(len(edge), -1).max(1) > 0).mean() < 0.02


def test_the_same_seed_draws_the_same_bytes_and_another_does_not():
    first, again, other = (load(classes=12, seed=seed) for seed in (3, 3, 4))
    assert pixels_of(first).tobytes() == pixels_of(again).tobytes()
    assert first.class_names == again.class_names
    assert first.fingerprints[1] == again.fingerprints[1]
    assert first.class_names != other.class_names
    assert pixels_of(first).tobytes() != pixels_of(other).tobytes()


def test_the_two_halves_of_one_seed_are_jittered_differently():
    split = load(classes=4)
    digests = {hashlib.sha256(image.tobytes()).hexdigest() for image in pixels_of(split)}
    assert len(digests) == 64


def test_an_odd_number_of_classes_and_another_size():
    split = load(classes=5, image_size=17)
    assert (split.num_classes, len(split.class_names)) == (2, 5)
    assert pixels_of(split).shape == (80, 17, 17)


def test_all_330_classes_can_be_had_and_bring_all_homoglyphs(monkeypatch):
    # What the images look like is not asked here, and drawing 5,280 of them takes its time.
    monkeypatch.setattr("deconfuse.dataset.glyphs.draw", lambda *_: np.zeros((8, 8), dtype=np.uint8))
    split = load(classes=330, image_size=8)
    assert len(split.class_names) == 330
    spelt = {frozenset(split.class_names[c][0] for c in group) for group in split.same_things}
    assert spelt == {frozenset(group) for group in HOMOGLYPHS}


def test_same_things_hold_every_homoglyph_of_the_split_and_nothing_else(default):
    ids = {name[0]: i for i, name in enumerate(default.class_names)}
    group_of = {letter: group for group in HOMOGLYPHS for letter in group}
    pairs = {
        frozenset((ids[a], ids[b]))
        for a, b in combinations(ids, 2)
        if a in group_of and group_of[a] == group_of.get(b)
    }
    given = {frozenset(pair) for group in default.same_things for pair in combinations(group, 2)}
    assert given == pairs
    assert len(pairs) > 20
    assert all(0 <= c < 240 for group in default.same_things for c in group)


# --- errors


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (3, "dataset.classes=3 is too small; give 4 or more"),
        (331, "dataset.classes=331 is out of range; give a value in [4, 330]"),
        (5.5, "dataset.classes=5.5 is not a whole number"),
        ("many", "dataset.classes=many is not a number"),
    ],
)
def test_the_number_of_classes_is_checked(classes, message):
    with pytest.raises(UserError) as caught:
        load(classes=classes)
    assert str(caught.value) == message


def test_the_image_size_is_checked():
    with pytest.raises(UserError, match=r"^dataset\.image_size=7 is too small; give 8 or more$"):
        load(image_size=7)
