import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from deconfuse.data.pixels import (
    Pixels,
    as_mode,
    exact,
    kind,
    plain,
    scaled,
    thumbnail,
    upright,
    white_of,
)
from deconfuse.system.errors import UserError


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png_bytes(rows, colour, bits, width, key=b""):
    """A PNG by hand; rows: each row's bytes, colour: 0 grey, 2 RGB, 4 grey + alpha, 6 RGBA; key: its tRNS."""
    header = struct.pack(">IIBBBBB", width, len(rows), bits, colour, 0, 0, 0)
    trns = chunk(b"tRNS", key) if key else b""
    data = zlib.compress(b"".join(b"\0" + row for row in rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + trns + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def png(*args):
    return Image.open(io.BytesIO(png_bytes(*args)))


def tiff(values, photometric, orientation=1):
    """An opened TIFF by hand of 16-bit values (h, w, channels); photometric: 2 RGB, 5 CMYK."""
    height, width, channels = values.shape
    data = values.astype("<u2").tobytes()
    short, long = 3, 4
    tags = [
        *((256, short, 1, width), (257, short, 1, height), (258, short, channels, None), (259, short, 1, 1)),
        *((262, short, 1, photometric), (273, long, 1, None), (274, short, 1, orientation)),
        *((277, short, 1, channels), (278, short, 1, height), (279, long, 1, len(data))),
    ]
    bits_at = 8 + 2 + 12 * len(tags) + 4
    places = {258: bits_at, 273: bits_at + 2 * channels}
    directory = b"".join(
        struct.pack("<HHII", tag, sort, count, places.get(tag, value)) for tag, sort, count, value in tags
    )
    bits = struct.pack(f"<{channels}H", *[16] * channels)
    whole = b"II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + directory + bytes(4) + bits + data
    return Image.open(io.BytesIO(whole))


def rgba():
    """Two pixels: transparent black and opaque (10, 20, 30)."""
    return Image.fromarray(np.array([[[0, 0, 0, 0], [10, 20, 30, 255]]], np.uint8))


def palette(transparency):
    image = Image.fromarray(np.array([[0, 1]], np.uint8), "L").convert("P")
    image.putpalette([0, 0, 0, 10, 20, 30])
    image.info["transparency"] = transparency
    return image


COLOURED = {
    "RGBA": rgba,
    "RGBa": lambda: rgba().convert("RGBa"),
    "P, index": lambda: palette(0),
    "P, bytes": lambda: palette(b"\0\xff"),
    "RGB, key": lambda: png([bytes([0, 0, 0, 10, 20, 30])], 2, 8, 2, struct.pack(">HHH", 0, 0, 0)),
    "RGB of 16 bits, key": lambda: png(
        [struct.pack(">6H", 0, 0, 1, 2570, 5140, 7710)], 2, 16, 2, struct.pack(">HHH", 0, 0, 1)
    ),
}
GREY = {
    "LA": lambda: Image.fromarray(np.array([[[0, 0], [16, 255]]], np.uint8), "LA"),
    "La": lambda: Image.fromarray(np.array([[[0, 0], [16, 255]]], np.uint8), "LA").convert("La"),
    "L, key": lambda: png([bytes([0, 16])], 0, 8, 2, struct.pack(">H", 0)),
    "I;16, key": lambda: png([struct.pack(">2H", 0, 16 * 256)], 0, 16, 2, struct.pack(">H", 0)),
}


@pytest.mark.parametrize("name", COLOURED)
@pytest.mark.parametrize(
    ("background", "behind"),
    [("white", [255] * 3), ("#102030", [16, 32, 48]), (7, [7] * 3), ([1, 2, 3], [1, 2, 3])],
)
def test_transparent_pixels_show_the_background(name, background, behind):
    found = plain(COLOURED[name](), Pixels(background), 65535.0)
    assert found.mode == "RGB"
    assert np.asarray(found).tolist() == [[behind, [10, 20, 30]]]


@pytest.mark.parametrize("name", GREY)
def test_transparent_grey_stays_grey_on_grey_and_is_coloured_on_a_colour(name):
    assert np.asarray(plain(GREY[name](), Pixels(), 65535.0)).tolist() == [[255, 16]]
    red = plain(GREY[name](), Pixels("red"), 65535.0)
    assert np.asarray(red).tolist() == [[[255, 0, 0], [16, 16, 16]]]


@pytest.mark.parametrize(("bits", "row", "key"), [(1, 0b01000000, 0), (2, 0b00110000, 0), (4, 0x0F, 0)])
def test_the_transparent_value_of_few_bits_is_in_the_files_own(bits, row, key):
    image = png([bytes([row])], 0, bits, 2, struct.pack(">H", key))
    assert np.asarray(plain(image)).tolist() == [[255, 255]]
    image = png([bytes([row])], 0, bits, 2, struct.pack(">H", 2**bits - 1))
    assert np.asarray(plain(image, Pixels(9))).tolist() == [[0, 9]]


def test_half_transparent_pixels_are_mixed():
    image = Image.fromarray(np.array([[[0, 0, 0, 51], [100, 0, 0, 128]]], np.uint8))
    assert np.abs(np.asarray(plain(image)).astype(int) - [[[204] * 3, [177, 127, 127]]]).max() <= 1


@pytest.mark.parametrize("wrong", ["whit", "#12", -1, 256, [1, 2], [1, 2, 300], True, "#11223344"])
def test_a_background_that_is_no_opaque_colour_is_refused(wrong):
    with pytest.raises(UserError, match=r"^dataset\.background=.* is no opaque colour; give"):
        Pixels(wrong)


@pytest.mark.parametrize("wrong", [[1], [2, 1], 7, "ab", [0, float("nan")]])
def test_a_range_that_is_none_is_refused(wrong):
    with pytest.raises(UserError, match=r"^dataset\.value_range="):
        Pixels("white", wrong)


@pytest.mark.parametrize(
    ("sort", "largest", "white"),
    [
        *(("integers", 1, 1), ("integers", 2, 255), ("integers", 255, 255), ("integers", 256, 511)),
        *(("integers", 4095, 4095), ("integers", 4096, 8191), ("integers", 65535, 65535)),
        *(("floats", 0.2, 1), ("floats", 1, 1), ("floats", 200, 255), ("floats", 4000.5, 4095)),
    ],
)
def test_white_is_the_bits_of_the_largest_value(sort, largest, white):
    assert white_of(sort, largest) == white


@pytest.mark.parametrize(("times", "white"), [(16, 4095), (256, 65535), (257, 65535), (4, 1023)])
def test_eight_bits_in_more_come_back_exactly(times, white):
    values = np.arange(256)
    assert scaled(values * times, 0, white).tolist() == values.tolist()


def test_twelve_bits_in_16_bit_colour_keep_their_lower_byte():
    values = np.arange(0, 4096, 5)[:600].reshape(2, 100, 3)
    image = png([row.astype(">u2").tobytes() for row in values], 2, 16, 100)
    assert kind(image) == "integers"
    assert np.array_equal(np.asarray(plain(image, None, 4095.0)), values >> 4)


def test_floats_from_0_to_1_and_a_range_of_the_users():
    image = Image.fromarray(np.array([[0, 0.5, 1]], np.float32))
    assert np.asarray(as_mode(image, "L")).tolist() == [[0, 128, 255]]
    image = Image.fromarray(np.array([[-1000, -300, 400, 3000]], np.int32))
    found = plain(image, Pixels("white", [-1000, 400]))
    assert np.asarray(found).tolist() == [[0, 128, 255, 255]]


def test_a_value_beyond_white_is_refused():
    image = Image.fromarray(np.array([[0, 5000]], np.uint16))
    with pytest.raises(ValueError, match="largest value is 5000, above 4095"):
        plain(image, None, 4095.0)


SIDEWAYS = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0%c\0\0\0\0\0\0\0"
DAMAGED_EXIF = {
    "short": b"Exif\0\0II*\0",
    "no TIFF": b"Exif\0\0" + b"\xff" * 20,
    "offset beyond the end": b"Exif\0\0II*\0\xff\xff\xff\x7f",
    "cut in its directory": SIDEWAYS[:20],
    "a word": b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x02\0\x04\0\0\0abc\0\0\0\0\0",
    "0": SIDEWAYS % 0,
    "9": SIDEWAYS % 9,
}


def with_exif(format, exif):
    """The bytes of an RGB image of 3 x 2 pixels, all different, with this EXIF."""
    file = io.BytesIO()
    values = np.arange(0, 252, 14, dtype=np.uint8).reshape(2, 3, 3)
    Image.fromarray(values).save(file, format, exif=exif)
    return file.getvalue()


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("name", DAMAGED_EXIF)
@pytest.mark.filterwarnings("ignore:.*EXIF data:UserWarning")
def test_an_image_with_damaged_exif_is_upright_as_stored(format, name):
    whole = with_exif(format, DAMAGED_EXIF[name])
    stored = np.asarray(Image.open(io.BytesIO(whole)))
    assert np.array_equal(np.asarray(as_mode(Image.open(io.BytesIO(whole)), "RGB")), stored)


@pytest.mark.parametrize("held", range(1, 9))
@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP"])
def test_each_orientation_is_turned_once_as_pillow_turns_it(format, held):
    whole = with_exif(format, SIDEWAYS % held)
    turned = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(whole))))
    assert turned.shape == ((2, 3, 3) if held < 5 else (3, 2, 3))
    once = as_mode(Image.open(io.BytesIO(whole)), "RGB")
    assert np.array_equal(np.asarray(once), turned)
    assert np.array_equal(np.asarray(as_mode(once, "RGB")), turned)
    image = Image.open(io.BytesIO(whole))
    copied = Image.fromarray(np.asarray(image))  # as a composited image, it has no EXIF of its own
    assert np.array_equal(np.asarray(upright(copied, image)), turned)


def test_a_sideways_tiff_of_16_bits_a_channel_is_turned_once():
    values = np.arange(0, 65536, 3700)[:18].reshape(2, 3, 3)
    image = tiff(values, 2, orientation=6)
    assert (kind(image), exact(image)) == ("integers", True)
    # Orientation 6 is stored with its left edge at the top, so it is turned by 90 degrees clockwise.
    assert np.array_equal(np.asarray(as_mode(image, "RGB")), np.rot90(values >> 8, -1))


def test_16_bits_of_cmyk_are_ink_and_not_red_green_and_blue():
    inks = np.array([[[0, 0, 0, 0], [65535, 0, 0, 0], [0, 0, 0, 65535]]])
    image = tiff(inks, 5)
    assert (kind(image), exact(image)) == ("integers", False)
    assert np.asarray(plain(image, None, 65535.0)).tolist() == [[[255] * 3, [0, 255, 255], [0] * 3]]


def test_a_larger_image_is_made_small_and_keeps_its_shape():
    assert thumbnail(Image.new("RGB", (400, 100)), "RGB", 96).size == (96, 24)
    assert thumbnail(Image.new("L", (31, 50)), "RGB", 96).size == (31, 50)
    assert thumbnail(Image.new("RGBA", (20, 200)), "L", 96).mode == "L"
