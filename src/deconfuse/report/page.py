"""The report: a folder with index.html that is opened with a double click, looked at, and reviewed in.

A page opened from a disk may not fetch data, and a script may be loaded; so each part of the data is a script
that hands one value to the page, and what is large lies in chunks that are loaded when they are looked at.
"""

import json
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from deconfuse.data.split import ImageSpec, Part
from deconfuse.labels.relabel import Votes
from deconfuse.report import facts
from deconfuse.report.facts import Method
from deconfuse.report.projection import has_umap, pca, umap
from deconfuse.report.thumbnails import CELL, COLUMNS, make
from deconfuse.retrieval import directions
from deconfuse.runs.results import Findings
from deconfuse.system.errors import UserError
from deconfuse.system.files import file_hash, short_hash, whole_file
from deconfuse.system.progress import console, track

REPORT_FORMAT = 1
WEB = Path(__file__).parent / "web"
CHUNK = 256  # explanations, or training samples, in a file
LARGEST = 200_000  # samples that a page still holds; measured to 60,000
GRID = 10_000  # steps of a coordinate of the map along each axis


def check(wanted: object) -> None:
    """Raise UserError where `report` is none of true, false and umap, or umap is not installed."""
    if not isinstance(wanted, bool) and wanted != "umap":
        raise UserError(f"report={wanted} is not known; give true, false, or umap for a second map")
    if wanted == "umap" and not has_umap():
        raise UserError("report=umap needs umap-learn: pip install 'deconfuse[umap]', or take report=true")


def write(
    folder: Path,
    run: Path,
    found: Findings,
    metrics: dict,
    tables: dict[str, pd.DataFrame],
    unit: str,
    seen: Callable[[], dict[str, Float[Tensor, "_ m"]]],
    votes: Votes,
    wanted: bool | str,
) -> None:
    """Write the report's folder; run: the folder that the run ends in; runs beside it are further methods.

    seen: gives the embeddings, of any length, of train, query and (where it is not the query side) gallery.
    votes: the neighbours', with their index. Nothing is written with report=false, and of more than LARGEST
    samples.
    """
    if wanted is False:
        return
    total = sum(map(len, _parts(found).values()))
    if total > LARGEST:
        console.print(f"report left out: {total:,} samples are more than the {LARGEST:,} that a page holds")
        return
    folder.mkdir()
    for path in WEB.iterdir():  # contents alone: an installed package may be read-only
        shutil.copyfile(path, folder / path.name)
    own = Method(metrics["choices"]["influence"], run.name, unit, found.influence)
    taken = facts.methods(run.parent, own, metrics["checkpoint"], found)
    data, parts = folder / "data", _parts(found)
    embeddings = seen()
    embeddings = {name: embeddings[name] for name in parts}
    images, places = thumbnails(folder / "thumbs", found, parts)

    put(
        data,
        "run",
        {
            **facts.overview(found, metrics, tables, taken),
            "format": REPORT_FORMAT,
            "run": run.name,
            "fingerprint": fingerprint(folder.parent, tables),
            "checkpoint_name": Path(metrics["checkpoint"]["path"]).parent.name,
            "images": images,
            "chunk": CHUNK,
            "maps": maps(data, embeddings, wanted, metrics["seed"]),
        },
    )
    put(data, "confusion", facts.pairs(found.confusions, tables["confusions.csv"]["same_thing"]))
    if found.explained.table == "mis_similar.csv":
        put(data, "mis_similar", facts.pairs(found.explained.pairs))
    before = facts.labels_before(found, tables["clean_list.csv"]) if metrics.get("corrections") else None
    for name, part in parts.items():
        columns = (
            facts.training(found, tables["samples.csv"], tables["relabels.csv"], before)
            if name == "train"
            else {"names": list(part.names), "labels": part.labels.tolist()}
        )
        put(data, name, {**columns, **places.get(name, {})})
    for i, method in enumerate(taken):
        explanations(data, i, method)
    neighbours(data, found.influence, embeddings["train"], votes)


def _parts(found: Findings) -> dict[str, Part]:
    split = found.split
    return {"train": split.train, "query": split.query} | (
        {} if split.shared_gallery else {"gallery": split.gallery}
    )


def fingerprint(folder: Path, tables: dict[str, pd.DataFrame]) -> str:
    """Of what can be decided on: decisions that a browser kept for other pairs or relabels are not taken."""
    reviewed = ("confusions.csv", "mis_similar.csv", "relabels.csv")
    return short_hash([file_hash(folder / name) for name in reviewed if name in tables])


def put(folder: Path, name: str, value: object) -> None:
    """One value as a script that hands it to the page; ASCII, so that no encoding can be guessed wrong."""
    with whole_file(folder / f"{name}.js") as partial:
        text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"), default=float)
        partial.write_text(f"deconfuse.put({json.dumps(name)},{text});\n", "ascii")


def thumbnails(folder: Path, found: Findings, parts: dict[str, Part]) -> tuple[dict | None, dict[str, dict]]:
    """Sheets of thumbnails, and what the page needs to find them; (None, {}) where samples are no images."""
    if not isinstance(found.split.image, ImageSpec):
        return None, {}
    sheets = make(folder, parts, found.split.image)
    every = {tuple(size) for sizes in sheets.size.values() for size in sizes.tolist()}
    images = {"cell": CELL, "columns": COLUMNS, "suffix": sheets.suffix}
    images |= {"total": sum(len(part) for part in parts.values())}
    if len(every) == 1:  # drawn letters: one size for all
        images["size"] = list(every.pop())
    places = {
        name: {"place": sheets.place[name].tolist()}
        | ({} if "size" in images else {"size": sheets.size[name].flatten().tolist()})
        for name in parts
    }
    return images, places


def maps(
    data: Path, embeddings: dict[str, Float[Tensor, "_ m"]], wanted: bool | str, seed: int
) -> list[dict]:
    """Projections of the training side and of the test side: x and y in steps of one GRID, so shapes stay.

    They are projections of the embeddings' directions. Query and gallery share a map, query first.
    """
    sides = {"train": embeddings["train"], "test": embeddings["query"]}
    if "gallery" in embeddings:
        sides["test"] = torch.cat([embeddings["query"], embeddings["gallery"]])
    told = []
    for side, z in sides.items():
        e = directions.unit(z, torch.float64)
        ways: dict[str, Callable] = {"pca": pca}
        if wanted == "umap":
            ways["umap"] = lambda e: (umap(e.to(torch.float32), seed), None)
        for way, project in ways.items():
            x, share = project(e)
            low, span = x.amin(0), (x.amax(0) - x.amin(0)).amax().clamp_min(1e-30)
            x = ((x - low) / span * GRID).round().to(torch.int64)
            put(data, f"map-{side}-{way}", {"x": x[:, 0].tolist(), "y": x[:, 1].tolist()})
            told.append({"side": side, "way": way, "share": facts.plain(share, 4) if share else None})
    return told


def explanations(data: Path, number: int, method: Method) -> None:
    """The most harmful and most helpful samples of each explanation by one method, CHUNK to a file."""
    starts = range(0, len(method.scores), CHUNK)
    for start in track(starts, f"explanations by {method.name}", len(starts)):
        block = torch.tensor(np.asarray(method.scores[start : start + CHUNK]))
        put(data, f"explained-{number}-{start // CHUNK}", facts.tops(block))


def neighbours(data: Path, influence: Float[Tensor, "e n"], z: Float[Tensor, "n m"], votes: Votes) -> None:
    """Of each training sample the nearest others and the explanations that it harms most, CHUNK to a file."""
    nothing: Iterable = (([], []) for _ in range(len(z)))
    harmed = facts.harmed(influence) if len(influence) else nothing
    near = facts.near(z, votes.index)
    chunk: dict[str, list] = {key: [] for key in ("near", "distance", "harms", "scores")}
    both = zip(near, harmed, strict=True)
    for i, values in enumerate(track(both, "training samples", len(z)), 1):
        for key, value in zip(chunk, (*values[0], *values[1]), strict=True):
            chunk[key].append(value)
        if i % CHUNK == 0 or i == len(z):
            put(data, f"sample-{(i - 1) // CHUNK}", chunk)
            chunk = {key: [] for key in chunk}
