"""Log a run's files as W&B artifacts, so that its page shows which model the scores and relabels are of."""

import re
from pathlib import Path

from deconfuse.system.progress import console

# Of larger files an artifact holds the place and the checksum, not the bytes.
SENT = 500 * 2**20
NAME = 128  # characters that W&B takes
FILES = {
    "scores": ("influence.npy", "influence_index.json", "samples.csv", "columns.json"),
    "relabels": ("relabels.csv", "classes.csv", "corrected.csv", "columns.json"),
}


def log(run, report: dict, folder: Path) -> None:
    """Log the checkpoint as a model, and the folder's scores and relabels.

    A model that this run trained is the run's output. A model that existed before is its input: equal bytes
    under an equal name are the version that the training run has logged, and are not uploaded again.
    """
    checkpoint = Path(report["checkpoint"]["path"])
    trained = {"sha256": report["checkpoint"]["sha256"], "seed": report["seed"], **report["retrieval"]}
    model = artifact("model", checkpoint.parent.name, [checkpoint], trained)
    used = report["checkpoint"]["reused"]
    # run.use_artifact refuses to work offline; it would call this, which does, with the same two words.
    run._log_artifact(model, is_user_created=used, use_after_commit=used)
    explained = folder / report["explained"]["table"]
    explained_by = {"influence": report["choices"]["influence"], "detector": report["choices"]["detector"]}
    for kind, names in FILES.items():
        files = [folder / name for name in names] + [explained] * (kind == "scores")
        run.log_artifact(artifact(kind, folder.name, [path for path in files if path.exists()], explained_by))


def artifact(kind: str, name: str, files: list[Path], metadata: dict):
    """An artifact of files; W&B reads them where they lie when it sends them, and makes no copies."""
    import wandb as library

    words = re.sub(r"[^A-Za-z0-9_.-]", "-", name)[len(kind) + 1 - NAME :]
    made = library.Artifact(f"{kind}-{words}", kind, metadata=metadata)
    for path in map(Path.resolve, files):
        if path.stat().st_size > SENT:
            made.add_reference(path.as_uri(), path.name)
            console.print(f"W&B gets the place and checksum of {path}, not its {path.stat().st_size:,} bytes")
        else:
            made.add_file(str(path), path.name, policy="immutable", skip_cache=True)
    return made
