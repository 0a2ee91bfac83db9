"""What an offline W&B run holds, read back from its file: a LevelDB log of protocol buffers."""

import json
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from wandb.proto import wandb_internal_pb2

BLOCK, HEADER, MAGIC = 32768, struct.Struct("<IHB"), b":W&B"
WHOLE, LAST = 1, 4  # kinds of a piece that end a record


def records(path: Path) -> Iterator[wandb_internal_pb2.Record]:
    """Every whole record; a record is cut into pieces where a block of the log ends."""
    data, place, record = path.read_bytes(), len(MAGIC) + 3, b""
    assert data.startswith(MAGIC) or not data
    while place < len(data):
        left = BLOCK - place % BLOCK
        if place + HEADER.size > len(data):
            return
        if left < HEADER.size:
            place += left
            continue
        _, length, kind = HEADER.unpack_from(data, place)
        if place + HEADER.size + length > len(data):
            return
        record += data[place + HEADER.size : place + HEADER.size + length]
        place += HEADER.size + length
        if kind in (WHOLE, LAST):
            yield wandb_internal_pb2.Record.FromString(record)
            record = b""


@dataclass
class Page:
    """A run as W&B is told of it; values of config, summary and history by name, parts joined by a slash."""

    run: wandb_internal_pb2.RunRecord | None = None
    config: dict = field(default_factory=dict)
    summary: dict = field(default_factory=dict)
    history: list[dict] = field(default_factory=list)
    steps: dict[str, str] = field(default_factory=dict)  # of a metric: the one on its x axis
    artifacts: list[wandb_internal_pb2.ArtifactRecord] = field(default_factory=list)
    code: int | None = None  # None: not ended

    def table(self, key: str) -> tuple[list[str], list[list]]:
        """(columns, rows) of a table that was logged; a picture is its bytes."""
        (artifact,) = [a for a in self.artifacts if a.name.startswith(f"run-{self.run.run_id}-{key}")]
        files = {entry.path: Path(entry.local_path) for entry in artifact.manifest.contents}
        (path,) = [path for path in files if path.endswith(".table.json")]
        content = json.loads(files[path].read_text())

        def value(item):
            return files[item["path"]].read_bytes() if isinstance(item, dict) else item

        return content["columns"], [[value(item) for item in row] for row in content["data"]]

    def artifact(self, kind: str) -> wandb_internal_pb2.ArtifactRecord:
        """The only one of a type."""
        (found,) = [artifact for artifact in self.artifacts if artifact.type == kind]
        return found


def page(folder: Path) -> Page:
    """The run in a folder offline-run-*."""
    (path,) = folder.glob("run-*.wandb")
    found = Page()
    for record in records(path):
        kind = record.WhichOneof("record_type")
        if kind == "run":
            found.run = record.run
            found.config |= _values(record.run.config.update)
        elif kind == "config":
            found.config |= _values(record.config.update)
        elif kind == "summary":
            found.summary |= _values(record.summary.update)
        elif kind == "history":
            found.history.append(_values(record.history.item))
        elif kind == "metric":
            found.steps[record.metric.name or record.metric.glob_name] = record.metric.step_metric
        elif kind == "artifact":
            found.artifacts.append(record.artifact)
        elif kind == "exit":
            found.code = record.exit.exit_code
    return found


def pages(home: Path, patience: float = 30) -> list[Page]:
    """The runs below a folder, all of them ended, in the order they began.

    Another process writes the file, and may still do so for a moment after a run's end was waited for.
    """
    folders = [folder for folder in home.rglob("offline-run-*") if folder.is_dir()]
    deadline = time.monotonic() + patience
    while None in {page(folder).code for folder in folders} and time.monotonic() < deadline:
        time.sleep(0.1)
    found = [page(folder) for folder in folders]
    return sorted(found, key=lambda one: one.run.start_time.ToNanoseconds())


def _values(items) -> dict:
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}
