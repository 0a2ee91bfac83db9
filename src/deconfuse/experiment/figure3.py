"""Figure 3: confusion pairs with their five most harmful training samples, by EIF and by IF."""

import io
import json
import warnings
from pathlib import Path
from typing import Any

import matplotlib
import pandas as pd
from matplotlib.figure import Figure, SubFigure
from PIL import Image

from deconfuse.retrieval.statistics import HARMFUL, most_harmful
from deconfuse.runs.finished import Run
from deconfuse.runs.section import Section
from deconfuse.runs.takes import grouped, usual
from deconfuse.system.errors import UserError

METHODS = ("eif", "if")
DRAWN = 3  # pairs, the closest ones
WIDTH = 24  # characters of a class name that fit above a picture
NOTE = (
    "Means over all explained confusion pairs: how many of the five most harmful samples both methods "
    "name, and how many different classes the five have. The picture shows the closest pairs, by EIF "
    "above and by IF below."
)


def sections(runs: list[Run]) -> list[Section]:
    """One section per data set whose runs explain one model by both methods and have reports with images."""
    drawn = [run for run in runs if (run.folder / "report" / "thumbs").exists()]
    drawn = [run for run in drawn if run.choice("influence") in METHODS]
    drawn = [run for run in drawn if run.choice("target") in ("all", "pairs")]
    found = []
    for dataset, here in grouped(usual(drawn, "influence"), lambda run: run.choice("dataset")).items():
        for alike in grouped(here, lambda run: (run.seed, run.setting("influence"))).values():
            runs_of = {run.choice("influence"): run for run in alike}
            if set(runs_of) != set(METHODS):
                continue
            if len({run.report["checkpoint"]["sha256"] for run in runs_of.values()}) > 1:
                continue
            five = {method: _five(runs_of[method]) for method in METHODS}
            if len(five["eif"]) != len(five["if"]):
                continue
            both = zip(five["eif"], five["if"], strict=True)
            shared = [len(set(one) & set(other)) for (one, _), (other, _) in both]
            rows = [
                {
                    **alike[0].where,
                    "seed": str(alike[0].seed),
                    "method": method,
                    "pairs": len(five[method]),
                    "classes among five": _mean([len(set(classes)) for _, classes in five[method]]),
                    "of five, shared by both": _mean(shared),
                }
                for method in METHODS
            ]
            title = f"Figure 3: most harmful samples by EIF and by IF, {dataset}"
            picture = _picture([runs_of[method] for method in METHODS]) if five["eif"] else None
            found.append(Section(f"figure3_{dataset}", title, pd.DataFrame(rows), NOTE, picture))
            break
    return found


def _mean(counts: list[int]) -> str:
    return f"{sum(counts) / len(counts):.2f}" if counts else "-"


def _five(run: Run) -> list[tuple[list[int], list[str]]]:
    """(samples, their classes) of each explanation's most harmful samples, most harmful first."""
    classes = run.table("samples.csv", "class")["class"].to_numpy()
    rows = []
    for scores in run.scores():
        order = most_harmful(scores)
        rows.append((order.tolist(), classes[order].tolist()))
    return rows


def _picture(runs: list[Run]) -> Image.Image:
    """For each run the DRAWN closest pairs, a row each: query, neighbour, the most harmful samples."""
    count = min(DRAWN, len(runs[0].scores()))
    figure = Figure((1.5 * (2 + HARMFUL), (2.0 * count + 0.4) * len(runs)), layout="constrained")
    for place, run in zip(figure.subfigures(len(runs)), runs, strict=True):
        _draw(place, run, count)
    written = io.BytesIO()
    with matplotlib.rc_context({"font.family": "DejaVu Sans"}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # of a class name: drawn as a box
        figure.savefig(written, format="png", dpi=110)
    return Image.open(written).convert("RGB")


def _draw(place: SubFigure, run: Run, count: int) -> None:
    """Draw one method's rows. A title gives the class; a training sample's gives its label and its score."""
    pairs = run.table("confusions.csv", "query_class", "neighbour_class")
    labels = run.table("samples.csv", "class")["class"]
    data = {name: _reported(run, name) for name in ("run", "confusion", "train", "query")}
    data["gallery"] = _reported(run, "gallery") if "gallery" in data["run"]["parts"] else data["query"]
    axes = place.subplots(count, 2 + HARMFUL, squeeze=False)
    for i, (row, scores) in enumerate(zip(axes, run.scores(), strict=False)):
        shown = [
            ("query", data["confusion"]["query"][i], f"query\n{_short(pairs['query_class'][i])}"),
            ("gallery", data["confusion"]["neighbour"][i], f"nearest\n{_short(pairs['neighbour_class'][i])}"),
        ]
        shown += [
            ("train", k, f"{_short(labels[k])}\n{scores[k]:.2g}") for k in most_harmful(scores).tolist()
        ]
        for axis in row:
            axis.set_axis_off()
        for axis, (part, k, title) in zip(row, shown, strict=False):
            axis.imshow(_thumbnail(run, data["run"]["images"], data[part], k))
            axis.set_title(title, fontsize=7, parse_math=False)
    by = run.choice("influence")
    place.suptitle(f"Most harmful training samples by {by}: label and score", fontsize=9)


def _reported(run: Run, name: str) -> Any:
    """A value of the run's report; its file is a script: deconfuse.put("name",VALUE);"""
    path = run.folder / "report" / "data" / f"{name}.js"
    try:
        text = path.read_text("ascii")
        return json.loads(text[text.index(",") + 1 : text.rindex(")")])
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from None


def _thumbnail(run: Run, images: dict, part: dict, i: int) -> Image.Image:
    """The thumbnail of sample i of a part of the data, from the report's sheets; white if missing."""
    width, height = images.get("size") or part["size"][2 * i : 2 * i + 2]
    if not width:
        return Image.new("RGB", (images["cell"], images["cell"]), "white")
    sheet, cell = divmod(part["place"][i], images["columns"] ** 2)
    top, left = (images["cell"] * step for step in divmod(cell, images["columns"]))
    path = run.folder / "report" / "thumbs" / f"{sheet}.{images['suffix']}"
    try:
        with Image.open(path) as image:
            return image.convert("RGB").crop((left, top, left + width, top + height))
    except (OSError, SyntaxError) as error:  # a broken chunk of a PNG is a SyntaxError to Pillow
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: Exception) -> UserError:
    return UserError(f"{path}: can't be read ({error}); delete the run's folder and run again")


def _short(name: str) -> str:
    """A class name in one line of at most WIDTH characters."""
    line = " ".join(str(name).split())
    return line if len(line) <= WIDTH else line[: WIDTH - 1] + "…"
