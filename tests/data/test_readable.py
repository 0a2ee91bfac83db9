import struct

import numpy as np
import pytest
from PIL import Image

from deconfuse.data.images import FileImages
from deconfuse.data.pixels import Pixels
from deconfuse.data.readable import readable
from deconfuse.system.errors import UserError
from tests.data.test_pixels import png_bytes
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
        ([[0, np.nan]], r"NaN or infinite values; mend the file or set dataset\.on_bad_image=skip$"),
        ([[0, np.inf]], r"NaN or infinite values; mend the file"),
        ([[-0.5, 1]], r"values below 0, down to -0\.5; set dataset\.value_range=\[BLACK,WHITE\], the values"),
        ([[0, 3.0]], r"neither of 0 to 1 nor of 0 to 255\)?; set dataset\.value_range=\[0,1\]"),
    ],
)
def test_floats_without_a_scale_are_refused_with_the_files_name(tmp_path, values, said):
    path = tmp_path / "x.tif"
    Image.fromarray(np.array(values, np.float32)).save(path)
    with pytest.raises(UserError, match=rf"x\.tif: .*{said}"):
        readable(FileImages([path]), "raise")


def test_nan_is_refused_with_a_value_range_too(tmp_path):
    path = tmp_path / "x.tif"
    Image.fromarray(np.array([[0, np.nan]], np.float32)).save(path)
    with pytest.raises(UserError, match=r"x\.tif: it holds NaN or infinite values; mend the file"):
        readable(FileImages([path], pixels=Pixels(value_range=[0, 1])), "raise")


def negative(tmp_path, n):
    """Float images with values from -1 to 1."""
    files = [tmp_path / f"negative{i}.tif" for i in range(n)]
    for file in files:
        Image.fromarray(np.array([[-1, 0, 1]], np.float32)).save(file)
    return files


def test_many_images_with_negative_values_are_answered_with_the_range(tmp_path):
    files = negative(tmp_path, 2)
    what = [f"{file}: it holds values below 0, down to -1" for file in files]
    words = "set dataset.value_range=[BLACK,WHITE], the values of black and of white"
    with pytest.raises(UserError) as caught:
        readable(FileImages(files), "raise")
    assert str(caught.value) == f"2 of 2 images can't be used: {what[0]}, {what[1]}; {words}"
    assert np.asarray(FileImages(files, pixels=Pixels(value_range=[-1, 1]))[0]).tolist() == [[0, 128, 255]]
    (tmp_path / "zero.png").write_bytes(b"")
    with pytest.raises(UserError) as caught:
        readable(FileImages([*files, tmp_path / "zero.png"]), "raise")
    assert str(caught.value).endswith(
        f"; mend or replace them, or set dataset.on_bad_image=skip; for values below 0 {words}"
    )


def test_skip_says_how_an_image_with_negative_values_is_kept(tmp_path, capsys):
    files = negative(tmp_path, 1)
    assert readable(FileImages(files), "skip").tolist() == []
    assert capsys.readouterr().err.splitlines() == [
        f"skipped {files[0]}: it holds values below 0, down to -1; to keep it, "
        "set dataset.value_range=[BLACK,WHITE], the values of black and of white"
    ]


def grey_with_alpha(path, grey):
    """A PNG of 16-bit grey with alpha, of one opaque pixel."""
    path.write_bytes(png_bytes([struct.pack(">2H", grey, 65535)], 4, 16, 1))
    return path


def grey_of_16_bits(path, grey):
    Image.fromarray(np.array([[grey]], np.uint16)).save(path)
    return path


def test_twelve_bits_of_grey_with_alpha_are_refused_before_training(tmp_path):
    files = [grey_of_16_bits(tmp_path / "a.png", 1000), grey_with_alpha(tmp_path / "b.png", 4000)]
    words = (
        f"{files[1]}: Pillow reads the upper 8 of its 16 bits alone, which is too few where 0 is black and "
        "4095 white, in place of 0 and 65535; save it with 8 bits a channel or set dataset.on_bad_image=skip"
    )
    for given in (None, [0, 4095]):
        images = FileImages(files, pixels=Pixels(value_range=given))
        with pytest.raises(UserError) as caught:
            readable(images, "raise")
        assert str(caught.value) == words


def test_twelve_bits_of_grey_with_alpha_are_skipped_and_decide_no_scale(tmp_path, capsys):
    files = [grey_of_16_bits(tmp_path / "a.png", 1000), grey_with_alpha(tmp_path / "b.png", 4000)]
    images = FileImages(files)
    assert readable(images, "skip").tolist() == [0]
    assert (images.whites, images.deep) == ({"integers": 1023.0}, {0: "integers"})
    assert np.asarray(images[0]).tolist() == [[1000 >> 2]]
    skipped, scale = capsys.readouterr().err.splitlines()
    assert skipped.startswith(f"skipped {files[1]}: Pillow reads the upper 8 of its 16 bits alone")
    assert scale.startswith("1 image of integers beyond 8 bits: 0 is black and 1023 white")
    ranged = FileImages(files, pixels=Pixels(value_range=[0, 4095]))
    assert readable(ranged, "skip").tolist() == [0]


@pytest.mark.parametrize("given", [None, [0, 65535]])
def test_sixteen_bits_of_grey_with_alpha_are_read(tmp_path, given):
    files = [grey_of_16_bits(tmp_path / "a.png", 1000), grey_with_alpha(tmp_path / "b.png", 60000)]
    images = FileImages(files, pixels=Pixels(value_range=given))
    assert readable(images, "raise").tolist() == [0, 1]
    assert np.unique(np.asarray(images[1])).tolist() == [60000 >> 8]


def test_skip_of_nothing_but_bad_images_leaves_none(tmp_path):
    (tmp_path / "zero.png").write_bytes(b"")
    images = FileImages([tmp_path / "zero.png"] * 3)
    assert readable(images, "skip").tolist() == []
    with pytest.raises(UserError, match=r"^dataset made: no training images"):
        made(["a train", "a train", "b test"], images, on_bad_image="skip")


def test_the_word_for_bad_images_is_checked(tmp_path):
    with pytest.raises(UserError, match=r"^dataset\.on_bad_image=skipp is not known; did you mean skip\?"):
        readable(FileImages([]), "skipp")
