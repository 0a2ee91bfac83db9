"""Who finds flipped labels: every detector on the same models."""

from itertools import product

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from src.part import COLOURS, Part, spread
from src.runs import Run, by_seed, grouped, natural

MEASURES = {"AUROC": "auroc", "AP": "average_precision", "recall": "recall"}
NOTE = (
    "Ranking all training samples, flipped ones first. AP: average precision; recall: share of the "
    "flipped samples among as many of the most suspicious; a random order has 0.5, and the share of "
    "flipped labels twice. Recommended right: the likeliest other label of all flipped samples, by "
    "evidence's own vote with detector=evidence and by Algorithm 1 else. Mean ± standard deviation over "
    "the seeds. evidence was chosen among some twenty combinations on omniglot and glyphs, seeds 0 to 2; "
    "seeds 3 and 4 took no part in that."
)


def parts(runs: list[Run]) -> list[Part]:
    """A row for each data set, noise, loss and detector."""
    chosen = [
        run for run in runs if (run.report["noise"] or {}).get("detector") and not run.report.get("loop")
    ]
    chosen = [run for run in chosen if (run.choice("target"), run.choice("influence")) == ("all", "eif")]
    groups = grouped(chosen, lambda run: (*run.where.values(), run.setting("detector")))
    rows, found_ap = [], {}
    for alike in groups.values():
        if len({run.choice("detector") for run in alike}) < 2:
            continue
        for detector, some in grouped(alike, lambda run: run.choice("detector")).items():
            models = by_seed(some).values()
            found = [run.report["noise"] for run in models]
            aps = [each["detector"].get("average_precision") for each in found]
            found_ap[(*some[0].where.values(), detector)] = [ap for ap in aps if ap is not None]
            rows.append(
                {
                    **some[0].where,
                    "detector": detector,
                    "models": len(models),
                    **{
                        name: spread([each["detector"].get(key) for each in found])
                        for name, key in MEASURES.items()
                    },
                    "recommended right": spread([each.get("recommended_right_all") for each in found]),
                }
            )
    if not rows:
        return []
    rows.sort(key=lambda row: (row["dataset"], _kind(row["noise"]), row["loss"], _falling(row["AP"])))
    return [Part("detection", "Who finds flipped labels", pd.DataFrame(rows), NOTE, _draw(found_ap))]


def _kind(noise: str) -> tuple[bool, str, list[tuple[str, float]]]:
    """Kinds of noise one after the other, the paper's first, each from little to much."""
    kind = noise.rpartition(" ")[2]
    return kind != "symmetric", kind, natural(noise)


def _falling(cell: str) -> float:
    return -float(cell.split()[0]) if cell[0].isdigit() else 1.0


def _draw(found: dict[tuple[str, str, str, str], list[float]]) -> Figure:
    """AP of each detector at each noise, a panel for each data set and loss; bars reach over all seeds."""
    datasets, losses = (sorted({key[i] for key in found}) for i in (0, 2))
    every = {name: [v for key, some in found.items() if key[3] == name for v in some] for *_, name in found}
    detectors = sorted(every, key=lambda name: -np.mean(every[name] or [0]))
    figure = Figure((4.4 * len(losses) + 1.4, 3 * len(datasets) + 0.4), layout="constrained")
    axes = figure.subplots(len(datasets), len(losses), squeeze=False, sharey=True)
    for (row, dataset), (column, loss) in product(enumerate(datasets), enumerate(losses)):
        axis = axes[row, column]
        noises = sorted({key[1] for key in found if (key[0], key[2]) == (dataset, loss)}, key=_kind)
        for i, detector in enumerate(detectors):
            aps = [found.get((dataset, noise, loss, detector)) or [np.nan] for noise in noises]
            middle = np.array([np.mean(each) for each in aps])
            reach = [middle - [min(each) for each in aps], [max(each) for each in aps] - middle]
            x = np.arange(len(noises)) + 0.09 * (i - (len(detectors) - 1) / 2)
            colour = COLOURS[i % len(COLOURS)]
            axis.errorbar(x, middle, reach, fmt="o", markersize=4, linewidth=1, color=colour, label=detector)
        axis.set_xticks(range(len(noises)), [noise.replace(" % ", " %\n") for noise in noises])
        axis.set_title(f"{dataset}, {loss}", fontsize=10)
        axis.set_ylim(0, 1.02)
        axis.grid(axis="y", color="#dddddd")
    figure.supylabel("average precision of flipped labels", fontsize=10)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside right center")
    return figure
