import subprocess
import sys
import time

import pytest
from pytorch_lightning.loggers import CSVLogger

from deconfuse import story
from deconfuse.system.errors import UserError
from deconfuse.tracking import tracker
from tests import offline
from tests.conftest import ROOT

CHOICES = {"dataset": "glyphs", "noise": "none", "model": "small_cnn", "loss": "proxynca", "influence": "eif"}
CONFIG = {"choices": CHOICES}


def test_none_and_csv_have_no_page(tmp_path):
    assert tracker.none(tmp_path, "run", {}) is None
    logger = tracker.csv(tmp_path, "run", {})
    assert isinstance(logger, CSVLogger)
    assert tracker.page(logger) is tracker.page(None) is None


def test_labels_leave_out_seeds_methods_and_what_instantiates():
    config = {
        "seed": 4,
        "loss": {"_target_": "deconfuse.loss.proxynca.ProxyNCA", "optimizer": {"_partial_": True, "lr": 0.1}},
        "choices": {**CHOICES, "target": "all", "experiment": "x" * 90, "trainer": "auto"},
    }
    labels = tracker.labels("name", config)
    assert labels["group"] == "glyphs-none-small_cnn-proxynca"
    assert labels["job_type"] == "eif"
    assert labels["tags"] == [
        *("dataset:glyphs", "noise:none", "model:small_cnn", "loss:proxynca"),
        *("target:all", "influence:eif", "experiment:" + "x" * 53),
    ]
    kept = {"seed": 4, "loss": {"optimizer": {"lr": 0.1}}, "choices": config["choices"], "run": "name"}
    assert labels["config"] == kept


@pytest.mark.parametrize(("error", "code"), [(ValueError, 1), (KeyboardInterrupt, 130), (None, 0)])
def test_a_run_that_fails_ends_as_failed_and_the_next_is_another(tmp_path, error, code, capsys):
    @tracker.followed
    def job(number):
        run = tracker.page(tracker.wandb(tmp_path, f"job {number}", CONFIG, "tests"))
        run.log({"number": number})
        if number == 0 and error:
            raise error("no")
        tracker.end(run)
        return number

    if error:
        with pytest.raises(error, match="no"):
            job(0)
    else:
        assert job(0) == 0
    assert job(1) == 1
    first, second = offline.pages(tmp_path)
    assert (first.code, second.code) == (code, 0)
    assert (first.history[0]["number"], second.history[0]["number"]) == (0, 1)
    assert first.run.run_id != second.run.run_id
    assert capsys.readouterr().err.count("wandb sync") == 2


def test_an_error_without_w_and_b_passes(monkeypatch):
    @tracker.followed
    def job():
        raise ValueError("no")

    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    with pytest.raises(ValueError, match="no"):
        job()


def test_disabled_follows_nothing_and_says_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("WANDB_MODE", "disabled")

    @tracker.followed
    def job():
        assert tracker.page(tracker.wandb(tmp_path, "name", CONFIG, "tests")) is None
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        job()
    assert capsys.readouterr().err == ""
    assert not list(tmp_path.rglob("*.wandb"))


def test_every_job_is_followed():
    assert story.run.__wrapped__.__name__ == "run"


SCRIPT = """
from pathlib import Path
from deconfuse.tracking import tracker
logger = tracker.wandb(Path({folder!r}), "glyphs-seed0-abc", {config!r}, "tests", patience=3)
logger.log_metrics({{"loss": 1.5}})
tracker.end(tracker.page(logger))
"""


@pytest.mark.slow
@pytest.mark.parametrize("logged_in", [False, True])
def test_wandb_goes_offline_without_a_prompt_or_a_wait(tmp_path, logged_in, monkeypatch):
    """Not logged in: offline. Logged in with a server that can't be reached: offline too, soon."""
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    if logged_in:
        monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    script = SCRIPT.format(folder=str(tmp_path / "run"), config=CONFIG)
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT / "src",
        capture_output=True,
        text=True,
        timeout=120,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stderr
    assert "wandb sync" in done.stderr
    assert time.monotonic() - start < 90
    (page,) = offline.pages(tmp_path)
    assert page.run.display_name == "glyphs-seed0-abc"
    assert [line["loss"] for line in page.history] == [1.5]
    assert page.code == 0


def test_tensorboard_gets_the_settings_and_the_numbers(tmp_path):
    pytest.importorskip("tensorboard", reason="tensorboard is an extra")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    logger = tracker.tensorboard(tmp_path, "run", {"seed": 3, **CONFIG})
    logger.log_metrics({"loss": 0.5}, step=7)
    tracker.numbers(logger, {"retrieval/R@1": 0.75, "confusions": 12.0})
    events = EventAccumulator(str(tmp_path / "tensorboard/run")).Reload()
    assert [(e.step, e.value) for e in events.Scalars("loss")] == [(7, 0.5)]
    assert events.Scalars("retrieval/R_at_1")[0].value == 0.75
    assert events.Scalars("confusions")[0].value == 12


def test_mlflow_gets_the_settings_and_the_numbers(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow", reason="mlflow is an extra")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    logger = tracker.mlflow(tmp_path, "my run", {"seed": 3, **CONFIG}, "project")
    logger.log_metrics({"loss": 0.5}, step=7)
    tracker.numbers(logger, {"retrieval/R@1": 0.75})
    client = mlflow.tracking.MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    (run,) = client.search_runs([client.get_experiment_by_name("project").experiment_id])
    assert run.data.metrics == {"loss": 0.5, "retrieval/R_at_1": 0.75}
    assert run.data.params["seed"] == "3"
    assert (run.info.run_name, run.info.status) == ("my run", "FINISHED")


@pytest.mark.parametrize("kind", ["tensorboard", "mlflow"])
def test_a_logger_that_is_not_installed_is_one_line(kind, tmp_path, monkeypatch):
    def missing(*args, **settings):
        raise ModuleNotFoundError(f"No module named {kind!r}")

    monkeypatch.setattr(
        tracker, {"tensorboard": "TensorBoardLogger", "mlflow": "MLFlowLogger"}[kind], missing
    )
    more = ("project",) if kind == "mlflow" else ()
    with pytest.raises(UserError, match=rf"^logger={kind} needs {kind}; pip install 'deconfuse\[{kind}\]'$"):
        getattr(tracker, kind)(tmp_path, "run", CONFIG, *more)


def test_numbers_go_to_no_other_logger(tmp_path):
    logger = tracker.csv(tmp_path, "run", {})
    tracker.numbers(logger, {"confusions": 1.0})
    tracker.numbers(None, {"confusions": 1.0})
    assert not list(tmp_path.rglob("*.csv"))
