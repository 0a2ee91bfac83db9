"""Two runs beside each other: which confusions and which recommended labels came, went and stayed.

    deconfuse compare outputs/RUN outputs/OTHER_RUN

prints the counts and writes one page, compare.html, beside the second run's results; --out FILE is another
place. The runs have to be of the same images: they are matched by the images' names.
"""

import argparse
import base64
import html
import io
import json
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from PIL import Image

from deconfuse.runs import finished
from deconfuse.runs.finished import Run
from deconfuse.system.errors import UserError, invoked
from deconfuse.system.files import whole_file

FATES = ("came", "went", "changed", "stayed")
WORDS = {
    "confusions": {
        "came": "confused in the second run alone",
        "went": "confused in the first run alone",
        "changed": "confused in both, with another class",
        "stayed": "confused in both with the same class",
    },
    "relabels": {
        "came": "recommended another label in the second run alone",
        "went": "recommended another label in the first run alone",
        "changed": "recommended another label in both, but not the same",
        "stayed": "recommended the same label in both",
    },
}
SHOWN = 60  # of each fate on the page
STYLE = """
:root{color-scheme:light dark}
body{font:1rem/1.45 system-ui,sans-serif;max-width:76rem;margin:0 auto;padding:1.2rem}
table{border-collapse:collapse}
th,td{text-align:start;padding:.3rem .9rem .3rem 0;border-block-end:1px solid #8884}
td.n,th.n{text-align:end;font-variant-numeric:tabular-nums}ul{list-style:none;padding:0;display:grid;gap:.7rem;
grid-template-columns:repeat(auto-fill,minmax(15rem,1fr))}li{display:grid;gap:.2rem;font-size:.86rem;
overflow-wrap:anywhere}img{inline-size:5.5rem;block-size:5.5rem;object-fit:contain;background:#fff;
border-radius:.3rem}.two{display:flex;gap:.3rem}small,.hint{opacity:.8}code{overflow-wrap:anywhere}
"""


def fates(first: pd.DataFrame, second: pd.DataFrame, key: str, value: str) -> pd.DataFrame:
    """One row per `key` that is in either table: fate (one of FATES), first and second, the tables' `value`.

    Ordered by fate, then as in the second table, then as in the first.
    """
    old, new = (dict(zip(table[key], table[value], strict=True)) for table in (first, second))
    rows = []
    for name in dict.fromkeys([*new, *old]):
        a, b = old.get(name), new.get(name)
        fate = "came" if a is None else "went" if b is None else "stayed" if a == b else "changed"
        rows.append((fate, name, a or "", b or ""))
    found = pd.DataFrame(rows, columns=["fate", key, "first", "second"])
    order = found["fate"].map(FATES.index)
    return (
        found.assign(order=order).sort_values("order", kind="stable", ignore_index=True).drop(columns="order")
    )


@dataclass(frozen=True)
class Differences:
    """What is compared: confusions by query, and relabels by training image; each as `fates` gives it."""

    confusions: pd.DataFrame
    relabels: pd.DataFrame


def compare(first: Run, second: Run) -> Differences:
    """Match both runs' confusions and recommended labels; UserError where they share no image."""
    confusions = [
        run.table("confusions.csv", "query", "query_class", "neighbour_class") for run in (first, second)
    ]
    samples = [run.table("samples.csv", "path", "class", "recommended") for run in (first, second)]
    if not set(samples[0]["path"]) & set(samples[1]["path"]):
        raise UserError(
            f"{first.folder} and {second.folder}: share no training image; compare runs of the same data"
        )
    other = [table[table["recommended"] != table["class"]] for table in samples]
    return Differences(fates(*confusions, "query", "neighbour_class"), fates(*other, "path", "recommended"))


def page(first: Run, second: Run, sides: Differences) -> str:
    """The comparison as one HTML page with its pictures inside; all names are escaped."""
    pictures = Thumbnails.of(second) or Thumbnails.of(first)
    rows = []
    for name in ("R@1", "MAP@R", "NMI"):
        values = [run.report["retrieval"].get(name) for run in (first, second)]
        if None not in values:
            rows.append((name, f"{values[0]:.3f}", f"{values[1]:.3f}", f"{values[1] - values[0]:+.3f}"))
    counts = [run.report["confusions"] for run in (first, second)]
    rows.append(("Confusions", str(counts[0]), str(counts[1]), f"{counts[1] - counts[0]:+d}"))
    measures = "".join(
        f"<tr><td>{escape(name)}</td>"
        + "".join(f'<td class="n">{escape(value)}</td>' for value in values)
        + "</tr>"
        for name, *values in rows
    )
    runs = "".join(
        f"<p><strong>{word} run</strong>: {escape(run.folder.name)}<br>"
        f"<code>{escape(run.report['command'])}</code></p>"
        for word, run in (("First", first), ("Second", second))
    )
    parts = [
        _section("Confusions", sides.confusions, "query", WORDS["confusions"], pictures, "query"),
        _section("Recommended labels", sides.relabels, "path", WORDS["relabels"], pictures, "train"),
    ]
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        f"<title>Two runs compared</title><style>{STYLE}</style></head><body><main>"
        f"<h1>Two runs compared</h1>{runs}<table><thead><tr><th>Measure</th><th class=n>First</th>"
        f"<th class=n>Second</th><th class=n>Change</th></tr></thead><tbody>{measures}</tbody></table>"
        '<p class="hint">One seed is noise: compare several.</p>'
        f"{''.join(parts)}</main></body></html>"
    )


def _section(
    title: str, table: pd.DataFrame, key: str, words: dict, pictures: "Thumbnails | None", part: str
) -> str:
    text = f"<h2>{title}</h2>"
    for fate in FATES:
        some = table[table["fate"] == fate]
        opened = " open" if fate in ("came", "went") and len(some) else ""
        text += f"<details{opened}><summary><strong>{len(some)}</strong> {words[fate]}</summary>"
        entries = []
        for name, before, now in some.head(SHOWN)[[key, "first", "second"]].itertuples(
            index=False, name=None
        ):
            picture = pictures.image(part, name) if pictures else ""
            said = {"came": now, "went": before, "stayed": now}.get(fate, f"{before} → {now}")
            entries.append(f"<li>{picture}<span>→ {escape(said)}</span><small>{escape(name)}</small></li>")
        more = f"<p class=hint>The first {SHOWN} of {len(some)}.</p>" if len(some) > SHOWN else ""
        text += f"<ul>{''.join(entries)}</ul>{more}</details>"
    return text


def escape(text: object) -> str:
    """Text as HTML shows it, also within an attribute."""
    return html.escape(str(text), quote=True)


@dataclass(frozen=True)
class Thumbnails:
    """The thumbnails of a run's report: where each sample's is, and the sheets that were opened."""

    folder: Path
    images: dict
    rows: dict[str, dict[str, int]]
    parts: dict[str, dict]
    sheets: dict[int, Image.Image]

    @classmethod
    def of(cls, run: Run) -> "Thumbnails | None":
        """Those of a run; None where it has no report, or its samples are no images."""
        report = run.folder / "report"
        try:
            images = _value(report / "data" / "run.js")["images"]
            parts = {name: _value(report / "data" / f"{name}.js") for name in ("train", "query")}
        except (OSError, ValueError, KeyError):
            return None
        if images is None:
            return None
        rows = {name: {path: i for i, path in enumerate(part["names"])} for name, part in parts.items()}
        return cls(report / "thumbs", images, rows, parts, {})

    def image(self, part: str, name: str) -> str:
        """An <img> of a sample's thumbnail; "" where there is none."""
        i = self.rows[part].get(name)
        if i is None:
            return ""
        data, images = self.parts[part], self.images
        width, height = images.get("size") or data["size"][2 * i : 2 * i + 2]
        sheet, cell = divmod(data["place"][i], images["columns"] ** 2)
        if not width:
            return ""
        if sheet not in self.sheets:
            try:
                with Image.open(self.folder / f"{sheet}.{images['suffix']}") as opened:
                    self.sheets[sheet] = opened.copy()
            except OSError:
                return ""
        x, y = images["cell"] * (cell % images["columns"]), images["cell"] * (cell // images["columns"])
        file = io.BytesIO()
        self.sheets[sheet].crop((x, y, x + width, y + height)).save(file, "WEBP", quality=80)
        return f'<img alt="" src="data:image/webp;base64,{base64.b64encode(file.getvalue()).decode()}">'


def _value(path: Path) -> dict:
    """What one of the report's data files hands to the page."""
    return json.loads(path.read_text("ascii").partition(",")[2].removesuffix(");\n"))


def main(words: list[str]) -> None:
    """Print what came, went and stayed, and write the page."""
    parser = argparse.ArgumentParser(
        prog=invoked("compare"), description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("first", type=Path, help="a run's folder")
    parser.add_argument("second", type=Path, help="another run's folder")
    parser.add_argument("--out", type=Path, metavar="FILE", help="where the page is written")
    asked = parser.parse_args(words)
    first, second = finished.read(asked.first), finished.read(asked.second)
    sides = compare(first, second)
    out = asked.out or asked.second / "compare.html"
    with whole_file(out) as partial:
        partial.write_text(page(first, second, sides), "utf-8")
    for title, table in (("Confusions", sides.confusions), ("Relabels", sides.relabels)):
        counts = table["fate"].value_counts()
        print(f"{title:<11}" + ", ".join(f"{counts.get(fate, 0)} {fate}" for fate in FATES))
    print(f"Written to  {out}")
