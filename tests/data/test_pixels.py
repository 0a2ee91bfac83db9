import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from deconfuse.data.pixels import Pixels, as_mode, kind, plain, scaled, white_of
from deconfuse.system.errors import UserError


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(rows, colour, bits, width, key=b""):
    """A PNG by hand; rows: each row's bytes, colour: 0 grey, 2 RGB, 6 RGBA; key: its tRNS."""
    header = struct.pack(">IIBBBBB", width, len(rows), bits, colour, 0, 0, 0)
    trns = chunk(b"tRNS", key) if key else b""
    data = zlib.compress(b"".join(b"\0" + row for row in rows))
    whole = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + trns + chunk(b"IDAT", data) + chunk(b"IEND", b"")
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
