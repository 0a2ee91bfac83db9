"""Draw what was explained beside the training samples that do it most harm (the paper's Figure 3)."""

import warnings
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from deconfuse.data.pixels import as_mode
from deconfuse.data.split import ImageSpec, RowSpec
from deconfuse.retrieval.statistics import HARMFUL, most_harmful
from deconfuse.runs.results import Findings
from deconfuse.system.errors import UserError, count, within
from deconfuse.system.files import whole_file

MOST = 100  # rows; matplotlib refuses a picture of more than some three hundred
WIDTH = 24  # characters of a class name that fit above a picture


def check(most: int, spec: ImageSpec | RowSpec) -> None:
    """Raise UserError where `pictures` is no number from 0 to MOST, or the data set has no images."""
    if within("pictures", count("pictures", most, 0), 0, MOST) and not isinstance(spec, ImageSpec):
        raise UserError(f"pictures={most}: this data set has features and no images; take pictures=0")


def draw(path: Path, found: Findings, most: int, method: str) -> None:
    """A PNG with a row for each of the first `most` explained: query, neighbour, its most harmful samples.

    Of a group its first pair stands for all. Titles give the class; of training samples the label that
    training believed, and the score. Nothing is written where nothing was explained, or with most = 0.
    """
    split, groups = found.split, found.explained.groups[:most]
    if not len(groups):
        return
    mode, names = "L" if split.image.channels == 1 else "RGB", split.class_names
    beside = "nearest" if found.explained.sign > 0 else "farthest"
    figure = Figure((1.5 * (2 + HARMFUL), 2.0 * len(groups) + 0.4), layout="constrained")
    axes = figure.subplots(len(groups), 2 + HARMFUL, squeeze=False)
    for row, group, scores in zip(axes, groups, found.influence.numpy(), strict=False):
        query, neighbour = group[0].tolist()
        shown = [
            (split.query.image(query), f"query\n{_short(names[split.query.labels[query]])}"),
            (split.gallery.image(neighbour), f"{beside}\n{_short(names[split.gallery.labels[neighbour]])}"),
        ]
        for k in most_harmful(scores).tolist():
            label = _short(names[found.noisy.labels[k]])
            shown.append((split.train.image(k), f"{label}\n{scores[k]:.2g}"))
        for axis in row:
            axis.set_axis_off()
        for axis, (image, title) in zip(row, shown, strict=False):
            axis.imshow(as_mode(image, mode), cmap="gray", vmin=0, vmax=255)
            axis.set_title(title, fontsize=7, parse_math=False)
    figure.suptitle(f"Most harmful training samples by {method}: label and score", fontsize=9)
    with (
        whole_file(path) as partial,
        matplotlib.rc_context({"font.family": "DejaVu Sans"}),
        warnings.catch_warnings(),
    ):
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # of a class name: drawn as a box
        figure.savefig(partial, format="png", dpi=110)


def _short(name: str) -> str:
    """A class name in one line of at most WIDTH characters."""
    line = " ".join(name.split())
    return line if len(line) <= WIDTH else line[: WIDTH - 1] + "…"
