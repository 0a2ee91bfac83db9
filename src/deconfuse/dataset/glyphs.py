"""Letters drawn from the fonts that matplotlib ships: a retrieval data set that needs no file.

A class is a Unicode letter (Latin, Greek or Cyrillic, without decomposition) that all 16 faces
have: 330 letters. Each face draws it once, with a seeded size, shift and rotation. Letters of
different scripts that share one outline (Latin A, Greek Alpha, Cyrillic A) are separate classes, so a
model that confuses them is right by the eye and wrong by the label.
"""

import unicodedata
from functools import cache
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.ft2font import FT2Font
from PIL import Image, ImageDraw, ImageFont

from deconfuse.data.images import ArrayImages
from deconfuse.data.listing import Listing, Reading
from deconfuse.data.split import SMALLEST
from deconfuse.system.errors import count, within
from deconfuse.system.progress import track

FACES = tuple(
    f"{family}{style}"
    for family, styles in {
        "DejaVuSans": ("", "-Bold", "-Oblique", "-BoldOblique"),
        "DejaVuSansMono": ("", "-Bold", "-Oblique", "-BoldOblique"),
        "DejaVuSerif": ("", "-Bold", "-Italic", "-BoldItalic"),
        "STIXGeneral": ("", "Bol", "Italic", "BolIta"),
    }.items()
    for style in styles
)
SCRIPTS = ("LATIN", "GREEK", "CYRILLIC")
CANVAS = 96  # side in pixels of the canvas for a letter, which is then reduced to the image size

# Groups of letters whose drawings differ in less than 2 % of their ink in at least 4 of the 16 faces, merged
# if they share a letter. A test draws all letters and finds exactly these groups.
HOMOGLYPHS = (
    "AΑА BΒВ CС EΕЕ FϜ HΗН IΙІ JЈ KΚК MΜМ NΝ OΟО PΡР SЅ TΤТ XΧХ YΥ ZΖ ΓГ ΠП ÐĐ "
    "aа cс eе iі jј oοо pр sѕ xх yу ƞη ɛε ɵѳ ʜн ʙв ĸκк"
).split()


@cache
def _charmap(face: str) -> frozenset[int]:
    return frozenset(FT2Font(_font_path(face)).get_charmap())


def _font_path(face: str) -> str:
    return str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{face}.ttf")


def letters() -> list[str]:
    """All letters that every face has, in code-point order."""

    def wanted(letter: str) -> bool:
        return (
            unicodedata.category(letter).startswith("L")
            and unicodedata.name(letter, "").split(" ")[0] in SCRIPTS
            and not unicodedata.decomposition(letter)
        )

    common = frozenset.intersection(*map(_charmap, FACES))
    return [chr(code) for code in sorted(common) if wanted(chr(code))]


def readable_name(letter: str) -> str:
    """'Μ Greek Mu' for GREEK CAPITAL LETTER MU, 'а Cyrillic small A' for CYRILLIC SMALL LETTER A."""
    script, *words = unicodedata.name(letter).replace("CAPITAL LETTER ", "").split(" ")
    words = [word.lower() if word == "SMALL" else word.capitalize() for word in words if word != "LETTER"]
    return f"{letter} {script.capitalize()} {' '.join(words)}"


def draw(letter: str, face: str, size: int, scale: float, shift: tuple[float, float], degrees: float):
    """One letter as a (size, size) uint8 array, white on black.

    scale: font size as a share of the canvas; shift: x and y as a share of the canvas.
    """
    canvas = Image.new("L", (CANVAS, CANVAS))
    font = ImageFont.truetype(_font_path(face), round(scale * CANVAS))
    centre = (CANVAS * (0.5 + shift[0]), CANVAS * (0.68 + shift[1]))
    ImageDraw.Draw(canvas).text(centre, letter, font=font, fill=255, anchor="ms")
    turned = canvas.rotate(degrees, resample=Image.Resampling.BILINEAR)
    return np.asarray(turned.resize((size, size), Image.Resampling.BOX))


def load(classes: int = 240, image_size: int = 32, seed: int = 0) -> Listing:
    """Draw the data set: half of the classes to train, half to test, 16 images each.

    classes: how many of the 330 letters; the seed chooses and splits them.
    Raises UserError if classes is not in [4, 330] or image_size is below 8.
    """
    alphabet = letters()
    within("dataset.classes", count("dataset.classes", classes, 4), 4, len(alphabet))
    count("dataset.image_size", image_size, SMALLEST)
    random = np.random.default_rng(seed)
    chosen = [alphabet[i] for i in random.permutation(len(alphabet))[:classes]]
    pixels, names, labels, parts = [], [], [], []
    for i, letter in enumerate(track(chosen, "drawing letters", len(chosen))):
        for face in FACES:
            scale, degrees = random.uniform(0.5, 0.62), random.uniform(-8, 8)
            shift = tuple(random.uniform(-0.05, 0.05, 2))
            pixels.append(draw(letter, face, image_size, scale, shift, degrees))
            names.append(f"U+{ord(letter):04X}/{face}")
            labels.append(readable_name(letter))
            parts.append("train" if i < classes // 2 else "test")
    return Listing(
        ArrayImages(np.stack(pixels)),
        labels,
        parts,
        names,
        source="dataset glyphs",
        same_things=[[readable_name(letter) for letter in group] for group in HOMOGLYPHS],
        reading=Reading(image_size, channels=1, augment="drawing"),
    )
