import errno
import hashlib
import json
import re
import signal
from functools import wraps
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import pytorch_lightning as pl
import timm
import torch
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import InstantiationException
from omegaconf import OmegaConf
from PIL import Image

from deconfuse.attribution import look
from deconfuse.attribution.head import Targets, Training
from deconfuse.data.build import build
from deconfuse.dataset import table as csv_table
from deconfuse.influence import eif
from deconfuse.labels import relabel
from deconfuse.launch.command_line import CONF, explain
from deconfuse.launch.path_words import in_hydras_words
from deconfuse.loss.softtriple import SoftTriple
from deconfuse.retrieval import coordinates
from deconfuse.runs.clean import links
from deconfuse.story import run
from deconfuse.subcommands.draw import draw
from deconfuse.system import arrays
from deconfuse.system.errors import UserError
from deconfuse.system.signals import Stopped, listen
from tests import offline
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
    chosen = samples[samples["p_wrong"] > 0.5]
    assert sorted(relabels["sample"]) == sorted(chosen["sample"])
    assert relabels["p_wrong"].is_monotonic_decreasing
    assert (relabels["recommended"] != relabels["class"]).all()
    assert found["wrong"]["labels"] == pytest.approx(samples["p_wrong"].sum(), rel=0.02)
    assert found["retrieval"]["R@1"] == pytest.approx(1 - len(confusions) / 96, abs=1e-6)
    assert list(found["retrieval"]) == ["R@1", "R@2", "R@4", "R@8", "MAP@R", "NMI"]
    assert 0 < found["retrieval"]["NMI"] < 1


def test_a_frozen_backbone_passes_once_whatever_the_loss_and_the_noise(tmp_path):
    first = report(go(tmp_path, *TINY, "recipe=frozen"))
    (features,) = tmp_path.glob("features/*.npz")
    written = features.stat().st_mtime_ns
    second = report(go(tmp_path, *TINY, "recipe=frozen", "loss=proxynca", "noise=confused"))
    assert [path.stat().st_mtime_ns for path in tmp_path.glob("features/*.npz")] == [written]
    assert second["noise"]["flipped"] == second["wrong"]["true"] == 10
    assert first["start"]["backbone"] == second["start"]["backbone"]
    for found in (first, second):
        # Held to its start, two epochs move the head little: at most a few of the 96 queries change sides.
        assert found["retrieval"]["R@1"] == pytest.approx(found["start"]["whitened"]["R@1"], abs=0.08)


def test_every_column_is_described_with_its_sign(noisy):
    described = json.loads((noisy / "columns.json").read_text())
    for name in ("confusions.csv", "groups.csv", "samples.csv", "relabels.csv"):
        assert list(described[name]) == list(pd.read_csv(noisy / name))
    assert "> 0 harmful" in described["samples.csv"]["influence_mean"]
    assert "higher = more likely mislabelled" in described["samples.csv"]["suspicion"]
    index = json.loads((noisy / "influence_index.json").read_text())
    assert index["shape"] == list(np.load(noisy / "influence.npy").shape)
    assert "> 0 harmful" in index["sign"]
    assert index["unit"] == "d times nats, per length of the move with `normalise`"
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


def test_what_takes_time_is_done_once(tmp_path, monkeypatch):
    """One run, counted: a search for each question, and each file and array read once."""
    calls = {}

    def counted(place, name, told, make=lambda function: function):
        original = getattr(place, name)

        @wraps(original)
        def function(*args, **more):
            calls.setdefault(name, []).append(told(*args))
            return original(*args, **more)

        monkeypatch.setattr(place, name, make(function))

    counted(coordinates.Coordinates, "of", lambda query, *_: len(query), staticmethod)
    counted(relabel, "_largest", lambda share, _: len(share))
    counted(arrays, "map_array", lambda path, name: name)
    counted(hashlib, "file_digest", lambda file, _: file.name)
    counted(look, "is_narrow", len)
    counted(pl.Trainer, "__init__", lambda *_: None)
    arrays._compare_checksum.cache_clear()
    go(tmp_path, *TINY, "noise=flip_10", "noise.ratio=0.25", "detector=evidence")
    searches = [n for n in calls["of"] if n > 4]  # four rows are made up, to try the settings
    epochs, after, votes, evidence = [96] * 2, [96], [96], [96] * 2 * 2
    pages = [96]  # the queries' neighbours that the report shows
    assert searches == [*epochs, *after, *votes, *evidence, *pages]
    # The best label once; the best one but the given for the suspicion, for P(wrong), and for two shares that
    # are right.
    assert [n for n in calls["_largest"] if n > 4] == [96] * 5
    assert sorted(calls["map_array"]) == sorted(["checkpoint", "train", "query"] * 2)
    assert arrays._compare_checksum.cache_info().misses == 3 * 2
    assert len(calls["file_digest"]) == len(set(calls["file_digest"]))
    assert calls["is_narrow"] == [96] * 2  # of two epochs
    assert calls["__init__"] == [None]


def test_only_what_the_weights_depend_on_trains_again(tmp_path):
    def checkpoints():
        return sorted(path.name for path in (tmp_path / "checkpoints").iterdir())

    first = go(tmp_path, *TINY)
    (one,) = checkpoints()
    other = go(tmp_path, *TINY, "influence.path.radius=0.3", "detector=loss", "neighbours=3")
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


@pytest.mark.parametrize(
    ("words", "table"),
    [
        (["target=groups", "target.most=3"], "groups.csv"),
        (["target=mis_similar"], "mis_similar.csv"),
        (["target=pairs", "target.most=7"], "confusions.csv"),
        (["target=pairs", "target.most=3", "params=all", "influence=tracin"], "confusions.csv"),
        (["target=pairs", "target.most=2", "params=last_block", "influence.path.steps=3"], "confusions.csv"),
    ],
)
def test_what_is_explained_is_a_choice(noisy, words, table):
    folder = go(noisy.parent, *TINY, "noise=flip_10", "noise.ratio=0.25", *words)
    scores, samples = np.load(folder / "influence.npy"), pd.read_csv(folder / "samples.csv")
    most = next((int(word.split("=")[1]) for word in words if "most" in word), 999)
    assert report(folder)["checkpoint"]["reused"]
    assert report(folder)["explained"] == {"table": table, "rows": len(scores), "unscored": 0}
    assert len(scores) == min(most, len(pd.read_csv(folder / table)), 100)
    assert np.abs(scores).max(1).min() > 0
    np.testing.assert_allclose(samples["influence_mean"], scores.mean(0), rtol=1e-3, atol=1e-5)


def test_tracin_is_the_sum_over_the_checkpoints_kept(tmp_path, monkeypatch):
    words = [*TINY, "influence=tracin", "recipe.epochs=3", "recipe.checkpoints=3"]
    part = [*words, "params=last_block", "target=pairs", "target.most=2"]
    folders = {True: go(tmp_path, *part), False: go(tmp_path, *words)}

    def scores(whole):
        go(tmp_path, *(part if whole else words))
        return np.load(folders[whole] / "influence.npy")

    total, both = scores(False), scores(True)
    (home,) = (tmp_path / "checkpoints").iterdir()
    assert sorted(path.name for path in home.glob("*.ckpt")) == [
        *("epoch_0001.ckpt", "epoch_0002.ckpt", "model.ckpt"),
    ]
    # One term at a time: nothing before the last, then each of the others beside it.
    monkeypatch.setattr("deconfuse.story.kept", lambda checkpoint: [])
    assert np.abs(scores(True) - both).max() > 1e-3 * np.abs(both).max()
    terms = [scores(False)]
    for epoch in (1, 2):
        path = home / f"epoch_{epoch:04d}.ckpt"
        monkeypatch.setattr("deconfuse.story.kept", lambda checkpoint, path=path: [path])
        terms.append(scores(False) - terms[0])
    for one, other in combinations(terms, 2):
        assert np.abs(one - other).max() > 1e-3 * np.abs(total).max()
    np.testing.assert_allclose(sum(terms), total, rtol=1e-3, atol=1e-4 * np.abs(total).max())


def test_a_detector_that_sums_sees_the_checkpoints_kept_and_recommends(tmp_path, monkeypatch):
    words = [*TINY, "noise=flip_10", "noise.ratio=0.25", "recipe.epochs=3", "recipe.checkpoints=3"]
    folder = go(tmp_path, *words, "detector=evidence")
    (home,) = (tmp_path / "checkpoints").iterdir()
    assert {path.name for path in home.glob("epoch_*.features.npz")} == {
        *("epoch_0001.features.npz", "epoch_0002.features.npz"),
    }
    samples, found = pd.read_csv(folder / "samples.csv"), report(folder)["noise"]
    # The sign of the log-odds says whether the label is recommended to stay, unless it is probably wrong.
    moves, quiet = samples["recommended"] != samples["class"], samples["p_wrong"] <= 0.5
    assert ((samples["suspicion"] > 0) == moves)[quiet].all()
    assert moves[~quiet].all()
    right = samples["recommended"] == samples["true_class"]
    assert found["recommended_right_all"] >= (right & samples["flipped"] & quiet).sum() / 24
    monkeypatch.setattr("deconfuse.attribution.look.kept", lambda checkpoint: [])
    go(tmp_path, *words, "detector=evidence")
    assert not np.allclose(pd.read_csv(folder / "samples.csv")["suspicion"], samples["suspicion"])


def test_the_loop_trains_again_and_a_second_run_reuses_it(tmp_path, capsys):
    words = [*TINY, "noise=flip_10", "noise.ratio=0.25", "loop.rounds=1", "loop.sure=0.6", "loop.clean=true"]
    folder = go(tmp_path, *words)
    homes = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert [("-loop-" in name, "-none-" in name) for name in homes] == [
        (False, False),
        (True, False),
        (False, True),
    ]
    rounds, corrected = (pd.read_csv(folder / f"{name}.csv") for name in ("rounds", "corrected"))
    samples, found = pd.read_csv(folder / "samples.csv"), report(folder)
    assert rounds["round"].tolist() == [0, 1]
    assert rounds["wrong"][0] == 24
    assert rounds["R@1"][0] == pytest.approx(found["retrieval"]["R@1"], abs=1e-6)
    used = ~corrected["left_out"]
    wrong = used & (corrected["corrected"] != samples["true_class"])
    assert rounds["wrong"][1] == wrong.sum()
    assert rounds["broken"][1] == (wrong & ~samples["flipped"]).sum()
    assert rounds["relabelled"][1] == (used & (corrected["corrected"] != corrected["class"])).sum()
    # The clean model is the one that noise=none trains.
    clean = report(go(tmp_path, *TINY))
    assert clean["checkpoint"]["reused"]
    assert clean["retrieval"]["R@1"] == pytest.approx(found["loop"]["clean"]["R@1"], abs=1e-6)
    capsys.readouterr()
    go(tmp_path, *words)
    assert "loop: trained" not in capsys.readouterr().err
    pd.testing.assert_frame_equal(pd.read_csv(folder / "rounds.csv"), rounds)
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == homes
    # A round's model that is damaged is named; without it the loop goes on to the same end.
    (made,) = tmp_path.glob("checkpoints/*-loop-*/model.ckpt")
    weights, written = made.read_bytes(), (folder / "corrected.csv").read_bytes()
    made.write_bytes(weights[: len(weights) // 2])
    with pytest.raises(UserError, match=r"-loop-\w+/model.ckpt: not a whole checkpoint .*; delete it"):
        go(tmp_path, *words)
    assert (folder / "corrected.csv").read_bytes() == written
    made.unlink()
    (folder / "corrected.csv").write_bytes(written[:50])
    go(tmp_path, *words)
    assert made.read_bytes() == weights
    assert (folder / "corrected.csv").read_bytes() == written


def test_the_counterfactual_check_ends_in_the_report(noisy):
    words = ["counterfactual.subsets=5", "counterfactual.steps=3", "target=pairs", "influence=if"]
    folder = go(noisy.parent, *TINY, "noise=flip_10", "noise.ratio=0.25", *words)
    lds = pd.read_csv(folder / "counterfactual.csv")["lds"]
    found = report(folder)["counterfactual"]
    assert len(lds) == len(np.load(folder / "influence.npy"))
    assert lds.between(-1, 1).all()
    assert found["mean"] == pytest.approx(lds.mean(), abs=1e-6)
    assert (found["subsets"], found["steps"]) == (5, 3)


def test_a_damping_is_chosen_and_its_choice_is_said(noisy, capsys):
    words = ["influence=ekfac", "influence.damping=auto", "influence.auto.subsets=5", "report=false"]
    folder = go(noisy.parent, *TINY, "noise=flip_10", "noise.ratio=0.25", *words, "counterfactual.steps=3")
    assert np.abs(np.load(folder / "influence.npy")).max() > 0
    said = " ".join(capsys.readouterr().err.split())
    assert (
        "damping=auto: the head is trained again without 5 random subsets of 50% of the training set" in said
    )
    assert "predicts these trainings best, LDS" in said


def test_the_training_itself_is_gone_through_and_checked(tmp_path):
    words = ["recipe=frozen", "influence=unrolled_training", "target=pairs", "target.most=4"]
    subsets = ["counterfactual.subsets=5", "counterfactual.through=training", "report=false"]
    folder = go(tmp_path, *TINY, *words, *subsets)
    found, scores = report(folder)["counterfactual"], np.load(folder / "influence.npy")
    assert found["through"] == "training"
    assert -1 <= found["mean"] <= 1
    assert np.abs(scores).max() > 0
    (start,) = tmp_path.glob("checkpoints/*/start.ckpt")
    start.unlink()
    with pytest.raises(UserError, match=r"^influence.through=training needs where the training of the head"):
        go(tmp_path, *TINY, *words)


RETRAIN = ["noise=flip_10", "noise.ratio=0.25", "target=groups", "target.most=3", "retrain.optimizer.lr=1e-3"]


def test_retraining_by_the_scores_ends_in_the_report(noisy):
    folders = {
        mode: go(noisy.parent, *TINY, *RETRAIN, f"retrain.mode={mode}", "dataset.augment=none", *words)
        for mode, words in (("none", []), ("cached", []), ("images", ["retrain.epochs=1"]))
    }
    assert len(set(folders.values())) == 3
    assert report(folders["none"])["retrain"] is None
    assert not (folders["none"] / "retrained.csv").exists()
    tables = {mode: pd.read_csv(folders[mode] / "retrained.csv") for mode in ("cached", "images")}
    for mode, table in tables.items():
        found = report(folders[mode])
        assert found["checkpoint"]["reused"]
        assert found["retrain"]["mean"] == pytest.approx(table["change"].mean(), abs=1e-6)
        assert found["retrain"]["mode"] == mode
        assert (found["retrain"]["optimizer"], found["retrain"]["lr"], found["retrain"]["n"]) == (
            "Adam",
            1e-3,
            3,
        )
        assert "retraining" in found["seconds"]
        described = json.loads((folders[mode] / "columns.json").read_text())
        assert list(described["retrained.csv"]) == list(table)
        groups = pd.read_csv(folders[mode] / "groups.csv")["distance"][:3]
        np.testing.assert_allclose(table["d_before"], groups, rtol=1e-4)
        np.testing.assert_allclose(table["d_after"] - table["d_before"], table["change"], atol=1e-6)
        assert table["change"].abs().min() > 1e-6
    np.testing.assert_allclose(tables["cached"]["d_after"], tables["images"]["d_after"], atol=1e-5)


def test_other_bytes_in_the_file_of_weights_train_again(tmp_path):
    words = [word for word in TINY if "width" not in word]
    words += ["model=timm", "model.name=test_resnet", f"model.weights={tmp_path / 'start.pth'}"]
    trained = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        torch.save(timm.create_model("test_resnet").state_dict(), tmp_path / "start.pth")
        found = report(go(tmp_path / "out", *words))
        trained.append(not found["checkpoint"]["reused"])
    (tmp_path / "start.pth").rename(tmp_path / "moved.pth")
    found = report(go(tmp_path / "out", *words[:-1], f"model.weights={tmp_path / 'moved.pth'}"))
    trained.append(not found["checkpoint"]["reused"])
    assert trained == [True, False, True, False]
    assert len(list((tmp_path / "out" / "checkpoints").iterdir())) == 2


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
    # The gallery pictures of two classes change names: the queries that find them are confused.
    swapped = {"class 2/2.png": "c3", "class 3/2.png": "c2"}
    rows = [(path, swapped.get(path, label), side) for path, label, side in rows]
    pd.DataFrame(rows, columns=["path", "label", "split"]).to_csv(root / "list.csv", index=False)
    words = ["dataset=table", f"dataset.csv={root / 'list.csv'}", *FOLDER[1:]]
    found = pd.read_csv(go(tmp_path / "out", *words) / "confusions.csv")
    assert sorted(found[["query", "neighbour", "query_class", "neighbour_class"]].values.tolist()) == [
        ["class 2/0.png", "class 2/2.png", "c2", "c3"],
        ["class 2/1.png", "class 2/2.png", "c2", "c3"],
        ["class 3/0.png", "class 3/2.png", "c3", "c2"],
        ["class 3/1.png", "class 3/2.png", "c3", "c2"],
    ]


def test_in_shop_keeps_its_queries_and_its_gallery(tmp_path):
    # Every item looks like itself alone, but the gallery pictures of the last two change places.
    looks = {
        f"id_{c:08}": np.random.default_rng(c).integers(0, 255, (2, 2, 3), np.uint8) for c in range(1, 6)
    }
    parts = {
        **{item: ["train"] * 3 for item in list(looks)[:3]},
        "id_00000004": ["query", "query", "gallery"],
    }
    parts["id_00000005"] = ["query", "gallery"]
    swapped = {"id_00000004": "id_00000005", "id_00000005": "id_00000004"}
    rows = []
    for item, mine in parts.items():
        for k, part in enumerate(mine):
            name = f"img/WOMEN/Dresses/{item}/{k + 1:02}_1_front.jpg"
            file = tmp_path / "shop" / "Img" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            shown = looks[swapped[item] if part == "gallery" else item]
            Image.fromarray(shown).resize((18, 16), Image.Resampling.NEAREST).save(file)
            rows.append(f"{name} {item} {part}")
    lists = tmp_path / "shop" / "Eval" / "list_eval_partition.txt"
    lists.parent.mkdir()
    lists.write_text("\n".join([str(len(rows)), "image_name item_id evaluation_status", *rows]))
    words = ["dataset=inshop", f"dataset.root={tmp_path / 'shop'}", *FOLDER[1:]]
    folder = go(tmp_path / "out", *words)
    found = pd.read_csv(folder / "confusions.csv")
    assert sorted(found[["query", "neighbour"]].map(lambda name: name[18:]).values.tolist()) == [
        ["id_00000004/01_1_front.jpg", "id_00000005/02_1_front.jpg"],
        ["id_00000004/02_1_front.jpg", "id_00000005/02_1_front.jpg"],
        ["id_00000005/01_1_front.jpg", "id_00000004/03_1_front.jpg"],
    ]
    assert found["distance"].abs().max() == 0
    assert report(folder)["retrieval"]["R@1"] == 0
    assert report(folder)["retrieval"]["R@10"] == 1
    assert np.load(folder / "influence.npy").shape == (3, 9)


def rows_of_features(path, seed=0, n=84, dimension=7):
    """Six classes in a cloud each, the last three test."""
    random = np.random.default_rng(seed)
    labels = np.arange(n) % 6
    features = random.normal(size=(6, dimension))[labels] + 0.8 * random.normal(size=(n, dimension))
    np.savez(path, features=features, labels=labels, split=np.where(labels < 3, "train", "test"))
    return features


FEATURES = ["dataset=features", "model=identity", *TINY[3:], "recipe.classes_per_batch=3"]


def test_leaving_out_what_is_blamed_ends_in_a_table_and_the_report(tmp_path):
    rows_of_features(tmp_path / "data.npz")
    words = ["leave_out.confusions=2", "leave_out.seeds=2", "leave_out.shares=[0.1]", "influence=nearest"]
    folder = go(tmp_path / "out", *FEATURES, f"dataset.path={tmp_path / 'data.npz'}", "noise=flip_10", *words)
    table, said = pd.read_csv(folder / "left_out.csv"), report(folder)["leave_out"]
    assert table[["share", "left_out", "seed"]].values.tolist() == [[0.1, 4, 0], [0.1, 4, 1]] * said["pairs"]
    own = pd.read_csv(folder / "confusions.csv")["distance"].to_numpy()[table["row"]]
    first = table["seed"] == 0  # with all samples and the run's seed it is the run's own training
    np.testing.assert_allclose(table["d_kept"][first], own[first], rtol=1e-2, atol=1e-3)
    assert table["confused_kept"][first].all()
    assert said["change"] == pytest.approx([(table["d"] - table["d_kept"]).mean()])


def test_features_are_the_rows_that_were_given_and_moving_them_trains_nothing_again(tmp_path):
    features = rows_of_features(tmp_path / "data.npz")
    labels = np.arange(84) % 6
    folder = go(tmp_path / "out", *FEATURES, f"dataset.path={tmp_path / 'data.npz'}", "noise=flip_10")
    with np.load(next(tmp_path.glob("out/checkpoints/*/model.features.npz"))) as kept:
        np.testing.assert_array_equal(kept["train"], features[labels < 3].astype(np.float32))
        np.testing.assert_array_equal(kept["query"], features[labels >= 3].astype(np.float32))
    samples = pd.read_csv(folder / "samples.csv")
    assert samples["path"].tolist() == [f"row {i}" for i in np.flatnonzero(labels < 3)]
    assert samples["flipped"].sum() == 4
    assert report(folder)["noise"]["detector"]["auroc"] > 0.9
    home = tmp_path / "elsewhere"
    home.mkdir()
    with np.load(tmp_path / "data.npz") as arrays:
        for key in arrays.files:
            np.save(home / f"{key}.npy", arrays[key])
    again = go(tmp_path / "out", *FEATURES, f"dataset.path={home}", "noise=flip_10", "influence=tracin")
    assert report(again)["checkpoint"]["reused"]
    assert len(np.load(again / "influence.npy")) == report(folder)["confusions"] > 0


def test_the_embeddings_of_a_finished_model_are_explained_as_they_are(tmp_path):
    rows = rows_of_features(tmp_path / "data.npz", n=120)
    labels = np.arange(120) % 6
    words = [
        *FEATURES,
        "model=as_is",
        f"dataset.path={tmp_path / 'data.npz'}",
        "noise=flip_10",
        "recipe.epochs=4",
    ]
    folder = go(tmp_path / "out", *words)
    z = rows[labels >= 3] / np.linalg.norm(rows[labels >= 3], axis=1, keepdims=True)
    classes, distance = labels[labels >= 3], ((z[:, None] - z[None]) ** 2).sum(-1)
    np.fill_diagonal(distance, np.inf)
    nearest = distance.argmin(1)
    wrong = np.flatnonzero(classes[nearest] != classes)
    table = pd.read_csv(folder / "confusions.csv")
    names = np.flatnonzero(labels >= 3)
    assert sorted(table["query"]) == sorted(f"row {names[i]}" for i in wrong)
    found = table.set_index("query")["distance"]
    for i in wrong:
        assert found[f"row {names[i]}"] == pytest.approx(distance[i, nearest[i]], rel=1e-4)
    assert report(folder)["retrieval"]["R@1"] == pytest.approx(1 - len(wrong) / len(classes))
    kept = torch.load(tmp_path / report(folder)["checkpoint"]["path"], weights_only=True)
    assert torch.equal(kept["head.weight"], torch.eye(7))
    assert yaml.safe_load((folder / "config.yaml").read_text())["recipe"]["embedding_size"] == 7
    assert not kept["head.bias"].any()
    assert kept["loss.proxies"].shape[-1] == 7
    assert report(folder)["noise"]["detector"]["auroc"] > 0.9
    with pytest.raises(UserError, match=r"^loop.rounds=2 trains embeddings again, which model=as_is takes"):
        go(tmp_path / "out", *words, "loop.rounds=2")


def as_it_is(tmp_path, name, **arrays):
    np.savez(tmp_path / f"{name}.npz", **arrays)
    words = [*FEATURES, "model=as_is", f"dataset.path={tmp_path / name}.npz", "recipe.epochs=2"]
    return go(tmp_path / f"out-{name}", *words, "detector=margin", "noise=flip_10")


def test_the_length_of_embeddings_changes_nothing(tmp_path):
    """Each row has another one, from 1e-18 to 1e18."""
    rows = rows_of_features(tmp_path / "data.npz").astype(np.float32)
    labels = np.arange(84) % 6
    split = np.where(labels < 3, "train", "test")
    scales = 2.0 ** np.random.default_rng(0).integers(-60, 61, size=(84, 1))
    folders = [
        as_it_is(tmp_path, name, features=features.astype(np.float32), labels=labels, split=split)
        for name, features in (("one", rows), ("many", rows * scales))
    ]
    one, many = (pd.read_csv(folder / "confusions.csv") for folder in folders)
    assert len(one) > 0
    pd.testing.assert_frame_equal(one, many)
    one, many = (np.load(folder / "influence.npy") for folder in folders)
    np.testing.assert_allclose(many, one, rtol=1e-4, atol=1e-5 * np.abs(one).max())
    one, many = (pd.read_csv(folder / "samples.csv") for folder in folders)
    pd.testing.assert_frame_equal(one, many, rtol=1e-4, atol=1e-6)


def test_embeddings_far_from_the_origin_have_the_numbers_of_float64(tmp_path):
    """In float32 their cosines differ by 1e-7 of rounding and 1e-6 in truth."""
    rows, labels = rows_of_features(tmp_path / "data.npz"), np.arange(84) % 6
    rows = (rows + 1000).astype(np.float32)
    split = np.where(labels < 3, "train", "test")
    folder = as_it_is(tmp_path, "far", features=rows, labels=labels, split=split)
    z, test = rows.astype(np.float64), labels >= 3
    e = z / np.linalg.norm(z, axis=1, keepdims=True)
    distance = ((e[test][:, None] - e[test]) ** 2).sum(2)
    np.fill_diagonal(distance, np.inf)
    wrong = labels[test][distance.argmin(1)] != labels[test]
    table, metrics = pd.read_csv(folder / "confusions.csv"), report(folder)
    names = np.flatnonzero(test)
    assert sorted(table["query"]) == sorted(f"row {i}" for i in names[wrong])
    assert metrics["retrieval"]["R@1"] == pytest.approx(1 - wrong.mean())
    saved = torch.load(tmp_path / metrics["checkpoint"]["path"], weights_only=True)
    loss = SoftTriple(3, 7).double()
    loss.load_state_dict({key[5:]: value for key, value in saved.items() if key.startswith("loss.")})
    samples = pd.read_csv(folder / "samples.csv")
    y = torch.from_numpy(samples["class"].to_numpy(np.int64, copy=True))  # three classes, named by their ids
    side = Training(torch.from_numpy(z[~test]), y, torch.eye(7).double(), torch.zeros(7).double(), loss)
    place = {f"row {i}": k for k, i in enumerate(names)}
    both = zip(table["query"], table["neighbour"], strict=True)
    pairs = torch.tensor([[place[a], place[b]] for a, b in both])
    sides = torch.from_numpy(z[test])
    want = eif.scores(side, Targets.pairs(sides, sides, pairs)).numpy()
    found = np.load(folder / "influence.npy")
    np.testing.assert_allclose(found, want, rtol=1e-4, atol=1e-5 * np.abs(want).max())
    cosine = e[~test] @ torch.nn.functional.normalize(loss.proxies.detach()).numpy().T
    own = cosine[np.arange(42), y]
    cosine[np.arange(42), y] = -2
    np.testing.assert_allclose(samples["suspicion"], cosine.max(1) - own, rtol=1e-4, atol=1e-9)


@pytest.fixture(scope="module")
def corrected(tmp_path_factory):
    """A folder of letters, four of them in a wrong class; the run on it, and the one of the decisions."""
    home = tmp_path_factory.mktemp("review")
    draw(home / "letters", 12, 4, 0)
    words = ["dataset=folder", f"dataset.root={home / 'letters'}", "dataset.channels=1", *TINY[1:]]
    before = go(home / "out", *words, "dataset.augment=none")
    wrong, samples = pd.read_csv(home / "letters/wrong.csv"), pd.read_csv(before / "samples.csv")
    labels = [
        {
            "sample": int(samples.index[samples["path"] == path][0]),
            "path": path,
            "class": path.split("/")[0],
            "decision": "other",
            "label": label,
            "recommended": path.split("/")[0],
            "vote": 0.5,
        }
        for path, label in wrong.itertuples(index=False)
    ]
    decisions = {"format": 1, "run": before.name, "checkpoint": "", "pairs": [], "labels": labels}
    (home / "decisions (1).json").write_text(json.dumps(decisions), "utf-8")
    said = in_hydras_words([f"relabels={home / 'decisions (1).json'}"])
    words = [*words, "dataset.augment=none", *said]
    weights = next(home.glob("out/checkpoints/*/model.ckpt")).read_bytes()
    return home, words, before, weights, go(home / "out", *words)


def test_decisions_are_trained_on_and_what_changed_is_told(corrected):
    home, _, before, weights, after = corrected
    found, changes = report(after)["corrections"], pd.read_csv(after / "changes.csv")
    assert (found["changed"], found["already"], found["right"]) == (4, 0, None)
    wrong = dict(pd.read_csv(home / "letters/wrong.csv").itertuples(index=False, name=None))
    samples = pd.read_csv(after / "samples.csv").set_index("path")["class"]
    assert samples[list(wrong)].to_dict() == wrong
    assert "flipped" not in pd.read_csv(after / "samples.csv")
    # The run before is as it was, and so is its model.
    assert next(home.glob("out/checkpoints/*[!relabels]*seed0-????????/model.ckpt")).read_bytes() == weights
    old, new = (pd.read_csv(folder / "confusions.csv").set_index("query") for folder in (before, after))
    assert found["before"]["R@1"] == report(before)["retrieval"]["R@1"]
    assert found["after"]["R@1"] == report(after)["retrieval"]["R@1"]
    assert (found["before"]["confusions"], found["after"]["confusions"]) == (len(old), len(new))
    fates = {fate: rows.set_index("query") for fate, rows in changes.groupby("change")}
    assert set(fates["vanished"].index) == set(old.index) - set(new.index) != set()
    assert set(fates.get("appeared", new[:0]).index) == set(new.index) - set(old.index)
    gone = fates["vanished"]
    assert gone["neighbour_before"].to_dict() == old.loc[gone.index, "neighbour"].to_dict()
    np.testing.assert_allclose(gone["distance_before"], old.loc[gone.index, "distance"], rtol=1e-4)
    both = set(old.index) & set(new.index)
    moved = {name for name in both if old["neighbour_class"][name] != new["neighbour_class"][name]}
    assert set(fates.get("moved", new[:0]).index) == moved
    described = json.loads((after / "columns.json").read_text())
    assert list(described["changes.csv"]) == list(changes)


def test_the_corrected_run_is_the_same_from_nothing_and_from_its_own_clean_list(corrected, tmp_path):
    _, words, _, _, after = corrected
    again = go(tmp_path, *words)
    assert again.name == after.name
    (model,) = tmp_path.glob("checkpoints/*[!relabels]*seed0-????????/model.ckpt")
    assert model.read_bytes() == corrected[3]  # and says what it was made with, as the run's own does
    for name in (*SMALL_TABLES, "changes.csv", "clean_list.csv"):
        assert (again / name).read_bytes() == (after / name).read_bytes(), name
    # The labels count, not the file that gives them.
    before = set(after.parent.iterdir())
    go(after.parent, *words[:-1], f"relabels.file={after / 'clean_list.csv'}")
    assert set(after.parent.iterdir()) == before
    assert report(after)["corrections"]["file"].endswith("clean_list.csv")
    assert report(after)["checkpoint"]["reused"]
    assert (after / "clean_list.csv").read_bytes() == (again / "clean_list.csv").read_bytes()
    with pytest.raises(UserError, match=r"nothing to change: it gives no label"):
        go(tmp_path, *words[:-1], f"relabels.file={after / 'relabels.csv'}", "relabels.min_vote=1")


def test_the_clean_folder_has_every_image_under_its_corrected_label(corrected, tmp_path):
    home, _, before, _, after = corrected
    assert links(after, tmp_path / "clean") == (192, 0)
    split = build(csv_table.load(str(tmp_path / "clean/list.csv")))
    here = {
        Path(name).name: split.class_names[label]
        for name, label in zip(split.train.names, split.train.labels, strict=True)
    }
    samples = pd.read_csv(before / "samples.csv")
    right = dict(zip(samples["path"], samples["class"], strict=True))
    right |= dict(pd.read_csv(home / "letters/wrong.csv").itertuples(index=False, name=None))
    assert here == {Path(path).name: label for path, label in right.items()}
    assert len(split.query) == 96


def test_corrections_of_flipped_labels_are_right_or_wrong(noisy, tmp_path):
    samples = pd.read_csv(noisy / "samples.csv", dtype=str)
    flipped, kept = samples[samples["flipped"] == "True"], samples[samples["flipped"] == "False"]
    rows = [f"{row.path},{row.true_class}" for row in flipped[:7].itertuples()]
    rows += [f"{row.path},{flipped['class'].iloc[0]}" for row in kept[:1].itertuples()]
    (tmp_path / "list.csv").write_text("\n".join(["path,label", *rows]), "utf-8")
    words = [*TINY, "noise=flip_10", "noise.ratio=0.25", f"relabels.file={tmp_path / 'list.csv'}"]
    folder = go(noisy.parent, *words, "loop.rounds=1")
    found = report(folder)
    assert (found["corrections"]["right"], found["corrections"]["wrong"]) == (7, 1)
    assert found["noise"]["flipped"] == 24 - 7 + 1
    assert found["corrections"]["before"]["R@1"] == report(noisy)["retrieval"]["R@1"]
    clean = pd.read_csv(folder / "clean_list.csv", keep_default_na=False)
    last = pd.read_csv(folder / "corrected.csv")
    now = dict(zip(clean["path"], clean["new_label"], strict=True))
    expected = last["corrected"].where(~last["left_out"], "")
    assert [now[path] for path in last["path"]] == expected.tolist()
    old = dict(zip(clean["path"], clean["old_label"], strict=True))
    assert [old[path] for path in samples["path"]] == samples["class"].tolist()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["model=small_cnn"],
            r"^dataset=features has no images for model=small_cnn; add model=identity or model=as_is$",
        ),
        (
            ["dataset=glyphs", "dataset.classes=12"],
            r"^dataset=glyphs has images, which model=identity does not",
        ),
    ],
)
def test_images_and_features_each_have_their_models(tmp_path, words, message):
    rows_of_features(tmp_path / "data.npz")
    path = [] if "dataset=glyphs" in words else [f"dataset.path={tmp_path / 'data.npz'}"]
    with pytest.raises(UserError, match=message):
        go(tmp_path / "out", *FEATURES, *words, *path)


def test_a_full_disk_is_one_line_and_leaves_the_last_result(noisy, monkeypatch):
    before = (noisy / "metrics.json").read_bytes()

    def full(*args, **settings):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("deconfuse.runs.results.write_array", full)
    with pytest.raises(UserError, match=r"could not write .*No space left.*output_dir=FOLDER"):
        go(noisy.parent, *TINY, "noise=flip_10", "noise.ratio=0.25")
    assert (noisy / "metrics.json").read_bytes() == before
    assert not list(noisy.parent.glob(".*"))


def test_sigterm_while_scoring_leaves_the_last_result_and_nothing_half_written(noisy, monkeypatch):
    before = {name: (noisy / name).read_bytes() for name in SMALL_TABLES}

    def interrupted(path, table, spreadsheet=False):
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr("deconfuse.runs.results.write_csv", interrupted)
    listen()
    with pytest.raises(Stopped):
        go(noisy.parent, *TINY, "noise=flip_10", "noise.ratio=0.25")
    assert {name: (noisy / name).read_bytes() for name in SMALL_TABLES} == before
    assert not list(noisy.parent.rglob(".*"))


def test_names_of_any_letters_and_length_and_images_of_one_pixel(tmp_path):
    """255 bytes, what a shell or HTML would take for its own, and every mode in which images are kept."""
    root, modes = tmp_path / "data", ("1", "L", "P", "RGBA", "CMYK", "I;16")
    for c, name in enumerate(("ü" * 127, "<b>&amp;", "$(touch x); 'a' \"b\"", "line\nbreak, comma")):
        (root / name).mkdir(parents=True)
        for i, mode in enumerate(modes):
            side = 1 if i == 0 else 9
            pixels = np.random.default_rng(c).integers(0, 255, (side, side), np.uint8)
            image = Image.fromarray(pixels.astype(np.uint16) * 256 if mode == "I;16" else pixels)
            image = image if mode == "I;16" else image.convert("RGB").convert(mode)
            image.save(root / name / f"{'é' * (125 - i)}{i}.tif")
    folder = go(tmp_path / "out", *FOLDER, f"dataset.root={root}", "noise=none")
    samples = pd.read_csv(folder / "samples.csv")
    names = [path.relative_to(root).as_posix() for path in root.glob("*/*")]
    assert len(samples) == 12
    assert set(samples["path"]) < set(names)
    found = pd.read_csv(folder / "confusions.csv")
    assert set(found["query"]) <= set(names) - set(samples["path"])
    assert not list(ROOT.glob("x"))


@pytest.mark.parametrize(
    "words",
    [
        ["recipe.embedding_size=1"],
        ["neighbours=999"],
        ["dataset.test_classes=[class 1]"],  # all test labels are equal: nothing is confused
    ],
)
@pytest.mark.parametrize("loss", ["softtriple", "proxyanchor"])
def test_the_least_that_can_be_asked_for_is_answered(tmp_path, words, loss):
    root = solid_folder(tmp_path / "data")
    folder = go(tmp_path / "out", *FOLDER, f"dataset.root={root}", f"loss={loss}", "recipe.epochs=1", *words)
    found = report(folder)
    assert np.isfinite(list(found["retrieval"].values())).all()
    assert len(np.load(folder / "influence.npy")) == found["confusions"] <= found["queries"]
    assert np.isfinite(pd.read_csv(folder / "samples.csv")["suspicion"]).all()
    one_class = "dataset.test_classes=[class 1]" in words
    told = "R@1 is 1 by construction: all images to be found are of one class, class 1"
    assert found["trivial"] == (told if one_class else None)
    assert (told in (folder / "report" / "data" / "run.js").read_text("utf-8")) == one_class


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
        ("influence.path.radius=-1", r"influence.path.radius=-1 is not positive"),
        ("+influence.foo=1", r"target, influence or detector: .*foo"),
        ("target.most=0", r"target.most=0 is too small"),
        ("params=al", r"params=al is not known; did you mean all"),
        ("counterfactual.subsets=1", r"counterfactual.subsets=1 ranks nothing"),
        ("retrain=cached", r"retrain=cached is not a group of keys; give retrain.mode=cached"),
        ("retrain.mode=cahced", r"retrain.mode=cahced is not known; did you mean cached"),
        ("retrain.harmful=-1", r"retrain.harmful=-1 is out of range"),
        ("+retrain.foo=1", r"retrain has the keys .*; look at foo"),
        ("loop=3", r"loop=3 is not a group of keys; give one of them: loop.KEY=VALUE"),
        ("+loop.foo=1", r"loop has the keys rounds, sure, clean; look at foo"),
        ("relabels.file=gone.csv", r"gone.csv: no such file"),
        ("relabels.min_vote=2", r"relabels.min_vote=2 is out of range"),
        ("~counterfactual.share", r"counterfactual has the keys .*, seed, through; look at share"),
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


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["influence=ekfac", "params=all"], r"influence=ekfac works on the head only; take params=head"),
        (
            ["influence=if", "influence.damping=auto", "params=all"],
            r"^influence.damping=auto trains the head again, but params=all attributes more",
        ),
        (["influence=unrolled_training"], r"^influence.through=training goes through the training of a head"),
        (
            ["counterfactual.subsets=5", "counterfactual.through=training"],
            r"^counterfactual.through=training goes through the training of a head on features that stay",
        ),
        (
            ["influence=unrolled", "retrain.optimizer._target_=torch.optim.RMSprop"],
            r"^influence=unrolled goes back through Adam, AdamW and SGD, and retrain.optimizer is RMSprop",
        ),
        (
            ["counterfactual.subsets=5", "params=all"],
            r"trains the head again, but params=all attributes more",
        ),
        (
            ["retrain.mode=cached", "params=last_block"],
            r"^retrain.mode=cached trains the head again, but params=last_block attributes more",
        ),
        (
            ["retrain.mode=cached", "retrain.optimizer.lr=-1"],
            r"^retrain.optimizer: Invalid learning rate: -1",
        ),
        (["retrain.mode=images", "+retrain.optimizer.rate=1"], r"^retrain.optimizer: .*'rate'"),
        (["influence.n_theta=3", "params=all"], r"influence.n_theta=3: .* take 1 or 2"),
        (
            ["influence=if", "influence.solver.kind=explicit", "params=last_block"],
            r"solver.kind=explicit works with params=head",
        ),
    ],
)
def test_what_a_method_can_not_do_is_said_before_anything_is_trained(tmp_path, words, message):
    with pytest.raises(UserError, match=message):
        go(tmp_path, *TINY, *words)
    assert not list(tmp_path.iterdir())


def test_what_w_and_b_is_told_is_what_the_files_say(tmp_path):
    folder = go(tmp_path, *TINY, "noise=flip_10", "noise.ratio=0.25", "logger=wandb")
    found, (page,) = report(folder), offline.pages(tmp_path)
    history = pd.read_csv(tmp_path / found["checkpoint"]["path"].replace("model.ckpt", "history.csv"))
    assert (page.run.display_name, page.code) == (folder.name, 0)
    assert page.summary["retrieval/R@1"] == pytest.approx(found["retrieval"]["R@1"])
    assert page.summary["noise/flipped"] == 24
    lines = [line for line in page.history if "epochs/epoch" in line]
    assert [line["epochs/R@1"] for line in lines] == pytest.approx(history["R@1"].tolist())
    live = [line["R@1"] for line in page.history if "R@1" in line]
    assert live == pytest.approx(history["R@1"].tolist(), rel=1e-5)
    (model,) = page.artifact("model").manifest.contents
    assert (model.local_path, page.artifact("model").use_after_commit) == (found["checkpoint"]["path"], False)
    columns, rows = page.table("tablesconfusions")
    confusions = pd.read_csv(folder / "confusions.csv")
    assert [row[columns.index("query")] for row in rows] == confusions["query"].tolist()
    assert all(isinstance(row[0], bytes) and isinstance(row[1], bytes) for row in rows)


def test_labels_of_the_test_side_are_corrected_where_that_is_asked(tmp_path):
    rows = rows_of_features(tmp_path / "data.npz")
    labels = np.arange(84) % 6
    words = [*FEATURES, "model=as_is", f"dataset.path={tmp_path / 'data.npz'}", "report=false"]
    first = go(tmp_path / "out", *words)
    names = pd.read_csv(first / "samples.csv").set_index("path")["class"]
    query, train = np.flatnonzero(labels >= 3), np.flatnonzero(labels < 3)
    name = {label: str(label) for label in range(6)}
    assert str(names[f"row {train[0]}"]) == name[labels[train[0]]]
    tests = [
        {"kind": "query", "path": f"row {query[0]}", "class": name[labels[query[0]]], "decision": "other"},
        {"kind": "query", "path": f"row {query[4]}", "class": name[labels[query[4]]], "decision": "exclude"},
    ]
    other = next(label for label in (3, 4, 5) if label != labels[query[0]])
    tests[0]["label"] = name[other]
    given = [{"path": f"row {train[0]}", "class": name[labels[train[0]]], "decision": "exclude"}]
    file = {"format": 1, "run": "r", "pairs": [], "labels": given, "tests": tests}
    (tmp_path / "d.json").write_text(json.dumps(file))
    e = rows / np.linalg.norm(rows, axis=1, keepdims=True)

    def recall(at, truth):
        near = e[at] @ e[at].T
        np.fill_diagonal(near, -2)
        return (truth[near.argmax(1)] == truth).mean()

    wanted = {False: recall(query, labels[query])}
    changed = labels[query].copy()
    changed[0] = other
    kept = np.arange(len(query)) != 4
    wanted[True] = recall(query[kept], changed[kept])
    for applied, right in wanted.items():
        corrected = [f"relabels.file={tmp_path / 'd.json'}", f"relabels.test={str(applied).lower()}"]
        folder = go(tmp_path / "out", *words, *corrected)
        metrics = json.loads((folder / "metrics.json").read_text())
        assert metrics["queries"] == len(query) - applied
        told = metrics["corrections"]
        assert told["test"] == {"applied": applied, "changed": 1, "left_out": 1}
        assert (told["changed"], told["left_out"]) == (0, 1)
        for side in ("before", "after"):  # the embeddings are given, so no training moves them
            assert told[side]["R@1"] == pytest.approx(right)
    assert wanted[True] != wanted[False]
