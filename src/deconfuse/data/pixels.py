"""One image as the project sees it: 8 bits a channel, grey or RGB, nothing transparent, upright.

Everything that opens an image goes through `plain`, so training, thumbnails and pictures see the same.
"""

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageColor, ImageOps

from deconfuse.system.errors import UserError

INTEGERS = ("I", "I;16", "I;16B", "I;16L", "I;16N")
UNCLEAR = 16  # floats whose largest value lies between 1 and this are neither 0 to 1 nor 0 to 255


@dataclass(frozen=True)
class Pixels:
    """How pixels become 8 bits: what lies behind transparent ones, and the values of black and white.

    background: a colour's name, #rrggbb, a grey number 0 to 255, or three numbers. value_range: the values of
    black and white in images of floats or of more than 8 bits, those beyond are cut off; None: `white_of`.
    Raises UserError where one of them is something else.
    """

    background: str | int | list[int] = "white"
    value_range: list[float] | None = None

    def __post_init__(self):
        self.colour  # noqa: B018, it raises where it is none
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
    """Of an image that is not loaded yet: "integers" or "floats" where values need a scale, else ""."""
    if image.mode == "F":
        return "floats"
    return "integers" if image.mode in INTEGERS or ";16" in _raw_mode(image) else ""


def extremes(image: Image.Image) -> tuple[float, float]:
    """The least and the largest value of an image of some `kind`; ValueError where one is not finite."""
    values = _values(image)
    if values is None:  # only the upper 8 of 16 bits can be had
        values = np.asarray(image).astype(np.uint16) * 257
    values = values[..., :3] if values.ndim == 3 else values  # an alpha channel is no brightness
    if not np.isfinite(values).all():
        raise ValueError("it holds NaN or infinite values")
    if values.min() < 0:
        raise ValueError(f"it holds values below 0, down to {values.min():g}")
    return float(values.min()), float(values.max())


def white_of(kind: str, largest: float) -> float:
    """The value of white for images whose largest value is this: 1, or 2^b - 1 with b bits, at least 8.

    ValueError for floats that are neither 0 to 1 nor 0 to 255.
    """
    if largest <= 1:
        return 1.0
    if kind == "floats" and largest < UNCLEAR:
        raise ValueError(f"its largest value is {largest:g}, which is neither of 0 to 1 nor of 0 to 255")
    return float(max(255, 2 ** int(np.ceil(np.log2(np.floor(largest) + 1))) - 1))


def scaled(values: np.ndarray, black: float, white: float) -> np.ndarray:
    """Values from black to white as 0 to 255; those beyond are cut off.

    Where white is 2^b - 1 with b > 8 bits, the upper 8 bits, so 16 times an 8-bit value is that value again.
    """
    values = values.astype(np.float64)
    if black == 0 and white > 255 and np.log2(white + 1).is_integer():
        values = np.floor(values * (256 / (white + 1)))
    else:
        values = np.round((values - black) * (255 / (white - black)))
    return values.clip(0, 255).astype(np.uint8)


def plain(image: Image.Image, pixels: Pixels | None = None, white: float | None = None) -> Image.Image:
    """The image as L or RGB of 8 bits, composited on the background; not turned.

    white: the value of white of images of this kind; None: as the image on its own says.
    Raises ValueError where values can't be scaled.
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
    """The image turned as its camera, or that of the image which it was made from, was held."""
    held = (orientation or image).getexif().get(0x0112, 1)
    if held == 1:
        return image
    if orientation is not None and orientation is not image:
        image = image.copy()
        image.getexif()[0x0112] = held
    return ImageOps.exif_transpose(image)


def as_mode(image: Image.Image, mode: str) -> Image.Image:
    """The image as L or RGB, upright, as `plain` makes it."""
    return upright(plain(image), image).convert(mode)


def _raw_mode(image: Image.Image) -> str:
    """How pixels lie in the file; "" of an image that is loaded or came from no file."""
    tiles = getattr(image, "tile", None)
    args = tiles[0][3] if tiles else ""
    first = args[0] if isinstance(args, tuple) and args else args
    return first if isinstance(first, str) else ""


def _values(image: Image.Image) -> np.ndarray | None:
    """All bits of an image of some kind: (h, w), or (h, w, channels) of colour; None where Pillow can't.

    Pillow keeps the upper byte of 16-bit colour; read again with its bytes swapped it keeps the lower one.
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
    """An image of some kind, scaled to 8 bits and composited."""
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
    """A loaded image that has transparent pixels, as LA or RGBA; raw: how its pixels lay in the file."""
    key = image.info.get("transparency")
    if image.mode in ("1", "L") and isinstance(key, int):
        bits = {"L;2": 2, "L;4": 4}.get(raw, 1 if image.mode == "1" else 8)
        grey = image.convert("L")
        most = 2**bits - 1  # PNG gives the key in the file's own bits
        seen = np.asarray(grey) != min(key, most) * 255 // most
        grey.putalpha(Image.fromarray(np.where(seen, 255, 0).astype(np.uint8)))
        return grey
    if image.mode == "La":
        return image.convert("LA")
    return image if image.mode in ("LA", "RGBA") else image.convert("RGBA")


def _composited(image: Image.Image, colour: tuple[int, int, int]) -> Image.Image:
    """An LA or RGBA image on a background; grey stays grey on a grey one."""
    grey = image.mode == "LA" and len(set(colour)) == 1
    mode = "L" if grey else "RGB"
    found = Image.new(mode, image.size, colour[0] if grey else colour)
    found.paste(image.convert(mode), mask=image.getchannel("A"))
    return found
