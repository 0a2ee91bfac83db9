"""What changed from one model to another on the same test side."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd
from scipy.stats import binomtest

from deconfuse.labels.effect import FATES, changes
from deconfuse.system.errors import UserError

if TYPE_CHECKING:
    from deconfuse.api.found import Found


@dataclass(frozen=True)
class Comparison:
    """metrics: R@k and MAP@R before, after, and their difference. changes: one row per query whose confusion
    is another one now, as in changes.csv. vanished, appeared, moved: how many of each. p: of the exact
    McNemar test that as many confusions vanish as appear, two-sided."""

    metrics: pd.DataFrame
    changes: pd.DataFrame
    vanished: int
    appeared: int
    moved: int
    p: float

    def __repr__(self) -> str:
        row = self.metrics.loc["R@1"]
        return (
            f"Comparison(R@1 {row['before']:.3f} -> {row['after']:.3f}; confusions: {self.vanished} "
            "vanished, "
            f"{self.appeared} appeared, {self.moved} moved; p {self.p:.2g})"
        )

    def _repr_html_(self) -> str:
        lines = (
            f"{self.vanished} confusions vanished, {self.appeared} appeared, {self.moved} moved; p "
            f"{self.p:.2g}"
        )
        return f"<p>{lines}</p>{self.metrics.to_html(float_format='{:.3f}'.format)}"


def compared(before: "Found", after: "Found") -> Comparison:
    """The comparison; UserError where the test sides are not the same samples with the same labels."""
    splits = before.findings.split, after.findings.split
    for side in ("query", "gallery"):
        one, other = (getattr(split, side) for split in splits)
        classes = [[split.class_names[c] for c in getattr(split, side).labels] for split in splits]
        if one.names != other.names or classes[0] != classes[1]:
            raise UserError(
                "compare: the two were asked about different test samples or labels; give both the same test"
            )
    table = changes(before.seen, after.seen, splits[0])
    counts = {fate: int((table["change"] == fate).sum()) for fate in FATES}
    metrics = pd.DataFrame({"before": before.retrieval, "after": after.retrieval})
    metrics["change"] = metrics["after"] - metrics["before"]
    differ = counts["vanished"] + counts["appeared"]
    p = binomtest(counts["vanished"], differ).pvalue if differ else 1.0
    return Comparison(metrics, table, **counts, p=float(p))
