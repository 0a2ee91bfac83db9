"""What was found as a page for Jupyter: no script, no network, every name escaped."""

import base64
import io
from collections.abc import Iterable
from html import escape
from typing import TYPE_CHECKING

from deconfuse.data.pixels import thumbnail
from deconfuse.data.split import ImageSpec, Part
from deconfuse.retrieval.statistics import most_harmful

if TYPE_CHECKING:
    from deconfuse.api.found import Found

SHOWN = 6  # confusions, and relabels
SIDE = 96  # pixels of a picture's longer side at most
BLAMED = 3  # training samples shown of a confusion
STYLE = (
    "<style>.deconfuse td,.deconfuse th{text-align:left;vertical-align:top;padding:4px 10px 4px 0}"
    ".deconfuse figure{display:inline-block;margin:0 8px 0 0;max-width:110px;vertical-align:top}"
    ".deconfuse img{display:block;max-height:72px;image-rendering:auto;border:1px solid #8886}"
    ".deconfuse figcaption{font-size:80%;overflow-wrap:anywhere;line-height:1.25}</style>"
)


def page(found: "Found") -> str:
    """The numbers, the closest confusions with the samples to blame, and the most suspicious labels."""
    retrieval = ", ".join(f"{name} {value:.3f}" for name, value in found.retrieval.items())
    split = found.findings.split
    return (
        f'<div class="deconfuse">{STYLE}<p><b>{escape(retrieval)}</b><br>'
        f"{len(found.confusions)} of {len(split.query)} queries are nearest to another class; "
        f"{len(found.relabels)} of {len(split.train)} training labels look wrong</p>"
        f"{_confusions(found)}{_relabels(found)}</div>"
    )


def _confusions(found: "Found") -> str:
    """The first explained pairs, each with the samples that score most harmful on it."""
    split, explained = found.findings.split, found.findings.explained
    rows = []
    for group, scores in zip(explained.groups[:SHOWN], found.influence, strict=False):
        query, neighbour = group[0].tolist()
        blamed = [
            _figure(found, split.train, int(i), f"{scores[i]:.3g}") for i in most_harmful(scores, BLAMED)
        ]
        sides = (_figure(found, split.query, query), _figure(found, split.gallery, neighbour))
        rows.append((*sides, "".join(blamed)))
    return _table("Closest explained", ("query", "taken for", "most harmful, with their scores"), rows)


def _relabels(found: "Found") -> str:
    split, rows = found.findings.split, []
    for row in found.relabels.head(SHOWN).to_dict("records"):
        vote = f"{escape(str(row['recommended']))}<br>vote {row['vote_recommended']:.2f}"
        rows.append((_figure(found, split.train, int(row["sample"])), vote))
    return _table("Labels that look wrong", ("sample and its label", "recommended"), rows)


def _table(title: str, heads: Iterable[str], rows: list[tuple[str, ...]]) -> str:
    """A table of cells that are HTML already; nothing without rows."""
    if not rows:
        return ""
    head = "".join(f"<th>{escape(word)}</th>" for word in heads)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f"<p><b>{escape(title)}</b></p><table><tr>{head}</tr>{body}</table>"


def _figure(found: "Found", part: Part, i: int, more: str = "") -> str:
    """A sample: its picture where there is one, its name and its class."""
    label = found.findings.split.class_names[part.labels[i]]
    words = "<br>".join(escape(word) for word in (label, part.names[i], more) if word)
    return f"<figure>{_picture(found, part, i)}<figcaption>{words}</figcaption></figure>"


def _picture(found: "Found", part: Part, i: int) -> str:
    spec = found.findings.split.image
    if not isinstance(spec, ImageSpec):
        return ""
    memory = io.BytesIO()
    thumbnail(part.image(i), "L" if spec.channels == 1 else "RGB", SIDE).save(memory, "PNG")
    return f'<img alt="" src="data:image/png;base64,{base64.b64encode(memory.getvalue()).decode()}">'
