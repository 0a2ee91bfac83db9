"""Convert any image to 8 bits a channel, grey or RGB, opaque and upright.

Everything that opens an image uses `plain`, so training, thumbnails and pictures show the same image.
"""

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageColor

from deconfuse.system.errors import UserError

INTEGERS = ("I", "I;16", "I;16B", "I;16L", "I;16N")
RANGE = "set dataset.value_range=[BLACK,WHITE], the values of black and of white"
SKIP = "set dataset.on_bad_image=skip"
NOT_FINITE = ("it holds NaN or infinite values", f"mend the file or {SKIP}")
UNCLEAR = 16  # floats with a largest value between 1 and this have neither the range 0 to 1 nor 0 to 255

TURNS = {  # what turns an image of each EXIF orientation upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
TURNED = ("exif", "Raw profile type exif", "XML:com.adobe.xmp", "xmp")  # where Pillow keeps an orientation


class Unscalable(ValueError):
    """The values of an image can't become 8 bits; fix: what the user can do, as the end of a message."""

    def __init__(self, what: str, fix: str):
        super().__init__(what)
        self.fix = fix


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
    """The least and the largest value of an image whose `kind` is not "".

    Raises Unscalable if a value is negative or not finite.
    """
    values = _values(image)
    if values is None:  # Pillow gives only the upper 8 of 16 bits
        values = np.asarray(image).astype(np.uint16) * 257
    values = values[..., :3] if values.ndim == 3 else values  # an alpha channel is no brightness
    if not np.isfinite(values).all():
        raise Unscalable(*NOT_FINITE)
    if values.min() < 0:
        raise Unscalable(f"it holds values below 0, down to {values.min():g}", RANGE)
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
    Raises ValueError if the values can't be scaled; it is Unscalable where the fix is known.
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
    turn = TURNS.get(held_orientation(orientation or image))
    if turn is None:
        return image
    found = image.transpose(turn)
    for key in TURNED:  # so that it is not turned again
        found.info.pop(key, None)
    return found


def held_orientation(image: Image.Image) -> int:
    """The EXIF orientation of an image, 1 to 8; 1, upright as stored, if its EXIF is damaged or has none.

    1 for TIFF too, as Pillow turns these when it loads them.
    """
    if image.format == "TIFF":
        return 1
    try:
        held = image.getexif().get(0x0112, 1)
        return held if held in TURNS else 1
    except Exception:  # Pillow raises many kinds, struct.error, SyntaxError, TypeError and others
        return 1


def as_mode(image: Image.Image, mode: str) -> Image.Image:
    """The image by `plain`, upright, as mode L or RGB."""
    return upright(plain(image), image).convert(mode)


def thumbnail(image: Image.Image, mode: str, side: int) -> Image.Image:
    """The whole image by `as_mode`, its longer side at most `side` pixels; smaller images keep their size."""
    image = as_mode(image, mode)
    image.thumbnail((side, side), Image.Resampling.LANCZOS, reducing_gap=2.0)
    return image


def _raw_mode(image: Image.Image) -> str:
    """Pillow's raw mode, the layout of pixels in the file; "" for a loaded image or one from no file."""
    tiles = getattr(image, "tile", None)
    args = tiles[0][3] if tiles else ""
    first = args[0] if isinstance(args, tuple) and args else args
    return first if isinstance(first, str) else ""


def exact(image: Image.Image) -> bool:
    """True if Pillow can read all bits of an image that is not loaded yet; else it reads 8 of 16 bits."""
    name, _, order = _raw_mode(image).partition(";16")
    colour = name == image.mode and name in ("RGB", "RGBA") and order in ("B", "L", "N")
    return colour or image.mode == "F" or image.mode in INTEGERS


def check_upper(black: float, white: float) -> None:
    """Raise Unscalable if the upper 8 of 16 bits don't tell the brightness between these values."""
    if (black, white) != (0, 65535):
        raise Unscalable(
            f"Pillow reads the upper 8 of its 16 bits alone, which is too few where {black:g} is black and "
            f"{white:g} white, in place of 0 and 65535",
            f"save it with 8 bits a channel or {SKIP}",
        )


def _values(image: Image.Image) -> np.ndarray | None:
    """The values of an image with all their bits, (h, w) or (h, w, channels); None if not `exact`.

    Pillow keeps the upper byte of 16-bit colour. Read again with swapped bytes, it keeps the lower byte.
    """
    if not exact(image):
        return None
    if image.mode == "F" or image.mode in INTEGERS:
        return np.asarray(image)
    name, _, order = _raw_mode(image).partition(";16")
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
            raise Unscalable(f"its largest value is {largest:g}, above {white:g}", RANGE)
    values = _values(image)
    if values is None:
        check_upper(black, white)
        return _composited(_with_alpha(image, ""), pixels.colour)
    if not np.isfinite(values).all():
        raise Unscalable(*NOT_FINITE)
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
