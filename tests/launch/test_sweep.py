import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest
import torch
from omegaconf import OmegaConf

from deconfuse import __main__
from deconfuse.launch import sweep
from deconfuse.system import files
from deconfuse.system.words import many
from tests.conftest import ROOT
from tests.test_story import SMALL_TABLES, TINY, report


def here(monkeypatch, output, *words):
    """A sweep in this process, as the command line does it; returns the exit code."""
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
    monkeypatch.setattr(sweep, "started", [])
    monkeypatch.setattr(sweep, "made", {})
    monkeypatch.setattr(sys, "argv", ["run.py", "-m", *TINY, f"output_dir={output}", *words])
    return sweep.command(__main__.run)


@pytest.fixture
def go(monkeypatch, tmp_path):
    return lambda *words, output=tmp_path / "out": here(monkeypatch, output, *words)


@pytest.fixture
def pretend(monkeypatch, tmp_path):
    """Jobs that only say what they were asked for."""
    seen = []

    def job(cfg):
        seen.append((cfg.seed, cfg.noise.ratio, cfg.influence._target_.split(".")[2]))
        return tmp_path

    monkeypatch.setattr("deconfuse.story.run", job)
    return seen


def runs(output):
    return sorted(path.parent for path in output.glob("*/metrics.json"))


def times(output):
    return {path: path.stat().st_mtime_ns for path in output.rglob("*") if path.is_file()}


def kept(output):
    """Everything but the sweeps' own records."""
    return {path: when for path, when in times(output).items() if "multirun" not in path.parts}


def bytes_of(folders):
    return {(folder.name, name): (folder / name).read_bytes() for folder in folders for name in SMALL_TABLES}


@pytest.mark.slow
def test_each_job_is_done_once_and_counted_every_time(go, tmp_path, capsys):
    words, output = ["seed=0,1", "influence=eif,random"], tmp_path / "out"
    assert go(*words) == 0
    first, said = kept(output), capsys.readouterr()
    assert len(runs(output)) == 4
    assert (
        sorted(report(folder)["checkpoint"]["reused"] for folder in runs(output)) == [False] * 2 + [True] * 2
    )
    assert said.err.startswith("4 jobs; records in ")
    assert "[3/4] seed=1 influence=eif: trained " in said.err
    table = said.out[said.out.index("All rows:") :]
    assert "| eif | 2 |" in table
    assert "| random | 2 |" in table
    assert go(*words) == 0
    said = capsys.readouterr()
    assert kept(output) == first
    assert re.findall(r"^\[(\d)/4\] seed=\d influence=\w+: done before: ", said.err, re.M) == list("1234")
    assert said.out.strip() == table.strip()
    # One more method is one more job for each seed; a word that is there twice is done once.
    assert go("seed=0,1", "influence=random,tracin,tracin") == 0
    assert first.items() <= kept(output).items()
    assert len(runs(output)) == 6
    assert "| tracin | 2 |" in capsys.readouterr().out


@pytest.mark.slow
def test_what_is_stale_is_explained_again_and_nothing_else(go, tmp_path, capsys, monkeypatch):
    words, output = ["seed=0", "influence=random,eif,eif_code,tracin"], tmp_path / "out"
    go(*words)
    folders, content, before = runs(output), bytes_of(runs(output)), kept(output)
    (folders[0] / "metrics.json").write_text("{")
    array = folders[1] / "influence.npy"
    array.write_bytes(array.read_bytes()[:-1])
    (folders[2] / "samples.csv").unlink()

    def again():
        after = kept(output)
        return [x for x in folders if after[x / "metrics.json"] != before[x / "metrics.json"]]

    assert go(*words) == 0
    assert again() == folders[:3]
    assert bytes_of(folders) == content
    (checkpoint,) = output.glob("checkpoints/*/model.ckpt")
    assert kept(output)[checkpoint] == before[checkpoint]
    # What another format's code left is stale, and again=true takes nothing for done.
    words[1] = "influence=random"
    for word, number in (("again=false", 99), ("again=true", 99)):
        for module in ("results", "finished"):
            monkeypatch.setattr(f"deconfuse.runs.{module}.RESULTS_FORMAT", number)
        before = kept(output)
        assert go(*words, word) == 0
        assert [folder.name.split("-")[4] for folder in again()] == ["random"]
        assert report(again()[0])["format"] == 99
    # How often a run was made is no setting, and a checkpoint that is gone is not missed.
    checkpoint.unlink()
    before = kept(output)
    capsys.readouterr()
    assert go("seed=0", "influence=random,tracin", "again=false") == 0
    assert again() == [folder for folder in folders if "tracin" in folder.name]
    assert "| random | 1 |" in capsys.readouterr().out


def test_a_job_that_fails_is_named_and_the_others_are_there(go, tmp_path, capsys):
    assert go("seed=0", "influence.n_theta=2,0,1") == 1
    said = capsys.readouterr()
    assert "[2/3] influence.n_theta=0: error: influence.n_theta=0 is too small; give 1 or more\n" in said.err
    assert said.err.endswith("error: 1 job failed: influence.n_theta=0\n")
    assert "Traceback" not in said.err
    assert len(runs(tmp_path / "out")) == 2
    assert said.out.count("\n| influence.n_theta=1 | 1 |") == 1
    assert said.out.count("\n| influence.n_theta=2 | 1 |") == 1


def test_an_error_that_is_not_the_users_has_its_traceback_and_the_others_are_there(
    go, capsys, monkeypatch, tmp_path
):
    def job(cfg):
        if cfg.seed == 1:
            raise ZeroDivisionError("by hand")
        return tmp_path

    monkeypatch.setattr("deconfuse.story.run", job)
    assert go("seed=0,1,2") == 1
    said = capsys.readouterr().err
    assert "in job\n" in said
    assert "[2/3] seed=1: error: ZeroDivisionError: by hand" in said
    assert said.endswith("error: 1 job failed: seed=1\n")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["influence=eif,eef"], r"there is no influence=eef; did you mean eif\?.* \[influence=eef\]"),
        (["seed=0,1", "recipe.epoch=3"], r"there is no key recipe.epoch; did you mean epochs"),
        (["model=small_cnn,timm"], r".*there is no key model.width.* \[model=timm\]"),
        (["seed=0,???"], r"seed has no default; give it as seed=VALUE \[seed=\?\?\?\]"),
        (["seed=0,${nope}"], r"Interpolation key 'nope' not found$"),
        (["output_dir='a','b'"], r"output_dir is one for all jobs"),
        (["experiment=baseline,counterfactual"], r"experiments that sweep over seed themselves"),
    ],
)
def test_a_wrong_word_of_any_job_is_one_line_before_the_first_starts(
    go, pretend, tmp_path, words, message, capsys
):
    try:
        code = go(*words)
        said = capsys.readouterr().err
    except SystemExit as end:
        code, said = 1, f"{end.code}\n"
    assert code == 1
    assert re.match(f"error: {message}", said)
    assert said.count("\n") == 1
    assert not pretend
    assert not list(tmp_path.glob("**/jobs.json"))


@pytest.mark.parametrize(
    ("words", "jobs"),
    [
        (["experiment=baseline"], [(seed, 0.1, "eif") for seed in (0, 1, 2)]),
        (["experiment=baseline", "seed=7"], [(7, 0.1, "eif")]),
        (["experiment=baseline", "seed=7,8", "noise=flip_5"], [(7, 0.05, "eif"), (8, 0.05, "eif")]),
        (["experiment=baseline", "noise=none,flip_1", "seed=4"], [(4, 0.0, "eif"), (4, 0.01, "eif")]),
        (["experiment=counterfactual", "influence=random,eif"], [(0, 0.1, "random"), (0, 0.1, "eif")]),
    ],
)
def test_the_command_line_narrows_an_experiment(go, pretend, words, jobs, capsys):
    assert go(*words) == 0
    assert pretend == jobs
    assert capsys.readouterr().err.startswith(f"{many(len(jobs), 'job')}; ")


def test_jobs_at_once_begin_with_different_models():
    task = [
        "seed=0,1",
        "influence=eif,if",
        "+trainer.devices=1",
        "counterfactual.seed=0,1",
        "noise.ratio=0.1,0.2",
    ]
    node = {"overrides": {"task": task}, "sweeper": {"params": {"seed": "5,6", "detector": "knn,loss"}}}
    config = OmegaConf.create({"hydra": node})
    sweep.different_models_first(config)
    assert config.hydra.sweeper.params is None
    assert config.hydra.overrides.task == [
        *("detector=knn,loss", "influence=eif,if", "counterfactual.seed=0,1"),
        *("seed=5,6", "seed=0,1", "+trainer.devices=1", "noise.ratio=0.1,0.2"),
    ]


def test_a_job_is_called_by_the_words_that_not_all_have():
    jobs = [["a=1", "seed=0", "b=2"], ["a=1", "seed=1", "b=2"]]
    assert [sweep.name(words, jobs) for words in jobs] == ["seed=0", "seed=1"]
    assert sweep.name(jobs[0], jobs[:1]) == sweep.name(jobs[0], None) == "a=1 seed=0 b=2"


def test_jobs_without_a_record_are_named_at_the_end(tmp_path, capsys):
    jobs = [["seed=0"], ["seed=1"], ["seed=2"]]
    (tmp_path / "jobs.json").write_text(json.dumps({"process": 1, "traceback": False, "jobs": jobs}))
    record = {"words": ["seed=1"], "folder": "x", "error": None, "seconds": 1}
    (tmp_path / "1.json").write_text(json.dumps(record))
    assert sweep.end(tmp_path) == 1
    assert capsys.readouterr().err == "error: 2 jobs did not end: seed=0, seed=2\n"


def start(output, *words, **settings):
    return subprocess.Popen(
        [sys.executable, "-m", "src.run", "-m", *TINY, f"output_dir={output}", *words],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **settings,
    )


def until(process, happened):
    end = time.monotonic() + 400
    while not happened():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.02)


STOPPED = ["recipe.epochs=10", "seed=0,1", "influence=random,eif"]


@pytest.fixture(scope="module")
def never_stopped(tmp_path_factory):
    """What the sweep finds that is left alone."""
    output = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as monkeypatch:
        assert here(monkeypatch, output, *STOPPED) == 0
    return bytes_of(runs(output))


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT], ids=["killed", "interrupted"])
def test_a_sweep_that_was_stopped_goes_on_with_the_same_command(go, tmp_path, how, never_stopped, capsys):
    output = tmp_path / "out"
    process = start(output, *STOPPED, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
    # Early in the training of the second model, when the two jobs before it are done.
    until(process, lambda: list(output.glob("checkpoints/*-seed1-*/last.ckpt")))
    process.send_signal(how)
    _, said = process.communicate(timeout=300)
    assert process.returncode == {signal.SIGKILL: -9, signal.SIGINT: 130}[how], said
    if how == signal.SIGINT:
        assert said.endswith("\ninterrupted; the same command goes on after the last whole epoch\n")
    done, before = runs(output), times(output)
    assert len(done) == 2
    assert go(*STOPPED) == 0
    said = capsys.readouterr().err
    assert said.count("done before") == len(done)
    assert said.count("resuming training from") == 1
    for folder in done:
        for file in (path for path in folder.iterdir() if path.is_file()):
            assert file.stat().st_mtime_ns == before[file]
    assert bytes_of(runs(output)) == never_stopped


@pytest.mark.parametrize("kind", ["sweep", "one job"])
def test_sigterm_ends_with_one_line_and_what_is_done_stays_done(go, tmp_path, monkeypatch, capsys, kind):
    begun = []

    def job(cfg):
        begun.append(cfg.seed)
        if cfg.seed == 1:
            signal.raise_signal(signal.SIGTERM)
        return tmp_path

    monkeypatch.setattr("deconfuse.story.run", job)
    if kind == "sweep":
        assert go("seed=0,1,2") == 0
    else:
        monkeypatch.setattr(sys, "argv", ["run.py", *TINY, f"output_dir={tmp_path}", "seed=1"])
        assert sweep.command(__main__.run) == 0
    said = capsys.readouterr().err
    assert said.endswith("\nstopped by SIGTERM; the same command goes on after the last whole epoch\n")
    assert "Traceback" not in said
    assert begun == ([0, 1] if kind == "sweep" else [1])
    records = sorted(path.name for path in tmp_path.glob("out/multirun/*/*.json"))
    assert records == (["0.json", "jobs.json"] if kind == "sweep" else [])


def test_what_a_killed_sweep_was_writing_goes_with_the_next(go, pretend, tmp_path):
    earlier = tmp_path / "out" / "multirun" / "earlier"
    earlier.mkdir(parents=True)
    (earlier / "jobs.json").write_text("{}")
    gone = subprocess.Popen(["true"])
    gone.wait()
    (earlier / f".0.json.{files._machine()}.{gone.pid}.partial").write_text("{")
    assert go("seed=0,1") == 0
    assert [path.name for path in earlier.iterdir()] == ["jobs.json"]


@pytest.mark.slow
def test_jobs_at_once_share_a_checkpoint_and_find_what_one_after_the_other_finds(go, tmp_path):
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    words = ["influence=random,eif", "counterfactual.subsets=3,1", "counterfactual.steps=2", "target=pairs"]
    at_once, output = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"], tmp_path / "out"
    process = start(output, *words, *at_once, env={**os.environ, "OMP_NUM_THREADS": "1"})
    out, said = process.communicate(timeout=550)
    assert process.returncode == 1, said
    assert said.startswith("4 jobs, 2 at a time on 1 thread each (hydra.launcher.n_jobs=2); ")
    assert said.count(": trained ") == 1
    assert said.count(": reusing ") == 1
    assert "error: 2 jobs failed: influence=random counterfactual.subsets=1; influence=eif" in said
    assert out.count("Results ") == 2
    assert "| eif | 1 |" in out
    reused = [report(folder)["checkpoint"]["reused"] for folder in runs(output)]
    assert sorted(reused) == [False, True]
    assert not list(output.rglob(".*.lock"))
    torch.set_num_threads(1)
    assert go(*words, output=tmp_path / "basic") == 1
    assert bytes_of(runs(output)) == bytes_of(runs(tmp_path / "basic"))
    one, other = (next(folder.glob("checkpoints/*/history.csv")) for folder in (output, tmp_path / "basic"))
    assert one.read_bytes() == other.read_bytes()


@pytest.mark.slow
def test_jobs_that_submitit_starts_leave_records_and_share_a_checkpoint(tmp_path):
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    output = tmp_path / "out"
    words = ["hydra/launcher=submitit_local", "target=pairs", "influence=random,eif", "candidates=5,0"]
    process = start(output, *words, env={**os.environ, "OMP_NUM_THREADS": "1"})
    out, said = process.communicate(timeout=550)
    assert process.returncode == 1, said
    assert said.startswith("4 jobs; records in ")
    assert "error: 2 jobs failed: influence=random candidates=0; influence=eif candidates=0" in said
    assert "| eif | 1 |" in out
    assert sorted(report(folder)["checkpoint"]["reused"] for folder in runs(output)) == [False, True]
    assert not list(output.rglob(".*.lock"))


def test_a_job_that_submitit_lost_is_named_and_what_the_others_found_is_shown(tmp_path, capsys, monkeypatch):
    utils = pytest.importorskip("submitit.core.utils")
    jobs = [["seed=0"], ["seed=1"]]
    (tmp_path / "jobs.json").write_text(json.dumps({"process": 1, "traceback": False, "jobs": jobs}))
    record = {"words": ["seed=1"], "folder": "x", "error": None, "seconds": 1}
    (tmp_path / "1.json").write_text(json.dumps(record))
    monkeypatch.setattr(sweep, "started", [tmp_path])
    monkeypatch.setattr(sweep, "traceback_wanted", False)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")

    def main():
        raise utils.UncompletedJobError("Job 7 (task: 0) has no result\nand more lines")

    assert sweep.command(main) == 1
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 2
    assert said[0].startswith("error: a job ended without a result: killed, or out of time")
    assert said[1] == "error: 1 job did not end: seed=0"
