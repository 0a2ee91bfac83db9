"""Put the tables and figures of python -m src.tables into a page of the documentation.

    python -m scripts.publish_tables outputs docs/results.md

The page keeps what stands above the line `<!-- made by scripts/publish_tables.py -->`; what is below it is
replaced by a list of contents and outputs/tables/results.md, whose pictures go to images/ beside the page.
"""

import argparse
import re
import shutil
from pathlib import Path

from deconfuse.system.errors import UserError, command, shorten
from deconfuse.system.files import whole_file

MARK = "<!-- made by scripts/publish_tables.py -->"
PICTURE = re.compile(r"\]\(([^)/]+\.png)\)")


def publish(outputs: Path, page: Path) -> None:
    """The page and its pictures; UserError where there are no tables yet, or no place for them."""
    tables = outputs / "tables"
    if not (tables / "results.md").is_file():
        raise UserError(f"{tables / 'results.md'}: not there; make it with python -m src.tables {outputs}")
    if not page.is_file() or MARK not in (text := page.read_text("utf-8")):
        raise UserError(f"{page}: has no line {MARK}; put it where the tables should go")
    found = (tables / "results.md").read_text("utf-8").partition("\n")[2].strip()
    pictures = PICTURE.findall(found)
    absent = [name for name in pictures if not (tables / name).is_file()]
    if absent or not found:
        lacks = shorten(absent) if absent else "every table"
        raise UserError(f"{tables}: lacks {lacks}; make it anew with python -m src.tables {outputs}")
    images = page.parent / "images"
    images.mkdir(exist_ok=True)
    for name in pictures:
        with whole_file(images / name) as partial:
            shutil.copyfile(tables / name, partial)
    below = PICTURE.sub(r"](images/\1)", found)
    with whole_file(page) as partial:
        partial.write_text(f"{text.split(MARK)[0]}{MARK}\n\n{contents(found)}\n\n{below}\n", "utf-8")


def contents(text: str) -> str:
    """A line per section with a link to it, as GitHub names the places of headings."""
    titles = re.findall(r"^## (.+)$", text, re.MULTILINE)
    places = [re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles]
    return "\n".join(f"- [{title}](#{place})" for title, place in zip(titles, places, strict=True))


def main(words: list[str]) -> None:
    """Publish."""
    parser = argparse.ArgumentParser(prog="python -m scripts.publish_tables", description=__doc__)
    parser.add_argument("outputs", type=Path, help="where the runs are, and their tables/")
    parser.add_argument("page", type=Path, help="the page, such as docs/results.md")
    asked = parser.parse_args(words)
    publish(asked.outputs, asked.page)
    print(f"Written: {asked.page}, and its pictures in {asked.page.parent / 'images'}/")


if __name__ == "__main__":
    command(main)
