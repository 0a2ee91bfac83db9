import os
import warnings

import numpy as np
import pytest
from PIL import Image

from deconfuse.data.image_files import complete, hush_large_images, identities, suffixes

SAVED = {"JPEG": "jpg", "PNG": "png", "GIF": "gif", "WEBP": "webp", "TIFF": "tif", "BMP": "bmp"}


def picture(path, **how):
    pixels = np.random.default_rng(0).integers(0, 256, (9, 13, 3), np.uint8)
    Image.fromarray(pixels).save(path, **how)
    return path


def said(path):
    try:
        with Image.open(path) as image, open(path, "rb") as file:
            return complete(image, file)
    except OSError:  # WebP is decoded when it is opened
        return False


def test_endings_are_those_of_formats_that_can_be_decoded():
    assert {".jpg", ".jpeg", ".png", ".gif", ".webp", ".tif", ".bmp"} <= set(suffixes())
    assert not {".eps", ".txt", ".pdf", ".mpg"} & set(suffixes())
    assert list(suffixes()) == sorted(suffixes())


@pytest.mark.parametrize("name", SAVED)
def test_a_whole_file_ends_where_its_format_says_and_one_that_lacks_a_byte_does_not(tmp_path, name):
    path = picture(tmp_path / f"a.{SAVED[name]}", format=name)
    assert said(path)
    path.write_bytes(path.read_bytes()[:-3])
    assert not said(path)


def test_what_only_decoding_can_tell_is_not_said_to_be_complete(tmp_path):
    grey = np.arange(12, dtype=np.uint16).reshape(3, 4) * 4000
    Image.fromarray(grey).save(tmp_path / "grey.png")  # 16 bits, which are read in another way
    assert not said(tmp_path / "grey.png")
    picture(tmp_path / "a.ppm")
    assert not said(tmp_path / "a.ppm")  # the format has no end


def test_paths_of_one_file_have_one_identity_and_no_file_has_none(tmp_path):
    one, other = picture(tmp_path / "a.png"), picture(tmp_path / "b.png")
    (tmp_path / "link.png").symlink_to(one)
    os.link(one, tmp_path / "hard.png")
    paths = [one, tmp_path / "link.png", tmp_path / "hard.png", other, tmp_path, tmp_path / "gone", "a\0b"]
    found = identities(paths)
    assert found[0] == found[1] == found[2] != found[3]
    assert None not in found[:4]
    assert found[4:] == [None] * 3


def test_pillows_warnings_about_large_images_are_turned_off_once():
    with warnings.catch_warnings():
        warnings.resetwarnings()
        warnings.simplefilter("error")
        for _ in range(2):
            hush_large_images()
        warnings.warn("large", Image.DecompressionBombWarning, stacklevel=1)
        with pytest.raises(UserWarning):
            warnings.warn("another", UserWarning, stacklevel=1)
        assert len(warnings.filters) == 2
