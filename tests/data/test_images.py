import io
import shutil

import numpy as np
import pytest
from PIL import Image

from deconfuse.data.images import ArrayImages, FeatureRows, FileImages
from deconfuse.data.pixels import Pixels
from deconfuse.data.readable import readable
from deconfuse.system.errors import UserError
from tests.data.test_pixels import DAMAGED_EXIF, with_exif
from tests.samples import BAD, encoded, pixels


def test_array_images_are_the_pixels():
    images = ArrayImages(pixels(3))
    assert len(images) == 3
    assert images[2].mode == "L"
    np.testing.assert_array_equal(np.asarray(images[2]), pixels(3)[2])
    assert images.content(1) == pixels(3)[1].tobytes()


@pytest.mark.parametrize("format", ["PNG", "BMP", "PPM", "TIFF", "WEBP", "GIF", "JPEG"])
def test_an_image_file_can_be_used_after_it_was_closed(tmp_path, format):
    path = tmp_path / "x"
    path.write_bytes(encoded(format))
    with Image.open(path) as image:
        expected = np.asarray(image.convert("RGB"))
    image = FileImages([path])[0]
    path.unlink()
    np.testing.assert_array_equal(np.asarray(image.convert("RGB")), expected)


def test_a_missing_image_is_named_with_the_fix(tmp_path):
    path = tmp_path / "gone.png"
    with pytest.raises(UserError) as caught:
        FileImages([path])[0]
    assert str(caught.value) == f"{path}: the image is gone; restore it or take it off the list"


@pytest.mark.parametrize("name", BAD)
def test_a_bad_image_is_named_with_the_fix(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(BAD[name])
    with pytest.raises(UserError) as caught:
        FileImages([path])[0]
    text = str(caught.value)
    assert text.startswith(f"{path}: not a readable image (")
    assert text.endswith("); replace it or set dataset.on_bad_image=skip")
    assert "\n" not in text


def test_a_folder_in_place_of_an_image_is_named(tmp_path):
    with pytest.raises(UserError, match=r"not a readable image \(.*directory"):
        FileImages([tmp_path])[0]


@pytest.mark.parametrize("cut", range(1, 60, 7))
def test_an_image_cut_anywhere_is_refused(tmp_path, cut):
    whole = encoded("PNG", 99)
    path = tmp_path / "cut.png"
    path.write_bytes(whole[: len(whole) * cut // 60])
    with pytest.raises(UserError, match=r"cut\.png: not a readable image"):
        FileImages([path])[0]


@pytest.mark.parametrize("on_bad_image", ["raise", "skip", "later"])
@pytest.mark.filterwarnings("ignore:.*EXIF data:UserWarning")
def test_images_with_damaged_exif_are_read_as_they_are_stored(tmp_path, on_bad_image):
    files = [tmp_path / f"{i}.png" for i in range(len(DAMAGED_EXIF))]
    for file, exif in zip(files, DAMAGED_EXIF.values(), strict=True):
        file.write_bytes(with_exif("PNG", exif))
    images = FileImages(files)
    assert readable(images, on_bad_image).tolist() == list(range(len(files)))
    for i in range(len(files)):
        assert np.asarray(images[i]).ravel().tolist() == list(range(0, 252, 14))


def test_an_avif_with_any_damaged_byte_is_read_or_refused_with_its_name(tmp_path):
    file = io.BytesIO()
    values = np.random.default_rng(0).integers(0, 255, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(values).save(file, "AVIF")
    whole, path, kinds = file.getvalue(), tmp_path / "x.avif", set()
    for i in range(0, len(whole), 3):
        damaged = bytearray(whole)
        damaged[i] ^= 0xFF
        path.write_bytes(damaged)
        images = FileImages([path])
        try:
            with Image.open(path) as image:
                image.load()
        except Exception as error:
            kinds.add(type(error))
            with pytest.raises(UserError, match=r"x\.avif: not a readable image \(.+\); replace it or set"):
                images[0]
            with pytest.raises(UserError, match=r"x\.avif: not a readable image"):
                readable(images, "raise")
        else:
            assert images[0].size == image.size
    assert RuntimeError in kinds  # Pillow's error for what its AVIF decoder refuses


@pytest.mark.parametrize("error", [MemoryError, KeyboardInterrupt, SystemExit])
def test_what_is_no_fault_of_the_image_is_not_blamed_on_it(tmp_path, monkeypatch, error):
    path = tmp_path / "x.png"
    path.write_bytes(encoded("PNG"))

    def broken(*args):
        raise error

    monkeypatch.setattr("deconfuse.data.images.plain", broken)
    with pytest.raises(error):
        FileImages([path])[0]


@pytest.mark.parametrize(("dtype", "sort"), [(np.uint16, "integers"), (np.float32, "floats")])
def test_deep_images_that_were_not_looked_at_need_a_value_range(tmp_path, dtype, sort):
    path = tmp_path / "x.tif"
    Image.fromarray(np.array([[0, 100, 250]], dtype)).save(path)
    shutil.copy(path, tmp_path / "y.tif")
    images = FileImages([path, tmp_path / "y.tif"])
    assert readable(images, "later").tolist() == [0, 1]
    with pytest.raises(UserError) as caught:
        images[1]
    assert str(caught.value) == (
        f"{tmp_path}/y.tif: it holds {sort} beyond 8 bits, and the value of white is not known, as the "
        "images were not looked at beforehand (dataset.on_bad_image=later); "
        "set dataset.value_range=[BLACK,WHITE], the values of black and of white"
    )
    ranged = FileImages(images.files, pixels=Pixels(value_range=[0, 500]))
    assert readable(ranged, "later").tolist() == [0, 1]
    assert np.asarray(ranged[1]).tolist() == [[0, 51, 128]]  # 127.5 is rounded to even


def boxed(tmp_path, box, size=(9, 7)):
    """One image of other numbers everywhere, and its box."""
    path = tmp_path / "bird.png"
    pixels = np.arange(size[0] * size[1], dtype=np.uint8).reshape(size[1], size[0])
    Image.fromarray(pixels).save(path)
    return FileImages([path], np.array([box], dtype=float)), pixels


@pytest.mark.parametrize(
    ("box", "rows", "columns"),
    [
        ((2, 1, 5, 6), slice(1, 6), slice(2, 5)),
        ((0, 0, 9, 7), slice(0, 7), slice(0, 9)),
        ((1.6, 0.4, 4.4, 3.6), slice(0, 4), slice(2, 4)),
        ((-1, -1, 5, 8), slice(0, 7), slice(0, 5)),  # past the edge, by less than half
        ((8, 6, 9, 7), slice(6, 7), slice(8, 9)),
        ((3.1, 2.1, 3.2, 2.2), slice(2, 3), slice(3, 4)),  # thinner than a pixel
        ((8.6, 6.6, 9, 7), slice(6, 7), slice(8, 9)),
    ],
)
def test_an_image_is_cut_to_its_box(tmp_path, box, rows, columns):
    images, pixels = boxed(tmp_path, box)
    np.testing.assert_array_equal(np.asarray(images[0]), pixels[rows, columns])


@pytest.mark.parametrize("box", [(9, 0, 12, 7), (0, 7, 9, 9), (-5, 0, 0, 7), (5, 0, 14, 7), (0, -8, 9, 7)])
def test_a_box_outside_its_image_is_named_when_it_is_read(tmp_path, box):
    images, _ = boxed(tmp_path, box)
    edges = ", ".join(map(str, box))
    with pytest.raises(UserError) as caught:
        images[0]
    assert str(caught.value) == (
        f"{tmp_path}/bird.png: the box ({edges}), left, top, right, bottom, lies outside the image, 9 x 7 "
        "pixels; correct it or set dataset.crop_box=false"
    )
    assert readable(images, "skip").tolist() == []


@pytest.mark.parametrize("box", [(3, 1, 3, 5), (3, 5, 6, 5), (6, 1, 3, 5), (3, 6, 5, 2), (0, 0, np.nan, 7)])
def test_a_box_of_no_area_is_named_before_anything_is_read(tmp_path, box):
    with pytest.raises(
        UserError, match=r"bird\.png: the box \(.*\), left, top, right, bottom, has no area; "
    ):
        boxed(tmp_path, box)


def test_rows_are_float32_whatever_is_stored(tmp_path):
    for dtype in (np.float64, np.float16, np.int32):
        values = np.arange(15).reshape(5, 3).astype(dtype)
        rows = FeatureRows(values)
        assert (len(rows), rows[3].dtype, rows[3].tolist()) == (5, np.float32, [9, 10, 11])
        assert rows.content(4) == np.array([12, 13, 14], dtype=np.float32).tobytes()


def test_what_is_done_to_a_row_changes_nothing_stored():
    values = np.ones((2, 3), dtype=np.float32)
    FeatureRows(values)[0][:] = 7
    assert (values == 1).all()
