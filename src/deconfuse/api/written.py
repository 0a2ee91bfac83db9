"""Write what was found as the command line does: the report, the tables and the scores."""

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from deconfuse.report import page
from deconfuse.runs import results
from deconfuse.system.files import new_folder, whole_folder, write_json

if TYPE_CHECKING:
    from deconfuse.api.found import Found


def asked(found: "Found") -> dict[str, Any]:
    """What metrics.json says of the question."""
    model = type(found.subject.model.backbone).__name__
    inner = getattr(found.subject.model.backbone, "model", None)
    name = model if inner is None else type(inner).__name__
    choices = {"dataset": "yours", "model": name, "loss": type(found.training.loss).__name__, "noise": "none"}
    return {
        "choices": {**choices, **found.asked.choices},
        "params": found.asked.params,
        "seed": found.asked.seed,
        "processes": 1,
        "command": f"deconfuse.explain(..., influence={found.asked.choices['influence']!r})",
        "data": "",
        "checkpoint": {"path": f"{name}/model", "sha256": "", "reused": True},
        "machine": {
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "device": str(found.subject.device),
        },
    }


def report(found: "Found", folder: Path) -> Path:
    """FOLDER/index.html with its data, and FOLDER/tables with tables, scores and metrics.json; whole or not
    at all. Raises UserError where the folder is there already and not empty."""
    folder = folder.absolute()
    new_folder(folder)
    with whole_folder(folder) as partial:
        tables = partial / "tables"
        tables.mkdir(parents=True)
        written = results.write(tables, found.findings, found.asked.choices["influence"], found.unit)
        content = page.Content(found.findings, found.metrics, written, found.unit, found.z, found.votes)
        page.write(tables / "report", folder, content, True, final=folder)
        write_json(tables / "metrics.json", found.metrics)
        made = tables / "report"
        for path in sorted(made.iterdir()) if made.is_dir() else []:
            shutil.move(path, partial / path.name)
        if made.is_dir():
            made.rmdir()
    return folder / "index.html"
