"""Figures of several panels, for the tables of experiments."""

from collections.abc import Callable, Iterable
from typing import TypeVar

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# The colours of Okabe and Ito (2008), which colour-blind people tell apart, without yellow, faint on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "osD^vPX"
Where, Drawn = TypeVar("Where", bound=tuple[str, ...]), TypeVar("Drawn")


def grid(rows: int, columns: int, width: float, height: float, **shared: str) -> tuple[Figure, np.ndarray]:
    """(a figure, its axes (rows, columns)); width, height: of a panel in inches; shared: sharex, sharey."""
    figure = Figure((width * columns + 0.4, height * rows + 0.7), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, **shared)
    for axis in axes.ravel():
        axis.grid(axis="y", color="#dddddd")
    return figure, axes


def tiles(number: int, across: int, width: float, height: float) -> tuple[Figure, list[Axes]]:
    """(a figure, its `number` axes, at most `across` in a row); width, height: of a panel in inches."""
    across = min(across, number)
    figure, axes = grid(-(-number // across), across, width, height)
    for axis in axes.ravel()[number:]:
        axis.remove()
    return figure, list(axes.ravel()[:number])


def of_one_setting(
    found: Iterable[tuple[str, Where, Drawn]], models: Callable[[Drawn], int]
) -> dict[Where, Drawn]:
    """What each panel shows, chosen so that all panels of a data set are of one setting.

    Of several settings the one with most models is shown. found: (hash of the setting, the panel's key with
    the data set first, what is drawn in it). models: the number of models in what is drawn.
    """
    of: dict[str, dict[str, dict[Where, Drawn]]] = {}
    for setting, where, drawn in found:
        here = of.setdefault(where[0], {}).setdefault(setting, {})
        here[where] = max(here.get(where, drawn), drawn, key=models)
    shown = (max(each.values(), key=lambda here: sum(map(models, here.values()))) for each in of.values())
    return {where: drawn for here in shown for where, drawn in here.items()}


def drawn_in(panel: dict[str, list[float]]) -> int:
    """The number of points in a panel that is given as named lists."""
    return sum(map(len, panel.values()))


def style(i: int) -> dict[str, object]:
    """Colour and marker of a figure's i-th line; they repeat after seven lines."""
    return {"color": COLOURS[i % len(COLOURS)], "marker": MARKERS[i % len(MARKERS)], "markersize": 4}


def legend(figure: Figure) -> None:
    """Add one legend for all panels below them, with each name once."""
    named: dict[str, object] = {}
    for axis in figure.axes:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            named.setdefault(label, handle)
    figure.legend(named.values(), named.keys(), loc="outside lower center", ncols=4, fontsize=8)


def entitle(axis: Axes, dataset: str, noise: str, loss: str) -> None:
    """Set a panel's title: the data set, the loss and the noise."""
    labels = "clean labels" if noise == "none" else f"{noise} noise"
    axis.set_title(", ".join([dataset, loss, labels]), fontsize=9)
