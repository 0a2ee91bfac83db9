"""Names of checkpoints and runs; each ends in a hash of all that it depends on, and of nothing else."""

import hashlib
from pathlib import Path

import numpy as np

from deconfuse.attribution.trajectory import When, method
from deconfuse.runs.finished import RESULTS_FORMAT
from deconfuse.runs.identity import without_places
from deconfuse.system.files import short_hash

EXPLAINING_KEYS = (
    *("target", "params", "influence", "detector", "neighbours", "candidates"),
    *("counterfactual", "retrain", "relabel", "loop"),
)
# Settings below TRAINING_KEYS that change no weight. Where they decide which images are read, the data's
# fingerprint says so. Each is named with its group, as a key of the same name elsewhere may change weights.
NOT_IN_WEIGHTS = {
    *("dataset.root", "dataset.csv", "dataset.download", "dataset.on_bad_image", "dataset.on_small_class"),
    *("dataset.path", "dataset.crop_box", "dataset.layout", "dataset.seed"),
    *("dataset.shards", "dataset.index_dir", "dataset.test_classes", "dataset.test", "dataset.train"),
    *("recipe.eval_batch_size", "recipe.validate_every", "recipe.compile"),
    *("trainer.accelerator", "trainer.strategy", "trainer.num_nodes", "trainer.log_every_n_steps"),
}
# Keys of recipe that change weights only where the backbone is frozen.
OF_FROZEN = ("frozen", "whiten", "hold", "dropout")
# The settings that a model's weights depend on.
TRAINING_KEYS = ("dataset", "model", "loss", "noise", "recipe", "trainer", "seed")
TRAINING_FORMAT = 4  # raised when the code trains other weights from the same settings


def depends(settings: dict, data: str, start: str = "") -> dict:
    """Everything that a model's weights depend on.

    These are the settings under TRAINING_KEYS without NOT_IN_WEIGHTS and without where our code lies, and the
    fingerprints of the training data and of the file of weights that training starts from ("" without one).
    """
    settings = without_places({key: settings[key] for key in TRAINING_KEYS})
    weights = {
        key: {name: value for name, value in settings[key].items() if f"{key}.{name}" not in NOT_IN_WEIGHTS}
        if isinstance(settings[key], dict)
        else settings[key]
        for key in TRAINING_KEYS
    }
    if not weights["recipe"].get("frozen"):
        weights["recipe"] = {key: value for key, value in weights["recipe"].items() if key not in OF_FROZEN}
    if "devices" in weights["trainer"]:  # several processes train the same weights as one
        weights["trainer"]["devices"] = 1
    if settings["noise"]["ratio"] == 0:
        weights["noise"] = None
    if start:  # what is in the file counts, not where it is
        weights["model"].pop("weights", None)
    return {"format": TRAINING_FORMAT, "data": data, "start": start, **weights}


def places(
    settings: dict, choices: dict[str, str], data: str, start: str = "", everything: str = ""
) -> tuple[Path, str]:
    """(the checkpoint's folder, the run's name); both end in a hash.

    data, everything: fingerprints of the training part, and of all images. The checkpoint's hash is of what
    `depends` returns, the run's of that, of everything, and of the settings under EXPLAINING_KEYS.
    A checkpoint with the same hash is found whatever its words are: loss=softtriple10 and loss=softtriple
    loss.centres=10 are one model.
    """
    found = depends(settings, data, start)
    key = short_hash([TRAINING_FORMAT, data + start, {name: found[name] for name in TRAINING_KEYS}])
    words = [choices[group] for group in ("dataset", "noise", "model", "loss")]
    seed, checkpoints = f"seed{settings['seed']}", Path(settings["output_dir"]) / "checkpoints"
    there = sorted(checkpoints.glob(f"*-{key}"))
    home = there[0] if there else checkpoints / "-".join([*words, seed, key])
    explaining = without_places({name: settings[name] for name in EXPLAINING_KEYS})
    copies = settings.get("duplicates", {})
    if copies.get("mirrored") or copies.get("find") is False:  # what is the default is in no name
        explaining["duplicates"] = without_places(copies)
    leaving = settings.get("leave_out", {})
    if leaving.get("confusions"):
        explaining["leave_out"] = without_places(leaving)
    explaining["influence"] = method(explaining["influence"]) | When.of(explaining["influence"]).asked
    asked = [choices["influence"], choices["detector"], seed, short_hash([key, explaining, everything])]
    if settings["params"] != "head":
        asked = [settings["params"], *asked]
    if choices["target"] != "all":
        asked = [choices["target"], *asked]
    return home, "-".join([*words, *asked])


def explanation(settings: dict, choices: dict[str, str], everything: str) -> str:
    """The name of a checkpoint's explanation, which is kept beside the checkpoint.

    It ends in a hash of all that the explanation depends on except the checkpoint; the epochs at which
    explanations are made are not part of it. everything: the fingerprint of all images.
    """
    explaining = without_places({name: settings[name] for name in ("influence", "target", "params")})
    asked = [
        everything,
        RESULTS_FORMAT,
        method(explaining["influence"]),
        explaining["target"],
        explaining["params"],
    ]
    return f"{choices['influence']}-{short_hash(asked)}"


def without_noise(settings: dict, choices: dict[str, str], data: str, start: str = "") -> Path:
    """The checkpoint's folder for the same settings without noise, where no label is flipped."""
    calm = {**settings, "noise": {**settings["noise"], "ratio": 0}}
    return places(calm, {**choices, "noise": "none"}, data, start)[0]


def corrected(
    home: Path, name: str, labels: np.ndarray, left_out: np.ndarray | None = None
) -> tuple[Path, str]:
    """(the checkpoint's folder, the run's name) for a model that is trained on these labels instead.

    home, name: those of the labels given. left_out (n,): samples that are not trained on. The hash is of the
    labels and of what is left out, not of the file that they are from.
    """
    content = labels.tobytes() + (left_out.tobytes() if left_out is not None and left_out.any() else b"")

    def renamed(old: str) -> str:
        words, _, key = old.rpartition("-")
        return f"{words}-relabels-{short_hash([key, hashlib.sha256(content).hexdigest()])}"

    return home.with_name(renamed(home.name)), renamed(name)
