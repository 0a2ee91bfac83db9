"""Send a run's tables, histograms and curves to its page in W&B; docs/wandb.md lists them."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from deconfuse.data.pixels import thumbnail as thumbnail_of
from deconfuse.data.split import ImageSpec, Split
from deconfuse.retrieval.statistics import detection_curve, evenly, most_harmful
from deconfuse.runs.tables import Findings
from deconfuse.system.progress import console, track
from deconfuse.tracking import artifacts, tracker

ROWS = 1000  # of each table; the files on disk have all
PICTURED = 200  # rows of confusions, mis-similar pairs and relabels that have pictures
EXPLAINED = 20  # explanations that are shown with their most harmful samples
SIDE = 96  # pixels of a picture
BINS, POINTS = 64, 200  # of a histogram and of a curve
NOT_SHOWN = ("choices", "data", "files", "format", "versions")  # of metrics.json, as no chart needs them


def publish(run, report: dict, written: dict[str, pd.DataFrame], found: Findings, folder: Path) -> None:
    """Send what was found to a W&B run, and end that run; run=None: nothing is sent.

    report: the content of metrics.json; written: the tables by file name. The run's folder is complete
    already: where W&B cannot be reached any more, one line says so, and only the copy in W&B is lost.
    """
    if run is None:
        return
    import wandb as library

    try:
        with data_beside(run):
            run.summary.update(flat({key: value for key, value in report.items() if key not in NOT_SHOWN}))
            log_epochs(run, Path(report["checkpoint"]["path"]).with_name("history.csv"))
            scores = np.load(folder / "influence.npy", mmap_mode="r", allow_pickle=False)
            run.log(tables(written, found, scores))
            run.log(charts(written["samples.csv"], report["choices"]["detector"]))
            artifacts.log(run, report, folder)
    except (library.errors.Error, OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        console.print(f"W&B did not get all of this run ({reason}); {folder} has it")
    tracker.end(run)


@contextmanager
def data_beside(run) -> Iterator[None]:
    """Let W&B keep the copies it makes of pictures in the run's folder, and not in the home folder."""
    before = os.environ.get("WANDB_DATA_DIR")
    os.environ["WANDB_DATA_DIR"] = before or str(Path(run.dir).parent)
    try:
        yield
    finally:
        if before is None:
            del os.environ["WANDB_DATA_DIR"]


def log_epochs(run, history: Path) -> None:
    """Log history.csv as epochs/... over epochs; it has all epochs, also of resumed or earlier training."""
    if not history.exists():  # no epoch was measured
        return
    table = pd.read_csv(history).add_prefix("epochs/")
    for column in table:
        run.define_metric(column, step_metric="epochs/epoch")
    for row in table.to_dict("records"):
        run.log(row)


def tables(written: dict[str, pd.DataFrame], found: Findings, scores: Float[np.ndarray, "e n"]) -> dict:
    """The run's tables as tables/..., with pictures in their first rows where the data set has images."""
    shown = {name: table.head(ROWS) for name, table in written.items()}
    shown["harmful.csv"] = harmful_table(written["samples.csv"], found, scores)
    columns = _pictured(shown, found) if isinstance(found.split.image, ImageSpec) else {}
    thumbnail = thumbnails(found.split)
    count = sum(len(rows) for pictures in columns.values() for _, rows in pictures.values())
    places = (  # one bar for all: name, column, part, row of the part
        (name, column, part, int(row))
        for name, pictures in columns.items()
        for column, (part, rows) in pictures.items()
        for row in rows
    )
    made: dict[str, dict[str, list]] = {name: {c: [] for c in columns[name]} for name in columns}
    for name, column, part, row in track(places, "pictures for W&B", count):
        made[name][column].append(thumbnail(part, row))
    return {
        f"tables/{name.removesuffix('.csv')}": _table(table, made.get(name, {}))
        for name, table in shown.items()
    }


def harmful_table(samples: pd.DataFrame, found: Findings, scores: Float[np.ndarray, "e n"]) -> pd.DataFrame:
    """One row for each of the most harmful training samples of the first explanations, most harmful first.

    A group is shown by its first pair. score: as in influence.npy, > 0 harmful.
    """
    split, names = found.split, found.split.class_names
    columns = [column for column in ("sample", "path", "class", "flipped", "true_class") if column in samples]
    parts = []
    for row, (group, some) in enumerate(zip(found.explained.groups[:EXPLAINED], scores, strict=False)):
        query, neighbour = group[0].tolist()
        chosen = most_harmful(np.asarray(some))
        of = {
            "explanation": row,
            "query": split.query.names[query],
            "query_class": names[split.query.labels[query]],
            "neighbour": split.gallery.names[neighbour],
            "neighbour_class": names[split.gallery.labels[neighbour]],
            "rank": np.arange(len(chosen)),
        }
        of |= {column: samples[column].to_numpy()[chosen] for column in columns}
        parts.append(pd.DataFrame({**of, "score": np.asarray(some)[chosen]}))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def _pictured(
    shown: dict[str, pd.DataFrame], found: Findings
) -> dict[str, dict[str, tuple[str, np.ndarray]]]:
    """{table: {column of pictures: (part of the split, its rows)}}, for the tables that have any."""

    def sides(pairs: np.ndarray) -> dict[str, tuple[str, np.ndarray]]:
        return {"query_picture": ("query", pairs[:, 0]), "neighbour_picture": ("gallery", pairs[:, 1])}

    harmful, relabels = shown["harmful.csv"], shown["relabels.csv"]
    found_for = {
        "confusions.csv": sides(found.confusions.pairs[:PICTURED].numpy()),
        "relabels.csv": {"picture": ("train", relabels["sample"].to_numpy()[:PICTURED])},
    }
    if "mis_similar.csv" in shown:
        found_for["mis_similar.csv"] = sides(found.explained.pairs.pairs[:PICTURED].numpy())
    if len(harmful):
        first = np.array([group[0].tolist() for group in found.explained.groups[:EXPLAINED]])
        found_for["harmful.csv"] = {
            **sides(first[harmful["explanation"]]),
            "picture": ("train", harmful["sample"].to_numpy()),
        }
    return found_for


def thumbnails(split: Split) -> Callable:
    """A function of (part, i) that returns a small W&B image of that sample, each time the same object."""
    import wandb as library

    @cache
    def thumbnail(part: str, i: int):
        mode = "L" if split.image.channels == 1 else "RGB"
        image = thumbnail_of(getattr(split, part).image(i), mode, SIDE)
        return library.Image(image, file_type="png" if image.mode == "L" else "jpg")

    return thumbnail


def _table(table: pd.DataFrame, pictures: dict[str, list]):
    """A W&B table with the columns of pictures first; rows beyond the pictures have none."""
    import wandb as library

    blank = {column: [*images, *[None] * (len(table) - len(images))] for column, images in pictures.items()}
    plain = table.astype(object).where(table.notna(), None)
    rows = zip(*blank.values(), *(plain[column] for column in plain), strict=True)
    return library.Table(columns=[*blank, *plain], data=[list(row) for row in rows], allow_mixed_types=True)


def charts(samples: pd.DataFrame, detector: str) -> dict:
    """Histograms of suspicion and mean influence; with noise, also the detection curves."""
    import wandb as library

    flipped = samples["flipped"].to_numpy() if "flipped" in samples else None
    made = {}
    for column in ("suspicion", "influence_mean"):
        made |= histograms(f"histograms/{column}", samples[column].to_numpy(), flipped)
    if flipped is not None:
        lines = curves(samples, flipped, detector)
        checked = next(iter(lines.values()))[0]
        made["detection_curve"] = library.plot.line_series(
            xs=checked.tolist(),
            ys=[line[1].tolist() for line in lines.values()],
            keys=list(lines),
            title="Share of the flipped labels found, by share of the samples checked",
            xname="share checked",
        )
    return made


def histograms(name: str, values: Float[np.ndarray, " n"], flipped: Bool[np.ndarray, " n"] | None) -> dict:
    """{name: histogram}; with noise, also name_flipped and name_not_flipped, on the same bins."""
    import wandb as library

    known = np.isfinite(values)
    if not known.any():
        return {}
    edges = np.histogram_bin_edges(values[known], BINS)
    parts = {name: known}
    if flipped is not None:
        parts |= {f"{name}_flipped": known & flipped, f"{name}_not_flipped": known & ~flipped}
    return {
        part: library.Histogram(np_histogram=np.histogram(values[chosen], edges))
        for part, chosen in parts.items()
    }


def curves(
    samples: pd.DataFrame, flipped: Bool[np.ndarray, " n"], detector: str
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """{ranking: (share checked, share found)} for the detector, |influence| and a random order.

    All curves have the same at most POINTS + 1 shares checked, which include 0 and 1.
    """
    rankings = {detector: samples["suspicion"], "|influence|": samples["influence_abs_mean"]}
    some = evenly(len(samples), POINTS + 1)
    lines = {}
    for name, ranking in rankings.items():
        if ranking.notna().all():
            checked, found = detection_curve(ranking.to_numpy(), flipped)
            lines[name] = (checked[some], found[some])
    return {**lines, "random order": (some / len(samples), some / len(samples))}


def numbers(report: dict) -> dict[str, float]:
    """The numbers of metrics.json that charts need, flat; truth values are left out."""
    shown = flat({key: value for key, value in report.items() if key not in NOT_SHOWN})
    return {
        key: float(value)
        for key, value in shown.items()
        if isinstance(value, (int, float)) and not isinstance(value, bool)
    }


def flat(value: dict, prefix: str = "") -> dict[str, float | str]:
    """{'a': {'b': 1}} -> {'a/b': 1}; values that are not numbers or text are left out."""
    found = {}
    for key, item in value.items():
        if isinstance(item, dict):
            found |= flat(item, f"{prefix}{key}/")
        elif isinstance(item, (int, float, str)):
            found[f"{prefix}{key}"] = item
    return found
