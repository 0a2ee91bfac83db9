"""Put a report's folder into one HTML file, with its pictures inside, to send to somebody."""

import base64
import hashlib
import re
from pathlib import Path

from deconfuse.system.files import whole_file
from deconfuse.system.progress import console

LARGEST = 60 * 10**6  # bytes of a file that mail and chats still take, and browsers open at once
TYPES = {".jpg": "image/jpeg", ".png": "image/png", ".webp": "image/webp"}


def write(report: Path, file: Path) -> bool:
    """Write the report's folder as one file; False, saying so, where it would be larger than LARGEST.

    The page's own content policy stays: only these scripts, by their hashes, and pictures inside the file.
    """
    pictures = [path for path in sorted(report.rglob("*")) if path.suffix in TYPES]
    total = sum(path.stat().st_size for path in pictures) * 4 // 3
    total += sum(path.stat().st_size for path in report.rglob("*.js"))
    if total > LARGEST:
        console.print(
            f"report=single: one file would have {total / 1e6:,.0f} MB, more than {LARGEST / 1e6:.0f}; "
            f"share the folder {report.name}/ instead"
        )
        return False
    html = (report / "index.html").read_text("utf-8")
    names = re.findall(r'<script src="([^"]+)"></script>\n?', html)
    html = re.sub(r'<script src="[^"]+"></script>\n?', "", html)
    uris = ",".join(f'"{path.relative_to(report).as_posix()}":"{_uri(path)}"' for path in pictures)
    scripts = [(report / name).read_text("utf-8") for name in names if name != "main.js"]
    data = [path for path in sorted((report / "data").glob("*.js")) if path.name != "run.js"]
    scripts += [path.read_text("ascii") for path in data]
    scripts += [f"deconfuse.inside({{{uris}}});", (report / "main.js").read_text("utf-8")]
    style = (report / "style.css").read_text("utf-8")
    policy = (
        f"default-src 'none'; script-src {' '.join(map(_hash, scripts))}; style-src {_hash(style)}; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )
    html = re.sub(r'content="default-src[^"]*"', lambda _: f'content="{policy}"', html)
    html = re.sub(r'<link rel="icon"[^>]*>\n?', "", html)
    html = re.sub(r'<link rel="stylesheet"[^>]*>', lambda _: f"<style>{style}</style>", html)
    body = "\n".join(f"<script>{script}</script>" for script in scripts)
    html = html.replace("</body>", f"{body}\n</body>")
    with whole_file(file) as partial:
        partial.write_text(html, "utf-8")
    return True


def _uri(path: Path) -> str:
    return f"data:{TYPES[path.suffix]};base64,{base64.b64encode(path.read_bytes()).decode()}"


def _hash(text: str) -> str:
    """The source expression of a content policy for an inline script or style of this text."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
