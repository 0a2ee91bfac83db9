"""Open every image file before training, so that a bad one is named at the start and not after hours."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import Image

from deconfuse.data.images import FileImages, Inspection, unusable
from deconfuse.data.pixels import RANGE, SKIP, Unscalable, check_upper, white_of
from deconfuse.system.errors import UserError, one_of, shorten
from deconfuse.system.progress import console, track
from deconfuse.system.words import many


def readable(images: FileImages, on_bad_image: str) -> np.ndarray:
    """The rows to keep, after the header, the end and the box of every image were inspected.

    on_bad_image=raise: all rows; UserError with the first bad images and their number if there are any.
    skip: the images that can be decoded to their last pixel; a line names each of the others.
    later: all rows, none of them inspected; a bad image raises when it is needed, and so does an image of
    more than 8 bits without dataset.value_range, as its scale depends on all images.
    Prints the very large images, and how images of more than 8 bits are scaled.
    """
    one_of("dataset.on_bad_image", on_bad_image, ("raise", "skip", "later"))
    rows = np.arange(len(images))
    if on_bad_image == "later":
        return rows

    def inspected(i: int) -> Inspection | UserError:
        try:
            return images.inspect(i, whole=on_bad_image == "skip")
        except UserError as error:
            return error

    with ThreadPoolExecutor() as pool:
        found = list(track(pool.map(inspected, rows.tolist()), "checking images", len(images)))
    good = {i: answer for i, answer in enumerate(found) if isinstance(answer, Inspection)}
    _refuse([answer for answer in found if isinstance(answer, UserError)], len(images), on_bad_image)
    cut = too_few_bits(images, good)
    _refuse(list(cut.values()), len(images), on_bad_image)
    good = {i: answer for i, answer in good.items() if i not in cut}
    print_large(images, good)
    set_scales(images, good)
    return np.array(sorted(good), dtype=np.int64)


def _refuse(bad: list[UserError], n: int, on_bad_image: str) -> None:
    """Raise the errors of bad images as one, or print that the images are skipped."""
    if bad and on_bad_image == "raise":
        raise _all_bad(bad, n)
    for error in bad:
        what, _, fix = str(error).rpartition("; ")
        console.print(f"skipped {what}" + (f"; to keep it, {RANGE}" if fix == RANGE else ""))


def _all_bad(bad: list[UserError], n: int) -> UserError:
    """The only error, or one that names the first of several and their number."""
    if len(bad) == 1:
        return bad[0]
    parts = [str(error).rpartition("; ") for error in bad]
    fixes = [fix for _, _, fix in parts]
    ranged = fixes.count(RANGE)
    advice = [f"mend or replace them, or {SKIP}"] if ranged < len(bad) else []
    advice += [f"{'for values below 0 ' if advice else ''}{RANGE}"] if ranged else []
    first = shorten((what for what, _, _ in parts), 3)
    return UserError(f"{len(bad):,} of {many(n, 'image', ',')} can't be used: {first}; {'; '.join(advice)}")


def too_few_bits(images: FileImages, found: dict[int, Inspection]) -> dict[int, UserError]:
    """The error of each image whose lower 8 of 16 bits Pillow can't read although the white needs them."""
    if images.pixels.value_range is not None:
        return {}
    deep = {i: each for i, each in found.items() if each.kind == "integers"}
    cut = [i for i, each in deep.items() if not each.exact]
    if not cut:
        return {}
    try:
        check_upper(0, white_of("integers", max(each.largest for each in deep.values())))
    except Unscalable as error:
        return {i: unusable(images.path(i), error) for i in cut}
    return {}


def print_large(images: FileImages, found: dict[int, Inspection]) -> None:
    """Print a line that names the images with more pixels than Pillow's limit for safe ones."""
    most = Image.MAX_IMAGE_PIXELS or float("inf")
    sizes = {i: each.size for i, each in found.items() if each.size[0] * each.size[1] > most}
    if sizes:
        large = (f"{images.path(i)} ({width:,} x {height:,})" for i, (width, height) in sizes.items())
        console.print(f"very large images, read as a whole each time: {shorten(large, 3)}")


def set_scales(images: FileImages, found: dict[int, Inspection]) -> None:
    """Set one value of white for all images of a kind, from the largest value among them, and print it."""
    images.deep = {i: each.kind for i, each in found.items() if each.kind}
    if images.pixels.value_range is not None:
        return
    for sort in sorted(set(images.deep.values())):
        rows = [i for i, name in images.deep.items() if name == sort]
        top = max(rows, key=lambda i: found[i].largest)
        try:
            images.whites[sort] = white_of(sort, found[top].largest)
        except ValueError as error:
            raise UserError(
                f"{images.path(top)}: {error}; set dataset.value_range=[0,1] or [0,255], as it is"
            ) from None
        console.print(
            f"{many(len(rows), 'image', ',')} of {sort} beyond 8 bits: 0 is black and "
            f"{images.whites[sort]:g} white, "
            f"as the largest value is {found[top].largest:g} ({images.path(top)}); "
            "dataset.value_range=[BLACK,WHITE] says otherwise"
        )
