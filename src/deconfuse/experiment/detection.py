"""Which detector finds flipped labels: every detector on the same models."""

from itertools import product

import numpy as np
from matplotlib.figure import Figure

from deconfuse.runs import panels
from deconfuse.runs.finished import Run
from deconfuse.runs.section import Section, spread
from deconfuse.runs.settings import frame
from deconfuse.runs.takes import FLIPPED, by_seed, grouped, natural
from deconfuse.system.files import short_hash

LABELS = FLIPPED

MEASURES = {"AUROC": "auroc", "AP": "average_precision", "recall": "recall"}
NOTE = (
    "All training samples are ranked, and flipped ones should come first. AP: average precision. Recall: "
    "the share of the k flipped samples that are among the k most suspicious. A random order has AUROC "
    "0.5, and AP and recall of about the share of flipped labels. Recommended right: the share of all "
    "flipped samples whose likeliest other label is the true one, by the detector's own vote with "
    "detector=evidence, and by Algorithm 1 with the others. Mean ± standard deviation over the seeds. "
    "The settings of evidence were chosen from some twenty combinations on omniglot and glyphs with "
    "seeds 0 to 2; seeds 3 and 4 took no part. The picture shows the mean, with a bar from the lowest "
    "seed to the highest, and leaves out random. Where a data set has several settings, the one with "
    "most models is shown."
)


def sections(runs: list[Run]) -> list[Section]:
    """A row for each data set, noise, loss and detector."""
    chosen = [run for run in runs if run.report["noise"]["detector"] and not run.report["loop"]]
    chosen = [run for run in chosen if (run.choice("target"), run.choice("influence")) == ("all", "eif")]
    groups = grouped(chosen, lambda run: (*run.where.values(), run.setting("detector")))
    rows, pictured = [], []
    for alike in sorted(groups.values(), key=len, reverse=True):
        if len({run.choice("detector") for run in alike}) < 2:
            continue
        drawn: dict[str, list[float]] = {}
        cells = []
        for (detector, _), some in grouped(alike, _detector).items():
            models = by_seed(some).values()
            found = [run.report["noise"] for run in models]
            aps = [each["detector"]["average_precision"] for each in found]
            drawn[detector] = max(drawn.get(detector, []), aps, key=len)
            row = {**some[0].where, "detector": detector, "models": len(models)}
            for name, key in MEASURES.items():
                row[name] = spread([each["detector"][key] for each in found])
            row["recommended right"] = spread([each["recommended_right_all"] for each in found])
            cells.append((some[0], row))
        rows += sorted(cells, key=lambda cell: _falling(cell[1]["AP"]))  # the best first
        drawn.pop("random", None)
        pictured.append((*alike[0].panel("detector"), drawn))
    if not rows:
        return []
    shown = panels.of_one_setting(pictured, panels.drawn_in)
    rows.sort(key=lambda row: (row[1]["dataset"], _noise_order(row[1]["noise"]), row[1]["loss"]))
    return [Section("detection", "Who finds flipped labels", frame(rows), NOTE, _draw(shown))]


def _detector(run: Run) -> tuple[str, str]:
    return run.choice("detector"), short_hash(run.settings["detector"])


def _noise_order(noise: str) -> tuple[bool, str, list[tuple[str, float]]]:
    """A sorting key: by the kind of noise, symmetric first, and within a kind by its share."""
    kind = noise.rpartition(" ")[0] and noise.rpartition(" ")[2]
    return kind != "symmetric", kind, natural(noise)


def _falling(cell: str) -> float:
    return -float(cell.split()[0])


def _draw(found: dict[tuple[str, str, str], dict[str, list[float]]]) -> Figure:
    """AP of each detector at each noise, a panel for each data set and loss.

    found: (data set, noise, loss) -> detector -> AP of each seed.
    """
    datasets, losses = (sorted({key[i] for key in found}) for i in (0, 2))
    every: dict[str, list[float]] = {}
    for here in found.values():
        for detector, aps in here.items():
            every.setdefault(detector, []).extend(aps)
    detectors = sorted((name for name in every if every[name]), key=lambda name: -np.mean(every[name]))
    figure, axes = panels.grid(len(datasets), len(losses), 4.4, 2.8, sharey="row")
    for axis, (dataset, loss) in zip(axes.ravel(), product(datasets, losses), strict=True):
        noises = sorted({key[1] for key in found if (key[0], key[2]) == (dataset, loss)}, key=_noise_order)
        if not noises:
            axis.remove()
            continue
        for i, detector in enumerate(detectors):
            aps = [found[dataset, noise, loss].get(detector) or [np.nan] for noise in noises]
            middle = np.array([np.mean(each) for each in aps])
            reach = np.array([middle - [min(each) for each in aps], [max(each) for each in aps] - middle])
            x = np.arange(len(noises)) + 0.1 * (i - (len(detectors) - 1) / 2)
            line = {"linestyle": "none", "linewidth": 1, "label": detector}
            axis.errorbar(x, middle, reach.clip(min=0), **line, **panels.style(i))
        axis.set_xticks(range(len(noises)), [noise.replace(" % ", " %\n") for noise in noises])
        axis.set_title(f"{dataset}, {loss}", fontsize=9)
        axis.tick_params(labelleft=True)
        axis.tick_params(axis="x", labelsize=8 if len(noises) < 5 else 7)
    figure.supylabel("average precision of flipped labels", fontsize=9)
    panels.legend(figure)
    return figure
