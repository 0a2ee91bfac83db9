"""Tables of reviewers' decisions, as the paper's Tables 4 and 6, and how far two reviewers agree."""

from itertools import combinations
from pathlib import Path

import pandas as pd
from sklearn.metrics import cohen_kappa_score

from deconfuse.corrections import decisions
from deconfuse.corrections.decisions import LABEL_DECISIONS, PAIR_DECISIONS, Review
from deconfuse.runs.finished import Run, read
from deconfuse.runs.section import Section

NAMES = {"confusion": "confusion pairs", "mis_similar": "mis-similar pairs", "label": "labels"}
KINDS = ("centralized", "diversified", "individual", "others")
# The paper's Table 4, agreeable and disagreeable errors, and its Table 6, confirmed suggestions.
PAIRS_OF_PAPER = {
    "cub": {"confusion": (15, 5), "mis_similar": (11, 9)},
    "cars": {"confusion": (6, 14), "mis_similar": (2, 18)},
    "inshop": {"confusion": (10, 10), "mis_similar": (5, 15)},
}
LABELS_OF_PAPER = {
    "cub": {"centralized": "100%", "diversified": "92.59%", "individual": "66.67%"},
    "cars": {"centralized": "100%", "diversified": "100%", "individual": "85.71%"},
    "inshop": {"centralized": "66.67%", "diversified": "50.00%", "individual": "80.00%"},
}
NOTE_4 = (
    "agree: the reviewer agrees with the model that a confusion pair looks alike, or that a mis-similar "
    "pair does not. Agreed: agree / (agree + disagree). The paper (agree, disagree): confusion pairs CUB200 "
    "15, 5, CARS196 6, 14, InShop 10, 10; mis-similar pairs 11, 9; 2, 18; 5, 15. Together 52 % and 30 %."
)
NOTE_6 = (
    "accept: the recommended label is right; other: neither it nor the one given. Confirmed: accept / "
    "(accept + reject + other); label wrong: (accept + other) / the same. Type: of the class in the run's "
    "classes.csv; - where the run or the class is not there. The paper's confirmed, CUB200, CARS196, InShop: "
    "centralized 100, 100, 66.67 %; diversified 92.59, 100, 50 %; individual 66.67, 85.71, 80 %."
)
NOTE_AGREEMENT = (
    "Of the pairs and labels that both reviewers decided on. kappa = (p - e) / (1 - e) (Cohen), with p the "
    "share of equal decisions, and e the share expected by chance from how often each reviewer decides what; "
    "unsure is a decision of its own. It is - where e is 1."
)


def sections(files: list[Path], folder: Path) -> list[Section]:
    """Tables 4 and 6, Table 4 by class, and the agreement of files that decide on the same pairs or labels.

    folder: where the reviewed runs are, from which the data set and the kind of each class are read.
    """
    reviews = [(review, _reviewed(folder, review)) for review in map(decisions.read, files)]
    found = [
        Section("table4", "Table 4: does a person agree with the errors?", _table4(reviews), NOTE_4),
        Section("table4_classes", "Table 4 by class of the query", _by_class(reviews)),
        Section("table6", "Table 6: verified relabelling suggestions", _table6(reviews), NOTE_6),
    ]
    both = [pair for pair in combinations([review for review, _ in reviews], 2) if _common(*pair)]
    if both:
        title = "Agreement of reviewers"
        found.append(Section("review_agreement", title, _agreement(both), NOTE_AGREEMENT))
        found.append(Section("review_differences", "Where they differ", _differences(both)))
    return [section for section in found if len(section.table)]


def kappa(pairs: list[tuple[str, str]]) -> float | None:
    """Cohen's kappa of two reviewers' decisions on the same things, in [-1, 1]; None where e is 1.

    kappa = (p - e) / (1 - e),  p = share of equal pairs,  e = sum_c p1(c) p2(c)
    """
    first, second = zip(*pairs, strict=True)
    return None if len({*first, *second}) == 1 else float(cohen_kappa_score(first, second))


def _reviewed(folder: Path, review: Review) -> Run | None:
    """The run that was reviewed; None where it is not in the folder."""
    home = folder / Path(review.run).name
    return read(home) if review.run and (home / "metrics.json").exists() else None


def _dataset(review: Review, run: Run | None) -> str:
    """The data set of the run; where the run is gone, the first word of its name."""
    return run.choice("dataset") if run else review.run.partition("-")[0] or "-"


def _share(some: int, of: int) -> str:
    return f"{some / of:.0%}" if of else "-"


def _pair_row(rows: pd.DataFrame) -> dict[str, object]:
    counts = {each: int((rows["decision"] == each).sum()) for each in PAIR_DECISIONS}
    return {**counts, "agreed": _share(counts["agree"], counts["agree"] + counts["disagree"])}


def _table4(reviews: list[tuple[Review, Run | None]]) -> pd.DataFrame:
    rows = []
    for review, run in reviews:
        dataset = _dataset(review, run)
        for kind, some in review.pairs.groupby("kind", sort=True):
            paper = PAIRS_OF_PAPER.get(dataset, {}).get(kind)
            of_paper = f"{paper[0]}, {paper[1]}: {_share(paper[0], sum(paper))}" if paper else "-"
            start = {"dataset": dataset, "review": str(review.file), "pairs": NAMES[kind]}
            rows.append({**start, **_pair_row(some), "paper": of_paper})
    return pd.DataFrame(rows)


def _by_class(reviews: list[tuple[Review, Run | None]]) -> pd.DataFrame:
    """Table 4 by class of the query; most pairs first, ties by name."""
    rows = []
    for review, run in reviews:
        start = {"dataset": _dataset(review, run), "review": str(review.file)}
        for (kind, name), some in review.pairs.groupby(["kind", "query_class"], sort=True):
            row = {**start, "pairs": NAMES[kind], "class": name, "looked at": len(some)}
            rows.append({**row, **_pair_row(some)})
    rows.sort(key=lambda row: (row["review"], row["pairs"], -row["looked at"], row["class"]))
    return pd.DataFrame(rows)


def _table6(reviews: list[tuple[Review, Run | None]]) -> pd.DataFrame:
    rows = []
    for review, run in reviews:
        if review.labels.empty:
            continue
        kinds = _kinds(run)
        types = review.labels["class"].map(lambda name, kinds=kinds: kinds.get(name, "-"))
        paper = LABELS_OF_PAPER.get(_dataset(review, run), {})
        for kind in (*KINDS, "-", "all"):
            some = review.labels if kind == "all" else review.labels[types == kind]
            if len(some):
                start = {"dataset": _dataset(review, run), "review": str(review.file), "type": kind}
                rows.append({**start, **_label_row(some), "paper": paper.get(kind, "-")})
    return pd.DataFrame(rows)


def _label_row(rows: pd.DataFrame) -> dict[str, object]:
    counts = {each: int((rows["decision"] == each).sum()) for each in LABEL_DECISIONS}
    accepted, other = counts["accept"], counts["other"]
    decided = accepted + counts["reject"] + other
    shares = {"confirmed": _share(accepted, decided), "label wrong": _share(accepted + other, decided)}
    return {"looked at": len(rows), **counts, **shares}


def _kinds(run: Run | None) -> dict[str, str]:
    """The kind of each training class with suggestions."""
    if run is None or not (run.folder / "classes.csv").exists():
        return {}
    table = run.table("classes.csv", "class", "kind")
    return dict(zip(table["class"], table["kind"], strict=True))


def _decided(review: Review) -> dict[tuple[str, str, str], str]:
    """(kind, path, neighbour or current class) -> decision."""
    pairs, labels = review.pairs, review.labels
    keys = [
        *zip(pairs["kind"], pairs["query"], pairs["neighbour"], strict=True),
        *(("label", path, name) for path, name in zip(labels["path"], labels["class"], strict=True)),
    ]
    return dict(zip(keys, [*pairs["decision"], *labels["decision"]], strict=True))


def _common(first: Review, second: Review) -> dict[tuple[str, str, str], tuple[str, str]]:
    """Both decisions on each pair or label that both files decide on, in the first file's order."""
    one, other = _decided(first), _decided(second)
    return {key: (one[key], other[key]) for key in one if key in other}


def _agreement(both: list[tuple[Review, Review]]) -> pd.DataFrame:
    rows = []
    for first, second in both:
        common = _common(first, second)
        for kind, name in NAMES.items():
            pairs = [pair for key, pair in common.items() if key[0] == kind]
            if pairs:
                value = kappa(pairs)
                row = {"first": str(first.file), "second": str(second.file), "of": name, "both": len(pairs)}
                row["same"] = _share(sum(a == b for a, b in pairs), len(pairs))
                rows.append({**row, "kappa": "-" if value is None else f"{value:.3f}"})
    return pd.DataFrame(rows)


def _differences(both: list[tuple[Review, Review]]) -> pd.DataFrame:
    rows = []
    for first, second in both:
        for (kind, path, beside), (one, other) in _common(first, second).items():
            if one != other:
                row = {"first": str(first.file), "second": str(second.file), "of": NAMES[kind]}
                row |= {"path": path, "neighbour or class": beside}
                rows.append({**row, "first says": one, "second says": other})
    return pd.DataFrame(rows)
