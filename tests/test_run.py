import errno
import json
import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import InstantiationException
from omegaconf import OmegaConf
from PIL import Image

from src.command_line import CONF, explain
from src.errors import UserError
from src.run import run
from tests.conftest import ROOT

TINY = [
    "dataset.classes=12",
    "dataset.image_size=16",
    "model.width=4",
    "recipe.epochs=2",
    "recipe.embedding_size=8",
    "recipe.classes_per_batch=4",
]
SMALL_TABLES = (
    "confusions.csv",
    "groups.csv",
    "samples.csv",
    "relabels.csv",
    "influence.npy",
    "columns.json",
)


def go(output, *words):
    """What the command line does with these words, in this process; returns the run's folder."""
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("config", [f"output_dir={output}", *words], return_hydra_config=True)
    HydraConfig.instance().set_config(config)
    keys = [key for key in config if key != "hydra"]
    before = set(output.glob("*/metrics.json"))
    run(OmegaConf.masked_copy(config, keys))
    written = [path for path in output.glob("*/metrics.json") if path not in before]
    return (written or sorted(before))[0].parent


def report(folder):
    return json.loads((folder / "metrics.json").read_text())


def command(*words, **environment):
    return subprocess.run(
        [sys.executable, "-m", "src.run", *words],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=200,
    )


@pytest.fixture(scope="module")
def noisy(tmp_path_factory):
    """A finished run with a quarter of the labels flipped."""
    output = tmp_path_factory.mktemp("outputs")
    return go(output, *TINY, "noise=flip_10", "noise.ratio=0.25")


def test_the_tables_fit_the_scores_and_each_other(noisy):
    scores = np.load(noisy / "influence.npy")
    confusions, samples = (pd.read_csv(noisy / f"{name}.csv") for name in ("confusions", "samples"))
    relabels, found = pd.read_csv(noisy / "relabels.csv"), report(noisy)
    assert scores.shape == (len(confusions), 96) == (found["confusions"], len(samples))
    assert np.isfinite(scores).all()
    np.testing.assert_allclose(samples["influence_mean"], scores.mean(0), rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(samples["influence_abs_mean"], np.abs(scores).mean(0), rtol=1e-3)
    np.testing.assert_allclose(samples["harmful_share"], (scores > 0).mean(0), rtol=1e-5)
    assert confusions["distance"].is_monotonic_increasing
    assert (confusions["query_class"] != confusions["neighbour_class"]).all()
    assert not set(samples["class"]) & set(confusions["query_class"])
    assert samples["flipped"].sum() == 24 == found["noise"]["flipped"]
    assert ((samples["class"] != samples["true_class"]) == samples["flipped"]).all()
    chosen = samples[(samples["influence_mean"] > 0) & (samples["recommended"] != samples["class"])]
    assert sorted(relabels["sample"]) == sorted(chosen["sample"])
    assert relabels["suspicion"].is_monotonic_decreasing
    assert found["retrieval"]["R@1"] == pytest.approx(1 - len(confusions) / 96, abs=1e-6)
    assert list(found["retrieval"]) == ["R@1", "R@2", "R@4", "R@8", "MAP@R", "NMI"]
    assert 0 < found["retrieval"]["NMI"] < 1


def test_every_column_is_described_with_its_sign(noisy):
    described = json.loads((noisy / "columns.json").read_text())
    for name in ("confusions.csv", "groups.csv", "samples.csv", "relabels.csv"):
        assert list(described[name]) == list(pd.read_csv(noisy / name))
    assert "> 0 harmful" in described["samples.csv"]["influence_mean"]
    assert "higher = more likely mislabelled" in described["samples.csv"]["suspicion"]
    index = json.loads((noisy / "influence_index.json").read_text())
    assert index["shape"] == list(np.load(noisy / "influence.npy").shape)
    assert "> 0 harmful" in index["sign"]
    assert index["unit"] == "d times nats, divided by the length of the move in W if `normalise`"
    assert yaml.safe_load((noisy / "config.yaml").read_text())["noise"]["ratio"] == 0.25


def test_the_same_bytes_from_nothing_with_other_workers(noisy, tmp_path):
    again = go(tmp_path, *TINY, "noise=flip_10", "noise.ratio=0.25", "num_workers=2")
    assert again.name == noisy.name
    for name in SMALL_TABLES:
        assert (again / name).read_bytes() == (noisy / name).read_bytes(), name
    one, two = (next(path.parent.glob("checkpoints/*/history.csv")) for path in (again, noisy))
    assert one.read_bytes() == two.read_bytes()


def test_a_second_run_reuses_the_checkpoint_and_writes_the_same(noisy, capsys):
    before = {name: (noisy / name).read_bytes() for name in SMALL_TABLES}
    assert not report(noisy)["checkpoint"]["reused"]
    go(noisy.parent, *TINY, "noise=flip_10", "noise.ratio=0.25")
    assert report(noisy)["checkpoint"]["reused"]
    assert {name: (noisy / name).read_bytes() for name in SMALL_TABLES} == before


def test_only_what_the_weights_depend_on_trains_again(tmp_path):
    def checkpoints():
        return sorted(path.name for path in (tmp_path / "checkpoints").iterdir())

    first = go(tmp_path, *TINY)
    (one,) = checkpoints()
    other = go(tmp_path, *TINY, "influence.radius=0.3", "detector=loss", "neighbours=3")
    assert other != first
    assert checkpoints() == [one]
    go(tmp_path, *TINY, "influence=eif_code", "trainer=cpu", "logger=none", "recipe.eval_batch_size=7")
    assert checkpoints() == [one]
    # No label is flipped, however it would have been: the same model under another word.
    go(tmp_path, *TINY, "noise=flip_5", "noise.ratio=0.0", "noise.kind=shift")
    assert checkpoints() == [one]
    changes = ("seed=1", "noise=flip_5", "loss=proxynca", "recipe.lr_head=0.1", "dataset.seed=3")
    for word in (*changes, "+trainer.limit_train_batches=2"):
        before = len(checkpoints())
        go(tmp_path, *TINY, word)
        assert len(checkpoints()) == before + 1, word


@pytest.mark.parametrize("loss", ["pml", "proxyanchor", "softtriple10"])
def test_a_run_with_another_loss(tmp_path, loss):
    found = report(go(tmp_path, *TINY, f"loss={loss}", "noise=flip_10", "influence=if", "detector=margin"))
    assert found["confusions"] > 0
    assert 0 <= found["noise"]["detector"]["auroc"] <= 1


@pytest.mark.parametrize("recipe", ["paper", "paper_inshop"])
def test_a_run_with_the_papers_recipe(tmp_path, recipe):
    words = [word for word in TINY if "batch" not in word]
    folder = go(tmp_path, f"recipe={recipe}", *words)
    history = pd.read_csv(next(tmp_path.glob("checkpoints/*/history.csv")))
    assert np.isfinite(history["loss"]).all()
    assert report(folder)["choices"]["recipe"] == recipe


def solid_folder(root, classes=4, images=3, side=8):
    """Every class is one picture: nothing to confuse."""
    for c in range(classes):
        (root / f"class {c}").mkdir(parents=True)
        pixels = np.random.default_rng(c).integers(0, 255, (side, side, 3), dtype=np.uint8)
        for i in range(images):
            Image.fromarray(pixels).save(root / f"class {c}" / f"{i}.png")
    return root


FOLDER = ["dataset=folder", "dataset.image_size=16", *TINY[2:], "recipe.classes_per_batch=2"]


def test_no_confusion_is_a_result(tmp_path, capsys):
    folder = go(tmp_path, *FOLDER, f"dataset.root={solid_folder(tmp_path / 'data')}", "noise=none")
    found = report(folder)
    assert found["confusions"] == 0
    assert found["retrieval"]["R@1"] == 1
    assert found["relabels"] == 0
    assert np.load(folder / "influence.npy").shape == (0, 6)
    assert pd.read_csv(folder / "confusions.csv").columns[0] == "confusion"
    assert pd.read_csv(folder / "samples.csv")["influence_mean"].isna().all()
    assert "0 of 6 queries" in capsys.readouterr().out


def test_a_query_and_gallery_of_their_own(tmp_path):
    root = solid_folder(tmp_path / "data")
    rows = [(f"class {c}/{i}.png", f"c{c}", "train") for c in (0, 1) for i in range(3)]
    rows += [
        (f"class {c}/{i}.png", f"c{c}", "gallery" if i == 2 else "query") for c in (2, 3) for i in range(3)
    ]
    # Put a wrong name on a gallery picture: the two queries that find it are confused.
    rows = [(path, "c3" if path == "class 2/2.png" else label, side) for path, label, side in rows]
    pd.DataFrame(rows, columns=["path", "label", "split"]).to_csv(root / "list.csv", index=False)
    words = ["dataset=table", f"dataset.csv={root / 'list.csv'}", *FOLDER[1:]]
    found = pd.read_csv(go(tmp_path / "out", *words) / "confusions.csv")
    assert found[["query", "neighbour", "query_class", "neighbour_class"]].values.tolist() == [
        ["class 2/0.png", "class 2/2.png", "c2", "c3"],
        ["class 2/1.png", "class 2/2.png", "c2", "c3"],
    ]


def test_a_full_disk_is_one_line_and_leaves_the_last_result(noisy, monkeypatch):
    before = (noisy / "metrics.json").read_bytes()

    def full(*args, **settings):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("src.results.write_array", full)
    with pytest.raises(UserError, match=r"could not write .*No space left.*output_dir=FOLDER"):
        go(noisy.parent, *TINY, "noise=flip_10", "noise.ratio=0.25")
    assert (noisy / "metrics.json").read_bytes() == before
    assert not list(noisy.parent.glob(".*"))


def test_a_bad_image_is_named_or_skipped(tmp_path):
    root = solid_folder(tmp_path / "data", images=4)
    bad = root / "class 0" / "1.png"
    bad.write_bytes(bad.read_bytes()[:60])
    with pytest.raises(UserError, match=r"class 0/1.png: not a readable image"):
        go(tmp_path / "a", *FOLDER, f"dataset.root={root}", "num_workers=1")
    assert not list((tmp_path / "a").glob("*/metrics.json"))
    folder = go(tmp_path / "b", *FOLDER, f"dataset.root={root}", "dataset.on_bad_image=skip")
    names = pd.concat([pd.read_csv(folder / "samples.csv")["path"]])
    assert "class 0/1.png" not in set(names)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("influence.n_theta=0", r"influence.n_theta=0 is too small"),
        ("influence.radius=-1", r"influence.radius=-1 is not positive"),
        ("+influence.foo=1", r"influence or detector: .*foo"),
        ("neighbours=0", r"neighbours=0 is too small"),
        ("seed=99999999999", r"seed=99999999999 is out of range"),
        ("noise.ratio=1.5", r"noise.ratio=1.5 is out of range"),
        ("dataset.image_size=4", r"dataset.image_size=4 is too small"),
        ("recipe.optimizer.weight_decay=-1", r"recipe.optimizer: Invalid weight_decay"),
    ],
)
def test_a_bad_value_is_named_before_anything_is_trained(tmp_path, word, message):
    with pytest.raises((UserError, InstantiationException)) as caught:
        go(tmp_path, *TINY, word)
    assert re.search(message, explain(caught.value, [])[0])
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_the_command_line_says_one_line_and_exits_1():
    cub = command("dataset=cub", "loss=softtriple", "influence=eif", "dataset.root=/nowhere/CUB")
    assert cub.returncode == 1
    assert cub.stderr.count("\n") == 1
    for words in (
        "/nowhere/CUB",
        "images.txt",
        "image_class_labels.txt",
        "caltech.edu",
        "dataset.root=FOLDER",
    ):
        assert words in cub.stderr
    swept = command("-m", "noise.ratio=1.5,-1")
    assert swept.returncode == 1
    assert "2 job(s) failed: noise.ratio=1.5; noise.ratio=-1" in swept.stderr


@pytest.mark.slow
def test_ctrl_c_keeps_the_whole_epochs_and_the_same_command_goes_on(tmp_path):
    words = [f"output_dir={tmp_path}", "recipe.epochs=40", *(w for w in TINY if "epochs" not in w)]
    process = subprocess.Popen(
        [sys.executable, "-m", "src.run", *words], cwd=ROOT, stderr=subprocess.PIPE, text=True
    )
    for _ in range(600):
        if list(tmp_path.glob("checkpoints/*/last.ckpt")) or process.poll() is not None:
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "interrupted; the same command goes on" in said
    assert not list(tmp_path.glob("*/metrics.json"))
    again = command(*words)
    assert again.returncode == 0, again.stderr
    assert "resuming training" in again.stderr
    history = pd.read_csv(next(tmp_path.glob("checkpoints/*/history.csv")))
    assert history["epoch"].tolist() == list(range(1, 41))
