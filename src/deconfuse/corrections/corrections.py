"""Read the corrected labels that a file gives, and match them with the training set."""

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Bool, Int

from deconfuse.corrections import decisions, labelling_tools
from deconfuse.corrections.class_map import class_map
from deconfuse.data.noise import NoisyLabels
from deconfuse.data.split import Split
from deconfuse.system.csv_files import unguarded
from deconfuse.system.errors import UserError, flag, shorten, within
from deconfuse.system.spelling import Names, same_path, same_word
from deconfuse.system.words import agree, many


@dataclass(frozen=True)
class Source:
    """The settings under relabels=.

    file: a file that `decisions.asked` reads; None: no label is corrected. min_vote: a row of a relabels.csv
    counts if its vote_recommended is at least this, in [0, 1]. test: also apply its decisions on the test
    side's labels.
    """

    file: str | None
    min_vote: float
    test: bool = False

    def __post_init__(self):
        within("relabels.min_vote", self.min_vote, 0, 1)
        flag("relabels.test", self.test)


@dataclass(frozen=True)
class Tested:
    """What a file decides on the test side. applied: whether the run takes it; changed, left_out: how many
    samples get another label, or are taken away."""

    applied: bool
    changed: int
    left_out: int

    @property
    def decided(self) -> int:
        """How many samples are meant."""
        return self.changed + self.left_out


@dataclass(frozen=True)
class Corrections:
    """The corrections of a file, matched with the training set.

    given: the labels before the corrections; noisy: the labels after them; evidence (n,): the reason for each
    correction as text, "" for labels that stay; already: how many corrections give the label that the sample
    has already; left_out (n,): samples that training leaves out; classes: (class, other class, merge or swap)
    that were applied to all samples.
    """

    file: str
    given: NoisyLabels
    noisy: NoisyLabels
    evidence: np.ndarray
    already: int
    left_out: Bool[np.ndarray, " n"]
    classes: tuple[tuple[str, str, str], ...] = ()

    @property
    def changed(self) -> Bool[np.ndarray, " n"]:
        """True for samples whose label was corrected."""
        return self.given.labels != self.noisy.labels

    @property
    def trains(self) -> bool:
        """Whether the model trains on other labels, or on fewer samples, than before."""
        return bool(self.changed.any() or self.left_out.any())


def read(
    source: Source, split: Split, noisy: NoisyLabels, tested: Tested | None = None
) -> Corrections | None:
    """The file's corrections of these labels; None without a file.

    A sample is identified by its path and, if the file has it, by the label that it had; both may be spelt
    differently from the data (`system.spelling`). First each sample gets its own label; then classes are
    merged and swapped, also for what was just given. tested: what the same file decides on the test side.
    Raises UserError if the file does not fit the training set, or if nothing would change.
    """
    if source.file is None:
        return None
    file = Path(str(source.file))
    asked = _spelt_as_here(decisions.asked(file, source.min_vote), file, split)
    rows, labels = match(asked, file, split, noisy.labels)
    corrected, evidence = noisy.labels.copy(), np.full(len(noisy.labels), "", dtype=object)
    left_out = np.zeros(len(corrected), bool)
    left_out[rows[labels < 0]] = True
    given = labels >= 0
    corrected[rows[given]], evidence[rows] = labels[given], asked["evidence"].to_numpy()
    already = len(np.unique(rows)) - int(((corrected != noisy.labels) | left_out).sum())
    classes, to = _classes(file, split)
    evidence[(to[corrected] != corrected) & (evidence == "")] = "classes"
    corrected = to[corrected]
    changed = corrected != noisy.labels
    evidence[~changed & ~left_out] = ""
    if not changed.any() and not left_out.any() and not (tested and tested.applied and tested.decided):
        had = f"it gives {many(already, 'label')}, there already" if already else "it gives no label"
        if tested and tested.decided:
            had += f" of a training sample; relabels.test=true takes its {tested.decided} of test samples"
        raise UserError(
            f"{file}: nothing to change: {had}; run without relabels=, or lower relabels.min_vote"
        )
    if len(np.unique(corrected[~left_out])) < 2:
        raise UserError(f"{file}: all training samples would be of one class; correct fewer labels")
    # Without noise= the true labels are unknown, so that a corrected label is not taken for a flipped one.
    clean = to[noisy.clean] if noisy.flipped.any() else corrected
    return Corrections(str(file), noisy, NoisyLabels(corrected, clean), evidence, already, left_out, classes)


def _classes(file: Path, split: Split) -> tuple[tuple[tuple[str, str, str], ...], Int[np.ndarray, " c"]]:
    """(the merges and swaps of training classes, for each training class the one that its samples get)."""
    decided = class_pairs(file, split)
    c = split.num_classes
    mine = [(a, b, what) for a, b, what in decided if a < c and b < c]
    try:
        to = class_map(mine, c, split.class_names)
    except UserError as error:
        raise UserError(f"{file}: {error}") from None
    names = split.class_names
    return tuple((names[a], names[b], what) for a, b, what in mine if what != "apart"), to


def class_pairs(file: Path, split: Split) -> list[tuple[int, int, str]]:
    """The file's decisions on two classes as (class id, class id, decision); UserError where a class is
    unknown, or one of the two is for training and the other to test with."""
    _, table = decisions.beside(file)
    names = Names(split.class_names, same_word)
    ids = {name: i for i, name in enumerate(split.class_names)}
    found = []
    for one, other, what in table.itertuples(index=False, name=None):
        pair = names(one), names(other)
        strange = [name for name in pair if name not in ids]
        if strange:
            raise UserError(f"{file}: there is no class {strange[0]}; {_near(strange[0], split.class_names)}")
        a, b = (ids[name] for name in pair)
        if what != "apart" and (a < split.num_classes) != (b < split.num_classes):
            raise UserError(f"{file}: of {one} and {other} one is trained on and the other is tested with")
        found.append((a, b, what))
    return found


def _spelt_as_here(asked: pd.DataFrame, file: Path, split: Split) -> pd.DataFrame:
    """The corrections with each path and class spelt as in the data, where the data has it.

    A plain list, which does not give the samples' present labels, may be typed by hand or copied from a run's
    table. A cell of it that begins with ' is therefore looked up as it is, and then without the '; UserError
    if the data has both names. A path that Label Studio or FiftyOne gives may be longer than the data's, or a
    name that `labelling_tools.stem` made.
    """
    names = [*split.train.names, *split.query.names, *split.gallery.names]
    paths = Names(names, same_path)
    classes = Names(split.class_names, same_word)
    listed = asked["class"] == ""

    def spelt(names: Names, text: str, plain: bool) -> str:
        found, bare = names(text), unguarded(text)
        if not plain or bare == text or names(bare) not in names.exact:
            return found
        if found in names.exact:
            raise UserError(
                f"{file}: {text} may be {found} or, without the sign for spreadsheets, {names(bare)}; "
                "use a file with old_label and new_label"
            )
        return names(bare)

    if len(asked) and asked["evidence"].isin(labelling_tools.TOOLS).all():
        found = list(map(labelling_tools.Paths(names, paths), asked["path"]))
    else:
        found = [spelt(paths, text, plain) for text, plain in zip(asked["path"], listed, strict=True)]
    return asked.assign(
        path=found,
        label=[spelt(classes, text, plain) for text, plain in zip(asked["label"], listed, strict=True)],
        **{"class": [classes(text) if text else "" for text in asked["class"]]},
    ).astype(object)


def match(
    asked: pd.DataFrame, file: Path, split: Split, current: Int[np.ndarray, " n"]
) -> tuple[Int[np.ndarray, " a"], Int[np.ndarray, " a"]]:
    """(training rows, class ids to give) of the corrections; -1 for a sample to leave out.

    Raises UserError, naming a sample, if one can't be matched.
    """
    rows = {name: i for i, name in enumerate(split.train.names)}
    ids = {name: i for i, name in enumerate(split.class_names)}
    unknown = [path for path in asked["path"] if path not in rows]
    if unknown:
        raise UserError(f"{file}: {_unknown(unknown, split)}")
    strange = [name for name in pd.concat([asked["label"], asked["class"]]) if name and name not in ids]
    if strange:
        near = _near(strange[0], split.class_names[: split.num_classes])
        raise UserError(f"{file}: there is no class {strange[0]}; {near}")
    tested = [name for name in asked["label"] if name and ids[name] >= split.num_classes]
    if tested:
        raise UserError(
            f"{file}: {shorten(dict.fromkeys(tested))} is no training class but one to test with; "
            "give training samples a training class"
        )
    at = asked["path"].map(rows).to_numpy(np.int64)
    to, had = (asked[name].map(ids).to_numpy(np.float64) for name in ("label", "class"))
    to = np.where(np.isnan(to), -1, to).astype(np.int64)
    other = [
        f"{path} is {split.class_names[now]} here, {split.class_names[int(then)]} in the file"
        for path, now, then, new in zip(asked["path"], current[at], had, to, strict=True)
        if not np.isnan(then) and then != now and new != now
    ]
    if other:
        raise UserError(
            f"{file}: {many(len(other), 'sample')} {agree(len(other), 'has', 'have')} another label than "
            "at the review: "
            f"{shorten(other, 2)}; give the dataset=, noise= and seed= of the run that was reviewed"
        )
    given: dict[int, int] = {}
    for path, row, label in zip(asked["path"], at.tolist(), to.tolist(), strict=True):
        if given.setdefault(row, label) != label:
            both = " and ".join(split.class_names[c] if c >= 0 else "left out" for c in (given[row], label))
            raise UserError(f"{file}: {path} is to be {both}; keep one line of it")
    return at, to


def _unknown(paths: list[str], split: Split) -> str:
    """The message about unknown paths: they are test samples, or similar to paths that exist."""
    tested = set(split.query.names) | set(split.gallery.names)
    if paths[0] in tested:
        return (
            f"{paths[0]} is a test sample, and the list is of training samples; take it off the list, or "
            "decide on it in the report"
        )
    last = paths[0].replace("\\", "/").rpartition("/")[2]
    alike = [name for name in split.train.names if name.rpartition("/")[2] == last]
    near = alike[:1] or difflib.get_close_matches(paths[0], split.train.names[:20000], n=1)
    hint = f"did you mean {near[0]}?" if near else f"they are named like {split.train.names[0]}"
    what = f"{many(len(paths), 'path')} {agree(len(paths))} in no training set of this data"
    return f"{what}: {shorten(paths, 2)}; {hint}"


def _near(name: str, classes: Iterable[str]) -> str:
    classes = list(classes)
    near = difflib.get_close_matches(name, classes, n=1)
    return (f"did you mean {near[0]}? " if near else "") + f"Training classes: {shorten(sorted(classes))}"
