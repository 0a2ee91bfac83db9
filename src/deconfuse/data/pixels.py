"""Convert any image to 8 bits a channel, grey or RGB, opaque and upright.

Everything that opens an image uses `plain`, so training, thumbnails and pictures show the same image.
"""

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageColor, ImageOps

from deconfuse.system.errors import UserError

INTEGERS = ("I", "I;16", "I;16B", "I;16L", "I;16N")
UNCLEAR = 16  # floats with a largest value between 1 and this have neither the range 0 to 1 nor 0 to 255


@dataclass(frozen=True)
class Pixels:
    """How pixels become 8 bits: the colour behind transparent pixels, and the values of black and white.

    background: a colour's name, #rrggbb, a grey value 0 to 255, or three values. value_range: [black, white],
    the values of black and white in images of floats or of more than 8 bits; values beyond them are cut off.
    None: black is 0, white is `white_of`. Raises UserError for anything else.
    """

    background: str | int | list[int] = "white"
    value_range: list[float] | None = None

    def __post_init__(self):
        self.colour  # noqa: B018, it raises if the background is no colour
        pair = self.value_range
        if pair is None:
            return
        good = not isinstance(pair, (str, int, float)) and len(pair) == 2
        good = good and all(isinstance(x, (int, float)) and np.isfinite(x) for x in pair)
        if not good or pair[0] >= pair[1]:
            raise UserError(
                f"dataset.value_range={pair}: give the values of black and of white, as in [0,4095] or [0,1]"
            )

    @property
    def colour(self) -> tuple[int, int, int]:
        """The background as red, green and blue."""
        given = self.background
        if isinstance(given, int) and not isinstance(given, bool):
            given = (given, given, given)
        try:
            found = tuple(ImageColor.getrgb(given)) if isinstance(given, str) else tuple(given)
        except (ValueError, TypeError):
            found = ()
        opaque = len(found) == 3 or (len(found) == 4 and found[3] == 255)
        if not opaque or not all(isinstance(x, int) and 0 <= x <= 255 for x in found):
            raise UserError(
                f"dataset.background={self.background} is no opaque colour; give a name (white, black, ...), "
                "'#rrggbb' in quotes, or a grey number from 0 to 255"
            )
        return found[:3]


def kind(image: Image.Image) -> str:
    """ "integers" or "floats" if the values of an image not loaded yet need scaling to 8 bits, else ""."""
    if image.mode == "F":
        return "floats"
    return "integers" if image.mode in INTEGERS or ";16" in _raw_mode(image) else ""


def extremes(image: Image.Image) -> tuple[float, float]:
    """The least and the largest value of an image whose `kind` is not ""; ValueError if one is not finite."""
    values = _values(image)
    if values is None:  # Pillow gives only the upper 8 of 16 bits
        values = np.asarray(image).astype(np.uint16) * 257
    values = values[..., :3] if values.ndim == 3 else values  # an alpha channel is no brightness
    if not np.isfinite(values).all():
        raise ValueError("it holds NaN or infinite values")
    if values.min() < 0:
        raise ValueError(f"it holds values below 0, down to {values.min():g}")
    return float(values.min()), float(values.max())


def white_of(kind: str, largest: float) -> float:
    """The value of white for images with this largest value: 1, or 2^b - 1 with the fewest bits b >= 8.

    ValueError for floats that are neither 0 to 1 nor 0 to 255.
    """
    if largest <= 1:
        return 1.0
    if kind == "floats" and largest < UNCLEAR:
        raise ValueError(f"its largest value is {largest:g}, which is neither of 0 to 1 nor of 0 to 255")
    return float(max(255, 2 ** int(np.ceil(np.log2(np.floor(largest) + 1))) - 1))


def scaled(values: np.ndarray, black: float, white: float) -> np.ndarray:
    """Map values from black to white to 0 to 255, and cut off values beyond.

    If black is 0 and white is 2^b - 1 with b > 8, the result is the upper 8 of b bits: an 8-bit value stored
    with 4 more bits, as 16 times itself, is that value again.
    """
    values = values.astype(np.float64)
    if black == 0 and white > 255 and np.log2(white + 1).is_integer():
        values = np.floor(values * (256 / (white + 1)))
    else:
        values = np.round((values - black) * (255 / (white - black)))
    return values.clip(0, 255).astype(np.uint8)


def plain(image: Image.Image, pixels: Pixels | None = None, white: float | None = None) -> Image.Image:
    """The image as L or RGB of 8 bits, composited on the background, but not turned upright.

    white: the value of white of images of this kind; None: from the image's own largest value.
    Raises ValueError if the values can't be scaled.
    """
    pixels = pixels or Pixels()
    if kind(image):
        return _deep(image, pixels, white)
    raw = _raw_mode(image)
    image.load()
    if not image.has_transparency_data:
        if image.mode in ("L", "RGB"):
            return image
        return image.convert("L" if image.mode in ("1", "L") else "RGB")
    return _composited(_with_alpha(image, raw), pixels.colour)


def upright(image: Image.Image, orientation: Image.Image | None = None) -> Image.Image:
    """The image turned upright by its EXIF orientation, or by that of the image it was made from."""
    held = (orientation or image).getexif().get(0x0112, 1)
    if held == 1:
        return image
    if orientation is not None and orientation is not image:
        image = image.copy()
        image.getexif()[0x0112] = held
    return ImageOps.exif_transpose(image)


def as_mode(image: Image.Image, mode: str) -> Image.Image:
    """The image by `plain`, upright, as mode L or RGB."""
    return upright(plain(image), image).convert(mode)


def _raw_mode(image: Image.Image) -> str:
    """Pillow's raw mode, the layout of pixels in the file; "" for a loaded image or one from no file."""
    tiles = getattr(image, "tile", None)
    args = tiles[0][3] if tiles else ""
    first = args[0] if isinstance(args, tuple) and args else args
    return first if isinstance(first, str) else ""


def _values(image: Image.Image) -> np.ndarray | None:
    """The values of an image with all their bits, (h, w) or (h, w, channels); None if Pillow can't read them.

    Pillow keeps the upper byte of 16-bit colour. Read again with swapped bytes, it keeps the lower byte.
    """
    raw = _raw_mode(image)
    if image.mode == "F" or image.mode in INTEGERS:
        return np.asarray(image)
    name, _, order = raw.partition(";16")
    if name != image.mode or order not in ("B", "L", "N"):
        return None
    swapped = f"{name};16{'L' if order == 'B' else 'B'}"
    image.fp.seek(0)
    file = io.BytesIO(image.fp.read())
    with Image.open(file) as high, Image.open(file) as low:
        low.tile = [tile._replace(args=_swapped(tile.args, swapped)) for tile in low.tile]
        upper = np.asarray(high).astype(np.uint16)
        return upper * 256 + np.asarray(low)


def _swapped(args: str | tuple, raw: str) -> str | tuple:
    return (raw, *args[1:]) if isinstance(args, tuple) else raw


def _deep(image: Image.Image, pixels: Pixels, white: float | None) -> Image.Image:
    """An image whose `kind` is not "", scaled to 8 bits and composited."""
    sort, key, black = kind(image), image.info.get("transparency"), 0.0
    if pixels.value_range is not None:
        black, white = map(float, pixels.value_range)
    else:
        largest = extremes(image)[1]
        white = white_of(sort, largest) if white is None else white
        if largest > white:
            raise ValueError(f"its largest value is {largest:g}, above {white:g}")
    values = _values(image)
    if values is None:
        if (black, white) != (0, 65535):
            raise ValueError("12 bits of 16-bit grey with alpha can't be read; save it with 8 bits")
        return _composited(_with_alpha(image, ""), pixels.colour)
    if not np.isfinite(values).all():
        raise ValueError("it holds NaN or infinite values")
    found = Image.fromarray(scaled(values[..., :3] if values.ndim == 3 else values, black, white))
    if values.ndim == 3 and values.shape[2] == 4:
        found.putalpha(Image.fromarray((values[..., 3] >> 8).astype(np.uint8)))
    elif isinstance(key, (int, tuple)):
        seen = values != key if values.ndim == 2 else (values != np.asarray(key)).any(-1)
        found.putalpha(Image.fromarray(np.where(seen, 255, 0).astype(np.uint8)))
    return _composited(found, pixels.colour) if found.mode in ("LA", "RGBA") else found


def _with_alpha(image: Image.Image, raw: str) -> Image.Image:
    """A loaded image with transparent pixels as LA or RGBA; raw: its `_raw_mode` before it was loaded."""
    key = image.info.get("transparency")
    if image.mode in ("1", "L") and isinstance(key, int):
        bits = {"L;2": 2, "L;4": 4}.get(raw, 1 if image.mode == "1" else 8)
        grey = image.convert("L")
        most = 2**bits - 1  # PNG gives the key in the bit depth of the file
        seen = np.asarray(grey) != min(key, most) * 255 // most
        grey.putalpha(Image.fromarray(np.where(seen, 255, 0).astype(np.uint8)))
        return grey
    if image.mode == "La":
        return image.convert("LA")
    return image if image.mode in ("LA", "RGBA") else image.convert("RGBA")


def _composited(image: Image.Image, colour: tuple[int, int, int]) -> Image.Image:
    """An LA or RGBA image on a background; a grey image on a grey background stays grey."""
    grey = image.mode == "LA" and len(set(colour)) == 1
    mode = "L" if grey else "RGB"
    found = Image.new(mode, image.size, colour[0] if grey else colour)
    found.paste(image.convert(mode), mask=image.getchannel("A"))
    return found
