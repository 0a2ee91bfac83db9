"""Write the report: a folder whose index.html opens with a double click, to look at a run and to review it.

A page that is opened from a disk may load scripts but not fetch data. So each part of the data is a script
that hands one value to the page. Large parts lie in chunks, each of which is loaded when it is shown.
"""

import json
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from deconfuse.data.split import ImageSpec, Part, Split
from deconfuse.labels.relabel import Votes
from deconfuse.report import examples, facts, previews, single
from deconfuse.report.methods import Method, methods
from deconfuse.report.projection import has_umap, pca, umap
from deconfuse.report.suspects import Suspects, suspects
from deconfuse.report.thumbnails import CELL, COLUMNS, make
from deconfuse.retrieval import directions
from deconfuse.runs.tables import Findings
from deconfuse.system.errors import UserError
from deconfuse.system.files import file_hash, short_hash, whole_file
from deconfuse.system.progress import console, track

REPORT_FORMAT = 1
WEB = Path(__file__).parent / "web"
CHUNK = 256  # explanations, or training samples, in a file
LARGEST = 200_000  # samples that a page still holds; measured to 60,000
GRID = 10_000  # steps of a coordinate of the map along each axis


def check(wanted: object) -> None:
    """Raise UserError where `report` is none of true, false, umap and single, or umap-learn is missing."""
    if not isinstance(wanted, bool) and wanted not in ("umap", "single"):
        raise UserError(
            f"report={wanted} is not known; give true, false, umap for a second map, or single for one file"
        )
    if wanted == "umap" and not has_umap():
        raise UserError("report=umap needs umap-learn: pip install 'deconfuse[umap]', or take report=true")


@dataclass(frozen=True)
class Content:
    """What a report shows of a run.

    metrics: what metrics.json holds so far. tables: by file name, as they were written. unit: of the scores.
    embeddings: returns the embeddings, of any length, of train, query and gallery; it is called only where a
    report is written. votes: of the neighbours, with their index.
    """

    found: Findings
    metrics: dict
    tables: dict[str, pd.DataFrame]
    unit: str
    embeddings: Callable[[], dict[str, Float[Tensor, "_ m"]]]
    votes: Votes

    @cached_property
    def suspects(self) -> Suspects:
        """The training samples to look at: the probably wrong ones, then others; most suspicious first."""
        left_out = np.zeros(len(self.found.suspicion), bool)
        left_out[self.left_out] = True
        other = self.found.recommended[0].numpy() != self.found.noisy.labels
        found = suspects(self.found.suspicion.numpy(), other, left_out)
        listed = self.found.doubt.listed.numpy()[found.order]
        order = np.concatenate([found.order[listed], found.order[~listed]])
        wrong = int(listed.sum())
        return replace(found, order=order, wrong=wrong, stop=max(wrong, found.stop))

    @cached_property
    def left_out(self) -> list[int]:
        """The rows of training samples that training left out."""
        table = self.tables.get("clean_list.csv")
        if table is None:
            return []
        rows = {name: i for i, name in enumerate(self.found.split.train.names)}
        return sorted(rows[name] for name in table.loc[table["change"] == "left out", "path"])


def write(folder: Path, run: Path, content: Content, wanted: bool | str, final: Path | None = None) -> None:
    """Write the report's folder.

    run: the folder that the run will be renamed to; further methods are taken from the runs beside it. final:
    where the report's folder will lie then, from which originals are linked; None: in the run's folder.
    Nothing is written with wanted=False (report=false), or where there are more than LARGEST samples.
    """
    if wanted is False:
        return
    total = sum(map(len, content.found.split.parts.values()))
    if total > LARGEST:
        console.print(f"report left out: {total:,} samples are more than the {LARGEST:,} that a page holds")
        return
    folder.mkdir()
    for path in WEB.iterdir():  # contents alone: an installed package may be read-only
        shutil.copyfile(path, folder / path.name)
    found, metrics, data = content.found, content.metrics, folder / "data"
    own = Method(metrics["choices"]["influence"], run.name, content.unit, found.influence)
    taken = methods(run.parent, own, metrics["checkpoint"], found)
    embeddings = content.embeddings()
    embeddings = {name: embeddings[name] for name in content.found.split.parts}
    images, places = thumbnails(folder / "thumbs", found, content.found.split.parts)
    overview = {
        **facts.overview(found, metrics, content.tables, taken),
        "format": REPORT_FORMAT,
        "run": run.name,
        "fingerprint": fingerprint(folder.parent, content.tables),
        "checkpoint_name": Path(metrics["checkpoint"]["path"]).parent.name,
        "images": images,
        "chunk": CHUNK,
        "maps": maps(data, embeddings, wanted, metrics["seed"]),
    }
    overview["previews"] = large(folder, final or run / "report", content) if images else None
    put(data, "run", overview)
    explained(data, content)
    samples(data, content, places)
    if "duplicates.csv" in content.tables:
        put(data, "duplicates", facts.duplicates(content.tables["duplicates.csv"]))
    put(data, "typical", typical(content, embeddings))
    for i, method in enumerate(taken):
        explanations(data, i, method)
    neighbours(data, found, embeddings["train"], content.votes)
    test_side(data, found.split, embeddings)
    if wanted == "single":
        single.write(folder, folder.with_name("report.html"))


def large(folder: Path, final: Path, content: Content) -> dict:
    """Write the previews of what is reviewed first: suspects, then both sides of the confusions.

    final: the folder that this one will be renamed to. Returns what the page needs to know of the originals.
    """
    found, suspect = content.found, content.suspects
    gallery = "query" if found.split.shared_gallery else "gallery"
    most = previews.MOST // 2
    pairs = found.confusions
    rows: dict[str, list[int]] = {"train": suspect.order[: max(most, suspect.stop)].tolist()}
    rows["query"] = pairs.query[:most].tolist()
    rows[gallery] = [*rows.get(gallery, []), *pairs.neighbour[:most].tolist()]
    sizes = previews.make(folder / "previews", content.found.split.parts, rows, found.split.image.channels)
    put(folder / "data", "previews", sizes)
    where = {name: previews.originals(part, final) for name, part in content.found.split.parts.items()}
    short = {name: found for name, found in where.items() if found and "prefix" in found}
    for name, found in where.items():
        if found and "paths" in found:
            put(folder / "data", f"files-{name}", found["paths"])
            short[name] = {"listed": True}
    return short


def typical(content: Content, embeddings: dict[str, Float[Tensor, "_ m"]]) -> dict[str, list[list[int]]]:
    """The samples that stand for each class: training samples, and the gallery's samples for test classes."""
    found, split = content.found, content.found.split
    doubted = np.zeros(len(found.suspicion), bool)
    doubted[content.suspects.order[: content.suspects.wrong]] = True
    doubted[content.left_out] = True
    train = examples.typical(embeddings["train"], found.noisy.labels, doubted, split.num_classes)
    z = embeddings["query" if split.shared_gallery else "gallery"]
    c = len(split.class_names)
    test = examples.typical(z, split.gallery.labels, np.zeros(len(z), bool), c)
    return {"train": train, "test": test}


def test_side(data: Path, split: Split, embeddings: dict[str, Float[Tensor, "_ m"]]) -> None:
    """Write each query's nearest gallery samples, CHUNK to a file."""
    gallery = embeddings["query" if split.shared_gallery else "gallery"]
    twins = None if split.twins is None else torch.from_numpy(split.twins)
    near, distance = examples.neighbours_of_queries(embeddings["query"], gallery, split.shared_gallery, twins)
    for start in range(0, len(near), CHUNK):
        some = slice(start, start + CHUNK)
        put(data, f"query-{start // CHUNK}", {"near": near[some], "distance": distance[some]})


def explained(data: Path, content: Content) -> None:
    """Write the confusion pairs, and the mis-similar pairs where these were explained."""
    found = content.found
    known, same = content.tables["confusions.csv"]["same_thing"], found.split.shared_gallery
    put(data, "confusion", facts.pairs(found.confusions, known, same))
    if found.explained.table == "mis_similar.csv":
        put(data, "mis_similar", facts.pairs(found.explained.pairs))


def samples(data: Path, content: Content, places: dict[str, dict]) -> None:
    """Write what is known of each sample of each part of the data; places: of the thumbnails, by part."""
    found, tables = content.found, content.tables
    before = facts.labels_before(found, tables["clean_list.csv"]) if content.metrics["corrections"] else None
    for name, part in content.found.split.parts.items():
        if name == "train":
            columns = facts.training(found, tables["samples.csv"], content.suspects, before, content.left_out)
        else:
            columns = {"names": list(part.names), "labels": part.labels.tolist()}
        put(data, name, {**columns, **places.get(name, {})})


def fingerprint(folder: Path, tables: dict[str, pd.DataFrame]) -> str:
    """A hash of the pairs and samples that can be decided on.

    Decisions that a browser has kept under another fingerprint are not taken.
    """
    reviewed = ("confusions.csv", "mis_similar.csv", "samples.csv")
    return short_hash([file_hash(folder / name) for name in reviewed if name in tables])


def put(folder: Path, name: str, value: object) -> None:
    """Write one value as a script that hands it to the page; in ASCII, which every encoding reads alike."""
    with whole_file(folder / f"{name}.js") as partial:
        text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"), default=float)
        text = text.replace("<", "\\u003c")  # within strings alone; no name ends a script inside a page
        partial.write_text(f"deconfuse.put({json.dumps(name)},{text});\n", "ascii")


def thumbnails(folder: Path, found: Findings, parts: dict[str, Part]) -> tuple[dict | None, dict[str, dict]]:
    """Write sheets of thumbnails; returns (their layout, by part the place and size of each thumbnail).

    (None, {}) where the samples are no images.
    """
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
    """Write maps of the training side and of the test side, and return a description of each.

    x and y are whole steps of one grid of GRID steps, the same for both axes, so that shapes are kept. They
    are projections of the embeddings' directions. Query and gallery share a map, query first.
    """
    sides = {"train": embeddings["train"], "test": embeddings["query"]}
    if "gallery" in embeddings:
        sides["test"] = torch.cat([embeddings["query"], embeddings["gallery"]])
    found = []
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
            found.append({"side": side, "way": way, "share": facts.plain(share, 4) if share else None})
    return found


def explanations(data: Path, number: int, method: Method) -> None:
    """Write the most harmful and most helpful samples of each explanation by one method, CHUNK to a file."""
    starts = range(0, len(method.scores), CHUNK)
    for start in track(starts, f"explanations by {method.name}", len(starts)):
        block = torch.tensor(np.asarray(method.scores[start : start + CHUNK]))
        put(data, f"explained-{number}-{start // CHUNK}", facts.tops(block))


def neighbours(data: Path, found: Findings, z: Float[Tensor, "n m"], votes: Votes) -> None:
    """Write each training sample's nearest others, the explanations it harms most, and its likely labels by
    the detector's votes, CHUNK to a file. votes: whose neighbours are shown."""
    nothing: Iterable = (([], []) for _ in range(len(z)))
    harmed = facts.harmed(found.influence) if len(found.influence) else nothing
    likely = examples.likely(found.votes, found.recommended[0])
    each = zip(facts.near(z, votes.index), harmed, likely, strict=True)
    names = ("near", "distance", "harms", "scores", "likely", "votes")
    chunk: dict[str, list] = {key: [] for key in names}
    for i, values in enumerate(track(each, "training samples", len(z)), 1):
        for key, value in zip(chunk, (one for pair in values for one in pair), strict=True):
            chunk[key].append(value)
        if i % CHUNK == 0 or i == len(z):
            put(data, f"sample-{(i - 1) // CHUNK}", chunk)
            chunk = {key: [] for key in chunk}
