"""Run the Python blocks of a page, one after the other in one namespace: python scripts/blocks.py PAGE.md"""

import re
import sys
from pathlib import Path


def blocks(text: str) -> list[str]:
    """The Python blocks of a page in Markdown, each padded with lines so that errors name the page's own
    line."""
    found = re.finditer(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return ["\n" * (text[: block.start()].count("\n") + 1) + block[1] for block in found]


def run(page: Path) -> dict:
    """Run the blocks; the names that they have made."""
    names: dict = {"__name__": "__main__"}
    for block in blocks(page.read_text("utf-8")):
        exec(compile(block, str(page), "exec"), names)
    return names


if __name__ == "__main__":
    run(Path(sys.argv[1]))
