import json

import pytest

from deconfuse.system.files import file_hash
from deconfuse.tracking import artifacts, tracker
from tests import offline
from tests.tracking.test_dashboard import CONFIG


def publish(output, reused, content=b"weights", name="greys-seed3-abc", influence="eif", extra=()):
    """Log the artifacts of a made-up run; returns what W&B was told."""
    checkpoint, folder = output / "checkpoints" / name / "model.ckpt", output / f"greys-{influence}-knn-def"
    for home in (checkpoint.parent, folder):
        home.mkdir(parents=True, exist_ok=True)
    checkpoint.write_bytes(content)
    for file in (
        "influence.npy",
        "influence_index.json",
        "samples.csv",
        "columns.json",
        "relabels.csv",
        *extra,
    ):
        (folder / file).write_text(f"{influence} {file}")
    report = {
        "choices": {"influence": influence, "detector": "knn"},
        "seed": 3,
        "retrieval": {"R@1": 0.5},
        "explained": {"table": "confusions.csv"},
        "checkpoint": {"path": str(checkpoint), "sha256": file_hash(checkpoint), "reused": reused},
    }
    run = tracker.page(tracker.wandb(checkpoint.parent, folder.name, CONFIG, "tests"))
    artifacts.log(run, report, folder)
    tracker.end(run)
    return offline.pages(output)[-1]


def files(artifact):
    return {entry.path: entry for entry in artifact.manifest.contents}


def test_a_model_is_the_output_of_the_run_that_trained_it_and_the_input_of_the_next(tmp_path):
    trained = publish(tmp_path, reused=False).artifact("model")
    page = publish(tmp_path, reused=True, influence="tracin")
    used = page.artifact("model")
    assert (trained.use_after_commit, trained.user_created) == (False, False)
    assert (used.use_after_commit, used.user_created) == (True, True)
    # The same name and content: the server has this version already and is sent no byte.
    assert (used.name, used.digest) == (trained.name, trained.digest)
    assert used.name == "model-greys-seed3-abc"
    assert json.loads(used.metadata)["R@1"] == 0.5
    other = publish(tmp_path, reused=True, content=b"other weights").artifact("model")
    assert other.digest != trained.digest
    for kind in ("scores", "relabels"):
        assert not page.artifact(kind).use_after_commit


def test_scores_and_relabels_are_the_files_of_the_run_where_they_are(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # a relative output_dir, the default, must not matter to a later sync
    page = publish(tmp_path.relative_to(tmp_path), reused=False, extra=("confusions.csv", "corrected.csv"))
    scores, relabels = files(page.artifact("scores")), files(page.artifact("relabels"))
    assert set(scores) == {
        *("influence.npy", "influence_index.json", "samples.csv", "columns.json", "confusions.csv")
    }
    assert set(relabels) == {"relabels.csv", "corrected.csv", "columns.json"}
    folder = tmp_path / "greys-eif-knn-def"
    assert scores["influence.npy"].local_path == str(folder / "influence.npy")
    assert relabels["corrected.csv"].size == len("eif corrected.csv")
    assert page.artifact("relabels").name == "relabels-greys-eif-knn-def"


def test_of_a_large_file_only_place_and_checksum_are_sent(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(artifacts, "SENT", len("eif influence.npy") - 1)
    page = publish(tmp_path, reused=False, content=b"small")
    scores = files(page.artifact("scores"))
    place = tmp_path / "greys-eif-knn-def" / "influence.npy"
    assert scores["influence.npy"].ref == f"file://{place}"
    assert not scores["influence.npy"].local_path
    assert scores["samples.csv"].local_path
    assert not scores["samples.csv"].ref
    said = capsys.readouterr().err
    assert f"W&B gets the place and checksum of {place}, not its 17 bytes" in said


@pytest.mark.parametrize("name", ["Greys of mine/é", "x" * 200])
def test_names_are_what_w_and_b_takes_and_end_with_the_hash(tmp_path, name):
    file = tmp_path / "model.ckpt"
    file.write_bytes(b"weights")
    made = artifacts.artifact("model", f"{name}-0123abcd", [file], {})
    assert made.name.startswith("model-")
    assert made.name.endswith("-0123abcd")
    assert len(made.name) == min(len(f"model-{name}-0123abcd"), 128)
    assert made.name.replace("-", "").isalnum()
    assert made.name.isascii()
