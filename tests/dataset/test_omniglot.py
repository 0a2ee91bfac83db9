import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deconfuse.dataset import omniglot
from deconfuse.system.errors import UserError
from tests.samples import reader

load = reader(omniglot.load)

REAL = Path(__file__).parents[3] / "shared" / "data" / "omniglot"
TRAIN = ["Balinese", "Early_Aramaic", "Greek", "Korean", "Latin"]
TEST = ["Japanese_(katakana)", "Sanskrit", "Tagalog"]


def strokes(alphabet, character, drawing):
    """(105, 105) bool, True on paper, False where the pen was: a bar whose place tells the drawing."""
    paper = np.ones((105, 105), dtype=bool)
    paper[10 + 5 * character : 13 + 5 * character, 4 + 3 * drawing : 90] = False
    paper[:5, : len(alphabet)] = False
    return paper


def png(array):
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG")
    return buffer.getvalue()


def archive(root, name, alphabets, drawings=3):
    """A zip file as the authors lay it out: top/Alphabet/characterNN/NNNN_DD.png, 1 bit a pixel."""
    top = name.removesuffix(".zip")
    with zipfile.ZipFile(root / name, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr(f"{top}/", b"")
        for alphabet, characters in alphabets.items():
            file.writestr(f"{top}/{alphabet}/", b"")
            for c in range(1, characters + 1):
                file.writestr(f"{top}/{alphabet}/character{c:02}/", b"")
                for d in range(1, drawings + 1):
                    member = f"{top}/{alphabet}/character{c:02}/{c:04}_{d:02}.png"
                    file.writestr(member, png(strokes(alphabet, c, d)))
    return root / name


@pytest.fixture
def made(tmp_path):
    archive(tmp_path, "images_background_small1.zip", {"Greek": 2, "Korean": 3})
    archive(tmp_path, "images_background_small2.zip", {"Greek": 2, "Tagalog": 2, "Mkhedruli_(Georgian)": 1})
    return tmp_path


def test_the_made_drawings_are_one_bit_a_pixel_like_the_real_ones(made):
    with zipfile.ZipFile(made / "images_background_small1.zip") as file:
        image = Image.open(io.BytesIO(file.read("images_background_small1/Greek/character01/0001_01.png")))
    assert (image.mode, image.size) == ("1", (105, 105))


def test_classes_are_characters_and_alphabets_are_the_sides(made):
    split = load(str(made), ["Korean", "Greek"], ["Tagalog"], download=False)
    assert split.class_names == (
        "Greek/character01",
        "Greek/character02",
        "Korean/character01",
        "Korean/character02",
        "Korean/character03",
        "Tagalog/character01",
        "Tagalog/character02",
    )
    assert split.num_classes == 5
    assert split.train.labels.tolist() == [c for c in range(5) for _ in range(3)]
    assert split.query.labels.tolist() == [5, 5, 5, 6, 6, 6]
    assert split.train.names[0] == "Greek/character01/0001_01.png"
    assert split.query.names[-1] == "Tagalog/character02/0002_03.png"
    assert split.shared_gallery
    assert (split.image.size, split.image.channels, split.image.augment) == (32, 1, "drawing")


def test_an_alphabet_in_both_archives_is_taken_once(made):
    split = load(str(made), ["Greek"], ["Tagalog"], download=False)
    assert len(split.train) == len(set(split.train.names)) == 2 * 3


def test_strokes_become_white_on_black(made):
    split = load(str(made), ["Korean", "Greek"], ["Mkhedruli_(Georgian)"], download=False)
    for part in (split.train, split.query):
        for i, name in enumerate(part.names):
            alphabet, _, drawing = name.split("/")
            c, d = (int(word) for word in drawing.removesuffix(".png").split("_"))
            expected = np.where(strokes(alphabet, c, d), 0, 255)
            image = part.image(i)
            assert image.mode == "L"
            np.testing.assert_array_equal(np.asarray(image), expected)


def test_the_full_archive_alone_is_enough(tmp_path):
    archive(tmp_path, "images_background.zip", {"Greek": 2, "Tagalog": 2})
    split = load(str(tmp_path), ["Greek"], ["Tagalog"], download=False)
    assert (len(split.train), len(split.query)) == (6, 6)


def test_an_unknown_alphabet_is_answered_with_the_nearest(made):
    with pytest.raises(UserError) as caught:
        load(str(made), ["Greek"], ["Tagalgo"], download=False)
    assert str(caught.value) == (
        f"omniglot: no alphabet Tagalgo in {made}; did you mean Tagalog? "
        "Valid: Greek, Korean, Mkhedruli_(Georgian), Tagalog"
    )


def test_an_alphabet_on_both_sides_is_refused(made):
    with pytest.raises(UserError, match=r"alphabet Greek is in dataset\.train and dataset\.test; keep one$"):
        load(str(made), ["Greek", "Korean"], ["Greek"], download=False)


def test_missing_files_are_named_with_the_folder_and_the_source(tmp_path):
    with pytest.raises(UserError) as caught:
        load(str(tmp_path / "none"), ["Greek"], ["Tagalog"], download=False)
    text = str(caught.value)
    assert f"looked in {tmp_path / 'none'} for" in text
    assert "images_background_small1.zip and images_background_small2.zip (or images_background.zip)" in text
    assert "github.com/brendenlake/omniglot" in text
    assert text.endswith("set dataset.root=FOLDER")
    assert not (tmp_path / "none").exists()


def test_a_relative_folder_is_named_in_full(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=rf"looked in {tmp_path}/data/omniglot for"):
        load("data/omniglot", ["Greek"], ["Tagalog"], download=False)


def test_a_download_that_fails_is_told_with_the_files(tmp_path, monkeypatch):
    def offline(*_, **__):
        raise OSError("<urlopen error [Errno -3] Temporary failure in name resolution>")

    monkeypatch.setattr("deconfuse.dataset.omniglot.Omniglot", offline)
    with pytest.raises(UserError) as caught:
        load(str(tmp_path), ["Greek"], ["Tagalog"])
    text = str(caught.value)
    assert f"looked in {tmp_path} for images_background_small1.zip" in text
    assert "could not download them (<urlopen error [Errno -3] Temporary failure" in text
    assert text.endswith("set dataset.root=FOLDER")


def test_a_download_is_read_where_torchvision_puts_it(tmp_path, monkeypatch):
    def download(root, background, download):
        folder = Path(root) / "omniglot-py"
        folder.mkdir()
        archive(folder, "images_background.zip", {"Greek": 2, "Tagalog": 2})

    monkeypatch.setattr("deconfuse.dataset.omniglot.Omniglot", download)
    split = load(str(tmp_path), ["Greek"], ["Tagalog"])
    assert (split.num_classes, len(split.train), len(split.query)) == (2, 6, 6)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_a_truncated_archive_is_named(made, share):
    path = made / "images_background_small2.zip"
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(UserError, match=rf"^{path}: damaged \(.*\); fetch it again$"):
        load(str(made), ["Greek"], ["Tagalog"], download=False)


def damaged_in(path, position, value):
    data = bytearray(path.read_bytes())
    data[position] = value
    path.write_bytes(data)


def first_drawing(path):
    """Where the first drawing's compressed bytes start."""
    with zipfile.ZipFile(path) as file:
        info = next(info for info in file.infolist() if info.filename.endswith(".png"))
    return info.header_offset + 30 + len(info.filename)


def test_a_damaged_drawing_is_noticed(made):
    path = made / "images_background_small1.zip"
    damaged_in(path, first_drawing(path) + 40, 0x55)
    with pytest.raises(UserError, match=rf"^{path}: damaged \(.*\); fetch it again$"):
        load(str(made), ["Greek"], ["Tagalog"], download=False)


def test_a_damaged_start_of_a_drawing_is_noticed(made):
    # zlib, not zipfile, complains: 7 opens a block of a kind that does not exist.
    path = made / "images_background_small1.zip"
    damaged_in(path, first_drawing(path), 7)
    with pytest.raises(UserError, match=rf"^{path}: damaged \(.*\); fetch it again$"):
        load(str(made), ["Greek"], ["Tagalog"], download=False)


@pytest.fixture(scope="module")
def real():
    if not REAL.is_dir():
        pytest.skip(f"no Omniglot archives at {REAL}")
    return load(str(REAL), TRAIN, TEST, download=False)


def test_the_real_archives_hold_136_training_and_106_test_characters_of_20_drawings(real):
    assert real.num_classes == 136
    assert len(real.class_names) == 136 + 106
    np.testing.assert_array_equal(np.bincount(real.train.labels), np.full(136, 20))
    np.testing.assert_array_equal(np.bincount(real.query.labels)[136:], np.full(106, 20))


def test_the_real_sides_have_their_own_alphabets(real):
    assert {name.split("/")[0] for name in real.train.names} == set(TRAIN)
    assert {name.split("/")[0] for name in real.query.names} == set(TEST)


def test_the_real_drawings_are_thin_white_strokes_on_black(real):
    pixels = real.train.images.pixels
    assert pixels.shape == (242 * 20, 105, 105)
    assert np.unique(pixels).tolist() == [0, 255]
    ink = (pixels == 255).mean((1, 2))
    assert 0.005 < ink.min() < ink.max() < 0.3
