import subprocess
import sys
import time

import pandas as pd
import pytest
from pytorch_lightning.loggers import CSVLogger

from src import tracker
from tests.conftest import ROOT

TABLES = {"confusions.csv": pd.DataFrame({"confusion": [0, 1], "distance": [0.5, None]})}
METRICS = {"retrieval": {"R@1": 0.5}, "confusions": 2, "noise": None}


def test_none_and_csv(tmp_path):
    assert tracker.none(tmp_path, "run", {}) is None
    logger = tracker.csv(tmp_path, "run", {})
    assert isinstance(logger, CSVLogger)
    tracker.publish(logger, METRICS, TABLES)
    tracker.publish(None, METRICS, TABLES)


SCRIPT = """
import pandas as pd
from pathlib import Path
from src import tracker
config = {{"choices": {{"dataset": "glyphs"}}}}
logger = tracker.wandb(Path({folder!r}), "glyphs-seed0-abc", config, "tests", patience=3)
logger.log_metrics({{"loss": 1.5}})
table = pd.DataFrame({{"confusion": [0], "distance": [0.5]}})
tracker.publish(logger, {metrics!r}, {{"confusions.csv": table}})
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
    script = SCRIPT.format(folder=str(tmp_path / "run"), metrics=METRICS)
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stderr
    assert "wandb sync" in done.stderr
    assert time.monotonic() - start < 90
    (log,) = (tmp_path / "run" / "wandb").glob("offline-run-*/run-*.wandb")
    content = log.read_bytes()
    assert b"glyphs-seed0-abc" in content
    assert b"retrieval/R@1" in content
    assert (tmp_path / "run" / "wandb").exists()
