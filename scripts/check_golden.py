"""Compare the project's scores with recorded ones: python -m scripts.check_golden FILE.npz ...

Prints the largest error of each quantity, relative to the largest score, and exits 1 above 1e-4.
"""

import json
from pathlib import Path

import numpy as np
import torch

from deconfuse.attribution.head import Targets, Training
from deconfuse.influence import eif, if_code
from deconfuse.labels.relabel import vote
from deconfuse.loss.proxynca import ProxyNCA
from deconfuse.loss.softtriple import SoftTriple
from deconfuse.system.arrays import read_arrays
from deconfuse.system.errors import UserError, command

LIMIT = 1e-4
EIF = {"path": eif.RawSteps(), "normalise": False}  # what influence=eif_code sets
NEEDED = (
    *("train_features", "train_labels", "test_features", "test_labels", "weight", "bias", "proxies"),
    *("nn_indices", "pairs", "group_classes", "group_confused", "knn_k"),
)


def load(path: Path) -> tuple[dict[str, np.ndarray], Training, torch.Tensor]:
    """(arrays, training side, test features) of a recorded file; its name says which loss it is of."""
    data = read_arrays(path)
    missing = [key for key in NEEDED if key not in data]
    if missing:
        raise UserError(f"{path}: no array {', '.join(missing)}")
    kinds = {"proxynca": ProxyNCA, "softtriple": SoftTriple}
    kind = next((kinds[name] for name in kinds if name in path.stem), None)
    if kind is None:
        raise UserError(f"{path}: the file's name must say its loss, {' or '.join(kinds)}")
    loss = kind(*data["proxies"].shape)
    loss.proxies.data = torch.from_numpy(data["proxies"])
    tensors = [torch.from_numpy(data[key]) for key in ("train_features", "train_labels", "weight", "bias")]
    return data, Training(*tensors, loss.requires_grad_(False)), torch.from_numpy(data["test_features"])


def groups(data: dict[str, np.ndarray]) -> tuple[torch.Tensor, ...]:
    """The pairs of each recorded group: queries of its class confused with one of its classes."""
    neighbour, labels = data["nn_indices"], data["test_labels"]
    found = []
    for c, confused in zip(data["group_classes"], json.loads(str(data["group_confused"])), strict=True):
        query = np.flatnonzero((labels == c) & np.isin(labels[neighbour], confused))
        found.append(torch.from_numpy(np.stack([query, neighbour[query]], 1)))
    return tuple(found)


def scores(path: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """(ours, recorded) of each quantity in a file."""
    data, training, test = load(path)
    pairs, some = (
        Targets.pairs(test, test, torch.from_numpy(data["pairs"])),
        Targets(test, test, groups(data)),
    )
    votes = vote(training.z, training.labels, int(data["knn_k"]))
    dense = torch.zeros(len(training), int(training.labels.max()) + 1)
    ours = {
        "eif_theta1": eif.scores(training, pairs, **EIF),
        "eif_theta2": eif.scores(training, pairs, n_theta=2, **EIF),
        "group_eif": eif.scores(training, some, **EIF),
        # Recorded with Eq. 4's own sign, > 0 helpful.
        "if_lissa": -if_code.scores(training, pairs),
        "group_if_lissa": -if_code.scores(training, some),
        "knn_prob": dense.scatter(1, votes.classes, votes.share),
    }
    return {key: (found.numpy(), data[key]) for key, found in ours.items() if key in data}


def main(files: list[str]) -> int:
    """The exit code: 0 where every quantity of every file agrees."""
    if not files:
        raise UserError("give the files to check: python -m scripts.check_golden FILE.npz ...")
    worst = 0.0
    for file in files:
        print(file)
        for key, (found, recorded) in scores(Path(file)).items():
            error = float(np.abs(found - recorded).max() / np.abs(recorded).max())
            print(f"  {key:<16}{recorded.shape!s:<12}largest error / largest score {error:.1e}")
            worst = max(worst, error) if error == error else float("inf")
    print(f"{'agrees' if worst <= LIMIT else 'DIFFERS'}: largest {worst:.1e}, limit {LIMIT:.0e}")
    return int(not worst <= LIMIT)


if __name__ == "__main__":
    command(main)
