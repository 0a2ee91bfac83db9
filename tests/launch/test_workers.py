import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from multiprocessing import Pipe
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from joblib.externals.loky import get_reusable_executor
from PIL import Image

from deconfuse.launch.workers import Report, environments, gathered, together
from deconfuse.system import distributed
from deconfuse.system.errors import UserError
from deconfuse.system.signals import Stopped, listen
from deconfuse.training.checkpoint import keep, path_at, read, save
from tests.conftest import ROOT
from tests.launch.of_two import TWO, composed, in_two
from tests.team import team
from tests.test_story import go, report


class Ended:
    """A process that has ended."""

    def __init__(self, exitcode):
        self.exitcode = exitcode

    def join(self, seconds):
        pass


def ended(*reports):
    """Processes by their reports; a number is the exit code of one that made none."""
    result = []
    for one in reports:
        reader, writer = Pipe(duplex=False)
        silent = isinstance(one, int)
        if not silent:
            writer.send(one)
        writer.close()
        result.append((reader, Ended(one if silent else 0)))
    return result


FINE, LOST = Report(folder="there"), Report(error="Traceback: connection closed by peer")


@pytest.mark.parametrize(
    ("reports", "kind", "message"),
    [
        ((LOST, Report(error="a.png: no image", code=1)), UserError, "a.png: no image"),
        ((LOST, -9), UserError, "process 1 was ended by signal 9, perhaps for want of memory"),
        ((FINE, 3), UserError, "process 1 was ended with exit code 3"),
        ((LOST, Report(error="interrupted", code=130)), KeyboardInterrupt, "^$"),
        ((LOST, Report(error="stopped", code=0, stopped=signal.SIGUSR1)), Stopped, "^SIGUSR1$"),
        ((FINE, LOST), RuntimeError, "process 1 failed"),
    ],
)
def test_the_error_that_explains_the_others_is_raised(reports, kind, message):
    with pytest.raises(kind, match=message) as found:
        gathered(ended(*reports))
    assert kind is not RuntimeError or found.value.__notes__ == [LOST.error]


def test_reports_come_in_the_order_of_the_processes():
    other = Report(folder="elsewhere")
    assert gathered(ended(FINE, other)) == [FINE, other]


def test_processes_know_each_other_by_their_environment(monkeypatch):
    for name in ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK"):
        monkeypatch.delenv(name, raising=False)
    one, two = environments(2, 1)
    assert (one.pop("LOCAL_RANK"), two.pop("LOCAL_RANK")) == ("0", "1")
    assert one == two
    assert one.items() >= {"MASTER_ADDR": "127.0.0.1", "NODE_RANK": "0", "WORLD_SIZE": "2"}.items()
    monkeypatch.setenv("NODE_RANK", "1")
    with pytest.raises(UserError, match="num_nodes=3: MASTER_ADDR, MASTER_PORT not set"):
        environments(2, 3)
    monkeypatch.setenv("MASTER_ADDR", "first")
    monkeypatch.setenv("MASTER_PORT", "29500")
    assert environments(2, 3)[1] == {
        "MASTER_ADDR": "first",
        "MASTER_PORT": "29500",
        "NODE_RANK": "1",
        "WORLD_SIZE": "6",
        "LOCAL_RANK": "1",
    }


def second_is_killed(cfg):
    """A job whose first process would wait for ever."""
    if distributed.rank() == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(300)


def test_a_process_that_is_killed_ends_the_others_with_one_line():
    before = time.monotonic()
    with pytest.raises(UserError, match="process 1 was ended by signal 9"):
        together(second_is_killed, composed(*TWO))
    assert time.monotonic() - before < 200


@pytest.mark.slow
def test_a_process_of_joblibs_starts_the_processes_of_its_job():
    with joblib.parallel_config("loky", n_jobs=2):
        (answer,) = joblib.Parallel()([joblib.delayed(in_two)()])
    get_reusable_executor().shutdown(wait=True)
    assert answer == (Path("process 0 of 2"), "loky")


def waits_and_cleans_up(cfg):
    """A job that says where it waits, and that it ended well."""
    (folder := Path(cfg.output_dir)).joinpath(f"{distributed.rank()} waits").touch()
    try:
        time.sleep(300)
    finally:
        (folder / f"{distributed.rank()} waits").rename(folder / f"{distributed.rank()} cleaned up")


@pytest.mark.slow
def test_sigterm_reaches_every_process_and_each_cleans_up(tmp_path):
    def when_both_wait():
        while len(list(tmp_path.iterdir())) < 2:
            time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGTERM)

    listen()
    threading.Thread(target=when_both_wait, daemon=True).start()
    with pytest.raises(Stopped, match=r"^SIGTERM$"):
        together(waits_and_cleans_up, composed(*TWO, f"output_dir={tmp_path}"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0 cleaned up", "1 cleaned up"]


def keeps_late(folder):
    """The first process is slow to write what recipe.checkpoints keeps."""
    if distributed.first():
        time.sleep(0.3)
        save({}, path_at(folder, 1))
    return keep(folder, {}, 1).name, keep(folder, {}, 2).name


def test_every_process_explains_the_checkpoint_that_the_first_has_kept(tmp_path):
    names = "epoch_0001.ckpt", "explained_0002.ckpt"
    assert team(tmp_path, 2, keeps_late, tmp_path) == [names, names]


def test_torchruns_processes_want_a_trainer_of_several(monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="torchrun started 2 processes for a job of one; add trainer=ddp"):
        together(len, composed("trainer=cpu"))


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    """Words for a folder of 5, 7, 8, 4, 7 and 6 noisy pictures: 19 or so to train in batches of 5."""
    root, random = tmp_path_factory.mktemp("odd"), np.random.default_rng(0)
    for c, size in enumerate((5, 7, 8, 4, 7, 6)):
        (root / f"class{c}").mkdir()
        ground = random.integers(0, 255, (16, 16, 3))
        for i in range(size):
            noise = random.integers(0, 255, ground.shape)
            pixels = (0.3 * ground + 0.7 * noise).astype(np.uint8)
            Image.fromarray(pixels).save(root / f"class{c}" / f"{i}.png")
    numbers = {"epochs": 2, "embedding_size": 8, "classes_per_batch": 2, "per_class": 3, "eval_batch_size": 5}
    recipe = [f"recipe.{key}={value}" for key, value in numbers.items()]
    words = [f"dataset.root={root}", "dataset.image_size=16", "model.width=4", "noise=flip_10", *recipe]
    words += ["recipe.checkpoints=2", "detector=evidence", "influence.when=every_n_epochs", "num_workers=0"]
    return ["dataset=folder", *words]


@pytest.fixture(scope="module")
def two(odd, tmp_path_factory):
    """What the command line does with two processes: (output folder, what it said)."""
    output = tmp_path_factory.mktemp("two")
    words = [sys.executable, "-m", "src.run", *TWO, *odd, f"output_dir={output}"]
    threads = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(words, cwd=ROOT, env=threads, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    return output, done


def tables(folder):
    names = ("confusions", "samples", "relabels", "influence_epochs", "explained_epochs")
    return {name: pd.read_csv(folder / f"{name}.csv") for name in names}


def alike(one, other, tolerance, of_largest):
    """Equal words and whole numbers, other numbers to the tolerance, scores to a share of the largest one:
    EIF's are differences of losses in float32, which round otherwise in blocks of another size."""
    for name, table in tables(one).items():
        pd.testing.assert_frame_equal(table, tables(other)[name], rtol=tolerance, atol=tolerance)
    scores = [np.load(folder / "influence.npy") for folder in (one, other)]
    assert np.abs(scores[0]).max() > 0
    np.testing.assert_allclose(*scores, rtol=0, atol=min(tolerance, of_largest * np.abs(scores[0]).max()))
    found = [report(folder)["retrieval"] for folder in (one, other)]
    assert found[0] == pytest.approx(found[1], abs=tolerance)


def test_two_processes_train_once_write_once_and_speak_once(two):
    output, done = two
    (folder,) = (path.parent for path in output.glob("*/metrics.json"))
    assert report(folder)["processes"] == 2
    assert done.stderr.count("training images of") == done.stderr.count("trained ") == 1
    assert done.stderr.splitlines()[0] == "2 processes"
    assert done.stderr.count("epoch 1: R@1") == 1
    assert len(done.stderr.splitlines()) == 4, done.stderr
    assert done.stdout.count("Recall@1") == 1
    assert sorted(path.name for path in output.iterdir()) == ["checkpoints", folder.name]
    assert not list(output.rglob(".*"))
    (home,) = output.glob("checkpoints/*")
    assert [re.sub("-[0-9a-f]{8}", "", name) for name in sorted(path.name for path in home.glob("*.*"))] == [
        *("epoch_0001.ckpt", "epoch_0001.eif.npz", "epoch_0001.features.npz"),
        *("history.csv", "model.ckpt", "model.features.npz"),
    ]


def test_with_one_checkpoint_one_process_finds_what_two_did(two, odd, tmp_path):
    output, _ = two
    (folder,), (home,) = (path.parent for path in output.glob("*/metrics.json")), output.glob("checkpoints/*")
    there = tmp_path / "checkpoints" / home.name
    shutil.copytree(home, there, ignore=shutil.ignore_patterns("*.npz"))
    again = go(tmp_path, "trainer=cpu", *odd)
    assert again.name == folder.name
    assert report(again)["checkpoint"]["reused"]
    assert len(pd.read_csv(again / "samples.csv")) % 2 == 1
    alike(folder, again, 1e-6, 5e-5)
    for name in ("model", "epoch_0001"):
        one, other = (np.load(place / f"{name}.features.npz") for place in (home, there))
        for part in ("train", "query"):
            np.testing.assert_allclose(one[part], other[part], rtol=0, atol=1e-6)


def test_one_process_trains_what_two_did(two, odd, tmp_path):
    output, _ = two
    (folder,), (home,) = (path.parent for path in output.glob("*/metrics.json")), output.glob("checkpoints/*")
    alone = go(tmp_path, "trainer=cpu", *odd)
    alike(folder, alone, 1e-3, 1e-3)
    one, other = (read(place / "model.ckpt") for place in (home, tmp_path / "checkpoints" / home.name))
    assert one.pop("made_with") == other.pop("made_with")
    for name, value in one.items():
        torch.testing.assert_close(value, other[name], rtol=0, atol=1e-5)
    rows = [pd.read_csv(place / "history.csv") for place in (home, tmp_path / "checkpoints" / home.name)]
    pd.testing.assert_frame_equal(*rows, rtol=1e-5)
    assert re.match("folder-flip_10-small_cnn-softtriple-seed0-[0-9a-f]{8}$", home.name)
