"""What a checkpoint and a run are called: after everything that they depend on, and nothing else."""

import hashlib
from pathlib import Path

import numpy as np

from deconfuse.attribution.trajectory import When, method
from deconfuse.launch.command_line import TRAINING_KEYS
from deconfuse.runs.results import RESULTS_FORMAT
from deconfuse.system.files import short_hash

LOOKING_KEYS = (
    *("target", "params", "influence", "detector", "neighbours", "candidates"),
    *("counterfactual", "retrain", "loop"),
)
# Settings below those that change no weight: the data's fingerprint sees what they lead to.
NOT_IN_WEIGHTS = (
    *("root", "csv", "download", "on_bad_image", "on_small_class"),
    *("dataset.path", "dataset.crop_box", "dataset.layout", "dataset.seed"),
    *("dataset.test_classes", "dataset.test", "dataset.train"),
    *("eval_batch_size", "validate_every"),
    *("accelerator", "strategy", "num_nodes", "log_every_n_steps"),
)
TRAINING_FORMAT = 4  # raised when the code trains other weights from the same settings


def depends(settings: dict, data: str, start: str = "") -> dict:
    """Everything that a model's weights depend on: the settings under TRAINING_KEYS, less those that change
    none, and the fingerprints of the training data and of the file of weights that training starts from
    ("": of none).
    """
    weights = {
        key: {
            name: value
            for name, value in settings[key].items()
            if not {name, f"{key}.{name}"} & set(NOT_IN_WEIGHTS)
        }
        if isinstance(settings[key], dict)
        else settings[key]
        for key in TRAINING_KEYS
    }
    if "devices" in weights["trainer"]:  # several processes take the steps of one
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

    data, everything: fingerprints of the training part, and of the test images too. The checkpoint's hash is
    of what `depends` says, the run's of that, of everything, and of how the model is looked at.
    """
    found = depends(settings, data, start)
    key = short_hash([TRAINING_FORMAT, data + start, {name: found[name] for name in TRAINING_KEYS}])
    words = [choices[group] for group in ("dataset", "noise", "model", "loss")]
    seed, checkpoints = f"seed{settings['seed']}", Path(settings["output_dir"]) / "checkpoints"
    there = sorted(checkpoints.glob(f"*-{key}"))
    home = there[0] if there else checkpoints / "-".join([*words, seed, key])
    looks = {name: settings.get(name) for name in LOOKING_KEYS}
    # What says nothing is left out, so that runs keep the names they had before there was such a key.
    looks["influence"] = method(settings["influence"]) | When.of(settings["influence"]).asked
    if looks["candidates"] is None:
        del looks["candidates"]
    asked = [choices["influence"], choices["detector"], seed, short_hash([key, looks, everything])]
    if settings["params"] != "head":
        asked = [settings["params"], *asked]
    if choices["target"] != "all":
        asked = [choices["target"], *asked]
    return home, "-".join([*words, *asked])


def explanation(settings: dict, choices: dict[str, str], everything: str) -> str:
    """What the explanation of a checkpoint is called beside it: after all that it depends on but the
    checkpoint, whenever it is made; everything: the fingerprint of all images."""
    asked = [
        everything,
        RESULTS_FORMAT,
        method(settings["influence"]),
        settings["target"],
        settings["params"],
    ]
    return f"{choices['influence']}-{short_hash(asked)}"


def without_noise(settings: dict, choices: dict[str, str], data: str, start: str = "") -> Path:
    """The checkpoint's folder of the same settings with every label as it was before noise=."""
    calm = {**settings, "noise": {**settings["noise"], "ratio": 0}}
    return places(calm, {**choices, "noise": "none"}, data, start)[0]


def corrected(home: Path, name: str, labels: np.ndarray) -> tuple[Path, str]:
    """(the checkpoint's folder, the run's name) where these labels take the place of those that both tell of.

    The labels alone count, not the file that gave them.
    """

    def renamed(old: str) -> str:
        words, _, key = old.rpartition("-")
        return f"{words}-relabels-{short_hash([key, hashlib.sha256(labels.tobytes()).hexdigest()])}"

    return home.with_name(renamed(home.name)), renamed(name)
