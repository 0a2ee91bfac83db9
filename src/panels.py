"""Pictures of several panels, as the tables of experiments have them."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Of the eight of Okabe and Ito (2008), which the colour-blind tell apart too, all but yellow, faint on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "osD^vPX"


def grid(rows: int, columns: int, width: float, height: float, **shared: str) -> tuple[Figure, np.ndarray]:
    """(a figure, its axes (rows, columns)); width and height of a panel in inches; shared: of subplots."""
    figure = Figure((width * columns + 0.4, height * rows + 0.7), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, **shared)
    for axis in axes.ravel():
        axis.grid(axis="y", color="#dddddd")
    return figure, axes


def tiles(number: int, across: int, width: float, height: float) -> tuple[Figure, list[Axes]]:
    """(a figure, `number` axes, at most `across` in a row); width and height of a panel in inches."""
    across = min(across, number)
    figure, axes = grid(-(-number // across), across, width, height)
    for axis in axes.ravel()[number:]:
        axis.remove()
    return figure, list(axes.ravel()[:number])


def fuller(one: dict[str, list[float]], other: dict[str, list[float]]) -> dict[str, list[float]]:
    """Of two settings' models, by what they are drawn as, those with more models, then with more names."""
    return max(one, other, key=lambda found: (max(map(len, found.values()), default=0), len(found)))


def look(i: int) -> dict[str, object]:
    """Colour and marker of a picture's i-th line; after seven they begin again."""
    return {"color": COLOURS[i % len(COLOURS)], "marker": MARKERS[i % len(MARKERS)], "markersize": 4}


def legend(figure: Figure) -> None:
    """One legend for all panels, below them, with each name once."""
    named: dict[str, object] = {}
    for axis in figure.axes:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            named.setdefault(label, handle)
    figure.legend(named.values(), named.keys(), loc="outside lower center", ncols=4, fontsize=8)


def entitle(axis: Axes, dataset: str, noise: str, loss: str) -> None:
    """A panel's title: what was trained."""
    labels = "clean labels" if noise == "none" else f"{noise} noise"
    axis.set_title(", ".join([dataset, loss, labels]), fontsize=9)
