"""Draw what was explained beside the training samples that do it most harm (the paper's Figure 3)."""

import textwrap
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from src.artifacts import whole_file
from src.datamodule import as_mode
from src.errors import UserError, count
from src.results import Findings
from src.split import ImageSpec, RowSpec

HARMFUL = 5  # training samples per row, as in the paper's figure


def check(most: int, spec: ImageSpec | RowSpec) -> None:
    """Raise UserError where `pictures` is no number, or the data set has no images."""
    if count("pictures", most, 0) and not isinstance(spec, ImageSpec):
        raise UserError(f"pictures={most}: this data set has features and no images; take pictures=0")


def most_harmful(scores: np.ndarray, most: int = HARMFUL) -> np.ndarray:
    """(k,) the samples with the largest scores, most harmful first, ties by index; only what scores > 0."""
    order = np.argsort(-scores, kind="stable")[:most]
    return order[scores[order] > 0]


def draw(path: Path, found: Findings, most: int, method: str) -> None:
    """A PNG with a row for each of the first `most` explained: query, neighbour, its most harmful samples.

    Of a group its first pair stands for all. Titles give the class; of training samples the label that
    training believed, and the score. Nothing is written where nothing was explained.
    """
    split, groups = found.split, found.explained.groups[:most]
    if not len(groups):
        return
    mode, names = "L" if split.image.channels == 1 else "RGB", split.class_names
    figure = Figure((1.5 * (2 + HARMFUL), 2.0 * len(groups) + 0.4), layout="constrained")
    axes = figure.subplots(len(groups), 2 + HARMFUL, squeeze=False)
    for row, group, scores in zip(axes, groups, found.influence.numpy(), strict=False):
        query, neighbour = group[0].tolist()
        shown = [
            (split.query.image(query), f"query\n{_short(names[split.query.labels[query]])}"),
            (split.gallery.image(neighbour), f"nearest\n{_short(names[split.gallery.labels[neighbour]])}"),
        ]
        for k in most_harmful(scores).tolist():
            label = _short(names[found.noisy.labels[k]])
            shown.append((split.train.image(k), f"{label}\n{scores[k]:.2g}"))
        for axis in row:
            axis.set_axis_off()
        for axis, (image, title) in zip(row, shown, strict=False):
            axis.imshow(as_mode(image, mode), cmap="gray")
            axis.set_title(title, fontsize=7, parse_math=False)
    figure.suptitle(f"Most harmful training samples by {method}: label and score", fontsize=9)
    with whole_file(path) as partial, matplotlib.rc_context({"font.family": "DejaVu Sans"}):
        figure.savefig(partial, format="png", dpi=110)


def _short(name: str) -> str:
    """A class name that fits above a picture."""
    return textwrap.shorten(name.replace("/", " / "), 24, placeholder="…")
