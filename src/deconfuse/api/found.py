"""What `explain` has found: tables, scores, a page in Jupyter, the report, and the comparison with
another."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from deconfuse import __version__
from deconfuse.adapt.options import name_of, option
from deconfuse.adapt.questions import Option, Questions
from deconfuse.api import exports, html, written
from deconfuse.api.comparison import Comparison, compared
from deconfuse.attribution import attribute
from deconfuse.attribution.look import Seen, Subject
from deconfuse.attribution.rows import embeddings
from deconfuse.duplicates.search import LARGEST
from deconfuse.labels.relabel import Votes
from deconfuse.runs import results
from deconfuse.runs.tables import Findings, tables_of
from deconfuse.system.errors import UserError
from deconfuse.system.progress import silence


@dataclass(frozen=True)
class Found:
    """What was found; in Jupyter it shows itself as a page with pictures.

    Tables are pandas DataFrames with the columns of the run's CSV files (docs/usage.md). influence: scores
    (explanations, n), > 0 harmful. retrieval: R@k and MAP@R of the test side, in [0, 1].
    """

    findings: Findings = field(repr=False)
    seen: Seen = field(repr=False)
    votes: Votes = field(repr=False)
    unit: str
    asked: Questions = field(repr=False)
    subject: Subject = field(repr=False)
    seconds: dict[str, float] = field(repr=False)

    def __repr__(self) -> str:
        return (
            f"Found(R@1 {self.retrieval['R@1']:.3f}, {len(self.confusions)} confusions of "
            f"{len(self.findings.split.query)} queries, {len(self.influence)} explained by "
            f"{self.asked.choices['influence']}, {len(self.relabels)} relabels of {len(self.samples)} "
            "samples)"
        )

    def _repr_html_(self) -> str:
        return html.page(self)

    @cached_property
    def tables(self) -> dict[str, pd.DataFrame]:
        """All tables by the names of their files."""
        return tables_of(self.findings)

    @property
    def confusions(self) -> pd.DataFrame:
        """One row per confusion pair, closest first: query, neighbour, their classes, and d in [0, 4]."""
        return self.tables["confusions.csv"]

    @property
    def groups(self) -> pd.DataFrame:
        """One row per test class with confusions, largest first."""
        return self.tables["groups.csv"]

    @property
    def samples(self) -> pd.DataFrame:
        """One row per training sample: its mean influence, suspicion, and the label its neighbours vote
        for."""
        return self.tables["samples.csv"]

    @property
    def relabels(self) -> pd.DataFrame:
        """The samples whose label is more likely wrong than right, most likely first; p_wrong says how
        likely."""
        return self.tables["relabels.csv"]

    @property
    def classes(self) -> pd.DataFrame:
        """One row per training class with relabels."""
        return self.tables["classes.csv"]

    @property
    def duplicates(self) -> pd.DataFrame:
        """One row per sample that has a near-identical other one, by group: its kind (two labels, both sides,
        copies), part, row, path and class. Pictures are compared, or, without pictures, embeddings.

        Raises UserError where copies were not looked for.
        """
        if self.findings.duplicates is None:
            raise UserError(
                "duplicates were not looked for; call explain with duplicates=True and at most "
                f"{LARGEST:,} samples"
            )
        return self.tables["duplicates.csv"]

    @property
    def influence(self) -> Float[np.ndarray, "e n"]:
        """The score of each training sample on each explanation, > 0 harmful; `unit` is its unit."""
        return self.findings.influence.numpy()

    @property
    def retrieval(self) -> dict[str, float]:
        """R@1, R@2, R@4, R@8 and MAP@R, in [0, 1]."""
        return dict(self.seen.retrieval)

    @property
    def training(self):
        """The training side as influence methods take it: features, labels, the head and the loss."""
        return self.seen.frozen.training

    @property
    def targets(self):
        """What was explained, as influence methods take it."""
        return self.seen.frozen.targets(self.findings.explained)

    def embeddings(self) -> dict[str, Float[np.ndarray, "_ m"]]:
        """The embeddings of train and test (and gallery), not normalised."""
        found = {"train": embeddings(self.training), "test": self.seen.test.query}
        if not self.findings.split.shared_gallery:
            found["gallery"] = self.seen.test.gallery
        return {name: z.detach().cpu().numpy() for name, z in found.items()}

    def score(self, influence: Option, progress: bool = True) -> Float[np.ndarray, "e n"]:
        """The same explanations by another method: an option of conf/influence, as of `explain`."""
        explainer = option("influence", influence, self.asked.seed)
        attribute.check(explainer, name_of(influence), self.asked.params)
        with silence(not progress):
            explained = self.findings.explained
            return attribute.attribute(explainer, explained, self.seen.frozen, self.subject, []).numpy()

    def compare(self, other: "Found") -> Comparison:
        """What changed from this model to another one on the same test side; see `Comparison`."""
        return compared(self, other)

    def report(self, folder: str | Path) -> Path:
        """Write the report and all tables into a new folder, and return the page to open with a double
        click."""
        with silence(not self.asked.progress):
            return written.report(self, Path(folder))

    def to_cleanlab(self) -> pd.DataFrame:
        """The label issues of all training samples, as cleanlab's Datalab lists them."""
        return exports.cleanlab(self)

    def to_label_studio(self) -> list[dict]:
        """Label Studio's tasks (its import format, as JSON), with the recommended labels as predictions."""
        return exports.label_studio(self)

    def to_fiftyone(self, folder: str | Path) -> Path:
        """Write the training pictures and their labels as FiftyOne reads them, into a new folder: a
        FiftyOneImageClassificationDataset."""
        return exports.fiftyone(self, Path(folder))

    @cached_property
    def metrics(self) -> dict[str, Any]:
        """The numbers of the run, as metrics.json has them."""
        return {
            **written.asked(self),
            **results.report(self.findings, self.tables, self.retrieval),
            "corrections": None,
            "seconds": dict(self.seconds),
            "versions": {"deconfuse": __version__, "torch": torch.__version__},
        }

    def z(self) -> Mapping[str, Tensor]:
        """The embeddings by the names that the report has for the sides."""
        test = self.seen.test
        return {"train": embeddings(self.training), "query": test.query, "gallery": test.gallery}
