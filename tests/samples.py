"""A Split of a few made samples, and data sets read by `data.build.load` as a run reads them."""

import inspect
import io

import numpy as np
from PIL import Image

from deconfuse.data.build import build, load
from deconfuse.data.images import ArrayImages
from deconfuse.data.listing import KEYS, Listing, Reading

TWO_A = ["a train", "a train"]
TWO_SIDES = ["m test", "b train", "a test", "z train", "m test", "b train", "a test", "z train", "z train"]


def pixels(n, side=5, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, side, side), dtype=np.uint8)


def encoded(format, side=9, seed=0):
    buffer = io.BytesIO()
    Image.fromarray(pixels(3, side, seed).transpose(1, 2, 0)).save(buffer, format)
    return buffer.getvalue()


BAD = {
    "zero.png": b"",
    "text.png": b"this is text, not a picture\n" * 9,
    "half.jpg": encoded("JPEG", 99)[:-900],
    "half.png": encoded("PNG", 99)[:-900],
    "half.gif": encoded("GIF", 99)[:-900],
    "half.bmp": encoded("BMP", 99)[:-900],
    "head.png": encoded("PNG", 99)[:20],
}


def made(samples, images=None, **options):
    """A Split of 'class part' words, e.g. 'b train'; options: fields of Listing and of Reading."""
    classes, parts = zip(*(sample.split() for sample in samples), strict=True)
    images = ArrayImages(pixels(len(samples))) if images is None else images
    names = options.pop("names", [f"{c}/{i}.png" for i, c in enumerate(classes)])
    common = {key: options.pop(key) for key in KEYS if key in options}
    reading = Reading(8, channels=1, augment="none", on_bad_image="later")
    return build(Listing(images, classes, parts, names, "dataset made", reading=reading, **options), **common)


def reader(lister):
    """The data set of a module's function `load`, as a function of its own keys and of those all share."""

    def read(*arguments, **keys):
        named = dict(zip(inspect.signature(lister).parameters, arguments, strict=False))
        return load({"_target_": f"{lister.__module__}.{lister.__name__}", **named, **keys})

    return read
