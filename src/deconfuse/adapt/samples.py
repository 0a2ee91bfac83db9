"""The samples of one side as a caller hands them over: rows, arrays, texts or a Dataset, with labels and
names."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset, Subset

from deconfuse.adapt import arrays
from deconfuse.adapt.pictures import Pictures, pictured
from deconfuse.system.errors import UserError, shorten
from deconfuse.system.progress import track

INPUTS = ("pixel_values", "image", "img", "images", "input", "inputs", "features", "x", "text", "sentence")
LABELS = ("label", "labels", "target", "targets", "fine_label", "y")
LOOKED_AT = 5  # items that are read twice, to see whether they stay the same


@dataclass(frozen=True)
class Samples:
    """n samples of one side.

    rows: finished embeddings (n, D), or None where a model reads inputs. item: i -> the model's input, or
    None with rows. labels: as handed over. names: of the samples. pictures: to look at; None where there are
    none. classes: the class names that the data set knows, or None.
    """

    rows: np.ndarray | None
    item: Callable[[int], Any] | None
    labels: np.ndarray
    names: tuple[str, ...]
    pictures: Pictures | None
    classes: Sequence[str] | None = None

    def __len__(self) -> int:
        return len(self.labels)


class Inputs(Dataset):
    """A model's inputs for a DataLoader: i gives (input, label, i)."""

    def __init__(self, samples: Samples):
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, i: int) -> tuple[Any, int, int]:
        return self.samples.item(i), 0, i


def read(given: Any, where: str, model: bool, images: Sequence | None = None) -> Samples:
    """The samples of the argument `where`: a Dataset, or a tuple (values, labels) or (values, labels, names).

    model: a model reads them, so that they need not be rows of numbers. images: pictures to show. Raises
    UserError for shapes, lengths, types and values that cannot be meant.
    """
    values, given_labels, given_names = _taken_apart(given, where)
    if (
        isinstance(values, (np.ndarray, Tensor))
        or not _is_sequence(values)
        or (not model and _is_plain(values))
    ):
        return _of_array(values, given_labels, given_names, where, model, images)
    if not model:
        raise UserError(
            f"{where}: a {type(values).__name__}, but there is no model to read it; give explain(model, "
            "...), or "
            "embeddings as (array, labels)"
        )
    return _of_items(values, given_labels, given_names, where, images)


def _taken_apart(given: Any, where: str) -> tuple[Any, Any, Any]:
    """(values, labels, names), with None for what was not given."""
    if not isinstance(given, tuple):
        return given, None, None
    if len(given) not in (2, 3):
        raise UserError(f"{where}: a tuple of {len(given)}; give (values, labels) or (values, labels, names)")
    return (*given, None)[:3]


def _is_sequence(values: Any) -> bool:
    return hasattr(values, "__getitem__") and hasattr(values, "__len__") and not hasattr(values, "__array__")


def _is_plain(values: Any) -> bool:
    """True for lists of lists of numbers, which numpy makes an array of."""
    return isinstance(values, list) and len(values) > 0 and isinstance(values[0], (list, tuple, int, float))


def _of_array(
    values: Any, given: Any, names: Sequence | None, where: str, model: bool, images: Sequence | None
) -> Samples:
    found = arrays.array(values, where) if model else arrays.rows(values, where)
    if given is None:
        raise UserError(f"{where}: an array without labels; give ({where}_values, {where}_labels)")
    if found.ndim < 2 or found.dtype.kind not in "fiub" or not len(found):
        raise UserError(f"{where}: {found.dtype} of shape {found.shape}; give one input for each sample")
    n = len(found)
    labels = arrays.labels(given, n, f"{where} labels")
    shown = Pictures.of(images, n, where) if images is not None else None
    if not model:
        return Samples(found, None, labels, arrays.names(names, n, where), shown)

    def item(i: int) -> Tensor:
        return _tensor(found[i], where, i)

    shown = shown or pictured(item, n)
    return Samples(None, item, labels, arrays.names(names, n, where), shown)


def _of_items(values: Any, given: Any, names: Any, where: str, images: Sequence | None) -> Samples:
    n = len(values)
    if not n:
        raise UserError(f"{where}: is empty; give at least two samples")
    base, index = unwrapped(values)

    def item(i: int) -> Any:
        return _tensor(_input(values[i], where), where, i)

    _check_still(item, n, where)
    found = _labels(values, base, index, where) if given is None else given
    labels = arrays.labels(found, n, f"{where} labels")
    shown = Pictures.of(images, n, where) if images is not None else pictured(item, n)
    classes = getattr(base, "classes", None)
    names = names if names is not None else _paths(base, index)
    return Samples(None, item, labels, arrays.names(names, n, where), shown, classes)


def unwrapped(dataset: Any) -> tuple[Any, np.ndarray]:
    """(the data set below all Subsets, which of its items are meant)."""
    index = np.arange(len(dataset))
    while isinstance(dataset, Subset):
        index = np.asarray(dataset.indices)[index]
        dataset = dataset.dataset
    return dataset, index


def _by_key(item: Mapping, known: Sequence[str], where: str, what: str, fix: str) -> Any:
    """The value of the first of the known keys; UserError where an item has none of them."""
    key = next((key for key in known if key in item), None)
    if key is None:
        raise UserError(
            f"{where}: its items have the keys {shorten(map(str, item))}, and none is known to hold the "
            f"{what}; {fix}"
        )
    return item[key]


def _input(item: Any, where: str) -> Any:
    """The model's input of an item: the first of a tuple, or by its key in a mapping."""
    if isinstance(item, Mapping):
        fix = f"name it {INPUTS[1]}, or hand over (dataset of inputs, labels)"
        return _by_key(item, INPUTS, where, "input", fix)
    return item[0] if isinstance(item, (tuple, list)) and len(item) else item


def _tensor(value: Any, where: str, i: int) -> Any:
    """An input as a tensor, floats as float32; texts stay texts. UserError for what no model can read."""
    if isinstance(value, str):
        return value
    if isinstance(value, Image.Image):
        raise UserError(
            f"{where}: item {i} is a PIL image, and a model reads tensors; give the data set a transform"
        )
    if isinstance(value, np.ndarray):
        value = torch.from_numpy(np.array(value))  # a copy, as torch warns of arrays that are read-only
    if not isinstance(value, Tensor):
        raise UserError(f"{where}: item {i} is a {type(value).__name__}; a model reads tensors or texts")
    return value.float() if value.is_floating_point() else value


def _check_still(item: Callable[[int], Any], n: int, where: str) -> None:
    """Raise UserError if an item is another one when it is read again, as with random augmentation."""
    for i in range(min(LOOKED_AT, n)):
        one, other = item(i), item(i)
        same = torch.equal(one, other) if isinstance(one, Tensor) else one == other
        if not same:
            raise UserError(
                f"{where}: item {i} is another one each time it is read; hand over the data set without "
                "random "
                "augmentation (the transform that you test with)"
            )


def _labels(dataset: Any, base: Any, index: np.ndarray, where: str) -> Any:
    """The labels that the data set lists, if its first items agree, or else those of all its items."""
    listed = _listed(base)
    if listed is not None and len(listed) == len(base):
        chosen = [listed[i] for i in index.tolist()]
        some = range(min(LOOKED_AT, len(index)))
        if all(_same(_label(dataset[i], where, i), chosen[i]) for i in some):
            return chosen
    return [_label(dataset[i], where, i) for i in track(range(len(index)), f"labels ({where})", len(index))]


def _listed(base: Any) -> Sequence | None:
    for name in ("targets", "labels", "_labels", "y"):
        found = getattr(base, name, None)
        if isinstance(found, (list, tuple, np.ndarray, Tensor)):
            return found.tolist() if isinstance(found, (np.ndarray, Tensor)) else found
    return None


def _label(item: Any, where: str, i: int) -> Any:
    """The label of an item; UserError where it has none."""
    if isinstance(item, Mapping):
        found = _by_key(item, LABELS, where, "label", f"hand over ({where}, labels)")
    elif isinstance(item, (tuple, list)) and len(item) > 1:
        found = item[1]
    else:
        raise UserError(f"{where}: item {i} has no label beside its input; hand over ({where}, labels)")
    if isinstance(found, (Tensor, np.ndarray)):
        if found.size != 1 if isinstance(found, np.ndarray) else found.numel() != 1:
            raise UserError(f"{where}: the label of item {i} has shape {tuple(found.shape)}; give one number")
        return found.item()
    return found


def _same(one: Any, other: Any) -> bool:
    return type(one) in (int, str) and type(other) in (int, str) and one == other


def _paths(base: Any, index: np.ndarray) -> list[str] | None:
    """The files of an ImageFolder and its like, relative to its root."""
    listed = getattr(base, "samples", None) or getattr(base, "imgs", None)
    if not isinstance(listed, list) or not listed or len(listed) <= index.max():
        return None
    if not all(
        isinstance(entry, tuple) and isinstance(entry[0], (str, Path)) for entry in listed[:LOOKED_AT]
    ):
        return None
    root = Path(getattr(base, "root", "") or "")
    files = [Path(listed[i][0]) for i in index.tolist()]
    return [str(file.relative_to(root)) if file.is_relative_to(root) else str(file) for file in files]
