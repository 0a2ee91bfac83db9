"""The samples that a data set's module lists become a Split: they are read, sorted and checked."""

import importlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from deconfuse.data.images import ArrayImages, FeatureRows, FileImages, LazyImages
from deconfuse.data.listing import KEYS, Listing, Reading
from deconfuse.data.pixels import Pixels
from deconfuse.data.readable import readable
from deconfuse.data.split import ImageSpec, Part, RowSpec, Split
from deconfuse.system.errors import UserError, did_you_mean, one_of, shorten
from deconfuse.system.progress import console
from deconfuse.system.spelling import same_path
from deconfuse.system.words import agree, many

PARTS = ("train", "test", "query", "gallery")


def load(settings: Mapping[str, Any]) -> Split:
    """The data set that the settings below `dataset` say; `_target_` names the function that lists it.

    Another key goes to that function if it has an argument of this name, and to `Reading` if that has such a
    field. Raises UserError for a key that neither has, and for an argument without a value.
    """
    given = dict(settings)
    lister = _located(given.pop("_target_"))
    arguments = inspect.signature(lister).parameters
    for key in given:
        if key not in arguments and key not in KEYS:
            raise UserError(f"there is no key dataset.{key}; {did_you_mean(key, {*arguments, *KEYS})}")
    for key, argument in arguments.items():
        if argument.default is argument.empty and key not in given:
            raise UserError(f"dataset.{key} has no default; give it as dataset.{key}=VALUE")
    listing = lister(**{key: value for key, value in given.items() if key in arguments})
    return build(listing, **{key: value for key, value in given.items() if key in KEYS})


def _located(target: str) -> Callable[..., Listing]:
    """The function of a dotted name; UserError if there is none."""
    module, _, name = target.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(
            f"dataset._target_={target}: no function of that name ({error}); name one that returns a Listing"
        ) from None


def build(listing: Listing, **common: Any) -> Split:
    """Read the samples of a listing, sort them into a Split, and check it.

    common: fields of Reading that replace those of the listing's own `reading`.
    Raises UserError for an empty part, a single test sample, a class in both train and test, a single
    training class, a file in training and test or twice in a part, an image that can't be read, a class with
    one sample (unless on_small_class says otherwise), and a key that has no meaning for such samples.
    """
    for key in common:
        if key not in listing.images.USES:
            raise UserError(
                f"dataset.{key} has no meaning for {listing.source}; leave it out (keys that have one: "
                f"{', '.join(listing.images.USES)})"
            )
    reading = replace(listing.reading, **common)
    one_of("dataset.on_small_class", reading.on_small_class, ("raise", "drop", "keep"))
    listing, rows, spec = _opened(listing, reading)
    _check_parts(listing, rows)
    _check_names(listing, rows)
    _check_files(listing, rows)
    rows = _without_small(listing, rows, reading.on_small_class)
    split = _parted(listing, rows, spec)
    if split.twins is not None:
        both = int((split.twins >= 0).sum())
        console.print(
            f"{listing.source}: {both} of {many(len(split.query), 'query')} {agree(both)} in the gallery "
            "too, never as their own neighbour"
        )
    if split.trivial:
        console.print(f"warning: {listing.source}: {split.trivial}; test on two classes or more")
    return split


def _opened(listing: Listing, reading: Reading) -> tuple[Listing, np.ndarray, ImageSpec | RowSpec]:
    """(the listing with its images read as asked, the rows that can be used, how the model is fed)."""
    images, rows = listing.images, np.arange(len(listing.images))
    if isinstance(images, FeatureRows):
        return listing, rows, RowSpec(images.values.shape[1])
    spec = ImageSpec(reading.image_size, reading.channels, reading.augment, reading.image_resize)
    if isinstance(images, (ArrayImages, LazyImages)):
        return listing, rows, spec
    pixels = Pixels(reading.background, reading.value_range)
    images = FileImages(images.files, images.boxes, pixels, images.read)
    return replace(listing, images=images), readable(images, reading.on_bad_image), spec


def _check_parts(listing: Listing, rows: np.ndarray) -> None:
    """Refuse a word that is no part."""
    codes, words = listing.part_codes
    for part in sorted({str(words[code]) for code in np.unique(codes[rows])}):
        one_of(f"{listing.source}: split", part, PARTS)


def _check_names(listing: Listing, rows: np.ndarray) -> None:
    """Refuse names that can't be written as UTF-8, which tables are."""
    try:
        "".join(listing.names).encode()
    except UnicodeEncodeError:
        for name in (listing.names[i] for i in rows):
            if name != name.encode(errors="replace").decode():
                raise UserError(
                    f"{listing.source}: the name {name!r} is not UTF-8; rename the file"
                ) from None


def _check_files(listing: Listing, rows: np.ndarray) -> None:
    """Refuse a file that is in training and in test, in two classes, or listed twice in a part.

    A training file that has links to it counts as often as it is listed, which a line says. A query may be
    in the gallery too.
    """
    train, names = listing.among(rows, "train"), listing.names
    query, gallery = listing.among(rows, "test", "query"), listing.among(rows, "test", "gallery")
    for mine in (train, query, gallery):
        twice = _pairs(listing.files, mine, mine)
        plain = twice if mine is not train else [pair for pair in twice if _one_path(names, *pair)]
        if plain:
            i, j = plain[0]
            also = "" if names[i] == names[j] else f" (the same file as {names[i]})"
            raise UserError(f"{listing.source}: {names[j]} is listed twice{also}; keep one")
        _check_labels(listing, twice)
        if twice:
            i, j = twice[0]
            console.print(
                f"{listing.source}: {many(len(twice), 'training image')} {agree(len(twice))} there already "
                f"under another name, as {names[j]} is as {names[i]}; each counts once more"
            )
    shared = _pairs(listing.files, train, query) + _pairs(listing.files, train, gallery)
    if shared:
        shown = {j: names[j] + ("" if names[i] == names[j] else f" (as {names[i]})") for i, j in shared}
        raise UserError(
            f"{listing.source}: {many(len(shown), 'file')} {agree(len(shown))} in training and in test: "
            f"{shorten(shown.values(), 3)}; keep each on one side"
        )
    _check_labels(listing, _pairs(listing.files, gallery, query))


def _one_path(names: Sequence[str], i: int, j: int) -> bool:
    return same_path(names[i]) == same_path(names[j])


def _pairs(files: np.ndarray, some: np.ndarray, others: np.ndarray) -> list[tuple[int, int]]:
    """(the first row of `some` that is the same file, j) for each row j of `others` that is not that row."""
    first = np.full(len(files), -1)
    first[files[some[::-1]]] = some[::-1]  # of equal indices the last assignment stays
    found = first[files[others]]
    same = (found >= 0) & (found != others)
    return list(zip(found[same].tolist(), others[same].tolist(), strict=True))


def _check_labels(listing: Listing, pairs: list[tuple[int, int]]) -> None:
    """Refuse one file in two classes."""
    names, classes = listing.names, listing.classes
    for i, j in pairs:
        if classes[i] != classes[j]:
            other = "" if names[i] == names[j] else f", as {names[i]},"
            raise UserError(
                f"{listing.source}: {names[j]} is in class {classes[j]} and{other} in class {classes[i]}; "
                "keep one"
            )


def _without_small(listing: Listing, rows: np.ndarray, on_small_class: str) -> np.ndarray:
    """Drop, or refuse, classes with a single sample, for which no other sample could be retrieved.

    Prints how many classes and images are dropped, and the names of the first classes.
    """
    if on_small_class == "keep" or not len(rows):
        return rows
    codes, words = listing.class_codes
    is_train = np.isin(rows, listing.among(rows, "train"), assume_unique=True)
    key = 2 * codes[rows] + is_train
    counts = np.bincount(key)
    small = sorted((k % 2, words[k // 2]) for k in np.flatnonzero(counts == 1).tolist())
    if small and on_small_class == "raise":
        raise UserError(
            f"{listing.source}: {many(len(small), 'class')} {agree(len(small), 'has', 'have')} a single "
            f"image: {shorten(word for _, word in small)}; "
            "add images, or leave them out with dataset.on_small_class=drop"
        )
    if small:
        console.print(
            f"{listing.source}: {many(len(small), 'class')} with a single image {agree(len(small))} left "
            f"out, {many(len(small), 'image')} of {len(rows)} (dataset.on_small_class=drop): "
            f"{shorten(word for _, word in small)}"
        )
    return rows[counts[key] >= 2]


def _parted(listing: Listing, rows: np.ndarray, spec: ImageSpec | RowSpec) -> Split:
    """The rows as training, query and gallery part with class ids; UserError if a part is too small."""
    train = listing.among(rows, "train")
    query, gallery = listing.among(rows, "test", "query"), listing.among(rows, "test", "gallery")
    own_gallery = len(listing.among(rows, "query", "gallery")) > 0
    codes, words = listing.class_codes
    trained, tested = (
        sorted(words[np.unique(codes[each])].tolist()) for each in (train, np.append(query, gallery))
    )
    both = sorted(set(trained) & set(tested))
    if both:
        raise UserError(
            f"{listing.source}: {many(len(both), 'class')} {agree(len(both))} in training and in test: "
            f"{shorten(both)}; "
            "metric learning is tested on unseen classes, so move each to one side"
        )
    ids = {name: i for i, name in enumerate((*trained, *tested))}
    id_of_code = np.array([ids.get(word, -1) for word in words], dtype=np.int64)

    def part(mine: np.ndarray) -> Part:
        names = tuple(map(listing.names.__getitem__, mine.tolist()))
        return Part(listing.images, mine, id_of_code[codes[mine]], names)

    found = part(query)
    parts = {"training": part(train), "query": found, "gallery": part(gallery) if own_gallery else found}
    _check_sizes(listing.source, parts, trained)
    alike = [tuple(sorted(ids[word] for word in group if word in ids)) for group in listing.same_things]
    return Split(
        *parts.values(),
        tuple(ids),
        len(trained),
        spec,
        tuple(group for group in alike if len(group) > 1),
        listing.recall_at,
        _twins(listing.files, query, gallery) if own_gallery else None,
    )


def _check_sizes(source: str, parts: dict[str, Part], train_names: list[str]) -> None:
    """Refuse an empty part, a single test sample, and a single training class."""
    for name, part in parts.items():
        if len(part) == 0:
            raise UserError(f"{source}: no {name} images; give it at least two classes of two images each")
    if parts["gallery"] is parts["query"] and len(parts["query"]) == 1:
        raise UserError(f"{source}: the only test image has no other to be compared with; add test images")
    if len(train_names) == 1:
        raise UserError(
            f"{source}: one training class alone, {train_names[0]}; metric learning tells classes apart, so "
            "give it two or more to train on, and two others to test on"
        )


def _twins(files: np.ndarray, query: np.ndarray, gallery: np.ndarray) -> np.ndarray | None:
    """(q,) the place in the gallery of each query's own file, -1 if it is not there; None if none is."""
    place = np.full(len(files), -1)
    place[files[gallery]] = np.arange(len(gallery))
    found = place[files[query]]
    return found if (found >= 0).any() else None
