import numpy as np
import pytest
from PIL import Image

from deconfuse.data.images import FileImages
from deconfuse.data.pixels import Pixels
from deconfuse.data.readable import readable
from deconfuse.system.errors import UserError
from tests.samples import BAD, encoded, made


def folder_of(tmp_path):
    """Good and bad images in turn; returns them and the rows of the good ones."""
    good = {f"good{i}.png": encoded("PNG", seed=i) for i in range(4)}
    names = [
        "good0.png",
        "zero.png",
        "good1.png",
        "text.png",
        "half.jpg",
        "good2.png",
        "good3.png",
        "half.png",
    ]
    for name in names:
        (tmp_path / name).write_bytes({**BAD, **good}[name])
    return FileImages([tmp_path / name for name in names]), [0, 2, 5, 6]


def test_skip_drops_exactly_the_bad_rows_and_says_which(tmp_path, capsys):
    images, good = folder_of(tmp_path)
    assert readable(images, "skip").tolist() == good
    said = capsys.readouterr().err.splitlines()
    assert [line.split(":")[0].rpartition("/")[2] for line in said] == [
        "zero.png",
        "text.png",
        "half.jpg",
        "half.png",
    ]
    assert all(line.startswith("skipped ") and "not a readable image" in line for line in said)


def test_raise_names_the_first_bad_ones_and_their_number_before_training(tmp_path):
    images, good = folder_of(tmp_path)
    with pytest.raises(UserError) as caught:
        readable(images, "raise")
    text = str(caught.value)
    assert text.startswith(f"4 of 8 images can't be used: {tmp_path}/zero.png: not a readable image (")
    assert "text.png" in text
    assert "half.jpg" in text
    assert text.endswith(" and 1 more; mend or replace them, or set dataset.on_bad_image=skip")
    whole = FileImages([images.files[i] for i in good])
    assert readable(whole, "raise").tolist() == [0, 1, 2, 3]
    with pytest.raises(UserError, match=r"gone\.png: the image is gone; restore it"):
        readable(FileImages([tmp_path / "gone.png"]), "raise")


def test_later_opens_no_image(tmp_path):
    images, _ = folder_of(tmp_path)
    assert readable(images, "later").tolist() == list(range(8))


@pytest.mark.parametrize("format", ["PNG", "BMP", "PPM", "TIFF", "WEBP", "GIF", "JPEG"])
@pytest.mark.parametrize("cut", [1, 3, 20, 400])
def test_a_file_cut_short_is_found_by_its_end_exactly_where_decoding_finds_it(tmp_path, format, cut):
    path, content = tmp_path / "x", encoded(format, 99)
    path.write_bytes(content)
    assert readable(FileImages([path]), "raise").tolist() == [0]
    path.write_bytes(content[:-cut])
    try:
        FileImages([path])[0]
    except UserError:
        with pytest.raises(UserError, match="not a readable image"):
            readable(FileImages([path]), "raise")
    else:
        assert readable(FileImages([path]), "raise").tolist() == [0]


def test_a_whole_file_is_not_decoded_for_its_inspection(tmp_path, monkeypatch):
    path = tmp_path / "x"
    for format in ("PNG", "BMP", "TIFF", "WEBP", "GIF", "JPEG"):
        path.write_bytes(encoded(format, 99))
        with monkeypatch.context() as patch:
            patch.setattr("deconfuse.data.images.plain", lambda *args: 1 / 0)
            assert readable(FileImages([path]), "raise").tolist() == [0]


def test_a_very_large_image_is_named_in_one_line_and_not_warned_of(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    path = tmp_path / "big.png"
    Image.new("L", (15, 10)).save(path)
    images = FileImages([path])
    assert readable(images, "raise").tolist() == [0]
    assert images[0].size == (15, 10)
    said = capsys.readouterr().err.splitlines()
    assert said == [f"very large images, read as a whole each time: {path} (15 x 10)"]


@pytest.mark.parametrize(
    ("highest", "dtype", "white"),
    [
        (200, np.uint16, 255),
        (4080, np.uint16, 4095),
        (65535, np.uint16, 65535),
        (1, np.float32, 1),
        (250, np.float32, 255),
    ],
)
def test_all_images_of_a_kind_have_the_scale_of_the_largest_value(tmp_path, capsys, highest, dtype, white):
    files = [tmp_path / f"{i}.tif" for i in range(2)]
    values = np.array([[0, highest]], dtype)
    for file, share in zip(files, (1, 0.5), strict=True):
        Image.fromarray((values * share).astype(dtype)).save(file)
    images = FileImages(files)
    readable(images, "raise")
    assert list(images.whites.values()) == [white]
    brightest = [int(np.asarray(images[i]).max()) for i in range(2)]
    assert brightest[0] == pytest.approx(255 * highest / white, abs=1)
    assert brightest[1] == pytest.approx(
        127.5 * highest / white, abs=1
    )  # half as bright stays half as bright
    assert f"{white:g} white" in capsys.readouterr().err
    assert images.content(0).endswith(f"{float(white)}".encode())
    wide = FileImages(files, pixels=Pixels(value_range=[0, 2 * highest]))
    readable(wide, "raise")
    assert np.asarray(wide[0]).max() == pytest.approx(127.5, abs=0.5)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([[0, np.nan]], r"NaN or infinite"),
        ([[-0.5, 1]], r"values below 0, down to -0\.5"),
        ([[0, 3.0]], r"neither of 0 to 1 nor of 0 to 255\)?; set dataset\.value_range=\[0,1\]"),
    ],
)
def test_floats_without_a_scale_are_refused_with_the_files_name(tmp_path, values, said):
    path = tmp_path / "x.tif"
    Image.fromarray(np.array(values, np.float32)).save(path)
    with pytest.raises(UserError, match=rf"x\.tif: .*{said}"):
        readable(FileImages([path]), "raise")


def test_skip_of_nothing_but_bad_images_leaves_none(tmp_path):
    (tmp_path / "zero.png").write_bytes(b"")
    images = FileImages([tmp_path / "zero.png"] * 3)
    assert readable(images, "skip").tolist() == []
    with pytest.raises(UserError, match=r"^dataset made: no training images"):
        made(["a train", "a train", "b test"], images, on_bad_image="skip")


def test_the_word_for_bad_images_is_checked(tmp_path):
    with pytest.raises(UserError, match=r"^dataset\.on_bad_image=skipp is not known; did you mean skip\?"):
        readable(FileImages([]), "skipp")
