"""What mkdocs does beside its own work: README and CHANGELOG become pages, and links to them and to code fit.

The pages are read in the repository, too, where their links have to work as they stand.
"""

import re
from pathlib import Path

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent
PAGES = {"README.md": "readme.md", "CHANGELOG.md": "changelog.md"}


def on_files(files: Files, config) -> Files:
    """Add the pages that lie at the top of the repository."""
    for name, page in PAGES.items():
        text = (ROOT / name).read_text("utf-8").replace("](docs/", "](")
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, page, config, files) -> str:
    """Turn links to the top of the repository into links to pages, and links to code into plain words."""
    for name, own in PAGES.items():
        markdown = markdown.replace(f"](../{name}", f"]({own}")
    return re.sub(r"\[([^\]]*)\]\(\.\./[^)]*\)", r"\1", markdown)
