import json
import os
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest
from hydra.core.global_hydra import GlobalHydra

from deconfuse.__main__ import command as main
from tests.conftest import ROOT
from tests.test_story import TINY


def command(*words, **environment):
    return subprocess.run(
        [sys.executable, "-m", "src.run", *words],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=200,
    )


ANSWER = """
import json, sys
from src.run import subcommand
sys.argv = ["run.py", *json.loads(sys.argv[1])]
code = 0
try:
    subcommand("run")
except SystemExit as end:
    code = end.code
finally:
    print("torch" in sys.modules, "pytorch_lightning" in sys.modules)
sys.exit(code)
"""


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["losss=softtriple"], 1, "did you mean loss?"),
        (["loss=softriple"], 1, "did you mean softtriple?"),
        (["-m", "seed=0,1", "influence.radus=0.1"], 1, "did you mean path.radius?"),
        (["-m", "seed=0,1", "influence.radus=0.1", "hydra/launcher=joblib"], 1, "did you mean path.radius?"),
        (["-m", "--cfg", "job"], 1, "error: give one of -m, --cfg and --info"),
        (["--cfg", "job"], 0, "log_every_n_steps"),
        (["--help"], 0, "  python -m src.run dataset=folder dataset.root=DIR "),
    ],
)
def test_a_misspelt_word_and_help_are_answered_before_torch_is_imported(words, code, said, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", ANSWER, json.dumps([*words, f"output_dir={tmp_path}"])],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == code, done.stderr
    assert said in done.stdout + done.stderr
    assert done.stdout.endswith("False False\n")


def test_help_shows_the_command_that_the_user_has_called(monkeypatch, capsys):
    GlobalHydra.instance().clear()
    monkeypatch.setattr(sys, "argv", ["deconfuse", "run", "--help"])
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
    monkeypatch.delenv("DECONFUSE_COMMAND", raising=False)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    said = capsys.readouterr().out
    assert "\n  deconfuse run noise=flip_10 " in said
    assert "\n  deconfuse run -m seed=0,1,2 " in said
    assert "src.run" not in said


@pytest.mark.slow
def test_a_sweep_ends_with_its_table(tmp_path):
    words = [
        "experiment=counterfactual",
        "hydra.sweeper.params.influence='if,random'",
        f"output_dir={tmp_path}",
    ]
    done = command(*TINY, *words, "counterfactual.subsets=4", "counterfactual.steps=2")
    assert done.returncode == 0, done.stderr
    *lines, _, more = done.stdout.strip().splitlines()
    assert more == f"Tables and pictures of all runs there: python -m src.tables {tmp_path}"
    assert [line.split("|")[1].strip() for line in lines[-4:]] == ["influence", "---", "if", "random"]
    assert "LDS ±" in lines[-4]


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
    assert "2 jobs failed: noise.ratio=1.5; noise.ratio=-1" in swept.stderr


@pytest.mark.slow
def test_ctrl_c_keeps_the_whole_epochs_and_the_same_command_goes_on(tmp_path):
    words = [f"output_dir={tmp_path}", "recipe.epochs=40", *(w for w in TINY if "epochs" not in w)]
    process = subprocess.Popen(
        [sys.executable, "-m", "src.run", *words],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # background jobs ignore it
    )
    for _ in range(3000):
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
