"""The labels of all sides as class ids, and the samples as a Split."""

from collections.abc import Mapping, Sequence

import numpy as np

from deconfuse.adapt.samples import Samples
from deconfuse.data.images import FeatureRows
from deconfuse.data.split import ImageSpec, Part, RowSpec, Split
from deconfuse.system.errors import UserError

RANKS = (1, 2, 4, 8)  # of the recalls


def split_of(
    train: Samples,
    test: Samples,
    gallery: Samples | None,
    classes: Sequence[str] | Mapping | None,
    fixed: int | None,
) -> Split:
    """The samples with class ids; the training classes are 0 to c - 1, and others of the test side follow.

    Labels of all sides are one vocabulary: the same label is the same class. fixed: the number of classes of
    a loss that is fitted already, whose class i is the label i; None: the training labels in their order.
    Raises UserError where labels do not fit, and where nothing could be retrieved.
    """
    sides = {"train": train, "test": test} | ({} if gallery is None else {"gallery": gallery})
    _check_kinds(sides)
    known = training_classes(train.labels, fixed)
    ids = {label: i for i, label in enumerate(known)}
    others = sorted(
        {label for side in (test, gallery) if side for label in side.labels.tolist()} - ids.keys()
    )
    ids |= {label: len(known) + i for i, label in enumerate(others)}
    named = _class_names([*known, *others], classes if classes is not None else train.classes)
    spec = _spec(sides)
    parts = {name: _part(side, ids, isinstance(spec, ImageSpec)) for name, side in sides.items()}
    query = parts["test"]
    split = Split(
        parts["train"],
        query,
        parts.get("gallery", query),
        named,
        len(known),
        spec,
        recall_at=RANKS,
    )
    if split.lone.all():
        raise UserError(
            f"test: none of the {len(query)} samples has another of its label to be found, so nothing can be "
            "retrieved; give at least two samples of a class, or a gallery"
        )
    return split


def _check_kinds(sides: dict[str, Samples]) -> None:
    """Raise UserError where some labels are numbers and others text, or where samples are too few."""
    kinds = {name: "text" if side.labels.dtype == object else "numbers" for name, side in sides.items()}
    if len(set(kinds.values())) > 1:
        said = ", ".join(f"{kind} in {name}" for name, kind in kinds.items())
        raise UserError(
            f"labels are {said}; give all as numbers or all as text, as equal labels are one class"
        )
    if len(sides["train"]) < 2:
        raise UserError("train: a single sample; give at least two")
    widths = {name: side.rows.shape[1] for name, side in sides.items() if side.rows is not None}
    if len(set(widths.values())) > 1:
        said = ", ".join(f"{width} in {name}" for name, width in widths.items())
        raise UserError(f"embeddings have different lengths: {said}; all must come from one model")


def training_classes(labels: np.ndarray, fixed: int | None) -> list:
    """The label of each class id: those of the training side in their order, or, of a loss that is fitted
    already, the numbers of its classes; UserError where the labels are none of these."""
    known = sorted(set(labels.tolist()))
    if fixed is None:
        if len(known) < 2:
            raise UserError(
                f"train: all {len(labels)} samples have the label {known[0]}; give at least two classes"
            )
        return known
    if labels.dtype == object:
        raise UserError(
            f"train: labels are text, and the loss knows its {fixed} classes by number; give the numbers "
            "that it "
            "was trained with, and the names as classes="
        )
    if known[0] < 0 or known[-1] >= fixed:
        bad = known[0] if known[0] < 0 else known[-1]
        raise UserError(
            f"train: the label {bad} is none of the loss's {fixed} classes, 0 to {fixed - 1}; give the "
            "labels that "
            "it was trained with"
        )
    return list(range(fixed))


def _class_names(labels: list, classes: Sequence[str] | Mapping | None) -> tuple[str, ...]:
    """The name of each label: by classes, or else the label itself."""
    if isinstance(classes, Mapping):
        found = [str(classes.get(label, label)) for label in labels]
    elif classes is not None:
        listed = list(classes)
        found = [
            str(listed[label]) if isinstance(label, int) and 0 <= label < len(listed) else str(label)
            for label in labels
        ]
    else:
        found = [str(label) for label in labels]
    twice = sorted({name for name in found if found.count(name) > 1}) if len(set(found)) < len(found) else []
    if twice:
        raise UserError(f"classes: two labels have the name {twice[0]!r}; give each a name of its own")
    return tuple(found)


def _part(side: Samples, ids: dict, pictured: bool) -> Part:
    images = side.pictures if pictured else FeatureRows(_rows_of(side))
    labels = np.array([ids[label] for label in side.labels.tolist()], dtype=np.int64)
    return Part(images, np.arange(len(side)), labels, side.names)


def _rows_of(side: Samples) -> np.ndarray:
    """The rows of a side without pictures; of inputs that are none, such as texts, a column of zeros."""
    return side.rows if side.rows is not None else np.zeros((len(side), 1), np.float32)


def _spec(sides: dict[str, Samples]) -> ImageSpec | RowSpec:
    """ImageSpec if every side has pictures, else RowSpec."""
    if all(side.pictures is not None for side in sides.values()):
        return sides["train"].pictures.spec
    return RowSpec(_rows_of(sides["train"]).shape[1])
