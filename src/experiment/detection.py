"""Who finds flipped labels: every detector on the same models."""

import pandas as pd

from src.part import Part, spread
from src.runs import Run, by_seed, grouped

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
    rows = []
    for alike in groups.values():
        if len({run.choice("detector") for run in alike}) < 2:
            continue
        for detector, some in grouped(alike, lambda run: run.choice("detector")).items():
            models = by_seed(some).values()
            found = [run.report["noise"] for run in models]
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
    rows.sort(key=lambda row: (row["dataset"], row["noise"], row["loss"], _falling(row["AP"])))
    return [Part("detection", "Who finds flipped labels", pd.DataFrame(rows), NOTE)] if rows else []


def _falling(cell: str) -> float:
    return -float(cell.split()[0]) if cell[0].isdigit() else 1.0
